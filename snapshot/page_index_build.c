// SPDX-License-Identifier: Apache-2.0
// Building page indexes: a sorted stream of changes laid over an older index. Does no I/O.

#include "page_index_internal.h"

#define EXTENTS_FIRST 64

/* Pack numbers in the extents are those of `index`, whose table grows while building and loses what
 * is not needed at the end. The base's packs come first, so its extents need no translation. */
struct page_index_builder {
    struct page_index *index;
    const struct page_index *base; /* may be NULL */
    size_t base_at;                /* the extent of the base that holds `page` */
    uint64_t page;                 /* all pages below have their extent */
    struct index_extent *extents;  /* owned; becomes the index's */
    size_t extent_room;
    unsigned last_pack; /* found last: changes come in runs */
};

int page_index_builder_new(const struct page_space *space, const struct page_index *base,
    struct page_index_builder **ret, struct thaw_error *error)
{
    const char *fault = page_index_space_fault(space);
    if (!fault && base && base->space.page_count != space->page_count)
        fault = "its size is not that of the index that it is based on";
    if (fault)
        return error_set(
            error, -EINVAL, "building a page index of space %u: %s", space->number, fault);
    struct page_index_builder *builder = calloc(1, sizeof(*builder));
    if (builder)
        builder->index = calloc(1, sizeof(*builder->index));
    if (!builder || !builder->index) {
        page_index_builder_free(builder);
        return error_errno(error, ENOMEM, "building a page index");
    }
    builder->base = base;
    builder->index->space = *space;
    if (base) {
        builder->index->pack_count = base->pack_count;
        memcpy(builder->index->pack_ids, base->pack_ids, sizeof(base->pack_ids));
    }
    *ret = builder;
    return 0;
}

void page_index_builder_free(struct page_index_builder *builder)
{
    if (!builder)
        return;
    free(builder->extents);
    page_index_free(builder->index);
    free(builder);
}

static bool continues(const struct index_extent *last, const struct index_extent *next)
{
    return last->kind == next->kind && last->pack == next->pack &&
           next->count <= INDEX_EXTENT_PAGES_MAX - last->count &&
           (last->kind != EXTENT_DATA || last->pack_page + last->count == next->pack_page);
}

static int append(
    struct page_index_builder *builder, const struct index_extent *extent, struct thaw_error *error)
{
    struct page_index *index = builder->index;
    builder->page += extent->count;
    if (index->extent_count > 0 && continues(&builder->extents[index->extent_count - 1], extent)) {
        builder->extents[index->extent_count - 1].count += extent->count;
        return 0;
    }
    if (index->extent_count == INDEX_EXTENTS_MAX)
        return error_set(error, -E2BIG,
            "the pages of space %u are in too many places: more than %u extents",
            index->space.number, INDEX_EXTENTS_MAX);
    if (index->extent_count == builder->extent_room) {
        size_t room = builder->extent_room ? 2 * builder->extent_room : EXTENTS_FIRST;
        void *extents = reallocarray(builder->extents, room, sizeof(builder->extents[0]));
        if (!extents)
            return error_errno(error, ENOMEM, "building a page index");
        builder->extents = extents;
        builder->extent_room = room;
    }
    builder->extents[index->extent_count++] = *extent;
    return 0;
}

/* Appends pages up to `end` in pieces that an extent can hold. */
static int append_run(struct page_index_builder *builder, uint64_t end, unsigned kind,
    unsigned pack, uint64_t pack_page, struct thaw_error *error)
{
    while (builder->page < end) {
        struct index_extent extent = {
            .page = builder->page,
            .pack_page = pack_page,
            .count = (uint32_t)MIN(end - builder->page, INDEX_EXTENT_PAGES_MAX),
            .pack = (uint16_t)pack,
            .kind = (uint16_t)kind,
        };
        int r = append(builder, &extent, error);
        if (r < 0)
            return r;
        if (kind == EXTENT_DATA)
            pack_page += extent.count;
    }
    return 0;
}

/* Takes all pages up to `end` from the base. */
static int copy_base(struct page_index_builder *builder, uint64_t end, struct thaw_error *error)
{
    const struct page_index *base = builder->base;
    if (!base)
        return append_run(builder, end, EXTENT_UNSPECIFIED, 0, 0, error);
    while (builder->page < end) {
        const struct index_extent *from = &base->extents[builder->base_at];
        uint64_t from_end = from->page + from->count;
        if (from_end <= builder->page) {
            builder->base_at++;
            continue;
        }
        uint64_t skipped = builder->page - from->page;
        uint64_t pack_page = from->kind == EXTENT_DATA ? from->pack_page + skipped : 0;
        int r = append_run(builder, MIN(end, from_end), from->kind, from->pack, pack_page, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int set(struct page_index_builder *builder, uint64_t page, uint64_t count, unsigned kind,
    unsigned pack, uint64_t pack_page, struct thaw_error *error)
{
    const struct page_space *space = &builder->index->space;
    if (page < builder->page || !range_fits(page, count, space->page_count))
        return error_set(error, -EINVAL,
            "building a page index of space %u: pages %llu+%llu are out of order or out of bounds",
            space->number, (unsigned long long)page, (unsigned long long)count);
    int r = copy_base(builder, page, error);
    if (r == 0)
        r = append_run(builder, page + count, kind, pack, pack_page, error);
    return r;
}

int page_index_builder_set_zero(
    struct page_index_builder *builder, uint64_t page, uint64_t count, struct thaw_error *error)
{
    return set(builder, page, count, EXTENT_ZERO, 0, 0, error);
}

int page_index_builder_set_unspecified(
    struct page_index_builder *builder, uint64_t page, uint64_t count, struct thaw_error *error)
{
    return set(builder, page, count, EXTENT_UNSPECIFIED, 0, 0, error);
}

/* The number of the pack in the table, to which it is added if need be. */
static int find_pack(
    struct page_index_builder *builder, const struct wire_b16 *id, struct thaw_error *error)
{
    struct page_index *index = builder->index;
    unsigned pack = builder->last_pack;
    if (pack < index->pack_count && wire_b16_equal(&index->pack_ids[pack], id))
        return (int)pack;
    for (pack = 0; pack < index->pack_count; pack++)
        if (wire_b16_equal(&index->pack_ids[pack], id))
            break;
    if (pack == PAGE_INDEX_PACKS_MAX)
        return error_set(error, -E2BIG, "the pages of space %u are in more than %u packs",
            index->space.number, PAGE_INDEX_PACKS_MAX);
    if (pack == index->pack_count)
        index->pack_ids[index->pack_count++] = *id;
    builder->last_pack = pack;
    return (int)pack;
}

int page_index_builder_set_data(struct page_index_builder *builder, uint64_t page, uint64_t count,
    const struct wire_b16 *pack_id, uint64_t pack_page, struct thaw_error *error)
{
    if (!range_fits(pack_page, count, PACK_PAGES_MAX))
        return error_set(error, -EINVAL, "building a page index: no pack has pages %llu+%llu",
            (unsigned long long)pack_page, (unsigned long long)count);
    int pack = find_pack(builder, pack_id, error);
    if (pack < 0)
        return pack;
    return set(builder, page, count, EXTENT_DATA, (unsigned)pack, pack_page, error);
}

/* Drops packs that no extent refers to, and numbers the others anew. */
static void drop_packs(struct page_index_builder *builder)
{
    struct page_index *index = builder->index;
    bool used[PAGE_INDEX_PACKS_MAX] = {0};
    uint16_t numbers[PAGE_INDEX_PACKS_MAX];
    for (size_t i = 0; i < index->extent_count; i++)
        if (builder->extents[i].kind == EXTENT_DATA)
            used[builder->extents[i].pack] = true;
    unsigned kept = 0;
    for (unsigned i = 0; i < index->pack_count; i++) {
        numbers[i] = (uint16_t)kept;
        if (used[i])
            index->pack_ids[kept++] = index->pack_ids[i];
    }
    index->pack_count = kept;
    for (size_t i = 0; i < index->extent_count; i++)
        if (builder->extents[i].kind == EXTENT_DATA)
            builder->extents[i].pack = numbers[builder->extents[i].pack];
}

int page_index_builder_finish(
    struct page_index_builder *builder, struct page_index **ret, struct thaw_error *error)
{
    struct page_index *index = builder->index;
    int r = copy_base(builder, index->space.page_count, error);
    if (r == 0) {
        drop_packs(builder);
        index->extents = index->memory = take_ptr(builder->extents);
        const char *fault = page_index_take_stock(index);
        if (fault)
            r = error_set(error, -EINVAL, "building a page index of space %u: %s",
                index->space.number, fault);
        else
            *ret = take_ptr(builder->index);
    }
    page_index_builder_free(builder);
    return r;
}
