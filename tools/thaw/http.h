/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP/1 request out of a buffer of untrusted bytes. No I/O and no state: the fuzz target calls
 * http_parse_request as it is. */
#ifndef TOOLS_HTTP_H
#define TOOLS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEADER_MAX_BYTES 8192u
#define HTTP_BODY_MAX_BYTES   98304u
#define HTTP_TARGET_MAX_BYTES 1024u

struct http_request {
    const char *method;                    /* a constant: "GET" */
    char path[HTTP_TARGET_MAX_BYTES + 1];  /* "/v1/vm" */
    char query[HTTP_TARGET_MAX_BYTES + 1]; /* what follows '?', "" if nothing does */
    const char *body;                      /* into the buffer */
    size_t body_count;
    bool http_1_1;
    bool keep_alive;
    bool abandoned; /* set by the server: the client has gone already */
    bool same_user; /* set by the server: the client's process is of this process's user */
};

struct http_progress {
    size_t used;          /* complete: bytes that the request takes up */
    bool headers_done;    /* incomplete: only body bytes are missing */
    bool expect_continue; /* ... and the client waits for a "100 Continue" before it sends them */
};

/* 0: *ret holds a whole request. -EAGAIN: the bytes are the beginning of one. Above 0: the HTTP
 * status with which to refuse it; nothing after it can be understood. */
int http_parse_request(
    const char *buf, size_t count, struct http_request *ret, struct http_progress *progress);

/* "OK", "Not Found"; never NULL. */
const char *http_reason(int status);

#endif
