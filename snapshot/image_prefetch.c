// SPDX-License-Identifier: Apache-2.0
// Puts a recorded working set into an image, with large reads. Believes nothing of it: its frames
// are checked as all are, the index decides which pages have contents, and a frame that can't be
// had is passed over. Does not know where the recording came from.

#include "image_internal.h"
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>

/* How much is read at once, by each thread. Any frame fits. */
#define READ_BYTES      FRAME_RAW_BYTES_MAX
#define READ_FRAMES_MAX 4 /* so that all threads get some of a small working set */
#define THREADS_MAX     16

/* Who runs in the background waits so often, so long, before it goes on in spite of demands. */
#define YIELD_NS  50000
#define YIELD_MAX 20

struct prefetch {
    struct image *image;
    struct pack_reader *hot; /* owned */
    uint64_t start_ns;
    atomic_ullong pages; /* that were put in */
    atomic_ullong ns;
    atomic_ullong wait_ns;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t done;
    uint64_t next; /* frame */
    unsigned running;
    pthread_t threads[THREADS_MAX]; /* joined when the image goes */
    unsigned thread_count;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void image_give_way(const struct image *image)
{
    for (unsigned i = 0; i < YIELD_MAX && atomic_load(&image->demands) > 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = YIELD_NS}, NULL);
}

/* --- One frame -------------------------------------------------------------------------------- */

/* How many slots from `slot` on, up to `end`, are consecutive pages that the index maps to
 * consecutive pack pages; *ret is where they are by the index. 0: this slot is of no use. */
static unsigned find_run(
    const struct prefetch *prefetch, uint64_t slot, uint64_t end, struct index_extent *ret)
{
    const struct image *image = prefetch->image;
    uint64_t first = pack_reader_slot(prefetch->hot, slot);
    if (SLOT_SPACE(first) != SPACE_NUMBER_RAM ||
        !page_index_lookup(image->index, SLOT_PAGE(first), ret) || ret->kind != EXTENT_DATA)
        return 0;
    unsigned count = 1;
    while (slot + count < end && count < ret->count &&
           pack_reader_slot(prefetch->hot, slot + count) == first + count)
        count++;
    return count;
}

static int publish(
    struct prefetch *prefetch, uint64_t first_slot, unsigned slots, const uint8_t *pages)
{
    unsigned count;
    for (unsigned slot = 0; slot < slots; slot += MAX(count, 1u)) {
        struct index_extent at;
        count = find_run(prefetch, first_slot + slot, first_slot + slots, &at);
        if (count == 0 || image_apart_has(prefetch->image, at.page, count))
            continue;
        int r = image_put_pages(prefetch->image, at.page, count, pages + (size_t)slot * PAGE_BYTES);
        if (r < 0)
            return r;
        image_apart_note(prefetch->image, &at, count);
        atomic_fetch_add(&prefetch->pages, count);
    }
    return 0;
}

/* --- All of them ------------------------------------------------------------------------------ */

struct piece {
    uint64_t frame;
    unsigned count;
    uint64_t file_off;
    size_t stored_bytes;
};

/* The next frames that fit into one read. False: there are none. */
static bool take_piece(struct prefetch *prefetch, struct piece *ret)
{
    uint64_t frames = pack_reader_frame_count(prefetch->hot);
    pthread_mutex_lock(&prefetch->lock);
    *ret = (struct piece){.frame = prefetch->next};
    while (prefetch->next < frames && ret->count < READ_FRAMES_MAX) {
        struct frame_entry entry;
        pack_reader_entry(prefetch->hot, prefetch->next, &entry);
        if (ret->stored_bytes + entry.stored_bytes > READ_BYTES)
            break;
        if (ret->count++ == 0)
            ret->file_off = entry.file_off;
        ret->stored_bytes += entry.stored_bytes;
        prefetch->next++;
    }
    pthread_mutex_unlock(&prefetch->lock);
    return ret->count > 0;
}

static bool read_piece(const struct prefetch *prefetch, const struct piece *piece, uint8_t *stored)
{
    int fd = pack_reader_fd(prefetch->hot);
    for (size_t done = 0; done < piece->stored_bytes;) {
        ssize_t n =
            pread(fd, stored + done, piece->stored_bytes - done, (off_t)(piece->file_off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* Negative: there is no use in going on. */
static int use_piece(struct prefetch *prefetch, const struct piece *piece, const uint8_t *stored,
    struct frame_scratch *scratch)
{
    for (unsigned i = 0; i < piece->count && !atomic_load(&prefetch->image->stopping); i++) {
        struct frame_entry entry;
        pack_reader_entry(prefetch->hot, piece->frame + i, &entry);
        image_give_way(prefetch->image);
        int r = pack_decode_frame(prefetch->hot, piece->frame + i, stored, scratch, NULL);
        stored += entry.stored_bytes;
        if (r < 0)
            continue; /* damaged */
        r = publish(prefetch, entry.first_slot, (unsigned)r, scratch->pages);
        if (r < 0)
            return r;
    }
    return 0;
}

static void finish(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->lock);
    if (--prefetch->running == 0) {
        atomic_store(&prefetch->ns, now_ns() - prefetch->start_ns);
        pthread_cond_broadcast(&prefetch->done);
    }
    pthread_mutex_unlock(&prefetch->lock);
}

static void *prefetch_thread(void *arg)
{
    struct prefetch *prefetch = arg;
    struct fill_scratch *scratch = image_take_scratch(prefetch->image);
    if (scratch && !scratch->stored)
        scratch->stored = malloc(READ_BYTES);
    struct piece piece;
    while (scratch && scratch->stored && !atomic_load(&prefetch->image->stopping) &&
           take_piece(prefetch, &piece)) {
        if (!read_piece(prefetch, &piece, scratch->stored) ||
            use_piece(prefetch, &piece, scratch->stored, &scratch->frame) < 0)
            break;
    }
    if (scratch)
        image_give_scratch(prefetch->image, scratch);
    finish(prefetch);
    return NULL;
}

/* --- Beginning and end ------------------------------------------------------------------------ */

void image_prefetch(struct image *image, struct pack_reader *hot)
{
    struct prefetch *prefetch = image->uffd >= 0 ? calloc(1, sizeof(*prefetch)) : NULL;
    if (!prefetch || image_apart_init(image, NULL) < 0) {
        free(prefetch);
        pack_reader_close(hot);
        return;
    }
    prefetch->image = image;
    prefetch->hot = hot;
    prefetch->start_ns = now_ns();
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->done, NULL);
    image->prefetch = prefetch;
    unsigned wanted = MIN((unsigned)MAX(get_nprocs(), 1), (unsigned)THREADS_MAX);
    prefetch->running = 1; /* this thread, until all are started */
    for (unsigned i = 0; i < wanted; i++) {
        pthread_mutex_lock(&prefetch->lock);
        prefetch->running++;
        pthread_mutex_unlock(&prefetch->lock);
        if (image_start_thread(
                &prefetch->threads[i], prefetch_thread, prefetch, "thaw-prefetch", NULL) < 0) {
            finish(prefetch);
            break;
        }
        prefetch->thread_count++;
    }
    finish(prefetch);
}

void image_prefetch_wait(struct image *image)
{
    struct prefetch *prefetch = image->prefetch;
    if (!prefetch)
        return;
    uint64_t start_ns = now_ns();
    pthread_mutex_lock(&prefetch->lock);
    bool waited = prefetch->running > 0;
    while (prefetch->running > 0)
        pthread_cond_wait(&prefetch->done, &prefetch->lock);
    pthread_mutex_unlock(&prefetch->lock);
    uint64_t ns = now_ns() - start_ns, most = atomic_load(&prefetch->wait_ns);
    while (waited && ns > most && !atomic_compare_exchange_weak(&prefetch->wait_ns, &most, ns))
        ;
}

void image_prefetch_describe(struct image *image, struct image_info *ret)
{
    const struct prefetch *prefetch = image->prefetch;
    if (!prefetch)
        return;
    ret->prefetched_pages = atomic_load(&prefetch->pages);
    ret->prefetch_ns = atomic_load(&prefetch->ns);
    ret->prefetch_wait_ns = atomic_load(&prefetch->wait_ns);
}

void image_prefetch_fini(struct image *image)
{
    struct prefetch *prefetch = image->prefetch;
    if (!prefetch)
        return;
    for (unsigned i = 0; i < prefetch->thread_count; i++)
        pthread_join(prefetch->threads[i], NULL);
    pack_reader_close(prefetch->hot);
    pthread_cond_destroy(&prefetch->done);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}
