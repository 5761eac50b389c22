// SPDX-License-Identifier: Apache-2.0
// Stores what a disk's frozen layers hold. Decides neither when they freeze nor what they are.

#include "capture.h"

#define BUFFER_BLOCKS 64

_Static_assert(DISK_BLOCK_BYTES == FORMAT_PAGE_BYTES, "a block of a disk is a page of its space");

struct walk {
    struct capture *capture;
    struct thaw_job *job;
    struct page_index_builder *builder;
    unsigned space;
    uint64_t disk_bytes;
    uint8_t *buffer; /* BUFFER_BLOCKS blocks */
};

/* Where a run of blocks is, in the layers from `top` down to, but not including, `stop` (NULL: the
 * base image at the bottom). HOLE: in none of them. */
static void find(const struct disk_layer *top, const struct disk_layer *stop, uint64_t block,
    uint64_t count, const struct disk_layer **ret_layer, struct disk_extent *ret)
{
    *ret = (struct disk_extent){.kind = DISK_EXTENT_HOLE, .blocks = count};
    for (const struct disk_layer *layer = top; layer != stop && layer->below;
         layer = layer->below) {
        layer->ops->lookup(layer, block, ret->blocks, ret);
        *ret_layer = layer;
        if (ret->kind != DISK_EXTENT_HOLE)
            return;
    }
}

static int read_file(const struct walk *walk, const struct disk_extent *extent, uint64_t done,
    uint64_t block, uint64_t blocks, struct thaw_error *error)
{
    uint64_t bytes = MIN(blocks * DISK_BLOCK_BYTES, walk->disk_bytes - block * DISK_BLOCK_BYTES);
    memset(walk->buffer, 0, blocks * DISK_BLOCK_BYTES);
    for (uint64_t at = 0; at < bytes;) {
        ssize_t got = pread(extent->fd, walk->buffer + at, bytes - at,
            (off_t)(extent->file_off + done * DISK_BLOCK_BYTES + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_errno(
                error, got < 0 ? errno : EIO, "reading what disk %u has changed", walk->space - 1);
        at += (uint64_t)got;
    }
    return 0;
}

static int store_block(
    const struct walk *walk, uint64_t block, const uint8_t *bytes, struct thaw_error *error)
{
    struct capture *capture = walk->capture;
    uint64_t pack_page = 0;
    capture->result.pages++;
    if (frame_page_is_zero(bytes)) {
        capture->result.zero_pages++;
        return page_index_builder_set_zero(walk->builder, block, 1, error);
    }
    int r = pack_writer_add(capture->writer, walk->space, block, bytes, &pack_page, error);
    return r < 0 ? r
                 : page_index_builder_set_data(
                       walk->builder, block, 1, &capture->pack_id, pack_page, error);
}

static int store_run(const struct walk *walk, const struct disk_layer *layer,
    const struct disk_extent *extent, uint64_t block, struct thaw_error *error)
{
    for (uint64_t done = 0; done < extent->blocks;) {
        uint64_t blocks = MIN(extent->blocks - done, (uint64_t)BUFFER_BLOCKS);
        int r = extent->kind == DISK_EXTENT_FILE
                    ? read_file(walk, extent, done, block + done, blocks, error)
                    : layer->ops->read(layer, block + done, blocks, walk->buffer);
        if (r < 0)
            return extent->kind == DISK_EXTENT_FILE
                       ? r
                       : error_errno(error, -r, "reading disk %u", walk->space - 1);
        for (uint64_t i = 0; i < blocks; i++) {
            r = store_block(walk, block + done + i, walk->buffer + i * DISK_BLOCK_BYTES, error);
            if (r < 0)
                return r;
        }
        done += blocks;
        job_advance(walk->job, blocks * DISK_BLOCK_BYTES);
        if (job_cancelled(walk->job))
            return error_set(error, -ECANCELED, "cancelled");
    }
    return 0;
}

static int walk_layers(const struct walk *walk, const struct disk_layer *top,
    const struct disk_layer *stop, uint64_t block_count, struct thaw_error *error)
{
    for (uint64_t block = 0; block < block_count;) {
        const struct disk_layer *layer = NULL;
        struct disk_extent extent;
        int r = 0;
        find(top, stop, block, block_count - block, &layer, &extent);
        if (extent.kind == DISK_EXTENT_ZERO)
            r = page_index_builder_set_zero(walk->builder, block, extent.blocks, error);
        else if (extent.kind != DISK_EXTENT_HOLE)
            r = store_run(walk, layer, &extent, block, error);
        if (r < 0)
            return r;
        block += extent.blocks;
    }
    return 0;
}

int capture_disk(
    struct capture *capture, struct thaw_job *job, unsigned disk, struct thaw_error *error)
{
    const struct lineage *lineage = capture->lineage;
    uint64_t bytes = disk_bytes(blk_disk(capture->vm->machine.disks[disk].blk));
    struct page_space space = {
        .number = (uint8_t)(1 + disk),
        .kind = SPACE_KIND_DISK,
        .page_count = ALIGN_UP(bytes, DISK_BLOCK_BYTES) / DISK_BLOCK_BYTES,
    };
    memcpy(space.id.bytes, capture->pack_id.bytes, sizeof(space.id.bytes));
    space.id.bytes[0] ^= (uint8_t)(1 + disk);
    const struct page_index *base = capture->from ? capture->from->spaces[1 + disk].index : NULL;
    const struct disk_layer *stop =
        lineage->base ? lineage->base_layer[disk] : lineage->origin_layer[disk];

    struct walk walk = {.capture = capture, .job = job, .space = 1 + disk, .disk_bytes = bytes};
    uint8_t *buffer _cleanup_free_ = malloc(BUFFER_BLOCKS * DISK_BLOCK_BYTES);
    if (!buffer)
        return error_errno(error, ENOMEM, "reading disk %u", disk);
    walk.buffer = buffer;
    int r = page_index_builder_new(&space, base, &walk.builder, error);
    if (r < 0)
        return r;
    r = walk_layers(&walk, capture->frozen[disk], stop, space.page_count, error);
    if (r < 0)
        page_index_builder_free(walk.builder);
    else
        r = page_index_builder_finish(walk.builder, &capture->indexes[1 + disk], error);
    return r;
}
