// SPDX-License-Identifier: Apache-2.0
// Damages every part of a stored snapshot: a bit flipped in each 64 bytes, and the file ending at
// each. Verifying names the file and where in it; no clone ever sees a byte that the source did not
// have.
//
// Every damage is verified, and restored in one of three ways, in turn: eagerly and lazily, with
// all memory compared, and lazily with the guest running.

#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRETCH         64
#define FRAME_BYTES_MAX (64u << 10) /* sixteen pages, stored raw */

static struct snapshots snapshots;
static char base[64], id[33];
static uint8_t *memory; /* of the source, when the snapshot was taken */
static char digest[THAW_DIGEST_BYTES];
static thaw_env *env;

static void take_one(void)
{
    static struct guest source;
    struct thaw_error error;
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    strcpy(base, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(base);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    snapshots_init(&snapshots);
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "blkpattern",
                           .cmdline = "blocks=8 stride=3 loop=1",
                           .mem_bytes = 16 << 20,
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 3 ", 0);
    cr_assert_eq(thaw_vm_pause(source.vm, NULL), 0);
    snapshots_take(&snapshots, source.vm, "s", THAW_SNAPSHOT_FULL);
    memory = snapshots_copy_memory(source.vm);
    cr_assert_eq(thaw_vm_memory_digest(source.vm, digest, &error), 0, "%s", error.message);
    guest_free(&source);

    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_find(snapshots.store, "s", &list, &error), 0, "%s", error.message);
    strcpy(id, thaw_snapshot_list_get(list, 0)->id);
    cr_assert_lt(thaw_snapshot_list_get(list, 0)->stored_bytes, 1 << 20);
    thaw_snapshot_list_free(list);
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
}

static void clean_up(void)
{
    thaw_env_free(env);
    free(memory);
    snapshots_fini(&snapshots);
    unlink(base);
}

TestSuite(damage, .init = take_one, .fini = clean_up);

/* What came of the damages. */
static unsigned damages, harmless, not_restored, memory_failed, offsets_told;

/* --- What a clone may do ---------------------------------------------------------------------- */

static struct guest watched; /* its console */

static void keep_console(void *data, const char *bytes, size_t count)
{
    struct guest *guest = data;
    pthread_mutex_lock(&guest->lock);
    size_t room = sizeof(guest->console) - 1 - guest->console_count;
    memcpy(guest->console + guest->console_count, bytes, count < room ? count : room);
    guest->console_count += count < room ? count : room;
    pthread_mutex_unlock(&guest->lock);
}

/* NULL: it could not be restored, and the error says why. */
static thaw_vm *restore(enum thaw_restore_mode mode, const char *what)
{
    struct thaw_restore_options options = {.size = sizeof(options),
        .mode = mode,
        .flags = mode == THAW_RESTORE_LAZY ? THAW_RESTORE_NO_PREFETCH : 0,
        .console = keep_console,
        .console_data = &watched};
    struct thaw_error error = {0};
    thaw_vm *vm = NULL;
    memset(watched.console, 0, watched.console_count);
    watched.console_count = 0;
    int r = thaw_restore(env, snapshots.store, "s", &options, &vm, &error);
    cr_assert(r == 0 || (error.code == r && error.message[0] && !vm), "%s: %d", what, r);
    not_restored += r < 0;
    return vm;
}

static struct thaw_vm_info info_of(thaw_vm *vm)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_get_info(vm, &info), 0);
    return info;
}

static void restore_and_compare(enum thaw_restore_mode mode, const char *what)
{
    thaw_vm *vm = restore(mode, what);
    if (!vm)
        return;
    char got[THAW_DIGEST_BYTES];
    struct thaw_error error;
    int digested = thaw_vm_memory_digest(vm, got, &error);
    int64_t r = snapshots_compare_memory(vm, memory);
    cr_assert_leq(r, 0, "%s: page %d differs", what, (int)r - 1);
    cr_assert_eq(digested, r < 0 ? THAW_ECORRUPT : 0, "%s: %d, %d", what, digested, (int)r);
    if (digested == 0)
        cr_assert_str_eq(got, digest, "%s", what);
    cr_assert(r == 0 || mode == THAW_RESTORE_LAZY, "%s: an eager clone lacks memory", what);
    struct thaw_vm_info info = info_of(vm);
    memory_failed += r < 0;
    cr_assert_eq(info.state, r < 0 ? THAW_VM_FAILED : THAW_VM_PAUSED, "%s: %s", what, info.detail);
    cr_assert_eq(info.reason, r < 0 ? THAW_REASON_MEMORY : THAW_REASON_REQUEST, "%s", what);
    thaw_vm_free(vm);
}

/* Until it has read and written its disk twice, or has ended. */
static void run(thaw_vm *vm, const char *what)
{
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0, "%s", what);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS; i++) {
        if (thaw_vm_wait(vm, 1) == 0 || info_of(vm).mark_count >= 2)
            return;
    }
    cr_assert_fail("%s: the guest hangs", what);
}

/* The guest compares its disk with what it wrote; it may be told that it cannot be read. */
static void restore_and_run(const char *what)
{
    thaw_vm *vm = restore(THAW_RESTORE_LAZY, what);
    if (!vm)
        return;
    run(vm, what);
    cr_assert_eq(thaw_vm_stop(vm, NULL), 0);
    struct thaw_vm_info info = info_of(vm);
    cr_assert_null(strstr(watched.console, "should be"), "%s: %s", what, watched.console);
    if (info.state == THAW_VM_FAILED)
        cr_assert_eq(info.reason, THAW_REASON_MEMORY, "%s: %s", what, info.detail);
    else if (info.reason == THAW_REASON_EXIT)
        cr_assert(strstr(watched.console, ": status 1"), "%s: %s", what, watched.console);
    else
        cr_assert_eq(info.reason, THAW_REASON_REQUEST, "%s: %s", what, info.detail);
    thaw_vm_free(vm);
}

/* --- Damaging --------------------------------------------------------------------------------- */

struct file {
    const char *name; /* within the snapshot */
    int fd;
    uint8_t *bytes;
    size_t count;
};

static void open_file(struct file *file, const char *name)
{
    char path[160];
    struct stat st;
    *file = (struct file){.name = name};
    snprintf(path, sizeof(path), "%s/snapshots/%s/%s", snapshots.path, id, name);
    file->fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(file->fd >= 0 && fstat(file->fd, &st) == 0, "%s", path);
    file->count = (size_t)st.st_size;
    file->bytes = malloc(file->count);
    cr_assert_eq(pread(file->fd, file->bytes, file->count, 0), st.st_size);
}

static void close_file(struct file *file)
{
    struct thaw_error error;
    cr_assert_eq(pwrite(file->fd, file->bytes, file->count, 0), (ssize_t)file->count);
    close(file->fd);
    free(file->bytes);
    cr_assert_eq(snapshots_verify(&snapshots, "s", &error), 0, "%s", error.message);
}

/* A pack goes by its id, the manifest is just that. */
static bool is_named(const char *message, const char *file)
{
    const char *slash = strchr(file, '/');
    return strstr(message, strcmp(file, "manifest.json") == 0 ? "manifest"
                           : slash                            ? slash + 1
                                                              : file);
}

/* Where verify says that the damage is, if it does: a pack's frame begins there, other files are
 * damaged up to there. */
static void check_offset(const struct file *file, const char *message, size_t off, const char *what)
{
    const char *found = strstr(message, "offset ");
    const char *to = found ? strstr(found, " to ") : NULL;
    if (strcmp(file->name, "manifest.json") == 0)
        return;
    cr_assert(found || strchr(file->name, '/'), "%s: %s", what, message);
    if (!found)
        return;
    offsets_told++;
    size_t first = strtoul(found + strlen("offset "), NULL, 10);
    size_t end = to ? strtoul(to + strlen(" to "), NULL, 10) : first + FRAME_BYTES_MAX;
    cr_assert(off >= first && off < end, "%s: %s", what, message);
}

/* The file is damaged now. A manifest may say the same with other white space. */
static void check(struct file *file, const char *how, size_t off)
{
    struct thaw_error error = {0};
    char what[96];
    snprintf(what, sizeof(what), "%s %s %zu", file->name, how, off);
    int r = snapshots_verify(&snapshots, id, &error);
    if (r < 0) {
        cr_assert(is_named(error.message, file->name), "%s: %s", what, error.message);
        if (strcmp(how, "flipped at") == 0)
            check_offset(file, error.message, off, what);
    } else {
        harmless++;
        cr_assert_str_eq(file->name, "manifest.json", "%s is not found", what);
    }
    unsigned turn = damages++ % 3;
    if (turn == 2)
        restore_and_run(what);
    else
        restore_and_compare(turn ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER, what);
}

static void flip(struct file *file, size_t off, unsigned bit)
{
    uint8_t byte = (uint8_t)(file->bytes[off] ^ 1u << bit);
    cr_assert_eq(pwrite(file->fd, &byte, 1, (off_t)off), 1);
    check(file, "flipped at", off);
    cr_assert_eq(pwrite(file->fd, &file->bytes[off], 1, (off_t)off), 1);
}

static void flip_all(struct file *file)
{
    uint32_t x = 1;
    for (size_t off = 0; off < file->count; off += STRETCH) {
        size_t stretch = file->count - off < STRETCH ? file->count - off : STRETCH;
        x = x * 1664525 + 1013904223;
        flip(file, off + (x >> 8) % stretch, x >> 29);
    }
    flip(file, 0, 0);
    flip(file, file->count - 1, 7);
}

static void cut_at(struct file *file, size_t bytes)
{
    cr_assert_eq(ftruncate(file->fd, (off_t)bytes), 0);
    check(file, "cut off at", bytes);
}

/* From the end to the beginning: what was cut off need not be written again each time. */
static void cut_everywhere(struct file *file)
{
    cut_at(file, file->count - 1);
    for (size_t at = (file->count - 1) / STRETCH * STRETCH;; at -= STRETCH) {
        cut_at(file, at);
        if (at == 0)
            break;
    }
}

static void make_longer(struct file *file)
{
    cr_assert_eq(pwrite(file->fd, "x", 1, (off_t)file->count), 1);
    check(file, "longer than", file->count);
    cr_assert_eq(ftruncate(file->fd, (off_t)file->count), 0);
}

static void damage(const char *name)
{
    struct file file;
    pthread_mutex_init(&watched.lock, NULL);
    open_file(&file, name);
    flip_all(&file);
    make_longer(&file);
    cut_everywhere(&file);
    close_file(&file);
    pthread_mutex_destroy(&watched.lock);
}

/* One pack: nothing else was written. */
static const char *pack_name(void)
{
    static char name[6 + 33];
    char command[160];
    snprintf(command, sizeof(command), "ls %s/snapshots/%s/packs", snapshots.path, id);
    FILE *list = popen(command, "r");
    strcpy(name, "packs/");
    cr_assert_eq(fread(name + 6, 1, 32, list), 32);
    pclose(list);
    return name;
}

Test(damage, manifest)
{
    damage("manifest.json");
    cr_assert_lt(harmless * 10, damages, "%u of %u", harmless, damages);
}

Test(damage, state)
{
    damage("vmstate");
}

Test(damage, index_of_memory)
{
    damage("ram.index");
}

Test(damage, index_of_a_disk)
{
    damage("disk0.index");
}

Test(damage, pack)
{
    damage(pack_name());
    cr_assert_gt(not_restored, 100);
    cr_assert_gt(offsets_told, 100);
    cr_assert_gt(memory_failed, 10, "%u of %u damages were met lazily", memory_failed, damages);
}

/* A snapshot that lacks a file, or has one of another kind in its place. */
Test(damage, files_that_are_missing_or_no_files)
{
    static const char *const names[] = {"manifest.json", "vmstate", "ram.index", "disk0.index"};
    struct thaw_error error;
    for (size_t i = 0; i < 5; i++) {
        const char *name = i < 4 ? names[i] : pack_name();
        char path[160], aside[160];
        snprintf(path, sizeof(path), "%s/snapshots/%s/%s", snapshots.path, id, name);
        snprintf(aside, sizeof(aside), "%s/aside", snapshots.path);
        cr_assert_eq(rename(path, aside), 0);
        for (unsigned kind = 0; kind < 4; kind++) {
            cr_assert(kind == 0 || (kind == 1 && mkdir(path, 0700) == 0) ||
                      (kind == 2 && symlink(aside, path) == 0) ||
                      (kind == 3 && mkfifo(path, 0600) == 0));
            cr_assert_lt(snapshots_verify(&snapshots, id, &error), 0, "%s, kind %u", name, kind);
            cr_assert(is_named(error.message, name), "%s: %s", name, error.message);
            cr_assert_null(restore(THAW_RESTORE_EAGER, name));
            remove(path);
        }
        cr_assert_eq(rename(aside, path), 0);
        cr_assert_eq(snapshots_verify(&snapshots, id, &error), 0, "%s", error.message);
    }
}
