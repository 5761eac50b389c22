/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floors: what thaw does, done by the shortest code that does it, straight on KVM and with
 * nothing checked, shared or cleaned up on the way. One vCPU, run by the calling thread. They run
 * the same guests as thaw does, so a floor's figure is the machine's share of thaw's.
 *
 * A floor image is a guest that was booted, run until its first record and saved: its memory as a
 * memfd and a raw file, and all state that KVM has of it.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include "recipe.h"
#include <linux/kvm.h>

#define FLOOR_CPUID_MAX 256
#define FLOOR_MSRS_MAX  256
#define FLOOR_CHIPS     3

struct floor_vm {
    int fd;
    int vcpu_fd;
    struct kvm_run *run;
    size_t run_bytes;
    uint8_t *ram; /* borrowed */
    uint64_t ram_bytes;
    bool has_cpuid;    /* it is set, and is the same for all guests of this host */
    bool used;         /* has run: its state is not a new VM's any more */
    bool left_regs;    /* registers and events are in *run (KVM_CAP_SYNC_REGS) */
    const char *input; /* of its serial port, borrowed; NULL: none */
};

struct floor_state {
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[FLOOR_CPUID_MAX];
    } cpuid;
    struct kvm_mp_state mp_state;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_xsave xsave;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[FLOOR_MSRS_MAX];
    } msrs;
    struct kvm_vcpu_events events;
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    struct kvm_irqchip chips[FLOOR_CHIPS];
    /* What a new VM has already, by step, and the MSRs that it has not. */
    uint32_t same_steps, same_chips;
    bool same_events, same_pit;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[FLOOR_MSRS_MAX];
    } other_msrs;
};

struct floor_image {
    int kvm_fd;
    int memfd;
    char path[PATH_BYTES];       /* the raw file; empty: none was made */
    char state_path[PATH_BYTES]; /* beside it, a struct floor_state */
    uint64_t bytes;
    uint32_t position; /* of the guest */
    struct floor_state state;
};

/* --- VMs (floor_vm.c) ------------------------------------------------------------------------- */

/* Memslots, interrupt controllers, vCPU and timer in the order that costs least. */
int floor_vm_open(int kvm_fd, uint8_t *ram, uint64_t bytes, bool log_dirty, struct floor_vm *ret,
    struct thaw_error *error);
void floor_vm_close(struct floor_vm *vm);

/* The instants of the first KVM_RUN, its end, and the guest's first byte; and where it is then. */
struct floor_ran {
    uint64_t run_ns, exit_ns, output_ns;
    uint32_t position;
};

/* Runs a guest that was at `from` until it has printed a record. The last I/O is not finished yet.
 */
int floor_vm_run(struct floor_vm *vm, const struct bench *bench, const struct recipe *recipe,
    uint32_t from, struct floor_ran *ret, struct thaw_error *error);

/* Runs a guest for ever, its output going to a file. Returns where that fails. */
int floor_vm_pump(struct floor_vm *vm, int fd, struct thaw_error *error);

/* Runs a guest until it does some I/O, which gets the answer that nothing is there. False: it did
 * something else. */
bool floor_vm_step(struct floor_vm *vm);

/* Ends the last I/O, so that the state can be saved. */
int floor_vm_finish_io(struct floor_vm *vm, struct thaw_error *error);

/* All of it, in an order that works (vmm/kvm_state.c has the reasons). */
int floor_state_save(
    const struct floor_vm *vm, int kvm_fd, struct floor_state *ret, struct thaw_error *error);
int floor_state_restore(
    const struct floor_vm *vm, const struct floor_state *state, struct thaw_error *error);

/* Finds out what of it need not be set in a new VM, by looking at one, and sets that one's CPUID.
 */
int floor_state_shorten(
    struct floor_state *state, struct floor_vm *new_vm, int kvm_fd, struct thaw_error *error);
int floor_vm_set_cpuid(
    struct floor_vm *vm, const struct floor_state *state, struct thaw_error *error);

/* --- Images (floor_image.c) ------------------------------------------------------------------- */

int floor_image_make(struct bench *bench, const struct recipe *recipe, bool raw_file,
    struct floor_image *ret, struct thaw_error *error);
void floor_image_free(struct floor_image *image);

/* A VM that is ready for floor_map and floor_state_restore: with all but memory and state, but with
 * the CPUID that all guests here have. floor_shell_free takes it apart with its memory. */
int floor_shell_make(
    const struct floor_image *image, struct floor_vm *ret, struct thaw_error *error);
void floor_shell_free(struct floor_vm *shell);

/* A private view of a file, at an address or, if that is NULL, anywhere. NULL: it failed. */
uint8_t *floor_map(uint8_t *at, uint64_t bytes, int fd);

#endif
