/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a pack that is being written: appends bytes to a file, in large pieces of which
 * several may be under way at once where io_uring allows that. Belongs to one thread at a time.
 *
 * Once nobody waits for room (pack_output_go_direct), what comes after the first megabytes is
 * written past the page cache where the file system can (O_DIRECT). Copying it there costs up to a
 * quarter of what compressing it does, most of it where memory has to be got first, and a large
 * snapshot would drive out of the cache what others are restored from.
 */
#ifndef SNAPSHOT_PACK_OUTPUT_H
#define SNAPSHOT_PACK_OUTPUT_H

#include "check.h"
#include "error.h"
#include <liburing.h>
#include <stdatomic.h>

/* Large enough that the cost of a write does not matter, small enough that they overlap. */
#define PACK_OUTPUT_PIECE_BYTES (512u << 10)
#define PACK_OUTPUT_PIECES      4

/* So much stays in the page cache: small snapshots as a whole, of large ones the low memory, where
 * guests' kernels are. */
#define PACK_OUTPUT_CACHED_BYTES (16u << 20)

struct pack_output_piece {
    uint8_t *bytes;
    size_t used;
    size_t written;
    uint64_t file_off;
    bool in_flight; /* the kernel may be reading it */
    bool direct;    /* is being written past the page cache */
};

struct pack_output {
    int fd;                  /* owned */
    int direct_fd;           /* the same file; -1: not opened yet, or not to be had */
    bool no_direct;          /* the file system can't */
    _Atomic bool may_direct; /* by any thread */
    char *name;              /* for messages */
    bool seekable; /* a regular file: writes name their offset, and it can be made durable */
    bool has_ring; /* otherwise every write is complete when it returns */
    struct io_uring ring;
    unsigned in_flight;
    struct pack_output_piece pieces[PACK_OUTPUT_PIECES];
    struct pack_output_piece *filling; /* NULL: the next byte begins a piece */
    uint64_t file_bytes;               /* appended so far */
    struct check_stream *digest;
};

/* Takes over fd in every case. */
int pack_output_init(
    struct pack_output *output, int fd, const char *name, bool want_ring, struct thaw_error *error);

/* Waits for the writes that are under way, and forgets what was not written. */
void pack_output_fini(struct pack_output *output);

/* From now on it is better to wait for the disk than to take memory. Any thread. */
void pack_output_go_direct(struct pack_output *output);

/* Copies the bytes; waits while too much is under way. After a failure of this or of flush, only
 * fini is allowed. */
int pack_output_append(
    struct pack_output *output, const void *bytes, size_t count, struct thaw_error *error);

/* Returns when everything is written. */
int pack_output_flush(struct pack_output *output, struct thaw_error *error);

/* Makes the file durable, if it is one. */
int pack_output_sync(struct pack_output *output, struct thaw_error *error);

/* XXH3-128 of all that was appended. */
struct wire_b16 pack_output_digest(const struct pack_output *output);

#endif
