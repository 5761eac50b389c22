/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of capturing: zstd alone, on the bytes that a snapshot holds. */
#ifndef BENCH_FLOOR_ZSTD_H
#define BENCH_FLOOR_ZSTD_H

#include "bench.h"

struct floor_zstd {
    int level;
    int hash_log;     /* 0: the level's */
    unsigned threads; /* 0: none of zstd's own */
};

/* Compresses the bytes as one stream and drops the result. */
int floor_zstd(const void *bytes, size_t count, const struct floor_zstd *how, uint64_t *ret_ns,
    uint64_t *ret_stored_bytes, struct thaw_error *error);

#endif
