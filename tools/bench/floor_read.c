// SPDX-License-Identifier: Apache-2.0
// Reads and decompresses frames as fast as that goes. Checks nothing.

#include "floor_read.h"
#include "scratch.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <zstd.h>

#define FRAME_BYTES_MAX (64 * PAGE_BYTES)
#define READ_BYTES      MIB       /* at once */
#define AHEAD_BYTES     (8 * MIB) /* that the kernel is told to read meanwhile */
#define THREADS_MAX     64

/* --- Making ----------------------------------------------------------------------------------- */

static int add_frame(struct floor_frames *frames, uint64_t number, int from, int to, uint64_t *end,
    struct thaw_error *error)
{
    static char raw[FRAME_BYTES_MAX], stored[2 * FRAME_BYTES_MAX];
    size_t bytes = frames->frame_bytes;
    if (pread(from, raw, bytes, (off_t)(number * bytes)) != (ssize_t)bytes)
        return bench_errno(error, "reading the guests' data");
    size_t count = ZSTD_compress(stored, sizeof(stored), raw, bytes, frames->level);
    if (ZSTD_isError(count) || pwrite(to, stored, count, (off_t)*end) != (ssize_t)count)
        return bench_errno(error, "writing %s", frames->path);
    frames->file_off[number] = *end;
    frames->stored_bytes[number] = (uint32_t)count;
    *end += count;
    return 0;
}

int floor_frames_make(const struct bench *bench, const char *name, const char *data_path,
    uint64_t data_bytes, size_t frame_bytes, int level, struct floor_frames *ret,
    struct thaw_error *error)
{
    *ret = (struct floor_frames){
        .count = data_bytes / frame_bytes, .frame_bytes = frame_bytes, .level = level};
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
    pthread_mutex_t lock; /* guards next */
    uint64_t next;
    atomic_bool failed;
};

/* What a thread has. */
struct reader {
    ZSTD_DCtx *context;
    char *stored, *raw;
};

/* The next frames that are read at once. False: there are none. */
static bool take(struct job *job, uint64_t *ret_first, uint64_t *ret_end, size_t *ret_bytes)
{
    const struct floor_frames *frames = job->frames;
    *ret_bytes = 0;
    pthread_mutex_lock(&job->lock);
    *ret_first = job->next;
    while (job->next < frames->count && *ret_bytes + frames->stored_bytes[job->next] <= READ_BYTES)
        *ret_bytes += frames->stored_bytes[job->next++];
    *ret_end = job->next;
    pthread_mutex_unlock(&job->lock);
    return *ret_end > *ret_first;
}

static bool fill(
    struct job *job, uint64_t first, uint64_t end, size_t bytes, const struct reader *reader)
{
    const struct floor_frames *frames = job->frames;
    const char *stored = reader->stored;
    off_t at = (off_t)frames->file_off[first];
    if (pread(job->file, reader->stored, bytes, at) != (ssize_t)bytes)
        return false;
    posix_fadvise(job->file, at + (off_t)bytes, AHEAD_BYTES, POSIX_FADV_WILLNEED);
    for (uint64_t i = first; i < end; i++) {
        size_t raw_bytes = frames->frame_bytes;
        if (ZSTD_decompressDCtx(reader->context, reader->raw, raw_bytes, stored,
                frames->stored_bytes[i]) != raw_bytes ||
            pwrite(job->memfd, reader->raw, raw_bytes, (off_t)(i * raw_bytes)) !=
                (ssize_t)raw_bytes)
            return false;
        stored += frames->stored_bytes[i];
    }
    return true;
}

static void *work(void *arg)
{
    struct job *job = arg;
    struct reader reader = {
        ZSTD_createDCtx(), malloc(READ_BYTES), malloc(job->frames->frame_bytes)};
    bool ready = reader.context && reader.stored && reader.raw;
    uint64_t first, end;
    size_t bytes;
    if (!ready)
        atomic_store(&job->failed, true);
    while (!atomic_load(&job->failed) && take(job, &first, &end, &bytes))
        if (!fill(job, first, end, bytes, &reader))
            atomic_store(&job->failed, true);
    ZSTD_freeDCtx(reader.context);
    free(reader.stored);
    free(reader.raw);
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
    if (file < 0 || memfd < 0 || ftruncate(memfd, (off_t)(frames->count * frames->frame_bytes)) < 0)
        return bench_errno(error, "opening %s", frames->path);
    struct job job = {
        .frames = frames, .file = file, .memfd = memfd, .lock = PTHREAD_MUTEX_INITIALIZER};
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
