/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual disk: requests of sectors on top of a stack of layers (disk_layer.h).
 *
 * Requests run on the io thread, several at a time, in no particular order. Writes to a common
 * block are carried out one after the other. A read that overlaps a write in flight returns old or
 * new sectors. A block that is written in part is completed from the layers below first.
 */
#ifndef VMM_DISK_H
#define VMM_DISK_H

#include "disk_layer.h"
#include "io.h"

struct disk;

struct disk_options {
    const char *path;        /* base image */
    int fd;                  /* base image already open, instead of path, if above 0; not kept */
    bool read_only;          /* no overlay; writes fail with -EROFS */
    const char *overlay_dir; /* required, unless the disk is read-only */
};

enum disk_request_kind {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH, /* what was completed before is on stable storage when it is done */
};

/* One request. Embedded in its owner; it, iov and the memory behind iov stay until `done`. */
struct disk_request {
    enum disk_request_kind kind;
    uint64_t disk_off; /* bytes; a multiple of DISK_SECTOR_BYTES, like the sum of iov */
    const struct iovec *iov;
    unsigned iov_count; /* at most IOV_MAX */
    /* result is 0, or -errno: -EINVAL (alignment or range), -EROFS, -ENOMEM, -ENOSPC (the overlay's
     * file system is full: nothing is lost, and the request may be submitted again later), or from
     * the files. After a failure any part of a write may have happened. Runs on the io thread,
     * maybe from within disk_submit. */
    void (*done)(struct disk_request *request, int result);

    /* The disk's own. */
    struct disk *disk;
    uint64_t bytes;
    uint64_t window_off; /* the piece in progress, relative to disk_off */
    uint64_t window_bytes;
    unsigned parts; /* operations of this piece that are under way */
    int result;
    struct disk_request *next; /* in one of the disk's lists of writes */
};

/* Opens the base image and puts an overlay on it. */
int disk_open(
    struct io *io, const struct disk_options *options, struct disk **ret, struct thaw_error *error);

/* The same with layers that exist: `layers` is the top of a stack that is never written, `overlay`
 * an empty overlay to go above, or NULL for a read-only disk. Both are the disk's on success. */
int disk_new(struct io *io, struct disk_layer *layers, struct disk_overlay *overlay, uint64_t bytes,
    struct disk **ret, struct thaw_error *error);

/* Frees the disk and its layers. Nothing is in flight. NULL is allowed. */
void disk_free(struct disk *disk);

uint64_t disk_bytes(const struct disk *disk);
bool disk_is_read_only(const struct disk *disk);

/* disk_raw_mtime_ns of the base image, which is the lowest layer. */
uint64_t disk_base_mtime_ns(const struct disk *disk);

/* The uppermost layer: borrowed. */
struct disk_layer *disk_top(const struct disk *disk);

/* Freezes the overlay, which stays where it is in the stack, and puts a new one above. Nothing is
 * in flight (io_drain, devices paused). Cannot fail: `overlay` was made before, and is the disk's
 * from now on. The disk is not read-only. */
void disk_push_overlay(struct disk *disk, struct disk_overlay *overlay);

/* True if one overlay lies on `layers`, and it is as good as a new one. Nothing is in flight. */
bool disk_is_unwritten(const struct disk *disk, const struct disk_layer *layers);

/* Frees all layers above `layers`, which is one of the disk's, and puts a new overlay there. The
 * same conditions as for disk_push_overlay. */
void disk_replace_overlays(
    struct disk *disk, struct disk_layer *layers, struct disk_overlay *overlay);

/* Starts a request. On the io thread. */
void disk_submit(struct disk *disk, struct disk_request *request);

#endif
