// SPDX-License-Identifier: Apache-2.0
// Snapshots while other threads do to the VM, the job and the store what they like: every call has
// one of its documented results, and what succeeded is whole. Most worth under ThreadSanitizer.

#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct snapshots snapshots;
static struct guest source;

static void start(void)
{
    snapshots_init(&snapshots);
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "tick",
                           .cmdline = "interval=300000",
                           .mem_bytes = 16 << 20});
    guest_start(&source);
    guest_expect(&source, "tick 2\n", 0);
}

static void end(void)
{
    guest_free(&source);
    thaw_store_recover(snapshots.store, NULL, NULL);
    snapshots_check_store(&snapshots, "at the end");
    snapshots_fini(&snapshots);
}

TestSuite(races, .init = start, .fini = end);

struct worker {
    pthread_t thread;
    unsigned number, count; /* which it is, and how many snapshots, clones, ... it made */
};

static void run_workers(unsigned count, void *(*run)(void *), struct worker *workers)
{
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
}

/* --- Two at once ------------------------------------------------------------------------------ */

static void *take_some(void *arg)
{
    struct worker *worker = arg;
    for (unsigned i = 0; i < 15; i++) {
        struct thaw_error error = {0};
        int r = snapshots_try(&snapshots, source.vm, NULL, i % 3 ? 0 : THAW_SNAPSHOT_FULL, &error);
        cr_assert(r == 0 || r == -EBUSY, "%d: %s", r, error.message);
        worker->count += r == 0;
    }
    return NULL;
}

Test(races, several_threads_take_snapshots_of_one_vm)
{
    struct worker workers[3];
    run_workers(3, take_some, workers);
    unsigned count = 0;
    for (unsigned i = 0; i < 3; i++)
        count += workers[i].count;
    cr_assert_gt(count, 0);
    cr_assert_eq(snapshots_check_store(&snapshots, "afterwards"), count);
}

/* --- While it is paused, resumed, stopped ----------------------------------------------------- */

static atomic_bool finished;

static void *pause_and_resume(void *arg)
{
    struct worker *worker = arg;
    while (!atomic_load(&finished)) {
        struct thaw_error error = {0};
        int r = thaw_vm_pause(source.vm, &error);
        cr_assert(r == 0 || r == THAW_ESTATE || r == -EBUSY, "%d: %s", r, error.message);
        usleep(worker->number * 100);
        r = thaw_vm_resume(source.vm, &error);
        cr_assert(r == 0 || r == THAW_ESTATE || r == -EBUSY, "%d: %s", r, error.message);
        usleep(300);
    }
    return NULL;
}

Test(races, snapshots_while_others_pause_and_resume)
{
    struct worker workers[2];
    atomic_store(&finished, false);
    for (unsigned i = 0; i < 2; i++) {
        workers[i] = (struct worker){.number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, pause_and_resume, &workers[i]), 0);
    }
    struct thaw_error error = {0};
    for (unsigned i = 0; i < 20; i++) {
        int r = snapshots_try(&snapshots, source.vm, NULL, 0, &error);
        cr_assert_eq(r, 0, "%s", error.message);
    }
    atomic_store(&finished, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    cr_assert_eq(thaw_vm_resume(source.vm, &error), 0, "%s", error.message);
    guest_expect(&source, "tick ", guest_console_count(&source));
}

/* The VM is stopped at some moment of a snapshot, which is whole or was not taken. */
Test(races, a_vm_is_stopped_while_a_snapshot_is_taken)
{
    for (unsigned i = 0; i < 20; i++) {
        static struct guest guest;
        struct thaw_error error = {0};
        thaw_job *job = NULL;
        guest_new(&guest,
            (struct thaw_vm_options){
                .kernel_path = "tick", .cmdline = "interval=300000", .mem_bytes = 16 << 20});
        guest_start(&guest);
        guest_expect(&guest, "tick 1\n", 0);
        struct thaw_snapshot_options options = {.size = sizeof(options)};
        int r = thaw_vm_snapshot(guest.vm, snapshots.store, &options, &job, &error);
        cr_assert_eq(r, 0, "%s", error.message);
        usleep(i * 150);
        cr_assert_eq(thaw_vm_stop(guest.vm, &error), 0, "%s", error.message);
        r = snapshots_wait(0, job, &error);
        cr_assert(r == 0 || (r == THAW_ESTATE && error.message[0]), "%d: %s", r, error.message);
        cr_assert_eq(guest_info(&guest).state, THAW_VM_STOPPED);
        guest_free(&guest);
    }
}

/* --- Restoring -------------------------------------------------------------------------------- */

static void *restore_some(void *arg)
{
    struct worker *worker = arg;
    struct thaw_error error = {0};
    thaw_env *env;
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < 8; i++) {
        struct thaw_restore_options options = {
            .size = sizeof(options), .mode = (worker->number + i) % 2};
        thaw_vm *vm;
        int r = thaw_restore(env, snapshots.store, "s", &options, &vm, &error);
        cr_assert(r == 0 || r == -ENOENT || r == -EBUSY, "%d: %s", r, error.message);
        if (r < 0)
            continue;
        worker->count++;
        cr_assert_eq(thaw_vm_resume(vm, &error), 0, "%s", error.message);
        usleep(i * 500);
        struct thaw_vm_info info = {.size = sizeof(info)};
        cr_assert_eq(thaw_vm_get_info(vm, &info), 0);
        cr_assert_eq(info.state, THAW_VM_RUNNING, "%s", info.detail);
        thaw_vm_free(vm);
    }
    thaw_env_free(env);
    return NULL;
}

Test(races, many_clones_are_restored_at_once)
{
    struct worker workers[6];
    snapshots_take(&snapshots, source.vm, "s", 0);
    run_workers(6, restore_some, workers);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(workers[i].count, 8);
}

static void *delete_at_last(void *arg)
{
    struct worker *worker = arg;
    struct thaw_error error = {0};
    int r;
    do {
        r = thaw_store_delete(snapshots.store, "s", &error);
        cr_assert(r == 0 || r == -EBUSY, "%d: %s", r, error.message);
        usleep(200);
    } while (r < 0);
    worker->count = 1;
    return NULL;
}

static void *restore_or_delete(void *arg)
{
    struct worker *worker = arg;
    return worker->number == 0 ? delete_at_last(worker) : restore_some(worker);
}

/* In use, it stays; once it is deleted nobody gets it any more. */
Test(races, a_snapshot_is_deleted_while_it_is_restored)
{
    for (unsigned i = 0; i < 4; i++) {
        struct worker workers[3];
        static struct guest other;
        guest_new(&other, (struct thaw_vm_options){.kernel_path = "tick", .mem_bytes = 16 << 20});
        guest_start(&other);
        guest_expect(&other, "tick 1\n", 0);
        snapshots_take(&snapshots, other.vm, "s", THAW_SNAPSHOT_KILL);
        guest_free(&other);
        run_workers(3, restore_or_delete, workers);
        cr_assert_eq(snapshots_check_store(&snapshots, "after deleting"), 0);
    }
}

/* --- Jobs ------------------------------------------------------------------------------------- */

static void *watch(void *arg)
{
    thaw_job *job = arg;
    struct thaw_job_progress progress = {.size = sizeof(progress)};
    uint64_t done = 0;
    do {
        cr_assert_eq(thaw_job_poll(job, &progress), 0);
        cr_assert_geq(progress.done_bytes, done);
        done = progress.done_bytes;
        usleep(50);
    } while (progress.state == THAW_JOB_RUNNING);
    return NULL;
}

/* Watched by one thread, cancelled by another, freed at once in between. */
Test(races, jobs_are_cancelled_and_freed_at_any_moment)
{
    uint32_t x = 1;
    for (unsigned i = 0; i < 40; i++) {
        struct thaw_error error = {0};
        thaw_job *job = NULL;
        pthread_t watcher;
        int r = thaw_vm_snapshot(source.vm, snapshots.store, NULL, &job, &error);
        cr_assert_eq(r, 0, "%s", error.message);
        bool watched = i % 2;
        if (watched)
            cr_assert_eq(pthread_create(&watcher, NULL, watch, job), 0);
        x = x * 1664525 + 1013904223;
        usleep((x >> 8) % 4000);
        if (i % 4 < 3)
            thaw_job_cancel(job);
        if (watched) {
            r = thaw_job_wait(job, -1, &error);
            cr_assert(r == 0 || r == -ECANCELED, "%s", error.message);
            pthread_join(watcher, NULL);
        }
        thaw_job_free(job);
    }
    /* The source has not suffered. */
    guest_expect(&source, "tick ", guest_console_count(&source));
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    uint8_t *memory = snapshots_copy_memory(source.vm);
    snapshots_take(&snapshots, source.vm, "last", 0);
    static struct guest copy;
    guest_restore(
        &copy, snapshots.store, (struct thaw_restore_options){.mode = THAW_RESTORE_LAZY}, "last");
    cr_assert_eq(snapshots_compare_memory(copy.vm, memory), 0);
    guest_free(&copy);
    free(memory);
}
