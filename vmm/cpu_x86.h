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

/* What the guest of a vCPU sees. *ret is all zero before. */
int cpu_x86_read(int vcpu_fd, struct cpu_x86_cpuid *ret, struct thaw_error *error);

/* Turns a copy of the template into what vCPU `index` of `count` sees: APIC id and topology (one
 * socket, one thread per core). */
void cpu_x86_specialise(struct cpu_x86_cpuid *cpuid, uint32_t index, uint32_t count);

/* Appends to `list`, which holds a string already, what the entries (of a guest that was started on
 * some host) promise and this host's template does not: vendor and features. */
void cpu_x86_list_missing(const struct cpu_x86_cpuid *host, const struct kvm_cpuid_entry2 *entries,
    uint32_t count, char *list, size_t bytes);

/* What vCPU `index` of `count` is as a processor that guests of this host see, and what KVM shows
 * of it: some backends show more than they were given. */
struct cpu_x86_default {
    struct cpu_x86_cpuid given, shown;
};

/* Makes a vCPU that has not run yet the default of `template`, and finds out what that is. */
int cpu_x86_try_default(int vcpu_fd, const struct cpu_x86_cpuid *template, uint32_t index,
    uint32_t count, struct cpu_x86_default *ret, struct thaw_error *error);

/* The same for a vCPU of whose like that is known. */
int cpu_x86_set_default(int vcpu_fd, const struct cpu_x86_default *known, struct thaw_error *error);

/* True if a vCPU that has the one has the other, once its registers are the same too: bits that
 * show what the registers hold are KVM's to keep. */
bool cpu_x86_same(
    const struct cpu_x86_cpuid *one, const struct kvm_cpuid_entry2 *other, uint32_t count);

/* Gives the boot processor what firmware leaves behind: memory types and the local APIC's pins. Its
 * CPUID is set. */
int cpu_x86_set_firmware_state(int vcpu_fd, struct thaw_error *error);

/* Puts a boot processor that has this at the kernel's entry: long mode, flat segments, interrupts
 * off. */
int cpu_x86_set_boot_state(int vcpu_fd, const struct boot_entry *entry, struct thaw_error *error);

#endif
