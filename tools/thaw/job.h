/* SPDX-License-Identifier: Apache-2.0 */
/* Long work of the library in this process. */
#ifndef TOOLS_JOB_H
#define TOOLS_JOB_H

#include <thaw/snapshot.h>

/* Shows the job's progress under the title, until it ends; SIGINT and the like cancel it. Returns
 * the job's result. The job is the caller's to free. */
int job_follow(thaw_job *job, const char *title, struct thaw_error *error);

#endif
