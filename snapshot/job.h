/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of thaw_job: work on a thread of its own, with progress, a wish to stop, and an end. */
#ifndef SNAPSHOT_JOB_H
#define SNAPSHOT_JOB_H

#include "error.h"
#include <thaw/snapshot.h>

struct job_ops {
    /* On the job's thread. What it returns is the job's result. */
    int (*run)(struct thaw_job *job, void *data, struct thaw_error *error);
    /* After the end, when the job is freed. */
    void (*free)(void *data);
};

/* Who is told of a job's progress besides those who ask. */
struct job_listener {
    thaw_progress_fn progress; /* NULL: nobody */
    void *data;
};

/* Starts a job. `data` is the job's if this succeeds, and the caller's if not. `name` names the
 * thread. listener may be NULL. */
int job_start(const char *name, const struct job_ops *ops, void *data,
    const struct job_listener *listener, struct thaw_job **ret, struct thaw_error *error);

/* For the job's own thread. job_advance: so many bytes more are done. */
void job_phase(struct thaw_job *job, const char *phase, uint64_t total_bytes);
void job_advance(struct thaw_job *job, uint64_t bytes);
bool job_cancelled(const struct thaw_job *job);

/* The data of a job that is DONE and was started with these ops; NULL otherwise. */
void *job_done_data(struct thaw_job *job, const struct job_ops *ops);

#endif
