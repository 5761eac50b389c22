// SPDX-License-Identifier: Apache-2.0
// Time by the time stamp counter. Deadlines are TSC values: after a restore that moves the clock
// forward they have simply passed.
#ifndef GUEST_TSC_H
#define GUEST_TSC_H

#include <stdint.h>

/* TSC frequency: option tsc_khz=, else CPUID 0x40000010, else CPUID 0x15, else 2.6 GHz. */
uint64_t tsc_khz(const char *cmdline);

/* Polls until the TSC reaches `deadline`. Needs nothing but the CPU, and keeps it busy. */
void tsc_spin_until(uint64_t deadline);

#endif
