// SPDX-License-Identifier: Apache-2.0
// Clones that run as soon as they are restored or reset, and full snapshots of a VM that was saved
// before.
#include "guest.h"
#include "snapshots.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEM_BYTES (64u << 20)

static struct snapshots snapshots;
static struct guest source, copy;

static void set_up(void)
{
    snapshots_init(&snapshots);
}

static void tear_down(void)
{
    snapshots_fini(&snapshots);
}

TestSuite(resume, .init = set_up, .fini = tear_down, .timeout = 120);

static void make(const char *kernel, const char *cmdline, uint32_t vcpus, const char *until)
{
    guest_new(&source, (struct thaw_vm_options){.kernel_path = kernel,
                           .cmdline = cmdline,
                           .vcpu_count = vcpus,
                           .mem_bytes = MEM_BYTES});
    guest_start(&source);
    guest_expect(&source, until, 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
}

static uint32_t counted; /* by the guest, until it was paused: how far depends on the host */
static char later[32];   /* what it prints a little after that */

/* "s" of a guest that counts. */
static void take_tick(void)
{
    make("tick", "interval=1000000", 1, "tick 3\n");
    counted = guest_info(&source).mark;
    snprintf(later, sizeof(later), "\ntick %u\n", counted + 3);
    snapshots_take(&snapshots, source.vm, "s", THAW_SNAPSHOT_KILL);
    guest_free(&source);
}

static void expect_to_go_on(struct guest *guest)
{
    guest_expect(guest, later, 0);
    cr_assert(!strstr(guest->console, "tick 1\n") && !strstr(guest->console, "tick 2\n"));
}

Test(resume, a_clone_runs_when_it_is_there)
{
    take_tick();
    for (int mode = THAW_RESTORE_LAZY; mode <= THAW_RESTORE_EAGER; mode++) {
        guest_restore(&copy, snapshots.store,
            (struct thaw_restore_options){
                .mode = (enum thaw_restore_mode)mode, .flags = THAW_RESTORE_RESUME},
            "s");
        cr_assert_eq(guest_info(&copy).state, THAW_VM_RUNNING);
        expect_to_go_on(&copy);
        guest_free(&copy);
    }
}

Test(resume, so_do_those_of_a_pool_one_by_one_and_many_at_once)
{
    struct thaw_error error;
    thaw_env *env;
    thaw_pool *pool;
    thaw_vm *vms[12];
    struct thaw_pool_options wanted = {.size = sizeof(wanted), .mem_bytes = MEM_BYTES, .target = 3};
    take_tick();
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_new(env, &wanted, &pool, &error), 0, "%s", error.message);
    for (size_t i = 0; i < sizeof(vms) / sizeof(vms[0]); i++) {
        const struct thaw_restore_options options = {
            .size = sizeof(options), .pool = pool, .flags = THAW_RESTORE_RESUME};
        cr_assert_eq(thaw_restore(env, snapshots.store, "s", &options, &vms[i], &error), 0, "%s",
            error.message);
    }
    for (size_t i = 0; i < sizeof(vms) / sizeof(vms[0]); i++) {
        struct thaw_vm_info info = {.size = sizeof(info)};
        for (unsigned ms = 0; info.mark < counted + 3 && ms < GUEST_TIMEOUT_MS; ms++) {
            usleep(1000);
            thaw_vm_get_info(vms[i], &info);
        }
        cr_assert_geq(info.mark, counted + 3, "VM %zu: %s", i, info.detail);
        thaw_vm_free(vms[i]);
    }
    thaw_pool_free(pool);
    thaw_env_free(env);
}

/* Each round of this guest needs all of its vCPUs. */
Test(resume, all_vcpus_run)
{
    make("smp", "loop=1", 2, "smp: ready");
    uint32_t round = guest_info(&source).mark;
    snapshots_take(&snapshots, source.vm, "s", THAW_SNAPSHOT_KILL);
    guest_free(&source);
    guest_restore(
        &copy, snapshots.store, (struct thaw_restore_options){.flags = THAW_RESTORE_RESUME}, "s");
    for (unsigned ms = 0; guest_info(&copy).mark < round + 3 && ms < GUEST_TIMEOUT_MS; ms++)
        usleep(1000);
    cr_assert_geq(guest_info(&copy).mark, round + 3);
    guest_free(&copy);
}

Test(resume, a_clone_that_is_reset_runs_again)
{
    const struct thaw_reset_options options = {.size = sizeof(options), .flags = THAW_RESET_RESUME};
    struct thaw_error error;
    take_tick();
    guest_restore(
        &copy, snapshots.store, (struct thaw_restore_options){.flags = THAW_RESTORE_RESUME}, "s");
    for (unsigned i = 0; i < 20; i++) {
        size_t printed = guest_expect(&copy, later, 0);
        pthread_mutex_lock(&copy.lock);
        memset(copy.console, ' ', printed);
        pthread_mutex_unlock(&copy.lock);
        cr_assert_eq(thaw_vm_reset(copy.vm, &options, &error), 0, "%s", error.message);
        cr_assert_eq(guest_info(&copy).state, THAW_VM_RUNNING);
    }
    guest_free(&copy);
}

static void expect_equal(const char *snapshot)
{
    uint8_t *memory = snapshots_copy_memory(source.vm);
    guest_restore(&copy, snapshots.store, (struct thaw_restore_options){.mode = THAW_RESTORE_EAGER},
        snapshot);
    int64_t page = snapshots_compare_memory(copy.vm, memory);
    cr_assert_eq(page, 0, "%s: page 0x%llx differs", snapshot, (long long)page - 1);
    guest_free(&copy);
    free(memory);
}

static void go_on(void)
{
    size_t printed = guest_console_count(&source);
    cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
    guest_expect(&source, "\ntick ", printed);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
}

/* Whatever marks earlier snapshots have taken. */
Test(resume, a_full_snapshot_of_a_vm_that_was_saved_has_all_of_its_memory)
{
    make("tick", "interval=1000000", 1, "tick 3\n");
    snapshots_take(&snapshots, source.vm, "first", 0);
    snapshots_take(&snapshots, source.vm, "again", THAW_SNAPSHOT_FULL);
    expect_equal("again");
    go_on();
    snapshots_take(&snapshots, source.vm, "diff", THAW_SNAPSHOT_DIFF);
    go_on();
    snapshots_take(&snapshots, source.vm, "full", THAW_SNAPSHOT_FULL);
    expect_equal("full");
    go_on();
    snapshots_take(
        &snapshots, source.vm, "stopped", THAW_SNAPSHOT_FULL | THAW_SNAPSHOT_STOP_AND_COPY);
    expect_equal("stopped");
    go_on();
    snapshots_take(&snapshots, source.vm, "last", THAW_SNAPSHOT_DIFF);
    expect_equal("last");
    guest_free(&source);
}

/* As the kernel does by itself with pages of zeros that it finds in huge pages. */
static void take_back(uint64_t ram_off)
{
    uint8_t *at = source.vm->mem.base + ram_off;
    cr_assert_eq(madvise(at, PAGE_BYTES, MADV_DONTNEED), 0);
    cr_assert_eq(*(volatile uint8_t *)at, 0);
}

Test(resume, a_page_that_became_zero_and_was_taken_back_is_zero_in_a_diff)
{
    static const uint8_t zeros[PAGE_BYTES];
    const uint64_t page = MEM_BYTES / 2;
    make("tick", "interval=1000000", 1, "tick 3\n");
    cr_assert_eq(mem_write(&source.vm->mem, page, "something", 9), 0);
    snapshots_take(&snapshots, source.vm, "first", 0);
    cr_assert_eq(mem_write(&source.vm->mem, page, zeros, sizeof(zeros)), 0);
    take_back(page);
    snapshots_take(&snapshots, source.vm, "diff", THAW_SNAPSHOT_DIFF);
    expect_equal("diff");
    cr_assert_eq(mem_write(&source.vm->mem, page, "something", 9), 0);
    snapshots_take(&snapshots, source.vm, "again", THAW_SNAPSHOT_DIFF);
    cr_assert_eq(mem_write(&source.vm->mem, page, zeros, sizeof(zeros)), 0);
    take_back(page);
    snapshots_take(&snapshots, source.vm, "full", THAW_SNAPSHOT_FULL);
    expect_equal("full");
    guest_free(&source);
}

Test(resume, so_has_one_of_a_clone)
{
    take_tick();
    guest_restore(&source, snapshots.store, (struct thaw_restore_options){0}, "s");
    go_on();
    snapshots_take(&snapshots, source.vm, "diff", 0);
    go_on();
    snapshots_take(&snapshots, source.vm, "full", THAW_SNAPSHOT_FULL);
    expect_equal("full");
    guest_free(&source);
}
