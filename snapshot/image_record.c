// SPDX-License-Identifier: Apache-2.0
// Records which pages of an image are needed. Exact to the page: the frame's other pages stay away,
// since whoever touched them would not be noticed any more, and nor would their neighbours, which
// the kernel maps together with a page. Knows nothing of files.

#include "image_internal.h"

#define FIRST_ROOM    4096u
#define RECORDED_PART 2 /* of all pages: more is no working set */

struct recorder {
    atomic_bool active;   /* changed with the lock held */
    pthread_mutex_t lock; /* guards all below. Held while a frame is read: whoever needs a page of
                             another one waits for that, too */
    uint32_t *pages;
    uint64_t count;
    uint64_t room;
    bool full;
    struct frame_scratch scratch;  /* the frame that was read last: */
    const struct image_pack *pack; /* NULL: none */
    uint64_t frame;
};

int image_record(struct image *image, struct thaw_error *error)
{
    if (atomic_load(&image->complete))
        return error_set(error, THAW_ESTATE,
            "a working set cannot be recorded: all memory has been read already");
    if (image->uffd < 0)
        return error_set(error, -EOPNOTSUPP,
            "a working set cannot be recorded without userfaultfd: see 'thaw doctor'");
    int r = image_apart_init(image, error);
    if (r < 0)
        return r;
    struct recorder *recorder = calloc(1, sizeof(*recorder));
    if (!recorder)
        return error_errno(error, ENOMEM, "recording a working set");
    pthread_mutex_init(&recorder->lock, NULL);
    atomic_init(&recorder->active, true);
    image->recorder = recorder;
    return 0;
}

void image_record_fini(struct image *image)
{
    struct recorder *recorder = image->recorder;
    if (!recorder)
        return;
    pthread_mutex_destroy(&recorder->lock);
    frame_scratch_fini(&recorder->scratch);
    free(recorder->pages);
    free(recorder);
}

bool image_is_recording(const struct image *image)
{
    return image->recorder && atomic_load(&image->recorder->active);
}

uint64_t image_recorded_pages(struct image *image)
{
    struct recorder *recorder = image->recorder;
    if (!recorder)
        return 0;
    pthread_mutex_lock(&recorder->lock);
    uint64_t count = recorder->count;
    pthread_mutex_unlock(&recorder->lock);
    return count;
}

/* Room for one more, or the end of the recording. */
static bool reserve_locked(struct image *image)
{
    struct recorder *recorder = image->recorder;
    if (!atomic_load(&recorder->active))
        return false;
    uint64_t limit = MAX(image->bytes / PAGE_BYTES / RECORDED_PART, (uint64_t)1);
    if (recorder->count < recorder->room)
        return true;
    uint64_t room = MIN(MAX(2 * recorder->room, (uint64_t)FIRST_ROOM), limit);
    uint32_t *more = room > recorder->count ? realloc(recorder->pages, room * sizeof(*more)) : NULL;
    if (more) {
        recorder->pages = more;
        recorder->room = room;
        return true;
    }
    recorder->full = true;
    atomic_store(&recorder->active, false);
    return false;
}

/* The frame is claimed. */
static int put_page_locked(
    struct image *image, const struct index_extent *extent, struct thaw_error *error)
{
    struct recorder *recorder = image->recorder;
    const struct image_pack *pack = &image->packs[extent->pack];
    uint64_t frame = extent->pack_page / pack->frame_pages, page;
    if (recorder->pack != pack || recorder->frame != frame) {
        recorder->pack = NULL;
        int r = pack_read_frame(pack->reader, frame, &recorder->scratch, error);
        if (r < 0)
            return r;
        recorder->pack = pack;
        recorder->frame = frame;
    }
    if (!image_slot_is_wanted(image, extent->pack, extent->pack_page, &page) ||
        page != extent->page)
        return error_set(error, THAW_ECORRUPT, "page %llu is not where the index of memory says",
            (unsigned long long)extent->page);
    size_t off = (size_t)(extent->pack_page % pack->frame_pages) * PAGE_BYTES;
    int r = image_put_pages(image, extent->page, 1, recorder->scratch.pages + off);
    return r < 0 ? error_errno(error, -r, "putting page %llu into an image",
                       (unsigned long long)extent->page)
                 : 0;
}

static int record_locked(
    struct image *image, const struct index_extent *extent, struct thaw_error *error)
{
    struct recorder *recorder = image->recorder;
    struct thaw_error own = {0};
    uint64_t frame = extent->pack_page / image->packs[extent->pack].frame_pages;
    if (image_apart_has(image, extent->page, 1))
        return 0;
    if (!reserve_locked(image))
        return 1;
    int r = image_claim_frame(image, extent->pack, frame, true, error);
    if (r <= 0)
        return r;
    r = put_page_locked(image, extent, &own);
    if (r < 0) {
        if (error)
            *error = own;
        return image_finish_frame(image, extent->pack, frame, r, &own);
    }
    image_unclaim_frame(image, extent->pack, frame);
    image_apart_note(image, extent, 1);
    recorder->pages[recorder->count++] = (uint32_t)extent->page;
    atomic_fetch_add(&image->demand_pages, 1);
    return 0;
}

int image_record_page(
    struct image *image, const struct index_extent *extent, struct thaw_error *error)
{
    pthread_mutex_lock(&image->recorder->lock);
    int r = record_locked(image, extent, error);
    pthread_mutex_unlock(&image->recorder->lock);
    return r;
}

int image_record_end(struct image *image, struct image_recording *ret, struct thaw_error *error)
{
    struct recorder *recorder = image->recorder;
    int r = THAW_ESTATE;
    if (recorder) {
        pthread_mutex_lock(&recorder->lock);
        if (atomic_load(&recorder->active) || recorder->pages) {
            atomic_store(&recorder->active, false);
            *ret = (struct image_recording){
                .pages = take_ptr(recorder->pages),
                .count = recorder->count,
                .full = recorder->full,
            };
            r = 0;
        }
        pthread_mutex_unlock(&recorder->lock);
    }
    return r < 0 ? error_set(error, r, "no working set is being recorded") : 0;
}
