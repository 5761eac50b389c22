// SPDX-License-Identifier: Apache-2.0
// zstd by itself, as fast as it goes. No file is written.

#include "floor_zstd.h"
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

int floor_zstd(const void *bytes, size_t count, int level, unsigned threads, uint64_t *ret_ns,
    uint64_t *ret_stored_bytes, struct thaw_error *error)
{
    void *out _cleanup_free_ = malloc(OUT_BYTES);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (!out || !context) {
        ZSTD_freeCCtx(context);
        return bench_fail(error, -ENOMEM, "zstd: no memory");
    }
    uint64_t start = now_ns();
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    size_t r = ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, (int)threads);
    int result = ZSTD_isError(r) ? bench_fail(error, -ENOSYS, "zstd: built without threads")
                                 : compress(context, bytes, count, out, ret_stored_bytes, error);
    *ret_ns = now_ns() - start;
    ZSTD_freeCCtx(context);
    return result;
}
