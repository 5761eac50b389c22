// SPDX-License-Identifier: Apache-2.0
// Every system call and allocation that snapshots need, made to fail once: the store has what it
// had or what was asked for, the VM goes on, its next snapshot is complete, and nothing is left
// behind.

#include "fault.h"
#include "kvm/guest.h"
#include "kvm/snapshots.h"
#include "machine.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* How often what takes long is looked at. */
#define LOOK_INTERVAL 32 /* everything in the store */
#define RUN_INTERVAL  8  /* whether a guest gets on: it runs slowly where KVM emulates it */
#define MEM_BYTES     (16u << 20)
#define SOURCE_RUNS   64 /* snapshots of one VM */

static struct snapshots snapshots; /* has the snapshots "base", and "diff", which shares its data */
static char disk_path[72];
static thaw_env *env;
static uint8_t *base_memory;

static thaw_vm *new_vm(const char *guest, const char *cmdline)
{
    struct thaw_error error;
    thaw_vm *vm = NULL;
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = disk_path};
    struct thaw_vm_options options = {
        .size = sizeof(options),
        .name = "source",
        .kernel_path = guest_path(guest),
        .cmdline = cmdline,
        .mem_bytes = MEM_BYTES,
        .disks = &disk,
        .disk_count = 1,
    };
    cr_assert_eq(thaw_vm_new(env, &options, &vm, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_vm_start(vm, &error), 0, "%s", error.message);
    return vm;
}

static thaw_vm *restore(const char *name)
{
    struct thaw_error error;
    thaw_vm *vm = NULL;
    struct thaw_restore_options options = {.size = sizeof(options), .mode = THAW_RESTORE_EAGER};
    int r = thaw_restore(env, snapshots.store, name, &options, &vm, &error);
    cr_assert_eq(r, 0, "%s: %s: %s", fault_hit(), name, error.message);
    return vm;
}

static struct thaw_vm_info info_of(thaw_vm *vm)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_get_info(vm, &info), 0);
    return info;
}

/* Waits until the guest has got further. Small guests compare their disk with what they wrote. */
static void get_on(thaw_vm *vm)
{
    uint64_t from = info_of(vm).mark_count;
    cr_assert_eq(thaw_vm_resume(vm, NULL), 0, "%s: %s", fault_hit(), info_of(vm).detail);
    for (unsigned i = 0; info_of(vm).mark_count == from; i++) {
        cr_assert_eq(info_of(vm).state, THAW_VM_RUNNING, "%s: %s", fault_hit(), info_of(vm).detail);
        cr_assert_lt(i, 10 * GUEST_TIMEOUT_MS, "%s: the guest hangs", fault_hit());
        usleep(100);
    }
}

static void set_up(void)
{
    struct thaw_error error;
    fault_few_cpuid();
    int r = thaw_env_new(NULL, &env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0, "%s", error.message);
    snapshots_init(&snapshots);
    snprintf(disk_path, sizeof(disk_path), "%s.disk", snapshots.path);
    FILE *disk = fopen(disk_path, "w");
    cr_assert(disk && ftruncate(fileno(disk), 1 << 20) == 0);
    fclose(disk);
    thaw_vm *vm = new_vm("blkpattern", "blocks=2 stride=3 loop=1");
    get_on(vm);
    cr_assert_eq(thaw_vm_pause(vm, NULL), 0);
    snapshots_take(&snapshots, vm, "base", 0);
    base_memory = snapshots_copy_memory(vm);
    get_on(vm);
    snapshots_take(&snapshots, vm, "diff", THAW_SNAPSHOT_DIFF);
    thaw_vm_free(vm);
    fault_forbid_uring(); /* writes that can be made to fail */
}

static void clean_up(void)
{
    free(base_memory);
    snapshots_fini(&snapshots);
    unlink(disk_path);
    thaw_env_free(env);
}

TestSuite(snapshot_faults, .init = set_up, .fini = clean_up);

/* --- The store afterwards --------------------------------------------------------------------- */

static bool is_kept(const struct thaw_snapshot_info *info)
{
    return info->state == THAW_SNAPSHOT_READY &&
           (strcmp(info->name, "base") == 0 || strcmp(info->name, "diff") == 0);
}

static void delete_the_others(void)
{
    struct thaw_error error;
    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_list(snapshots.store, NULL, &list, &error), 0, "%s", error.message);
    for (size_t i = 0; i < thaw_snapshot_list_count(list); i++) {
        const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, i);
        if (is_kept(info))
            continue;
        int r = thaw_store_delete(snapshots.store, info->id, &error);
        cr_assert_eq(r, 0, "%s: %s", fault_hit(), error.message);
    }
    thaw_snapshot_list_free(list);
}

/* Recovers the store, and looks whether a snapshot is in it exactly if it should be. All of the
 * store is looked at now and then only: what is wrong in it remains so. */
static void check_store(const char *name, bool wanted)
{
    static unsigned checks;
    struct thaw_error error;
    thaw_snapshot_list *list;
    const char *hit = fault_hit() ? fault_hit() : "nothing";
    int r = thaw_store_recover(snapshots.store, NULL, &error);
    cr_assert_eq(r, 0, "%s: %s", hit, error.message);
    cr_assert_eq(snapshots_count(&snapshots, "names"), 2u + wanted, "%s", hit);
    cr_assert_eq(snapshots_count(&snapshots, "creating"), 0, "%s", hit);
    cr_assert_eq(snapshots_count(&snapshots, "trash"), 0, "%s", hit);
    r = thaw_store_find(snapshots.store, name, &list, &error);
    cr_assert_eq(r, wanted ? 0 : -ENOENT, "%s: %s", hit, error.message);
    if (r == 0)
        thaw_snapshot_list_free(list);
    if (checks++ % LOOK_INTERVAL == 0 || wanted)
        cr_assert_eq(snapshots_check_store(&snapshots, hit), 2u + wanted, "%s", hit);
}

/* Records of failures may pile up for a while. */
static void tidy_up(bool now)
{
    static unsigned calls;
    if (now || ++calls % LOOK_INTERVAL == 0)
        delete_the_others();
}

/* --- Taking snapshots ------------------------------------------------------------------------- */

/* What it is taken of: a VM that was booted with this guest, or if NULL a clone of "base". */
static struct {
    const char *guest, *cmdline;
    uint32_t flags;
    bool paused;
} plan;

/* One VM meets many failures, so that what one of them takes from it is missing in the end. */
static thaw_vm *source;
static unsigned source_runs;

static void make_source(void)
{
    source = plan.guest ? new_vm(plan.guest, plan.cmdline) : restore("base");
    source_runs = 0;
    get_on(source);
    if (plan.paused)
        cr_assert_eq(thaw_vm_pause(source, NULL), 0);
}

/* The VM is as it was. */
static void check_source(void)
{
    struct thaw_vm_info info = info_of(source);
    cr_assert_eq(info.state, plan.paused ? THAW_VM_PAUSED : THAW_VM_RUNNING, "%s: %s, %s",
        fault_hit(), thaw_vm_state_name(info.state), info.detail);
    if (!plan.paused && source_runs % RUN_INTERVAL == 0)
        get_on(source);
}

static void digest_memory(thaw_vm *vm, char ret[THAW_DIGEST_BYTES])
{
    struct thaw_error error;
    int r = thaw_vm_memory_digest(vm, ret, &error);
    cr_assert_eq(r, 0, "%s: %s", fault_hit(), error.message);
}

/* As thaw_vm_memory_digest, without a VM: making and freeing one is mostly waiting. */
static void digest_image(const char *name, char ret[THAW_DIGEST_BYTES])
{
    static uint8_t memory[MEM_BYTES];
    struct thaw_error error;
    struct thaw_image_options options = {.size = sizeof(options), .mode = THAW_RESTORE_EAGER};
    thaw_image *image;
    int r = thaw_image_open(env, snapshots.store, name, NULL, &options, &image, &error);
    cr_assert_eq(r, 0, "%s: %s: %s", fault_hit(), name, error.message);
    int fd = thaw_image_memory_fd(image, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    cr_assert_eq(pread(fd, memory, sizeof(memory), 0), (ssize_t)sizeof(memory));
    thaw_image_close(image);
    memset(memory + MACHINE_VMGENID_GPA, 0, 16);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(memory, sizeof(memory)));
    strcpy(ret, "xxh3-128:");
    for (size_t i = 0; i < sizeof(hash.digest); i++)
        snprintf(ret + 9 + 2 * i, 3, "%02x", hash.digest[i]);
}

static void check_copy(const char *name, const char *wanted)
{
    char digest[THAW_DIGEST_BYTES];
    digest_image(name, digest);
    cr_assert_str_eq(digest, wanted, "%u runs until %s failed: snapshot %s is wrong", source_runs,
        fault_hit(), name);
}

static void run_copy(const char *name)
{
    thaw_vm *copy = restore(name);
    get_on(copy);
    thaw_vm_free(copy);
}

/* Its next snapshot is all of it, as is the one that it was taken of in spite of a failure. */
static void end_source(bool taken)
{
    static unsigned ends;
    bool run = ends++ % RUN_INTERVAL == 0;
    struct thaw_error error;
    cr_assert_eq(thaw_vm_pause(source, NULL), 0);
    char digest[THAW_DIGEST_BYTES];
    digest_memory(source, digest);
    int r = snapshots_try(&snapshots, source, "next", 0, &error);
    cr_assert_eq(r, 0, "%s: %s", fault_hit(), error.message);
    check_copy("next", digest);
    if (taken && plan.paused)
        check_copy("new", digest);
    if (run) {
        run_copy("next");
        get_on(source);
    }
    thaw_vm_free(source);
}

static int try_snapshot(thaw_vm *vm)
{
    struct thaw_error error = {0};
    thaw_job *job = NULL;
    struct thaw_snapshot_options options = {
        .size = sizeof(options), .name = "new", .flags = plan.flags, .threads = 1};
    int r = thaw_vm_snapshot(vm, snapshots.store, &options, &job, &error);
    if (fault_failed("starting a snapshot", r, &error))
        return r;
    r = thaw_job_wait(job, -1, &error);
    fault_failed("a snapshot", r, &error);
    thaw_job_free(job);
    return r;
}

static void take(void)
{
    int r = try_snapshot(source);
    fault_suspend(true);
    source_runs++;
    check_store("new", r == 0);
    check_source();
    bool last = r == 0 || source_runs == SOURCE_RUNS;
    if (last) {
        end_source(r == 0);
        make_source();
    }
    tidy_up(last);
    fault_suspend(false);
}

static void every_call(void (*run)(void), unsigned at_least)
{
    const struct fault_scenario scenario = {.side = FAULT_ALL, .run = run};
    unsigned calls = fault_for_every_call(&scenario);
    fprintf(stderr, "# %u calls\n", calls);
    cr_assert_gt(calls, at_least, "%u", calls);
}

static void every_call_of_taking(void)
{
    make_source();
    every_call(take, 500);
    thaw_vm_free(source);
}

Test(snapshot_faults, first_snapshot_of_a_running_vm)
{
    plan.guest = "tick";
    plan.cmdline = "interval=300000";
    every_call_of_taking();
}

Test(snapshot_faults, first_snapshot_of_a_paused_vm_with_a_disk)
{
    plan.guest = "blkpattern";
    plan.cmdline = "blocks=2 stride=3 loop=1";
    plan.paused = true;
    every_call_of_taking();
}

Test(snapshot_faults, diff_of_a_clone)
{
    plan.paused = true;
    every_call_of_taking();
}

Test(snapshot_faults, full_snapshot_of_a_clone)
{
    plan.flags = THAW_SNAPSHOT_FULL;
    plan.paused = true;
    every_call_of_taking();
}

/* --- Restoring -------------------------------------------------------------------------------- */

static uint32_t restore_flags = THAW_RESTORE_NO_PREFETCH; /* else so little is read whole */

static bool try_restore(enum thaw_restore_mode mode, thaw_vm **ret)
{
    struct thaw_error error = {0};
    struct thaw_restore_options options = {
        .size = sizeof(options), .mode = mode, .flags = restore_flags};
    int r = thaw_restore(env, snapshots.store, "base", &options, ret, &error);
    return !fault_failed("restoring", r, &error);
}

/* The clone has ended, if it has, for want of memory or of its disk, and not without a fault. */
static void check_clone(thaw_vm *vm)
{
    struct thaw_vm_info info = info_of(vm);
    if (info.state == THAW_VM_RUNNING || info.state == THAW_VM_PAUSED)
        return;
    cr_assert(fault_hit(), "%s", info.detail);
    cr_assert(
        info.reason == THAW_REASON_MEMORY || (info.reason == THAW_REASON_EXIT && info.exit_status),
        "%s: %s", fault_hit(), info.detail);
}

static void restore_and_compare(enum thaw_restore_mode mode)
{
    thaw_vm *vm = NULL;
    if (!try_restore(mode, &vm)) {
        cr_assert_null(vm);
        return;
    }
    int64_t differs = snapshots_compare_memory(vm, base_memory);
    cr_assert_leq(differs, 0, "%s: page %d differs", fault_hit(), (int)differs - 1);
    fault_suspend(true);
    check_clone(vm);
    cr_assert_eq(info_of(vm).state, differs < 0 ? THAW_VM_FAILED : THAW_VM_PAUSED);
    cr_assert(differs == 0 || mode == THAW_RESTORE_LAZY, "an eager clone lacks memory");
    thaw_vm_free(vm);
    fault_suspend(false);
}

static void restore_eagerly(void)
{
    restore_and_compare(THAW_RESTORE_EAGER);
}

static void restore_lazily(void)
{
    restore_and_compare(THAW_RESTORE_LAZY);
}

static void restore_and_run(void)
{
    thaw_vm *vm = NULL;
    struct thaw_error error = {0};
    if (!try_restore(THAW_RESTORE_LAZY, &vm))
        return;
    bool waiting = thaw_vm_resume(vm, &error) == 0;
    for (unsigned i = 0; waiting && info_of(vm).mark_count < 1; i++) {
        cr_assert_lt(i, GUEST_TIMEOUT_MS / 10, "%s: the guest hangs: %s, %s", fault_hit(),
            thaw_vm_state_name(info_of(vm).state), info_of(vm).detail);
        waiting = thaw_vm_wait(vm, 1) < 0;
        if (info_of(vm).reason == THAW_REASON_DISK_FULL)
            thaw_vm_resume(vm, NULL); /* the one write that failed is tried again */
    }
    fault_suspend(true);
    check_clone(vm);
    thaw_vm_free(vm);
    fault_suspend(false);
}

static const struct fault_tolerated reset_tolerated[] = {
    {"ioctl KVM_IRQ_LINE", "can't fail for a line that exists"},
    {"ioctl KVM_KVMCLOCK_CTRL", "fails anyway in guests without kvmclock"},
    {"open O_TMPFILE", "a file system without it gets a named file"},
    {"mmap", "what can't be copied from the image is dropped"},
    {NULL, NULL},
};

static thaw_vm *subject; /* a clone whose overlay was written, so that there is one to be made */

/* Whatever fails, the clone is as it was, or as restored, or has failed: it does not run on as
 * anything else. */
static void reset_and_compare(void)
{
    struct thaw_error error = {0};
    fault_suspend(true);
    get_on(subject);
    cr_assert_eq(thaw_vm_pause(subject, NULL), 0);
    uint8_t *memory = snapshots_copy_memory(subject);
    fault_suspend(false);
    int r = thaw_vm_reset(subject, NULL, &error);
    bool failed = fault_failed("resetting", r, &error);
    fault_suspend(true);
    struct thaw_vm_info info = info_of(subject);
    if (info.state == THAW_VM_FAILED) {
        cr_assert(failed && strstr(info.detail, "could not be reset"), "%s: %s", fault_hit(),
            info.detail);
    } else {
        cr_assert_eq(info.state, THAW_VM_PAUSED, "%s", fault_hit());
        cr_assert_eq(
            snapshots_compare_memory(subject, failed ? memory : base_memory), 0, "%s", fault_hit());
    }
    free(memory);
    r = thaw_vm_reset(subject, NULL, &error);
    cr_assert_eq(r, 0, "%s: %s", fault_hit(), error.message);
    cr_assert_eq(snapshots_compare_memory(subject, base_memory), 0, "%s", fault_hit());
    fault_suspend(false);
}

Test(snapshot_faults, resetting)
{
    subject = restore("base");
    const struct fault_scenario scenario = {
        .run = reset_and_compare, .side = FAULT_CALLER, .tolerated = reset_tolerated};
    cr_assert_gt(fault_for_every_call(&scenario), 20);
    thaw_vm_free(subject);
}

Test(snapshot_faults, restoring_eagerly)
{
    every_call(restore_eagerly, 100);
}

Test(snapshot_faults, restoring_lazily)
{
    every_call(restore_lazily, 100);
}

Test(snapshot_faults, restoring_what_is_small)
{
    restore_flags = 0;
    every_call(restore_lazily, 100);
}

Test(snapshot_faults, running_a_lazy_clone)
{
    every_call(restore_and_run, 100);
}

/* --- Working sets ----------------------------------------------------------------------------- */

/* All memory is touched: half of it is recorded, the rest is read as ever. */
static void record(void)
{
    thaw_vm *vm = NULL;
    struct thaw_error error = {0};
    struct thaw_recording recording = {.size = sizeof(recording)};
    restore_flags = THAW_RESTORE_RECORD;
    if (!try_restore(THAW_RESTORE_LAZY, &vm))
        return;
    int64_t differs = snapshots_compare_memory(vm, base_memory);
    cr_assert_leq(differs, 0, "%s: page %d differs", fault_hit(), (int)differs - 1);
    bool failed = fault_failed("recording", thaw_vm_record_end(vm, &recording, &error), &error);
    fault_suspend(true);
    check_clone(vm);
    thaw_vm_free(vm);
    cr_assert_leq(snapshots_count(&snapshots, "hot"), 1, "%s", fault_hit());
    cr_assert(failed || recording.pages == 0 || snapshots_count(&snapshots, "hot") == 1, "%s",
        fault_hit());
    restore_flags = 0;
    cr_assert(try_restore(THAW_RESTORE_LAZY, &vm));
    cr_assert_eq(snapshots_compare_memory(vm, base_memory), 0, "%s", fault_hit());
    thaw_vm_free(vm);
    fault_suspend(false);
}

Test(snapshot_faults, recording_a_working_set)
{
    every_call(record, 100);
}

Test(snapshot_faults, restoring_with_a_working_set)
{
    record();
    cr_assert_eq(snapshots_count(&snapshots, "hot"), 1);
    every_call(restore_lazily, 100);
}

/* --- Looking after snapshots ------------------------------------------------------------------ */

static int try_flatten(const char *ref, const char *name)
{
    struct thaw_error error = {0};
    thaw_job *job = NULL;
    int r = thaw_snapshot_flatten(snapshots.store, ref, name, &job, &error);
    if (fault_failed("starting to flatten", r, &error))
        return r;
    r = thaw_job_wait(job, -1, &error);
    fault_failed("flattening", r, &error);
    thaw_job_free(job);
    return r;
}

static void flatten(void)
{
    int r = try_flatten("diff", "new");
    fault_suspend(true);
    check_store("new", r == 0);
    tidy_up(r == 0);
    fault_suspend(false);
}

static bool is_ready(const char *name)
{
    thaw_snapshot_list *list;
    if (thaw_store_find(snapshots.store, name, &list, NULL) < 0)
        return false;
    bool ready = thaw_snapshot_list_get(list, 0)->state == THAW_SNAPSHOT_READY;
    thaw_snapshot_list_free(list);
    return ready;
}

/* One that could not be deleted is whole, or has gone all the same. */
static void delete (void)
{
    struct thaw_error error = {0};
    fault_suspend(true);
    cr_assert_eq(try_flatten("diff", "victim"), 0);
    fault_suspend(false);
    int r = thaw_store_delete(snapshots.store, "victim", &error);
    fault_failed("deleting", r, &error);
    fault_suspend(true);
    cr_assert(r < 0 || !is_ready("victim"), "%s", fault_hit());
    check_store("victim", is_ready("victim"));
    tidy_up(true);
    fault_suspend(false);
}

static void open_and_verify(void)
{
    struct thaw_error error = {0};
    thaw_store *store = NULL;
    thaw_job *job = NULL;
    struct thaw_store_options options = {.size = sizeof(options), .path = snapshots.path};
    int r = thaw_store_open(&options, &store, &error);
    if (fault_failed("opening the store", r, &error))
        return;
    r = thaw_snapshot_verify(store, "diff", &job, &error);
    if (!fault_failed("starting to verify", r, &error)) {
        fault_failed("verifying", thaw_job_wait(job, -1, &error), &error);
        thaw_job_free(job);
    }
    thaw_store_close(store);
}

static void inspect(void)
{
    static char *whole;
    struct thaw_error error = {0};
    char *text = NULL;
    int r = thaw_snapshot_inspect(snapshots.store, "diff", &text, &error);
    if (fault_failed("inspecting", r, &error))
        cr_assert_null(text);
    else if (whole)
        cr_assert_str_eq(text, whole, "%s failed, and something is left out", fault_hit());
    else
        whole = strdup(text);
    thaw_text_free(text);
}

Test(snapshot_faults, flattening)
{
    every_call(flatten, 300);
}

Test(snapshot_faults, deleting)
{
    every_call(delete, 20);
}

Test(snapshot_faults, opening_the_store_and_verifying)
{
    every_call(open_and_verify, 100);
}

Test(snapshot_faults, inspecting)
{
    every_call(inspect, 100);
}
