// SPDX-License-Identifier: Apache-2.0
// Constants that trampoline.S and smp.c share.
// TRAMPOLINE is the page that the start-up interrupt names; below 1 MiB, away from page 0.
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#define TRAMPOLINE      0x8000
#define MAX_CPUS        64
#define CPU_STACK_SHIFT 9

#endif
