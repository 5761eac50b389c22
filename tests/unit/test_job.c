// SPDX-License-Identifier: Apache-2.0
// Jobs as their owner sees them, with work that does nothing.

#include "job.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct work {
    atomic_bool may_end;
    atomic_bool freed;
    int result;
};

static int run(struct thaw_job *job, void *data, struct thaw_error *error)
{
    struct work *work = data;
    job_phase(job, "working", 100);
    job_advance(job, 250);
    while (!atomic_load(&work->may_end)) {
        if (job_cancelled(job))
            return error_set(error, -ECANCELED, "cancelled");
        usleep(100);
    }
    return work->result < 0 ? error_set(error, work->result, "it went wrong") : 0;
}

static void free_work(void *data)
{
    struct work *work = data;
    atomic_store(&work->freed, true);
}

static const struct job_ops ops = {.run = run, .free = free_work};
static const struct job_ops other_ops = {.run = run};

static thaw_job *start(struct work *work)
{
    thaw_job *job;
    struct thaw_error error;
    cr_assert_eq(job_start("test/job", &ops, work, NULL, &job, &error), 0, "%s", error.message);
    return job;
}

static enum thaw_job_state state_of(thaw_job *job)
{
    struct thaw_job_progress progress = {.size = sizeof(progress)};
    cr_assert_eq(thaw_job_poll(job, &progress), 0);
    return progress.state;
}

Test(job, ends_with_its_result_and_says_so)
{
    struct work work = {0};
    struct thaw_error error = {.code = 1};
    thaw_job *job = start(&work);
    cr_assert_eq(state_of(job), THAW_JOB_RUNNING);
    cr_assert_null(job_done_data(job, &ops));
    cr_assert_eq(thaw_job_wait(job, 1, &error), -ETIMEDOUT);
    cr_assert_eq(error.code, 1, "the error of a job that has not ended was written");
    atomic_store(&work.may_end, true);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0);
    cr_assert_eq(thaw_job_wait(job, 0, &error), 0, "it can be waited for again");
    cr_assert_eq(state_of(job), THAW_JOB_DONE);
    cr_assert_eq(job_done_data(job, &ops), &work);
    cr_assert_null(job_done_data(job, &other_ops), "data of another kind of job");
    struct pollfd end = {.fd = thaw_job_event_fd(job), .events = POLLIN};
    cr_assert_eq(poll(&end, 1, 10000), 1);
    thaw_job_free(job);
    cr_assert(atomic_load(&work.freed));
}

Test(job, fails_with_its_error)
{
    struct work work = {.may_end = true, .result = -EIO};
    struct thaw_error error;
    thaw_job *job = start(&work);
    cr_assert_eq(thaw_job_wait(job, -1, &error), -EIO);
    cr_assert_eq(error.code, -EIO);
    cr_assert_str_eq(error.message, "it went wrong");
    cr_assert_eq(thaw_job_wait(job, -1, NULL), -EIO);
    cr_assert_eq(state_of(job), THAW_JOB_FAILED);
    cr_assert_null(job_done_data(job, &ops));
    thaw_job_free(job);
}

Test(job, is_cancelled_as_often_as_one_likes)
{
    struct work work = {0};
    thaw_job *job = start(&work);
    thaw_job_cancel(job);
    thaw_job_cancel(job);
    cr_assert_eq(thaw_job_wait(job, -1, NULL), -ECANCELED);
    thaw_job_cancel(job);
    cr_assert_eq(state_of(job), THAW_JOB_FAILED);
    thaw_job_free(job);
}

Test(job, is_cancelled_when_it_is_freed)
{
    struct work work = {0};
    thaw_job_free(start(&work));
    cr_assert(atomic_load(&work.freed));
    thaw_job_free(NULL);
}

Test(job, progress_fits_what_the_caller_knows)
{
    struct work work = {0};
    thaw_job *job = start(&work);
    struct thaw_job_progress progress = {0};
    cr_assert_eq(thaw_job_poll(job, &progress), -EINVAL);
    progress.size = sizeof(progress);
    do
        cr_assert_eq(thaw_job_poll(job, &progress), 0);
    while (progress.done_bytes == 0);
    cr_assert_str_eq(progress.phase, "working");
    cr_assert_eq(progress.total_bytes, 100);
    cr_assert_eq(progress.done_bytes, 100, "more than all is done");

    struct thaw_job_progress old;
    memset(&old, 0x55, sizeof(old));
    old.size = offsetof(struct thaw_job_progress, done_bytes);
    cr_assert_eq(thaw_job_poll(job, &old), 0);
    cr_assert_eq(old.done_bytes, 0x5555555555555555, "a field that the caller lacks was written");
    thaw_job_free(job);
}
