// SPDX-License-Identifier: Apache-2.0
// Copies live pages from old packs into a new one. Deletes nothing: who drops a pack's last link
// does.

#include "rewrite.h"
#include "manifest.h"

#define LIVE_PERCENT_MIN     25
#define CHECK_INTERVAL_PAGES 256

/* A pack that was written before, and what of it the spaces keep together. */
struct old_pack {
    struct wire_b16 id;
    uint64_t live_pages;
    bool victim;
};

struct plan {
    struct old_pack *packs;
    unsigned count;
};

static struct old_pack *find_old(const struct plan *plan, const struct wire_b16 *id)
{
    for (unsigned i = 0; i < plan->count; i++)
        if (wire_b16_equal(&plan->packs[i].id, id))
            return &plan->packs[i];
    return NULL;
}

static void count_space(
    const struct rewrite *rewrite, const struct page_index *index, struct plan *plan)
{
    for (unsigned i = 0; i < page_index_pack_count(index); i++) {
        const struct wire_b16 *id = page_index_pack_id(index, i);
        if (wire_b16_equal(id, &rewrite->own))
            continue;
        struct old_pack *pack = find_old(plan, id);
        if (!pack) {
            pack = &plan->packs[plan->count++];
            pack->id = *id;
        }
        pack->live_pages += page_index_pack_live(index, i);
    }
}

static bool is_worth_keeping(const struct rewrite *rewrite, const struct old_pack *pack)
{
    const struct pack_reader *reader = contents_find_pack(rewrite->from, &pack->id);
    uint64_t pages = reader ? pack_reader_page_count(reader) : 0;
    return !rewrite->all && pack->live_pages * 100 >= pages * LIVE_PERCENT_MIN;
}

/* Gives up packs, those that keep least first, until at most `most` of `count` are kept. */
static void limit(struct old_pack *const *packs, unsigned count, unsigned most)
{
    for (;;) {
        unsigned kept = 0;
        struct old_pack *least = NULL;
        for (unsigned i = 0; i < count; i++) {
            kept += !packs[i]->victim;
            if (!packs[i]->victim && (!least || packs[i]->live_pages < least->live_pages))
                least = packs[i];
        }
        if (kept <= most)
            return;
        least->victim = true;
    }
}

static void limit_space(const struct page_index *index, const struct plan *plan)
{
    struct old_pack *packs[PAGE_INDEX_PACKS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < page_index_pack_count(index); i++) {
        struct old_pack *pack = find_old(plan, page_index_pack_id(index, i));
        if (pack)
            packs[count++] = pack;
    }
    /* The pages that move need a place in the table as well: the pack that is being written. */
    limit(packs, count, INDEX_PACKS_MAX - 1);
}

static void limit_snapshot(const struct plan *plan)
{
    struct old_pack *packs[CONTENTS_SPACES_MAX * PAGE_INDEX_PACKS_MAX];
    for (unsigned i = 0; i < plan->count; i++)
        packs[i] = &plan->packs[i];
    limit(packs, plan->count, MANIFEST_PACKS_MAX - 1);
}

/* A pack's file goes when no space refers to it any more, so all spaces are looked at together. */
static int make_plan(const struct rewrite *rewrite, struct page_index *const *indexes,
    unsigned count, struct plan *ret, struct thaw_error *error)
{
    size_t most = 0;
    for (unsigned i = 0; i < count; i++)
        most += page_index_pack_count(indexes[i]);
    *ret = (struct plan){.packs = calloc(most + 1, sizeof(*ret->packs))};
    if (!ret->packs)
        return error_errno(error, ENOMEM, "looking at what old packs keep");
    for (unsigned i = 0; i < count; i++)
        count_space(rewrite, indexes[i], ret);
    for (unsigned i = 0; i < ret->count; i++)
        ret->packs[i].victim = !is_worth_keeping(rewrite, &ret->packs[i]);
    for (unsigned i = 0; i < count; i++)
        limit_space(indexes[i], ret);
    limit_snapshot(ret);
    return 0;
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

/* Which packs of the index's table are given up. False: none is. */
static bool find_victims(
    const struct page_index *index, const struct plan *plan, bool ret[PAGE_INDEX_PACKS_MAX])
{
    bool any = false;
    for (unsigned i = 0; i < page_index_pack_count(index); i++) {
        const struct old_pack *pack = find_old(plan, page_index_pack_id(index, i));
        ret[i] = pack && pack->victim;
        any |= ret[i];
    }
    return any;
}

static int rewrite_space(const struct rewrite *rewrite, const struct plan *plan,
    struct page_index **index, struct thaw_error *error)
{
    bool victims[PAGE_INDEX_PACKS_MAX] = {0};
    if (!find_victims(*index, plan, victims))
        return 0;

    struct page_index_builder *builder;
    int r = page_index_builder_new(page_index_space(*index), *index, &builder, error);
    if (r < 0)
        return r;
    struct contents_cursor cursor = {.contents = rewrite->from};
    const struct index_extent *extents = page_index_extents(*index);
    for (size_t i = 0; i < page_index_extent_count(*index) && r == 0; i++)
        if (extents[i].kind == EXTENT_DATA && victims[extents[i].pack])
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

int rewrite_spaces(const struct rewrite *rewrite, struct page_index **indexes, unsigned count,
    struct thaw_error *error)
{
    struct plan plan;
    int r = make_plan(rewrite, indexes, count, &plan, error);
    for (unsigned i = 0; i < count && r == 0; i++)
        r = rewrite_space(rewrite, &plan, &indexes[i], error);
    free(plan.packs);
    return r;
}
