// SPDX-License-Identifier: Apache-2.0
// VMs that wait in a pool: what is left to do when one is taken, and what they hold meanwhile.
#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

/* --- Waiting ---------------------------------------------------------------------------------- */

/* What this process has of a snapshot: mappings and descriptors of the memory of its image, which
 * is this file, and those of files in the store; and descriptors that tell of page faults. */
struct held {
    unsigned memory, stored, faults;
};

static void count_mappings(const struct stat *memory, struct held *held)
{
    char line[PATH_MAX + 128];
    FILE *maps = fopen("/proc/self/maps", "re");
    cr_assert_not_null(maps);
    while (fgets(line, sizeof(line), maps)) {
        unsigned major, minor;
        unsigned long inode;
        cr_assert_eq(sscanf(line, "%*s %*s %*s %x:%x %lu", &major, &minor, &inode), 3);
        held->memory +=
            inode != 0 && inode == memory->st_ino && makedev(major, minor) == memory->st_dev;
        held->stored += strstr(line, store.path) != NULL;
    }
    fclose(maps);
}

static void count_descriptors(const struct stat *memory, struct held *held)
{
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char target[PATH_MAX] = "";
        struct stat st;
        if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) < 0)
            continue; /* . and .. */
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0)
            held->memory += st.st_ino == memory->st_ino && st.st_dev == memory->st_dev;
        held->stored += strstr(target, store.path) != NULL;
        held->faults += strstr(target, "userfaultfd") != NULL;
    }
    closedir(dir);
}

static struct held count_held(const struct stat *memory)
{
    struct held held = {0};
    count_mappings(memory, &held);
    count_descriptors(memory, &held);
    return held;
}

/* The file that a complete image's memory is. */
static struct stat memory_of(thaw_image *image)
{
    struct thaw_error error;
    struct stat st;
    cr_assert_eq(thaw_image_fill(image, &error), 0, "%s", error.message);
    int fd = thaw_image_memory_fd(image, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    cr_assert_eq(fstat(fd, &st), 0);
    return st;
}

static void expect_same(struct held is, struct held was)
{
    cr_assert_eq(is.memory, was.memory);
    cr_assert_eq(is.stored, was.stored);
    cr_assert_eq(is.faults, was.faults);
}

#define CLONES 4

/* Clones hold what they need, those that wait beside them do not, and when the clones are gone
 * nobody does: none of them is among those that wait then, although there is room. */
static void expect_pool_holds_nothing(enum thaw_restore_mode mode)
{
    const struct held nothing = count_held(&(struct stat){0});
    thaw_vm *clones[CLONES];
    thaw_image *image = open_image(mode);
    thaw_pool *pool = make_pool(CLONES);
    for (unsigned i = 0; i < CLONES; i++)
        clones[i] = restore(image, pool, 0);
    struct stat memory = memory_of(image);
    thaw_image_close(image);
    settle(pool, 0);
    struct held by_clones = count_held(&memory);
    cr_assert_geq(by_clones.memory, CLONES);
    cr_assert_gt(by_clones.stored, nothing.stored);
    if (mode == THAW_RESTORE_LAZY)
        cr_assert_gt(by_clones.faults, nothing.faults);
    settle(pool, CLONES);
    expect_same(count_held(&memory), by_clones);

    cr_assert_eq(thaw_vm_resume(clones[0], NULL), 0);
    expect_counts_on(clones[0]);
    cr_assert_eq(thaw_pool_set_target(pool, 3 * CLONES, NULL), 0);
    for (unsigned i = 0; i < CLONES; i++)
        thaw_vm_free(clones[i]);
    settle(pool, 3 * CLONES);
    expect_same(count_held(&memory), nothing);
    thaw_pool_free(pool);
}

Test(pool_shell, holds_nothing_of_a_complete_image_that_clones_came_from)
{
    expect_pool_holds_nothing(THAW_RESTORE_EAGER);
}

Test(pool_shell, holds_nothing_of_an_image_that_was_filled_under_clones)
{
    expect_pool_holds_nothing(THAW_RESTORE_LAZY);
}

Test(pool_shell, holds_nothing_of_an_image_that_was_open_when_it_was_made)
{
    const struct held nothing = count_held(&(struct stat){0});
    thaw_image *image = open_image(THAW_RESTORE_EAGER);
    struct stat memory = memory_of(image);
    struct held by_image = count_held(&memory);
    thaw_pool *pool = make_pool(CLONES);
    expect_same(count_held(&memory), by_image);
    thaw_image_close(image);
    expect_same(count_held(&memory), nothing);
    thaw_pool_free(pool);
}
