/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side: the device node, what it can do, and a VM file descriptor from it. */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include "error.h"

/* What KVM can leave in a vCPU's run area when it leaves the guest (KVM_CAP_SYNC_REGS), and is of
 * use there. Events are not: one may come later. */
#define KVM_LEFT_REGS (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

/* What is asked once and needed for every VM. */
struct kvm {
    int fd;
    size_t run_bytes; /* size of the shared struct kvm_run mapping of a vCPU */
    uint32_t vcpus_max;
    int xsave_bytes; /* that KVM_SET_XSAVE takes: at least those of struct kvm_xsave */
    bool sregs2, xcrs, tsc_scaling;
    bool sync_regs;                 /* KVM_RUN can leave registers behind: KVM_LEFT_REGS */
    bool has_identity_map, has_tss; /* calls to place them */
    const char *backend; /* which implementation answers, a constant: "kvm_amd", "kvm_intel",
                            "kvm_pvm", else "kvm" */
    /* Guests' page tables are walked anew, by the processor or an emulator, so that memory may be
     * exchanged under a guest that ran. Else KVM keeps shadows of them, which would not change. */
    bool walks_page_tables;
};

/* One capability that is asked for by number. */
struct kvm_cap {
    int number;
    const char *name;   /* as in `thaw doctor` */
    bool required;      /* no VM without it */
    const char *effect; /* what it is for, or what its absence costs */
};

extern const struct kvm_cap kvm_caps[];
extern const size_t kvm_cap_count;

/* Opens /dev/kvm, or duplicates fd if that is above 0, and checks API version and required
 * capabilities. THAW_EHOST lists everything that is missing. */
int kvm_open(struct kvm *kvm, int fd, struct thaw_error *error);
void kvm_close(struct kvm *kvm);

/* KVM_CHECK_EXTENSION; 0 if absent or unknown to the kernel. */
int kvm_check(const struct kvm *kvm, int capability);

/* A new VM without memory, controllers or vCPUs. *ret_fd is close-on-exec. */
int kvm_create_vm(const struct kvm *kvm, int *ret_fd, struct thaw_error *error);

#endif
