// SPDX-License-Identifier: Apache-2.0
// Registers that KVM leaves behind when a vCPU leaves the guest are what its calls read, and where
// they may not be, the calls are made.
#include "guest.h"
#include "vm.h"
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
    const struct env_host *host;
    const struct vm_clock clock = {.host_khz = 1000000};
    const struct vcpu *vcpu = &guest.vm->vcpus[index];
    struct thaw_error error;
    cr_assert_eq(env_host(guest.vm->env, &host, &error), 0, "%s", error.message);
    cr_assert_eq(vcpu_state_save(&guest.vm->env->kvm, vcpu->fd, left, &host->msrs, &clock,
                     &vcpu->fixed, &state, &error),
        0, "%s", error.message);
    return state;
}

/* Stops the guest at many places, and returns how many vCPUs had left their registers. */
static unsigned hold_and_compare(unsigned times)
{
    unsigned count = 0;
    for (unsigned i = 0; i < times; i++) {
        struct thaw_error error;
        bool was_running;
        cr_assert_eq(vm_hold(guest.vm, &was_running, &error), 0, "%s", error.message);
        for (uint32_t cpu = 0; cpu < guest.vm->vcpu_count; cpu++) {
            const struct kvm_sync_regs *left = vcpu_left_regs(&guest.vm->vcpus[cpu]);
            struct vcpu_state read = save(cpu, NULL), with = save(cpu, left);
            count += left != NULL;
            cr_assert_arr_eq(&with.regs, &read.regs, sizeof(read.regs));
            cr_assert_arr_eq(&with.sregs, &read.sregs, sizeof(read.sregs));
            if (left)
                cr_assert_arr_eq(&left->regs, &read.regs, sizeof(read.regs));
        }
        vm_release(guest.vm, was_running);
        usleep(500 + i * 137);
    }
    return count;
}

Test(left_regs, a_running_guest_leaves_what_calls_read)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 2\n");
    cr_assert_gt(hold_and_compare(50), 0);
    guest_free(&guest);
}

Test(left_regs, so_do_all_vcpus_halted_or_not)
{
    start("smp", "loop=1 period_us=2000", 4, "smp: cpu 3 count");
    cr_assert_gt(hold_and_compare(50), 0);
    guest_free(&guest);
}

Test(left_regs, who_does_not_run_leaves_none)
{
    start("tick", "interval=30000 wait=spin", 1, "tick 2\n");
    bool was_running;
    while (hold_and_compare(1) == 0)
        ;
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

/* An INIT that arrives when the vCPU has left the guest changes registers once KVM processes it,
 * which is when the run state is read. Delivery mode 5 (SDM volume 3, "Message Data Register
 * Format"). */
Test(left_regs, an_init_is_not_overlooked)
{
    start("tick", "", 1, "tick 1\n");
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    const struct kvm_sync_regs left = made_up();
    struct vcpu_state state = save(0, &left);
    cr_assert_eq(state.regs.rip, NOWHERE);
    cr_assert_eq(state.sregs.cr2, NOWHERE);

    struct kvm_msi init = {.address_lo = 0xfee00000, .data = 5 << 8};
    cr_assert_eq(ioctl(guest.vm->fd, KVM_SIGNAL_MSI, &init), 1);
    state = save(0, &left);
    cr_assert_eq(state.regs.rip, 0xfff0);
    cr_assert_eq(state.sregs.cs.base, 0xffff0000);
    cr_assert_eq(state.sregs.cr2, 0);
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
