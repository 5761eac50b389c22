/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of capturing: zstd alone, on the bytes that a snapshot holds. */
#ifndef BENCH_FLOOR_ZSTD_H
#define BENCH_FLOOR_ZSTD_H

#include "bench.h"

/* Compresses the bytes as one stream with so many threads (0: without any of zstd's own) and drops
 * the result. */
int floor_zstd(const void *bytes, size_t count, int level, unsigned threads, uint64_t *ret_ns,
    uint64_t *ret_stored_bytes, struct thaw_error *error);

#endif
