// SPDX-License-Identifier: Apache-2.0
// Where the contents of every page of a space are: checks and look-ups. Reads no page.

#include "page_index_internal.h"

static const char *region_fault(const struct page_space *space)
{
    uint64_t page = 0, gpa_end = 0;
    for (unsigned i = 0; i < space->region_count; i++) {
        const struct index_region *region = &space->regions[i];
        if (region->page != page || region->page_count == 0 ||
            region->page_count > space->page_count - page)
            return "its regions do not line up";
        if (region->gpa % FORMAT_PAGE_BYTES != 0 || region->gpa < gpa_end ||
            region->page_count > (UINT64_MAX - region->gpa) / FORMAT_PAGE_BYTES)
            return "a region lies at an impossible guest address";
        page += region->page_count;
        gpa_end = region->gpa + region->page_count * FORMAT_PAGE_BYTES;
    }
    if (page != space->page_count)
        return "its regions do not cover its pages";
    return NULL;
}

const char *page_index_space_fault(const struct page_space *space)
{
    if (space->page_count > SPACE_PAGES_MAX)
        return "it has too many pages";
    if (space->region_count > SPACE_REGIONS_MAX)
        return "it has too many regions";
    if (space->kind == SPACE_KIND_RAM && space->number == SPACE_NUMBER_RAM)
        return region_fault(space);
    if (space->kind == SPACE_KIND_DISK && space->number != SPACE_NUMBER_RAM)
        return space->region_count > 0 ? "a disk has no regions" : NULL;
    return "its kind and its number contradict each other";
}

static const char *data_fault(struct page_index *index, const struct index_extent *extent)
{
    if (extent->pack >= index->pack_count)
        return "an extent refers to a pack that is not in the table";
    if (!range_fits(extent->pack_page, extent->count, PACK_PAGES_MAX))
        return "an extent exceeds the size of a pack";
    uint64_t end = extent->pack_page + extent->count;
    index->pack_live[extent->pack] += extent->count;
    index->pack_extent[extent->pack] = MAX(index->pack_extent[extent->pack], end);
    index->stats.data_pages += extent->count;
    return NULL;
}

static const char *extent_fault(struct page_index *index, const struct index_extent *extent)
{
    if (extent->kind == EXTENT_DATA)
        return data_fault(index, extent);
    if (extent->pack || extent->pack_page)
        return "an extent without data refers to a pack";
    if (extent->kind == EXTENT_ZERO)
        index->stats.zero_pages += extent->count;
    else if (extent->kind == EXTENT_UNSPECIFIED)
        index->stats.unspecified_pages += extent->count;
    else
        return "an extent is of an unknown kind";
    return NULL;
}

const char *page_index_take_stock(struct page_index *index)
{
    for (unsigned i = 0; i < index->pack_count; i++)
        for (unsigned k = 0; k < i; k++)
            if (wire_b16_equal(&index->pack_ids[i], &index->pack_ids[k]))
                return "a pack is twice in its table";
    uint64_t page = 0;
    for (size_t i = 0; i < index->extent_count; i++) {
        const struct index_extent *extent = &index->extents[i];
        if (extent->page != page || extent->count == 0 ||
            extent->count > index->space.page_count - page)
            return "its extents do not line up";
        const char *fault = extent_fault(index, extent);
        if (fault)
            return fault;
        page += extent->count;
    }
    return page == index->space.page_count ? NULL : "its extents do not cover its pages";
}

void page_index_free(struct page_index *index)
{
    if (!index)
        return;
    free(index->memory);
    free(index);
}

const struct page_space *page_index_space(const struct page_index *index)
{
    return &index->space;
}

unsigned page_index_pack_count(const struct page_index *index)
{
    return index->pack_count;
}

const struct wire_b16 *page_index_pack_id(const struct page_index *index, unsigned pack)
{
    return &index->pack_ids[pack];
}

uint64_t page_index_pack_live(const struct page_index *index, unsigned pack)
{
    return index->pack_live[pack];
}

uint64_t page_index_pack_extent(const struct page_index *index, unsigned pack)
{
    return index->pack_extent[pack];
}

size_t page_index_extent_count(const struct page_index *index)
{
    return index->extent_count;
}

const struct index_extent *page_index_extents(const struct page_index *index)
{
    return index->extents;
}

void page_index_get_stats(const struct page_index *index, struct page_index_stats *ret)
{
    *ret = index->stats;
}

size_t page_index_find(const struct page_index *index, uint64_t page)
{
    if (page >= index->space.page_count)
        return index->extent_count;
    size_t low = 0, high = index->extent_count; /* the extent is in [low, high) */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (index->extents[middle].page <= page)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool page_index_lookup(const struct page_index *index, uint64_t page, struct index_extent *ret)
{
    size_t at = page_index_find(index, page);
    if (at == index->extent_count)
        return false;
    struct index_extent extent = index->extents[at];
    uint64_t skipped = page - extent.page;
    extent.page = page;
    extent.count -= (uint32_t)skipped;
    if (extent.kind == EXTENT_DATA)
        extent.pack_page += skipped;
    *ret = extent;
    return true;
}

bool page_index_maps(
    const struct page_index *index, uint64_t page, unsigned pack, uint64_t pack_page)
{
    struct index_extent extent;
    return page_index_lookup(index, page, &extent) && extent.kind == EXTENT_DATA &&
           extent.pack == pack && extent.pack_page == pack_page;
}
