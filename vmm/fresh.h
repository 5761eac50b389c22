/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM has before its state is set. All that are made in the same way have the same, so a
 * later one need not be told what an earlier one was found to have.
 */
#ifndef VMM_FRESH_H
#define VMM_FRESH_H

#include "kvm_state.h"
#include <stdatomic.h>
#include <thaw/vm.h>

struct thaw_vm;

/* Of VMs that are made in one way. Each pointer is set once, and what it points to does not change.
 */
struct fresh {
    struct vcpu_state *_Atomic vcpus[THAW_VCPUS_MAX];
    struct vm_chips *_Atomic chips;
};

void fresh_fini(struct fresh *fresh);

/* The processors that all VMs of this host have, by how many there are, less one, and which it is.
 * Each pointer is set once. */
struct fresh_processors {
    struct cpu_x86_default *_Atomic known[THAW_VCPUS_MAX][THAW_VCPUS_MAX];
};

void fresh_processors_fini(struct fresh_processors *processors);

/* Makes a new vCPU the processor that guests of this host see. */
int fresh_vcpu_init(struct vcpu_fresh *vcpu, struct fresh_processors *processors, int vcpu_fd,
    uint32_t index, uint32_t count, const struct cpu_x86_cpuid *template, uint32_t tsc_khz,
    struct thaw_error *error);

/* Looks at a shell, for what `fresh` does not know yet, and makes it the shell's. What can't be
 * learnt is not known. */
void fresh_learn(struct fresh *fresh, struct thaw_vm *vm);

#endif
