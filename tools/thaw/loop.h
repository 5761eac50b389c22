/* SPDX-License-Identifier: Apache-2.0 */
/* A small epoll loop. One thread, one event per turn, so a handler may remove any source. */
#ifndef TOOLS_LOOP_H
#define TOOLS_LOOP_H

#include "util.h"
#include <thaw/error.h>

typedef void (*loop_ready_fn)(void *data, uint32_t events);

/* Embedded in whatever owns the descriptor; stays in place while it is watched. */
struct loop_source {
    int fd; /* borrowed */
    uint32_t events;
    bool watched;
    loop_ready_fn ready;
    void *data;
};

struct loop {
    int epoll_fd;
};

int loop_open(struct loop *loop, struct thaw_error *error);
void loop_close(struct loop *loop);

/* Watches source->fd for `events` (EPOLLIN and so on, level-triggered; 0 waits for errors and
 * hang-ups only), or changes what it is watched for. -EPERM: the descriptor is a regular file. */
int loop_watch(struct loop *loop, struct loop_source *source, uint32_t events);
void loop_unwatch(struct loop *loop, struct loop_source *source);

/* Waits for one event, at most timeout_ms (negative: for ever), and handles it. */
void loop_turn(struct loop *loop, int timeout_ms);

#endif
