/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of the control socket: requests to the process that owns a VM. Every call has a
 * deadline, on the clock of now_ms(). */
#ifndef TOOLS_CLIENT_H
#define TOOLS_CLIENT_H

#include "util.h"
#include <sys/types.h>
#include <thaw/error.h>

/* Connects to a VM's control socket, given the VM's runtime directory. Returns the descriptor,
 * which does not block. -ENOENT, -ECONNREFUSED: nobody listens. */
int client_connect(const char *dir_path, int64_t deadline, struct thaw_error *error);

/* The process at the other end; 0 if that cannot be found out. */
pid_t client_peer(int fd);

/* Sends one request. */
int client_send(int fd, const char *method, const char *target, const char *body, size_t body_count,
    int64_t deadline, struct thaw_error *error);

/* Receives the response to it. A status of 400 and above is an error with the server's message:
 * THAW_ESTATE for 409, else -EIO. -ETIMEDOUT: no answer in time. On success *ret_body (NULL
 * allowed) is owned by the caller. */
int client_receive(int fd, int64_t deadline, json_t **ret_body, struct thaw_error *error);

/* The same for a response that a descriptor comes with: *ret_fd is owned by the caller, -1: there
 * was none. Only from a process of this user; -EPERM otherwise, before anything is sent. */
int client_ask_fd(
    int fd, const char *target, int64_t deadline, int *ret_fd, struct thaw_error *error);

/* A response that goes on. */
struct client_stream;
typedef int (*client_stream_fn)(void *data, const char *bytes, size_t count); /* negative: enough */

/* `what` it is, for messages, is borrowed: "the console". */
int client_stream_new(const char *what, client_stream_fn take, void *data,
    struct client_stream **ret, struct thaw_error *error);
void client_stream_free(struct client_stream *stream);

/* The HTTP status; 0 as long as it is not known. */
unsigned client_stream_status(const struct client_stream *stream);

/* Reads what fd has and hands the body's bytes on. 1: more may come. 0: the stream ended as it
 * should. Negative: it broke, or `take` had enough (-ECANCELED). */
int client_stream_read(struct client_stream *stream, int fd, struct thaw_error *error);

#endif
