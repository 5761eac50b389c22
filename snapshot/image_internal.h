/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of images: image.c (construction, states of frames), image_fill.c, image_apart.c (pages
 * that come without their frame), image_record.c, image_prefetch.c, image_clone.c, image_reset.c.
 */
#ifndef SNAPSHOT_IMAGE_INTERNAL_H
#define SNAPSHOT_IMAGE_INTERNAL_H

#include "fault.h"
#include "image.h"
#include <pthread.h>
#include <stdatomic.h>

enum frame_state {
    FRAME_UNUSED, /* the index maps no page of it */
    FRAME_ABSENT,
    FRAME_FILLING, /* one thread is at it; others wait for `filled` */
    FRAME_PRESENT, /* its pages may be touched */
    FRAME_BAD,
};

struct image_pack {
    struct pack_reader *reader; /* owned */
    unsigned frame_pages;
    uint64_t frame_count;
    _Atomic uint8_t *states; /* written under lock; PRESENT may be read without */
    uint16_t *wanted;        /* how many pages of each frame the index maps */
    _Atomic uint16_t *apart; /* how many of them came apart from their frame; NULL: none */
};

/* What a thread needs to fill frames. They are kept for the next one. */
struct fill_scratch {
    struct fill_scratch *next;
    struct frame_scratch frame;
    uint8_t *stored; /* many frames in one read: FILL_READ_BYTES */
};

struct image {
    atomic_uint references;
    uint64_t bytes;
    int fd;                      /* the memfd */
    void (*release)(void *data); /* as in image_options */
    void *release_data;
    struct page_index *index; /* NULL: adopted */
    struct image_pack *packs;
    unsigned pack_count;
    uint64_t frames;         /* that are not UNUSED */
    _Atomic uint64_t *apart; /* one bit a page that came apart from its frame; NULL: none. Made with
                                the packs' `apart` before the first clone */
    struct recorder *recorder; /* NULL: never recorded. As early */
    struct prefetch *prefetch; /* NULL: none. As early */
    atomic_ullong demand_pages;

    /* The filler's own shared mapping of the memfd. Only fault_copy goes there: it is registered,
     * and whoever touched a missing page of it would wait for ever. NULL: there is no userfaultfd,
     * or no more need. */
    uint8_t *filler;
    int uffd; /* for the filler's mapping and those of all clones */

    _Atomic(const uint8_t *) view; /* read-only, for image_view; NULL: none yet */
    atomic_bool complete;          /* every page that the index maps is there */
    atomic_uint demands;     /* how many threads want a frame now: the background steps aside */
    pthread_mutex_t lock;    /* guards all below */
    pthread_cond_t filled;   /* a frame has left FILLING */
    pthread_cond_t released; /* a clone's `busy` has become 0 */
    uint64_t frames_present;
    uint64_t frames_bad;
    struct thaw_error first_error; /* of the first bad frame */
    struct fill_scratch *scratches;
    struct image_clone *clones; /* those that are registered */

    pthread_mutex_t seal_lock; /* guards filler's end, sealed; taken first */
    bool sealed;

    pthread_mutex_t threads_lock; /* guards the start of threads; taken first */
    int stop_fd;                  /* eventfd: readable when threads should end */
    atomic_bool stopping;
    bool fault_thread_started;
    bool read_ahead_started;
    pthread_t fault_thread;
    pthread_t read_ahead_thread;
};

/* Starts a thread that takes no signal of the embedding program. */
int image_start_thread(
    pthread_t *ret, void *(*run)(void *), void *arg, const char *name, struct thaw_error *error);

/* A scratch of this thread's until it is given back. NULL: no memory. */
struct fill_scratch *image_take_scratch(struct image *image);
void image_give_scratch(struct image *image, struct fill_scratch *scratch);

/* Claims a frame for filling. 1: it is the caller's, who must call image_finish_frame. 0: it is
 * there. Negative: it is bad. Waits while another thread fills it, or, if !wait, returns
 * -EINPROGRESS. */
int image_claim_frame(
    struct image *image, unsigned pack, uint64_t frame, bool wait, struct thaw_error *error);

/* `result` negative: bad, with *error. Returns result. */
int image_finish_frame(
    struct image *image, unsigned pack, uint64_t frame, int result, const struct thaw_error *error);

/* Gives a claimed frame back as it was. */
void image_unclaim_frame(struct image *image, unsigned pack, uint64_t frame);

/* True without a lock taken if the frame's pages may be touched. */
static inline bool image_frame_is_present(const struct image *image, unsigned pack, uint64_t frame)
{
    return atomic_load_explicit(&image->packs[pack].states[frame], memory_order_acquire) ==
           FRAME_PRESENT;
}

/* Makes the private pages of `mem`, a view of the image, what the image has. *pagemap is as in
 * pagemap_find_private. *ret_dropped says whether mappings were dropped, of pages that were not
 * private as well. */
int image_put_back(struct image *image, struct mem *mem, int *pagemap, bool *ret_dropped,
    struct thaw_error *error);

/* Takes the filler's mapping away and seals the memfd, once the image is complete. */
int image_seal(struct image *image, struct thaw_error *error);

/* Puts consecutive pages into the image: each appears at once and complete, and one that is there
 * already stays; where there is no userfaultfd, nobody looks yet. -errno. The filler must be mapped
 * until it returns: the caller has claimed a frame of the pages, or is waited for by image_seal. */
int image_put_pages(struct image *image, uint64_t page, unsigned count, const uint8_t *bytes);

/* True if the pack page is the contents of its page in this image, and not a copy that is wanted
 * from elsewhere, or not at all. */
bool image_slot_is_wanted(
    const struct image *image, unsigned pack, uint64_t pack_page, uint64_t *ret_page);

/* --- image_apart.c ---------------------------------------------------------------------------- */

int image_apart_init(struct image *image, struct thaw_error *error);
void image_apart_fini(struct image *image);

/* These pages, which begin an extent of data, were put in. A frame that lacks none any more becomes
 * PRESENT. */
void image_apart_note(struct image *image, const struct index_extent *extent, uint64_t count);

/* True without a lock taken if all these pages were noted: they may be touched. */
bool image_apart_has(const struct image *image, uint64_t page, uint64_t count);

/* --- image_record.c --------------------------------------------------------------------------- */

bool image_is_recording(const struct image *image);

/* Puts in and records the first page of an extent of data. 1: it is not recorded any more. */
int image_record_page(
    struct image *image, const struct index_extent *extent, struct thaw_error *error);

uint64_t image_recorded_pages(struct image *image);
void image_record_fini(struct image *image);

/* --- image_prefetch.c ------------------------------------------------------------------------- */

/* Lets those who want a page now go first, for a while. */
void image_give_way(const struct image *image);

void image_prefetch_describe(struct image *image, struct image_info *ret);

/* Waits until nothing is put in any more; false if that was so already. */
bool image_prefetch_await(struct image *image);

/* Leaves a guest whose working set is there alone for a moment. On the read-ahead thread. */
void image_prefetch_let_run(struct image *image);

/* Ends it early if image->stopping. When no other thread of the image is left. */
void image_prefetch_fini(struct image *image);

#endif
