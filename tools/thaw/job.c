/* SPDX-License-Identifier: Apache-2.0 */
/* Role: wait for a job of the library, with a progress bar and signals.
 * Not here: jobs of other processes (cmd_snapshot.c). */
#include "job.h"
#include "fail.h"
#include "progress.h"
#include "signals.h"
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

static void follow(thaw_job *job, int signal_fd, struct progress *progress)
{
    struct thaw_job_progress now = {.size = sizeof(now)};

    while (thaw_job_poll(job, &now) == 0 && now.state == THAW_JOB_RUNNING) {
        struct pollfd fds[] = {
            {.fd = thaw_job_event_fd(job), .events = POLLIN},
            {.fd = signal_fd, .events = POLLIN},
        };
        eventfd_t value;

        progress_draw(progress, now.phase, now.done_bytes, now.total_bytes);
        poll(fds, ARRAY_SIZE(fds), 1000);
        if (fds[0].revents)
            eventfd_read(fds[0].fd, &value);
        if (signals_take(signal_fd))
            thaw_job_cancel(job);
    }
    progress_clear(progress);
}

int job_follow(thaw_job *job, const char *title, struct thaw_error *error)
{
    struct progress progress = {.title = title};
    _cleanup_close_ int signal_fd = -1;

    signals_block();
    signal_fd = signals_open(error);
    if (signal_fd < 0)
        return signal_fd;
    follow(job, signal_fd, &progress);
    return thaw_job_wait(job, -1, error);
}
