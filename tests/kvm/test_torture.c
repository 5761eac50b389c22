// SPDX-License-Identifier: Apache-2.0
// Clones and snapshots in random order: whatever happened, a snapshot's memory is what its VM had,
// and a clone's is its snapshot's. THAW_TORTURE_SEED and THAW_TORTURE_STEPS choose another, longer
// life.
#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VMS       4
#define SNAPSHOTS 6
#define STEPS     300
#define SECONDS   5 /* enough is enough */
#define MEM_BYTES (32ull << 20)

struct digest {
    char text[THAW_DIGEST_BYTES];
};

struct snapshot {
    char name[16]; /* "": there is none */
    struct digest digest;
};

struct clone {
    thaw_vm *vm; /* NULL: there is none */
    struct snapshot origin;
    bool running;
    bool recording;
};

static struct life {
    struct snapshots store;
    thaw_env *env;
    thaw_pool *pool;
    struct snapshot snapshots[SNAPSHOTS];
    struct clone clones[VMS];
    uint64_t seed, random;
    unsigned step, names;
    char what[160]; /* is being done */
} life;

static char data[] = "/tmp/thaw-torture-XXXXXX"; /* an initrd, or a disk */

#define expect(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            char why[512];                                                                         \
            snprintf(why, sizeof(why), __VA_ARGS__);                                               \
            cr_assert_fail("seed %llu, step %u: %s: %s", (unsigned long long)life.seed, life.step, \
                life.what, why);                                                                   \
        }                                                                                          \
    } while (0)

static uint32_t dice(uint32_t sides)
{
    life.random = life.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(life.random >> 33) % sides;
}

static struct digest digest_of(thaw_vm *vm)
{
    struct thaw_error error = {0};
    struct digest digest;
    int r = thaw_vm_memory_digest(vm, digest.text, &error);
    expect(r == 0, "%s", error.message);
    return digest;
}

static void expect_digest(thaw_vm *vm, const struct snapshot *snapshot)
{
    struct digest digest = digest_of(vm);
    expect(strcmp(digest.text, snapshot->digest.text) == 0, "memory is not that of %s",
        snapshot->name);
}

/* The guest checks what it finds in its memory, and ends if that is wrong. */
static void expect_alive(const struct clone *clone)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    thaw_vm_get_info(clone->vm, &info);
    expect(info.state == (clone->running ? THAW_VM_RUNNING : THAW_VM_PAUSED), "a clone is %s: %s",
        thaw_vm_state_name(info.state), info.detail);
}

/* --- What can happen -------------------------------------------------------------------------- */

static void run(struct clone *clone)
{
    struct thaw_error error = {0};
    int r = thaw_vm_resume(clone->vm, &error);
    expect(r == 0, "%s", error.message);
    clone->running = true;
    usleep(dice(20000));
}

static void hold(struct clone *clone)
{
    struct thaw_error error = {0};
    int r = thaw_vm_pause(clone->vm, &error);
    expect(r == 0, "%s", error.message);
    clone->running = false;
}

static void drop(struct clone *clone)
{
    thaw_vm_free(clone->vm);
    *clone = (struct clone){0};
}

static void restore(struct clone *clone, const struct snapshot *from)
{
    static const uint32_t lazy_flags[] = {0, 0, THAW_RESTORE_NO_PREFETCH,
        THAW_RESTORE_PREFETCH_ASYNC, THAW_RESTORE_PREFETCH_ASYNC, THAW_RESTORE_RECORD};
    struct thaw_error error = {0};
    struct thaw_restore_options options = {.size = sizeof(options)};
    options.mode = dice(3) ? THAW_RESTORE_LAZY : THAW_RESTORE_EAGER;
    options.pool = dice(3) ? life.pool : NULL;
    if (options.mode == THAW_RESTORE_LAZY)
        options.flags = lazy_flags[dice(sizeof(lazy_flags) / sizeof(lazy_flags[0]))];
    snprintf(life.what, sizeof(life.what), "restoring %s, mode %d, flags %x%s", from->name,
        (int)options.mode, options.flags, options.pool ? ", from the pool" : "");
    int r = thaw_restore(life.env, life.store.store, from->name, &options, &clone->vm, &error);
    expect(r == 0, "%s", error.message);
    clone->origin = *from;
    clone->recording = options.flags & THAW_RESTORE_RECORD;
    if (dice(4) == 0)
        expect_digest(clone->vm, &clone->origin);
}

static void reset(struct clone *clone)
{
    struct thaw_error error = {0};
    snprintf(life.what, sizeof(life.what), "resetting a clone of %s", clone->origin.name);
    int r = thaw_vm_reset(clone->vm, NULL, &error);
    expect(r == 0, "%s", error.message);
    clone->running = false;
    if (dice(2))
        expect_digest(clone->vm, &clone->origin);
}

/* A live one ends the clone, since only so is it known what its memory was at that instant. */
static void take(struct clone *clone, struct snapshot *to)
{
    static const uint32_t kinds[] = {0, THAW_SNAPSHOT_DIFF, THAW_SNAPSHOT_DIFF, THAW_SNAPSHOT_FULL};
    struct thaw_error error = {0};
    uint32_t flags = kinds[dice(4)] | (clone->running ? THAW_SNAPSHOT_KILL : 0);
    struct snapshot taken;
    snprintf(taken.name, sizeof(taken.name), "s%u", life.names++);
    snprintf(life.what, sizeof(life.what), "taking %s of a clone of %s, flags %x", taken.name,
        clone->origin.name, flags);
    int r = snapshots_try(&life.store, clone->vm, taken.name, flags, &error);
    expect(r == 0, "%s", error.message);
    taken.digest = digest_of(clone->vm);
    *to = taken;
    if ((flags & THAW_SNAPSHOT_KILL) && dice(2))
        drop(clone);
    else if (flags & THAW_SNAPSHOT_KILL)
        reset(clone);
}

/* Whatever comes of it, later ones must be complete. */
static void cancel(struct clone *clone)
{
    struct thaw_error error = {0};
    struct thaw_snapshot_options options = {.size = sizeof(options)};
    thaw_job *job;
    snprintf(
        life.what, sizeof(life.what), "cancelling a snapshot of a clone of %s", clone->origin.name);
    int r = thaw_vm_snapshot(clone->vm, life.store.store, &options, &job, &error);
    expect(r == 0, "%s", error.message);
    usleep(dice(8000));
    thaw_job_cancel(job);
    r = thaw_job_wait(job, -1, &error);
    thaw_job_free(job);
    expect(r == 0 || r == -ECANCELED, "%s", error.message);
}

static void delete (struct snapshot *snapshot)
{
    struct thaw_error error = {0};
    snprintf(life.what, sizeof(life.what), "deleting %s", snapshot->name);
    int r = thaw_store_delete(life.store.store, snapshot->name, &error);
    expect(r == 0 || r == -EBUSY, "%s", error.message);
    if (r == 0)
        snapshot->name[0] = '\0';
}

static void end_recording(struct clone *clone)
{
    struct thaw_error error = {0};
    struct thaw_recording recording = {.size = sizeof(recording)};
    snprintf(life.what, sizeof(life.what), "ending the recording of %s", clone->origin.name);
    int r = thaw_vm_record_end(clone->vm, &recording, &error);
    expect(r == 0, "%s", error.message);
    clone->recording = false;
}

/* --- In random order -------------------------------------------------------------------------- */

static struct snapshot *pick_snapshot(bool taken)
{
    for (uint32_t i = 0, first = dice(SNAPSHOTS); i < SNAPSHOTS; i++) {
        struct snapshot *snapshot = &life.snapshots[(first + i) % SNAPSHOTS];
        if ((snapshot->name[0] != '\0') == taken)
            return snapshot;
    }
    return NULL;
}

static unsigned count_snapshots(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        count += life.snapshots[i].name[0] != '\0';
    return count;
}

static void change(struct clone *clone)
{
    struct snapshot *to = pick_snapshot(false);
    switch (dice(12)) {
    case 0:
        drop(clone);
        break;
    case 1:
    case 2:
        if (to)
            take(clone, to);
        break;
    case 3:
        cancel(clone);
        break;
    case 4:
    case 5:
        reset(clone);
        break;
    case 6:
        if (clone->recording)
            end_recording(clone);
        break;
    default:
        if (clone->running)
            hold(clone);
        else
            run(clone);
        break;
    }
}

static void step(void)
{
    struct clone *clone = &life.clones[dice(VMS)];
    if (dice(12) == 0 && count_snapshots() > 1)
        delete (pick_snapshot(true));
    else if (!clone->vm)
        restore(clone, pick_snapshot(true));
    else
        change(clone);
    strcpy(life.what, "afterwards");
    for (unsigned i = 0; i < VMS; i++)
        if (life.clones[i].vm)
            expect_alive(&life.clones[i]);
}

static void check_snapshots(void)
{
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        struct clone clone = {0};
        if (!life.snapshots[i].name[0])
            continue;
        restore(&clone, &life.snapshots[i]);
        expect_digest(clone.vm, &life.snapshots[i]);
        run(&clone);
        expect_alive(&clone);
        drop(&clone);
    }
}

/* --- Beginning and end ------------------------------------------------------------------------ */

/* The snapshot that all others come from. */
static void take_first(struct thaw_vm_options options, const char *until)
{
    struct guest guest;
    options.mem_bytes = MEM_BYTES;
    guest_new(&guest, options);
    guest_start(&guest);
    guest_expect(&guest, until, 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    strcpy(life.snapshots[0].name, "first");
    snapshots_take(&life.store, guest.vm, "first", 0);
    life.snapshots[0].digest = digest_of(guest.vm);
    guest_free(&guest);
}

static void take_first_of_memory(void)
{
    char command[1024];
    snprintf(command, sizeof(command), "%s/../memtouch-data -o %s 4", THAW_GUEST_DIR, data);
    cr_assert_eq(system(command), 0);
    take_first(
        (struct thaw_vm_options){
            .kernel_path = "memtouch", .initrd_path = data, .cmdline = "op=write order=rand"},
        "pass 1 ");
}

static void take_first_of_disk(void)
{
    const struct thaw_disk_options disk = {.size = sizeof(disk), .path = data};
    cr_assert_eq(truncate(data, 1 << 20), 0);
    take_first((struct thaw_vm_options){.kernel_path = "blkpattern",
                   .cmdline = "loop=1 blocks=32 stride=3",
                   .disks = &disk,
                   .disk_count = 1},
        "generation 2 ");
}

static void begin(void)
{
    struct thaw_error error;
    const struct thaw_env_options budget = {
        .size = sizeof(budget), .image_budget_bytes = MEM_BYTES / 2};
    const struct thaw_pool_options shape = {
        .size = sizeof(shape), .mem_bytes = MEM_BYTES, .target = 2};
    snapshots_init(&life.store);
    int fd = mkstemp(data);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(thaw_env_new(&budget, &life.env, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_new(life.env, &shape, &life.pool, &error), 0, "%s", error.message);
}

static void end(void)
{
    thaw_pool_free(life.pool);
    thaw_env_free(life.env);
    unlink(data);
    snapshots_fini(&life.store);
}

TestSuite(torture, .init = begin, .fini = end, .timeout = 600);

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void live(void)
{
    time_t until = getenv("THAW_TORTURE_STEPS") ? 0 : time(NULL) + SECONDS;
    uint64_t steps = setting("THAW_TORTURE_STEPS", STEPS);
    life.seed = setting("THAW_TORTURE_SEED", 1);
    life.random = life.seed * 0x9e3779b97f4a7c15u;
    for (; life.step < steps && (until == 0 || time(NULL) < until); life.step++)
        step();
    for (unsigned i = 0; i < VMS; i++)
        drop(&life.clones[i]);
    check_snapshots();
    thaw_pool_wait(life.pool, GUEST_TIMEOUT_MS, NULL);
    snapshots_check_store(&life.store, "in the end");
}

Test(torture, memory_is_right_after_a_random_life)
{
    take_first_of_memory();
    live();
}

Test(torture, a_disk_is_right_after_a_random_life)
{
    take_first_of_disk();
    live();
}
