// SPDX-License-Identifier: Apache-2.0
// Snapshots as an embedding program sees them: taken of running guests, restored, taken again.
#include "guest.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static char store_path[64];
static thaw_store *store;

static void open_store(void)
{
    struct thaw_error error;
    strcpy(store_path, "/tmp/thaw-test-XXXXXX");
    cr_assert_not_null(mkdtemp(store_path));
    struct thaw_store_options options = {
        .size = sizeof(options), .path = store_path, .flags = THAW_STORE_CREATE};
    cr_assert_eq(thaw_store_open(&options, &store, &error), 0, "%s", error.message);
}

static void close_store(void)
{
    char command[128];
    thaw_store_close(store);
    snprintf(command, sizeof(command), "rm -rf %s", store_path);
    cr_assert_eq(system(command), 0);
}

TestSuite(snapshot, .init = open_store, .fini = close_store);

static void start(struct guest *guest, const char *kernel, const char *cmdline, const char *until)
{
    guest_new(guest,
        (struct thaw_vm_options){
            .name = "source", .kernel_path = kernel, .cmdline = cmdline, .mem_bytes = 32 << 20});
    guest_start(guest);
    guest_expect(guest, until, 0);
}

static struct thaw_snapshot_result take(struct guest *guest, const char *name, uint32_t flags)
{
    struct thaw_error error;
    thaw_job *job;
    struct thaw_snapshot_options options = {.size = sizeof(options), .name = name, .flags = flags};
    struct thaw_snapshot_result result = {.size = sizeof(result)};
    cr_assert_eq(
        thaw_vm_snapshot(guest->vm, store, &options, &job, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_get_snapshot(job, &result), 0);
    thaw_job_free(job);
    return result;
}

static void verify(const char *name)
{
    struct thaw_error error;
    thaw_job *job;
    cr_assert_eq(thaw_snapshot_verify(store, name, &job, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    thaw_job_free(job);
}

static void restore(struct guest *guest, const char *name, enum thaw_restore_mode mode)
{
    guest_restore(guest, store, (struct thaw_restore_options){.mode = mode}, name);
}

static void resume(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_resume(guest->vm, &error), 0, "%s", error.message);
}

/* The first number that the guest prints after it was restored. */
static unsigned first_tick(struct guest *guest)
{
    size_t end = guest_expect(guest, "\ntick ", 0);
    guest_expect(guest, "\n", end);
    return (unsigned)strtoul(guest->console + end, NULL, 10);
}

static void count_goes_on(enum thaw_restore_mode mode)
{
    static struct guest source, one, two;
    start(&source, "tick", "interval=1000000", "tick 5\n");
    struct thaw_snapshot_result result = take(&source, "s1", 0);
    cr_assert_str_eq(result.name, "s1");
    cr_assert_eq(result.diff, 0);
    cr_assert_gt(result.pause_ns, 0);
    cr_assert_lt(result.stored_bytes, 1 << 20, "untouched memory is not stored");
    verify("s1");
    unsigned at = guest_info(&source).mark;
    guest_expect(&source, "tick ", guest_console_count(&source));

    restore(&one, "s1", mode);
    restore(&two, "s1", mode);
    cr_assert_eq(guest_info(&one).state, THAW_VM_PAUSED);
    resume(&one);
    resume(&two);
    unsigned a = first_tick(&one), b = first_tick(&two);
    cr_assert_eq(a, b);
    cr_assert_leq(a, at + 2);
    guest_free(&one);
    guest_expect(&two, "tick ", guest_console_count(&two));
    guest_free(&two);
    guest_expect(&source, "tick ", guest_console_count(&source));
    guest_free(&source);
}

Test(snapshot, clones_go_on_from_the_same_count_eagerly)
{
    count_goes_on(THAW_RESTORE_EAGER);
}

Test(snapshot, clones_go_on_from_the_same_count_lazily)
{
    count_goes_on(THAW_RESTORE_LAZY);
}

static int compare_memory(struct guest *a, struct guest *b)
{
    /* The page of the generation id differs on purpose. */
    for (uint64_t off = 0; off < a->vm->mem.bytes; off += 4096) {
        if (off == MACHINE_VMGENID_GPA)
            continue;
        if (mem_make_present(&b->vm->mem, off, 4096) < 0)
            return -1;
        if (memcmp(a->vm->mem.base + off, b->vm->mem.base + off, 4096) != 0)
            return (int)(off / 4096) + 1;
    }
    return 0;
}

static void memory_is_equal(enum thaw_restore_mode mode)
{
    static struct guest source, clone;
    start(&source, "smp", "loop=1 period_us=1000", "smp: cpu 0 count");
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    take(&source, "s1", 0);
    restore(&clone, "s1", mode);
    cr_assert_eq(compare_memory(&source, &clone), 0);
    guest_free(&clone);
    guest_free(&source);
}

Test(snapshot, all_memory_of_a_clone_is_the_sources)
{
    memory_is_equal(THAW_RESTORE_EAGER);
    struct thaw_error error;
    cr_assert_eq(thaw_store_delete(store, "s1", &error), 0, "%s", error.message);
    memory_is_equal(THAW_RESTORE_LAZY);
}

/* Their pages are in one pack, and the pack stays for the disk's sake. */
Test(snapshot, a_diff_leaves_memory_where_it_is_also_beside_a_large_disk)
{
    static struct guest source, clone;
    char path[] = "/tmp/thaw-disk-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(ftruncate(fd, 16 << 20), 0);
    close(fd);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = path};
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "blkpattern",
                           .cmdline = "loop=1 blocks=2048",
                           .mem_bytes = 32 << 20,
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 1 ", 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    static uint8_t data[1 << 20];
    cr_assert_eq(getrandom(data, sizeof(data), 0), sizeof(data));
    cr_assert_eq(mem_write(&source.vm->mem, 16 << 20, data, sizeof(data)), 0);

    cr_assert_gt(take(&source, "full", 0).stored_bytes, sizeof(data));
    cr_assert_eq(mem_write(&source.vm->mem, 24 << 20, data, PAGE_BYTES), 0);
    struct thaw_snapshot_result diff = take(&source, "diff", THAW_SNAPSHOT_DIFF);
    cr_assert_lt(diff.stored_bytes, sizeof(data) / 2);
    verify("diff");
    restore(&clone, "diff", THAW_RESTORE_EAGER);
    cr_assert_eq(compare_memory(&source, &clone), 0);
    guest_free(&clone);
    guest_free(&source);
    unlink(path);
}

Test(snapshot, a_diff_stores_what_changed_and_restores_without_its_ancestors)
{
    static struct guest source, clone;
    start(&source, "tick", "interval=1000000", "tick 5\n");
    struct thaw_snapshot_result full = take(&source, "full", 0);
    guest_expect(&source, "tick ", guest_console_count(&source));
    struct thaw_snapshot_result diff = take(&source, "diff", THAW_SNAPSHOT_DIFF);
    cr_assert_eq(diff.diff, 1);
    cr_assert_lt(diff.pages, full.pages);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    struct thaw_snapshot_result again = take(&source, "again", 0);
    cr_assert_eq(again.diff, 1);
    cr_assert_eq(again.pause_ns, 0, "it was paused before");

    struct thaw_error error;
    cr_assert_eq(thaw_store_delete(store, "full", &error), 0, "%s", error.message);
    cr_assert_eq(thaw_store_delete(store, "diff", &error), 0, "%s", error.message);
    verify("again");
    restore(&clone, "again", THAW_RESTORE_EAGER);
    cr_assert_eq(compare_memory(&source, &clone), 0);
    resume(&clone);
    first_tick(&clone);
    guest_free(&clone);
    guest_free(&source);
}

Test(snapshot, generations_of_clones_go_on_counting)
{
    static struct guest guests[6];
    unsigned count = 0;
    char name[16];
    start(&guests[0], "tick", "interval=300000", "tick 5\n");
    take(&guests[0], "g0", 0);
    for (unsigned i = 1; i < 6; i++) {
        snprintf(name, sizeof(name), "g%u", i - 1);
        restore(&guests[i], name, i % 2 ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER);
        guest_free(&guests[i - 1]);
        resume(&guests[i]);
        unsigned tick = first_tick(&guests[i]);
        cr_assert_gt(tick, count);
        count = tick;
        guest_expect(&guests[i], "tick ", guest_console_count(&guests[i]));
        snprintf(name, sizeof(name), "g%u", i);
        cr_assert_eq(take(&guests[i], name, 0).diff, 1);
        if (i >= 2) {
            struct thaw_error error;
            snprintf(name, sizeof(name), "g%u", i - 2);
            cr_assert_eq(thaw_store_delete(store, name, &error), 0, "%s", error.message);
        }
    }
    verify("g5");
    guest_free(&guests[5]);
}

Test(snapshot, full_and_flattened_snapshots_share_nothing)
{
    static struct guest source, clone;
    start(&source, "tick", "interval=300000", "tick 5\n");
    take(&source, "a", 0);
    guest_expect(&source, "tick ", guest_console_count(&source));
    take(&source, "b", 0);
    struct thaw_snapshot_result full = take(&source, "c", THAW_SNAPSHOT_FULL);
    cr_assert_eq(full.diff, 0);

    struct thaw_error error;
    thaw_job *job;
    cr_assert_eq(thaw_snapshot_flatten(store, "b", "flat", &job, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    thaw_job_free(job);
    static const char *const names[] = {"c", "flat"};
    for (size_t i = 0; i < 2; i++) {
        thaw_snapshot_list *list;
        verify(names[i]);
        cr_assert_eq(thaw_store_find(store, names[i], &list, &error), 0, "%s", error.message);
        cr_assert_eq(thaw_snapshot_list_get(list, 0)->shared_bytes, 0);
        thaw_snapshot_list_free(list);
        restore(&clone, names[i], THAW_RESTORE_LAZY);
        resume(&clone);
        first_tick(&clone);
        guest_free(&clone);
    }
    guest_free(&source);
}

Test(snapshot, kill_stops_the_source_once_the_snapshot_is_there)
{
    static struct guest source, clone;
    start(&source, "tick", "interval=300000", "tick 5\n");
    take(&source, "last", THAW_SNAPSHOT_KILL);
    cr_assert_eq(guest_info(&source).state, THAW_VM_STOPPED);
    guest_free(&source);
    restore(&clone, "last", THAW_RESTORE_LAZY);
    resume(&clone);
    first_tick(&clone);
    guest_free(&clone);
}

Test(snapshot, a_snapshot_in_use_is_not_deleted)
{
    static struct guest source, clone;
    struct thaw_error error;
    start(&source, "tick", "", "tick 1\n");
    take(&source, "s1", 0);
    cr_assert_eq(thaw_store_delete(store, "s1", &error), -EBUSY);
    cr_assert(strstr(error.message, "VM source"), "%s", error.message);
    restore(&clone, "s1", THAW_RESTORE_LAZY);
    guest_free(&source);
    cr_assert_eq(thaw_store_delete(store, "s1", &error), -EBUSY);
    guest_free(&clone);
    cr_assert_eq(thaw_store_delete(store, "s1", &error), 0, "%s", error.message);
}

Test(snapshot, disks_come_back_as_they_were_and_diverge)
{
    static struct guest source, clone;
    char base[64];
    strcpy(base, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(base);
    cr_assert_eq(ftruncate(fd, 8 << 20), 0);
    close(fd);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "blkpattern",
                           .cmdline = "blocks=128 stride=3 loop=1",
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 3 ", 0);
    take(&source, "d1", 0);
    guest_expect(&source, "generation 6 ", 0);
    take(&source, "d2", 0);
    guest_expect(&source, "generation 9 ", 0);
    guest_free(&source);

    static const char *const names[] = {"d1", "d2"};
    for (size_t i = 0; i < 2; i++) {
        verify(names[i]);
        restore(&clone, names[i], THAW_RESTORE_LAZY);
        resume(&clone);
        /* The guest verifies every generation before it overwrites it. */
        guest_expect(&clone, i == 0 ? "generation 7 " : "generation 10 ", 0);
        char name[16];
        snprintf(name, sizeof(name), "d1%zu", i);
        take(&clone, name, 0);
        guest_free(&clone);
        restore(&clone, name, THAW_RESTORE_EAGER);
        resume(&clone);
        guest_expect(&clone, i == 0 ? "generation 12 " : "generation 14 ", 0);
        guest_free(&clone);
    }
    char command[128];
    snprintf(command, sizeof(command), "cmp -n 8388608 %s /dev/zero", base);
    cr_assert_eq(system(command), 0, "the base image was written");
    unlink(base);
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

Test(snapshot, a_disk_that_is_not_written_takes_no_file_for_a_snapshot)
{
    static struct guest source, clone;
    char base[64], name[16];
    strcpy(base, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(base);
    cr_assert_eq(ftruncate(fd, 8 << 20), 0);
    close(fd);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "blkpattern",
                           .cmdline = "blocks=128 stride=3 loop=1",
                           .mem_bytes = 32 << 20,
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 3 ", 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    unsigned before = 0;
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        take(&source, name, 0);
        if (i == 1)
            before = open_files();
    }
    cr_assert_eq(open_files(), before);
    /* It is written again, and nothing of either time is lost. */
    resume(&source);
    size_t end = guest_console_count(&source);
    for (unsigned i = 0; i < 3; i++)
        end = guest_expect(&source, "generation ", end);
    take(&source, "later", 0);
    guest_free(&source);
    static const char *const names[] = {"s0", "s1", "s49", "later"};
    for (size_t i = 0; i < 4; i++) {
        verify(names[i]);
        restore(&clone, names[i], THAW_RESTORE_LAZY);
        take(&clone, i == 0 ? "c0" : i == 1 ? "c1" : i == 2 ? "c2" : "c3", 0);
        resume(&clone);
        end = guest_expect(&clone, "generation ", 0);
        guest_expect(&clone, "generation ", end);
        guest_free(&clone);
    }
    restore(&clone, "c3", THAW_RESTORE_EAGER);
    resume(&clone);
    guest_expect(&clone, "generation ", guest_expect(&clone, "generation ", 0));
    guest_free(&clone);
    unlink(base);
}

Test(snapshot, a_vm_that_never_ran_and_one_that_ended_have_no_snapshot)
{
    static struct guest source;
    struct thaw_error error;
    thaw_job *job;
    guest_new(&source, (struct thaw_vm_options){.kernel_path = "tick"});
    cr_assert_eq(thaw_vm_snapshot(source.vm, store, NULL, &job, &error), THAW_ESTATE);
    guest_start(&source);
    cr_assert_eq(thaw_vm_stop(source.vm, NULL), 0);
    cr_assert_eq(thaw_vm_snapshot(source.vm, store, NULL, &job, &error), THAW_ESTATE);
    cr_assert(strstr(error.message, "stopped"), "%s", error.message);
    guest_free(&source);
}

Test(snapshot, a_cancelled_snapshot_leaves_the_guest_running_and_the_next_diff_complete)
{
    static struct guest source, clone;
    struct thaw_error error;
    start(&source, "tick", "interval=300000", "tick 5\n");
    take(&source, "a", 0);
    for (unsigned i = 0; i < 10; i++) {
        thaw_job *job;
        guest_expect(&source, "tick ", guest_console_count(&source));
        cr_assert_eq(
            thaw_vm_snapshot(source.vm, store, NULL, &job, &error), 0, "%s", error.message);
        usleep(i * 100);
        thaw_job_cancel(job);
        int r = thaw_job_wait(job, -1, &error);
        cr_assert(r == 0 || r == -ECANCELED, "%s", error.message);
        thaw_job_free(job);
    }
    guest_expect(&source, "tick ", guest_console_count(&source));
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    take(&source, "b", THAW_SNAPSHOT_DIFF);
    restore(&clone, "b", THAW_RESTORE_EAGER);
    cr_assert_eq(compare_memory(&source, &clone), 0);
    guest_free(&clone);
    guest_free(&source);
}

struct told {
    unsigned calls, cancel_at; /* cancel_at 0: never */
    bool phases, never_back;
    uint64_t done;
    enum thaw_job_state last;
};

static int note_progress(void *data, const struct thaw_job_progress *progress)
{
    struct told *told = data;
    told->never_back = told->never_back && progress->done_bytes >= told->done;
    told->phases = told->phases || strcmp(progress->phase, "memory") == 0;
    told->done = progress->done_bytes;
    told->last = progress->state;
    return ++told->calls == told->cancel_at;
}

static int take_telling(struct guest *guest, const char *name, struct told *told)
{
    struct thaw_error error;
    thaw_job *job;
    struct thaw_snapshot_options options = {
        .size = sizeof(options), .name = name, .progress = note_progress, .progress_data = told};
    cr_assert_eq(
        thaw_vm_snapshot(guest->vm, store, &options, &job, &error), 0, "%s", error.message);
    int r = thaw_job_wait(job, -1, &error);
    thaw_job_free(job);
    return r;
}

Test(snapshot, a_function_is_told_of_progress_and_may_cancel)
{
    static struct guest source;
    struct told told = {.never_back = true}, cancels = {.never_back = true, .cancel_at = 1};
    start(&source, "tick", "", "tick 1\n");
    cr_assert_eq(take_telling(&source, "told", &told), 0);
    cr_assert(told.phases && told.never_back);
    cr_assert_eq(told.last, THAW_JOB_DONE);
    cr_assert_eq(take_telling(&source, "cancelled", &cancels), -ECANCELED);
    cr_assert_eq(cancels.last, THAW_JOB_FAILED);
    guest_expect(&source, "tick ", guest_console_count(&source));
    guest_free(&source);
}

Test(snapshot, one_is_taken_at_a_time)
{
    static struct guest source;
    struct thaw_error error;
    thaw_job *one, *two;
    start(&source, "tick", "", "tick 1\n");
    cr_assert_eq(thaw_vm_snapshot(source.vm, store, NULL, &one, &error), 0, "%s", error.message);
    int r = thaw_vm_snapshot(source.vm, store, NULL, &two, &error);
    cr_assert(r == -EBUSY || r == 0, "%s", error.message);
    if (r == 0)
        thaw_job_free(two);
    thaw_job_wait(one, -1, NULL);
    thaw_job_free(one);
    guest_free(&source);
}

/* Before anything is written: no record of a failure stays. */
Test(snapshot, metadata_is_checked_at_once)
{
    static char large[(96 << 10) + 1];
    snprintf(large, sizeof(large), "{\"x\":\"%0*d\"}", 80 << 10, 0);
    const char *const refused[] = {large, "[]", "{", "{\"x\":[[[[[[[[[[[[[]]]]]]]]]]]]]}"};
    static struct guest source;
    start(&source, "tick", "", "tick 1\n");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct thaw_snapshot_options options = {
            .size = sizeof(options), .name = "noted", .metadata = refused[i]};
        struct thaw_error error = {0};
        thaw_job *job;
        cr_assert_eq(thaw_vm_snapshot(source.vm, store, &options, &job, &error), -EINVAL);
        cr_assert(strstr(error.message, "metadata"), "%s", error.message);
    }
    thaw_snapshot_list *list;
    struct thaw_error error;
    cr_assert_eq(thaw_store_list(store, NULL, &list, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_snapshot_list_total(list), 0);
    thaw_snapshot_list_free(list);
    guest_free(&source);
}

Test(snapshot, inspecting_shows_every_record)
{
    static struct guest source;
    struct thaw_error error;
    char *text;
    start(&source, "tick", "", "tick 1\n");
    take(&source, "a", 0);
    cr_assert_eq(thaw_snapshot_inspect(store, "a", &text, &error), 0, "%s", error.message);
    static const char *const wanted[] = {"\"vmstate\"", "\"regs\"", "\"rip\"", "\"msrs\"",
        "\"ioapic\"", "\"serial\"", "\"own_pages\"", "\"compression_ratio\"", "\"queues\""};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        cr_assert(strstr(text, wanted[i]), "%s is not in it", wanted[i]);
    thaw_text_free(text);
    guest_free(&source);
}

Test(snapshot, names_that_are_taken_or_not_there_are_refused)
{
    static struct guest source;
    struct thaw_error error;
    thaw_job *job;
    thaw_vm *vm;
    start(&source, "tick", "", "tick 1\n");
    take(&source, "a", 0);
    struct thaw_snapshot_options options = {.size = sizeof(options), .name = "a"};
    cr_assert_eq(thaw_vm_snapshot(source.vm, store, &options, &job, &error), -EEXIST);
    options.name = "../a";
    cr_assert_eq(thaw_vm_snapshot(source.vm, store, &options, &job, &error), -EINVAL);
    cr_assert_eq(thaw_restore(source.env, store, "b", NULL, &vm, &error), -ENOENT);
    guest_free(&source);
}
