/* SPDX-License-Identifier: Apache-2.0 */
/* The clock that all durations and deadlines are by, and when the steps of a restore were done. */
#ifndef VMM_TIMING_H
#define VMM_TIMING_H

#include <stdint.h>
#include <time.h>

/* 0: not, or not yet. */
struct timing {
    uint64_t request_ns;
    uint64_t opened_ns;
    uint64_t shell_ns;
    uint64_t memory_ns;
    uint64_t state_ns;
};

/* CLOCK_MONOTONIC. */
uint64_t timing_now_ns(void);

/* When so many milliseconds will have passed; a negative number counts as 0. */
struct timespec timing_deadline(int timeout_ms);

#endif
