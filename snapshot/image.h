/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: a snapshot's RAM, decompressed, in a memfd. The RAM of each clone is a private view of
 * it, so clones share every page that they have not written.
 *
 * An image fills as its frames are needed, in the background, or all at once before anything maps
 * it. However it fills, a page appears in it complete or not at all, and everything that may touch
 * a page before it is there is made to wait. A frame that can't be provided is `bad` for good:
 * whoever needs it gets an error, and a guest that touches it ends with THAW_REASON_MEMORY.
 *
 * An image that is complete is sealed against writing and may be handed to other processes.
 *
 * Any thread may call any function, except where it says otherwise. Lock order: the image's locks
 * come first and last: they are not held while frames are read or callbacks run.
 */
#ifndef SNAPSHOT_IMAGE_H
#define SNAPSHOT_IMAGE_H

#include "mem.h"
#include "pack.h"
#include "page_index.h"

struct image;

struct image_options {
    int userfaultfd_fd; /* an open /dev/userfaultfd, borrowed for the call; 0: opened if need be */
    bool no_faults;     /* do without userfaultfd, as where it is not to be had: nothing maps the
                           image before it is complete */
    /* Called when the image no longer needs index and packs, which stay the caller's; NULL: they
     * become the image's. */
    void (*release)(void *data);
    void *release_data;
};

/* Makes an empty image of the RAM that `index` describes. packs[i] is pack i of the index's table.
 * On success the image keeps index and packs. THAW_ECORRUPT if index and packs do not fit together.
 */
int image_new(struct page_index *index, struct pack_reader *const *packs,
    const struct image_options *options, struct image **ret, struct thaw_error *error);

/* Makes an image of another process's complete image. `fd` is duplicated. -EINVAL if it is not
 * sealed or not `bytes` long. */
int image_adopt(int fd, uint64_t bytes, struct image **ret, struct thaw_error *error);

struct image *image_ref(struct image *image);

/* Gives a reference back. The last one stops the background thread and frees all. NULL is allowed.
 * Not from a callback. */
void image_unref(struct image *image);

/* --- Filling ---------------------------------------------------------------------------------- */

/* Called on the thread that called image_fill_all. Frames, of which one may have failed. */
typedef void (*image_progress_fn)(void *data, uint64_t frames_done, uint64_t frames);

struct image_fill_options {
    unsigned threads;          /* 0: one a CPU, fewer where there is little to do */
    const atomic_bool *cancel; /* NULL, or stops the filling when set, with -ECANCELED */
    image_progress_fn progress;
    void *progress_data;
};

/* Fills in all that is missing and returns when the image is complete. The caller's thread works
 * too. After a failure (the first bad frame's) or a cancellation what is there stays. */
int image_fill_all(
    struct image *image, const struct image_fill_options *options, struct thaw_error *error);

/* Starts filling in the rest in the background, out of the way of those who wait for a page, and
 * then seals the image. Once is enough. Bad frames are passed over. */
int image_read_ahead(struct image *image, struct thaw_error *error);

/* Fills in the frames of pages [page, page + count). */
int image_make_present(
    struct image *image, uint64_t page, uint64_t count, struct thaw_error *error);

/* Copies pages [page, page + count) as they are before a clone writes to them; fills in those that
 * are missing, unless a recording would take that for a touch. Pages without data are zeros, and
 * take no memory. */
int image_read(
    struct image *image, uint64_t page, uint64_t count, void *dst, struct thaw_error *error);

struct image_info {
    uint64_t bytes;
    uint64_t frames; /* that contain pages of this image */
    uint64_t frames_present;
    uint64_t frames_bad;
    uint64_t demand_pages;     /* that were put in because someone needed one of their frame */
    uint64_t recorded_pages;   /* so far */
    uint64_t prefetched_pages; /* that came from a recorded working set */
    uint64_t prefetch_ns;      /* from image_prefetch to the last page; 0: none, or not done yet */
    uint64_t prefetch_wait_ns; /* for which image_prefetch_wait has waited, the longest time */
    bool recording;
    bool complete;
};

void image_get_info(struct image *image, struct image_info *ret);

/* The memfd, sealed, to be passed to another process. Borrowed. THAW_ESTATE if the image is not
 * complete. */
int image_fd(struct image *image, struct thaw_error *error);

/* --- Working sets ----------------------------------------------------------------------------- */

/* Records from now on which pages are needed, in the order in which they first are, and puts in
 * those alone instead of whole frames; read-ahead waits for the end of the recording. At most half
 * of the pages are recorded; filling goes on as usual then. Before the first clone. -EOPNOTSUPP
 * without userfaultfd, THAW_ESTATE if the image is complete. */
int image_record(struct image *image, struct thaw_error *error);

struct image_recording {
    uint32_t *pages; /* malloced */
    uint64_t count;
    bool full; /* there were more */
};

/* Ends the recording. THAW_ESTATE if there is none. */
int image_record_end(struct image *image, struct image_recording *ret, struct thaw_error *error);

struct prefetch;

/* Starts to read a recorded working set, which is taken over in every case, with at most one thread
 * a CPU. NULL: it can't, and nothing depends on it. */
struct prefetch *image_prefetch_start(struct pack_reader *hot);

/* Ends one that no image has been given. NULL is allowed. */
void image_prefetch_cancel(struct prefetch *prefetch);

/* Puts its pages into an image, which takes it over. A page is put in only if the index says that
 * it has contents, and what can't be read is left to others. Once, before the first clone; does
 * nothing where there is no userfaultfd. NULL is allowed. */
void image_prefetch(struct image *image, struct prefetch *prefetch);

/* Waits until that is done. */
void image_prefetch_wait(struct image *image);

/* --- Clones ----------------------------------------------------------------------------------- */

struct image_clone;

/* The clone can't have a page that it needs. Each time that one is needed, on the thread that
 * needed it (the fault thread, or one in mem_make_present), several at once: must end the VM
 * without waiting for its vCPUs, which may be waiting for this thread. */
typedef void (*image_bad_fn)(void *data, const char *detail);

/* Puts a private view of the image behind a VM's RAM, of the same size. If the image is not
 * complete, touches of missing pages wait for them from now on, and host code is given a presenter.
 * The first such clone starts the image's fault thread. Refuses images with bad frames. Nothing may
 * use `mem` during the call. Without userfaultfd, fills in the whole image first. The clone holds a
 * reference to the image; `mem` must not move. */
int image_attach(struct image *image, struct mem *mem, image_bad_fn bad, void *data,
    struct image_clone **ret, struct thaw_error *error);

/* 0, or why the image is of no use for another clone: a frame that is bad. */
int image_check(struct image *image, struct thaw_error *error);

/* Puts the memory of a clone back to what it was when it was attached. Nothing runs. */
int image_reset(struct image_clone *clone, struct thaw_error *error);

/* Takes the view away from `mem` again, whose range stays reserved. vCPUs and I/O threads must have
 * parked or ended: they are served until then, and must not touch `mem` any more. NULL is allowed.
 * Before mem_fini. Not from a callback. */
void image_detach(struct image_clone *clone);

#endif
