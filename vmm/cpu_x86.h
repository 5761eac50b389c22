/* SPDX-License-Identifier: Apache-2.0 */
/* What processors the guest sees, and how the first of them starts. */
#ifndef VMM_CPU_X86_H
#define VMM_CPU_X86_H

#include "boot.h"
#include "kvm.h"
#include <linux/kvm.h>

#define CPU_X86_CPUID_MAX 256

/* CPUID entries of one vCPU, in the form that KVM_SET_CPUID2 takes. */
struct cpu_x86_cpuid {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[CPU_X86_CPUID_MAX];
};

/* What the host supports, made into a template: no asynchronous page faults (a fault outstanding at
 * a snapshot would never be answered), TSC deadline timer where KVM has it. */
int cpu_x86_template(const struct kvm *kvm, struct cpu_x86_cpuid *ret, struct thaw_error *error);

/* What a guest sees that is given these entries on this vCPU, which has not run yet: some backends
 * show more of the host than they say they support. */
int cpu_x86_effective(int vcpu_fd, const struct cpu_x86_cpuid *given, struct cpu_x86_cpuid *ret,
    struct thaw_error *error);

/* What the guest of a vCPU sees. *ret is all zero before. */
int cpu_x86_read(int vcpu_fd, struct cpu_x86_cpuid *ret, struct thaw_error *error);

/* Turns a copy of the template into what vCPU `index` of `count` sees: APIC id and topology (one
 * socket, one thread per core). */
void cpu_x86_specialise(struct cpu_x86_cpuid *cpuid, uint32_t index, uint32_t count);

/* Appends to `list`, which holds a string already, what the entries (of a guest that was started on
 * some host) promise and this host's template does not: vendor and features. */
void cpu_x86_list_missing(const struct cpu_x86_cpuid *host, const struct kvm_cpuid_entry2 *entries,
    uint32_t count, char *list, size_t bytes);

/* Puts the boot processor at the kernel's entry: long mode, flat segments, interrupts off. */
int cpu_x86_set_boot_state(int vcpu_fd, const struct boot_entry *entry, struct thaw_error *error);

#endif
