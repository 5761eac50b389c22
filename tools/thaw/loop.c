/* SPDX-License-Identifier: Apache-2.0 */
/* Role: wait for descriptors and call their handlers.
 * Not here: timers, which are the timeout of a turn (owner.c). */
#include "loop.h"
#include "fail.h"
#include <errno.h>
#include <sys/epoll.h>

int loop_open(struct loop *loop, struct thaw_error *error)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->epoll_fd < 0 ? fail_errno(error, errno, "cannot make an epoll descriptor") : 0;
}

void loop_close(struct loop *loop)
{
    cleanup_close(&loop->epoll_fd);
    loop->epoll_fd = -1;
}

int loop_watch(struct loop *loop, struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (source->watched && source->events == events)
        return 0;
    if (epoll_ctl(loop->epoll_fd, source->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, source->fd,
            &event) != 0)
        return -errno;
    source->watched = true;
    source->events = events;
    return 0;
}

void loop_unwatch(struct loop *loop, struct loop_source *source)
{
    if (source->watched)
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->watched = false;
}

void loop_turn(struct loop *loop, int timeout_ms)
{
    struct epoll_event event;

    if (epoll_wait(loop->epoll_fd, &event, 1, timeout_ms) == 1) {
        struct loop_source *source = event.data.ptr;

        source->ready(source->data, event.events);
    }
}
