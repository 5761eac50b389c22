// SPDX-License-Identifier: Apache-2.0
// What a restore may put in the place of what was saved, and what it draws anew.

#include "guest.h"
#include "snapshots.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES (1 << 20)

static struct snapshots snapshots;
static char base[80], moved[80];

static void make_disk(const char *path, off_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

static void set_up(void)
{
    static struct guest source;
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    snapshots_init(&snapshots);
    snprintf(base, sizeof(base), "%s.base", snapshots.path);
    snprintf(moved, sizeof(moved), "%s.moved", snapshots.path);
    make_disk(base, DISK_BYTES);
    guest_new(&source, (struct thaw_vm_options){.name = "source",
                           .kernel_path = "blkpattern",
                           .cmdline = "blocks=8 stride=3 loop=1",
                           .mem_bytes = 16 << 20,
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 3 ", 0);
    snapshots_take(&snapshots, source.vm, "s", 0);
    guest_free(&source);
}

static void clean_up(void)
{
    unlink(base);
    unlink(moved);
    snapshots_fini(&snapshots);
}

TestSuite(overrides, .init = set_up, .fini = clean_up);

/* The guest checks that its disk has what it wrote there. */
static void goes_on(const char *name, const struct thaw_disk_override *disk)
{
    static struct guest clone;
    struct thaw_error error;
    guest_restore(&clone, snapshots.store,
        (struct thaw_restore_options){.disks = disk, .disk_count = disk ? 1 : 0}, name);
    cr_assert_eq(thaw_vm_resume(clone.vm, &error), 0, "%s", error.message);
    size_t end = guest_expect(&clone, "generation ", 0);
    guest_expect(&clone, "generation ", end);
    guest_free(&clone);
}

static void is_refused(
    const char *name, const struct thaw_disk_override *disk, int code, const char *says)
{
    struct thaw_error error = {0};
    struct thaw_restore_options options = {
        .size = sizeof(options), .disks = disk, .disk_count = disk ? 1 : 0};
    thaw_env *env;
    thaw_vm *vm = NULL;
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    int r = thaw_restore(env, snapshots.store, name, &options, &vm, &error);
    cr_assert(code ? r == code : r < 0, "%d: %s", r, error.message);
    cr_assert(strstr(error.message, says), "%s", error.message);
    cr_assert_null(vm);
    thaw_env_free(env);
}

Test(overrides, a_disks_base_may_be_elsewhere)
{
    struct thaw_disk_override by_path = {.size = sizeof(by_path), .path = moved};
    struct thaw_disk_override by_fd = {.size = sizeof(by_fd)};
    goes_on("s", NULL);
    cr_assert_eq(rename(base, moved), 0);
    is_refused("s", NULL, -ENOENT, base);
    goes_on("s", &by_path);
    by_fd.fd = open(moved, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(by_fd.fd, 0);
    goes_on("s", &by_fd);
    close(by_fd.fd);
}

Test(overrides, a_base_that_is_another_or_not_there_is_refused)
{
    struct thaw_disk_override other = {.size = sizeof(other), .path = moved};
    struct thaw_disk_override second = {.size = sizeof(second), .index = 1, .path = base};
    is_refused("s", &other, -ENOENT, moved);
    make_disk(moved, DISK_BYTES * 2);
    is_refused("s", &other, 0, "disk 0");
    is_refused("s", &second, 0, "has no disk 1");
    /* Written to since then. */
    int fd = open(base, O_WRONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && pwrite(fd, "x", 1, 0) == 1);
    close(fd);
    is_refused("s", NULL, 0, "disk 0");
}

/* The VM goes on with the image that it opened, whatever its name leads to meanwhile. */
Test(overrides, a_base_that_was_replaced_while_the_vm_had_it_is_refused)
{
    static struct guest source;
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = base};
    struct thaw_disk_override kept = {.size = sizeof(kept), .path = moved};
    guest_new(&source, (struct thaw_vm_options){.kernel_path = "blkpattern",
                           .cmdline = "blocks=8 stride=3 loop=1",
                           .mem_bytes = 16 << 20,
                           .disks = &disk,
                           .disk_count = 1});
    guest_start(&source);
    guest_expect(&source, "generation 3 ", 0);
    cr_assert_eq(link(base, moved), 0);
    cr_assert_eq(unlink(base), 0);
    make_disk(base, DISK_BYTES);
    snapshots_take(&snapshots, source.vm, "replaced", 0);
    guest_free(&source);
    is_refused("replaced", NULL, THAW_EIMAGE, "disk 0");
    goes_on("replaced", &kept);
    cr_assert_eq(rename(moved, base), 0);
    goes_on("replaced", NULL);
}

Test(overrides, a_base_that_was_written_to_while_the_vm_had_it_is_refused)
{
    static struct guest clone;
    guest_restore(&clone, snapshots.store, (struct thaw_restore_options){0}, "s");
    int fd = open(base, O_WRONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && pwrite(fd, "x", 1, 0) == 1);
    close(fd);
    snapshots_take(&snapshots, clone.vm, "written", 0);
    guest_free(&clone);
    is_refused("written", NULL, THAW_EIMAGE, "disk 0");
}

Test(overrides, each_clone_has_a_generation_id_of_its_own)
{
    static struct guest clones[3];
    uint8_t ids[3][16];
    for (unsigned i = 0; i < 3; i++) {
        guest_restore(&clones[i], snapshots.store,
            (struct thaw_restore_options){.mode = i % 2 ? THAW_RESTORE_EAGER : THAW_RESTORE_LAZY},
            "s");
        cr_assert_eq(mem_read(&clones[i].vm->mem, MACHINE_VMGENID_GPA, ids[i], 16), 0);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(memcmp(ids[i], ids[j], 16), 0, "clones %u and %u", j, i);
    }
    for (unsigned i = 0; i < 3; i++)
        guest_free(&clones[i]);
}
