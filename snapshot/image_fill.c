// SPDX-License-Identifier: Apache-2.0
// Filling images: one frame on demand, all of them in parallel, the rest in the background. Does
// not know who waits for a page.
//
// With a userfaultfd everything goes through fault_copy, also while nothing maps the image yet.
// Measured side by side, writing to the memfd is no faster and decompressing straight into a
// mapping of it is slower (a page fault and a zeroed page for each page): the copy is not what
// costs, new pages are. Without one it is written to.

#include "image_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/sysinfo.h>

/* How much is read at once where many frames are wanted. Any frame fits. */
#define FILL_READ_BYTES       FRAME_RAW_BYTES_MAX
#define FILL_AHEAD_BYTES      (4 * FILL_READ_BYTES)
#define FILL_THREADS_MAX      64
#define FRAMES_PER_THREAD_MIN 8

/* The background begins when the guest that was just restored is on its way. */
#define START_NS 2000000

struct fill_scratch *image_take_scratch(struct image *image)
{
    pthread_mutex_lock(&image->lock);
    struct fill_scratch *scratch = image->scratches;
    if (scratch)
        image->scratches = scratch->next;
    pthread_mutex_unlock(&image->lock);
    return scratch ? scratch : calloc(1, sizeof(*scratch));
}

void image_give_scratch(struct image *image, struct fill_scratch *scratch)
{
    pthread_mutex_lock(&image->lock);
    scratch->next = image->scratches;
    image->scratches = scratch;
    pthread_mutex_unlock(&image->lock);
}

/* --- One frame -------------------------------------------------------------------------------- */

bool image_slot_is_wanted(
    const struct image *image, unsigned pack, uint64_t pack_page, uint64_t *ret_page)
{
    uint64_t slot = pack_reader_slot(image->packs[pack].reader, pack_page);
    *ret_page = SLOT_PAGE(slot);
    return SLOT_SPACE(slot) == page_index_space(image->index)->number &&
           page_index_maps(image->index, SLOT_PAGE(slot), pack, pack_page);
}

/* How many slots from `slot` on are wanted and belong to consecutive pages. */
static unsigned find_run(const struct image *image, unsigned pack, uint64_t first_slot,
    unsigned slot, unsigned slots, uint64_t *ret_page)
{
    unsigned count = 0;
    uint64_t page;
    while (slot + count < slots &&
           image_slot_is_wanted(image, pack, first_slot + slot + count, &page)) {
        if (count == 0)
            *ret_page = page;
        else if (page != *ret_page + count)
            break;
        count++;
    }
    return count;
}

static int write_pages(int fd, uint64_t page, unsigned count, const uint8_t *bytes)
{
    size_t left = (size_t)count * PAGE_BYTES;
    off_t off = (off_t)(page * PAGE_BYTES);
    while (left > 0) {
        ssize_t n = pwrite(fd, bytes, left, off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        off += n;
        left -= (size_t)n;
    }
    return 0;
}

/* Where there is no userfaultfd nobody maps the image before it is complete, so that parts of a
 * page are seen by no one. */
int image_put_pages(struct image *image, uint64_t page, unsigned count, const uint8_t *bytes)
{
    if (image->uffd < 0)
        return write_pages(image->fd, page, count, bytes);
    return fault_copy(
        image->uffd, image->filler + page * PAGE_BYTES, bytes, (uint64_t)count * PAGE_BYTES);
}

/* In one call for each run of pages. */
static int publish(struct image *image, unsigned pack, uint64_t frame, unsigned slots,
    const uint8_t *pages, struct thaw_error *error)
{
    uint64_t first_slot = frame * image->packs[pack].frame_pages;
    unsigned published = 0;
    for (unsigned slot = 0; slot < slots;) {
        uint64_t page = 0;
        unsigned count = find_run(image, pack, first_slot, slot, slots, &page);
        if (count == 0) {
            slot++;
            continue;
        }
        int r = image_apart_has(image, page, count)
                    ? 0
                    : image_put_pages(image, page, count, pages + (size_t)slot * PAGE_BYTES);
        if (r < 0)
            return error_errno(error, -r, "putting page %" PRIu64 " into an image", page);
        slot += count;
        published += count;
    }
    if (published != image->packs[pack].wanted[frame])
        return error_set(error, THAW_ECORRUPT,
            "frame %" PRIu64 " of pack %u holds %u pages of this snapshot, and its index wants %u",
            frame, pack, published, image->packs[pack].wanted[frame]);
    return 0;
}

/* `stored` is the frame as in the pack; NULL: it is read. */
static int fill_claimed(struct image *image, unsigned pack, uint64_t frame, const uint8_t *stored,
    struct fill_scratch *scratch, struct thaw_error *error)
{
    const struct pack_reader *reader = image->packs[pack].reader;
    struct thaw_error own = {0};
    int r = stored ? pack_decode_frame(reader, frame, stored, &scratch->frame, &own)
                   : pack_read_frame(reader, frame, &scratch->frame, &own);
    if (r >= 0)
        r = publish(image, pack, frame, (unsigned)r, scratch->frame.pages, &own);
    r = image_finish_frame(image, pack, frame, r, &own);
    if (r < 0 && error)
        *error = own;
    return r;
}

/* Returns when the frame is there, whoever filled it; *ret_pages has grown by what this call put
 * in. */
static int fill_frame(struct image *image, unsigned pack, uint64_t frame, uint64_t *ret_pages,
    struct thaw_error *error)
{
    if (image_frame_is_present(image, pack, frame))
        return 0;
    /* Before the claim: a claimed frame must be finished. */
    struct fill_scratch *scratch = image_take_scratch(image);
    if (!scratch)
        return error_errno(error, ENOMEM, "reading frame %" PRIu64 " of pack %u", frame, pack);
    int r = image_claim_frame(image, pack, frame, true, error);
    if (r > 0) {
        r = fill_claimed(image, pack, frame, NULL, scratch, error);
        *ret_pages += r < 0 ? 0 : image->packs[pack].wanted[frame];
    }
    image_give_scratch(image, scratch);
    return r;
}

static int fill_extent(struct image *image, const struct index_extent *extent, uint64_t count,
    struct thaw_error *error)
{
    unsigned frame_pages = image->packs[extent->pack].frame_pages;
    uint64_t last = (extent->pack_page + count - 1) / frame_pages;
    uint64_t filled = 0;
    int r = 0;
    for (uint64_t frame = extent->pack_page / frame_pages; frame <= last && r == 0; frame++)
        r = fill_frame(image, extent->pack, frame, &filled, error);
    atomic_fetch_add(&image->demand_pages, filled);
    return r;
}

/* Of an extent of data. Whoever records puts in single pages, in a loop of the caller's. */
static int fill_some(struct image *image, const struct index_extent *extent, uint64_t count,
    uint64_t *ret_done, struct thaw_error *error)
{
    *ret_done = count;
    if (image_apart_has(image, extent->page, count))
        return 0;
    if (image_is_recording(image)) {
        int r = image_record_page(image, extent, error);
        *ret_done = 1;
        if (r <= 0)
            return r;
    }
    return fill_extent(image, extent, *ret_done, error);
}

int image_make_present(struct image *image, uint64_t page, uint64_t count, struct thaw_error *error)
{
    if (!range_fits(page, count, image->bytes / PAGE_BYTES))
        return error_set(
            error, -EINVAL, "an image has no pages %" PRIu64 " to %" PRIu64, page, page + count);
    if (atomic_load(&image->complete))
        return 0;
    int r = 0;
    atomic_fetch_add(&image->demands, 1);
    struct index_extent extent;
    while (r == 0 && count > 0 && page_index_lookup(image->index, page, &extent)) {
        uint64_t part = MIN(count, (uint64_t)extent.count);
        if (extent.kind == EXTENT_DATA)
            r = fill_some(image, &extent, part, &part, error);
        page += part;
        count -= part;
    }
    atomic_fetch_sub(&image->demands, 1);
    return r;
}

/* --- Many frames ------------------------------------------------------------------------------ */

/* Frames [frame, frame + count) of a pack: adjacent in its file. */
struct chunk {
    unsigned pack;
    uint64_t frame;
    uint64_t count;
    uint64_t file_off;
    size_t stored_bytes;
};

struct fill_job {
    struct image *image;
    const atomic_bool *cancel; /* NULL: never */
    bool background;           /* gives way to demands, and passes over bad frames */
    image_progress_fn progress;
    void *progress_data;
    atomic_bool failed;
    pthread_mutex_t lock; /* guards the position */
    unsigned pack;
    uint64_t frame;
};

static bool is_stopped(const struct fill_job *job)
{
    return atomic_load(&job->image->stopping) || (job->cancel && atomic_load(job->cancel)) ||
           (!job->background && atomic_load(&job->failed));
}

static bool is_absent(const struct image_pack *pack, uint64_t frame)
{
    return atomic_load_explicit(&pack->states[frame], memory_order_relaxed) == FRAME_ABSENT;
}

/* From the first absent frame at or behind the position. False at the end. */
static bool next_chunk_locked(struct fill_job *job, struct chunk *ret)
{
    const struct image *image = job->image;
    while (job->pack < image->pack_count) {
        const struct image_pack *pack = &image->packs[job->pack];
        while (job->frame < pack->frame_count && !is_absent(pack, job->frame))
            job->frame++;
        *ret = (struct chunk){.pack = job->pack, .frame = job->frame};
        while (job->frame < pack->frame_count && is_absent(pack, job->frame)) {
            struct frame_entry entry;
            pack_reader_entry(pack->reader, job->frame, &entry);
            if (ret->stored_bytes + entry.stored_bytes > FILL_READ_BYTES)
                break;
            if (ret->count++ == 0)
                ret->file_off = entry.file_off;
            ret->stored_bytes += entry.stored_bytes;
            job->frame++;
        }
        if (ret->count > 0)
            return true;
        job->pack++;
        job->frame = 0;
    }
    return false;
}

static bool next_chunk(struct fill_job *job, struct chunk *ret)
{
    pthread_mutex_lock(&job->lock);
    bool more = next_chunk_locked(job, ret);
    pthread_mutex_unlock(&job->lock);
    return more;
}

/* False if it can't be read as a whole; each frame is then read alone and finds out why. */
static bool read_chunk(
    const struct image *image, const struct chunk *chunk, struct fill_scratch *scratch)
{
    if (!scratch->stored)
        scratch->stored = malloc(FILL_READ_BYTES);
    if (!scratch->stored)
        return false;
    const struct pack_reader *reader = image->packs[chunk->pack].reader;
    if (pack_reader_read(reader, scratch->stored, chunk->stored_bytes, chunk->file_off, NULL) < 0)
        return false;
    posix_fadvise(pack_reader_fd(reader), (off_t)(chunk->file_off + chunk->stored_bytes),
        (off_t)FILL_AHEAD_BYTES, POSIX_FADV_WILLNEED);
    return true;
}

/* Frames are claimed one by one, and only after their chunk was read: who demands one of them waits
 * for at most one frame's decompression. */
static void fill_chunk(
    struct fill_job *job, const struct chunk *chunk, struct fill_scratch *scratch)
{
    struct image *image = job->image;
    const uint8_t *stored = read_chunk(image, chunk, scratch) ? scratch->stored : NULL;
    for (uint64_t i = 0; i < chunk->count && !is_stopped(job); i++) {
        if (job->background)
            image_give_way(image);
        struct frame_entry entry;
        pack_reader_entry(image->packs[chunk->pack].reader, chunk->frame + i, &entry);
        int r = image_claim_frame(image, chunk->pack, chunk->frame + i, false, NULL);
        if (r > 0)
            r = fill_claimed(image, chunk->pack, chunk->frame + i, stored, scratch, NULL);
        if (r < 0 && r != -EINPROGRESS)
            atomic_store(&job->failed, true);
        if (stored)
            stored += entry.stored_bytes;
    }
}

static void report_progress(const struct fill_job *job)
{
    if (!job->progress)
        return;
    struct image_info info;
    image_get_info(job->image, &info);
    job->progress(job->progress_data, info.frames_present + info.frames_bad, info.frames);
}

static void work(struct fill_job *job, bool reports)
{
    struct fill_scratch *scratch = image_take_scratch(job->image);
    if (!scratch)
        return; /* the last look finds what is missing, and why */
    struct chunk chunk;
    while (!is_stopped(job) && next_chunk(job, &chunk)) {
        fill_chunk(job, &chunk, scratch);
        if (reports)
            report_progress(job);
    }
    image_give_scratch(job->image, scratch);
}

static void *worker_thread(void *arg)
{
    work(arg, false);
    return NULL;
}

/* What others were filling meanwhile, and the message of what failed. */
static int look_again(const struct fill_job *job, struct thaw_error *error)
{
    struct image *image = job->image;
    pthread_mutex_lock(&image->lock);
    bool bad = image->frames_bad > 0;
    if (bad && error)
        *error = image->first_error;
    int r = bad ? image->first_error.code : 0;
    pthread_mutex_unlock(&image->lock);

    uint64_t ignored = 0;
    for (unsigned pack = 0; pack < image->pack_count; pack++)
        for (uint64_t frame = 0; frame < image->packs[pack].frame_count && r == 0; frame++) {
            if (image->packs[pack].wanted[frame] == 0)
                continue;
            if (is_stopped(job) && !image_frame_is_present(image, pack, frame))
                return error_set(error, -ECANCELED, "filling an image was cancelled");
            r = fill_frame(image, pack, frame, &ignored, error);
        }
    return r;
}

/* One a CPU, but none for less than it takes to start one. */
static unsigned choose_threads(const struct image *image)
{
    uint64_t most = MIN(image->frames / FRAMES_PER_THREAD_MIN + 1, (uint64_t)FILL_THREADS_MAX);
    return most == 1 ? 1 : (unsigned)MIN((int)most, MAX(get_nprocs(), 1));
}

int image_fill_all(
    struct image *image, const struct image_fill_options *options, struct thaw_error *error)
{
    if (atomic_load(&image->complete))
        return 0;
    static const struct image_fill_options defaults;
    if (!options)
        options = &defaults;
    struct fill_job job = {
        .image = image,
        .cancel = options->cancel,
        .progress = options->progress,
        .progress_data = options->progress_data,
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
    unsigned threads =
        options->threads ? MIN(options->threads, FILL_THREADS_MAX) : choose_threads(image);
    pthread_t others[FILL_THREADS_MAX];
    unsigned started = 0;
    while (started + 1 < threads &&
           image_start_thread(&others[started], worker_thread, &job, "thaw-fill", NULL) == 0)
        started++;
    work(&job, true);
    for (unsigned i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    pthread_mutex_destroy(&job.lock);
    return look_again(&job, error);
}

struct frame_place {
    const struct image_pack *pack; /* NULL: none */
    uint64_t frame;
};

/* Through the descriptor, which plants no page where there is none. */
static int read_memory(
    const struct image *image, uint64_t page, uint64_t count, void *dst, struct thaw_error *error)
{
    uint8_t *at = dst;
    size_t left = (size_t)count * PAGE_BYTES;
    off_t off = (off_t)(page * PAGE_BYTES);
    while (left > 0) {
        ssize_t n = pread(image->fd, at, left, off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(error, n < 0 ? errno : EIO, "reading an image");
        at += n;
        off += n;
        left -= (size_t)n;
    }
    return 0;
}

/* Copies a page of data out of its frame and leaves the image without it. `scratch` has the frame
 * of *last, which may be of no pack. */
static int read_past(struct image *image, const struct index_extent *extent,
    struct fill_scratch *scratch, struct frame_place *last, void *dst, struct thaw_error *error)
{
    const struct image_pack *pack = &image->packs[extent->pack];
    uint64_t frame = extent->pack_page / pack->frame_pages, page;
    if (last->pack != pack || last->frame != frame) {
        last->pack = NULL;
        int r = pack_read_frame(pack->reader, frame, &scratch->frame, error);
        if (r < 0)
            return r;
        *last = (struct frame_place){pack, frame};
    }
    if (!image_slot_is_wanted(image, extent->pack, extent->pack_page, &page) ||
        page != extent->page)
        return error_set(error, THAW_ECORRUPT,
            "page %" PRIu64 " is not where the index of memory says", extent->page);
    memcpy(
        dst, scratch->frame.pages + extent->pack_page % pack->frame_pages * PAGE_BYTES, PAGE_BYTES);
    return 0;
}

/* What is read for us is nothing that the guest needs: it is to be neither recorded nor there
 * already when the guest does. */
static int read_unrecorded(
    struct image *image, uint64_t page, uint64_t count, uint8_t *dst, struct thaw_error *error)
{
    struct fill_scratch *scratch = image_take_scratch(image);
    struct frame_place last = {0};
    struct index_extent extent;
    int r = scratch ? 0 : error_errno(error, ENOMEM, "reading an image");
    for (uint64_t i = 0; i < count && r == 0; i++) {
        bool data =
            page_index_lookup(image->index, page + i, &extent) && extent.kind == EXTENT_DATA;
        if (!data || image_apart_has(image, page + i, 1) ||
            image_frame_is_present(
                image, extent.pack, extent.pack_page / image->packs[extent.pack].frame_pages))
            r = read_memory(image, page + i, 1, dst + i * PAGE_BYTES, error);
        else
            r = read_past(image, &extent, scratch, &last, dst + i * PAGE_BYTES, error);
    }
    if (scratch)
        image_give_scratch(image, scratch);
    return r;
}

int image_read(
    struct image *image, uint64_t page, uint64_t count, void *dst, struct thaw_error *error)
{
    if (image_is_recording(image) && range_fits(page, count, image->bytes / PAGE_BYTES))
        return read_unrecorded(image, page, count, dst, error);
    int r = image_make_present(image, page, count, error);
    return r < 0 ? r : read_memory(image, page, count, dst, error);
}

/* Sealing an image that is not complete does nothing, and one that can't be sealed is tried again
 * when its descriptor is asked for. */
static void *read_ahead_thread(void *arg)
{
    struct image *image = arg;
    nanosleep(&(struct timespec){.tv_nsec = START_NS}, NULL);
    struct fill_job job = {.image = image, .background = true, .lock = PTHREAD_MUTEX_INITIALIZER};
    image_prefetch_let_run(image);
    work(&job, false);
    pthread_mutex_destroy(&job.lock);
    if (!atomic_load(&image->stopping))
        image_seal(image, NULL);
    return NULL;
}

int image_read_ahead(struct image *image, struct thaw_error *error)
{
    int r = 0;
    if (atomic_load(&image->complete))
        return 0;
    if (image_is_recording(image))
        return 0; /* it would hide what is needed */
    pthread_mutex_lock(&image->threads_lock);
    if (!image->read_ahead_started) {
        r = image_start_thread(
            &image->read_ahead_thread, read_ahead_thread, image, "thaw-readahead", error);
        image->read_ahead_started = r == 0;
    }
    pthread_mutex_unlock(&image->threads_lock);
    return r;
}
