// SPDX-License-Identifier: Apache-2.0
// Numbers its writes to a ring of pages, without pause, so that a copy of its memory shows whether
// it is of one instant. A disk may write to a second ring at the same time.
#include "../blkpattern/virtio_blk.h"
#include "cpu.h"
#include "guest.h"
#include "layout.h"
#include "tsc.h"

const char guest_name[] = "seqwrite";

enum {
    PAGES_PER_MIB = 256,
    STEP_PAGES = 16,      /* look at the clock and the disk once in so many pages */
    THROTTLE_MAX_LAG = 8, /* steps; after a longer pause don't catch up, go on from now */
    SECTORS_A_BLOCK = SEQWRITE_PAGE_BYTES / BLK_SECTOR_BYTES,
};

typedef volatile uint64_t page_words[SEQWRITE_PAGE_WORDS];

struct work {
    volatile uint64_t *control;
    page_words *ring, *disk_ring;
    uint64_t pages, stride;
    uint64_t disk_pages, disk_blocks; /* 0: no disk */
    struct blk disk;
    uint64_t in_slot[BLK_SLOTS];
    unsigned int in_flight;
    uint64_t cycles_per_step, deadline; /* 0: no limit */
};

static void write_page(const struct work *w, uint64_t number)
{
    volatile uint64_t *page = w->ring[number * w->stride & (w->pages - 1)];
    uint64_t before = number > w->pages ? number - w->pages : 0;

    if (page[SEQWRITE_FIRST] != before || page[SEQWRITE_LAST] != before)
        fail("before write %lu its page holds %lu and %lu, should be %lu", number,
            page[SEQWRITE_FIRST], page[SEQWRITE_LAST], before);
    page[SEQWRITE_LAST] = number;
    page[SEQWRITE_FIRST] = number;
    w->control[SEQWRITE_DONE] = number;
}

static void submit_all(struct work *w)
{
    for (unsigned int slot = 0; slot < SEQWRITE_DEPTH; slot++) {
        uint64_t number = w->control[SEQWRITE_SUBMITTED] + 1;

        w->in_slot[slot] = number;
        w->control[SEQWRITE_SUBMITTED] = number;
        blk_submit(&w->disk, slot, BLK_READ, number % w->disk_blocks * SECTORS_A_BLOCK,
            (void *)w->disk_ring[number % w->disk_pages], SEQWRITE_PAGE_BYTES);
    }
    w->in_flight = SEQWRITE_DEPTH;
    blk_kick(&w->disk);
}

/* Requests end in any order, so new ones wait for the last of those before. */
static void turn_disk(struct work *w)
{
    enum blk_status status;
    unsigned int slot = blk_reap(&w->disk, &status);
    uint64_t number = w->in_slot[slot];
    uint64_t got = w->disk_ring[number % w->disk_pages][0];

    if (status != BLK_OK || got != number % w->disk_blocks + 1)
        fail("disk request %lu ended with status %lu and data %lu", number, (uint64_t)status, got);
    if (--w->in_flight == 0)
        submit_all(w);
}

static void throttle(struct work *w)
{
    uint64_t now = cpu_rdtsc();

    w->deadline += w->cycles_per_step;
    if (now < w->deadline)
        tsc_spin_until(w->deadline);
    else if (now - w->deadline > THROTTLE_MAX_LAG * w->cycles_per_step)
        w->deadline = now;
}

static void make_ring(struct work *w, const struct boot_info *boot)
{
    uint64_t rate = option_u64(boot->cmdline, "rate", 0) * PAGES_PER_MIB;

    w->pages = option_u64(boot->cmdline, "pages", 1024);
    w->stride = option_u64(boot->cmdline, "stride", 1);
    w->disk_pages = option_u64(boot->cmdline, "disk_pages", 0);
    if (w->pages < STEP_PAGES || (w->pages & (w->pages - 1)) || !(w->stride & 1))
        fail("pages= must be a power of two from %lu on, stride= odd", (uint64_t)STEP_PAGES);
    if (w->disk_pages && w->disk_pages < 4 * SEQWRITE_DEPTH)
        fail("disk_pages= must be 0 or at least %lu", (uint64_t)(4 * SEQWRITE_DEPTH));
    if (SEQWRITE_GPA + (1 + w->pages + w->disk_pages) * SEQWRITE_PAGE_BYTES > boot->ram_bytes)
        fail("%lu bytes of memory are too few", boot->ram_bytes);
    w->control = (volatile uint64_t *)(uintptr_t)SEQWRITE_GPA;
    w->ring = (page_words *)(uintptr_t)(SEQWRITE_GPA + SEQWRITE_PAGE_BYTES);
    w->disk_ring = w->ring + w->pages;
    if (rate)
        w->cycles_per_step = tsc_khz(boot->cmdline) * 1000 * STEP_PAGES / rate;
}

static void open_disk(struct work *w, const char *cmdline)
{
    if (!w->disk_pages)
        return;
    blk_open(&w->disk, cmdline, 0);
    w->disk_blocks = w->disk.capacity_sectors / SECTORS_A_BLOCK;
    submit_all(w);
}

static void publish(const struct work *w)
{
    w->control[SEQWRITE_PAGES] = w->pages;
    w->control[SEQWRITE_STRIDE] = w->stride;
    w->control[SEQWRITE_DISK_PAGES] = w->disk_pages;
    w->control[SEQWRITE_DISK_BLOCKS] = w->disk_blocks;
    w->control[SEQWRITE_CONTROL_MAGIC] = SEQWRITE_MAGIC;
}

int guest_main(const struct boot_info *boot)
{
    struct work w = {0};
    uint64_t number = 1;

    make_ring(&w, boot);
    open_disk(&w, boot->cmdline);
    publish(&w);
    say("seqwrite: ready pages %lu disk_pages %lu\n", w.pages, w.disk_pages);
    w.deadline = cpu_rdtsc();
    for (uint64_t lap = 1;; lap++) {
        for (; number <= lap * w.pages; number++) {
            write_page(&w, number);
            if (number % STEP_PAGES)
                continue;
            if (w.disk_pages)
                turn_disk(&w);
            if (w.cycles_per_step)
                throttle(&w);
        }
        say("seqwrite: lap %lu\n", lap);
        mark(lap);
    }
}
