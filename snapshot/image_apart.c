// SPDX-License-Identifier: Apache-2.0
// Pages that come into an image apart from their frame: from a recorded working set, or one by one
// while one is recorded. Puts none in itself.

#include "image_internal.h"

int image_apart_init(struct image *image, struct thaw_error *error)
{
    if (image->apart)
        return 0;
    for (unsigned i = 0; i < image->pack_count; i++) {
        struct image_pack *pack = &image->packs[i];
        if (!pack->apart)
            pack->apart = calloc(pack->frame_count + 1, sizeof(*pack->apart));
        if (!pack->apart)
            return error_errno(error, ENOMEM, "allocating an image");
    }
    image->apart = calloc((size_t)(image->bytes / PAGE_BYTES + 63) / 64, sizeof(*image->apart));
    return image->apart ? 0 : error_errno(error, ENOMEM, "allocating an image");
}

void image_apart_fini(struct image *image)
{
    for (unsigned i = 0; i < image->pack_count; i++)
        free((void *)image->packs[i].apart);
    free((void *)image->apart);
}

/* Nothing is left to decompress, and what is to be checked (that the frame has what the index
 * wants) was when the working set was recorded. */
static void complete_frame(struct image *image, unsigned pack, uint64_t frame)
{
    if (image_claim_frame(image, pack, frame, false, NULL) > 0)
        image_finish_frame(image, pack, frame, 0, NULL);
}

void image_apart_note(struct image *image, const struct index_extent *extent, uint64_t count)
{
    struct image_pack *pack = &image->packs[extent->pack];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = extent->page + i, bit = (uint64_t)1 << (page % 64);
        uint64_t frame = (extent->pack_page + i) / pack->frame_pages;
        if (atomic_fetch_or_explicit(&image->apart[page / 64], bit, memory_order_release) & bit)
            continue;
        /* Who wants more of a frame than it can have is wrong, and `wanted` may be too low then:
         * whoever reads the frame finds out. */
        if (atomic_fetch_add(&pack->apart[frame], 1) + 1 == pack->wanted[frame] &&
            pack->wanted[frame] <= pack->frame_pages)
            complete_frame(image, extent->pack, frame);
    }
}

bool image_apart_has(const struct image *image, uint64_t page, uint64_t count)
{
    if (!image->apart)
        return false;
    for (uint64_t i = page; i < page + count; i++)
        if (!(atomic_load_explicit(&image->apart[i / 64], memory_order_acquire) >> (i % 64) & 1))
            return false;
    return true;
}
