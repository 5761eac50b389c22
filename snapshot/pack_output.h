/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a pack that is being written: appends buffers to a file, in order, with several writes
 * under way at once where io_uring allows that. Belongs to one thread at a time.
 */
#ifndef SNAPSHOT_PACK_OUTPUT_H
#define SNAPSHOT_PACK_OUTPUT_H

#include "check.h"
#include "error.h"
#include <liburing.h>

struct pack_output {
    int fd;        /* owned */
    char *name;    /* for messages */
    bool seekable; /* a regular file: writes name their offset, and it can be made durable */
    bool has_ring; /* otherwise every write is complete when it returns */
    struct io_uring ring;
    unsigned in_flight;  /* writes that the kernel may still be reading buffers for */
    uint64_t file_bytes; /* appended so far */
    struct check_stream *digest;
};

/* One write. The caller keeps it and its bytes in place until it is done. */
struct pack_output_op {
    const uint8_t *bytes;
    size_t bytes_left;
    uint64_t file_off;
};

/* Takes over fd in every case. At most `depth` ops will be under way at once. */
int pack_output_init(struct pack_output *output, int fd, const char *name, unsigned depth,
    bool want_ring, struct thaw_error *error);

/* Waits for the writes that are under way. */
void pack_output_fini(struct pack_output *output);

/* Starts appending `count` bytes. Returns 1 if they are written, 0 if that is under way. */
int pack_output_start(struct pack_output *output, struct pack_output_op *op, const void *bytes,
    size_t count, struct thaw_error *error);

/* Hands what was started to the kernel. */
int pack_output_submit(struct pack_output *output, struct thaw_error *error);

/* Waits until one of the ops under way is done and sets *ret_op to it. NULL: it needs another
 * round, because its write was short. */
int pack_output_wait(
    struct pack_output *output, struct pack_output_op **ret_op, struct thaw_error *error);

/* Appends and waits. No op may be under way. */
int pack_output_append(
    struct pack_output *output, const void *bytes, size_t count, struct thaw_error *error);

/* Makes the file durable, if it is one. */
int pack_output_sync(struct pack_output *output, struct thaw_error *error);

struct wire_b16 pack_output_digest(const struct pack_output *output);

#endif
