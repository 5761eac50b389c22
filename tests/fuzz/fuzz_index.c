// SPDX-License-Identifier: Apache-2.0
// Page indexes are untrusted. Any bytes are refused, or make an index in which every page is found
// and which survives being built upon and written again. The last byte chooses: even, the file is
// as it stands; odd, its checksums are made good first.

#include "check.h"
#include "fuzz.h"
#include "page_index.h"

static void make_checksums_good(uint8_t *bytes, size_t count)
{
    if (count < FILE_HEADER_BYTES)
        return;
    size_t header_bytes = wire_load_u32(bytes + 12);
    if (header_bytes < FILE_HEADER_BYTES || header_bytes > count)
        return;
    wire_store_u64(bytes + header_bytes - 8, check_64(bytes, header_bytes - 8));
    if (!range_fits(header_bytes, INDEX_SPACE_BYTES + INDEX_CHECK_BYTES, count))
        return;
    struct index_space space;
    index_space_decode(&space, bytes + header_bytes);
    uint64_t extents_off = header_bytes + INDEX_SPACE_BYTES +
                           (uint64_t)space.region_count * INDEX_REGION_BYTES +
                           (uint64_t)space.pack_count * INDEX_PACK_ID_BYTES;
    uint64_t check_off = count - INDEX_CHECK_BYTES;
    if (extents_off <= check_off)
        wire_store_b16(bytes + check_off,
            check_128(bytes, extents_off, bytes + extents_off, check_off - extents_off));
}

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void look_up(const struct page_index *index)
{
    uint64_t pages = page_index_space(index)->page_count;
    const struct index_extent *extents = page_index_extents(index);
    struct page_index_stats stats;
    page_index_get_stats(index, &stats);
    require(stats.zero_pages + stats.data_pages + stats.unspecified_pages == pages);
    uint64_t page = 0;
    for (size_t i = 0; i < page_index_extent_count(index); i++) {
        struct index_extent found;
        require(extents[i].page == page);
        page += extents[i].count;
        require(page_index_find(index, page - 1) == i);
        require(page_index_lookup(index, page - 1, &found) && found.count == 1);
        if (found.kind == EXTENT_DATA) {
            require(page_index_maps(index, page - 1, found.pack, found.pack_page));
            require(found.pack_page < page_index_pack_extent(index, found.pack));
        }
    }
    require(page == pages && page_index_find(index, pages) == page_index_extent_count(index));
}

static void build_upon(const struct page_index *index)
{
    const struct page_space *space = page_index_space(index);
    const struct wire_b16 id = {{0xff, 0xfe}};
    struct page_index_builder *builder;
    struct page_index *next;
    struct thaw_error error;
    require(page_index_builder_new(space, index, &builder, &error) == 0);
    uint64_t middle = space->page_count / 2;
    int r = page_index_builder_set_zero(builder, middle / 2, middle > 0, &error);
    if (r == 0 && space->page_count > 0)
        r = page_index_builder_set_data(builder, middle, 1, &id, 0, &error);
    require(r == 0);
    require(page_index_builder_finish(builder, &next, &error) == 0);
    look_up(next);
    page_index_free(next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    if (count == 0)
        return 0;
    uint8_t *bytes = fuzz_copy(data, --count);
    if (data[count] % 2)
        make_checksums_good(bytes, count);
    struct page_index *index;
    struct thaw_error error;
    if (page_index_decode(bytes, count, "fuzz", &index, &error) == 0) {
        look_up(index);
        build_upon(index);
        page_index_free(index);
    }
    return 0;
}
