// SPDX-License-Identifier: Apache-2.0
// VMs that wait in a pool: what is left to do when one is taken.
#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

/* --- Calls that are counted ------------------------------------------------------------------- */

#define FDS_MAX 1024

static _Thread_local bool watched; /* counted is what this thread does */
static atomic_bool watching;       /* some thread is */
static atomic_bool made_meanwhile[FDS_MAX];
static atomic_uint memslots, threads;

static bool is_memslot(unsigned long request)
{
#ifdef KVM_SET_USER_MEMORY_REGION2
    if (request == KVM_SET_USER_MEMORY_REGION2)
        return true;
#endif
    return request == KVM_SET_USER_MEMORY_REGION;
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
/* Other threads may give memslots to VMs that they have just made: those refill the pool. */
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (is_memslot(request) && atomic_load(&watching) &&
        (watched || fd >= FDS_MAX || !atomic_load(&made_meanwhile[fd])))
        atomic_fetch_add(&memslots, 1);
    int r = __real_ioctl(fd, request, arg);
    if (request == KVM_CREATE_VM && atomic_load(&watching) && r >= 0 && r < FDS_MAX)
        atomic_store(&made_meanwhile[r], true);
    return r;
}

int __real_pthread_create(
    pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(
    pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (watched)
        atomic_fetch_add(&threads, 1);
    return __real_pthread_create(thread, attr, run, arg);
}

/* --- A snapshot, an image, a pool ------------------------------------------------------------- */

static struct snapshots store;
static thaw_env *env;

/* The snapshot "s" of a counting guest. */
static void set_up(void)
{
    struct guest guest;
    struct thaw_error error;
    snapshots_init(&store);
    guest_new(
        &guest, (struct thaw_vm_options){
                    .kernel_path = "tick", .cmdline = "interval=1000000", .mem_bytes = 32 << 20});
    guest_start(&guest);
    guest_expect(&guest, "tick 3\n", 0);
    snapshots_take(&store, guest.vm, "s", THAW_SNAPSHOT_KILL);
    guest_free(&guest);
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
}

static void clean_up(void)
{
    thaw_env_free(env);
    snapshots_fini(&store);
}

TestSuite(pool_shell, .init = set_up, .fini = clean_up, .timeout = 120);

static thaw_image *open_image(enum thaw_restore_mode mode)
{
    struct thaw_error error;
    thaw_image *image;
    struct thaw_image_options options = {.size = sizeof(options),
        .mode = mode,
        .flags = mode == THAW_RESTORE_LAZY ? THAW_IMAGE_NO_PREFETCH : 0};
    int r = thaw_image_open(env, store.store, "s", "test", &options, &image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return image;
}

static void settle(thaw_pool *pool, uint32_t target)
{
    struct thaw_error error;
    struct thaw_pool_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_pool_set_target(pool, target, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_wait(pool, GUEST_TIMEOUT_MS, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_get_info(pool, &info), 0);
    cr_assert(info.ready == target && info.leaving == 0);
}

static thaw_pool *make_pool(uint32_t target)
{
    struct thaw_error error;
    thaw_pool *pool;
    struct thaw_pool_options options = {
        .size = sizeof(options), .mem_bytes = 32 << 20, .target = target};
    cr_assert_eq(thaw_pool_new(env, &options, &pool, &error), 0, "%s", error.message);
    settle(pool, target);
    return pool;
}

static thaw_vm *restore(thaw_image *image, thaw_pool *pool, uint32_t flags)
{
    struct thaw_error error;
    thaw_vm *vm;
    struct thaw_restore_options options = {.size = sizeof(options), .pool = pool, .flags = flags};
    int r = thaw_image_restore(image, &options, &vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return vm;
}

static struct thaw_vm_info info_of(thaw_vm *vm)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_get_info(vm, &info), 0);
    return info;
}

static void expect_counts_on(thaw_vm *vm)
{
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && info_of(vm).mark_count < 2; i++)
        usleep(1000);
    cr_assert_geq(info_of(vm).mark_count, 2, "%s", info_of(vm).detail);
}

/* --- Being taken ------------------------------------------------------------------------------ */

static thaw_vm *restore_watched(thaw_image *image, thaw_pool *pool)
{
    atomic_store(&memslots, 0);
    atomic_store(&threads, 0);
    for (unsigned fd = 0; fd < FDS_MAX; fd++)
        atomic_store(&made_meanwhile[fd], false);
    atomic_store(&watching, true);
    watched = true;
    thaw_vm *vm = restore(image, pool, THAW_RESTORE_RESUME);
    watched = false;
    atomic_store(&watching, false);
    return vm;
}

Test(pool_shell, has_its_memslots_and_threads_before_it_is_taken)
{
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    thaw_pool *pool = make_pool(2);
    for (unsigned i = 0; i < 8; i++) {
        thaw_vm *vm = restore_watched(image, pool);
        cr_assert_eq(info_of(vm).state, THAW_VM_RUNNING);
        cr_assert_eq(atomic_load(&memslots), 0);
        cr_assert_eq(atomic_load(&threads), 0);
        expect_counts_on(vm);
        thaw_vm_free(vm);
        settle(pool, 2);
    }

    /* Such calls would have been seen: here is a VM that nobody has made in advance. */
    settle(pool, 0);
    thaw_vm *vm = restore_watched(image, pool);
    cr_assert_gt(atomic_load(&memslots), 0);
    cr_assert_gt(atomic_load(&threads), 0);
    thaw_vm_free(vm);
    thaw_pool_free(pool);
    thaw_image_close(image);
}
