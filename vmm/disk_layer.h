/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk layers: where the blocks of a virtual disk are found. A disk is a stack of layers: at the
 * bottom a base image, at the top (unless the disk is read-only) a writable overlay, and in between
 * whatever else holds blocks: overlays that were frozen, or the disk of a snapshot.
 *
 * A layer knows blocks of DISK_BLOCK_BYTES. All layers of a disk have the disk's length, of which
 * the last block may be a part; nobody reads a file beyond it.
 */
#ifndef VMM_DISK_LAYER_H
#define VMM_DISK_LAYER_H

#include "error.h"

#define DISK_BLOCK_BYTES  4096u
#define DISK_BLOCK_SHIFT  12
#define DISK_SECTOR_BYTES 512u
#define DISK_BYTES_MAX    (1ull << 50)

enum disk_extent_kind {
    DISK_EXTENT_HOLE,   /* not here: ask the layer below; zeros if there is none */
    DISK_EXTENT_ZERO,   /* zeros */
    DISK_EXTENT_FILE,   /* in fd at file_off, as they are */
    DISK_EXTENT_SOURCE, /* ask the layer's read */
};

struct disk_extent {
    enum disk_extent_kind kind;
    int fd;
    uint64_t file_off;
    uint64_t blocks;
};

struct disk_layer;

struct disk_layer_ops {
    /* Where a run of blocks from `block` on is; ret->blocks is at least 1 and at most `count`.
     * Never fails and does no I/O. On the io thread, and on any thread once the layer is frozen. */
    void (*lookup)(
        const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret);
    /* Reads whole blocks of a SOURCE extent. 0 or -errno; may take long. On the io thread, and on
     * others at the same time. NULL for layers without such extents. */
    int (*read)(const struct disk_layer *layer, uint64_t block, uint64_t count, void *buf);
    void (*free)(struct disk_layer *layer);
};

/* Embedded in each kind of layer. */
struct disk_layer {
    const struct disk_layer_ops *ops;
    struct disk_layer *below; /* owned by the disk, like this one; NULL at the bottom */
};

/* Frees this layer and all below it. NULL is allowed. */
void disk_layer_free_stack(struct disk_layer *top);

/* Opens a raw image for reading only, from `path`, or from `fd` if that is above 0 (which is not
 * kept). The file is share-locked (flock) where the file system can: a program that wants it to
 * itself is told, and finds out. Errors: -EBUSY if such a program has it, -EINVAL if it is no
 * regular file or block device, is empty, or is no multiple of 512 bytes, -EISDIR, -errno. */
int disk_raw_open(const char *path, int fd, struct disk_layer **ret, uint64_t *ret_bytes,
    struct thaw_error *error);

/* When the image had last been written to as it was opened. It may be another file than its path
 * leads to by now. `layer` is one of disk_raw_open's. */
uint64_t disk_raw_mtime_ns(const struct disk_layer *layer);

/* A layer that holds the blocks that the guest wrote, in a sparse file at their own offsets. */
struct disk_overlay {
    struct disk_layer layer;
    int fd;
    uint64_t blocks;
    uint64_t *held; /* a bit a block; the io thread's until the overlay is frozen */
    bool used;      /* it holds something; like `held` */
    bool frozen;    /* no longer written */
    bool synced;    /* frozen, and on stable storage */
    int sync_error; /* the first failure of fdatasync, which no later success takes back; or 0 */
};

/* Makes an empty writable overlay for a disk of `bytes` bytes: a sparse file in `dir` without a
 * name, which vanishes with the process. */
int disk_overlay_new(
    const char *dir, uint64_t bytes, struct disk_overlay **ret, struct thaw_error *error);
void disk_overlay_free(struct disk_overlay *overlay);

/* The overlay that a layer is, or NULL. */
struct disk_overlay *disk_overlay_of(struct disk_layer *layer);

/* The first run of blocks at or after `from` that the overlay holds; false if there is none. On the
 * io thread, on any thread while nothing is in flight, or once the overlay is frozen. */
bool disk_overlay_next_run(
    const struct disk_overlay *overlay, uint64_t from, uint64_t *ret_block, uint64_t *ret_count);

/* Whether the overlay has a block; saying that it has some, which their bytes must precede. On the
 * io thread. */
bool disk_overlay_holds(const struct disk_overlay *overlay, uint64_t block);
void disk_overlay_hold(struct disk_overlay *overlay, uint64_t block, uint64_t count);

#endif
