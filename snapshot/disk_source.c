// SPDX-License-Identifier: Apache-2.0
// Reads blocks of a virtual disk out of a snapshot's packs. Never writes.

#include "disk_source.h"
#include <pthread.h>

struct disk_source {
    struct disk_layer layer;
    struct contents *contents;
    const struct contents_space *space;
    pthread_mutex_t lock; /* guards cursor; readers are the io thread, and a snapshot being taken */
    struct contents_cursor cursor;
};

static void lookup(
    const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret)
{
    static const enum disk_extent_kind kinds[] = {
        [EXTENT_UNSPECIFIED] = DISK_EXTENT_HOLE,
        [EXTENT_ZERO] = DISK_EXTENT_ZERO,
        [EXTENT_DATA] = DISK_EXTENT_SOURCE,
    };
    const struct disk_source *source = CONTAINER_OF(layer, const struct disk_source, layer);
    struct index_extent extent;
    *ret = (struct disk_extent){.kind = DISK_EXTENT_HOLE, .blocks = count};
    if (!page_index_lookup(source->space->index, block, &extent))
        return;
    ret->kind = kinds[extent.kind];
    ret->blocks = MIN(count, (uint64_t)extent.count);
}

static int read_block(struct disk_source *source, uint64_t block, void *buf)
{
    struct index_extent extent;
    const uint8_t *bytes;
    if (!page_index_lookup(source->space->index, block, &extent) || extent.kind != EXTENT_DATA)
        return -EINVAL;
    int r = contents_page(
        &source->cursor, source->space->packs[extent.pack], extent.pack_page, &bytes, NULL);
    if (r == 0)
        memcpy(buf, bytes, DISK_BLOCK_BYTES);
    /* The guest gets an I/O error for what is damaged, whatever the cause; never wrong bytes. */
    return r == 0 ? 0 : -EIO;
}

static int read_blocks(const struct disk_layer *layer, uint64_t block, uint64_t count, void *buf)
{
    struct disk_source *source =
        (struct disk_source *)(uintptr_t)CONTAINER_OF(layer, const struct disk_source, layer);
    int r = 0;
    pthread_mutex_lock(&source->lock);
    for (uint64_t i = 0; i < count && r == 0; i++)
        r = read_block(source, block + i, (uint8_t *)buf + i * DISK_BLOCK_BYTES);
    pthread_mutex_unlock(&source->lock);
    return r;
}

static void free_source(struct disk_layer *layer)
{
    struct disk_source *source = CONTAINER_OF(layer, struct disk_source, layer);
    contents_cursor_fini(&source->cursor);
    contents_unref(source->contents);
    pthread_mutex_destroy(&source->lock);
    free(source);
}

static const struct disk_layer_ops ops = {
    .lookup = lookup, .read = read_blocks, .free = free_source};

int disk_source_new(struct contents *contents, unsigned disk, struct disk_layer *base,
    struct disk_layer **ret, struct thaw_error *error)
{
    struct disk_source *source = calloc(1, sizeof(*source));
    if (!source)
        return error_errno(error, ENOMEM, "allocating the layer of disk %u", disk);
    source->layer = (struct disk_layer){.ops = &ops, .below = base};
    source->contents = contents_ref(contents);
    source->space = &contents->spaces[1 + disk];
    source->cursor.contents = contents;
    pthread_mutex_init(&source->lock, NULL);
    *ret = &source->layer;
    return 0;
}
