// SPDX-License-Identifier: Apache-2.0
// What an environment remembers of images: shared while in use, kept within a budget afterwards.
#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct snapshots snapshots;
static thaw_env *env;

/* Two snapshots of one guest, "s" and "t". */
static void take_snapshots(void)
{
    struct guest guest;
    snapshots_init(&snapshots);
    guest_new(
        &guest, (struct thaw_vm_options){
                    .kernel_path = "tick", .cmdline = "interval=1000000", .mem_bytes = 32 << 20});
    guest_start(&guest);
    guest_expect(&guest, "tick 3\n", 0);
    snapshots_take(&snapshots, guest.vm, "s", THAW_SNAPSHOT_FULL);
    snapshots_take(&snapshots, guest.vm, "t", THAW_SNAPSHOT_FULL);
    guest_free(&guest);
}

static void remove_snapshots(void)
{
    thaw_env_free(env);
    snapshots_fini(&snapshots);
}

TestSuite(image_cache, .init = take_snapshots, .fini = remove_snapshots);

static void make_env(uint64_t budget_bytes)
{
    struct thaw_error error;
    struct thaw_env_options options = {.size = sizeof(options), .image_budget_bytes = budget_bytes};
    cr_assert_eq(thaw_env_new(&options, &env, &error), 0, "%s", error.message);
}

static struct thaw_image_cache_info counts(void)
{
    struct thaw_image_cache_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_env_get_image_cache(env, &info), 0);
    return info;
}

static thaw_image *open_image(const char *name, enum thaw_restore_mode mode)
{
    struct thaw_error error;
    thaw_image *image;
    struct thaw_image_options options = {.size = sizeof(options),
        .mode = mode,
        .flags = mode == THAW_RESTORE_LAZY ? THAW_IMAGE_NO_PREFETCH : 0};
    cr_assert_eq(thaw_image_open(env, snapshots.store, name, "test", &options, &image, &error), 0,
        "%s", error.message);
    return image;
}

static bool is_complete(thaw_image *image)
{
    struct thaw_image_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_image_get_info(image, &info), 0);
    return info.complete;
}

static ino_t memory_of(thaw_vm *vm)
{
    struct stat st;
    struct thaw_error error;
    int fd = thaw_vm_memory_fd(vm, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    cr_assert_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

static thaw_vm *restore(const char *name)
{
    struct thaw_error error;
    thaw_vm *vm;
    struct thaw_restore_options options = {.size = sizeof(options), .mode = THAW_RESTORE_EAGER};
    cr_assert_eq(
        thaw_restore(env, snapshots.store, name, &options, &vm, &error), 0, "%s", error.message);
    return vm;
}

/* Lets a clone run until it has counted on. */
static void runs(thaw_vm *vm)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && info.mark_count < 2; i++) {
        usleep(1000);
        thaw_vm_get_info(vm, &info);
    }
    cr_assert_geq(info.mark_count, 2, "%s", info.detail);
}

Test(image_cache, memory_that_nobody_uses_is_there_for_the_next)
{
    make_env(64 << 20);
    thaw_image_close(open_image("s", THAW_RESTORE_EAGER));
    struct thaw_image_cache_info info = counts();
    cr_assert_eq(info.kept, 1);
    cr_assert_gt(info.kept_bytes, 0);
    cr_assert_leq(info.kept_bytes, 32 << 20, "what it takes up, and not what the guest could have");
    cr_assert_eq(info.used, 0);
    cr_assert_eq(info.misses, 1);

    thaw_image *image = open_image("s", THAW_RESTORE_LAZY);
    cr_assert(is_complete(image), "nothing had to be read");
    info = counts();
    cr_assert_eq(info.hits, 1);
    cr_assert_eq(info.used, 1);
    cr_assert_eq(info.kept, 0);
    thaw_image_close(image);
    thaw_vm *vm = restore("s");
    runs(vm);
    thaw_vm_free(vm);
    cr_assert_eq(counts().hits, 2);
    cr_assert_eq(counts().kept, 1);
}

Test(image_cache, restores_of_one_snapshot_share_its_memory)
{
    make_env(1);
    thaw_vm *one = restore("s"), *two = restore("s"), *other = restore("t");
    cr_assert_eq(memory_of(one), memory_of(two));
    cr_assert_neq(memory_of(one), memory_of(other));
    cr_assert_eq(counts().used, 2);
    cr_assert_eq(counts().evicted, 0, "what is in use is not given up");
    thaw_vm_free(one);
    runs(two);
    runs(other);
    thaw_vm_free(two);
    thaw_vm_free(other);
    cr_assert_eq(counts().used, 0);
    cr_assert_eq(counts().kept, 0, "the budget is too small for either");
    cr_assert_eq(counts().evicted, 2);
}

Test(image_cache, what_was_used_last_is_kept)
{
    make_env(64 << 20);
    thaw_image_close(open_image("s", THAW_RESTORE_EAGER));
    uint64_t bytes = counts().kept_bytes;
    thaw_env_free(env);

    make_env(bytes + bytes / 2);
    thaw_image_close(open_image("s", THAW_RESTORE_EAGER));
    thaw_image_close(open_image("t", THAW_RESTORE_EAGER));
    cr_assert_eq(counts().evicted, 1);
    cr_assert_eq(counts().kept, 1);
    thaw_image_close(open_image("t", THAW_RESTORE_EAGER));
    cr_assert_eq(counts().hits, 1, "the second one is the one that is kept");
    thaw_image_close(open_image("s", THAW_RESTORE_EAGER));
    cr_assert_eq(counts().hits, 1);
}

Test(image_cache, what_is_kept_does_not_hold_the_snapshot)
{
    struct thaw_error error;
    thaw_image *image;
    make_env(64 << 20);
    thaw_image_close(open_image("s", THAW_RESTORE_EAGER));
    cr_assert_eq(counts().kept, 1);
    cr_assert_eq(thaw_store_delete(snapshots.store, "s", &error), 0, "%s", error.message);
    cr_assert_eq(thaw_image_open(env, snapshots.store, "s", NULL, NULL, &image, &error), -ENOENT);
}

Test(image_cache, an_image_that_is_not_complete_is_not_kept)
{
    make_env(64 << 20);
    thaw_image *image = open_image("s", THAW_RESTORE_LAZY);
    cr_assert_not(is_complete(image));
    thaw_image *same = open_image("s", THAW_RESTORE_EAGER);
    cr_assert(is_complete(image), "who shares it fills it for all");
    thaw_image_close(image);
    thaw_image_close(same);
    cr_assert_eq(counts().kept, 1);
    thaw_image_close(open_image("t", THAW_RESTORE_LAZY));
    cr_assert_eq(counts().kept, 1);
}

Test(image_cache, without_a_budget_nothing_is_remembered)
{
    make_env(0);
    thaw_vm *one = restore("s"), *two = restore("s");
    cr_assert_neq(memory_of(one), memory_of(two));
    struct thaw_image_cache_info info = counts();
    cr_assert_eq(info.hits + info.misses + info.used + info.kept, 0);
    thaw_vm_free(one);
    thaw_vm_free(two);
    info.size = 0;
    cr_assert_eq(thaw_env_get_image_cache(env, &info), -EINVAL);
}

static void *open_often(void *data)
{
    for (unsigned i = 0; i < 20; i++) {
        const char *name = (i + *(const unsigned *)data) % 3 ? "s" : "t";
        thaw_image *image = open_image(name, i % 2 ? THAW_RESTORE_EAGER : THAW_RESTORE_LAZY);
        if (i % 5 == 0) {
            thaw_vm *vm = restore(name);
            runs(vm);
            thaw_vm_free(vm);
        }
        thaw_image_close(image);
    }
    return NULL;
}

Test(image_cache, many_threads_open_at_once)
{
    pthread_t threads[4];
    unsigned numbers[4];
    make_env(64 << 10);
    for (unsigned i = 0; i < 4; i++) {
        numbers[i] = i;
        cr_assert_eq(pthread_create(&threads[i], NULL, open_often, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct thaw_image_cache_info info = counts();
    cr_assert_eq(info.used, 0);
    cr_assert_leq(info.kept_bytes, info.budget_bytes);
    cr_assert_eq(info.hits + info.misses, 4 * (20 + 4));
}
