// SPDX-License-Identifier: Apache-2.0
// Every small guest runs and finds what it expects.
#include "guest.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct guest guest;

static void expect_success(void)
{
    struct thaw_vm_info info = guest_wait(&guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED, "%s; console:\n%s", info.detail, guest.console);
    cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s", info.detail);
    cr_assert_eq(info.exit_status, 0, "console:\n%s", guest.console);
}

static void run(struct thaw_vm_options options)
{
    guest_new(&guest, options);
    guest_start(&guest);
}

Test(guests, tick_counts_and_exits)
{
    run((struct thaw_vm_options){
        .kernel_path = "tick", .cmdline = "ticks=5 interval=1000000 nonce=n1"});
    expect_success();
    cr_assert(strstr(guest.console, "tick 1 n1\ntick 2 n1\ntick 3 n1\ntick 4 n1\ntick 5 n1\n"));
    cr_assert_eq(guest_info(&guest).mark, 5);
    guest_free(&guest);
}

Test(guests, tick_reads_the_console)
{
    run((struct thaw_vm_options){.kernel_path = "tick", .cmdline = "interval=10000000"});
    guest_expect(&guest, "tick 1\n", 0);
    cr_assert_eq(thaw_vm_console_input(guest.vm, "hello\n", 6, NULL), 6);
    guest_expect(&guest, "tick: input hello", 0);
    guest_free(&guest);
}

Test(guests, timer_interrupts_arrive_in_every_mode)
{
    run((struct thaw_vm_options){.kernel_path = "timer", .cmdline = "ticks=5 period_us=5000"});
    expect_success();
    cr_assert(strstr(guest.console, "timer: ok"));
    guest_free(&guest);
}

static void smp(uint32_t vcpus)
{
    char line[32];
    run((struct thaw_vm_options){
        .kernel_path = "smp", .cmdline = "target=20 period_us=5000", .vcpu_count = vcpus});
    expect_success();
    snprintf(line, sizeof(line), "smp: ok cpus %u", vcpus);
    cr_assert(strstr(guest.console, line), "console:\n%s", guest.console);
    guest_free(&guest);
}

Test(guests, one_cpu_finds_itself_alone)
{
    smp(1);
}

Test(guests, two_cpus_start)
{
    smp(2);
}

Test(guests, sixteen_cpus_start)
{
    smp(16);
}

/* A file with the guest's data, removed by the caller. */
static void make_data(char *path, unsigned mib)
{
    strcpy(path, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    char command[600];
    snprintf(command, sizeof(command), "%s/../memtouch-data -o %s %u", THAW_GUEST_DIR, path, mib);
    cr_assert_eq(system(command), 0);
}

static void memtouch(uint64_t mem_bytes, const char *cmdline)
{
    char data[64];
    make_data(data, 4);
    run((struct thaw_vm_options){.kernel_path = "memtouch",
        .initrd_path = data,
        .cmdline = cmdline,
        .mem_bytes = mem_bytes});
    expect_success();
    cr_assert(strstr(guest.console, "memtouch: pass 2 pages 1024"), "console:\n%s", guest.console);
    unlink(data);
    guest_free(&guest);
}

Test(guests, memtouch_reads_its_data_in_both_orders)
{
    memtouch(64ull << 20, "passes=2 op=read order=seq");
    memtouch(64ull << 20, "passes=2 op=read order=rand");
}

Test(guests, memtouch_writes_and_verifies)
{
    memtouch(64ull << 20, "passes=2 op=write order=rand");
}

Test(guests, memtouch_runs_in_the_least_memory)
{
    memtouch(16ull << 20, "passes=2");
}

static void tell(const char *what, const char *answer)
{
    size_t from = guest_console_count(&guest);
    cr_assert_eq(
        thaw_vm_console_input(guest.vm, what, strlen(what), NULL), (int)strlen(what), "%s", what);
    guest_expect(&guest, answer, from);
}

Test(guests, churn_does_what_it_is_told)
{
    char data[64];
    make_data(data, 4);
    run((struct thaw_vm_options){
        .kernel_path = "churn", .initrd_path = data, .cmdline = "ws=1", .mem_bytes = 64ull << 20});
    guest_expect(&guest, "churn: ready pages 1024 ws 256\n", 0);
    tell("burst 4\n", "churn: burst 1 pages 1024\n");
    tell("rate 10\n", "churn: rate 10\n");
    tell("touch 7\n", "churn: touch 7 pages 256 sum ");
    tell("rate 0\n", "churn: rate 0\n");
    tell("gap\n", " writes 0\n");
    tell("burst 1\n", "churn: burst ");
    cr_assert_geq(guest_info(&guest).mark_count, 5);
    tell("nonsense\n", "churn: FAIL ");
    unlink(data);
    guest_free(&guest);
}

Test(guests, memtouch_runs_with_memory_above_the_hole)
{
    memtouch(8ull << 30, "passes=2 op=write");
}

/* An image of 4 KiB blocks of zeros, removed by the caller. */
static void make_disk(char *path, off_t bytes)
{
    strcpy(path, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

static void blkpattern(const char *cmdline, off_t bytes, uint32_t flags)
{
    char path[64];
    make_disk(path, bytes);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = path, .flags = flags};
    run((struct thaw_vm_options){
        .kernel_path = "blkpattern", .cmdline = cmdline, .disks = &disk, .disk_count = 1});
    expect_success();
    cr_assert(strstr(guest.console, "blkpattern: ok"), "console:\n%s", guest.console);
    guest_free(&guest);

    char command[128];
    snprintf(command, sizeof(command), "cmp -n %jd %s /dev/zero", (intmax_t)bytes, path);
    cr_assert_eq(system(command), 0, "the base image was written");
    unlink(path);
}

Test(guests, blkpattern_writes_and_verifies_a_disk_whose_base_stays_as_it_was)
{
    blkpattern("blocks=64", 1 << 20, 0);
    blkpattern("blocks=32 stride=7 depth=4", 4 << 20, 0);
}

Test(guests, blkpattern_finds_a_read_only_disk_read_only)
{
    blkpattern("blocks=16", 1 << 20, THAW_DISK_READ_ONLY);
}
