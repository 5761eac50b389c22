// SPDX-License-Identifier: Apache-2.0
// Clones that are put back to their snapshot, again and again, whatever they did since.
#include "guest.h"
#include "image_internal.h"
#include "lineage.h"
#include "opened.h"
#include "snapshots.h"
#include "vm_state.h"
#include <criterion/criterion.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#define DATA_MIB  4
#define WRITE_ALL "op=write order=rand"

static struct snapshots snapshots;
static struct guest subject, other;
static char initrd[64];

static atomic_int hold_read_ahead;

ssize_t __real_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off);
/* Keeps an image incomplete for as long as a test wants. */
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    while (strcmp(name, "thaw-readahead") == 0 && atomic_load(&hold_read_ahead))
        usleep(1000);
    return __real_pread(fd, bytes, count, off);
}

static void set_up(void)
{
    snapshots_init(&snapshots);
}

static void tear_down(void)
{
    if (initrd[0])
        unlink(initrd);
    snapshots_fini(&snapshots);
}

/* What breaks here often hangs. */
TestSuite(reset, .init = set_up, .fini = tear_down, .timeout = 120);

/* --- What the tests share --------------------------------------------------------------------- */

static void make_data(unsigned mib)
{
    char command[1024];
    strcpy(initrd, "/tmp/thaw-memtouch-XXXXXX");
    int fd = mkstemp(initrd);
    cr_assert_geq(fd, 0);
    close(fd);
    snprintf(command, sizeof(command), "%s/../memtouch-data -o %s %u", THAW_GUEST_DIR, initrd, mib);
    cr_assert_eq(system(command), 0);
}

/* Takes the snapshot "s" of a guest that has printed `until`. */
static void take(struct thaw_vm_options options, const char *until)
{
    static struct guest source;
    if (options.mem_bytes == 0)
        options.mem_bytes = 64 << 20;
    guest_new(&source, options);
    guest_start(&source);
    guest_expect(&source, until, 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    snapshots_take(&snapshots, source.vm, "s", THAW_SNAPSHOT_KILL);
    guest_free(&source);
}

/* Of one that writes to its pages in each pass. */
static void take_writer(unsigned mib, const char *cmdline)
{
    make_data(mib);
    take(
        (struct thaw_vm_options){
            .kernel_path = "memtouch", .initrd_path = initrd, .cmdline = cmdline},
        "pass 2 pages");
}

static void take_tick(const char *cmdline)
{
    take((struct thaw_vm_options){.kernel_path = "tick", .cmdline = cmdline}, "tick 3\n");
}

static void restore(struct guest *guest, enum thaw_restore_mode mode)
{
    guest_restore(guest, snapshots.store, (struct thaw_restore_options){.mode = mode}, "s");
}

static void reset(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_reset(guest->vm, NULL, &error), 0, "%s", error.message);
    struct thaw_vm_info info = guest_info(guest);
    cr_assert_eq(info.state, THAW_VM_PAUSED);
    cr_assert_eq(info.reason, THAW_REASON_REQUEST);
    cr_assert_str_eq(info.detail, "");
    cr_assert_eq(info.exits + info.mark + info.mark_count + info.exit_status, 0);
}

static void resume(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_resume(guest->vm, &error), 0, "%s", error.message);
}

/* Lets it run until it has made so many marks since its restore or reset. */
static void run_marks(struct guest *guest, unsigned marks)
{
    resume(guest);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && guest_info(guest).mark_count < marks; i++)
        usleep(1000);
    cr_assert_geq(guest_info(guest).mark_count, marks, "%s; console:\n%s", guest_info(guest).detail,
        guest->console);
}

static void hold(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_pause(guest->vm, &error), 0, "%s", error.message);
}

static void expect_memory(struct guest *guest, const uint8_t *memory, const char *when)
{
    int64_t page = snapshots_compare_memory(guest->vm, memory);
    cr_assert_eq(page, 0, "%s: page 0x%llx differs", when, (long long)page - 1);
}

static struct image *image_of(struct guest *guest)
{
    const struct lineage *lineage = guest->vm->attachment.data;
    return lineage->image->ram;
}

/* --- Memory ----------------------------------------------------------------------------------- */

static void memory_comes_back(unsigned mib, unsigned times)
{
    take_writer(mib, WRITE_ALL);
    restore(&subject, THAW_RESTORE_EAGER);
    uint8_t *fresh = snapshots_copy_memory(subject.vm);
    for (unsigned i = 0; i < times; i++) {
        run_marks(&subject, 1);
        if (i % 2)
            hold(&subject);
        reset(&subject);
        expect_memory(&subject, fresh, "after the reset");
        /* The guest, which checks all that it reads, finds what it wrote before the snapshot. */
        size_t from = guest_console_count(&subject);
        run_marks(&subject, 1);
        guest_expect(&subject, "memtouch: pass ", from);
    }
    guest_free(&subject);
    free(fresh);
}

Test(reset, memory_is_that_of_a_new_clone_each_time)
{
    memory_comes_back(DATA_MIB, 10);
}

Test(reset, memory_comes_back_also_when_most_of_it_was_written)
{
    memory_comes_back(40, 3);
}

Test(reset, what_the_guest_wrote_where_nothing_was_is_zero_again)
{
    static const uint64_t at = 20 << 20;
    char bytes[4096], zeros[4096] = "";
    memset(bytes, 0x55, sizeof(bytes));
    take_tick("interval=1000000");
    for (int lazy = 0; lazy < 2; lazy++) {
        atomic_store(&hold_read_ahead, lazy);
        restore(&subject, lazy ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER);
        for (unsigned i = 0; i < 3; i++) {
            for (uint64_t page = i; page < 100; page += 1 + i)
                cr_assert_eq(mem_write(&subject.vm->mem, at + page * 4096, bytes, 4096), 0);
            reset(&subject);
            for (uint64_t page = 0; page < 100; page++) {
                cr_assert_eq(mem_read(&subject.vm->mem, at + page * 4096, bytes + 0, 4096), 0);
                cr_assert_arr_eq(bytes, zeros, 4096);
                memset(bytes, 0x55, sizeof(bytes));
            }
        }
        run_marks(&subject, 2);
        atomic_store(&hold_read_ahead, 0);
        guest_free(&subject);
    }
}

Test(reset, memory_beyond_4_gib_comes_back)
{
    static const uint64_t ats[] = {1ull << 20, (5ull << 30) + (8 << 20), (5ull << 30) + (9 << 20)};
    take((struct thaw_vm_options){.kernel_path = "tick",
             .cmdline = "interval=1000000",
             .mem_bytes = (4ull << 30) + (64 << 20)},
        "tick 3\n");
    for (int lazy = 0; lazy < 2; lazy++) {
        uint64_t before[3], after;
        atomic_store(&hold_read_ahead, lazy);
        restore(&subject, lazy ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER);
        for (unsigned i = 0; i < 3; i++) {
            cr_assert_eq(mem_read(&subject.vm->mem, ats[i], &before[i], 8), 0);
            cr_assert_eq(mem_write(&subject.vm->mem, ats[i], "written!", 8), 0);
        }
        reset(&subject);
        for (unsigned i = 0; i < 3; i++) {
            cr_assert_eq(mem_read(&subject.vm->mem, ats[i], &after, 8), 0);
            cr_assert_eq(before[i], after);
        }
        run_marks(&subject, 1);
        atomic_store(&hold_read_ahead, 0);
        guest_free(&subject);
    }
}

Test(reset, a_clone_of_an_incomplete_image_gets_its_pages_again)
{
    take_writer(DATA_MIB, "op=write order=rand ws=1");
    restore(&other, THAW_RESTORE_EAGER);
    uint8_t *fresh = snapshots_copy_memory(other.vm);
    guest_free(&other);
    atomic_store(&hold_read_ahead, 1);
    restore(&subject, THAW_RESTORE_LAZY);
    for (unsigned i = 0; i < 3; i++) {
        run_marks(&subject, 1);
        cr_assert_eq(atomic_load(&image_of(&subject)->complete), false);
        reset(&subject);
        run_marks(&subject, 2);
        reset(&subject);
    }
    cr_assert_eq(atomic_load(&image_of(&subject)->complete), false);
    /* And while it becomes complete. */
    atomic_store(&hold_read_ahead, 0);
    while (!atomic_load(&image_of(&subject)->complete)) {
        run_marks(&subject, 1);
        reset(&subject);
    }
    run_marks(&subject, 1);
    reset(&subject);
    expect_memory(&subject, fresh, "after all");
    guest_free(&subject);
    free(fresh);
}

/* --- State ------------------------------------------------------------------------------------ */

static struct vm_state *save(struct guest *guest)
{
    struct thaw_error error;
    struct vm_state *state = vm_state_new(guest->vm->vcpu_count);
    cr_assert_not_null(state);
    cr_assert_eq(vm_state_save(guest->vm, state, &error), 0, "%s", error.message);
    return state;
}

/* Time goes on while a VM is paused. */
static bool is_clock(uint32_t msr)
{
    return msr == 0x10 || msr == 0xe7 || msr == 0xe8;
}

static void expect_vcpu(const struct vcpu_state *a, const struct vcpu_state *b)
{
    cr_assert_eq(a->mp_state.mp_state, b->mp_state.mp_state);
    cr_assert_arr_eq(&a->regs, &b->regs, sizeof(a->regs));
    cr_assert_arr_eq(&a->sregs, &b->sregs, sizeof(a->sregs));
    cr_assert_arr_eq(&a->debugregs, &b->debugregs, sizeof(a->debugregs));
    cr_assert_arr_eq(&a->xcrs, &b->xcrs, sizeof(a->xcrs));
    cr_assert_arr_eq(a->xsave, b->xsave, a->xsave_bytes);
    cr_assert_arr_eq(&a->events, &b->events, sizeof(a->events));
    cr_assert_eq(a->msr_count, b->msr_count);
    for (uint32_t i = 0; i < a->msr_count; i++)
        cr_assert(is_clock(a->msrs[i].index) || a->msrs[i].data == b->msrs[i].data,
            "MSR 0x%x: 0x%llx, 0x%llx", a->msrs[i].index, (unsigned long long)a->msrs[i].data,
            (unsigned long long)b->msrs[i].data);
    /* Its timer's current count, at 0x390, goes on as well. */
    cr_assert_arr_eq(a->lapic.regs, b->lapic.regs, 0x200);
    cr_assert_arr_eq(a->lapic.regs + 0x280, b->lapic.regs + 0x280, 0x390 - 0x280);
}

static void expect_state(const struct vm_state *a, const struct vm_state *b)
{
    for (uint32_t i = 0; i < a->vcpu_count; i++)
        expect_vcpu(&a->vcpus[i], &b->vcpus[i]);
    cr_assert_arr_eq(&a->chips.ioapic, &b->chips.ioapic, sizeof(a->chips.ioapic));
    cr_assert_arr_eq(&a->chips.pic_master, &b->chips.pic_master, sizeof(a->chips.pic_master));
    cr_assert_arr_eq(&a->machine, &b->machine, sizeof(a->machine));
}

Test(reset, processors_and_devices_are_as_in_a_new_clone)
{
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_EAGER);
    struct vm_state *fresh = save(&subject);
    for (unsigned i = 0; i < 5; i++) {
        run_marks(&subject, 2 + i);
        /* Half of a line that is typed. */
        cr_assert_eq(thaw_vm_console_input(subject.vm, "ab", 2, NULL), 2);
        reset(&subject);
        struct vm_state *state = save(&subject);
        expect_state(fresh, state);
        vm_state_free(state);
    }
    run_marks(&subject, 2);
    size_t from = guest_console_count(&subject);
    cr_assert_eq(thaw_vm_console_input(subject.vm, "c\n", 2, NULL), 2);
    guest_expect(&subject, "tick: input c\n", from);
    vm_state_free(fresh);
    guest_free(&subject);
}

Test(reset, all_cpus_of_a_guest_go_on_from_the_same_counts)
{
    take(
        (struct thaw_vm_options){
            .kernel_path = "smp", .cmdline = "loop=1 period_us=2000", .vcpu_count = 4},
        "smp: cpu 3 count");
    restore(&subject, THAW_RESTORE_EAGER);
    struct vm_state *fresh = save(&subject);
    uint8_t *memory = snapshots_copy_memory(subject.vm);
    for (unsigned i = 0; i < 5; i++) {
        size_t from = guest_console_count(&subject);
        resume(&subject);
        for (unsigned cpu = 0; cpu < 4; cpu++) {
            char line[32];
            snprintf(line, sizeof(line), "smp: cpu %u count", cpu);
            guest_expect(&subject, line, from);
        }
        reset(&subject);
        expect_memory(&subject, memory, "after the reset");
        struct vm_state *state = save(&subject);
        expect_state(fresh, state);
        for (unsigned cpu = 1; cpu < 4; cpu++)
            cr_assert_eq(state->vcpus[cpu].tsc - state->vcpus[0].tsc,
                fresh->vcpus[cpu].tsc - fresh->vcpus[0].tsc);
        vm_state_free(state);
    }
    vm_state_free(fresh);
    free(memory);
    guest_free(&subject);
}

/* Processors that wait to be started, timers and controllers in any state. */
static void state_comes_back(const char *cmdline, uint32_t vcpus)
{
    take(
        (struct thaw_vm_options){.kernel_path = "hostile", .cmdline = cmdline, .vcpu_count = vcpus},
        "hostile: ready");
    restore(&subject, THAW_RESTORE_EAGER);
    struct vm_state *fresh = save(&subject);
    for (unsigned i = 0; i < 10; i++) {
        resume(&subject);
        usleep(1000 + i * 2000);
        reset(&subject);
        struct vm_state *state = save(&subject);
        expect_state(fresh, state);
        vm_state_free(state);
    }
    vm_state_free(fresh);
    guest_free(&subject);
}

Test(reset, controllers_and_timers_that_were_scribbled_over_come_back)
{
    state_comes_back("op=apics rounds=1000000", 2);
}

Test(reset, processors_that_were_started_in_garbage_come_back)
{
    state_comes_back("op=sipi", 4);
}

Test(reset, device_registers_that_were_scribbled_over_come_back)
{
    state_comes_back("op=virtio rounds=1000000", 2);
}

Test(reset, nothing_is_left_of_translations_that_a_guest_made_since)
{
    take((struct thaw_vm_options){.kernel_path = "remap"}, "remap: ready");
    restore(&subject, THAW_RESTORE_EAGER);
    for (unsigned i = 0; i < 30; i++) {
        run_marks(&subject, 1 + i % 2);
        reset(&subject);
        run_marks(&subject, 1);
    }
    guest_free(&subject);
}

Test(reset, timers_of_every_kind_go_on)
{
    static const char *const modes[] = {"periodic", "oneshot", "deadline"};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        char until[32];
        snprintf(until, sizeof(until), "%s\n", modes[i]);
        take(
            (struct thaw_vm_options){.kernel_path = "timer", .cmdline = "ticks=20 period_us=20000"},
            until);
        restore(&subject, THAW_RESTORE_EAGER);
        for (unsigned j = 0; j < 3; j++) {
            resume(&subject);
            if (j > 0) {
                struct thaw_vm_info info = guest_wait(&subject);
                cr_assert_eq(info.exit_status, 0, "%s", subject.console);
            } else {
                usleep(30000);
            }
            const struct thaw_reset_options options = {
                .size = sizeof(options), .clock = j == 1 ? THAW_CLOCK_HOST : THAW_CLOCK_CONTINUE};
            struct thaw_error error;
            cr_assert_eq(thaw_vm_reset(subject.vm, &options, &error), 0, "%s", error.message);
        }
        guest_free(&subject);
        cr_assert_eq(thaw_store_delete(snapshots.store, "s", NULL), 0);
    }
}

/* The guest's clock just after a reset. */
static uint64_t clock_after(enum thaw_clock policy)
{
    const struct thaw_reset_options options = {.size = sizeof(options), .clock = policy};
    struct thaw_error error;
    cr_assert_eq(thaw_vm_reset(subject.vm, &options, &error), 0, "%s", error.message);
    struct vm_state *state = save(&subject);
    uint64_t clock_ns = state->clock.kvmclock_ns;
    vm_state_free(state);
    return clock_ns;
}

Test(reset, the_clock_continues_or_jumps_ahead)
{
    static const uint64_t second_ns = 1000000000;
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_EAGER);
    struct vm_state *fresh = save(&subject);
    run_marks(&subject, 1);
    usleep(1500000);
    uint64_t first = clock_after(THAW_CLOCK_CONTINUE);
    uint64_t ahead = clock_after(THAW_CLOCK_HOST);
    uint64_t again = clock_after(THAW_CLOCK_CONTINUE);
    /* As soon after it as this machine allows, which may be busy. */
    cr_assert_lt(first, fresh->clock.kvmclock_ns + second_ns);
    cr_assert_lt(again, fresh->clock.kvmclock_ns + second_ns);
    cr_assert_gt(ahead, fresh->clock.kvmclock_ns + second_ns);
    run_marks(&subject, 2);
    vm_state_free(fresh);
    guest_free(&subject);
}

Test(reset, the_generation_id_is_a_new_one)
{
    uint8_t before[16], after[16];
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_EAGER);
    cr_assert_eq(mem_read(&subject.vm->mem, MACHINE_VMGENID_GPA, before, 16), 0);
    reset(&subject);
    cr_assert_eq(mem_read(&subject.vm->mem, MACHINE_VMGENID_GPA, after, 16), 0);
    cr_assert_arr_neq(before, after, 16);
    guest_free(&subject);
}

/* --- Ends ------------------------------------------------------------------------------------- */

Test(reset, what_has_ended_begins_again)
{
    take_tick("interval=1000000 ticks=6");
    restore(&subject, THAW_RESTORE_LAZY);
    for (unsigned i = 0; i < 3; i++) {
        resume(&subject);
        struct thaw_vm_info info = guest_wait(&subject);
        cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s", info.detail);
        cr_assert_eq(info.mark, 6);
        reset(&subject);
        run_marks(&subject, 1);
        cr_assert_eq(thaw_vm_stop(subject.vm, NULL), 0);
        reset(&subject);
        run_marks(&subject, 1);
        vm_fail(subject.vm, THAW_REASON_KVM, "a test");
        reset(&subject);
        cr_assert_eq(thaw_vm_wait(subject.vm, 0), -ETIMEDOUT);
    }
    guest_free(&subject);
}

Test(reset, a_guest_that_failed_begins_again)
{
    take(
        (struct thaw_vm_options){.kernel_path = "tick", .cmdline = "interval=1000000"}, "tick 3\n");
    restore(&subject, THAW_RESTORE_EAGER);
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_regs regs;
        run_marks(&subject, 1);
        hold(&subject);
        /* Where no instruction is. */
        cr_assert_eq(ioctl(subject.vm->vcpus[0].fd, KVM_GET_REGS, &regs), 0);
        regs.rip = 0xfedcba9876543210;
        cr_assert_eq(ioctl(subject.vm->vcpus[0].fd, KVM_SET_REGS, &regs), 0);
        resume(&subject);
        guest_wait(&subject);
        cr_assert_neq(guest_info(&subject).reason, THAW_REASON_REQUEST);
        reset(&subject);
        run_marks(&subject, 2);
        reset(&subject);
    }
    guest_free(&subject);
}

Test(reset, a_vm_whose_memory_is_gone_stays_failed)
{
    struct thaw_error error;
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_LAZY);
    vm_fail(subject.vm, THAW_REASON_MEMORY, "a test");
    cr_assert_eq(thaw_vm_reset(subject.vm, NULL, &error), THAW_ESTATE);
    cr_assert(strstr(error.message, "a test"), "%s", error.message);
    cr_assert_eq(guest_info(&subject).state, THAW_VM_FAILED);
    guest_free(&subject);
}

Test(reset, a_booted_vm_is_refused_and_runs_on)
{
    struct thaw_error error;
    guest_new(&subject, (struct thaw_vm_options){.kernel_path = "tick", .mem_bytes = 32 << 20});
    cr_assert_eq(thaw_vm_reset(subject.vm, NULL, &error), THAW_ESTATE);
    guest_start(&subject);
    guest_expect(&subject, "tick 1\n", 0);
    cr_assert_eq(thaw_vm_reset(subject.vm, NULL, &error), THAW_ESTATE);
    cr_assert(strstr(error.message, "not restored"), "%s", error.message);
    snapshots_take(&snapshots, subject.vm, "s", 0);
    cr_assert_eq(thaw_vm_reset(subject.vm, NULL, &error), THAW_ESTATE, "it has a lineage now");
    cr_assert_eq(guest_info(&subject).state, THAW_VM_RUNNING);
    guest_free(&subject);
}

Test(reset, wrong_options_are_refused)
{
    struct thaw_error error;
    struct thaw_reset_options options = {.size = sizeof(options), .flags = 2};
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_LAZY);
    cr_assert_eq(thaw_vm_reset(subject.vm, &options, &error), -EINVAL);
    options = (struct thaw_reset_options){.size = sizeof(options), .clock = 7};
    cr_assert_eq(thaw_vm_reset(subject.vm, &options, &error), -EINVAL);
    guest_free(&subject);
}

/* --- Snapshots of clones that were reset ------------------------------------------------------ */

static void expect_diff_is_exact(const char *name)
{
    hold(&subject);
    uint8_t *memory = snapshots_copy_memory(subject.vm);
    snapshots_take(&snapshots, subject.vm, name, THAW_SNAPSHOT_DIFF);
    guest_restore(
        &other, snapshots.store, (struct thaw_restore_options){.mode = THAW_RESTORE_EAGER}, name);
    expect_memory(&other, memory, name);
    run_marks(&other, 1);
    guest_free(&other);
    free(memory);
}

static void diffs_are_exact(enum thaw_restore_mode mode, unsigned mib)
{
    char name[16];
    take_writer(mib, WRITE_ALL);
    restore(&subject, mode);
    for (unsigned i = 0; i < 3; i++) {
        run_marks(&subject, 1);
        snprintf(name, sizeof(name), "a%u", i);
        if (i != 1)
            expect_diff_is_exact(name);
        if (i == 2)
            run_marks(&subject, 1);
        reset(&subject);
        snprintf(name, sizeof(name), "b%u", i);
        if (i != 2)
            expect_diff_is_exact(name);
        /* Of some of its pages only. */
        resume(&subject);
        usleep(3000);
        snprintf(name, sizeof(name), "c%u", i);
        expect_diff_is_exact(name);
        reset(&subject);
    }
    guest_free(&subject);
}

Test(reset, diffs_after_a_reset_are_exact)
{
    diffs_are_exact(THAW_RESTORE_EAGER, DATA_MIB);
}

Test(reset, diffs_after_a_reset_that_dropped_all_pages_are_exact)
{
    diffs_are_exact(THAW_RESTORE_LAZY, 36);
}

Test(reset, a_diff_is_relative_to_the_snapshot_again)
{
    struct thaw_error error;
    take_tick("interval=1000000");
    restore(&subject, THAW_RESTORE_LAZY);
    run_marks(&subject, 2);
    snapshots_take(&snapshots, subject.vm, "mid", THAW_SNAPSHOT_DIFF);
    cr_assert_eq(thaw_store_delete(snapshots.store, "mid", &error), -EBUSY);
    reset(&subject);
    cr_assert_eq(thaw_store_delete(snapshots.store, "mid", &error), 0, "%s", error.message);
    run_marks(&subject, 1);
    snapshots_take(&snapshots, subject.vm, "next", THAW_SNAPSHOT_DIFF);
    thaw_snapshot_list *list, *origin;
    cr_assert_eq(thaw_store_find(snapshots.store, "next", &list, &error), 0);
    cr_assert_eq(thaw_store_find(snapshots.store, "s", &origin, &error), 0);
    cr_assert_str_eq(
        thaw_snapshot_list_get(list, 0)->parent, thaw_snapshot_list_get(origin, 0)->id);
    thaw_snapshot_list_free(list);
    thaw_snapshot_list_free(origin);
    guest_free(&subject);
}

Test(reset, not_while_a_snapshot_is_taken)
{
    struct thaw_error error;
    thaw_job *job;
    take_writer(DATA_MIB, WRITE_ALL);
    restore(&subject, THAW_RESTORE_EAGER);
    for (unsigned i = 0; i < 5; i++) {
        run_marks(&subject, 1);
        cr_assert_eq(thaw_vm_snapshot(subject.vm, snapshots.store, NULL, &job, &error), 0, "%s",
            error.message);
        int r = thaw_vm_reset(subject.vm, NULL, &error);
        cr_assert(r == 0 || r == -EBUSY, "%s", error.message);
        cr_assert_eq(snapshots_wait(0, job, &error), 0, "%s", error.message);
        reset(&subject);
    }
    guest_free(&subject);
    snapshots_check_store(&snapshots, "after all");
}

/* --- Disks ------------------------------------------------------------------------------------ */

Test(reset, disks_come_back_with_writes_in_flight)
{
    char base[] = "/tmp/thaw-test-XXXXXX";
    int fd = mkstemp(base);
    cr_assert_eq(ftruncate(fd, 8 << 20), 0);
    close(fd);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    take((struct thaw_vm_options){.kernel_path = "blkpattern",
             .cmdline = "blocks=128 stride=3 loop=1",
             .disks = &disk,
             .disk_count = 1},
        "generation 3 ");
    restore(&subject, THAW_RESTORE_LAZY);
    reset(&subject);
    for (unsigned i = 0; i < 12; i++) {
        resume(&subject);
        usleep(i * 1700);
        if (i % 4 == 3)
            run_marks(&subject, 2);
        if (i % 4 == 1) {
            char name[16];
            snprintf(name, sizeof(name), "d%u", i);
            snapshots_take(&snapshots, subject.vm, name, THAW_SNAPSHOT_DIFF);
            usleep(5000);
        }
        reset(&subject);
    }
    /* The guest verifies every generation before it overwrites it. */
    size_t from = guest_console_count(&subject);
    resume(&subject);
    guest_expect(&subject, "generation 6 ", from);
    guest_free(&subject);
    snapshots_check_store(&snapshots, "after all");
    unlink(base);
}

/* --- Many ------------------------------------------------------------------------------------- */

static atomic_bool stop;

static void *pause_and_resume(void *data)
{
    struct guest *guest = data;
    while (!atomic_load(&stop)) {
        struct thaw_vm_info info = guest_info(guest);
        thaw_vm_pause(guest->vm, NULL);
        thaw_vm_resume(guest->vm, NULL);
        thaw_vm_console_input(guest->vm, "x", info.exits == 0 ? 0 : 1, NULL);
    }
    return NULL;
}

Test(reset, others_may_pause_and_resume_meanwhile)
{
    pthread_t threads[2];
    struct thaw_error error;
    take(
        (struct thaw_vm_options){
            .kernel_path = "smp", .cmdline = "loop=1 period_us=1000", .vcpu_count = 2},
        "smp: cpu 1 count");
    restore(&subject, THAW_RESTORE_LAZY);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, pause_and_resume, &subject), 0);
    for (unsigned i = 0; i < 50; i++)
        cr_assert_eq(thaw_vm_reset(subject.vm, NULL, &error), 0, "%s", error.message);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    size_t from = guest_console_count(&subject);
    resume(&subject);
    guest_expect(&subject, "smp: cpu 1 count", from);
    guest_free(&subject);
}

struct user {
    pthread_t thread;
    thaw_image *image;
    thaw_pool *pool;
};

static void *use_often(void *data)
{
    const struct user *user = data;
    struct guest guest = {0};
    struct thaw_error error;
    const struct thaw_restore_options how = {.size = sizeof(how), .pool = user->pool};
    cr_assert_eq(thaw_image_restore(user->image, &how, &guest.vm, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < 10; i++) {
        run_marks(&guest, 1 + i % 2);
        reset(&guest);
    }
    thaw_vm_free(guest.vm);
    return NULL;
}

Test(reset, clones_from_a_pool_are_reset_by_several_threads)
{
    struct user users[3];
    struct thaw_error error;
    thaw_env *env;
    take_tick("interval=1000000");
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    const struct thaw_pool_options shape = {
        .size = sizeof(shape), .mem_bytes = 64 << 20, .target = 2};
    cr_assert_eq(thaw_image_open(env, snapshots.store, "s", "test", NULL, &users[0].image, &error),
        0, "%s", error.message);
    cr_assert_eq(thaw_pool_new(env, &shape, &users[0].pool, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < 3; i++) {
        users[i].image = users[0].image;
        users[i].pool = users[0].pool;
        cr_assert_eq(pthread_create(&users[i].thread, NULL, use_often, &users[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(users[i].thread, NULL);
    thaw_pool_free(users[0].pool);
    thaw_image_close(users[0].image);
    thaw_env_free(env);
}
