// SPDX-License-Identifier: Apache-2.0
// A guest that attacks the VMM: its VM goes on and obeys its owner, or ends in a state that says
// why. Whatever it does, this process lives on.
#include "guest.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHAKES 60

static struct guest guest;
static char image[64];

static void make_image(void)
{
    strcpy(image, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(image);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
}

static void remove_image(void)
{
    unlink(image);
}

TestSuite(hostile, .init = make_image, .fini = remove_image, .timeout = 120);

static void attack(const char *cmdline, uint32_t vcpus)
{
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = image};
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "hostile",
                          .cmdline = cmdline,
                          .vcpu_count = vcpus,
                          .mem_bytes = 16 << 20,
                          .disks = &disk,
                          .disk_count = 1});
    guest_start(&guest);
}

static void expect_survival(const char *cmdline)
{
    attack(cmdline, 1);
    struct thaw_vm_info info = guest_wait(&guest);
    cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s: %s", cmdline, info.detail);
    cr_assert_eq(info.exit_status, 0, "%s: console:\n%s", cmdline, guest.console);
    guest_free(&guest);
}

static struct thaw_vm_info expect_failure(const char *cmdline, enum thaw_vm_reason reason)
{
    attack(cmdline, 2);
    struct thaw_vm_info info = guest_wait(&guest);
    cr_assert_eq(info.state, THAW_VM_FAILED, "%s: %s", cmdline, info.detail);
    cr_assert_eq(info.reason, reason, "%s: %s", cmdline, info.detail);
    cr_assert(strstr(info.detail, "vCPU 0"), "%s: %s", cmdline, info.detail);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), THAW_ESTATE);
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), THAW_ESTATE);
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    cr_assert_eq(guest_info(&guest).state, THAW_VM_FAILED, "stopping changes nothing");
    guest_free(&guest);
    return info;
}

/* The VM never ends by itself, and obeys at any moment. */
static void expect_obedience(const char *cmdline, uint32_t vcpus)
{
    unsigned seed = 1;
    attack(cmdline, vcpus);
    while (guest_info(&guest).mark_count == 0) {
        cr_assert_eq(thaw_vm_wait(guest.vm, 1), -ETIMEDOUT, "%s:\n%s", cmdline, guest.console);
        usleep(1000);
    }
    for (unsigned i = 0; i < SHAKES; i++) {
        cr_assert_eq(
            thaw_vm_pause(guest.vm, NULL), 0, "%s: %s", cmdline, guest_info(&guest).detail);
        uint64_t exits = guest_info(&guest).exits;
        usleep((unsigned)rand_r(&seed) % 300);
        cr_assert_eq(guest_info(&guest).exits, exits, "%s", cmdline);
        cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0, "%s", cmdline);
        usleep((unsigned)rand_r(&seed) % 2000);
    }
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    struct thaw_vm_info info = guest_info(&guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED, "%s: %s", cmdline, info.detail);
    cr_assert_eq(info.reason, THAW_REASON_REQUEST, "%s: %s", cmdline, info.detail);
    guest_free(&guest);
}

Test(hostile, every_port_is_read_and_written_in_every_width)
{
    expect_survival("op=ports from=0 to=0x1000");
    expect_survival("op=ports from=0xfff0 to=0x10000");
}

Test(hostile, string_instructions_cross_ports_pages_and_devices)
{
    expect_survival("op=strings");
}

Test(hostile, the_registers_of_all_virtio_slots_are_scribbled_on)
{
    char cmdline[64];
    for (unsigned seed = 1; seed <= 3; seed++) {
        snprintf(cmdline, sizeof(cmdline), "op=virtio seed=%u", seed);
        expect_survival(cmdline);
    }
}

Test(hostile, accesses_straddle_every_edge_of_the_address_space)
{
    expect_survival("op=edges ram=16");
}

Test(hostile, what_the_loader_left_is_overwritten)
{
    expect_survival("op=low");
}

/* Any of these may stop the processor for good, but nothing else. */
Test(hostile, interrupt_controllers_are_scribbled_on)
{
    char cmdline[64];
    for (unsigned seed = 1; seed <= 6; seed++) {
        snprintf(cmdline, sizeof(cmdline), "op=apics seed=%u", seed);
        attack(cmdline, 2);
        if (thaw_vm_wait(guest.vm, 2000) == 0) {
            struct thaw_vm_info info = guest_info(&guest);
            cr_assert(info.detail[0], "%s", cmdline);
            cr_assert(info.state == THAW_VM_FAILED || info.reason == THAW_REASON_EXIT, "%s: %s",
                cmdline, info.detail);
        }
        cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
        guest_free(&guest);
    }
}

Test(hostile, a_jump_to_where_no_memory_is_fails_the_vm)
{
    struct thaw_vm_info info = expect_failure("op=jump-device", THAW_REASON_EMULATION);
    cr_assert(strstr(info.detail, "rip 0xd0000000"), "%s", info.detail);
    info = expect_failure("op=jump-nothing", THAW_REASON_EMULATION);
    cr_assert(strstr(info.detail, "rip 0x4000200000"), "%s", info.detail);
}

Test(hostile, a_triple_fault_fails_the_vm)
{
    expect_failure("op=triple", THAW_REASON_TRIPLE_FAULT);
}

/* Where KVM emulates all instructions it does not know this one, and says which it was. */
Test(hostile, an_instruction_that_can_not_be_emulated_is_shown)
{
    attack("op=vector", 1);
    struct thaw_vm_info info = guest_wait(&guest);
    if (info.reason != THAW_REASON_EXIT) {
        cr_assert_eq(info.state, THAW_VM_FAILED, "%s", info.detail);
        cr_assert_eq(info.reason, THAW_REASON_EMULATION, "%s", info.detail);
        cr_assert(strstr(info.detail, "bytes f2 0f 7c d1"), "%s", info.detail);
    }
    guest_free(&guest);
}

Test(hostile, a_processor_that_sleeps_for_ever_obeys)
{
    expect_obedience("op=sleep", 1);
}

Test(hostile, one_instruction_without_end_obeys)
{
    expect_obedience("op=endless port=0x80", 1);
    expect_obedience("op=endless port=0x80 in=1", 1);
    expect_obedience("op=endless port=0x3fb", 1);
}

/* What they find there may be the end of them, and then of the VM: zeros lead to the reset vector.
 */
Test(hostile, processors_that_start_in_garbage_run_or_fail)
{
    for (unsigned i = 0; i < 8; i++) {
        attack("op=sipi", 4);
        for (unsigned n = 0; n < 40 && thaw_vm_wait(guest.vm, 1) < 0; n++) {
            if (thaw_vm_pause(guest.vm, NULL) == 0)
                cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
        }
        cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
        struct thaw_vm_info info = guest_info(&guest);
        cr_assert(
            info.reason != THAW_REASON_KVM && info.reason != THAW_REASON_MEMORY, "%s", info.detail);
        cr_assert(info.detail[0]);
        guest_free(&guest);
    }
}

Test(hostile, a_storm_of_exits_obeys)
{
    expect_obedience("op=storm", 1);
}

/* Freed at any moment, also the very first. */
Test(hostile, a_vm_is_freed_in_the_middle_of_anything)
{
    static const char *const deeds[] = {"op=storm", "op=sipi", "op=virtio rounds=10000",
        "op=endless port=0x80", "op=triple", "op=sleep"};
    for (unsigned i = 0; i < 60; i++) {
        attack(deeds[i % 6], 1 + i % 3);
        usleep(i * 700);
        guest_free(&guest);
    }
}
