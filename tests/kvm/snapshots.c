// SPDX-License-Identifier: Apache-2.0
// Test support: stores with snapshots of real VMs in them. Makes no VM.

#include "snapshots.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096u

static void open_store(struct snapshots *snapshots)
{
    struct thaw_error error;
    struct thaw_store_options options = {
        .size = sizeof(options), .path = snapshots->path, .flags = THAW_STORE_CREATE};
    int r = thaw_store_open(&options, &snapshots->store, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

void snapshots_init(struct snapshots *snapshots)
{
    snprintf(snapshots->path, sizeof(snapshots->path), "%s/thaw-test-XXXXXX",
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert_not_null(mkdtemp(snapshots->path));
    open_store(snapshots);
}

void snapshots_fini(struct snapshots *snapshots)
{
    char command[128];
    thaw_store_close(snapshots->store);
    snprintf(command, sizeof(command), "rm -rf %s", snapshots->path);
    cr_assert_eq(system(command), 0);
}

void snapshots_reopen(struct snapshots *snapshots)
{
    thaw_store_close(snapshots->store);
    open_store(snapshots);
}

int snapshots_wait(int r, thaw_job *job, struct thaw_error *error)
{
    if (r < 0)
        return r;
    r = thaw_job_wait(job, -1, error);
    thaw_job_free(job);
    return r;
}

int snapshots_try(struct snapshots *snapshots, thaw_vm *vm, const char *name, uint32_t flags,
    struct thaw_error *error)
{
    thaw_job *job = NULL;
    struct thaw_snapshot_options options = {.size = sizeof(options), .name = name, .flags = flags};
    int r = thaw_vm_snapshot(vm, snapshots->store, &options, &job, error);
    return snapshots_wait(r, job, error);
}

int snapshots_verify(struct snapshots *snapshots, const char *ref, struct thaw_error *error)
{
    thaw_job *job = NULL;
    int r = thaw_snapshot_verify(snapshots->store, ref, &job, error);
    return snapshots_wait(r, job, error);
}

void snapshots_take(struct snapshots *snapshots, thaw_vm *vm, const char *name, uint32_t flags)
{
    struct thaw_error error;
    int r = snapshots_try(snapshots, vm, name, flags, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

unsigned snapshots_count(const struct snapshots *snapshots, const char *directory)
{
    char path[128];
    unsigned count = 0;
    snprintf(path, sizeof(path), "%s/%s", snapshots->path, directory);
    DIR *dir = opendir(path);
    cr_assert_not_null(dir, "%s", path);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void check_ready(
    struct snapshots *snapshots, const struct thaw_snapshot_info *info, const char *when)
{
    struct thaw_error error;
    thaw_snapshot_list *list;
    int r = snapshots_verify(snapshots, info->id, &error);
    cr_assert_eq(r, 0, "%s: %s: %s", when, info->name, error.message);
    r = thaw_store_find(snapshots->store, info->name, &list, &error);
    cr_assert_eq(r, 0, "%s: %s: %s", when, info->name, error.message);
    cr_assert_str_eq(thaw_snapshot_list_get(list, 0)->id, info->id, "%s", when);
    thaw_snapshot_list_free(list);
}

unsigned snapshots_check_store(struct snapshots *snapshots, const char *when)
{
    struct thaw_error error;
    thaw_snapshot_list *list;
    unsigned ready = 0;
    int r = thaw_store_list(snapshots->store, NULL, &list, &error);
    cr_assert_eq(r, 0, "%s: %s", when, error.message);
    for (size_t i = 0; i < thaw_snapshot_list_count(list); i++) {
        const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, i);
        cr_assert(info->state == THAW_SNAPSHOT_READY ||
                      (info->state == THAW_SNAPSHOT_FAILED && info->error[0]),
            "%s: %s is %s: %s", when, info->name, thaw_snapshot_state_name(info->state),
            info->error);
        if (info->state == THAW_SNAPSHOT_READY) {
            ready++;
            check_ready(snapshots, info, when);
        }
    }
    cr_assert_eq(thaw_snapshot_list_strays(list), 0, "%s", when);
    thaw_snapshot_list_free(list);
    cr_assert_eq(snapshots_count(snapshots, "names"), ready, "%s", when);
    cr_assert_eq(snapshots_count(snapshots, "creating"), 0, "%s", when);
    cr_assert_eq(snapshots_count(snapshots, "trash"), 0, "%s", when);
    return ready;
}

uint8_t *snapshots_copy_memory(thaw_vm *vm)
{
    uint8_t *copy = malloc(vm->mem.bytes);
    cr_assert_not_null(copy);
    cr_assert_eq(mem_make_present(&vm->mem, 0, vm->mem.bytes), 0);
    memcpy(copy, vm->mem.base, vm->mem.bytes);
    return copy;
}

int64_t snapshots_compare_memory(thaw_vm *vm, const uint8_t *memory)
{
    int64_t result = 0;
    for (uint64_t off = 0; off < vm->mem.bytes; off += PAGE) {
        /* The generation id differs on purpose. */
        if (off == MACHINE_VMGENID_GPA)
            continue;
        if (mem_make_present(&vm->mem, off, PAGE) < 0)
            result = -1;
        else if (memcmp(vm->mem.base + off, memory + off, PAGE) != 0)
            return (int64_t)(off / PAGE) + 1;
    }
    return result;
}
