/* SPDX-License-Identifier: Apache-2.0 */
/* When the steps of a restore were done, on CLOCK_MONOTONIC; 0: not, or not yet. */
#ifndef VMM_TIMING_H
#define VMM_TIMING_H

#include <stdint.h>

struct timing {
    uint64_t request_ns;
    uint64_t opened_ns;
    uint64_t shell_ns;
    uint64_t memory_ns;
    uint64_t state_ns;
};

uint64_t timing_now_ns(void);

#endif
