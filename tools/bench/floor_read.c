// SPDX-License-Identifier: Apache-2.0
// Reads and decompresses frames as fast as that goes. Checks nothing.

#include "floor_read.h"
#include "scratch.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <zstd.h>

#define FRAME_BYTES    (16 * PAGE_BYTES)
#define FRAMES_AT_ONCE 64 /* in one read */
#define LEVEL          1
#define THREADS_MAX    64

/* --- Making ----------------------------------------------------------------------------------- */

static int add_frame(struct floor_frames *frames, uint64_t number, int from, int to, uint64_t *end,
    struct thaw_error *error)
{
    static char raw[FRAME_BYTES], stored[2 * FRAME_BYTES];
    if (pread(from, raw, FRAME_BYTES, (off_t)(number * FRAME_BYTES)) != FRAME_BYTES)
        return bench_errno(error, "reading the guests' data");
    size_t count = ZSTD_compress(stored, sizeof(stored), raw, FRAME_BYTES, LEVEL);
    if (ZSTD_isError(count) || pwrite(to, stored, count, (off_t)*end) != (ssize_t)count)
        return bench_errno(error, "writing %s", frames->path);
    frames->file_off[number] = *end;
    frames->stored_bytes[number] = (uint32_t)count;
    *end += count;
    return 0;
}

int floor_frames_make(const struct bench *bench, const char *name, const char *data_path,
    uint64_t data_bytes, struct floor_frames *ret, struct thaw_error *error)
{
    *ret = (struct floor_frames){.count = data_bytes / FRAME_BYTES};
    int r = scratch_path(bench, name, ret->path, sizeof(ret->path), error);
    if (r < 0)
        return r;
    ret->stored_bytes = calloc(ret->count, sizeof(*ret->stored_bytes));
    ret->file_off = calloc(ret->count, sizeof(*ret->file_off));
    _cleanup_close_ int from = open(data_path, O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int to = open(ret->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (!ret->stored_bytes || !ret->file_off || from < 0 || to < 0)
        return bench_errno(error, "making %s", ret->path);
    uint64_t end = 0;
    for (uint64_t i = 0; i < ret->count && r == 0; i++)
        r = add_frame(ret, i, from, to, &end, error);
    return r == 0 && fsync(to) < 0 ? bench_errno(error, "writing %s", ret->path) : r;
}

void floor_frames_free(struct floor_frames *frames)
{
    if (frames->path[0])
        unlink(frames->path);
    free(frames->stored_bytes);
    free(frames->file_off);
    *frames = (struct floor_frames){0};
}

/* --- Reading ---------------------------------------------------------------------------------- */

struct job {
    const struct floor_frames *frames;
    int file;
    int memfd;
    atomic_ullong next;
    atomic_bool failed;
};

static bool fill(struct job *job, uint64_t first, char *stored, char *raw)
{
    const struct floor_frames *frames = job->frames;
    uint64_t last = MIN(first + FRAMES_AT_ONCE, frames->count) - 1;
    size_t count =
        (size_t)(frames->file_off[last] + frames->stored_bytes[last] - frames->file_off[first]);
    if (pread(job->file, stored, count, (off_t)frames->file_off[first]) != (ssize_t)count)
        return false;
    for (uint64_t i = first; i <= last; i++) {
        if (ZSTD_decompress(raw, FRAME_BYTES, stored, frames->stored_bytes[i]) != FRAME_BYTES ||
            pwrite(job->memfd, raw, FRAME_BYTES, (off_t)(i * FRAME_BYTES)) != FRAME_BYTES)
            return false;
        stored += frames->stored_bytes[i];
    }
    return true;
}

static void *work(void *arg)
{
    struct job *job = arg;
    char *stored = malloc((size_t)FRAMES_AT_ONCE * 2 * FRAME_BYTES), *raw = malloc(FRAME_BYTES);
    while (stored && raw && !atomic_load(&job->failed)) {
        uint64_t first = atomic_fetch_add(&job->next, FRAMES_AT_ONCE);
        if (first >= job->frames->count)
            break;
        if (!fill(job, first, stored, raw))
            atomic_store(&job->failed, true);
    }
    if (!stored || !raw)
        atomic_store(&job->failed, true);
    free(stored);
    free(raw);
    return NULL;
}

int floor_frames_read(
    const struct floor_frames *frames, unsigned threads, uint64_t *ret_ns, struct thaw_error *error)
{
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    uint64_t start = now_ns();
    _cleanup_close_ int file = open(frames->path, O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int memfd = memfd_create("thaw-bench", MFD_CLOEXEC);
    if (file < 0 || memfd < 0 || ftruncate(memfd, (off_t)(frames->count * FRAME_BYTES)) < 0)
        return bench_errno(error, "opening %s", frames->path);
    struct job job = {.frames = frames, .file = file, .memfd = memfd};
    while (started + 1 < MIN(threads, (unsigned)THREADS_MAX) &&
           pthread_create(&others[started], NULL, work, &job) == 0)
        started++;
    work(&job);
    for (unsigned i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    *ret_ns = now_ns() - start;
    return atomic_load(&job.failed) ? bench_fail(error, -EIO, "reading %s failed", frames->path)
                                    : 0;
}
