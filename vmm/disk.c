// SPDX-License-Identifier: Apache-2.0
// Carries out a disk's requests: finds the layers that hold their blocks and writes to the top one.
// Does not know whose requests they are, nor how a layer came about.

#include "disk.h"
#include <string.h>

/* A long request is carried out in pieces of so much, which bounds the operations in flight. */
#define DISK_WINDOW_BYTES  MIB
#define DISK_SOURCE_BLOCKS 16 /* read at a time from a source */

struct disk {
    struct io *io;
    uint64_t bytes;
    struct disk_layer *top;
    struct disk_overlay *overlay; /* the top as what it is; NULL: read-only */

    /* The io thread's own. */
    struct disk_request *writing; /* writes whose window is being carried out: no block is in two */
    struct disk_request *waiting; /* writes that wait for one of these; in order */
    struct io_task wake;          /* looks whom a write that ended kept waiting */
};

/* One operation of a request. */
struct disk_part {
    struct io_op op;
    struct disk_request *request;
    struct disk_overlay *overlay; /* IO_DATASYNC: what is synced */
    uint64_t off;                 /* a block written in part: where the guest's bytes go ... */
    uint64_t bytes;               /* ... and how many they are */
    uint8_t *block;
    struct iovec iov[];
};

/* Where a run of bytes is. */
struct place {
    const struct disk_layer *layer;
    enum disk_extent_kind kind;
    int fd;
    uint64_t file_off;
    uint64_t bytes;
};

static void wake_writes(struct io_task *task);
static void proceed(struct disk_request *request);

void disk_layer_free_stack(struct disk_layer *top)
{
    while (top) {
        struct disk_layer *below = top->below;
        top->ops->free(top);
        top = below;
    }
}

int disk_new(struct io *io, struct disk_layer *layers, struct disk_overlay *overlay, uint64_t bytes,
    struct disk **ret, struct thaw_error *error)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return error_errno(error, ENOMEM, "making a disk");
    disk->io = io;
    disk->bytes = bytes;
    disk->top = layers;
    disk->wake.fn = wake_writes;
    if (overlay) {
        overlay->layer.below = layers;
        disk->top = &overlay->layer;
        disk->overlay = overlay;
    }
    *ret = disk;
    return 0;
}

int disk_open(
    struct io *io, const struct disk_options *options, struct disk **ret, struct thaw_error *error)
{
    struct disk_layer *raw = NULL;
    struct disk_overlay *overlay = NULL;
    uint64_t bytes;
    int r = disk_raw_open(options->path, options->fd, &raw, &bytes, error);
    if (r == 0 && !options->read_only)
        r = disk_overlay_new(options->overlay_dir, bytes, &overlay, error);
    if (r == 0)
        r = disk_new(io, raw, overlay, bytes, ret, error);
    if (r < 0) {
        disk_overlay_free(overlay);
        disk_layer_free_stack(raw);
    }
    return r;
}

void disk_free(struct disk *disk)
{
    if (!disk)
        return;
    disk_layer_free_stack(disk->top);
    free(disk);
}

uint64_t disk_bytes(const struct disk *disk)
{
    return disk->bytes;
}

bool disk_is_read_only(const struct disk *disk)
{
    return !disk->overlay;
}

uint64_t disk_base_mtime_ns(const struct disk *disk)
{
    const struct disk_layer *layer = disk->top;
    while (layer->below)
        layer = layer->below;
    return disk_raw_mtime_ns(layer);
}

struct disk_layer *disk_top(const struct disk *disk)
{
    return disk->top;
}

void disk_push_overlay(struct disk *disk, struct disk_overlay *overlay)
{
    disk->overlay->frozen = true;
    overlay->layer.below = disk->top;
    disk->top = &overlay->layer;
    disk->overlay = overlay;
}

bool disk_is_unwritten(const struct disk *disk, const struct disk_layer *layers)
{
    const struct disk_overlay *overlay = disk->overlay;
    return overlay->layer.below == layers && !overlay->used && overlay->sync_error == 0;
}

void disk_replace_overlays(
    struct disk *disk, struct disk_layer *layers, struct disk_overlay *overlay)
{
    struct disk_layer *dropped = disk->top;
    struct disk_layer *last = dropped;
    while (last->below != layers)
        last = last->below;
    last->below = NULL;
    overlay->layer.below = layers;
    disk->top = &overlay->layer;
    disk->overlay = overlay;
    disk_layer_free_stack(dropped);
}

/* Where the first bytes of [off, off + bytes) are, and how many of them are there. */
static struct place locate(const struct disk *disk, uint64_t off, uint64_t bytes)
{
    uint64_t block = off >> DISK_BLOCK_SHIFT;
    uint64_t skip = off % DISK_BLOCK_BYTES;
    struct disk_extent extent = {.kind = DISK_EXTENT_HOLE,
        .blocks = (skip + bytes + DISK_BLOCK_BYTES - 1) >> DISK_BLOCK_SHIFT};
    const struct disk_layer *layer = disk->top;
    for (; layer; layer = layer->below) {
        layer->ops->lookup(layer, block, extent.blocks, &extent);
        if (extent.kind != DISK_EXTENT_HOLE)
            break;
    }
    return (struct place){
        .layer = layer,
        .kind = extent.kind == DISK_EXTENT_HOLE ? DISK_EXTENT_ZERO : extent.kind,
        .fd = extent.fd,
        .file_off = extent.file_off + skip,
        .bytes = MIN(bytes, (extent.blocks << DISK_BLOCK_SHIFT) - skip),
    };
}

enum copy_kind {
    COPY_ZEROS, /* into the guest */
    COPY_IN,    /* into the guest */
    COPY_OUT,   /* out of the guest */
};

/* Copies between `buf` and [off, off + bytes) of the request's memory; off as on the disk. */
static void copy(const struct disk_request *request, uint64_t off, uint64_t bytes,
    enum copy_kind kind, uint8_t *buf)
{
    uint64_t skip = off - request->disk_off;
    for (const struct iovec *iov = request->iov; bytes > 0; iov++) {
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        size_t n = MIN(bytes, iov->iov_len - skip);
        uint8_t *mem = (uint8_t *)iov->iov_base + skip;
        if (kind == COPY_ZEROS)
            memset(mem, 0, n);
        else if (kind == COPY_IN)
            memcpy(mem, buf, n);
        else
            memcpy(buf, mem, n);
        if (buf)
            buf += n;
        bytes -= n;
        skip = 0;
    }
}

static void fail(struct disk_request *request, int err)
{
    if (request->result == 0)
        request->result = err == -EDQUOT ? -ENOSPC : err;
}

static void part_end(struct disk_part *part, int result)
{
    struct disk_request *request = part->request;
    free(part);
    if (result < 0)
        fail(request, result);
    if (--request->parts == 0)
        proceed(request);
}

static void part_done(struct io_op *op, int result)
{
    part_end(CONTAINER_OF(op, struct disk_part, op), result);
}

/* Allocates a part; NULL fails the request. */
static struct disk_part *part_new(
    struct disk_request *request, unsigned iov_count, size_t extra_bytes)
{
    struct disk_part *part = malloc(sizeof(*part) + iov_count * sizeof(part->iov[0]) + extra_bytes);
    if (!part) {
        fail(request, -ENOMEM);
        return NULL;
    }
    *part = (struct disk_part){.request = request, .op.done = part_done};
    part->op.iov = part->iov;
    part->op.iov_count = iov_count;
    return part;
}

static void part_submit(struct disk_part *part)
{
    part->request->parts++;
    io_submit(part->request->disk->io, &part->op);
}

/* Transfers [off, off + bytes) of the disk between the request's memory and a file. */
static void transfer(struct disk_request *request, enum io_op_kind kind, uint64_t off,
    uint64_t bytes, int fd, uint64_t file_off)
{
    const struct iovec *iov = request->iov;
    uint64_t skip = off - request->disk_off;
    while (skip >= iov->iov_len)
        skip -= iov++->iov_len;
    unsigned count = 0;
    for (uint64_t sum = 0; sum < skip + bytes; count++)
        sum += iov[count].iov_len;

    struct disk_part *part = part_new(request, count, 0);
    if (!part)
        return;
    part->op.kind = kind;
    part->op.fd = fd;
    part->op.file_off = file_off;
    for (unsigned i = 0; i < count; i++) {
        size_t n = MIN(bytes, iov[i].iov_len - skip);
        part->iov[i] = (struct iovec){(char *)iov[i].iov_base + skip, n};
        bytes -= n;
        skip = 0;
    }
    part_submit(part);
}

/* Reads whole blocks that cover [off, off + bytes) from a layer that has to make them, and passes
 * the bytes in question on: to the request, or if `dst` is given, there. */
static int read_source(struct disk_request *request, const struct disk_layer *layer, uint64_t off,
    uint64_t bytes, uint8_t *dst)
{
    _cleanup_free_ uint8_t *buf = malloc(DISK_SOURCE_BLOCKS * DISK_BLOCK_BYTES);
    if (!buf)
        return -ENOMEM;
    while (bytes > 0) {
        uint64_t skip = off % DISK_BLOCK_BYTES;
        uint64_t n = MIN(bytes, DISK_SOURCE_BLOCKS * DISK_BLOCK_BYTES - skip);
        uint64_t blocks = (skip + n + DISK_BLOCK_BYTES - 1) >> DISK_BLOCK_SHIFT;
        int r = layer->ops->read(layer, off >> DISK_BLOCK_SHIFT, blocks, buf);
        if (r < 0)
            return r;
        if (dst)
            memcpy(dst, buf + skip, n);
        else
            copy(request, off, n, COPY_IN, buf + skip);
        off += n;
        bytes -= n;
    }
    return 0;
}

static void start_read(struct disk_request *request, uint64_t off, uint64_t bytes)
{
    struct disk *disk = request->disk;
    while (bytes > 0 && request->result == 0) {
        struct place place = locate(disk, off, bytes);
        while (place.kind == DISK_EXTENT_FILE && place.bytes < bytes) {
            struct place more = locate(disk, off + place.bytes, bytes - place.bytes);
            if (more.kind != DISK_EXTENT_FILE || more.fd != place.fd ||
                more.file_off != place.file_off + place.bytes)
                break;
            place.bytes += more.bytes;
        }
        if (place.kind == DISK_EXTENT_FILE) {
            transfer(request, IO_READ, off, place.bytes, place.fd, place.file_off);
        } else if (place.kind == DISK_EXTENT_ZERO) {
            copy(request, off, place.bytes, COPY_ZEROS, NULL);
        } else {
            int r = read_source(request, place.layer, off, place.bytes, NULL);
            if (r < 0)
                fail(request, r);
        }
        off += place.bytes;
        bytes -= place.bytes;
    }
}

/* A block that is written in part and is now complete: puts it in the overlay. */
static void block_write(struct disk_part *part)
{
    struct disk_request *request = part->request;
    struct disk *disk = request->disk;
    copy(request, part->off, part->bytes, COPY_OUT, part->block + part->off % DISK_BLOCK_BYTES);
    part->iov[0] = (struct iovec){part->block, DISK_BLOCK_BYTES};
    part->op.kind = IO_WRITE;
    part->op.fd = disk->overlay->fd;
    part->op.file_off = ALIGN_DOWN(part->off, DISK_BLOCK_BYTES);
    part->op.iov = part->iov;
    part->op.iov_count = 1;
    part->op.done = part_done;
    io_submit(disk->io, &part->op);
}

static void block_read_done(struct io_op *op, int result)
{
    struct disk_part *part = CONTAINER_OF(op, struct disk_part, op);
    if (result < 0)
        part_end(part, result);
    else
        block_write(part);
}

/* Writes [off, off + bytes), which lies in one block that the overlay does not hold: reads the
 * block from below, changes it, writes all of it. */
static void start_block(struct disk_request *request, uint64_t off, uint64_t bytes)
{
    struct disk *disk = request->disk;
    struct disk_part *part = part_new(request, 1, DISK_BLOCK_BYTES);
    if (!part)
        return;
    part->off = off;
    part->bytes = bytes;
    part->block = (uint8_t *)&part->iov[1];
    memset(part->block, 0, DISK_BLOCK_BYTES); /* of the last block, maybe a part is read */

    uint64_t block_off = ALIGN_DOWN(off, DISK_BLOCK_BYTES);
    uint64_t block_bytes = MIN(DISK_BLOCK_BYTES, disk->bytes - block_off);
    struct place place = locate(disk, block_off, block_bytes);
    request->parts++;
    if (place.kind == DISK_EXTENT_FILE) {
        part->iov[0] = (struct iovec){part->block, block_bytes};
        part->op.kind = IO_READ;
        part->op.fd = place.fd;
        part->op.file_off = place.file_off;
        part->op.done = block_read_done;
        io_submit(disk->io, &part->op);
        return;
    }
    int r = 0;
    if (place.kind == DISK_EXTENT_SOURCE)
        r = read_source(request, place.layer, block_off, block_bytes, part->block);
    if (r < 0)
        part_end(part, r);
    else
        block_write(part);
}

/* True if the block that holds `off` must be completed from below when [off, end) is written. */
static bool needs_rest(const struct disk *disk, uint64_t off, uint64_t end)
{
    uint64_t block_off = ALIGN_DOWN(off, DISK_BLOCK_BYTES);
    bool whole = off == block_off && end >= MIN(block_off + DISK_BLOCK_BYTES, disk->bytes);
    return !whole && !disk_overlay_holds(disk->overlay, off >> DISK_BLOCK_SHIFT);
}

static void start_write(struct disk_request *request, uint64_t off, uint64_t bytes)
{
    struct disk *disk = request->disk;
    uint64_t end = off + bytes;
    if (needs_rest(disk, off, end)) {
        uint64_t cut = MIN(end, ALIGN_DOWN(off, DISK_BLOCK_BYTES) + DISK_BLOCK_BYTES);
        start_block(request, off, cut - off);
        off = cut;
    }
    uint64_t last = ALIGN_DOWN(end - 1, DISK_BLOCK_BYTES);
    if (off < end && needs_rest(disk, MAX(off, last), end)) {
        uint64_t cut = MAX(off, last);
        start_block(request, cut, end - cut);
        end = cut;
    }
    if (off < end)
        transfer(request, IO_WRITE, off, end - off, disk->overlay->fd, off);
}

static uint64_t first_block(const struct disk_request *request)
{
    return (request->disk_off + request->window_off) >> DISK_BLOCK_SHIFT;
}

static uint64_t end_block(const struct disk_request *request)
{
    uint64_t end = request->disk_off + request->window_off + request->window_bytes;
    return (end + DISK_BLOCK_BYTES - 1) >> DISK_BLOCK_SHIFT;
}

/* True if a write in the list, up to `stop`, has a block in common with this one. */
static bool overlaps(const struct disk_request *list, const struct disk_request *stop,
    const struct disk_request *request)
{
    for (; list != stop; list = list->next) {
        if (first_block(list) < end_block(request) && first_block(request) < end_block(list))
            return true;
    }
    return false;
}

static void unlink_write(struct disk_request **list, struct disk_request *request)
{
    while (*list != request)
        list = &(*list)->next;
    *list = request->next;
}

/* Takes the blocks of the request's window, or gets in line for them. */
static bool take_blocks(struct disk_request *request)
{
    struct disk *disk = request->disk;
    if (overlaps(disk->writing, NULL, request) || overlaps(disk->waiting, NULL, request)) {
        struct disk_request **end = &disk->waiting;
        while (*end)
            end = &(*end)->next;
        request->next = NULL;
        *end = request;
        return false;
    }
    request->next = disk->writing;
    disk->writing = request;
    return true;
}

/* Chooses the next window: up to a block boundary, so that only the ends of a request are parts of
 * blocks. */
static void next_window(struct disk_request *request)
{
    uint64_t off = request->disk_off + request->window_off;
    uint64_t end = ALIGN_DOWN(off + DISK_WINDOW_BYTES, DISK_BLOCK_BYTES);
    request->window_bytes = MIN(request->bytes - request->window_off, end - off);
}

static void flush_done(struct io_op *op, int result)
{
    struct disk_part *part = CONTAINER_OF(op, struct disk_part, op);
    struct disk_overlay *overlay = part->overlay;
    /* What failed to reach the disk once may be gone from the page cache: trying again proves
     * nothing. A frozen overlay was frozen with nothing in flight, so it stays synced. */
    if (result < 0)
        overlay->sync_error = result;
    else
        overlay->synced = overlay->frozen;
    part_end(part, result);
}

/* Overlays below the top may have been frozen before they were flushed. */
static void start_flush(struct disk_request *request)
{
    for (struct disk_layer *layer = request->disk->top; layer; layer = layer->below) {
        struct disk_overlay *overlay = disk_overlay_of(layer);
        if (!overlay || overlay->synced)
            continue;
        if (overlay->sync_error < 0) {
            fail(request, overlay->sync_error);
            continue;
        }
        struct disk_part *part = part_new(request, 0, 0);
        if (!part)
            return;
        part->op.kind = IO_DATASYNC;
        part->op.fd = overlay->fd;
        part->op.done = flush_done;
        part->overlay = overlay;
        part_submit(part);
    }
}

/* True if the window is over already. */
static bool carry_out(struct disk_request *request)
{
    uint64_t off = request->disk_off + request->window_off;
    request->parts = 1; /* keeps what ends early from ending the window */
    if (request->kind == DISK_READ)
        start_read(request, off, request->window_bytes);
    else if (request->kind == DISK_WRITE)
        start_write(request, off, request->window_bytes);
    else
        start_flush(request);
    return --request->parts == 0;
}

static void end_window(struct disk_request *request)
{
    struct disk *disk = request->disk;
    if (request->kind == DISK_WRITE && request->window_bytes > 0) {
        uint64_t first = first_block(request);
        if (request->result == 0)
            disk_overlay_hold(disk->overlay, first, end_block(request) - first);
        unlink_write(&disk->writing, request);
        if (disk->waiting)
            io_post(disk->io, &disk->wake);
    }
    request->window_off += request->window_bytes;
    request->window_bytes = 0;
}

/* Nothing of the request is in flight: goes on to the next window, or ends it. */
static void proceed(struct disk_request *request)
{
    do {
        end_window(request);
        if (request->result < 0 || request->window_off == request->bytes) {
            request->done(request, request->result);
            return;
        }
        next_window(request);
        if (request->kind == DISK_WRITE && !take_blocks(request))
            return;
    } while (carry_out(request));
}

static void wake_writes(struct io_task *task)
{
    struct disk *disk = CONTAINER_OF(task, struct disk, wake);
    struct disk_request **link = &disk->waiting;
    while (*link) {
        struct disk_request *request = *link;
        if (overlaps(disk->writing, NULL, request) || overlaps(disk->waiting, request, request)) {
            link = &request->next;
            continue;
        }
        *link = request->next;
        request->next = disk->writing;
        disk->writing = request;
        if (carry_out(request))
            proceed(request); /* may append to `waiting`, never removes from it */
    }
}

static int check(const struct disk *disk, const struct disk_request *request)
{
    if (request->disk_off % DISK_SECTOR_BYTES || request->bytes % DISK_SECTOR_BYTES ||
        !range_fits(request->disk_off, request->bytes, disk->bytes))
        return -EINVAL;
    return request->kind == DISK_WRITE && !disk->overlay ? -EROFS : 0;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    request->disk = disk;
    request->bytes = 0;
    request->window_off = 0;
    request->window_bytes = 0;
    request->result = 0;
    if (request->kind == DISK_FLUSH) {
        if (carry_out(request))
            proceed(request);
        return;
    }
    for (unsigned i = 0; i < request->iov_count; i++)
        request->bytes += request->iov[i].iov_len;
    request->result = check(disk, request);
    proceed(request);
}
