/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests on the control socket do; docs/api.md describes them. */
#ifndef TOOLS_API_H
#define TOOLS_API_H

#include "owner.h"
#include "server.h"

/* {"code":CODE,"message":MESSAGE} of an error. NULL if memory is short. */
json_t *api_error_json(const struct thaw_error *error);

/* A server_handle_fn; data is the owner. */
void api_handle(void *data, const struct http_request *request, struct server_response *response);

#endif
