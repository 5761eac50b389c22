// SPDX-License-Identifier: Apache-2.0
// The disk of the store is full at any point of a snapshot: it fails and says why, the guest goes
// on, and when there is room again the next diff is complete.

#include "kvm/guest.h"
#include "kvm/snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCK 4096u

static struct snapshots snapshots;
static char filler[80];

/* A small file system of its own over the store's directory, which ends with this process. */
static void set_up(void)
{
    snapshots_init(&snapshots);
    thaw_store_close(snapshots.store);
    snapshots.store = NULL;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", snapshots.path, "tmpfs", 0, "size=4m") < 0) {
        int err = errno;
        cr_skip_test("a file system of a certain size cannot be mounted: %s", strerror(err));
    }
    snapshots_reopen(&snapshots);
    snprintf(filler, sizeof(filler), "%s/filler", snapshots.path);
}

static void clean_up(void)
{
    thaw_store_close(snapshots.store);
    umount2(snapshots.path, MNT_DETACH);
    rmdir(snapshots.path);
}

TestSuite(snapshot_full, .init = set_up, .fini = clean_up);

/* Leaves so many blocks free. */
static void fill_up(unsigned blocks)
{
    static const char zeros[BLOCK];
    struct statvfs st;
    int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    while (statvfs(snapshots.path, &st) == 0 && st.f_bfree > blocks)
        cr_assert_eq(write(fd, zeros, BLOCK), BLOCK);
    close(fd);
}

static void get_on(struct guest *guest)
{
    guest_expect(guest, "tick ", guest_console_count(guest));
}

/* A diff of a paused VM must hold all that the failed one would have. The one before may go. */
static void check_next(struct guest *source, unsigned number)
{
    static struct guest copy;
    struct thaw_error error;
    char name[16];
    snprintf(name, sizeof(name), "d%u", number);
    cr_assert_eq(thaw_vm_pause(source->vm, NULL), 0);
    uint8_t *memory = snapshots_copy_memory(source->vm);
    snapshots_take(&snapshots, source->vm, name, THAW_SNAPSHOT_DIFF);
    guest_restore(
        &copy, snapshots.store, (struct thaw_restore_options){.mode = THAW_RESTORE_EAGER}, name);
    cr_assert_eq(snapshots_compare_memory(copy.vm, memory), 0, "%s", name);
    guest_free(&copy);
    free(memory);
    cr_assert_eq(thaw_vm_resume(source->vm, NULL), 0);
    snprintf(name, sizeof(name), "d%u", number - 1);
    cr_assert_eq(thaw_store_delete(snapshots.store, name, &error), 0, "%s", error.message);
}

static bool fits(struct guest *source, unsigned blocks, uint32_t flags)
{
    struct thaw_error error;
    char when[32];
    snprintf(when, sizeof(when), "with %u blocks", blocks);
    fill_up(blocks);
    int r = snapshots_try(&snapshots, source->vm, "new", flags, &error);
    cr_assert_eq(guest_info(source).state, THAW_VM_RUNNING, "%s", when);
    get_on(source);
    if (r < 0) {
        cr_assert_eq(r, -ENOSPC, "%s: %s", when, error.message);
        cr_assert(strstr(error.message, "No space left"), "%s: %s", when, error.message);
    }
    cr_assert_eq(unlink(filler), 0);
    cr_assert_eq(thaw_store_recover(snapshots.store, NULL, &error), 0, "%s", error.message);
    cr_assert_eq(snapshots_check_store(&snapshots, when), 1u + (r == 0), "%s", when);
    return r == 0;
}

/* More and more room, until it is enough. */
static void until_it_fits(uint32_t flags)
{
    static struct guest source;
    unsigned blocks = 0;
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "tick",
                           .cmdline = "interval=300000",
                           .mem_bytes = 16 << 20});
    guest_start(&source);
    get_on(&source);
    snapshots_take(&snapshots, source.vm, "d0", 0);
    while (!fits(&source, blocks, flags))
        check_next(&source, ++blocks);
    cr_assert_gt(blocks, 4);
    guest_free(&source);
}

Test(snapshot_full, diff)
{
    until_it_fits(THAW_SNAPSHOT_DIFF);
}

Test(snapshot_full, full)
{
    until_it_fits(THAW_SNAPSHOT_FULL);
}
