// SPDX-License-Identifier: Apache-2.0
// The writable layer of a disk: a sparse file and a bitmap of the blocks that are in it.
// Does no I/O: disk.c reads and writes the file.

#include "disk_layer.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

/* The first block in [from, end) whose bit is `held`, or end. */
static uint64_t find(const struct disk_overlay *overlay, uint64_t from, uint64_t end, bool held)
{
    while (from < end) {
        uint64_t word = overlay->held[from / 64];
        uint64_t hits = (held ? word : ~word) >> (from % 64);
        if (hits)
            return MIN(end, from + (unsigned)__builtin_ctzll(hits));
        from = (from / 64 + 1) * 64;
    }
    return end;
}

static void overlay_lookup(
    const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret)
{
    const struct disk_overlay *overlay = CONTAINER_OF(layer, const struct disk_overlay, layer);
    bool held = disk_overlay_holds(overlay, block);
    *ret = (struct disk_extent){.kind = held ? DISK_EXTENT_FILE : DISK_EXTENT_HOLE,
        .fd = overlay->fd,
        .file_off = block << DISK_BLOCK_SHIFT,
        .blocks = find(overlay, block, block + count, !held) - block};
}

static void overlay_free(struct disk_layer *layer)
{
    disk_overlay_free(disk_overlay_of(layer));
}

static const struct disk_layer_ops overlay_ops = {.lookup = overlay_lookup, .free = overlay_free};

/* A file in `dir` without a name, or -errno. */
static int open_unnamed(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;

    /* The file system knows no O_TMPFILE, or will give the same error again. */
    _cleanup_free_ char *path = NULL;
    if (asprintf(&path, "%s/thaw-overlay-XXXXXX", dir) < 0) {
        path = NULL;
        return -ENOMEM;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

int disk_overlay_new(
    const char *dir, uint64_t bytes, struct disk_overlay **ret, struct thaw_error *error)
{
    struct disk_overlay *overlay = calloc(1, sizeof(*overlay));
    if (!overlay)
        return error_errno(error, ENOMEM, "making a disk overlay");
    overlay->layer.ops = &overlay_ops;
    overlay->blocks = (bytes + DISK_BLOCK_BYTES - 1) >> DISK_BLOCK_SHIFT;
    overlay->held = calloc((size_t)(overlay->blocks + 63) / 64, sizeof(*overlay->held));
    overlay->fd = overlay->held ? open_unnamed(dir) : -ENOMEM;
    if (overlay->fd < 0) {
        int r = error_errno(error, -overlay->fd, "making a disk overlay in '%s'", dir);
        disk_overlay_free(overlay);
        return r;
    }
    /* Whole blocks, so that reading back one that was written never meets the end of the file. */
    if (ftruncate(overlay->fd, (off_t)(overlay->blocks << DISK_BLOCK_SHIFT)) < 0) {
        int r = error_errno(
            error, errno, "making a disk overlay of %" PRIu64 " bytes in '%s'", bytes, dir);
        disk_overlay_free(overlay);
        return r;
    }
    *ret = overlay;
    return 0;
}

void disk_overlay_free(struct disk_overlay *overlay)
{
    if (!overlay)
        return;
    if (overlay->fd >= 0)
        close(overlay->fd);
    free(overlay->held);
    free(overlay);
}

struct disk_overlay *disk_overlay_of(struct disk_layer *layer)
{
    return layer->ops == &overlay_ops ? CONTAINER_OF(layer, struct disk_overlay, layer) : NULL;
}

bool disk_overlay_next_run(
    const struct disk_overlay *overlay, uint64_t from, uint64_t *ret_block, uint64_t *ret_count)
{
    uint64_t first = find(overlay, from, overlay->blocks, true);
    if (first >= overlay->blocks)
        return false;
    *ret_block = first;
    *ret_count = find(overlay, first, overlay->blocks, false) - first;
    return true;
}

bool disk_overlay_holds(const struct disk_overlay *overlay, uint64_t block)
{
    return overlay->held[block / 64] >> (block % 64) & 1;
}

void disk_overlay_hold(struct disk_overlay *overlay, uint64_t block, uint64_t count)
{
    overlay->used = true;
    for (uint64_t b = block; b < block + count; b++)
        overlay->held[b / 64] |= (uint64_t)1 << (b % 64);
}
