/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: a bounded number of HTTP/1.1 connections, driven by the owner's loop. It
 * never blocks. Who is slow, idle or talks nonsense is disconnected; when all places are taken, the
 * connection that has been quiet for longest makes room, so nobody can lock the owner out. Access
 * is a matter of the directory's permissions alone.
 */
#ifndef TOOLS_SERVER_H
#define TOOLS_SERVER_H

#include "http.h"
#include "loop.h"

#define SERVER_CONNECTIONS_MAX 64
#define SERVER_STREAMS_MAX     16    /* that are limited */
#define SERVER_PART_BYTES      16384 /* of a stream, at a time */
#define SERVER_REQUEST_MS      10000 /* for a request to arrive and for a response to be taken */
#define SERVER_IDLE_MS         60000

/* A response that goes on. Copied by the server; data belongs to whoever made the stream. */
struct server_stream {
    /* Puts what there is into buf. Returns its length, 0: nothing now, negative: the end. `last`:
     * nothing is going to be added. */
    ssize_t (*next)(struct server_stream *stream, char buf[SERVER_PART_BYTES], bool last);
    void (*gone)(void *data); /* the stream ended or the client left. NULL: nobody wants to know */
    void *data;
    uint64_t pos; /* for `next` alone */
    bool limited; /* anybody may open many of these: all but SERVER_STREAMS_MAX are refused */
};

struct server_response {
    int status;
    const char *type; /* of the content */
    char allow[32];   /* the methods that would do, with status 405 */
    char *body;       /* allocated; the server frees it */
    size_t body_count;
    struct server_stream stream; /* instead of a body, if it has `next` */
    int fd;                      /* above 0: goes with the first byte of the response. Duplicated */
};

/* Fills in *response, which is all zero. */
typedef void (*server_handle_fn)(
    void *data, const struct http_request *request, struct server_response *response);

/* Fills in an error: {"error":{"code":CODE,"message":MESSAGE}}. */
void server_refuse(
    struct server_response *response, int status, const char *code, const char *message);

struct server;

/* Listens at `path`, where no file may be. loop is borrowed. */
int server_open(struct loop *loop, const char *path, server_handle_fn handle, void *data,
    struct server **ret, struct thaw_error *error);
void server_close(struct server *server); /* NULL is allowed */

/* Streams may have something new. */
void server_advance_streams(struct server *server);

/* Disconnects who overstays. Returns in how many milliseconds to call again, -1: not needed. */
int server_expire(struct server *server);

/* No further connections; streams end with what is there. True when all has been delivered. */
bool server_finish(struct server *server);

#endif
