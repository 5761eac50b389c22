// SPDX-License-Identifier: Apache-2.0
// A process that takes, flattens and deletes snapshots of a running VM is killed at any moment:
// what it left READY is whole and can be restored, and recovery clears away the rest.

#include "kvm/guest.h"
#include "kvm/snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLS 200
#define RESTORE_STEP                                                                               \
    10 /* of the stores left behind, one in so many has a snapshot restored and run */
#define DELAY_US_MAX 60000

static struct snapshots snapshots;
static char disk_path[72];
static int
    progress[2]; /* the child tells when it has begun, and of each snapshot that is durable */

static void set_up(void)
{
    thaw_env *env;
    struct thaw_error error;
    int r = thaw_env_new(NULL, &env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0, "%s", error.message);
    thaw_env_free(env);
    snapshots_init(&snapshots);
    snprintf(disk_path, sizeof(disk_path), "%s.disk", snapshots.path);
    FILE *disk = fopen(disk_path, "w");
    cr_assert(disk && ftruncate(fileno(disk), 1 << 20) == 0);
    fclose(disk);
}

static void clean_up(void)
{
    snapshots_fini(&snapshots);
    unlink(disk_path);
}

TestSuite(snapshot_kill, .init = set_up, .fini = clean_up);

/* --- The child -------------------------------------------------------------------------------- */

static void tell(char what)
{
    if (write(progress[1], &what, 1) != 1)
        _exit(1);
}

/* Failures do not matter here: whoever is killed tells nobody. */
static void take(thaw_vm *vm, const char *name, uint32_t flags)
{
    if (snapshots_try(&snapshots, vm, name, flags, NULL) == 0)
        tell('s');
}

static void flatten(const char *ref, const char *name)
{
    thaw_job *job = NULL;
    int r = thaw_snapshot_flatten(snapshots.store, ref, name, &job, NULL);
    snapshots_wait(r, job, NULL);
}

/* A chain of diffs whose ancestors go, with a full and a flat one now and then. */
static _Noreturn void work(unsigned seed)
{
    thaw_env *env;
    thaw_vm *vm;
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = disk_path};
    struct thaw_vm_options options = {
        .size = sizeof(options),
        .name = "source",
        .kernel_path = guest_path("blkpattern"),
        .cmdline = "blocks=2 stride=3 loop=1",
        .mem_bytes = 16 << 20,
        .disks = &disk,
        .disk_count = 1,
    };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snapshots_reopen(&snapshots);
    if (thaw_env_new(NULL, &env, NULL) < 0 || thaw_vm_new(env, &options, &vm, NULL) < 0 ||
        thaw_vm_start(vm, NULL) < 0)
        _exit(1);
    tell('b');
    for (unsigned i = 0;; i++) {
        char name[32], other[32];
        snprintf(name, sizeof(name), "k%u-%u", seed, i);
        take(vm, name, i % 4 == 3 ? THAW_SNAPSHOT_FULL : 0);
        snprintf(other, sizeof(other), "k%u-%u", seed, i - 1);
        if (i % 3 == 2) {
            snprintf(name, sizeof(name), "flat%u-%u", seed, i);
            flatten(other, name);
        }
        if (i > 0)
            thaw_store_delete(snapshots.store, other, NULL);
    }
}

/* --- The parent ------------------------------------------------------------------------------- */

static unsigned done_told(int fd)
{
    char told[256];
    ssize_t n = read(fd, told, sizeof(told));
    unsigned count = 0;
    for (ssize_t i = 0; i < n; i++)
        count += told[i] == 's';
    return count;
}

/* Returns how many snapshots the child knew to be durable. */
static unsigned let_live(unsigned seed, unsigned delay_us)
{
    char begun;
    int status;
    cr_assert_eq(pipe(progress), 0);
    pid_t child = fork();
    if (child == 0)
        work(seed);
    close(progress[1]);
    cr_assert_eq(read(progress[0], &begun, 1), 1, "the child could not begin");
    usleep(delay_us);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status), "the child ended by itself: %x", status);
    unsigned count = done_told(progress[0]);
    close(progress[0]);
    return count;
}

static void restore_and_run(const char *name, const char *when)
{
    struct thaw_error error;
    thaw_env *env;
    thaw_vm *vm;
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    int r = thaw_restore(env, snapshots.store, name, NULL, &vm, &error);
    cr_assert_eq(r, 0, "%s: %s", when, error.message);
    cr_assert_eq(thaw_vm_resume(vm, &error), 0, "%s", error.message);
    for (unsigned i = 0; i < GUEST_TIMEOUT_MS && info.mark_count < 2; i++) {
        thaw_vm_wait(vm, 1);
        thaw_vm_get_info(vm, &info);
        cr_assert_eq(info.state, THAW_VM_RUNNING, "%s: %s: %s", when, name, info.detail);
    }
    cr_assert_geq(info.mark_count, 2, "%s: the guest hangs", when);
    thaw_vm_free(vm);
    thaw_env_free(env);
}

/* Looks at what is there, restores the newest if told to, and deletes all. */
static unsigned consume(bool run, const char *when)
{
    struct thaw_error error;
    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_list(snapshots.store, NULL, &list, &error), 0, "%s", error.message);
    unsigned ready = 0;
    for (size_t i = 0; i < thaw_snapshot_list_count(list); i++) {
        const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, i);
        if (info->state == THAW_SNAPSHOT_READY && ready++ == 0 && run)
            restore_and_run(info->name, when);
        int r = thaw_store_delete(snapshots.store, info->id, &error);
        cr_assert_eq(r, 0, "%s: %s", when, error.message);
    }
    thaw_snapshot_list_free(list);
    cr_assert_eq(snapshots_count(&snapshots, "users"), 0, "%s", when);
    return ready;
}

Test(snapshot_kill, at_any_moment, .timeout = 300)
{
    uint32_t x = 20;
    unsigned with_some = 0;
    for (unsigned i = 0; i < KILLS; i++) {
        char when[64];
        x = x * 1664525 + 1013904223;
        unsigned delay_us = (x >> 8) % DELAY_US_MAX;
        snprintf(when, sizeof(when), "kill %u after %u us", i, delay_us);
        unsigned told = let_live(i, delay_us);
        snapshots_reopen(&snapshots);
        unsigned ready = snapshots_check_store(&snapshots, when);
        cr_assert(ready > 0 || told == 0, "%s: a snapshot that was durable is lost", when);
        with_some += consume(i % RESTORE_STEP == 0, when) > 0;
    }
    cr_assert_gt(with_some, KILLS / 4, "%u: the child was killed too early", with_some);
}
