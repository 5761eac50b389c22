/* SPDX-License-Identifier: Apache-2.0 */
/* One frame: up to FRAME_PAGES_MAX pages, compressed on their own and checked before decompression.
 */
#ifndef SNAPSHOT_FRAME_H
#define SNAPSHOT_FRAME_H

#include "error.h"
#include "format.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

/* True if all bytes of the page are zero. Such pages are never put into a frame. */
bool frame_page_is_zero(const void *page);

/* The check of a frame, over its stored bytes and all of *entry that says how to read them. */
struct wire_b16 frame_compute_check(const struct wire_b16 *pack_id, uint64_t frame,
    const struct frame_entry *entry, const void *stored);

/* How many bytes frame_encode may need for `slots` pages. */
size_t frame_encode_bound(unsigned slots);

/* Compresses `slots` pages at `raw` into `packed` (of frame_encode_bound(slots) bytes), or leaves
 * them raw where that does not pay. Sets all of *ret_entry but file_off and first_slot, and
 * *ret_stored to the bytes to store: `packed` or `raw`. */
int frame_encode(struct ZSTD_CCtx_s *context, const struct wire_b16 *pack_id, uint64_t frame,
    const uint8_t *raw, unsigned slots, uint8_t *packed, struct frame_entry *ret_entry,
    const uint8_t **ret_stored, struct thaw_error *error);

/* What one thread needs to decode frames, one after the other. */
struct frame_scratch {
    struct ZSTD_DCtx_s *context;
    uint8_t *pages; /* page aligned: what the last frame decoded to */
    uint8_t *stored;
    unsigned frame_pages; /* both hold that many pages */
};

/* A zeroed scratch is valid: it gets its memory when a frame is first read into it. */
void frame_scratch_fini(struct frame_scratch *scratch);

/* Makes room for frames of frame_pages pages. The contents are lost. -ENOMEM. */
int frame_scratch_reserve(
    struct frame_scratch *scratch, unsigned frame_pages, struct thaw_error *error);

/* Checks and decompresses a frame into scratch->pages. `stored` may be scratch->stored, any other
 * memory, or scratch->pages itself if the codec is raw. The entry must have passed the bounds
 * checks of its pack, and the scratch must have room for it. THAW_ECORRUPT, with a message that
 * still needs the names of pack and frame in front. */
int frame_decode(struct frame_scratch *scratch, const struct wire_b16 *pack_id, uint64_t frame,
    const struct frame_entry *entry, const uint8_t *stored, struct thaw_error *error);

#endif
