// SPDX-License-Identifier: Apache-2.0
// Copies guest memory for a snapshot, for the most part while the guest runs. Neither pauses it nor
// knows what else belongs to a snapshot.
//
// Why the copies are of one instant
//
// The instant is when capture_memory_rest collects marks: no vCPU runs and no device writes. Say
// that a page is *settled* if its last copy (if it has none: what the snapshot is relative to, or
// zeros) is what the page holds. Throughout, each page is settled, marked, or in `wanted`:
//   first round  All marks are taken, of private pages or not. What is wanted then:
//                - of a booted VM with a base, all that had a mark. Also if they are not private:
//                the kernel may have taken a page of zeros back, as it does from underused huge
//                pages, and the base has what that held before. Marks that no write made were taken
//                by the snapshot before.
//                - without a base, or if all of a booted VM is wanted, all private pages, for which
//                the kernel is asked. The others are zero.
//                - of a restored VM, private pages that had a mark. One without is as it was saved
//                last, one that is not private is as it was restored.
//                A page that becomes private after that does so by a write, which marks it.
//   then         A mark is taken before its page is copied (dirty_take says why a write is either
//                in the copy or marked again), and all that were taken are wanted. They are few, so
//                nobody asks any more which pages are private: a page that has a mark for another
//                reason is copied in vain.
// A wanted page that is marked again need not be copied at once: the mark remains. At the instant
// no mark can be late: vCPUs have left the guest, I/O that was in flight has been waited for, and
// both mark first. So when the marks of that instant are taken and all wanted pages are copied
// before anything runs on, all pages are settled.
//
// `taken` remembers the marks of all rounds. If the snapshot fails they are put back; those of
// pages that are not private say nothing then, as at the beginning.

#include "capture_memory.h"
#include "dirty.h"
#include "pagemap.h"
#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES_MIN     (4 * MIB)
#define BUFFER_BYTES_MAX     (256 * MIB)
#define CHECK_INTERVAL_PAGES 256

#define ROUNDS_MAX           10
#define SETTLED_PAGES        128 /* a round of so few is copied before the guest can have written many */
#define READY_PAGES          1024 /* of the buffer are made ready for what is left for the pause */
#define STALE_PERCENT_MAX    25

/* Where a page's last copy is. */
#define PLACE_NONE   0u
#define PLACE_ZERO   1u
#define PLACE_PACK   2u                                      /* and up: page of the pack */
#define PLACE_BUFFER (PLACE_PACK + (uint32_t)PACK_PAGES_MAX) /* and up: page of the buffer */

_Static_assert(
    PACK_PAGES_MAX + BUFFER_BYTES_MAX / PAGE_BYTES < UINT32_MAX - 2, "a place has 32 bits");

struct capture_memory {
    struct capture *capture;
    struct thaw_job *job;
    struct mem *mem;
    int vm_fd;
    size_t words;     /* of each bitmap: one bit a page */
    uint64_t *taken;  /* whose marks were taken away */
    uint64_t *wanted; /* to be copied */
    uint64_t *marked; /* what was read last */
    uint64_t *placed; /* that have a place */
    uint32_t *places; /* by page of RAM; only touched where pages are copied */
    uint8_t *buffer;
    uint32_t buffer_pages;
    uint32_t buffer_used;
    uint64_t pack_pages; /* pages of RAM that were put into the pack, stale ones included */
    uint64_t copied;     /* pages, each time that they were */
    uint64_t stored;     /* of them put into the pack, or found to be zero */
    bool relative;       /* what is not copied is as in capture->from; else it is zero */
    bool paused;
    uint8_t page[PAGE_BYTES];
};

static uint64_t count_bits(const uint64_t *bits, size_t words)
{
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (uint64_t)__builtin_popcountll(bits[i]);
    return count;
}

/* --- Memory for all that ---------------------------------------------------------------------- */

/* Address space that costs nothing until it is touched. */
static void *reserve(size_t bytes)
{
    void *got = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return got == MAP_FAILED ? NULL : got;
}

static uint64_t choose_buffer(const struct mem *mem)
{
    uint64_t bytes = MAX(BUFFER_BYTES_MIN, MIN(BUFFER_BYTES_MAX, mem->bytes / 4));
    return MIN(bytes, mem->bytes) / PAGE_BYTES;
}

int capture_memory_new(struct capture *capture, struct thaw_job *job, bool live,
    struct capture_memory **ret, struct thaw_error *error)
{
    struct capture_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return error_errno(error, ENOMEM, "preparing to copy guest memory");
    memory->capture = capture;
    memory->job = job;
    memory->mem = &capture->vm->mem;
    memory->vm_fd = capture->vm->fd;
    /* All that a VM ever held which was not restored is in its memory. From there it is had sooner
     * than from the packs of earlier snapshots; but not while the guest stands still for it. */
    memory->relative = capture->from && (capture->diff || capture->lineage->origin ||
                                            (capture->flags & THAW_SNAPSHOT_STOP_AND_COPY));
    memory->words = dirty_bitmap_words(memory->mem);
    uint64_t **bitmaps[] = {&memory->taken, &memory->wanted, &memory->marked, &memory->placed};
    bool complete = true;
    for (size_t i = 0; i < ARRAY_SIZE(bitmaps); i++) {
        *bitmaps[i] = calloc(memory->words, sizeof(uint64_t));
        complete = complete && *bitmaps[i];
    }
    memory->places = reserve(memory->words * 64 * sizeof(memory->places[0]));
    if (live) {
        memory->buffer_pages = (uint32_t)choose_buffer(memory->mem);
        memory->buffer = reserve((size_t)memory->buffer_pages * PAGE_BYTES);
    }
    if (!complete || !memory->places || (live && !memory->buffer)) {
        capture_memory_free(memory);
        return error_errno(error, ENOMEM, "preparing to copy guest memory");
    }
    if (live)
        (void)madvise(memory->buffer, (size_t)memory->buffer_pages * PAGE_BYTES, MADV_HUGEPAGE);
    *ret = memory;
    return 0;
}

static void free_buffer(struct capture_memory *memory)
{
    if (memory->buffer)
        munmap(memory->buffer, (size_t)memory->buffer_pages * PAGE_BYTES);
    memory->buffer = NULL;
}

void capture_memory_free(struct capture_memory *memory)
{
    if (!memory)
        return;
    free(memory->taken);
    free(memory->wanted);
    free(memory->marked);
    free(memory->placed);
    if (memory->places)
        munmap(memory->places, memory->words * 64 * sizeof(memory->places[0]));
    free_buffer(memory);
    free(memory);
}

void capture_memory_put_back(struct capture_memory *memory)
{
    dirty_put_back(memory->mem, memory->taken);
}

/* Nothing that the pause touches shall fault there, nor the bitmaps come from main memory. */
static void make_ready(struct capture_memory *memory)
{
    size_t count = MIN(READY_PAGES, memory->buffer_pages - memory->buffer_used);
    memset(memory->buffer + (size_t)memory->buffer_used * PAGE_BYTES, 0, count * PAGE_BYTES);
    (void)dirty_peek(memory->mem, memory->vm_fd, memory->marked, NULL);
    for (size_t i = 0; i < memory->words; i += 8)
        (void)*(const volatile uint64_t *)&memory->wanted[i];
}

/* --- Copying ---------------------------------------------------------------------------------- */

static void set_place(struct capture_memory *memory, uint64_t page, uint32_t place)
{
    uint32_t old = memory->places[page];
    if (old >= PLACE_PACK && old < PLACE_BUFFER)
        memory->capture->result.stale_pages++;
    memory->places[page] = place;
    memory->placed[page / 64] |= (uint64_t)1 << (page % 64);
}

/* Puts bytes that no one else writes into the pack, unless they are all zero. */
static int store_page(
    struct capture_memory *memory, uint64_t page, const uint8_t *bytes, struct thaw_error *error)
{
    uint64_t pack_page = 0;
    if (++memory->stored % CHECK_INTERVAL_PAGES == 0)
        job_advance(memory->job, CHECK_INTERVAL_PAGES * PAGE_BYTES);
    if (frame_page_is_zero(bytes)) {
        set_place(memory, page, PLACE_ZERO);
        return 0;
    }
    int r =
        pack_writer_add(memory->capture->writer, SPACE_NUMBER_RAM, page, bytes, &pack_page, error);
    if (r == 0) {
        memory->pack_pages++;
        set_place(memory, page, (uint32_t)(PLACE_PACK + pack_page));
    }
    return r;
}

static int unavailable(int r, uint64_t page, struct thaw_error *error)
{
    return error_set(error, r, "page %llu of guest memory: what it was restored from can't be read",
        (unsigned long long)page);
}

/* Into the buffer if it is there already or `keep` allows it and there is room; else through the
 * pack's compression. */
static int copy_page(
    struct capture_memory *memory, uint64_t page, bool keep, struct thaw_error *error)
{
    uint32_t place = memory->places[page];
    bool again = place >= PLACE_BUFFER;
    if (!again && !(keep && memory->buffer_used < memory->buffer_pages)) {
        int r = mem_copy_page(memory->mem, page, memory->page);
        return r < 0 ? unavailable(r, page, error) : store_page(memory, page, memory->page, error);
    }
    uint32_t slot = again ? place - PLACE_BUFFER : memory->buffer_used;
    int r = mem_copy_page(memory->mem, page, memory->buffer + (size_t)slot * PAGE_BYTES);
    if (r < 0)
        return unavailable(r, page, error);
    if (!again) {
        memory->buffer_used++;
        set_place(memory, page, PLACE_BUFFER + slot);
    }
    return 0;
}

static int check(struct capture_memory *memory, struct thaw_error *error)
{
    if (++memory->copied % CHECK_INTERVAL_PAGES != 0 || !job_cancelled(memory->job))
        return 0;
    return error_set(error, -ECANCELED, "cancelled");
}

/* Copies all wanted pages, after which none is. */
static int copy_wanted(struct capture_memory *memory, bool keep, struct thaw_error *error)
{
    for (size_t i = 0; i < memory->words; i++) {
        for (; memory->wanted[i]; memory->wanted[i] &= memory->wanted[i] - 1) {
            uint64_t page = i * 64 + (uint64_t)__builtin_ctzll(memory->wanted[i]);
            int r = copy_page(memory, page, keep, error);
            if (r == 0)
                r = check(memory, error);
            if (r < 0)
                return r;
            memory->capture->result.paused_pages += memory->paused;
        }
    }
    return 0;
}

/* The same through compression, which is slow: now and then, what was marked again is left out. It
 * would only become stale. */
static int stream_wanted(struct capture_memory *memory, struct thaw_error *error)
{
    /* Reading the log of all RAM shall not cost more than it spares. */
    uint64_t interval = MAX(512, memory->words / 16);
    uint64_t next = interval;
    for (size_t i = 0; i < memory->words; i++) {
        if (memory->copied >= next) {
            int r = dirty_peek(memory->mem, memory->vm_fd, memory->marked, error);
            for (size_t j = i; j < memory->words && r == 0; j++)
                memory->wanted[j] &= ~memory->marked[j];
            if (r < 0)
                return r;
            next = memory->copied + interval;
        }
        for (; memory->wanted[i]; memory->wanted[i] &= memory->wanted[i] - 1) {
            uint64_t page = i * 64 + (uint64_t)__builtin_ctzll(memory->wanted[i]);
            int r = copy_page(memory, page, false, error);
            if (r == 0)
                r = check(memory, error);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* --- Rounds ----------------------------------------------------------------------------------- */

/* Adds what is marked to what is wanted. */
static int take_marks(struct capture_memory *memory, struct thaw_error *error)
{
    int r = dirty_take(memory->mem, memory->vm_fd, memory->marked, error);
    for (size_t i = 0; i < memory->words && r == 0; i++) {
        if (!memory->marked[i])
            continue;
        memory->taken[i] |= memory->marked[i];
        memory->wanted[i] |= memory->marked[i];
    }
    return r;
}

static int want_private(struct capture_memory *memory, bool marked_only, struct thaw_error *error)
{
    const struct mem *mem = memory->mem;
    memset(memory->wanted, 0, memory->words * sizeof(memory->wanted[0]));
    int r = pagemap_private(mem->base, mem->bytes, memory->wanted, error);
    for (size_t i = 0; i < memory->words && r == 0 && marked_only; i++)
        memory->wanted[i] &= memory->marked[i];
    return r;
}

/* What differs from the base, or from untouched memory. */
static int take_first(struct capture_memory *memory, struct thaw_error *error)
{
    const struct lineage *lineage = memory->capture->lineage;
    bool changes_only = memory->relative && lineage->base;
    int r = take_marks(memory, error);
    if (r == 0 && (!changes_only || lineage->origin))
        r = want_private(memory, changes_only, error);
    if (r < 0)
        return r;
    job_phase(memory->job, "memory", count_bits(memory->wanted, memory->words) * PAGE_BYTES);
    return 0;
}

struct need {
    uint64_t pages;
    uint64_t slots; /* of the buffer, that are not theirs yet */
    uint64_t stale; /* copies in the pack that become so */
};

static struct need count_wanted(const struct capture_memory *memory)
{
    struct need need = {0};
    for (size_t i = 0; i < memory->words; i++) {
        for (uint64_t left = memory->wanted[i]; left; left &= left - 1) {
            uint32_t place = memory->places[i * 64 + (size_t)__builtin_ctzll(left)];
            need.pages++;
            need.slots += place < PLACE_BUFFER;
            need.stale += place >= PLACE_PACK && place < PLACE_BUFFER;
        }
    }
    return need;
}

/* Whether a round that the buffer cannot take is worth it: it makes the pack larger, by pages that
 * may well be written again. */
static bool worth_storing(
    const struct capture_memory *memory, const struct need *need, uint64_t pages_before)
{
    uint64_t stale = memory->capture->result.stale_pages + need->stale;
    return need->pages <= pages_before / 2 && stale * 100 <= memory->pack_pages * STALE_PERCENT_MAX;
}

int capture_memory_rounds(struct capture_memory *memory, struct thaw_error *error)
{
    uint32_t *rounds = &memory->capture->result.rounds;
    uint64_t before = UINT64_MAX;
    bool kept = false;
    int r = take_first(memory, error);
    while (r == 0) {
        struct need need = count_wanted(memory);
        bool fits = need.slots <= memory->buffer_pages - memory->buffer_used;
        if (!fits && !worth_storing(memory, &need, before))
            break; /* they stay wanted */
        r = fits ? copy_wanted(memory, true, error) : stream_wanted(memory, error);
        ++*rounds;
        bool settles = !kept || need.pages <= before / 4 * 3;
        if (r < 0 || need.pages <= SETTLED_PAGES || !settles || *rounds == ROUNDS_MAX)
            break;
        before = need.pages;
        kept = fits;
        r = take_marks(memory, error);
    }
    if (r == 0)
        make_ready(memory);
    return r;
}

int capture_memory_rest(struct capture_memory *memory, struct thaw_error *error)
{
    memory->paused = true;
    int r =
        memory->capture->result.rounds > 0 ? take_marks(memory, error) : take_first(memory, error);
    if (r == 0)
        r = copy_wanted(memory, true, error);
    memory->paused = false;
    return r;
}

/* --- The index -------------------------------------------------------------------------------- */

static int ram_space(const struct mem *mem, struct page_space *ret, struct thaw_error *error)
{
    *ret = (struct page_space){
        .number = SPACE_NUMBER_RAM,
        .kind = SPACE_KIND_RAM,
        .page_count = mem->bytes / PAGE_BYTES,
        .region_count = mem->region_count,
    };
    for (unsigned i = 0; i < mem->region_count; i++)
        ret->regions[i] = (struct index_region){
            .gpa = mem->regions[i].gpa,
            .page_count = mem->regions[i].bytes / PAGE_BYTES,
            .page = mem->regions[i].ram_off / PAGE_BYTES,
        };
    return capture_random_id(&ret->id, error);
}

static int index_page(struct capture_memory *memory, struct page_index_builder *builder,
    uint64_t page, struct thaw_error *error)
{
    struct capture *capture = memory->capture;
    uint32_t place = memory->places[page];
    int r = 0;
    if (place >= PLACE_BUFFER) {
        uint32_t slot = place - PLACE_BUFFER;
        r = store_page(memory, page, memory->buffer + (size_t)slot * PAGE_BYTES, error);
        if (r == 0)
            r = check(memory, error);
        place = memory->places[page];
    }
    if (r < 0)
        return r;
    capture->result.pages++;
    capture->result.zero_pages += place == PLACE_ZERO;
    return place == PLACE_ZERO ? page_index_builder_set_zero(builder, page, 1, error)
                               : page_index_builder_set_data(builder, page, 1, &capture->pack_id,
                                     place - PLACE_PACK, error);
}

int capture_memory_finish(struct capture_memory *memory, struct thaw_error *error)
{
    struct capture *capture = memory->capture;
    struct page_space space;
    struct page_index_builder *builder;
    const struct page_index *base = memory->relative ? capture->from->spaces[0].index : NULL;
    int r = ram_space(memory->mem, &space, error);
    if (r == 0)
        r = page_index_builder_new(&space, base, &builder, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < memory->words && r == 0; i++)
        for (uint64_t left = memory->placed[i]; left && r == 0; left &= left - 1)
            r = index_page(memory, builder, i * 64 + (uint64_t)__builtin_ctzll(left), error);
    free_buffer(memory);
    if (r < 0)
        page_index_builder_free(builder);
    else
        r = page_index_builder_finish(builder, &capture->indexes[SPACE_NUMBER_RAM], error);
    return r;
}
