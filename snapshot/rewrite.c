// SPDX-License-Identifier: Apache-2.0
// Copies live pages from old packs into a new one. Deletes nothing: who drops a pack's last link
// does.

#include "rewrite.h"

#define LIVE_PERCENT_MIN     25
#define CHECK_INTERVAL_PAGES 256

struct victims {
    bool of[PAGE_INDEX_PACKS_MAX]; /* by the pack's number in the index */
    unsigned count;
};

static uint64_t pack_pages(
    const struct rewrite *rewrite, const struct page_index *index, unsigned pack)
{
    const struct pack_reader *reader =
        contents_find_pack(rewrite->from, page_index_pack_id(index, pack));
    return reader ? pack_reader_page_count(reader) : 0;
}

/* The foreign pack that keeps least, of those that are not victims yet; -1: none. */
static int least_live(
    const struct rewrite *rewrite, const struct page_index *index, const struct victims *victims)
{
    int least = -1;
    for (unsigned i = 0; i < page_index_pack_count(index); i++)
        if (!victims->of[i] && !wire_b16_equal(page_index_pack_id(index, i), &rewrite->own) &&
            (least < 0 ||
                page_index_pack_live(index, i) < page_index_pack_live(index, (unsigned)least)))
            least = (int)i;
    return least;
}

static void choose(
    const struct rewrite *rewrite, const struct page_index *index, struct victims *ret)
{
    unsigned count = page_index_pack_count(index);
    for (unsigned i = 0; i < count; i++) {
        if (wire_b16_equal(page_index_pack_id(index, i), &rewrite->own))
            continue;
        uint64_t live = page_index_pack_live(index, i);
        ret->of[i] = rewrite->all || live * 100 < pack_pages(rewrite, index, i) * LIVE_PERCENT_MIN;
        ret->count += ret->of[i];
    }
    /* The pages that move need a place in the table as well: the pack that is being written. */
    while (count - ret->count + 1 > INDEX_PACKS_MAX) {
        int victim = least_live(rewrite, index, ret);
        if (victim < 0)
            break;
        ret->of[victim] = true;
        ret->count++;
    }
}

static int move_extent(const struct rewrite *rewrite, const struct page_index *index,
    const struct index_extent *extent, struct contents_cursor *cursor,
    struct page_index_builder *builder, struct thaw_error *error)
{
    const struct wire_b16 *id = page_index_pack_id(index, extent->pack);
    const struct pack_reader *pack = contents_find_pack(rewrite->from, id);
    if (!pack)
        return error_set(error, THAW_ECORRUPT, "a pack that the snapshot needs is not there");
    unsigned space = page_index_space(index)->number;
    for (uint32_t i = 0; i < extent->count; i++) {
        const uint8_t *bytes;
        uint64_t moved = 0;
        if (rewrite->job && i % CHECK_INTERVAL_PAGES == 0 && job_cancelled(rewrite->job))
            return error_set(error, -ECANCELED, "cancelled");
        int r = contents_page(cursor, pack, extent->pack_page + i, &bytes, error);
        if (r == 0)
            r = pack_writer_add(rewrite->writer, space, extent->page + i, bytes, &moved, error);
        if (r == 0)
            r = page_index_builder_set_data(
                builder, extent->page + i, 1, &rewrite->own, moved, error);
        if (r < 0)
            return r;
        if (rewrite->job)
            job_advance(rewrite->job, FORMAT_PAGE_BYTES);
    }
    return 0;
}

int rewrite_space(
    const struct rewrite *rewrite, struct page_index **index, struct thaw_error *error)
{
    struct victims victims = {0};
    choose(rewrite, *index, &victims);
    if (victims.count == 0)
        return 0;

    struct page_index_builder *builder;
    int r = page_index_builder_new(page_index_space(*index), *index, &builder, error);
    if (r < 0)
        return r;
    struct contents_cursor cursor = {.contents = rewrite->from};
    const struct index_extent *extents = page_index_extents(*index);
    for (size_t i = 0; i < page_index_extent_count(*index) && r == 0; i++)
        if (extents[i].kind == EXTENT_DATA && victims.of[extents[i].pack])
            r = move_extent(rewrite, *index, &extents[i], &cursor, builder, error);
    contents_cursor_fini(&cursor);
    struct page_index *lighter;
    if (r < 0) {
        page_index_builder_free(builder);
        return r;
    }
    r = page_index_builder_finish(builder, &lighter, error);
    if (r < 0)
        return r;
    page_index_free(*index);
    *index = lighter;
    return 0;
}
