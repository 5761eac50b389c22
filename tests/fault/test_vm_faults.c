// SPDX-License-Identifier: Apache-2.0
// Every system call and allocation that a VM's life needs, made to fail once: the owner is told,
// nothing is left behind, and the next VM works.

#include "fault.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <thaw/thaw.h>
#include <unistd.h>

#define TIMEOUT_MS 60000

static char image[64]; /* disk and initrd at once */

static const struct fault_tolerated vm_tolerated[] = {
    {"ioctl KVM_CHECK_EXTENSION", "counts as a capability that is missing"},
    {"ioctl KVM_IRQ_LINE", "can't fail for a line that exists"},
    {"ioctl KVM_KVMCLOCK_CTRL", "fails anyway in guests without kvmclock"},
    {"open O_TMPFILE", "a file system without it gets a named file"},
    {NULL, NULL},
};

static void make_image(void)
{
    strcpy(image, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(image);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    struct thaw_error error;
    thaw_env *env;
    int r = thaw_env_new(NULL, &env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0);
    thaw_env_free(env);
}

static void remove_image(void)
{
    unlink(image);
}

TestSuite(fault, .init = make_image, .fini = remove_image);

static int new_vm(thaw_env *env, const char *guest, const char *cmdline, uint32_t vcpus,
    thaw_vm **ret, struct thaw_error *error)
{
    char kernel[512];
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = image};
    struct thaw_vm_options options = {
        .size = sizeof(options),
        .kernel_path = kernel,
        .initrd_path = image,
        .cmdline = cmdline,
        .vcpu_count = vcpus,
        .mem_bytes = 16 << 20,
        .disks = &disk,
        .disk_count = 1,
    };
    snprintf(kernel, sizeof(kernel), "%s/%s", THAW_GUEST_DIR, guest);
    return thaw_vm_new(env, &options, ret, error);
}

static struct thaw_vm_info info_of(thaw_vm *vm)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_get_info(vm, &info), 0);
    return info;
}

static void expect_success(thaw_vm *vm)
{
    cr_assert_eq(thaw_vm_wait(vm, TIMEOUT_MS), 0, "%s: the guest did not end", fault_hit());
    struct thaw_vm_info info = info_of(vm);
    cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s: %s", fault_hit(), info.detail);
    cr_assert_eq(info.exit_status, 0, "%s: status %u", fault_hit(), info.exit_status);
}

/* The guest counts on from where it is. */
static void expect_progress(thaw_vm *vm)
{
    uint64_t from = info_of(vm).mark_count;
    for (unsigned i = 0; info_of(vm).mark_count < from + 2; i++) {
        cr_assert_eq(info_of(vm).state, THAW_VM_RUNNING, "%s: %s", fault_hit(), info_of(vm).detail);
        cr_assert_lt(i, TIMEOUT_MS, "%s: the guest hangs", fault_hit());
        usleep(1000);
    }
}

/* As far as it goes. */
static void live(thaw_vm *vm)
{
    struct thaw_error error = {0};
    if (fault_failed("start", thaw_vm_start(vm, &error), &error) ||
        fault_failed("pause", thaw_vm_pause(vm, &error), &error) ||
        fault_failed("resume", thaw_vm_resume(vm, &error), &error))
        return;
    expect_progress(vm);
    fault_failed("stop", thaw_vm_stop(vm, &error), &error);
}

static void life_of_a_vm(void)
{
    struct thaw_error error = {0};
    thaw_env *env = NULL;
    thaw_vm *vm = NULL;
    if (fault_failed("environment", thaw_env_new(NULL, &env, &error), &error)) {
        cr_assert_null(env);
        return;
    }
    int r = new_vm(env, "tick", "interval=10000", 2, &vm, &error);
    if (!fault_failed("VM", r, &error))
        live(vm);
    else
        cr_assert_null(vm);
    thaw_vm_free(vm);
    thaw_env_free(env);
}

Test(fault, every_call_of_a_vms_owner)
{
    const struct fault_scenario scenario = {.run = life_of_a_vm,
        .side = FAULT_CALLER,
        .tolerated = vm_tolerated,
        .afterwards = life_of_a_vm};
    cr_assert_gt(fault_for_every_call(&scenario), 60);
}

static void probe(void)
{
    struct thaw_error error = {0};
    thaw_host_report *report = NULL;
    if (thaw_host_probe(&report, &error) < 0) {
        cr_assert_null(report);
        cr_assert(error.code < 0 && error.message[0], "%s", fault_hit());
        return;
    }
    cr_assert_gt(thaw_host_report_count(report), 5, "%s", fault_hit());
    for (size_t i = 0; i < thaw_host_report_count(report); i++) {
        const struct thaw_host_check *check = thaw_host_report_get(report, i);
        cr_assert(check->name && check->found && check->effect);
        /* What is missing says why. */
        cr_assert(
            check->status == THAW_CHECK_OK || (check->found[0] && !strstr(check->found, "Success")),
            "%s: %s is missing: %s", fault_hit(), check->name, check->found);
    }
    thaw_host_report_free(report);
}

Test(fault, every_call_of_the_host_probe)
{
    const struct fault_scenario scenario = {.run = probe, .side = FAULT_CALLER};
    cr_assert_gt(fault_for_every_call(&scenario), 60);
}

/* The host fails while the guest uses its disk. The guest may be told of an I/O error, and then
 * says so; the owner may have to make room and resume. */
static void use_a_disk(void)
{
    struct thaw_error error = {0};
    thaw_env *env = NULL;
    thaw_vm *vm = NULL;
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    /* A part of it is made by a thread of the library's. */
    if (new_vm(env, "blkpattern", "blocks=16", 1, &vm, &error) < 0) {
        cr_assert(fault_hit(), "%s", error.message);
        thaw_env_free(env);
        return;
    }
    cr_assert_eq(thaw_vm_start(vm, &error), 0, "%s", error.message);
    for (unsigned i = 0; thaw_vm_wait(vm, 20) < 0; i++) {
        struct thaw_vm_info info = info_of(vm);
        cr_assert_lt(i, TIMEOUT_MS / 20, "%s: the guest hangs, %s", fault_hit(), info.detail);
        if (info.state == THAW_VM_PAUSED) {
            cr_assert_eq(info.reason, THAW_REASON_DISK_FULL);
            cr_assert_eq(thaw_vm_resume(vm, &error), 0, "%s", error.message);
        }
    }
    struct thaw_vm_info info = info_of(vm);
    cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s: %s", fault_hit(), info.detail);
    cr_assert(info.exit_status == 0 || fault_hit(), "the guest failed without a fault");
    thaw_vm_free(vm);
    thaw_env_free(env);
}

Test(fault, every_call_of_the_library_while_a_disk_is_used)
{
    const struct fault_scenario scenario = {.run = use_a_disk, .side = FAULT_LIBRARY};
    cr_assert_gt(fault_for_every_call(&scenario), 10);
}

Test(fault, every_call_of_the_library_while_a_disk_is_used_without_io_uring)
{
    const struct fault_scenario scenario = {.run = use_a_disk, .side = FAULT_LIBRARY};
    fault_forbid_uring();
    cr_assert_gt(fault_for_every_call(&scenario), 20);
}

static thaw_env *env;
static thaw_vm *vm;

static void start(const char *guest, const char *cmdline, uint32_t vcpus)
{
    struct thaw_error error = {0};
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    cr_assert_eq(new_vm(env, guest, cmdline, vcpus, &vm, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_vm_start(vm, &error), 0, "%s", error.message);
}

static void end(void)
{
    thaw_vm_free(vm);
    thaw_env_free(env);
}

/* Pauses and resumes until the VM ends. */
static void pause_until_ended(void)
{
    while (thaw_vm_wait(vm, 0) < 0) {
        if (thaw_vm_pause(vm, NULL) == 0)
            cr_assert_eq(info_of(vm).state, THAW_VM_PAUSED, "%s", info_of(vm).detail);
        thaw_vm_resume(vm, NULL);
    }
}

Test(fault, a_guest_does_not_notice_when_the_kernel_interrupts_kvm_run)
{
    for (unsigned i = 0; i < 20; i++) {
        fault_kvm_run(3, i % 2 ? EINTR : EAGAIN, i);
        start("tick", "ticks=20 interval=100000 wait=spin", 2);
        pause_until_ended();
        expect_success(vm);
        end();
    }
    fault_kvm_run(0, 0, 0);
}

Test(fault, a_vm_whose_memory_fails_has_failed_whatever_its_owner_does)
{
    for (unsigned i = 0; i < 60; i++) {
        start("tick", "interval=10000 wait=spin", 2);
        fault_kvm_run(1 + i % 13, i % 2 ? EFAULT : ENOMEM, i);
        pause_until_ended();
        fault_kvm_run(0, 0, 0);
        struct thaw_vm_info info = info_of(vm);
        cr_assert_eq(info.state, THAW_VM_FAILED);
        cr_assert_eq(info.reason, i % 2 ? THAW_REASON_MEMORY : THAW_REASON_KVM);
        cr_assert(strstr(info.detail, "KVM_RUN"), "%s", info.detail);
        end();
    }
}

/* The guest ends at any point of a pause: a pause that succeeded holds. */
Test(fault, a_pause_that_succeeds_leaves_a_paused_vm)
{
    for (unsigned i = 0; i < 200; i++) {
        start("tick", "ticks=2 interval=1000 wait=spin", 1);
        usleep(i * 20 % 1500);
        pause_until_ended();
        expect_success(vm);
        end();
    }
}

static void await_disk_full(void)
{
    for (unsigned i = 0; i < TIMEOUT_MS; i++) {
        struct thaw_vm_info info = info_of(vm);
        if (info.state == THAW_VM_PAUSED && info.reason == THAW_REASON_DISK_FULL) {
            cr_assert(strstr(info.detail, "disk 0"), "%s", info.detail);
            return;
        }
        usleep(1000);
    }
    cr_assert_fail("the VM did not say that the disk is full: %s, %s",
        thaw_vm_state_name(info_of(vm).state), info_of(vm).detail);
}

/* The retry is faster than the resume: what it says must not be lost. */
Test(fault, a_disk_that_stays_full_pauses_the_vm_again_after_each_resume)
{
    fault_forbid_uring();
    fault_disk_full(true);
    start("blkpattern", "blocks=16", 2);
    for (unsigned i = 0; i < 100; i++) {
        await_disk_full();
        if (i % 3 == 0)
            cr_assert_eq(thaw_vm_pause(vm, NULL), 0);
        cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
    }
    await_disk_full();
    fault_disk_full(false);
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
    expect_success(vm);
    end();
}

Test(fault, a_vm_with_a_full_disk_can_be_stopped_and_freed)
{
    fault_forbid_uring();
    fault_disk_full(true);
    for (unsigned i = 0; i < 20; i++) {
        start("blkpattern", "blocks=16", 1);
        if (i % 4 > 0)
            await_disk_full();
        if (i % 4 == 2)
            cr_assert_eq(thaw_vm_stop(vm, NULL), 0);
        if (i % 4 == 3)
            cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
        end();
    }
}
