// SPDX-License-Identifier: Apache-2.0
// Puts a recorded working set into an image, with large reads. Believes nothing of it: its frames
// are checked as all are, the index decides which pages have contents, and a frame that can't be
// had is passed over. Does not know where the recording came from.

#include "image_internal.h"
#include "timing.h"
#include <poll.h>
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

/* How long a guest is left alone after its working set is there, unless it needs so much else. */
#define ALONE_MS      250
#define ALONE_LOOK_MS 10
#define ALONE_PAGES   256

struct prefetch {
    struct pack_reader *hot; /* owned */
    uint64_t start_ns;
    atomic_bool cancelled;
    atomic_ullong pages; /* that were put in */
    atomic_ullong ns;
    _Atomic uint64_t wait_ns;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t given; /* `image` is set, or it is cancelled */
    pthread_cond_t done;  /* `running` has become 0 */
    struct image *image;  /* does not change once it is set */
    uint64_t next;        /* frame */
    unsigned running;
    pthread_t threads[THREADS_MAX]; /* joined at the end */
    unsigned thread_count;
};

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

/* Reading may begin before there is an image to put the pages into. NULL: there won't be one. */
static struct image *await_image(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->lock);
    while (!prefetch->image && !atomic_load(&prefetch->cancelled))
        pthread_cond_wait(&prefetch->given, &prefetch->lock);
    struct image *image = prefetch->image;
    pthread_mutex_unlock(&prefetch->lock);
    return image;
}

static bool is_cancelled(const struct prefetch *prefetch, const struct image *image)
{
    return atomic_load(&prefetch->cancelled) || atomic_load(&image->stopping);
}

/* Negative: there is no use in going on. */
static int use_piece(struct prefetch *prefetch, const struct piece *piece, const uint8_t *stored,
    struct frame_scratch *scratch)
{
    struct image *image = await_image(prefetch);
    if (!image)
        return -ECANCELED;
    for (unsigned i = 0; i < piece->count && !is_cancelled(prefetch, image); i++) {
        struct frame_entry entry;
        pack_reader_entry(prefetch->hot, piece->frame + i, &entry);
        image_give_way(image);
        int r = pack_decode_frame(prefetch->hot, piece->frame + i, stored, scratch, NULL);
        stored += entry.stored_bytes;
        if (r < 0)
            continue; /* damaged */
        r = publish(prefetch, entry.first_slot, (unsigned)r, scratch->pages);
        if (r < 0)
            return r;
    }
    return is_cancelled(prefetch, image) ? -ECANCELED : 0;
}

static void finish(struct prefetch *prefetch)
{
    pthread_mutex_lock(&prefetch->lock);
    if (--prefetch->running == 0) {
        atomic_store(&prefetch->ns, timing_now_ns() - prefetch->start_ns);
        pthread_cond_broadcast(&prefetch->done);
    }
    pthread_mutex_unlock(&prefetch->lock);
}

static void *prefetch_thread(void *arg)
{
    struct prefetch *prefetch = arg;
    struct frame_scratch scratch = {0};
    uint8_t *stored = malloc(READ_BYTES);
    struct piece piece;
    while (stored && take_piece(prefetch, &piece) &&
           pack_reader_read(prefetch->hot, stored, piece.stored_bytes, piece.file_off, NULL) == 0 &&
           use_piece(prefetch, &piece, stored, &scratch) == 0)
        ;
    frame_scratch_fini(&scratch);
    free(stored);
    finish(prefetch);
    return NULL;
}

/* --- Beginning and end ------------------------------------------------------------------------ */

static void prefetch_free(struct prefetch *prefetch)
{
    for (unsigned i = 0; i < prefetch->thread_count; i++)
        pthread_join(prefetch->threads[i], NULL);
    pack_reader_close(prefetch->hot);
    pthread_cond_destroy(&prefetch->given);
    pthread_cond_destroy(&prefetch->done);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}

void image_prefetch_cancel(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    atomic_store(&prefetch->cancelled, true);
    pthread_cond_broadcast(&prefetch->given);
    pthread_mutex_unlock(&prefetch->lock);
    prefetch_free(prefetch);
}

struct prefetch *image_prefetch_start(struct pack_reader *hot)
{
    struct prefetch *prefetch = calloc(1, sizeof(*prefetch));
    if (!prefetch) {
        pack_reader_close(hot);
        return NULL;
    }
    prefetch->hot = hot;
    prefetch->start_ns = timing_now_ns();
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->given, NULL);
    pthread_cond_init(&prefetch->done, NULL);
    uint64_t pieces = (pack_reader_frame_count(hot) + READ_FRAMES_MAX - 1) / READ_FRAMES_MAX;
    unsigned wanted = MIN((unsigned)MAX(get_nprocs(), 1), (unsigned)THREADS_MAX);
    prefetch->running = 1; /* this thread, until all are started */
    while (prefetch->thread_count < MIN((uint64_t)wanted, pieces)) {
        pthread_mutex_lock(&prefetch->lock);
        prefetch->running++;
        pthread_mutex_unlock(&prefetch->lock);
        pthread_t *thread = &prefetch->threads[prefetch->thread_count];
        if (image_start_thread(thread, prefetch_thread, prefetch, "thaw-prefetch", NULL) < 0) {
            finish(prefetch);
            break;
        }
        prefetch->thread_count++;
    }
    finish(prefetch);
    return prefetch;
}

void image_prefetch(struct image *image, struct prefetch *prefetch)
{
    if (!prefetch || image->uffd < 0 || image_apart_init(image, NULL) < 0) {
        image_prefetch_cancel(prefetch);
        return;
    }
    image->prefetch = prefetch;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->image = image;
    pthread_cond_broadcast(&prefetch->given);
    pthread_mutex_unlock(&prefetch->lock);
}

bool image_prefetch_await(struct image *image)
{
    struct prefetch *prefetch = image->prefetch;
    if (!prefetch)
        return false;
    pthread_mutex_lock(&prefetch->lock);
    bool waits = prefetch->running > 0;
    while (prefetch->running > 0)
        pthread_cond_wait(&prefetch->done, &prefetch->lock);
    pthread_mutex_unlock(&prefetch->lock);
    return waits;
}

void image_prefetch_wait(struct image *image)
{
    uint64_t start_ns = timing_now_ns();
    if (!image_prefetch_await(image))
        return;
    uint64_t ns = timing_now_ns() - start_ns, most = atomic_load(&image->prefetch->wait_ns);
    while (ns > most && !atomic_compare_exchange_weak(&image->prefetch->wait_ns, &most, ns))
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

/* Who decompresses the rest takes a processor from the guest, and the memory's bandwidth. A guest
 * that needs much else after all is not left waiting. */
void image_prefetch_let_run(struct image *image)
{
    struct pollfd stop = {.fd = image->stop_fd, .events = POLLIN};
    image_prefetch_await(image);
    if (!image->prefetch || atomic_load(&image->prefetch->pages) == 0)
        return;
    uint64_t before = atomic_load(&image->demand_pages);
    for (unsigned ms = 0; ms < ALONE_MS && !atomic_load(&image->stopping) &&
                          atomic_load(&image->demand_pages) - before < ALONE_PAGES;
         ms += ALONE_LOOK_MS)
        poll(&stop, 1, ALONE_LOOK_MS);
}

void image_prefetch_fini(struct image *image)
{
    if (image->prefetch)
        prefetch_free(image->prefetch);
}
