// SPDX-License-Identifier: Apache-2.0
// Working sets of real guests: recorded from one clone, used by others, damaged, deleted.
#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_MIB 8
#define WS_MIB   2
#define WS_PAGES (WS_MIB * 256)

/* Of the guest's code, stack, page tables and devices, besides its working set. */
#define OTHER_PAGES_MAX 128

/* A thread that begins to read a working set while this is HOLD_NEW stays until it is GO. It
 * becomes that by itself when a test waits for such a thread. */
#define HOLD_MS_MAX 30000
enum {
    GO,
    HOLD_NEW,
    HOLD_OLD
};
static atomic_int hold_prefetch;
static atomic_bool held;

ssize_t __real_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    if (atomic_load(&hold_prefetch) == HOLD_NEW && strcmp(name, "thaw-prefetch") == 0) {
        atomic_store(&held, true);
        for (unsigned ms = 0; atomic_load(&hold_prefetch) != GO && ms < HOLD_MS_MAX; ms++)
            usleep(1000);
        atomic_store(&hold_prefetch, GO);
    }
    return __real_pread(fd, bytes, count, off);
}

static struct snapshots store;
static char initrd[] = "/tmp/thaw-memtouch-XXXXXX";
static uint8_t *memory; /* of the snapshot "s" */

static uint8_t *read_memory(const char *ref)
{
    struct guest guest;
    guest_restore(
        &guest, store.store, (struct thaw_restore_options){.mode = THAW_RESTORE_EAGER}, ref);
    uint8_t *copy = snapshots_copy_memory(guest.vm);
    guest_free(&guest);
    return copy;
}

/* A snapshot in the middle of a pass over a small part of the data. */
static void set_up(void)
{
    struct guest guest;
    char command[1024];
    int fd = mkstemp(initrd);
    cr_assert_geq(fd, 0);
    close(fd);
    snprintf(
        command, sizeof(command), "%s/../memtouch-data -o %s %u", THAW_GUEST_DIR, initrd, DATA_MIB);
    cr_assert_eq(system(command), 0);
    struct thaw_vm_options options = {.kernel_path = "memtouch",
        .mem_bytes = 32 << 20,
        .initrd_path = initrd,
        .cmdline = "op=read order=rand ws=2"};
    snapshots_init(&store);
    guest_new(&guest, options);
    guest_start(&guest);
    guest_expect(&guest, "pass 2 ", 0);
    snapshots_take(&store, guest.vm, "s", 0);
    guest_free(&guest);
    memory = read_memory("s");
}

static void clean_up(void)
{
    free(memory);
    unlink(initrd);
    snapshots_fini(&store);
}

TestSuite(working_set_guest, .init = set_up, .fini = clean_up, .timeout = 120);

/* --- Images and clones ------------------------------------------------------------------------ */

struct session {
    thaw_env *env;
    thaw_image *image;
};

static void session_open(struct session *session, const char *ref, uint32_t flags)
{
    struct thaw_error error;
    struct thaw_image_options options = {.size = sizeof(options), .flags = flags};
    int r = thaw_env_new(NULL, &session->env, &error);
    if (r == 0)
        r = thaw_image_open(
            session->env, store.store, ref, "test", &options, &session->image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

static void session_close(struct session *session)
{
    thaw_image_close(session->image);
    thaw_env_free(session->env);
}

static struct thaw_image_info info_of(const struct session *session)
{
    struct thaw_image_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_image_get_info(session->image, &info), 0);
    return info;
}

static thaw_vm *restore(const struct session *session)
{
    struct thaw_error error;
    struct thaw_restore_options options = {.size = sizeof(options)};
    thaw_vm *vm;
    int r = thaw_image_restore(session->image, &options, &vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return vm;
}

/* Lets it run until it has gone through its whole working set once. */
static void run_pass(thaw_vm *vm)
{
    struct thaw_error error;
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_resume(vm, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && info.mark_count < 2; i++) {
        usleep(1000);
        thaw_vm_get_info(vm, &info);
        cr_assert_neq(info.state, THAW_VM_FAILED, "%s", info.detail);
    }
    cr_assert_geq(info.mark_count, 2);
    cr_assert_eq(thaw_vm_pause(vm, &error), 0, "%s", error.message);
}

static struct thaw_recording record(const char *ref)
{
    struct thaw_error error;
    struct session session;
    struct thaw_recording recording = {.size = sizeof(recording)};
    session_open(&session, ref, THAW_IMAGE_RECORD);
    cr_assert_eq(info_of(&session).recording, 1);
    thaw_vm *vm = restore(&session);
    run_pass(vm);
    int r = thaw_image_record_end(session.image, &recording, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_eq(info_of(&session).recording, 0);
    run_pass(vm);
    thaw_vm_free(vm);
    session_close(&session);
    return recording;
}

/* What a clone of a freshly opened image finds in its memory, and what a run of it needs. Returns
 * how many pages had been prefetched. */
static uint64_t use(const char *ref, const uint8_t *expected)
{
    struct session session;
    session_open(&session, ref, 0);
    thaw_vm *vm = restore(&session);
    uint64_t prefetched = info_of(&session).prefetched_pages;
    cr_assert_eq(snapshots_compare_memory(vm, expected), 0);
    run_pass(vm);
    thaw_vm_free(vm);
    session_close(&session);
    return prefetched;
}

static char *hot_path(void)
{
    static char path[384];
    char directory[96];
    snprintf(directory, sizeof(directory), "%s/hot", store.path);
    DIR *dir = opendir(directory);
    cr_assert_not_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
    closedir(dir);
    return path;
}

static off_t hot_bytes(void)
{
    struct stat st;
    cr_assert_eq(stat(hot_path(), &st), 0);
    return st.st_size;
}

static void flip(off_t at)
{
    uint8_t byte = 0;
    int fd = open(hot_path(), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x40;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* --- Recording and using ---------------------------------------------------------------------- */

Test(working_set_guest, that_was_recorded_is_there_before_the_next_clone_runs)
{
    struct thaw_recording recording = record("s");
    cr_assert_geq(recording.pages, WS_PAGES);
    cr_assert_leq(recording.pages, WS_PAGES + OTHER_PAGES_MAX);
    cr_assert_eq(recording.full, 0);
    cr_assert_eq(snapshots_count(&store, "hot"), 1);
    cr_assert_eq((uint64_t)hot_bytes(), recording.bytes);

    struct session session;
    session_open(&session, "s", 0);
    thaw_vm *vm = restore(&session);
    struct thaw_image_info info = info_of(&session);
    cr_assert_eq(info.prefetched_pages, recording.pages);
    cr_assert_eq(info.recording, 0);
    cr_assert_gt(info.prefetch_ns, 0);
    run_pass(vm);
    cr_assert_leq(info_of(&session).demand_pages, WS_PAGES / 100, "%d pages came on demand",
        (int)info_of(&session).demand_pages);
    thaw_vm_free(vm);
    session_close(&session);
    cr_assert_eq(use("s", memory), recording.pages);
    cr_assert_eq(snapshots_check_store(&store, "with a working set"), 1);
}

Test(working_set_guest, need_not_be_waited_for_nor_used)
{
    record("s");
    struct session session;
    session_open(&session, "s", THAW_IMAGE_PREFETCH_ASYNC);
    thaw_vm *vm = restore(&session);
    run_pass(vm);
    cr_assert_eq(info_of(&session).prefetch_wait_ns, 0);
    thaw_vm_free(vm);
    session_close(&session);

    session_open(&session, "s", THAW_IMAGE_NO_PREFETCH);
    vm = restore(&session);
    run_pass(vm);
    cr_assert_eq(info_of(&session).prefetched_pages, 0);
    cr_assert_gt(info_of(&session).demand_pages, 0);
    thaw_vm_free(vm);
    session_close(&session);
}

/* Who reads the working set is held all the while. */
Test(working_set_guest, is_overtaken_by_a_guest_that_does_not_wait_for_it)
{
    record("s");
    struct session session;
    atomic_store(&hold_prefetch, HOLD_NEW);
    session_open(&session, "s", THAW_IMAGE_PREFETCH_ASYNC);
    while (!atomic_load(&held))
        usleep(1000);
    thaw_vm *vm = restore(&session);
    run_pass(vm);
    struct thaw_image_info info = info_of(&session);
    cr_assert_neq(atomic_exchange(&hold_prefetch, GO), GO, "the guest came last");
    cr_assert_eq(info.prefetched_pages, 0);
    cr_assert_geq(info.demand_pages, WS_PAGES);
    while (info_of(&session).prefetch_ns == 0)
        usleep(1000);
    run_pass(vm);
    thaw_vm_free(vm);
    session_close(&session);
}

/* Returns false if a restore from an image opened with these flags waited. */
static bool restores_at_once(thaw_env *env, uint32_t flags)
{
    struct session session = {.env = env};
    struct thaw_error error;
    struct thaw_image_options options = {.size = sizeof(options), .flags = flags};
    int r = thaw_image_open(env, store.store, "s", "test", &options, &session.image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    thaw_vm *vm = restore(&session);
    bool at_once = atomic_load(&hold_prefetch) != GO;
    thaw_vm_free(vm);
    thaw_image_close(session.image);
    return at_once;
}

static void *let_go_later(void *data)
{
    (void)data;
    sleep(2);
    atomic_store(&hold_prefetch, GO);
    return NULL;
}

Test(working_set_guest, that_others_read_need_not_be_waited_for_either)
{
    record("s");
    struct session session;
    struct thaw_error error;
    pthread_t timer;
    struct thaw_env_options budget = {.size = sizeof(budget), .image_budget_bytes = 1};
    struct thaw_image_options options = {.size = sizeof(options)};
    cr_assert_eq(thaw_env_new(&budget, &session.env, &error), 0, "%s", error.message);
    atomic_store(&hold_prefetch, HOLD_NEW);
    int r =
        thaw_image_open(session.env, store.store, "s", "test", &options, &session.image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    while (!atomic_load(&held))
        usleep(1000);
    atomic_store(&hold_prefetch, HOLD_OLD);
    cr_assert_eq(pthread_create(&timer, NULL, let_go_later, NULL), 0);
    cr_assert(restores_at_once(session.env, THAW_IMAGE_PREFETCH_ASYNC));
    cr_assert(restores_at_once(session.env, THAW_IMAGE_NO_PREFETCH));
    cr_assert_not(restores_at_once(session.env, 0), "who wants it waits");
    pthread_join(timer, NULL);
    session_close(&session);
}

Test(working_set_guest, of_a_vm_is_recorded_through_the_vm_while_it_runs)
{
    struct guest guest;
    struct thaw_error error;
    struct thaw_recording recording = {.size = sizeof(recording)};
    guest_restore(
        &guest, store.store, (struct thaw_restore_options){.flags = THAW_RESTORE_RECORD}, "s");
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    size_t at = guest_expect(&guest, "pass ", 0);
    guest_expect(&guest, "pass ", at);
    int r = thaw_vm_record_end(guest.vm, &recording, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_geq(recording.pages, WS_PAGES);
    cr_assert_eq(thaw_vm_record_end(guest.vm, &recording, &error), THAW_ESTATE);
    guest_expect(&guest, "pass ", guest_console_count(&guest));
    guest_free(&guest);
    cr_assert_eq(use("s", memory), recording.pages);

    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "tick", .mem_bytes = 16 << 20});
    cr_assert_eq(thaw_vm_record_end(guest.vm, NULL, &error), THAW_ESTATE);
    guest_free(&guest);
}

Test(working_set_guest, is_not_what_a_digest_of_memory_reads)
{
    struct session session;
    struct thaw_error error;
    struct thaw_recording recording = {.size = sizeof(recording)};
    char before[THAW_DIGEST_BYTES], after[THAW_DIGEST_BYTES];
    session_open(&session, "s", THAW_IMAGE_RECORD);
    thaw_vm *vm = restore(&session);
    run_pass(vm);
    uint64_t pages = info_of(&session).recorded_pages;
    int r = thaw_vm_memory_digest(vm, before, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_eq(info_of(&session).recorded_pages, pages);
    r = thaw_image_record_end(session.image, &recording, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_eq(recording.pages, pages);
    r = thaw_vm_memory_digest(vm, after, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_str_eq(before, after);
    thaw_vm_free(vm);
    session_close(&session);
}

Test(working_set_guest, is_recorded_from_several_clones_at_once)
{
    struct session session;
    struct thaw_error error;
    struct thaw_recording recording = {.size = sizeof(recording)};
    session_open(&session, "s", THAW_IMAGE_RECORD);
    thaw_vm *vms[3];
    for (unsigned i = 0; i < 3; i++) {
        vms[i] = restore(&session);
        cr_assert_eq(thaw_vm_resume(vms[i], NULL), 0);
    }
    run_pass(vms[0]);
    int r = thaw_image_record_end(session.image, &recording, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_geq(recording.pages, WS_PAGES);
    cr_assert_leq(recording.pages, WS_PAGES + OTHER_PAGES_MAX);
    for (unsigned i = 0; i < 3; i++) {
        run_pass(vms[i]);
        thaw_vm_free(vms[i]);
    }
    session_close(&session);
    use("s", memory);
}

Test(working_set_guest, may_lie_in_an_ancestors_packs)
{
    struct guest guest;
    struct thaw_error error;
    guest_restore(&guest, store.store, (struct thaw_restore_options){0}, "s");
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    guest_expect(&guest, "pass ", 0);
    snapshots_take(&store, guest.vm, "child", THAW_SNAPSHOT_DIFF);
    guest_free(&guest);
    cr_assert_eq(thaw_store_delete(store.store, "s", &error), 0, "%s", error.message);
    uint8_t *expected = read_memory("child");
    struct thaw_recording recording = record("child");
    cr_assert_geq(recording.pages, WS_PAGES);
    cr_assert_eq(use("child", expected), recording.pages);
    free(expected);
}

/* --- What can be wrong with it ---------------------------------------------------------------- */

Test(working_set_guest, that_is_damaged_changes_nothing_but_the_time)
{
    record("s");
    off_t bytes = hot_bytes();
    for (unsigned i = 0; i < 12; i++) {
        off_t at = bytes * i / 12;
        flip(at);
        use("s", memory);
        flip(at);
    }
    cr_assert_eq(truncate(hot_path(), bytes - 1), 0);
    cr_assert_eq(use("s", memory), 0);
    cr_assert_eq(truncate(hot_path(), 0), 0);
    cr_assert_eq(use("s", memory), 0);
    cr_assert_eq(unlink(hot_path()), 0);
    cr_assert_eq(mkdir(hot_path(), 0700), 0);
    cr_assert_eq(use("s", memory), 0);
    cr_assert_eq(rmdir(hot_path()), 0);
    cr_assert_eq(mkfifo(hot_path(), 0600), 0);
    cr_assert_eq(use("s", memory), 0);
    cr_assert_eq(unlink(hot_path()), 0);
    cr_assert_eq(use("s", memory), 0);
}

Test(working_set_guest, of_another_snapshot_is_not_used)
{
    struct guest guest;
    char other[384];
    record("s");
    snprintf(other, sizeof(other), "%s", hot_path());
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "memtouch",
                          .mem_bytes = 32 << 20,
                          .initrd_path = initrd,
                          .cmdline = "op=write order=rand ws=2"});
    guest_start(&guest);
    guest_expect(&guest, "pass 3 ", 0);
    snapshots_take(&store, guest.vm, "t", 0);
    guest_free(&guest);
    uint8_t *expected = read_memory("t");

    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_find(store.store, "t", &list, NULL), 0);
    char path[256];
    snprintf(path, sizeof(path), "%s/hot/%s", store.path, thaw_snapshot_list_get(list, 0)->id);
    thaw_snapshot_list_free(list);
    cr_assert_eq(rename(other, path), 0);
    cr_assert_eq(use("t", expected), 0);
    free(expected);
}

Test(working_set_guest, recorded_anew_takes_the_place_of_the_old)
{
    record("s");
    flip(hot_bytes() - 1);
    struct thaw_recording recording = record("s");
    cr_assert_eq(snapshots_count(&store, "hot"), 1);
    cr_assert_eq(use("s", memory), recording.pages);
}

Test(working_set_guest, goes_with_its_snapshot_and_is_recovered)
{
    struct thaw_error error;
    struct thaw_store_recovery did = {.size = sizeof(did)};
    struct thaw_recording recording = record("s");
    char *json;
    cr_assert_eq(thaw_snapshot_inspect(store.store, "s", &json, &error), 0, "%s", error.message);
    cr_assert_not_null(strstr(json, "working_set"));
    thaw_text_free(json);
    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_find(store.store, "s", &list, NULL), 0);
    cr_assert_eq(thaw_snapshot_list_get(list, 0)->hot_bytes, recording.bytes);
    thaw_snapshot_list_free(list);

    /* What a process left that died while it was writing. */
    char path[400];
    snprintf(path, sizeof(path), "%s.0123abcd", hot_path());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(thaw_store_recover(store.store, &did, &error), 0, "%s", error.message);
    cr_assert_eq(did.side_files, 1);
    cr_assert_eq(snapshots_count(&store, "hot"), 1);

    cr_assert_eq(thaw_store_delete(store.store, "s", &error), 0, "%s", error.message);
    cr_assert_eq(snapshots_count(&store, "hot"), 0);
}

Test(working_set_guest, is_not_recorded_from_memory_that_is_read_first)
{
    thaw_env *env;
    thaw_image *image;
    thaw_vm *vm;
    struct thaw_error error;
    cr_assert_eq(thaw_env_new(NULL, &env, NULL), 0);
    struct thaw_image_options eager = {
        .size = sizeof(eager), .mode = THAW_RESTORE_EAGER, .flags = THAW_IMAGE_RECORD};
    cr_assert_eq(thaw_image_open(env, store.store, "s", NULL, &eager, &image, &error), -EINVAL);
    struct thaw_image_options unknown = {.size = sizeof(unknown), .flags = 1u << 31};
    cr_assert_eq(thaw_image_open(env, store.store, "s", NULL, &unknown, &image, &error), -EINVAL);
    struct thaw_restore_options both = {
        .size = sizeof(both), .mode = THAW_RESTORE_EAGER, .flags = THAW_RESTORE_RECORD};
    cr_assert_eq(thaw_restore(env, store.store, "s", &both, &vm, &error), -EINVAL);
    thaw_env_free(env);
}
