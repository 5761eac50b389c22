// SPDX-License-Identifier: Apache-2.0
// Writes a pattern to a disk, flushes, reads it back and checks it; also what must be refused.
// A read-only disk is read and summed, whatever is on it.
#include "guest.h"
#include "layout.h"
#include "virtio_blk.h"

const char guest_name[] = "blkpattern";

enum {
    BLOCK_BYTES = 4096,
    SUB_SECTOR = 3, /* the one that is written by itself */
};

struct plan {
    struct blk disk;
    uint64_t blocks, stride;
    unsigned int depth;
};

static uint64_t buffers[BLK_SLOTS][BLKPATTERN_BLOCK_WORDS] __attribute__((aligned(BLOCK_BYTES)));

static uint64_t sector_of(const struct plan *p, uint64_t block)
{
    return block * p->stride * BLKPATTERN_BLOCK_SECTORS;
}

static void fill_sector(uint64_t *words, uint64_t sector, uint64_t generation)
{
    words[0] = blkpattern_word(sector, generation);
    words[BLKPATTERN_SECTOR_WORDS - 1] = words[0] + 1;
}

static void fill_block(uint64_t *words, uint64_t sector, uint64_t generation)
{
    for (unsigned int i = 0; i < BLKPATTERN_BLOCK_SECTORS; i++)
        fill_sector(words + i * BLKPATTERN_SECTOR_WORDS, sector + i, generation);
}

static void check_sector(const uint64_t *words, uint64_t sector, uint64_t generation)
{
    uint64_t want = blkpattern_word(sector, generation);

    if (words[0] != want || words[BLKPATTERN_SECTOR_WORDS - 1] != want + 1)
        fail("sector %lu generation %lu is %lx, %lx, should be %lx", sector, generation, words[0],
            words[BLKPATTERN_SECTOR_WORDS - 1], want);
}

static uint64_t sum_block(const uint64_t *words)
{
    uint64_t sum = 0;

    for (unsigned int i = 0; i < BLKPATTERN_BLOCK_WORDS; i += BLKPATTERN_SECTOR_WORDS)
        sum += words[i] + words[i + BLKPATTERN_SECTOR_WORDS - 1];
    return sum;
}

/* Checks one block that was read; returns its sum. Generation 0: nothing is known about it. */
static uint64_t check_block(const uint64_t *words, uint64_t sector, uint64_t generation)
{
    for (unsigned int i = 0; generation && i < BLKPATTERN_BLOCK_SECTORS; i++)
        check_sector(words + i * BLKPATTERN_SECTOR_WORDS, sector + i, generation);
    return sum_block(words);
}

static void submit_block(
    struct plan *p, unsigned int slot, enum blk_request type, uint64_t sector, uint64_t generation)
{
    if (type == BLK_WRITE)
        fill_block(buffers[slot], sector, generation);
    blk_submit(&p->disk, slot, type, sector, buffers[slot], BLOCK_BYTES);
}

/* Writes or reads and checks all pattern blocks, `depth` at a time; returns the sum of a read. */
static uint64_t transfer(struct plan *p, enum blk_request type, uint64_t generation)
{
    uint64_t sectors[BLK_SLOTS], next = 0, sum = 0;
    unsigned int in_flight = 0, slot;
    enum blk_status status;

    for (; next < p->blocks && in_flight < p->depth; in_flight++) {
        sectors[in_flight] = sector_of(p, next++);
        submit_block(p, in_flight, type, sectors[in_flight], generation);
    }
    blk_kick(&p->disk);
    while (in_flight) {
        slot = blk_reap(&p->disk, &status);
        if (status != BLK_OK)
            fail("%s at sector %lu: status %lu", type == BLK_READ ? "read" : "write", sectors[slot],
                (uint64_t)status);
        if (type == BLK_READ)
            sum += check_block(buffers[slot], sectors[slot], generation);
        if (next == p->blocks) {
            in_flight--;
            continue;
        }
        sectors[slot] = sector_of(p, next++);
        submit_block(p, slot, type, sectors[slot], generation);
        blk_kick(&p->disk);
    }
    return sum;
}

static void expect(struct plan *p, enum blk_request type, uint64_t sector, uint32_t bytes,
    enum blk_status wanted, const char *what)
{
    enum blk_status status = blk_do(&p->disk, type, sector, buffers[0], bytes);

    if (status != wanted)
        fail("%s: status %lu instead of %lu", what, (uint64_t)status, (uint64_t)wanted);
}

static void flush(struct plan *p)
{
    if (p->disk.has_flush)
        expect(p, BLK_FLUSH, 0, 0, BLK_OK, "flush");
}

/* Overwrites one sector of the first block, checks that its neighbours stayed, and puts it back. */
static void test_sub_block(struct plan *p, uint64_t generation)
{
    uint64_t sector = sector_of(p, 0), other = ~generation;

    fill_sector(buffers[0], sector + SUB_SECTOR, other);
    expect(p, BLK_WRITE, sector + SUB_SECTOR, BLK_SECTOR_BYTES, BLK_OK, "write of one sector");
    expect(p, BLK_READ, sector, BLOCK_BYTES, BLK_OK, "read after write of one sector");
    for (unsigned int i = 0; i < BLKPATTERN_BLOCK_SECTORS; i++)
        check_sector(buffers[0] + i * BLKPATTERN_SECTOR_WORDS, sector + i,
            i == SUB_SECTOR ? other : generation);
    fill_sector(buffers[0], sector + SUB_SECTOR, generation);
    expect(p, BLK_WRITE, sector + SUB_SECTOR, BLK_SECTOR_BYTES, BLK_OK, "write of one sector");
}

static void test_out_of_range(struct plan *p)
{
    uint64_t end = p->disk.capacity_sectors;

    expect(p, BLK_READ, end, BLOCK_BYTES, BLK_IOERR, "read past the end");
    expect(p, BLK_READ, end - 1, BLOCK_BYTES, BLK_IOERR, "read across the end");
}

static int run_read_only(struct plan *p)
{
    uint64_t sum = transfer(p, BLK_READ, 0);

    expect(p, BLK_WRITE, 0, BLOCK_BYTES, BLK_IOERR, "write to a read-only disk");
    test_out_of_range(p);
    say("blkpattern: ok blocks %lu sum %lx\n", p->blocks, sum);
    return 0;
}

static uint64_t write_generation(struct plan *p, uint64_t generation)
{
    uint64_t sum;

    transfer(p, BLK_WRITE, generation);
    flush(p);
    sum = transfer(p, BLK_READ, generation);
    test_sub_block(p, generation);
    test_out_of_range(p);
    return sum;
}

/* Every generation is checked once more before the next one replaces it, so that there is no moment
 * at which a snapshot could lose a block unnoticed. */
static __attribute__((noreturn)) void run_for_ever(struct plan *p, uint64_t generation)
{
    for (;; generation++) {
        uint64_t sum = write_generation(p, generation);

        say("blkpattern: generation %lu blocks %lu sum %lx\n", generation, p->blocks, sum);
        mark(generation);
        transfer(p, BLK_READ, generation);
    }
}

static void make_plan(struct plan *p, const char *cmdline)
{
    uint64_t depth = option_u64(cmdline, "depth", BLK_SLOTS);

    blk_open(&p->disk, cmdline, option_u64(cmdline, "disk", 0));
    p->blocks = option_u64(cmdline, "blocks", 64);
    p->stride = option_u64(cmdline, "stride", 1);
    if (!depth || depth > BLK_SLOTS || !p->blocks || !p->stride)
        fail("depth= must be 1 to %lu, blocks= and stride= not 0", (uint64_t)BLK_SLOTS);
    p->depth = (unsigned int)depth;
    if (sector_of(p, p->blocks - 1) + BLKPATTERN_BLOCK_SECTORS > p->disk.capacity_sectors)
        fail("the disk's %lu sectors are too few", p->disk.capacity_sectors);
}

int guest_main(const struct boot_info *boot)
{
    uint64_t generation = option_u64(boot->cmdline, "gen", 1), sum;
    struct plan p;

    make_plan(&p, boot->cmdline);
    say("blkpattern: ready sectors %lu %s\n", p.disk.capacity_sectors,
        p.disk.read_only ? "ro" : "rw");
    if (p.disk.read_only)
        return run_read_only(&p);
    if (option_u64(boot->cmdline, "loop", 0))
        run_for_ever(&p, generation);
    if (option_is(boot->cmdline, "op", "verify"))
        sum = transfer(&p, BLK_READ, generation);
    else
        sum = write_generation(&p, generation);
    say("blkpattern: ok blocks %lu sum %lx\n", p.blocks, sum);
    return 0;
}
