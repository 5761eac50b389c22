/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of reading a snapshot: the same data in frames of zstd, read and decompressed into a
 * memfd by as many threads, with no index, checksum or fault. */
#ifndef BENCH_FLOOR_READ_H
#define BENCH_FLOOR_READ_H

#include "bench.h"

/* Frames of a file, one behind the other. */
struct floor_frames {
    char path[PATH_BYTES];
    uint32_t *stored_bytes; /* of each */
    uint64_t *file_off;
    uint64_t count;
    size_t frame_bytes; /* uncompressed */
    int level;
};

/* Compresses the first data_bytes of a file into frames in a file of the scratch directory. */
int floor_frames_make(const struct bench *bench, const char *name, const char *data_path,
    uint64_t data_bytes, size_t frame_bytes, int level, struct floor_frames *ret,
    struct thaw_error *error);
void floor_frames_free(struct floor_frames *frames);

/* How long it takes to have it all in memory. */
int floor_frames_read(const struct floor_frames *frames, unsigned threads, uint64_t *ret_ns,
    struct thaw_error *error);

#endif
