// SPDX-License-Identifier: Apache-2.0
// Threads for long work, and what their owner can see and ask of them. Knows no work by name.

#include "job.h"
#include "thread.h"
#include "timing.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#define NOTIFY_INTERVAL_NS 100000000u

struct thaw_job {
    const struct job_ops *ops;
    void *data;
    struct job_listener listener;
    pthread_t thread;
    int event_fd;
    atomic_bool cancelled;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t ended;
    enum thaw_job_state state;
    const char *phase;
    uint64_t done_bytes, total_bytes;
    uint64_t notified_ns;
    struct thaw_error error;
    int result;
};

/* With no lock held: the listener may take its time. */
static void notify(struct thaw_job *job)
{
    (void)eventfd_write(job->event_fd, 1);
    if (!job->listener.progress)
        return;
    struct thaw_job_progress progress = {.size = sizeof(progress)};
    thaw_job_poll(job, &progress);
    if (job->listener.progress(job->listener.data, &progress) != 0)
        thaw_job_cancel(job);
}

static void *job_thread(void *arg)
{
    struct thaw_job *job = arg;
    struct thaw_error error = {0};
    int result = job->ops->run(job, job->data, &error);
    pthread_mutex_lock(&job->lock);
    job->result = result;
    job->error = error;
    job->state = result < 0 ? THAW_JOB_FAILED : THAW_JOB_DONE;
    pthread_cond_broadcast(&job->ended);
    pthread_mutex_unlock(&job->lock);
    notify(job);
    return NULL;
}

static void free_job(struct thaw_job *job)
{
    if (job->event_fd >= 0)
        close(job->event_fd);
    pthread_cond_destroy(&job->ended);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

int job_start(const char *name, const struct job_ops *ops, void *data,
    const struct job_listener *listener, struct thaw_job **ret, struct thaw_error *error)
{
    struct thaw_job *job = calloc(1, sizeof(*job));
    if (!job)
        return error_errno(error, ENOMEM, "allocating a job");
    job->ops = ops;
    job->data = data;
    if (listener)
        job->listener = *listener;
    job->phase = "starting";
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->ended, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&job->lock, NULL);
    job->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = job->event_fd < 0 ? -errno : thread_start(&job->thread, name, job_thread, job);
    if (r < 0) {
        free_job(job);
        return error_errno(error, -r, "starting a job");
    }
    *ret = job;
    return 0;
}

void job_phase(struct thaw_job *job, const char *phase, uint64_t total_bytes)
{
    pthread_mutex_lock(&job->lock);
    job->phase = phase;
    if (total_bytes > job->total_bytes)
        job->total_bytes = total_bytes;
    pthread_mutex_unlock(&job->lock);
    notify(job);
}

void job_advance(struct thaw_job *job, uint64_t bytes)
{
    uint64_t now = timing_now_ns();
    pthread_mutex_lock(&job->lock);
    job->done_bytes += bytes;
    bool tell = now - job->notified_ns >= NOTIFY_INTERVAL_NS;
    if (tell)
        job->notified_ns = now;
    pthread_mutex_unlock(&job->lock);
    if (tell)
        notify(job);
}

bool job_cancelled(const struct thaw_job *job)
{
    return atomic_load(&job->cancelled);
}

void *job_done_data(struct thaw_job *job, const struct job_ops *ops)
{
    pthread_mutex_lock(&job->lock);
    bool done = job->state == THAW_JOB_DONE && job->ops == ops;
    pthread_mutex_unlock(&job->lock);
    return done ? job->data : NULL;
}

int thaw_job_poll(thaw_job *job, struct thaw_job_progress *progress)
{
    size_t bytes = progress->size;
    if (bytes < sizeof(progress->size))
        return -EINVAL;
    pthread_mutex_lock(&job->lock);
    struct thaw_job_progress all = {
        .size = bytes,
        .state = job->state,
        .phase = job->phase,
        .done_bytes = job->total_bytes ? MIN(job->done_bytes, job->total_bytes) : job->done_bytes,
        .total_bytes = job->total_bytes,
    };
    pthread_mutex_unlock(&job->lock);
    memcpy(progress, &all, MIN(bytes, sizeof(all)));
    return 0;
}

int thaw_job_event_fd(const thaw_job *job)
{
    return job->event_fd;
}

void thaw_job_cancel(thaw_job *job)
{
    atomic_store(&job->cancelled, true);
}

int thaw_job_wait(thaw_job *job, int timeout_ms, struct thaw_error *error)
{
    struct timespec deadline = timing_deadline(timeout_ms);
    int err = 0;
    pthread_mutex_lock(&job->lock);
    while (err == 0 && job->state == THAW_JOB_RUNNING)
        err = timeout_ms < 0 ? pthread_cond_wait(&job->ended, &job->lock)
                             : pthread_cond_timedwait(&job->ended, &job->lock, &deadline);
    bool ended = job->state != THAW_JOB_RUNNING;
    int result = job->result;
    if (ended && result < 0 && error)
        *error = job->error;
    pthread_mutex_unlock(&job->lock);
    return ended ? result : -err;
}

void thaw_job_free(thaw_job *job)
{
    if (!job)
        return;
    thaw_job_cancel(job);
    pthread_join(job->thread, NULL);
    if (job->ops->free)
        job->ops->free(job->data);
    free_job(job);
}
