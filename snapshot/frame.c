// SPDX-License-Identifier: Apache-2.0
// Compression and checks of single frames. Knows no file.

#include "frame.h"
#include "check.h"
#include <zstd.h>
#include <zstd_errors.h>

/* A frame that saves less than this part of its size is stored raw: reading it back then needs no
 * decompression. */
#define WORTHWHILE_PART 16

bool frame_page_is_zero(const void *page)
{
    const uint8_t *bytes = page;
    /* Most pages that are not zero show it at once. */
    if (wire_load_u64(bytes) | wire_load_u64(bytes + 8))
        return false;
    return memcmp(bytes, bytes + 16, FORMAT_PAGE_BYTES - 16) == 0;
}

struct wire_b16 frame_compute_check(const struct wire_b16 *pack_id, uint64_t frame,
    const struct frame_entry *entry, const void *stored)
{
    const struct frame_seed seed = {
        .pack_id = *pack_id,
        .frame = frame,
        .stored_bytes = entry->stored_bytes,
        .raw_bytes = entry->raw_bytes,
        .codec = entry->codec,
        .slots = entry->slots,
        .dictionary_id = entry->dictionary_id,
        .key_id = entry->key_id,
    };
    uint8_t seed_bytes[FRAME_SEED_BYTES];
    frame_seed_encode(&seed, seed_bytes);
    return check_128(seed_bytes, sizeof(seed_bytes), stored, entry->stored_bytes);
}

size_t frame_encode_bound(unsigned slots)
{
    return ZSTD_compressBound((size_t)slots * FORMAT_PAGE_BYTES);
}

int frame_encode(ZSTD_CCtx *context, const struct wire_b16 *pack_id, uint64_t frame,
    const uint8_t *raw, unsigned slots, uint8_t *packed, struct frame_entry *ret_entry,
    const uint8_t **ret_stored, struct thaw_error *error)
{
    size_t raw_bytes = (size_t)slots * FORMAT_PAGE_BYTES;
    size_t packed_bytes =
        ZSTD_compress2(context, packed, frame_encode_bound(slots), raw, raw_bytes);
    if (ZSTD_isError(packed_bytes))
        return error_set(error,
            ZSTD_getErrorCode(packed_bytes) == ZSTD_error_memory_allocation ? -ENOMEM : -EIO,
            "compressing frame %llu: %s", (unsigned long long)frame,
            ZSTD_getErrorName(packed_bytes));

    bool worthwhile = packed_bytes <= raw_bytes - raw_bytes / WORTHWHILE_PART;
    struct frame_entry entry = {
        .stored_bytes = (uint32_t)(worthwhile ? packed_bytes : raw_bytes),
        .raw_bytes = (uint32_t)raw_bytes,
        .codec = worthwhile ? FRAME_CODEC_ZSTD : FRAME_CODEC_RAW,
        .slots = (uint16_t)slots,
    };
    const uint8_t *stored = worthwhile ? packed : raw;
    entry.check = frame_compute_check(pack_id, frame, &entry, stored);
    *ret_entry = entry;
    *ret_stored = stored;
    return 0;
}

void frame_scratch_fini(struct frame_scratch *scratch)
{
    if (!scratch)
        return;
    ZSTD_freeDCtx(scratch->context);
    free(scratch->pages);
    free(scratch->stored);
    *scratch = (struct frame_scratch){0};
}

int frame_scratch_reserve(
    struct frame_scratch *scratch, unsigned frame_pages, struct thaw_error *error)
{
    if (frame_pages <= scratch->frame_pages)
        return 0;
    frame_scratch_fini(scratch);
    size_t bytes = (size_t)frame_pages * FORMAT_PAGE_BYTES;
    scratch->context = ZSTD_createDCtx();
    scratch->pages = aligned_alloc(FORMAT_PAGE_BYTES, bytes);
    scratch->stored = aligned_alloc(FORMAT_PAGE_BYTES, bytes);
    if (!scratch->context || !scratch->pages || !scratch->stored) {
        frame_scratch_fini(scratch);
        return error_errno(error, ENOMEM, "allocating memory to read frames");
    }
    scratch->frame_pages = frame_pages;
    return 0;
}

int frame_decode(struct frame_scratch *scratch, const struct wire_b16 *pack_id, uint64_t frame,
    const struct frame_entry *entry, const uint8_t *stored, struct thaw_error *error)
{
    struct wire_b16 check = frame_compute_check(pack_id, frame, entry, stored);
    if (!wire_b16_equal(&check, &entry->check))
        return error_set(error, THAW_ECORRUPT,
            "the stored bytes do not match their check: the file or the disk is damaged");
    if (entry->codec == FRAME_CODEC_RAW) {
        if (stored != scratch->pages)
            memcpy(scratch->pages, stored, entry->raw_bytes);
        return 0;
    }
    size_t bytes = ZSTD_decompressDCtx(
        scratch->context, scratch->pages, entry->raw_bytes, stored, entry->stored_bytes);
    if (ZSTD_isError(bytes))
        return error_set(error, THAW_ECORRUPT, "the stored bytes do not decompress: %s",
            ZSTD_getErrorName(bytes));
    if (bytes != entry->raw_bytes)
        return error_set(error, THAW_ECORRUPT, "it decompresses to %zu bytes instead of %u", bytes,
            entry->raw_bytes);
    return 0;
}
