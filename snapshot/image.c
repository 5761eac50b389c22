// SPDX-License-Identifier: Apache-2.0
// Making and freeing images, the states of frames, completion. Reads no frame, serves no fault.

#include "image_internal.h"
#include "thread.h"
#include <fcntl.h>
#include <inttypes.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SEALS_SIZE     (F_SEAL_SHRINK | F_SEAL_GROW)
#define SEALS_FILLER   (SEALS_SIZE | F_SEAL_FUTURE_WRITE)
#define SEALS_COMPLETE (SEALS_SIZE | F_SEAL_WRITE)

/* Unmapping takes long, and nothing else can be mapped meanwhile: in pieces, others get a turn. */
#define UNMAP_AT_ONCE_BYTES (4 * MIB)

static struct image *new_empty(uint64_t bytes)
{
    struct image *image = calloc(1, sizeof(*image));
    if (!image)
        return NULL;
    atomic_init(&image->references, 1);
    image->bytes = bytes;
    image->fd = image->uffd = image->stop_fd = -1;
    pthread_mutex_init(&image->lock, NULL);
    pthread_mutex_init(&image->seal_lock, NULL);
    pthread_mutex_init(&image->threads_lock, NULL);
    pthread_cond_init(&image->filled, NULL);
    pthread_cond_init(&image->released, NULL);
    return image;
}

/* Index and packs stay with the caller, who may be image_new on its way out. */
static void free_image(struct image *image)
{
    while (image->scratches) {
        struct fill_scratch *scratch = image->scratches;
        image->scratches = scratch->next;
        frame_scratch_fini(&scratch->frame);
        free(scratch->stored);
        free(scratch);
    }
    /* The mapping before the descriptor: unregistered, it would plant zeros when touched. */
    if (image->filler)
        munmap(image->filler, image->bytes);
    if (atomic_load(&image->view))
        munmap((void *)(uintptr_t)atomic_load(&image->view), image->bytes);
    if (image->uffd >= 0)
        close(image->uffd);
    if (image->fd >= 0)
        close(image->fd);
    if (image->stop_fd >= 0)
        close(image->stop_fd);
    image_record_fini(image);
    image_apart_fini(image);
    for (unsigned i = 0; i < image->pack_count; i++) {
        free((void *)image->packs[i].states);
        free(image->packs[i].wanted);
    }
    free(image->packs);
    pthread_cond_destroy(&image->released);
    pthread_cond_destroy(&image->filled);
    pthread_mutex_destroy(&image->threads_lock);
    pthread_mutex_destroy(&image->seal_lock);
    pthread_mutex_destroy(&image->lock);
    free(image);
}

/* --- The frames that are needed --------------------------------------------------------------- */

static int add_packs(
    struct image *image, struct pack_reader *const *readers, struct thaw_error *error)
{
    unsigned count = page_index_pack_count(image->index);
    image->packs = calloc(MAX(count, 1u), sizeof(*image->packs));
    if (!image->packs)
        return error_errno(error, ENOMEM, "allocating an image");
    for (unsigned i = 0; i < count; i++) {
        struct image_pack *pack = &image->packs[image->pack_count++];
        pack->reader = readers[i];
        if (!wire_b16_equal(pack_reader_id(readers[i]), page_index_pack_id(image->index, i)) ||
            page_index_pack_extent(image->index, i) > pack_reader_page_count(readers[i]))
            return error_set(error, THAW_ECORRUPT,
                "pack %u of a RAM index is not the one that the index was made with", i);
        pack->frame_pages = pack_reader_frame_pages(readers[i]);
        pack->frame_count = pack_reader_frame_count(readers[i]);
        pack->states = calloc(pack->frame_count + 1, sizeof(*pack->states));
        pack->wanted = calloc(pack->frame_count + 1, sizeof(*pack->wanted));
        if (!pack->states || !pack->wanted)
            return error_errno(error, ENOMEM, "allocating an image");
    }
    return 0;
}

/* Frames hold copies of pages that are wanted from elsewhere, so each is wanted for some number of
 * its pages. One that does not have them contradicts the index, and is bad. */
static void count_wanted(struct image_pack *pack, const struct index_extent *extent)
{
    uint64_t at = extent->pack_page, end = at + extent->count;
    while (at < end) {
        uint64_t frame = at / pack->frame_pages;
        uint64_t next = MIN(end, (frame + 1) * pack->frame_pages);
        /* An index may map more pages to a frame than it has, and is then wrong, as is any count
         * that is too high. */
        uint64_t wanted = pack->wanted[frame] + (next - at);
        pack->wanted[frame] = (uint16_t)MIN(wanted, (uint64_t)UINT16_MAX);
        at = next;
    }
}

static void find_frames(struct image *image)
{
    const struct index_extent *extents = page_index_extents(image->index);
    size_t count = page_index_extent_count(image->index);
    for (size_t i = 0; i < count; i++)
        if (extents[i].kind == EXTENT_DATA)
            count_wanted(&image->packs[extents[i].pack], &extents[i]);
    for (unsigned i = 0; i < image->pack_count; i++) {
        struct image_pack *pack = &image->packs[i];
        for (uint64_t frame = 0; frame < pack->frame_count; frame++) {
            if (pack->wanted[frame] == 0)
                continue;
            atomic_store_explicit(&pack->states[frame], FRAME_ABSENT, memory_order_relaxed);
            image->frames++;
        }
    }
    atomic_init(&image->complete, image->frames == 0);
}

/* --- The memory ------------------------------------------------------------------------------- */

/* The filler's mapping, and the only way to fill the image from then on. The seals come last: they
 * forbid all new writable mappings, so that the filler's stays the only one. A fork must not get
 * that: in the child it would not be registered, and in the way of the last seal. */
static int make_filler(struct image *image, struct thaw_error *error)
{
    void *filler =
        mmap(NULL, image->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, image->fd, 0);
    if (filler == MAP_FAILED)
        return error_errno(error, errno, "mapping an image of %" PRIu64 " MiB", image->bytes / MIB);
    image->filler = filler;
    if (madvise(filler, image->bytes, MADV_DONTFORK) < 0)
        return error_errno(error, errno, "keeping an image out of forked processes");
    int r = fault_register(image->uffd, filler, image->bytes, error);
    if (r == 0 && fcntl(image->fd, F_ADD_SEALS, SEALS_FILLER) < 0)
        return error_errno(error, errno, "sealing an image");
    return r;
}

static int make_memory(struct image *image, int device_fd, bool no_faults, struct thaw_error *error)
{
    int r = 0;
    image->fd = memfd_create("thaw-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (image->fd < 0 || ftruncate(image->fd, (off_t)image->bytes) < 0)
        return error_errno(error, errno, "making an image of %" PRIu64 " MiB", image->bytes / MIB);
    if (!no_faults && fault_open(device_fd, &image->uffd, NULL) == 0)
        r = make_filler(image, error);
    else if (fcntl(image->fd, F_ADD_SEALS, SEALS_SIZE) < 0)
        r = error_errno(error, errno, "sealing an image");
    if (r < 0)
        return r;
    image->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (image->stop_fd < 0)
        return error_errno(error, errno, "making an event descriptor for an image");
    return 0;
}

int image_new(struct page_index *index, struct pack_reader *const *packs,
    const struct image_options *options, struct image **ret, struct thaw_error *error)
{
    const struct page_space *space = page_index_space(index);
    if (space->kind != SPACE_KIND_RAM || space->page_count == 0 ||
        space->page_count > THAW_MEM_MAX_BYTES / PAGE_BYTES)
        return error_set(error, -EINVAL, "an index of %" PRIu64 " pages does not describe RAM",
            space->page_count);
    struct image *image = new_empty(space->page_count * PAGE_BYTES);
    if (!image)
        return error_errno(error, ENOMEM, "allocating an image");
    image->index = index;
    int r = add_packs(image, packs, error);
    if (r == 0)
        r = make_memory(
            image, options ? options->userfaultfd_fd : 0, options && options->no_faults, error);
    if (r < 0) {
        free_image(image);
        return r;
    }
    find_frames(image);
    if (options) {
        image->release = options->release;
        image->release_data = options->release_data;
    }
    *ret = image;
    return 0;
}

int image_adopt(int fd, uint64_t bytes, struct image **ret, struct thaw_error *error)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || fstat(fd, &st) < 0)
        return error_errno(error, errno, "examining an image of another process");
    if ((seals & SEALS_COMPLETE) != SEALS_COMPLETE || st.st_size < 0 ||
        (uint64_t)st.st_size != bytes)
        return error_set(error, -EINVAL,
            "an image of another process is not sealed or not %" PRIu64 " bytes long", bytes);
    struct image *image = new_empty(bytes);
    if (!image)
        return error_errno(error, ENOMEM, "allocating an image");
    image->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (image->fd < 0) {
        int err = errno;
        free_image(image);
        return error_errno(error, err, "duplicating an image's descriptor");
    }
    image->sealed = true;
    atomic_init(&image->complete, true);
    *ret = image;
    return 0;
}

struct image *image_ref(struct image *image)
{
    atomic_fetch_add(&image->references, 1);
    return image;
}

void image_unref(struct image *image)
{
    if (!image || atomic_fetch_sub(&image->references, 1) > 1)
        return;
    atomic_store(&image->stopping, true);
    if (image->stop_fd >= 0) {
        ssize_t ignored = write(image->stop_fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)ignored;
    }
    if (image->read_ahead_started)
        pthread_join(image->read_ahead_thread, NULL);
    if (image->fault_thread_started)
        pthread_join(image->fault_thread, NULL);
    image_prefetch_fini(image);
    if (image->release) {
        image->release(image->release_data);
    } else {
        for (unsigned i = 0; i < image->pack_count; i++)
            pack_reader_close(image->packs[i].reader);
        page_index_free(image->index);
    }
    free_image(image);
}

/* --- States of frames ------------------------------------------------------------------------- */

/* Frames beyond the first get its story: it is most likely theirs. */
static int bad_frame_locked(
    const struct image *image, unsigned pack, uint64_t frame, struct thaw_error *error)
{
    return error_set(error, image->first_error.code,
        "frame %" PRIu64 " of pack %u could not be read before; the first that could not: %s",
        frame, pack, image->first_error.message);
}

int image_claim_frame(
    struct image *image, unsigned pack, uint64_t frame, bool wait, struct thaw_error *error)
{
    _Atomic uint8_t *state = &image->packs[pack].states[frame];
    int r = 0;
    pthread_mutex_lock(&image->lock);
    while (wait && *state == FRAME_FILLING)
        pthread_cond_wait(&image->filled, &image->lock);
    switch (atomic_load(state)) {
    case FRAME_ABSENT:
        *state = FRAME_FILLING;
        r = 1;
        break;
    case FRAME_FILLING:
        r = -EINPROGRESS;
        break;
    case FRAME_BAD:
        r = bad_frame_locked(image, pack, frame, error);
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&image->lock);
    return r;
}

int image_finish_frame(
    struct image *image, unsigned pack, uint64_t frame, int result, const struct thaw_error *error)
{
    pthread_mutex_lock(&image->lock);
    if (result >= 0)
        image->frames_present++;
    else if (image->frames_bad++ == 0)
        image->first_error = *error;
    /* In this order: who finds every frame present must not find the image incomplete. */
    if (image->frames_present == image->frames)
        atomic_store(&image->complete, true);
    atomic_store_explicit(&image->packs[pack].states[frame], result < 0 ? FRAME_BAD : FRAME_PRESENT,
        memory_order_release);
    pthread_cond_broadcast(&image->filled);
    pthread_mutex_unlock(&image->lock);
    return result;
}

void image_unclaim_frame(struct image *image, unsigned pack, uint64_t frame)
{
    pthread_mutex_lock(&image->lock);
    atomic_store(&image->packs[pack].states[frame], FRAME_ABSENT);
    pthread_cond_broadcast(&image->filled);
    pthread_mutex_unlock(&image->lock);
}

void image_get_info(struct image *image, struct image_info *ret)
{
    pthread_mutex_lock(&image->lock);
    *ret = (struct image_info){
        .bytes = image->bytes,
        .frames = image->frames,
        .frames_present = image->frames_present,
        .frames_bad = image->frames_bad,
        .complete = atomic_load(&image->complete),
        .demand_pages = atomic_load(&image->demand_pages),
    };
    pthread_mutex_unlock(&image->lock);
    ret->recording = image_is_recording(image);
    ret->recorded_pages = image_recorded_pages(image);
    image_prefetch_describe(image, ret);
}

/* --- Completion ------------------------------------------------------------------------------- */

/* Nobody publishes any more: every frame that is wanted is PRESENT, and the prefetch has ended.
 * Only where there is data is there anything to unmap. */
static void unmap_filler(struct image *image)
{
    if (!image->filler)
        return;
    const struct index_extent *extents = page_index_extents(image->index);
    size_t count = page_index_extent_count(image->index);
    uint64_t off = 0; /* all before it is unmapped */
    for (size_t i = 0; i < count; i++) {
        uint64_t end = (extents[i].page + extents[i].count) * PAGE_BYTES;
        if (extents[i].kind != EXTENT_DATA)
            continue;
        off = MAX(off, ALIGN_DOWN(extents[i].page * PAGE_BYTES, UNMAP_AT_ONCE_BYTES));
        for (; off < end; off += UNMAP_AT_ONCE_BYTES)
            madvise(
                image->filler + off, MIN(UNMAP_AT_ONCE_BYTES, image->bytes - off), MADV_DONTNEED);
    }
    munmap(image->filler, image->bytes);
    image->filler = NULL;
}

int image_seal(struct image *image, struct thaw_error *error)
{
    if (!atomic_load(&image->complete))
        return error_set(error, THAW_ESTATE, "an image that is not complete cannot be sealed");
    int r = 0;
    image_prefetch_await(image);
    pthread_mutex_lock(&image->seal_lock);
    unmap_filler(image);
    if (!image->sealed && fcntl(image->fd, F_ADD_SEALS, SEALS_COMPLETE) < 0)
        r = error_errno(error, errno, "sealing an image against writing");
    else
        image->sealed = true;
    pthread_mutex_unlock(&image->seal_lock);
    return r;
}

int image_fd(struct image *image, struct thaw_error *error)
{
    int r = image_seal(image, error);
    return r < 0 ? r : image->fd;
}

/* --- Threads ---------------------------------------------------------------------------------- */

int image_start_thread(
    pthread_t *ret, void *(*run)(void *), void *arg, const char *name, struct thaw_error *error)
{
    int r = thread_start(ret, name, run, arg);
    if (r < 0)
        return error_errno(error, -r, "starting an image's thread");
    return 0;
}
