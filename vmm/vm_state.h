/* SPDX-License-Identifier: Apache-2.0 */
/* All state of a VM but the contents of its memory and disks, as plain data. */
#ifndef VMM_VM_STATE_H
#define VMM_VM_STATE_H

#include "kvm_state.h"
#include "vm.h"

struct vm_state {
    struct vm_clock clock;
    struct vm_chips chips;
    struct machine_state machine;
    uint32_t vcpu_count;
    struct vcpu_state *vcpus;
};

/* What the guest's clocks show when it goes on. Time never goes backwards. */
enum vm_clock_policy {
    VM_CLOCK_CONTINUE, /* what they showed when it was saved */
    VM_CLOCK_HOST,     /* that and the time which has passed on the host since */
};

/* A state with room for vcpu_count vCPUs, all zero. NULL: no memory. */
struct vm_state *vm_state_new(uint32_t vcpu_count);
void vm_state_free(struct vm_state *state);

/* Zeroes the vCPUs' states, and touches what vm_state_save will touch on the calling thread: page
 * faults would lengthen a pause. */
void vm_state_make_ready(struct vm_state *state);

/* A save that is under way. The caller's; too large for a stack. */
struct vm_save {
    struct thaw_vm *vm;
    struct vm_state *state;
    const struct env_host *host;
    struct vcpu_save {
        struct vm_save *save;
        uint32_t index;
        int result;
        struct thaw_error error;
        struct vcpu_errand errand;
    } vcpus[THAW_VCPUS_MAX];
};

/* Begins to read the state of a VM that is paused, and stays so until the end: each vCPU's on its
 * own thread, if that is awake, while the caller goes on. state has room for its vCPUs, and theirs
 * are all zeroes. Must be ended if it succeeds. */
int vm_state_begin_save(
    struct thaw_vm *vm, struct vm_state *state, struct vm_save *ret, struct thaw_error *error);

/* Devices and the clock. Saving devices may write to guest memory, which nothing else here does. */
int vm_state_save_machine(struct vm_save *save, struct thaw_error *error);

/* Reads the rest, and waits for the vCPUs. r < 0: something failed meanwhile, which is returned. */
int vm_state_end_save(struct vm_save *save, int r, struct thaw_error *error);

/* All of that. */
int vm_state_save(struct thaw_vm *vm, struct vm_state *state, struct thaw_error *error);

/* True if a guest's TSC would go back: this host's KVM shows guests the host's, which has not come
 * as far as the saved one. */
bool vm_state_tsc_goes_back(const struct thaw_vm *vm, const struct vm_state *state);

/* Turns a shell, behind whose memory the saved contents are mapped, into the VM that was saved:
 * PAUSED, with a new generation id. If it fails the shell is of no use any more. */
int vm_state_restore(struct thaw_vm *vm, const struct vm_state *state,
    const struct vm_devices *devices, enum vm_clock_policy policy, struct thaw_error *error);

/* Puts a VM that vm_state_restore made from this state, and whose memory and disks are as they were
 * then, back into it, with a new generation id. After vm_begin_reset. If it fails the VM is in no
 * state at all. */
int vm_state_reset(struct thaw_vm *vm, const struct vm_state *state, enum vm_clock_policy policy,
    struct thaw_error *error);

#endif
