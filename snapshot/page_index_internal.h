/* SPDX-License-Identifier: Apache-2.0 */
/* What an index is made of, shared by reading, looking up and building. */
#ifndef SNAPSHOT_PAGE_INDEX_INTERNAL_H
#define SNAPSHOT_PAGE_INDEX_INTERNAL_H

#include "page_index.h"

struct page_index {
    struct page_space space;
    unsigned pack_count;
    struct wire_b16 pack_ids[PAGE_INDEX_PACKS_MAX];
    uint64_t pack_live[PAGE_INDEX_PACKS_MAX];   /* pages mapped */
    uint64_t pack_extent[PAGE_INDEX_PACKS_MAX]; /* one above the highest pack page mapped */
    struct page_index_stats stats;
    size_t extent_count;
    const struct index_extent *extents; /* within `memory` */
    void *memory;                       /* owned */
};

/* What is wrong with the space, or NULL. */
const char *page_index_space_fault(const struct page_space *space);

/* Checks that the extents cover the space and refer to packs of the table, and fills in statistics
 * on the way. Returns what is wrong, or NULL. */
const char *page_index_take_stock(struct page_index *index);

#endif
