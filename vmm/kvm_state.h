/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM holds of a VM, as plain data: no descriptors, no pointers into anything, no host
 * addresses. Devices that this process implements have their own state structs.
 */
#ifndef VMM_KVM_STATE_H
#define VMM_KVM_STATE_H

#include "cpu_x86.h"
#include <linux/kvm.h>

#define VCPU_STATE_MSRS_MAX  1024
#define VCPU_STATE_XSAVE_MAX 16384 /* SDM volume 1, 13.5: 11 KiB with AMX */

struct vcpu_state {
    struct kvm_mp_state mp_state;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    uint64_t tsc; /* the guest's TSC at vm_clock's instant */
    uint32_t tsc_khz;
    uint32_t cpuid_count;
    uint32_t msr_count;
    uint32_t xsave_bytes;
    struct kvm_cpuid_entry2 cpuid[CPU_X86_CPUID_MAX];
    struct kvm_msr_entry msrs[VCPU_STATE_MSRS_MAX];
    uint8_t xsave[VCPU_STATE_XSAVE_MAX];
};

/* One instant, on the clocks that matter. */
struct vm_clock {
    uint64_t kvmclock_ns; /* what the guest's kvmclock shows */
    uint64_t realtime_ns; /* CLOCK_REALTIME of the host */
    uint64_t host_tsc;
    uint32_t host_khz; /* only where it was read: not part of a snapshot */
};

struct vm_chips {
    struct kvm_pit_state2 pit;
    struct kvm_irqchip pic_master, pic_slave, ioapic;
};

/* The MSRs that make up a vCPU's state on this host: asked for once, then only read. */
struct msr_list {
    uint32_t count;
    uint32_t indices[VCPU_STATE_MSRS_MAX];
};
int msr_list_read(const struct kvm *kvm, struct msr_list *ret, struct thaw_error *error);

/* The guest's clock at an instant that is now or just over. */
struct clock_start {
    uint64_t kvmclock_ns;
    uint64_t host_tsc;
    uint32_t tsc_khz; /* by which the guest computes time */
    uint32_t host_khz;
    bool one_cpu;
};

/* Reads the clocks. Once per save; all vCPUs are parked. */
int vm_clock_save(int vm_fd, uint32_t host_khz, struct vm_clock *ret, struct thaw_error *error);

/* Makes the guest's clock run on from an instant, which all vCPUs' TSCs are set for. To those who
 * compute one from the other it shows a little more than it would have, had it not stood still,
 * and never less; but while no vCPU runs they drift apart, by some ten nanoseconds a second where
 * the TSC's frequency is the same as before. Before any vCPU runs. */
int vm_clock_restore(int vm_fd, const struct clock_start *start, struct thaw_error *error);

/* What no guest changes of a vCPU, and KVM not once it has run: what is known need not be read. */
struct vcpu_fixed {
    uint32_t tsc_khz; /* 0: not known */
    bool tsc_stays;   /* it is the host's, whatever is set */
    uint32_t cpuid_count;
    struct kvm_cpuid_entry2 *cpuid; /* NULL: not known */
};

int vcpu_fixed_init(struct vcpu_fixed *fixed, uint32_t tsc_khz,
    const struct kvm_cpuid_entry2 *cpuid, uint32_t cpuid_count, struct thaw_error *error);
void vcpu_fixed_fini(struct vcpu_fixed *fixed);

/* Reads everything of a vCPU that is parked, on any thread; in place of its TSC, what that is ahead
 * of the host's. `left`: the KVM_LEFT_REGS of when it last left the guest; NULL: there are none.
 * `alone`: the VM has no other vCPU. *ret is all zeroes before. */
int vcpu_state_save(const struct kvm *kvm, int vcpu_fd, const struct kvm_sync_regs *left,
    bool alone, const struct msr_list *msrs, const struct vcpu_fixed *fixed, struct vcpu_state *ret,
    struct thaw_error *error);

/* Computes its TSC, for an instant that is the same for all vCPUs. */
void vcpu_state_set_instant(struct vcpu_state *state, const struct vm_clock *clock);

/* Reads the interrupt controllers and the timer. */
int vm_chips_save(int vm_fd, struct vm_chips *ret, struct thaw_error *error);

/* A vCPU as it was made: each ioctl costs some microseconds, and what it has need not be set. */
struct vcpu_fresh {
    uint32_t tsc_khz;
    const struct cpu_x86_cpuid *cpuid; /* of all such vCPUs, and so is state */
    const struct vcpu_state *state;    /* all but its CPUID; NULL: not known */
};

/* The frequency of a new vCPU's TSC, which is the same for all of this host. */
int vcpu_read_tsc_khz(int vcpu_fd, uint32_t *ret_khz, struct thaw_error *error);

/* Whether a new vCPU's TSC can be set: some backends take an offset, and show guests the host's all
 * the same. Leaves it as it is; but KVM no longer knows that it is that of the VM's other vCPUs. */
int vcpu_try_tsc_offset(int vcpu_fd, bool *ret_keeps, struct thaw_error *error);

/* Sets the TSC of a vCPU as far from the host's as another's, which may be itself. Once all were,
 * KVM knows that they are the same, without which guests are told that their clock is not stable.
 */
int vcpu_share_tsc_offset(int vcpu_fd, int from_fd, struct thaw_error *error);

/* What the host's TSC is to a guest with another frequency, before its offset is added. */
uint64_t tsc_scale(uint64_t host_tsc_then, uint32_t host_khz, uint32_t guest_khz);

/* How a vCPU's TSC goes on. */
struct tsc_start {
    uint64_t scaled_now; /* tsc_scale's of one time for all vCPUs, so that they get one offset */
    uint64_t advance;    /* is added to what was saved */
    bool leave;          /* it is the host's, whatever is set, and it is the VM's only one */
};

/* Puts a vCPU that never ran, and is what `fresh` says, into a state. */
int vcpu_state_restore(const struct kvm *kvm, int vcpu_fd, const struct vcpu_fresh *fresh,
    const struct vcpu_state *state, const struct tsc_start *tsc, struct thaw_error *error);

/* True if the guest has told KVM where it keeps a clock. */
bool vcpu_state_has_kvmclock(const struct vcpu_state *state);

/* True if nothing from the PICs gets to the vCPU. */
bool lapic_masks_pic(const struct vcpu_state *state);

/* Puts a vCPU back into a state that it was put into before. It is parked; all vCPUs are, and guest
 * memory is as it was in that state already. */
int vcpu_state_reset(const struct kvm *kvm, int vcpu_fd, const struct vcpu_state *state,
    const struct tsc_start *tsc, struct thaw_error *error);

/* Timer, kvmclock, then interrupt controllers. After the vCPUs, before any of them runs. What they
 * are known to have, if it is, is not set. */
int vm_chips_restore(int vm_fd, const struct vm_chips *state, const struct vm_chips *known,
    const struct clock_start *clock, struct thaw_error *error);

/* Tells the guest that it did not run for a while, so that its watchdogs don't bite. Before each
 * resume; a guest without kvmclock has nothing to be told. */
void vcpu_state_note_pause(int vcpu_fd);

uint64_t host_tsc(void);

#endif
