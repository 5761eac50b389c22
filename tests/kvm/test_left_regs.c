// SPDX-License-Identifier: Apache-2.0
// Registers that KVM leaves behind when a vCPU leaves the guest are what its calls read, and where
// they may not be, the calls are made.
#include "guest.h"
#include "vm_state.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NOWHERE 0x123456789abcu /* where no guest is */

static struct guest guest;

static void start(const char *kernel, const char *cmdline, uint32_t vcpus, const char *until)
{
    guest_new(&guest,
        (struct thaw_vm_options){
            .kernel_path = kernel, .cmdline = cmdline, .vcpu_count = vcpus, .mem_bytes = 16 << 20});
    if (!guest.vm->env->kvm.sync_regs) {
        guest_free(&guest);
        cr_skip_test("this host's KVM leaves no registers behind");
    }
    guest_start(&guest);
    guest_expect(&guest, until, 0);
}

static struct vcpu_state save(uint32_t index, const struct kvm_sync_regs *left)
{
    static struct vcpu_state state;
    memset(&state, 0, sizeof(state));
    const struct env_host *host;
    const struct vcpu *vcpu = &guest.vm->vcpus[index];
    struct thaw_error error;
    cr_assert_eq(env_host(guest.vm->env, &host, &error), 0, "%s", error.message);
    cr_assert_eq(vcpu_state_save(&guest.vm->env->kvm, vcpu->fd, left, guest.vm->vcpu_count == 1,
                     &host->msrs, &vcpu->fixed, &state, &error),
        0, "%s", error.message);
    return state;
}

/* Up to the interrupt bitmap, which the newer form lacks. */
static void compare_left(const struct kvm_sync_regs *left, const struct vcpu_state *read)
{
    cr_assert_arr_eq(&left->regs, &read->regs, sizeof(read->regs));
    cr_assert_arr_eq(&left->sregs, &read->sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
}

/* Stops the guest for a moment, and compares with what calls read. Counts by vCPU how often there
 * was something to compare, and in halted[] how often it slept. */
static void hold_and_compare(unsigned counts[], unsigned halted[])
{
    struct thaw_error error;
    bool was_running;
    cr_assert_eq(vm_hold(guest.vm, &was_running, &error), 0, "%s", error.message);
    for (uint32_t cpu = 0; cpu < guest.vm->vcpu_count; cpu++) {
        const struct kvm_sync_regs *left = vcpu_left_regs(&guest.vm->vcpus[cpu]);
        struct vcpu_state read = save(cpu, NULL), with = save(cpu, left);
        cr_assert_arr_eq(&with.regs, &read.regs, sizeof(read.regs));
        cr_assert_arr_eq(&with.sregs, &read.sregs, sizeof(read.sregs));
        cr_assert_arr_eq(&with.events, &read.events, sizeof(read.events));
        if (left) {
            compare_left(left, &read);
            counts[cpu]++;
            halted[cpu] += read.mp_state.mp_state == KVM_MP_STATE_HALTED;
        }
    }
    vm_release(guest.vm, was_running);
}

Test(left_regs, a_running_guest_leaves_what_calls_read)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 2\n");
    for (unsigned count = 0, halted = 0, i = 0; count < 50; i++) {
        hold_and_compare(&count, &halted);
        usleep(500 + i % 50 * 137);
    }
    guest_free(&guest);
}

Test(left_regs, so_does_one_that_sleeps)
{
    start("tick", "", 1, "tick 2\n");
    for (unsigned count = 0, halted = 0; halted < 10;) {
        hold_and_compare(&count, &halted);
        usleep(5000);
    }
    guest_free(&guest);
}

Test(left_regs, so_do_all_vcpus)
{
    unsigned counts[4] = {0}, halted[4] = {0};
    start("smp", "loop=1 period_us=2000", 4, "smp: cpu 3 count");
    for (unsigned i = 0; counts[0] < 20 || counts[1] < 20 || counts[2] < 20 || counts[3] < 20;
         i++) {
        hold_and_compare(counts, halted);
        usleep(500 + i % 50 * 137);
    }
    guest_free(&guest);
}

/* Holds the running guest until there is something of that vCPU; the caller releases it. */
static struct kvm_sync_regs *hold_until_left(uint32_t cpu)
{
    for (;;) {
        bool was_running;
        cr_assert_eq(vm_hold(guest.vm, &was_running, NULL), 0);
        if (vcpu_left_regs(&guest.vm->vcpus[cpu]))
            return &guest.vm->vcpus[cpu].run->s.regs;
        vm_release(guest.vm, was_running);
        usleep(1000);
    }
}

/* And that is what a snapshot gets: nobody asks KVM. */
Test(left_regs, what_is_left_is_what_is_saved)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 2\n");
    struct vm_state *state = vm_state_new(1);
    struct kvm_sync_regs *left = hold_until_left(0);
    left->regs.rip = NOWHERE; /* KVM does not look there */
    left->sregs.cr2 = NOWHERE;
    cr_assert_eq(vm_state_save(guest.vm, state, NULL), 0);
    vm_release(guest.vm, true);
    cr_assert_eq(state->vcpus[0].regs.rip, NOWHERE);
    cr_assert_eq(state->vcpus[0].sregs.cr2, NOWHERE);
    vm_state_free(state);
    guest_expect(&guest, "tick ", guest_console_count(&guest));
    guest_free(&guest);
}

Test(left_regs, who_does_not_run_leaves_none)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 2\n");
    bool was_running;
    hold_until_left(0);
    vm_release(guest.vm, true);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    cr_assert_eq(vm_hold(guest.vm, &was_running, NULL), 0);
    cr_assert_not(was_running);
    cr_assert_null(vcpu_left_regs(&guest.vm->vcpus[0]), "what it left before is over");
    vm_release(guest.vm, false);
    cr_assert_eq(guest.vm->vcpus[0].run->kvm_valid_regs, 0);
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    cr_assert_lt(vm_hold(guest.vm, &was_running, NULL), 0);
    cr_assert_eq(guest.vm->vcpus[0].run->kvm_valid_regs, 0, "a hold that failed asks for nothing");
    guest_free(&guest);
}

/* Of a paused guest, but elsewhere. */
static struct kvm_sync_regs made_up(void)
{
    struct vcpu_state state = save(0, NULL);
    struct kvm_sync_regs left = {.regs = state.regs};
    cr_assert_eq(ioctl(guest.vm->vcpus[0].fd, KVM_GET_SREGS, &left.sregs), 0);
    left.regs.rip = NOWHERE;
    left.sregs.cr2 = NOWHERE;
    return left;
}

/* Delivery modes 5 and 6 (SDM volume 3, "Message Data Register Format"). */
#define INIT      (5u << 8)
#define SIPI_TO_8 (6u << 8 | 8) /* at 0x8000 */

static void send(uint32_t cpu, uint32_t message)
{
    struct kvm_msi msi = {.address_lo = 0xfee00000 | cpu << 12, .data = message};
    cr_assert_eq(ioctl(guest.vm->fd, KVM_SIGNAL_MSI, &msi), 1);
}

/* An INIT that arrives when the vCPU has left the guest changes registers once KVM processes it,
 * which is when the run state is read. */
static void overlook_no_init(const char *cmdline)
{
    start("tick", cmdline, 1, "tick 1\n");
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    const struct kvm_sync_regs left = made_up();
    struct vcpu_state state = save(0, &left);
    cr_assert_eq(state.regs.rip, NOWHERE);
    cr_assert_eq(state.sregs.cr2, NOWHERE);
    send(0, INIT);
    state = save(0, &left);
    cr_assert_eq(state.regs.rip, 0xfff0);
    cr_assert_eq(state.sregs.cs.base, 0xffff0000);
    cr_assert_eq(state.sregs.cr2, 0);
    guest_free(&guest);
}

Test(left_regs, an_init_is_not_overlooked)
{
    overlook_no_init("");
    overlook_no_init("wait=spin"); /* which never enables its local APIC */
}

/* The vCPU waits for a SIPI, and leaves its registers while it does. */
Test(left_regs, a_sipi_is_not_overlooked)
{
    start("smp", "loop=1 period_us=2000", 2, "smp: cpu 1 count");
    send(1, INIT);
    hold_until_left(1);
    struct vcpu_state waits = save(1, NULL);
    cr_assert_eq(waits.mp_state.mp_state, KVM_MP_STATE_INIT_RECEIVED);
    vm_release(guest.vm, true);

    const struct kvm_sync_regs *left = hold_until_left(1);
    send(1, SIPI_TO_8);
    struct vcpu_state with = save(1, left), read = save(1, NULL);
    cr_assert_eq(left->sregs.cs.base, waits.sregs.cs.base);
    vm_release(guest.vm, false);
    cr_assert_eq(read.sregs.cs.base, 0x8000);
    cr_assert_arr_eq(&with.sregs, &read.sregs, sizeof(read.sregs));
    cr_assert_arr_eq(&with.regs, &read.regs, sizeof(read.regs));
    guest_free(&guest);
}

/* What KVM leaves has no page directory pointers, which are not always those in memory. */
Test(left_regs, a_guest_with_pae_paging_is_asked_for_its_pointers)
{
    start("tick", "", 1, "tick 1\n");
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    struct kvm_sync_regs left = made_up();
    left.sregs.cr0 |= 0x80000000; /* paging */
    left.sregs.cr4 |= 0x20;       /* PAE */
    left.sregs.efer &= ~0x500ull; /* not long mode */
    struct vcpu_state state = save(0, &left);
    cr_assert_eq(state.regs.rip, NOWHERE);
    bool asked = state.sregs.cr2 != NOWHERE;
    cr_assert_eq(asked, guest.vm->env->kvm.sregs2);
    guest_free(&guest);
}
