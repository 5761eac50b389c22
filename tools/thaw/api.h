/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests on the control socket do; docs/api.md describes them. */
#ifndef TOOLS_API_H
#define TOOLS_API_H

#include "owner.h"
#include "server.h"

/* A server_handle_fn; data is the owner. */
void api_handle(void *data, const struct http_request *request, struct server_response *response);

#endif
