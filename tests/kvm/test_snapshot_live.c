// SPDX-License-Identifier: Apache-2.0
// Snapshots of guests that write all the time: each must be of one instant.
#include "../../guest/seqwrite/layout.h"
#include "guest.h"
#include "pack.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_BLOCKS 1000

static char store_path[64];
static char disk_path[64];
static thaw_store *store;

static void make_disk(void)
{
    uint64_t block[SEQWRITE_PAGE_WORDS] = {0};
    strcpy(disk_path, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(disk_path);
    cr_assert_geq(fd, 0);
    for (uint64_t i = 0; i < DISK_BLOCKS; i++) {
        block[0] = i + 1;
        cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
    }
    close(fd);
}

static void prepare(void)
{
    struct thaw_error error;
    strcpy(store_path, "/tmp/thaw-test-XXXXXX");
    cr_assert_not_null(mkdtemp(store_path));
    struct thaw_store_options options = {
        .size = sizeof(options), .path = store_path, .flags = THAW_STORE_CREATE};
    cr_assert_eq(thaw_store_open(&options, &store, &error), 0, "%s", error.message);
    make_disk();
}

static void clean_up(void)
{
    char command[128];
    thaw_store_close(store);
    unlink(disk_path);
    snprintf(command, sizeof(command), "rm -rf %s", store_path);
    cr_assert_eq(system(command), 0);
}

/* The linker sends the library's calls here: whether a guest was kept from running at that time. */
static struct thaw_vm *watched;
static atomic_uint direct_while_held, direct_while_free;

void __real_pack_writer_go_direct(struct pack_writer *writer);
void __wrap_pack_writer_go_direct(struct pack_writer *writer);
void __wrap_pack_writer_go_direct(struct pack_writer *writer)
{
    if (watched && pthread_mutex_trylock(&watched->api_lock) == 0) {
        pthread_mutex_unlock(&watched->api_lock);
        direct_while_free++;
    } else if (watched) {
        direct_while_held++;
    }
    __real_pack_writer_go_direct(writer);
}

TestSuite(snapshot_live, .init = prepare, .fini = clean_up);

/* --- The guest, and its memory seen from outside ---------------------------------------------- */

static void start(struct guest *guest, const char *cmdline)
{
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = disk_path};
    guest_new(guest, (struct thaw_vm_options){.name = "source",
                         .kernel_path = "seqwrite",
                         .cmdline = cmdline,
                         .mem_bytes = 64 << 20,
                         .disks = &disk,
                         .disk_count = 1});
    guest_start(guest);
    guest_expect(guest, "lap 1\n", 0);
}

static const volatile uint64_t *page_at(const struct guest *guest, uint64_t page)
{
    uint64_t off = SEQWRITE_GPA + page * SEQWRITE_PAGE_BYTES;
    cr_assert_eq(mem_make_present(&guest->vm->mem, off, SEQWRITE_PAGE_BYTES), 0);
    return (const volatile uint64_t *)(guest->vm->mem.base + off);
}

/* The number of the last of the writes 1 to `done` that went to a page; write n goes to n * stride,
 * and `inverse` undoes that. */
static uint64_t last_write(uint64_t page, uint64_t pages, uint64_t inverse, uint64_t done)
{
    uint64_t first = page * inverse % pages;
    uint64_t last = done - (done - first) % pages;
    return done < first || last == 0 ? 0 : last;
}

static uint64_t inverse_of(uint64_t odd)
{
    uint64_t inverse = odd; /* right for 3 bits, then twice as many with each step */
    for (unsigned i = 0; i < 5; i++)
        inverse *= 2 - odd * inverse;
    return inverse;
}

static void check_ring(const struct guest *guest, const char *what)
{
    const volatile uint64_t *control = page_at(guest, 0);
    uint64_t pages = control[SEQWRITE_PAGES], done = control[SEQWRITE_DONE];
    uint64_t inverse = inverse_of(control[SEQWRITE_STRIDE]);
    cr_assert_eq(control[SEQWRITE_CONTROL_MAGIC], SEQWRITE_MAGIC);
    for (uint64_t i = 0; i < pages; i++) {
        const volatile uint64_t *page = page_at(guest, 1 + i);
        uint64_t first = page[SEQWRITE_FIRST], last = page[SEQWRITE_LAST];
        uint64_t want = last_write(i, pages, inverse, done);
        bool next = last_write(i, pages, inverse, done + 1) == done + 1;
        bool good = (first == want || (next && first == done + 1 && last == first)) &&
                    (last == want || (next && last == done + 1));
        cr_assert(good, "%s: after write %lu page %lu holds %lu and %lu instead of %lu", what, done,
            i, first, last, want);
    }
}

static void check_disk_ring(const struct guest *guest, const char *what)
{
    const volatile uint64_t *control = page_at(guest, 0);
    uint64_t pages = control[SEQWRITE_DISK_PAGES], submitted = control[SEQWRITE_SUBMITTED];
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t request = last_write(i, pages, 1, submitted);
        uint64_t got = page_at(guest, 1 + control[SEQWRITE_PAGES] + i)[0];
        uint64_t before = request > pages ? (request - pages) % DISK_BLOCKS + 1 : 0;
        bool open = request + SEQWRITE_DEPTH > submitted;
        bool good = (request && got == request % DISK_BLOCKS + 1) || (open && got == before) ||
                    (!request && got == 0);
        cr_assert(good, "%s: after request %lu page %lu of the disk's holds %lu, request %lu", what,
            submitted, i, got, request);
    }
}

static void check_instant(const struct guest *guest, const char *what)
{
    check_ring(guest, what);
    check_disk_ring(guest, what);
}

/* --- Snapshots -------------------------------------------------------------------------------- */

static thaw_job *begin(struct guest *guest, const char *name, uint32_t flags)
{
    struct thaw_error error;
    thaw_job *job;
    struct thaw_snapshot_options options = {.size = sizeof(options), .name = name, .flags = flags};
    cr_assert_eq(
        thaw_vm_snapshot(guest->vm, store, &options, &job, &error), 0, "%s", error.message);
    return job;
}

static struct thaw_snapshot_result take(struct guest *guest, const char *name, uint32_t flags)
{
    struct thaw_error error;
    struct thaw_snapshot_result result = {.size = sizeof(result)};
    thaw_job *job = begin(guest, name, flags);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_get_snapshot(job, &result), 0);
    thaw_job_free(job);
    return result;
}

/* Looks at a clone before it runs, and lets it look itself. */
static void check_snapshot(const char *name, enum thaw_restore_mode mode)
{
    static struct guest clone;
    struct thaw_error error;
    guest_restore(&clone, store, (struct thaw_restore_options){.mode = mode}, name);
    check_instant(&clone, name);
    cr_assert_eq(thaw_vm_resume(clone.vm, &error), 0, "%s", error.message);
    size_t at = guest_expect(&clone, "lap ", 0);
    guest_expect(&clone, "lap ", at);
    guest_free(&clone);
}

static void drop(const char *name)
{
    struct thaw_error error;
    int r = thaw_store_delete(store, name, &error);
    cr_assert(r == 0 || r == -EBUSY, "%s", error.message);
}

static void many_snapshots(const char *cmdline, unsigned count, bool expect_stale)
{
    static struct guest source;
    char name[16];
    uint64_t stale = 0;
    start(&source, cmdline);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        uint32_t flags = i % 4 == 3 ? THAW_SNAPSHOT_FULL : 0;
        struct thaw_snapshot_result result = take(&source, name, flags);
        cr_assert_geq(result.rounds, 1);
        cr_assert_leq(result.paused_pages, result.pages);
        stale += result.stale_pages;
        check_snapshot(name, i % 2 ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER);
        if (i > 0) {
            snprintf(name, sizeof(name), "s%u", i - 1);
            drop(name);
        }
    }
    cr_assert(!expect_stale || stale > 0, "no page was stored twice: nothing was tested");
    guest_free(&source);
}

Test(snapshot_live, memory_is_of_one_instant)
{
    many_snapshots("pages=1024 disk_pages=64", 8, false);
}

/* More than the buffer holds: pages are stored in the first round already, and get stale. */
Test(snapshot_live, memory_that_was_stored_too_early_is_replaced)
{
    many_snapshots("pages=8192 stride=4391 disk_pages=64", 5, true);
}

Test(snapshot_live, generations_of_clones_are_of_one_instant)
{
    static struct guest guests[2];
    char name[16];
    start(&guests[0], "pages=4096 stride=3 disk_pages=64");
    take(&guests[0], "s0", 0);
    for (unsigned i = 1; i < 7; i++) {
        struct guest *clone = &guests[i % 2];
        snprintf(name, sizeof(name), "s%u", i - 1);
        guest_restore(clone, store,
            (struct thaw_restore_options){.mode = i % 2 ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER},
            name);
        guest_free(&guests[(i - 1) % 2]);
        cr_assert_eq(thaw_vm_resume(clone->vm, NULL), 0);
        if (i % 3)
            guest_expect(clone, "lap ", 0);
        snprintf(name, sizeof(name), "s%u", i);
        struct thaw_snapshot_result result = take(clone, name, THAW_SNAPSHOT_DIFF);
        cr_assert_geq(result.rounds, 1);
        check_snapshot(name, i % 2 ? THAW_RESTORE_EAGER : THAW_RESTORE_LAZY);
    }
    guest_free(&guests[0]);
}

Test(snapshot_live, a_snapshot_that_was_cancelled_in_any_round_leaves_the_next_diff_complete)
{
    static struct guest source;
    struct thaw_error error;
    char name[16];
    start(&source, "pages=4096 disk_pages=64");
    take(&source, "s0", 0);
    for (unsigned i = 1; i < 8; i++) {
        thaw_job *job = begin(&source, NULL, 0);
        usleep(i * 4000);
        thaw_job_cancel(job);
        int r = thaw_job_wait(job, -1, &error);
        cr_assert(r == 0 || r == -ECANCELED, "%s", error.message);
        thaw_job_free(job);
        snprintf(name, sizeof(name), "s%u", i);
        take(&source, name, THAW_SNAPSHOT_DIFF);
        check_snapshot(name, THAW_RESTORE_EAGER);
    }
    guest_free(&source);
}

Test(snapshot_live, a_vm_that_is_paused_stopped_or_killed_meanwhile_is_what_its_owner_wants)
{
    static struct guest source;
    struct thaw_error error;
    start(&source, "pages=8192 disk_pages=64");
    thaw_job *job = begin(&source, "paused", 0);
    usleep(5000);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    thaw_job_free(job);
    cr_assert_eq(guest_info(&source).state, THAW_VM_PAUSED);
    cr_assert_eq(thaw_vm_resume(source.vm, NULL), 0);
    check_snapshot("paused", THAW_RESTORE_LAZY);

    take(&source, "killed", THAW_SNAPSHOT_KILL);
    cr_assert_eq(guest_info(&source).state, THAW_VM_STOPPED);
    guest_free(&source);
    check_snapshot("killed", THAW_RESTORE_EAGER);

    start(&source, "pages=8192 disk_pages=64");
    job = begin(&source, "stopped", 0);
    usleep(5000);
    cr_assert_eq(thaw_vm_stop(source.vm, NULL), 0);
    int r = thaw_job_wait(job, -1, &error);
    cr_assert(r == 0 || r == THAW_ESTATE, "%s", error.message);
    thaw_job_free(job);
    guest_free(&source);
}

/* A guest that would run is not held until a disk has taken what was copied. */
Test(snapshot_live, only_a_guest_that_was_paused_anyway_waits_for_the_disk)
{
    static struct guest source;
    start(&source, "pages=64 disk_pages=16");
    watched = source.vm;
    take(&source, "live", 0);
    take(&source, "copied", THAW_SNAPSHOT_STOP_AND_COPY);
    cr_assert_eq(direct_while_held, 0);
    cr_assert_eq(direct_while_free, 2);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    take(&source, "paused", 0);
    cr_assert_eq(direct_while_held, 1);
    watched = NULL;
    guest_free(&source);
}

Test(snapshot_live, stop_and_copy_copies_all_during_the_pause)
{
    static struct guest source;
    start(&source, "pages=1024 disk_pages=64");
    struct thaw_snapshot_result result = take(&source, "s0", THAW_SNAPSHOT_STOP_AND_COPY);
    cr_assert_eq(result.rounds, 0);
    cr_assert_geq(result.paused_pages, 1024);
    cr_assert_eq(result.stale_pages, 0);
    check_snapshot("s0", THAW_RESTORE_LAZY);
    guest_free(&source);
}
