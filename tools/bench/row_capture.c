// SPDX-License-Identifier: Apache-2.0
// Row `capture`: snapshots of a guest full of data, and zstd alone on the same bytes. How a guest
// comes back is other rows' business, but each snapshot here is restored and checked once.

#include "floor_zstd.h"
#include "rows.h"
#include "scratch.h"
#include "subject.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MEM_MIB        1024
#define DATA_MIB       512
#define DATA_MIB_QUICK 48
#define LEVEL          1

/* thaw's table for this level is smaller than zstd's own. */
#define SAME_TABLE    "zstd, same table"
#define THAW_HASH_LOG 11

/* A snapshot that is in the store, until another takes its place. */
struct taken {
    char name[40];     /* empty: none */
    uint32_t position; /* of its guest, at that time or a little later */
};

struct capture {
    struct recipe recipe;
    struct subject subject; /* the guest that runs through the whole row */
    unsigned data_mib, ws_mib;
    unsigned number; /* of the next snapshot, for its name */
    struct taken first, again, diff;
    const void *data; /* the guest's data as a file, mapped */
    size_t data_bytes;
};

static int delete_old(struct bench *bench, struct taken *taken, struct thaw_error *error)
{
    int r = taken->name[0] ? thaw_store_delete(bench->store, taken->name, error) : 0;
    taken->name[0] = '\0';
    return r;
}

/* A diff is of the pages that changed, a full snapshot of all data, whatever it was copied from. */
static void add_result(struct bench *bench, const char *row, const char *mode,
    const struct thaw_snapshot_result *result, uint64_t data_pages, uint64_t used_cpu_ns)
{
    struct results *results = &bench->results;
    double raw = (double)data_pages * PAGE_BYTES;
    results_add(results, row, mode, "until durable", "us", (double)result->total_ns / 1e3);
    results_add(results, row, mode, "pause", "us", (double)result->pause_ns / 1e3);
    results_add(results, row, mode, "cpu", "us", (double)used_cpu_ns / 1e3);
    results_add(
        results, row, mode, "throughput", "MB/s", raw / ((double)result->total_ns / 1e9) / 1e6);
    results_add(results, row, mode, "data pages", "", (double)data_pages);
    results_add(results, row, mode, "stored", "bytes", (double)result->stored_bytes);
    results_add(results, row, mode, "stale pages", "", (double)result->stale_pages);
    results_add(results, row, mode, "ratio", "", raw / (double)result->stored_bytes);
}

/* A guest that runs did so until it was paused for the snapshot, and runs on. Which record was its
 * last before is not known, but the clone's next is not beyond the one that the source is at now.
 * Guests stand still from then on: a busy one takes a processor from all that is measured. */
static int read_position(struct subject *subject, uint32_t *ret_position, struct thaw_error *error)
{
    int r = thaw_vm_pause(subject->vm, error);
    return r < 0 ? r : subject_position(subject, ret_position, error);
}

static int take(struct bench *bench, const char *row, const struct mode *mode,
    struct subject *subject, uint32_t flags, struct taken *ret, struct thaw_error *error)
{
    struct capture *capture = mode->data;
    struct thaw_snapshot_result result;
    snprintf(ret->name, sizeof(ret->name), "capture-%u", capture->number++);
    const struct thaw_snapshot_options options = {
        .name = ret->name, .level = LEVEL, .flags = flags};
    uint64_t cpu = cpu_ns();
    int r = subject_snapshot(subject, &options, &result, error);
    cpu = cpu_ns() - cpu;
    if (r < 0) {
        ret->name[0] = '\0';
        return r;
    }
    uint64_t pages = result.diff ? result.pages - result.zero_pages
                                 : (uint64_t)capture->data_mib * PAGES_PER_MIB;
    add_result(bench, row, mode->name, &result, pages, cpu);
    return read_position(subject, &ret->position, error);
}

/* Of a guest that no snapshot was taken of before, and that is paused: all processors are there for
 * the snapshot, as they are for zstd. */
static int sample_first(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct capture *capture = mode->data;
    struct subject subject;
    int r = delete_old(bench, &capture->first, error);
    if (r == 0)
        r = subject_new(bench, &capture->recipe, &subject, error);
    if (r < 0)
        return r;
    r = subject_warm_up(&subject, error);
    if (r == 0)
        r = thaw_vm_pause(subject.vm, error);
    if (r == 0)
        r = take(bench, row, mode, &subject, 0, &capture->first, error);
    subject_free(&subject);
    return r;
}

/* Live: of a guest that works. */
static int sample_again(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct capture *capture = mode->data;
    struct taken old = capture->again;
    int r = thaw_vm_resume(capture->subject.vm, error);
    if (r == 0)
        r = take(bench, row, mode, &capture->subject, THAW_SNAPSHOT_FULL, &capture->again, error);
    if (r == 0)
        r = delete_old(bench, &old, error);
    return r < 0 ? r : delete_old(bench, &capture->diff, error);
}

/* The guest goes over its working set, 1 % of its data, at least once between the two. */
static int sample_diff(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct capture *capture = mode->data;
    subject_forget(&capture->subject);
    int r = thaw_vm_resume(capture->subject.vm, error);
    if (r == 0)
        r = subject_expect(&capture->subject, POSITION_UNKNOWN, NULL, error);
    if (r == 0) {
        subject_forget(&capture->subject);
        r = subject_expect(&capture->subject, POSITION_UNKNOWN, NULL, error);
    }
    return r < 0 ? r
                 : take(bench, row, mode, &capture->subject, THAW_SNAPSHOT_DIFF, &capture->diff,
                       error);
}

static int sample_zstd(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct capture *capture = mode->data;
    uint64_t ns, stored, cpu = cpu_ns();
    const struct floor_zstd how = {.level = LEVEL,
        .hash_log = strcmp(mode->name, SAME_TABLE) == 0 ? THAW_HASH_LOG : 0,
        .threads = bench->cpus};
    int r = floor_zstd(capture->data, capture->data_bytes, &how, &ns, &stored, error);
    if (r < 0)
        return r;
    double bytes = (double)capture->data_bytes;
    results_add(&bench->results, row, mode->name, "cpu", "us", (double)(cpu_ns() - cpu) / 1e3);
    results_add(&bench->results, row, mode->name, "until done", "us", (double)ns / 1e3);
    results_add(
        &bench->results, row, mode->name, "throughput", "MB/s", bytes / ((double)ns / 1e9) / 1e6);
    return 0;
}

/* Once is enough: it comes out the same each time. */
static int add_one_stream(
    struct bench *bench, const char *row, const struct capture *capture, struct thaw_error *error)
{
    uint64_t ns, stored;
    const struct floor_zstd how = {.level = LEVEL};
    int r = floor_zstd(capture->data, capture->data_bytes, &how, &ns, &stored, error);
    if (r < 0)
        return r;
    results_add(&bench->results, row, "zstd, one stream", "stored", "bytes", (double)stored);
    results_add(&bench->results, row, "zstd, one stream", "ratio", "",
        (double)capture->data_bytes / (double)stored);
    return 0;
}

/* The clone's first pass checks every page that the guest works on, and its sum. */
static int check(struct bench *bench, const struct capture *capture, const struct taken *taken,
    enum thaw_restore_mode mode, struct thaw_error *error)
{
    struct subject clone;
    uint32_t position;
    const struct thaw_restore_options options = {.mode = mode};
    int r = subject_restore(bench, &capture->recipe, NULL, &options, taken->name, &clone, error);
    if (r < 0)
        return r;
    r = thaw_vm_resume(clone.vm, error);
    if (r == 0)
        r = subject_expect(&clone, POSITION_UNKNOWN, &position, error);
    if (r == 0 && position > taken->position + 1)
        r = bench_fail(error, THAW_EGUEST,
            "a clone went on with pass %u, which its source had not begun", position);
    subject_free(&clone);
    return r;
}

/* Every stored byte as well. */
static int verify(struct bench *bench, const char *ref, struct thaw_error *error)
{
    struct thaw_job *job;
    int r = thaw_snapshot_verify(bench->store, ref, &job, error);
    if (r < 0)
        return r;
    r = thaw_job_wait(job, -1, error);
    thaw_job_free(job);
    return r;
}

static int check_all(struct bench *bench, const struct capture *capture, struct thaw_error *error)
{
    const struct taken *all[] = {&capture->first, &capture->again, &capture->diff};
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(all) && r == 0; i++) {
        if (!all[i]->name[0])
            continue;
        r = verify(bench, all[i]->name, error);
        if (r == 0)
            r = check(bench, capture, all[i], THAW_RESTORE_EAGER, error);
        if (r == 0)
            r = check(bench, capture, all[i], THAW_RESTORE_LAZY, error);
    }
    return r;
}

static int map_data(struct capture *capture, struct thaw_error *error)
{
    struct stat st;
    _cleanup_close_ int fd = open(capture->recipe.initrd, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return bench_errno(error, "opening %s", capture->recipe.initrd);
    capture->data_bytes = (size_t)st.st_size;
    void *data = mmap(NULL, capture->data_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (data == MAP_FAILED)
        return bench_errno(error, "mapping %s", capture->recipe.initrd);
    capture->data = data;
    return 0;
}

static int run_modes(
    struct bench *bench, const char *row, struct capture *capture, struct thaw_error *error)
{
    static const struct way {
        const char *name;
        sample_fn take;
        bool in_quick;
    } ways[] = {
        {"full", sample_first, true},
        {"full, of a guest that runs", sample_again, false},
        {"diff, 1 % changed", sample_diff, false},
        {"zstd, same threads", sample_zstd, true},
        {SAME_TABLE, sample_zstd, false},
    };
    const struct rounds rounds = {
        .samples = 100, .quick_samples = 20, .quick_s = 10, .in_order = true};
    struct mode modes[ARRAY_SIZE(ways)];
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
        if (ways[i].in_quick || !bench->options.quick)
            modes[count++] = (struct mode){ways[i].name, ways[i].take, capture};
    int r = map_data(capture, error);
    if (r == 0)
        r = subject_warm_up(&capture->subject, error);
    if (r == 0)
        r = thaw_vm_pause(capture->subject.vm, error);
    if (r == 0)
        r = rows_run_modes(bench, row, modes, count, &rounds, error);
    if (r == 0)
        r = add_one_stream(bench, row, capture, error);
    return r < 0 ? r : check_all(bench, capture, error);
}

int row_capture(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct capture capture = {.data_mib = bench->options.quick ? DATA_MIB_QUICK : DATA_MIB};
    capture.ws_mib = MAX(capture.data_mib / 100, 1u);
    const struct memtouch_options options = {
        .mem_mib = MEM_MIB,
        .data_mib = capture.data_mib,
        .ws_mib = capture.ws_mib,
        .writes = true,
        .random = true,
    };
    int r = recipe_memtouch(bench, "capture", &options, &capture.recipe, error);
    if (r == 0)
        r = subject_new(bench, &capture.recipe, &capture.subject, error);
    if (r < 0)
        return r;
    r = run_modes(bench, row, &capture, error);
    subject_free(&capture.subject);
    if (capture.data)
        munmap((void *)(uintptr_t)capture.data, capture.data_bytes);
    delete_old(bench, &capture.first, &(struct thaw_error){0});
    delete_old(bench, &capture.diff, &(struct thaw_error){0});
    delete_old(bench, &capture.again, &(struct thaw_error){0});
    return r;
}
