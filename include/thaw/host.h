/* SPDX-License-Identifier: Apache-2.0 */
/* What this host offers for running and restoring VMs, found out by trying. */
#ifndef THAW_HOST_H
#define THAW_HOST_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum thaw_check_status {
    THAW_CHECK_OK = 0,
    THAW_CHECK_DEGRADED = 1, /* thaw works without it; `effect` says what that costs */
    THAW_CHECK_MISSING = 2,  /* thaw cannot run VMs without it */
};

/* One thing that was looked at. Strings are owned by the report. */
struct thaw_host_check {
    const char *name; /* stable, lower case with dashes: "kvm-irqchip" */
    enum thaw_check_status status;
    const char *found;  /* what was found: "yes", "4096", "/dev/userfaultfd: Permission denied" */
    const char *effect; /* what it is for, or what its absence costs and how to mend it */
};

typedef struct thaw_host_report thaw_host_report;

/* Examines the host; takes some tens of milliseconds, since it runs a small guest. Succeeds also
 * where things are missing: that is what the report tells. *ret is owned by the caller. Any thread.
 */
THAW_API int thaw_host_probe(thaw_host_report **ret, struct thaw_error *error);
/* NULL is allowed. */
THAW_API void thaw_host_report_free(thaw_host_report *report);

/* A report does not change: any number of threads may read it until it is freed. */
THAW_API size_t thaw_host_report_count(const thaw_host_report *report);
/* Borrowed until the report is freed; NULL past the end. */
THAW_API const struct thaw_host_check *thaw_host_report_get(
    const thaw_host_report *report, size_t index);
/* The worst status of all checks. */
THAW_API enum thaw_check_status thaw_host_report_status(const thaw_host_report *report);

#ifdef __cplusplus
}
#endif
#endif
