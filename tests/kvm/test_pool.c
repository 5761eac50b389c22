// SPDX-License-Identifier: Apache-2.0
// Images opened once and pools of VMs made in advance: many clones, quickly.
#include "guest.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static atomic_bool slow_maker, making;

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
/* Has a pool take long to make a VM. */
int __wrap_eventfd(unsigned count, int flags)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    if (strcmp(name, "thaw/pool") == 0 && atomic_load(&slow_maker)) {
        atomic_store(&making, true);
        usleep(200000);
    }
    return __real_eventfd(count, flags);
}

static atomic_bool taken_place;

void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off);
/* Something has come, once, to where a view of an image should go. */
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t off)
{
    if ((flags & MAP_FIXED_NOREPLACE) && fd >= 0 && atomic_exchange(&taken_place, false)) {
        errno = EEXIST;
        return MAP_FAILED;
    }
    return __real_mmap(at, bytes, prot, flags, fd, off);
}

static char store_path[64];
static thaw_store *store;
static thaw_env *env;
static struct guest source;

/* A store with the snapshot "s" of a counting guest. */
static void take_snapshot(void)
{
    struct thaw_error error;
    thaw_job *job;
    strcpy(store_path, "/tmp/thaw-test-XXXXXX");
    cr_assert_not_null(mkdtemp(store_path));
    struct thaw_store_options where = {
        .size = sizeof(where), .path = store_path, .flags = THAW_STORE_CREATE};
    cr_assert_eq(thaw_store_open(&where, &store, &error), 0, "%s", error.message);
    guest_new(
        &source, (struct thaw_vm_options){
                     .kernel_path = "tick", .cmdline = "interval=1000000", .mem_bytes = 32 << 20});
    guest_start(&source);
    guest_expect(&source, "tick 3\n", 0);
    struct thaw_snapshot_options options = {
        .size = sizeof(options), .name = "s", .flags = THAW_SNAPSHOT_KILL};
    cr_assert_eq(
        thaw_vm_snapshot(source.vm, store, &options, &job, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_job_wait(job, -1, &error), 0, "%s", error.message);
    thaw_job_free(job);
    guest_free(&source);
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
}

static void remove_store(void)
{
    char command[128];
    thaw_store_close(store);
    thaw_env_free(env);
    snprintf(command, sizeof(command), "rm -rf %s", store_path);
    cr_assert_eq(system(command), 0);
}

TestSuite(pool, .init = take_snapshot, .fini = remove_store);

static thaw_image *open_image(enum thaw_restore_mode mode)
{
    struct thaw_error error;
    thaw_image *image;
    struct thaw_image_options options = {.size = sizeof(options),
        .mode = mode,
        .flags = mode == THAW_RESTORE_LAZY ? THAW_IMAGE_NO_PREFETCH : 0};
    cr_assert_eq(
        thaw_image_open(env, store, "s", "test", &options, &image, &error), 0, "%s", error.message);
    return image;
}

static thaw_pool *make_pool(uint32_t target)
{
    struct thaw_error error;
    thaw_pool *pool;
    struct thaw_pool_options options = {
        .size = sizeof(options), .mem_bytes = 32 << 20, .target = target};
    cr_assert_eq(thaw_pool_new(env, &options, &pool, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, &error), 0, "%s", error.message);
    return pool;
}

static thaw_vm *restore(thaw_image *image, thaw_pool *pool)
{
    struct thaw_error error;
    thaw_vm *vm;
    struct thaw_restore_options options = {.size = sizeof(options), .pool = pool};
    cr_assert_eq(thaw_image_restore(image, &options, &vm, &error), 0, "%s", error.message);
    return vm;
}

/* Lets a clone run until it has counted on. */
static void runs(thaw_vm *vm)
{
    struct thaw_error error;
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_resume(vm, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && info.mark_count < 2; i++) {
        usleep(1000);
        thaw_vm_get_info(vm, &info);
    }
    cr_assert_geq(info.mark_count, 2, "%s", info.detail);
    cr_assert_geq(info.mark, 4, "it goes on from where the snapshot was taken");
}

static struct thaw_pool_info info_of(thaw_pool *pool)
{
    struct thaw_pool_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_pool_get_info(pool, &info), 0);
    return info;
}

Test(pool, clones_come_from_the_pool_and_it_fills_up_again)
{
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    thaw_pool *pool = make_pool(3);
    cr_assert_eq(info_of(pool).ready, 3);
    thaw_vm *vms[3];
    for (unsigned i = 0; i < 3; i++)
        vms[i] = restore(image, pool);
    for (unsigned i = 0; i < 3; i++)
        runs(vms[i]);
    cr_assert_eq(info_of(pool).taken, 3);
    for (unsigned i = 0; i < 3; i++)
        thaw_vm_free(vms[i]);
    cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
    cr_assert_eq(info_of(pool).ready, 3);
    cr_assert_eq(info_of(pool).leaving, 0);
    thaw_pool_free(pool);
    thaw_image_close(image);
}

Test(pool, an_image_of_a_few_frames_is_complete_when_it_is_open)
{
    struct thaw_error error;
    struct thaw_image_info info = {.size = sizeof(info)};
    thaw_image *image;
    cr_assert_eq(
        thaw_image_open(env, store, "s", "test", NULL, &image, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_image_get_info(image, &info), 0);
    cr_assert(info.complete && info.frames > 0 && info.frames <= 8);
    cr_assert_geq(thaw_image_memory_fd(image, &error), 0, "%s", error.message);
    thaw_vm *vm = restore(image, NULL);
    runs(vm);
    thaw_vm_free(vm);
    thaw_image_close(image);
}

Test(pool, an_empty_pool_makes_a_vm_at_once)
{
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    thaw_pool *pool = make_pool(1);
    cr_assert_eq(thaw_pool_set_target(pool, 0, NULL), 0);
    cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
    cr_assert_eq(info_of(pool).ready, 0);
    thaw_vm *vm = restore(image, pool);
    cr_assert_eq(info_of(pool).missed, 1);
    runs(vm);
    thaw_vm_free(vm);
    thaw_pool_free(pool);
    thaw_image_close(image);
}

Test(pool, a_target_that_goes_up_and_down_is_met)
{
    thaw_pool *pool = make_pool(1);
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(thaw_pool_set_target(pool, 0, NULL), 0);
        usleep(2000 * i); /* the VM is being taken apart */
        cr_assert_eq(thaw_pool_set_target(pool, 1, NULL), 0);
        cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
        thaw_vm_free(restore(image, pool));
        cr_assert_eq(info_of(pool).missed, 0, "there was no VM");
        cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
    }
    thaw_pool_free(pool);
    thaw_image_close(image);
}

/* The maker waits for quiet before it replaces a VM that was taken. If the target falls meanwhile,
 * it has nothing to do, and the next one that is taken must wake it. */
Test(pool, a_target_that_falls_before_the_next_vm_is_made_is_kept)
{
    thaw_pool *pool = make_pool(2);
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    for (unsigned i = 0; i < 5; i++) {
        thaw_vm *first = restore(image, pool);
        cr_assert_eq(thaw_pool_set_target(pool, 1, NULL), 0);
        usleep(1000 * i); /* the maker sees that, or not yet */
        thaw_vm *second = restore(image, pool);
        cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
        cr_assert_eq(info_of(pool).ready, 1);
        cr_assert_eq(thaw_pool_set_target(pool, 2, NULL), 0);
        cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
        thaw_vm_free(first);
        thaw_vm_free(second);
    }
    thaw_pool_free(pool);
    thaw_image_close(image);
}

Test(pool, a_clone_may_outlive_image_and_pool)
{
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    thaw_pool *pool = make_pool(2);
    thaw_vm *one = restore(image, pool), *two = restore(image, pool);
    thaw_image_close(image);
    thaw_pool_free(pool);
    runs(one);
    runs(two);
    thaw_vm_free(one);
    thaw_vm_free(two);
    struct thaw_error error;
    cr_assert_eq(thaw_store_delete(store, "s", &error), 0, "%s", error.message);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

Test(pool, nothing_is_left_of_one_that_was_freed_while_it_made_a_vm)
{
    struct thaw_error error;
    thaw_pool *pool;
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    thaw_vm_free(restore(image, NULL)); /* an environment has the first VM ready */
    unsigned before = count_descriptors();
    struct thaw_pool_options options = {
        .size = sizeof(options), .mem_bytes = 32 << 20, .target = 2};
    atomic_store(&slow_maker, true);
    cr_assert_eq(thaw_pool_new(env, &options, &pool, &error), 0, "%s", error.message);
    while (!atomic_load(&making))
        usleep(1000);
    thaw_vm *vm = restore(image, pool);
    thaw_pool_free(pool);
    thaw_vm_free(vm);
    cr_assert_eq(count_descriptors(), before);
    thaw_image_close(image);
}

Test(pool, a_vm_whose_place_is_taken_is_replaced_by_another)
{
    for (unsigned mode = THAW_RESTORE_LAZY; mode <= THAW_RESTORE_EAGER; mode++) {
        thaw_image *image = open_image((enum thaw_restore_mode)mode);
        thaw_pool *pool = make_pool(1);
        unsigned before = count_descriptors();
        atomic_store(&taken_place, true);
        thaw_vm *vm = restore(image, pool);
        atomic_store(&taken_place, false); /* where no place is ever vacant */
        runs(vm);
        thaw_vm_free(vm);
        cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
        if (mode == THAW_RESTORE_EAGER) /* else threads and views have come with the image */
            cr_assert_eq(count_descriptors(), before);
        thaw_pool_free(pool);
        thaw_image_close(image);
    }
}

Test(pool, a_pool_of_another_shape_is_refused)
{
    struct thaw_error error;
    thaw_pool *pool;
    thaw_vm *vm;
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    struct thaw_pool_options options = {.size = sizeof(options), .mem_bytes = 64 << 20};
    cr_assert_eq(thaw_pool_new(env, &options, &pool, &error), 0, "%s", error.message);
    struct thaw_restore_options how = {.size = sizeof(how), .pool = pool};
    cr_assert_eq(thaw_image_restore(image, &how, &vm, &error), -EINVAL);
    cr_assert(strstr(error.message, "64 MiB"), "%s", error.message);
    thaw_pool_free(pool);
    thaw_image_close(image);
    options.mem_bytes = 1;
    cr_assert_eq(thaw_pool_new(env, &options, &pool, &error), -EINVAL);
}

Test(pool, more_vms_than_a_pool_may_have_are_refused_and_change_nothing)
{
    static const uint32_t too_many[] = {THAW_POOL_TARGET_MAX + 1, UINT32_MAX};
    struct thaw_error error;
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    thaw_pool *pool = make_pool(2), *none = NULL;
    unsigned before = count_descriptors();
    for (unsigned i = 0; i < 2; i++) {
        struct thaw_pool_options options = {
            .size = sizeof(options), .mem_bytes = 32 << 20, .target = too_many[i]};
        cr_assert_eq(thaw_pool_new(env, &options, &none, &error), -EINVAL);
        cr_assert(strstr(error.message, "at most 1024"), "%s", error.message);
        cr_assert_null(none);
        cr_assert_eq(thaw_pool_set_target(pool, too_many[i], &error), -EINVAL);
        cr_assert(strstr(error.message, "at most 1024"), "%s", error.message);
        cr_assert_eq(info_of(pool).target, 2);
    }
    cr_assert_eq(count_descriptors(), before);
    thaw_vm *vm = restore(image, pool);
    runs(vm);
    thaw_vm_free(vm);
    cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, NULL), 0);
    cr_assert_eq(info_of(pool).ready, 2);
    cr_assert_eq(info_of(pool).missed, 0);

    /* As many as it may have are not: but nobody waits here until they are all made. */
    cr_assert_eq(thaw_pool_set_target(pool, THAW_POOL_TARGET_MAX, &error), 0, "%s", error.message);
    cr_assert_eq(info_of(pool).target, THAW_POOL_TARGET_MAX);
    thaw_pool_free(pool);
    thaw_image_close(image);
}

Test(pool, a_complete_image_is_shared_by_descriptor)
{
    struct thaw_error error;
    thaw_image *first = open_image(THAW_RESTORE_LAZY), *second;
    cr_assert_eq(thaw_image_fill(first, &error), 0, "%s", error.message);
    int fd = thaw_image_memory_fd(first, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    struct thaw_image_options options = {.size = sizeof(options), .memory_fd = fd};
    cr_assert_eq(
        thaw_image_open(env, store, "s", NULL, &options, &second, &error), 0, "%s", error.message);
    thaw_image_close(first);
    struct thaw_image_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_image_get_info(second, &info), 0);
    cr_assert_eq(info.complete, 1);
    thaw_vm *vm = restore(second, NULL);
    runs(vm);
    thaw_vm_free(vm);
    thaw_image_close(second);
}

Test(pool, a_vm_gives_its_memory_to_another_restore)
{
    struct thaw_error error;
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    thaw_vm *first = restore(image, NULL), *second;
    thaw_image_close(image);
    int fd = thaw_vm_memory_fd(first, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    struct thaw_restore_options options = {.size = sizeof(options), .memory_fd = fd};
    cr_assert_eq(thaw_restore(env, store, "s", &options, &second, &error), 0, "%s", error.message);
    cr_assert_geq(thaw_vm_memory_fd(second, &error), 0, "%s", error.message);
    thaw_vm_free(first);
    runs(second);
    thaw_vm_free(second);
    options.memory_fd = STDOUT_FILENO;
    cr_assert_eq(thaw_restore(env, store, "s", &options, &second, &error), -EINVAL);
}

struct caller {
    pthread_t thread;
    thaw_image *image;
    thaw_pool *pool;
};

static void *restore_often(void *data)
{
    struct caller *caller = data;
    for (unsigned i = 0; i < 5; i++) {
        thaw_vm *vm = restore(caller->image, caller->pool);
        runs(vm);
        thaw_vm_free(vm);
    }
    return NULL;
}

Test(pool, many_threads_restore_at_once)
{
    struct caller callers[4];
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    thaw_pool *pool = make_pool(2);
    for (unsigned i = 0; i < 4; i++) {
        callers[i].image = image;
        callers[i].pool = pool;
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, restore_often, &callers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(callers[i].thread, NULL);
    cr_assert_eq(info_of(pool).taken + info_of(pool).missed, 20);
    thaw_pool_free(pool);
    thaw_image_close(image);
}

/* --- Timings ---------------------------------------------------------------------------------- */

static struct thaw_vm_timing timing_of(thaw_vm *vm)
{
    struct thaw_vm_timing timing = {.size = sizeof(timing)};
    cr_assert_eq(thaw_vm_get_timing(vm, &timing), 0);
    return timing;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void is_in_order(const struct thaw_vm_timing *timing, uint64_t before_ns)
{
    cr_assert_leq(before_ns, timing->request_ns);
    cr_assert_leq(timing->request_ns, timing->opened_ns);
    cr_assert_leq(timing->opened_ns, timing->shell_ns);
    cr_assert_leq(timing->shell_ns, timing->memory_ns);
    cr_assert_leq(timing->memory_ns, timing->state_ns);
}

Test(pool, a_clone_tells_when_each_step_was_done)
{
    thaw_image *image = open_image(THAW_RESTORE_LAZY);
    thaw_pool *pool = make_pool(1);
    uint64_t before_ns = now_ns();
    thaw_vm *vm = restore(image, pool);
    struct thaw_vm_timing timing = timing_of(vm);
    is_in_order(&timing, before_ns);
    cr_assert_leq(timing.state_ns, now_ns());
    cr_assert_eq(timing.request_ns, timing.opened_ns, "the image was open");
    cr_assert_eq(timing.first_run_ns, 0, "it has not run");
    cr_assert_eq(timing.first_exit_ns, 0);

    uint64_t resumed_ns = now_ns();
    runs(vm);
    timing = timing_of(vm);
    is_in_order(&timing, before_ns);
    cr_assert_leq(resumed_ns, timing.first_run_ns);
    cr_assert_lt(timing.first_run_ns, timing.first_exit_ns);
    cr_assert_leq(timing.first_exit_ns, now_ns());
    struct thaw_vm_timing later = timing_of(vm);
    cr_assert_eq(later.first_exit_ns, timing.first_exit_ns, "the first stays the first");
    thaw_vm_free(vm);
    thaw_pool_free(pool);
    thaw_image_close(image);
}

Test(pool, timings_are_told_as_far_as_there_is_room)
{
    struct thaw_error error;
    thaw_vm *vm;
    uint64_t before_ns = now_ns();
    cr_assert_eq(thaw_restore(env, store, "s", NULL, &vm, &error), 0, "%s", error.message);
    struct thaw_vm_timing timing = timing_of(vm);
    is_in_order(&timing, before_ns);
    cr_assert_lt(timing.request_ns, timing.opened_ns);
    struct thaw_vm_timing small = {.size = 0};
    cr_assert_eq(thaw_vm_get_timing(vm, &small), -EINVAL);
    small.size = sizeof(small.size) + sizeof(small.request_ns);
    cr_assert_eq(thaw_vm_get_timing(vm, &small), 0);
    cr_assert_eq(small.request_ns, timing.request_ns);
    cr_assert_eq(small.opened_ns, 0);
    thaw_vm_free(vm);
}
