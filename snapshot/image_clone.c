// SPDX-License-Identifier: Apache-2.0
// Clones of images: mapping them, and serving the guest and host code that need their pages. Reads
// no frame itself.
//
// One userfaultfd and one thread for an image and all its clones: a frame is filled once whoever
// wants it, so a second thread would mostly wait for the first, and a range can't outlive its
// descriptor. The library keeps nothing for the whole process, and images do not wait for each
// other.

#include "image_internal.h"
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define FAULTS_AT_ONCE 16

/* Zeros come by so many pages, aligned: a guest that takes memory into use touches the next page
 * soon, and mapping zeros costs far less than one more fault. */
#define ZERO_PAGES_AT_ONCE 64

struct image_clone {
    struct image *image;
    struct mem *mem;
    image_bad_fn bad;
    void *data;
    bool guarded; /* registered: its touches wait */
    struct image_clone *next;
    unsigned busy;            /* image->lock: how many threads are serving it */
    _Atomic uint64_t *zeroed; /* one bit a page: zeros were mapped once; just spares calls */
    int pagemap;              /* see pagemap.h; kept from the first reset on */
};

/* --- Holding a clone while it is served ------------------------------------------------------- */

/* The clone that has the address, which stays mapped until clone_release. NULL: none (any more). */
static struct image_clone *hold_clone_at(struct image *image, uint64_t address)
{
    pthread_mutex_lock(&image->lock);
    struct image_clone *clone = image->clones;
    while (clone && address - (uintptr_t)clone->mem->base >= clone->mem->bytes)
        clone = clone->next;
    if (clone)
        clone->busy++;
    pthread_mutex_unlock(&image->lock);
    return clone;
}

static void release_clone(struct image_clone *clone)
{
    struct image *image = clone->image;
    pthread_mutex_lock(&image->lock);
    if (--clone->busy == 0)
        pthread_cond_broadcast(&image->released);
    pthread_mutex_unlock(&image->lock);
}

/* --- Serving ---------------------------------------------------------------------------------- */

static bool is_zeroed(const struct image_clone *clone, uint64_t page, uint64_t count)
{
    for (uint64_t i = page; i < page + count; i++)
        if (!(atomic_load_explicit(&clone->zeroed[i / 64], memory_order_relaxed) >> (i % 64) & 1))
            return false;
    return true;
}

/* Pages of an extent without data: the clone gets zeros of its own, not a page of the image. */
static int map_zeros(struct image_clone *clone, const struct index_extent *extent, uint64_t page,
    uint64_t count, struct thaw_error *error)
{
    uint64_t start = MAX(extent->page, ALIGN_DOWN(page, ZERO_PAGES_AT_ONCE));
    uint64_t end = MIN(extent->page + extent->count, ALIGN_UP(page + count, ZERO_PAGES_AT_ONCE));
    int r = fault_zero(
        clone->image->uffd, clone->mem->base + start * PAGE_BYTES, (end - start) * PAGE_BYTES);
    if (r < 0)
        return error_errno(error, -r, "mapping zeros at page %" PRIu64 " of guest memory", page);
    for (uint64_t i = start; i < end; i++)
        atomic_fetch_or_explicit(
            &clone->zeroed[i / 64], (uint64_t)1 << (i % 64), memory_order_relaxed);
    return 0;
}

/* The extent that holds `page`, whole: page_index_lookup gives what is left of it. */
static const struct index_extent *extent_at(const struct image *image, uint64_t page)
{
    return &page_index_extents(image->index)[page_index_find(image->index, page)];
}

/* Makes pages of the clone, which exist, safe to touch. `asks` are those who have not touched yet:
 * they may ask again and again. */
static int provide(
    struct image_clone *clone, uint64_t page, uint64_t count, bool asks, struct thaw_error *error)
{
    struct image *image = clone->image;
    int r = 0;
    while (count > 0 && r == 0) {
        const struct index_extent *extent = extent_at(image, page);
        uint64_t part = MIN(count, extent->page + extent->count - page);
        if (extent->kind == EXTENT_DATA)
            r = image_make_present(image, page, part, error);
        else if (!asks || !is_zeroed(clone, page, part))
            r = map_zeros(clone, extent, page, part, error);
        page += part;
        count -= part;
    }
    return r;
}

/* Only the page that was touched becomes inaccessible, not the whole clone: a device's thread may
 * be copying from a good page right now, and owners may read the memory of a VM that failed. No one
 * else touches this page: the presenter refuses it. */
static void serve_fault(struct image *image, uint64_t address)
{
    uint64_t start = ALIGN_DOWN(address, PAGE_BYTES);
    struct image_clone *clone = hold_clone_at(image, start);
    if (clone) {
        uint64_t ram_off = start - (uintptr_t)clone->mem->base;
        struct thaw_error error;
        if (provide(clone, ram_off / PAGE_BYTES, 1, false, &error) < 0) {
            /* The owner first: once woken, the vCPU must find the order to leave the guest. Also
             * if another thread has found the frame bad before, which may not have told yet. */
            clone->bad(clone->data, error.message);
            mem_forbid(clone->mem, ram_off, PAGE_BYTES);
        }
    }
    /* Always, even if the page was there already: whoever waits was not woken by that. */
    fault_wake(image->uffd, (void *)(uintptr_t)start, PAGE_BYTES);
    if (clone)
        release_clone(clone);
}

static void *fault_thread(void *arg)
{
    struct image *image = arg;
    struct pollfd fds[] = {
        {.fd = image->uffd, .events = POLLIN},
        {.fd = image->stop_fd, .events = POLLIN},
    };
    while (!(fds[1].revents & POLLIN)) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
            continue;
        uint64_t addresses[FAULTS_AT_ONCE];
        int count = fault_read(image->uffd, addresses, FAULTS_AT_ONCE);
        for (int i = 0; i < count; i++)
            serve_fault(image, addresses[i]);
    }
    return NULL;
}

static int start_fault_thread(struct image *image, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&image->threads_lock);
    if (!image->fault_thread_started) {
        r = image_start_thread(&image->fault_thread, fault_thread, image, "thaw-fault", error);
        image->fault_thread_started = r == 0;
    }
    pthread_mutex_unlock(&image->threads_lock);
    return r;
}

/* The presenter: on the thread that is about to touch the pages. */
static int present(void *data, uint64_t ram_off, uint64_t bytes)
{
    struct image_clone *clone = data;
    uint64_t first = ram_off / PAGE_BYTES;
    uint64_t last = (ram_off + bytes - 1) / PAGE_BYTES;
    struct thaw_error error;
    int r = provide(clone, first, last - first + 1, true, &error);
    if (r < 0)
        clone->bad(clone->data, error.message);
    return r;
}

/* --- Attaching and detaching ------------------------------------------------------------------ */

int image_check(struct image *image, struct thaw_error *error)
{
    pthread_mutex_lock(&image->lock);
    int r = image->frames_bad == 0
                ? 0
                : error_set(error, image->first_error.code, "%s", image->first_error.message);
    pthread_mutex_unlock(&image->lock);
    return r;
}

/* Nothing may touch the range before it is registered, or it would plant a page of zeros in the
 * image, for all clones: the view is made inaccessible, and opened last. */
static int map_guarded(struct image_clone *clone, struct thaw_error *error)
{
    struct image *image = clone->image;
    struct mem *mem = clone->mem;
    clone->zeroed = calloc((size_t)(mem->bytes / PAGE_BYTES + 63) / 64, sizeof(*clone->zeroed));
    if (!clone->zeroed)
        return error_errno(error, ENOMEM, "allocating a clone");
    int r = start_fault_thread(image, error);
    if (r == 0)
        r = mem_map_view(mem, image->fd, false, error);
    if (r == 0)
        r = fault_register(image->uffd, mem->base, mem->bytes, error);
    if (r < 0)
        return r;
    pthread_mutex_lock(&image->lock);
    clone->next = image->clones;
    image->clones = clone;
    pthread_mutex_unlock(&image->lock);
    clone->guarded = true;
    mem_set_presenter(mem, present, clone);
    return mem_allow(mem, error);
}

int image_attach(struct image *image, struct mem *mem, image_bad_fn bad, void *data,
    struct image_clone **ret, struct thaw_error *error)
{
    if (mem->bytes != image->bytes)
        return error_set(error, -EINVAL,
            "an image of %" PRIu64 " MiB does not fit a VM of %" PRIu64 " MiB", image->bytes / MIB,
            mem->bytes / MIB);
    const struct image_fill_options all = {0};
    int r = image_check(image, error);
    if (r == 0 && image->uffd < 0 && !atomic_load(&image->complete)) {
        r = image_fill_all(image, &all, error);
        if (r == 0)
            (void)image_seal(image, NULL); /* whoever wants the descriptor tries again */
    }
    if (r < 0)
        return r;
    struct image_clone *clone = calloc(1, sizeof(*clone));
    if (!clone)
        return error_errno(error, ENOMEM, "allocating a clone");
    clone->image = image_ref(image);
    clone->mem = mem;
    clone->pagemap = -1;
    clone->bad = bad;
    clone->data = data;
    r = atomic_load(&image->complete) ? mem_map_view(mem, image->fd, true, error)
                                      : map_guarded(clone, error);
    if (r < 0) {
        image_detach(clone);
        return r;
    }
    *ret = clone;
    return 0;
}

/* Nobody finds the clone any more, and those who had it are through. */
static void withdraw(struct image_clone *clone)
{
    struct image *image = clone->image;
    pthread_mutex_lock(&image->lock);
    struct image_clone **at = &image->clones;
    while (*at != clone)
        at = &(*at)->next;
    *at = clone->next;
    while (clone->busy > 0)
        pthread_cond_wait(&image->released, &image->lock);
    pthread_mutex_unlock(&image->lock);
}

void image_detach(struct image_clone *clone)
{
    if (!clone)
        return;
    if (clone->guarded) {
        withdraw(clone);
        mem_set_presenter(clone->mem, NULL, NULL);
    }
    /* Before the userfaultfd can go with the image: a range whose descriptor is closed is like one
     * that was never registered. */
    mem_unmap(clone->mem, NULL);
    image_unref(clone->image);
    if (clone->pagemap >= 0)
        close(clone->pagemap);
    free((void *)clone->zeroed);
    free(clone);
}

/* --- Resetting -------------------------------------------------------------------------------- */

int image_reset(struct image_clone *clone, struct thaw_error *error)
{
    bool dropped = false;
    int r = image_put_back(clone->image, clone->mem, &clone->pagemap, &dropped, error);
    /* Zeros that were mapped may be gone. */
    if (dropped && clone->zeroed)
        for (uint64_t i = 0; i < (clone->mem->bytes / PAGE_BYTES + 63) / 64; i++)
            atomic_store_explicit(&clone->zeroed[i], 0, memory_order_relaxed);
    return r;
}
