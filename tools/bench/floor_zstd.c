// SPDX-License-Identifier: Apache-2.0
// zstd by itself, as fast as it goes. No file is written.

#include "floor_zstd.h"
#include "rows.h"
#include <zstd.h>

#define OUT_BYTES (4 * (size_t)MIB)

static int compress(ZSTD_CCtx *context, const void *bytes, size_t count, void *out,
    uint64_t *ret_stored_bytes, struct thaw_error *error)
{
    ZSTD_inBuffer in = {.src = bytes, .size = count};
    uint64_t stored = 0;
    size_t left;
    do {
        ZSTD_outBuffer to = {.dst = out, .size = OUT_BYTES};
        left = ZSTD_compressStream2(context, &to, &in, ZSTD_e_end);
        if (ZSTD_isError(left))
            return bench_fail(error, -EIO, "zstd: %s", ZSTD_getErrorName(left));
        stored += to.pos;
    } while (left > 0);
    *ret_stored_bytes = stored;
    return 0;
}

static int set(ZSTD_CCtx *context, const struct floor_zstd *how, struct thaw_error *error)
{
    const struct {
        ZSTD_cParameter parameter;
        int value;
    } all[] = {
        {ZSTD_c_compressionLevel, how->level},
        {ZSTD_c_hashLog, how->hash_log},
        {ZSTD_c_nbWorkers, (int)how->threads},
    };
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        size_t r = ZSTD_CCtx_setParameter(context, all[i].parameter, all[i].value);
        if (ZSTD_isError(r))
            return bench_fail(error, -ENOSYS, "zstd: %s", ZSTD_getErrorName(r));
    }
    return 0;
}

int floor_zstd(const void *bytes, size_t count, const struct floor_zstd *how, uint64_t *ret_ns,
    uint64_t *ret_stored_bytes, struct thaw_error *error)
{
    void *out _cleanup_free_ = malloc(OUT_BYTES);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    int r =
        out && context ? set(context, how, error) : bench_fail(error, -ENOMEM, "zstd: no memory");
    stay_awake();
    uint64_t start = now_ns();
    if (r == 0)
        r = compress(context, bytes, count, out, ret_stored_bytes, error);
    *ret_ns = now_ns() - start;
    ZSTD_freeCCtx(context);
    return r;
}
