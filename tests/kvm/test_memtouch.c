// SPDX-License-Identifier: Apache-2.0
// A guest full of data, saved in full and as diffs, and restored: checked by the guest itself and
// by the digest of all memory. Prints what it took, for docs/benchmark.md; asserts no times.

#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* THAW_MEMTOUCH_FULL in the environment: the sizes of the documentation. */
#define FULL_DATA_MIB 512
#define DATA_MIB      64
#define MEM_PER_DATA  2
#define PAGES_PER_MIB 256
#define STATE_PAGES   64 /* that a guest changes besides its data: stack, devices' rings */

static struct snapshots snapshots;
static char initrd[64];
static unsigned data_mib;

static void set_up(void)
{
    char command[1024];
    data_mib = getenv("THAW_MEMTOUCH_FULL") ? FULL_DATA_MIB : DATA_MIB;
    snapshots_init(&snapshots);
    strcpy(initrd, "/tmp/thaw-memtouch-XXXXXX");
    int fd = mkstemp(initrd);
    cr_assert_geq(fd, 0);
    close(fd);
    snprintf(
        command, sizeof(command), "%s/../memtouch-data -o %s %u", THAW_GUEST_DIR, initrd, data_mib);
    cr_assert_eq(system(command), 0);
}

static void clean_up(void)
{
    unlink(initrd);
    snapshots_fini(&snapshots);
}

TestSuite(memtouch, .init = set_up, .fini = clean_up);

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Until the guest has gone over its pages so often more, and found each as it left it. */
static void make_passes(struct guest *guest, unsigned count)
{
    struct thaw_error error;
    uint64_t until = guest_info(guest).mark_count + count;
    int r = guest_info(guest).state == THAW_VM_CREATED ? thaw_vm_start(guest->vm, &error)
                                                       : thaw_vm_resume(guest->vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    double late = now_ms() + GUEST_TIMEOUT_MS;
    while (guest_info(guest).mark_count < until) {
        cr_assert_eq(guest_info(guest).state, THAW_VM_RUNNING, "%s", guest->console);
        cr_assert_lt(now_ms(), late, "the guest hangs");
        usleep(200);
    }
    cr_assert_eq(thaw_vm_pause(guest->vm, &error), 0, "%s", error.message);
}

static struct thaw_snapshot_result take(struct guest *guest, const char *name, uint32_t flags)
{
    struct thaw_error error;
    thaw_job *job;
    struct thaw_snapshot_options options = {.size = sizeof(options), .name = name, .flags = flags};
    struct thaw_snapshot_result result = {.size = sizeof(result)};
    int r = thaw_vm_snapshot(guest->vm, snapshots.store, &options, &job, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_get_snapshot(job, &result), 0);
    thaw_job_free(job);
    fprintf(stderr, "# %-10s %7llu pages %8.2f MiB stored %8.1f ms\n", name,
        (unsigned long long)(result.pages - result.zero_pages),
        (double)result.stored_bytes / 1048576.0, (double)result.total_ns / 1e6);
    return result;
}

static void check_restored(const char *name, enum thaw_restore_mode mode, const char *wanted)
{
    static struct guest clone;
    struct thaw_error error;
    char digest[THAW_DIGEST_BYTES];
    double begin = now_ms();
    guest_restore(&clone, snapshots.store, (struct thaw_restore_options){.mode = mode}, name);
    double restored = now_ms();
    cr_assert_eq(thaw_vm_memory_digest(clone.vm, digest, &error), 0, "%s", error.message);
    double digested = now_ms();
    cr_assert_str_eq(digest, wanted, "%s", name);
    make_passes(&clone, 1);
    fprintf(stderr, "# %-10s %-5s restored %8.1f ms, all memory digested %8.1f ms later\n", name,
        mode == THAW_RESTORE_EAGER ? "eager" : "lazy", restored - begin, digested - restored);
    guest_free(&clone);
}

static void check(struct guest *source, const char *name)
{
    struct thaw_error error;
    char digest[THAW_DIGEST_BYTES];
    cr_assert_eq(thaw_vm_memory_digest(source->vm, digest, &error), 0, "%s", error.message);
    check_restored(name, THAW_RESTORE_EAGER, digest);
    check_restored(name, THAW_RESTORE_LAZY, digest);
}

/* A guest that writes the first `ws_mib` of its data over and over. */
static void save_and_restore(unsigned ws_mib, bool full)
{
    static struct guest source;
    char cmdline[64], name[16];
    snprintf(cmdline, sizeof(cmdline), "op=write order=rand ws=%u", ws_mib);
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "memtouch",
                           .initrd_path = initrd,
                           .cmdline = cmdline,
                           .mem_bytes = (uint64_t)MEM_PER_DATA * data_mib << 20});
    make_passes(&source, 1);
    struct thaw_snapshot_result result = take(&source, "full", 0);
    cr_assert_gt(result.pages, (uint64_t)data_mib * PAGES_PER_MIB);
    cr_assert_lt(result.stored_bytes, (uint64_t)data_mib << 19, "it shrinks to less than half");
    if (full)
        check(&source, "full");
    /* Where the last pass stopped, a little more than one is needed to write all pages again. */
    make_passes(&source, 2);
    snprintf(name, sizeof(name), "diff-%u", ws_mib);
    result = take(&source, name, THAW_SNAPSHOT_DIFF);
    uint64_t changed = (uint64_t)ws_mib * PAGES_PER_MIB;
    cr_assert_geq(result.pages, changed);
    cr_assert_leq(result.pages, changed + STATE_PAGES);
    cr_assert_lt(result.stored_bytes, (changed + STATE_PAGES) * 4096 / 2 + (64 << 10));
    check(&source, name);
    guest_free(&source);
    struct thaw_error error;
    cr_assert_eq(thaw_store_delete(snapshots.store, "full", &error), 0, "%s", error.message);
}

/* 1 % of the data, and more. */
Test(memtouch, clones_have_all_memory_of_their_source_and_diffs_cost_what_changed, .timeout = 300)
{
    const unsigned percent = data_mib / 100 ? data_mib / 100 : 1;
    save_and_restore(percent, true);
    save_and_restore(4 * percent, false);
    save_and_restore(16 * percent, false);
}
