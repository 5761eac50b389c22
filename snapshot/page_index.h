/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page indexes: for every page of a space (guest RAM, a disk), where its contents are. An index is
 * complete by itself: it is never looked up together with the index of a parent snapshot.
 *
 * An index is immutable, so any number of threads may read it. It takes 24 bytes an extent, and
 * nothing a page.
 */
#ifndef SNAPSHOT_PAGE_INDEX_H
#define SNAPSHOT_PAGE_INDEX_H

#include "error.h"
#include "format.h"

/* A space: an array of pages. */
struct page_space {
    struct wire_b16 id;
    uint8_t number; /* SPACE_NUMBER_RAM, or 1 + the disk's number */
    uint8_t kind;   /* SPACE_KIND_* */
    uint64_t page_count;
    /* Where it lies in guest physical memory: RAM has regions for exactly its pages, in order of
     * page and of gpa; a disk has none. */
    unsigned region_count;
    struct index_region regions[SPACE_REGIONS_MAX];
};

struct page_index;

/* An index under construction may refer to so many packs; a file to INDEX_PACKS_MAX. */
#define PAGE_INDEX_PACKS_MAX (2 * INDEX_PACKS_MAX)

/* --- Files ------------------------------------------------------------------------------------ */

/* Reads the index in a file and checks all of it. THAW_ECORRUPT, -EOPNOTSUPP (needs a newer thaw),
 * -errno. */
int page_index_load(int dirfd, const char *name, struct page_index **ret, struct thaw_error *error);

/* The same from memory, which comes from malloc() and is taken over in every case. */
int page_index_decode(uint8_t *bytes, size_t count, const char *name, struct page_index **ret,
    struct thaw_error *error);

struct page_index_totals {
    uint64_t file_bytes;
    struct wire_b16 digest; /* XXH3-128 of the whole file */
};

/* Writes an index into a new file, which must not exist, and makes it durable. On failure the file
 * may be left behind: the caller owns the directory. -E2BIG if it refers to more packs than
 * INDEX_PACKS_MAX: the caller moves the pages of some packs to a new one and builds again. */
int page_index_save(const struct page_index *index, int dirfd, const char *name,
    struct page_index_totals *ret, struct thaw_error *error);

void page_index_free(struct page_index *index);

/* --- Looking up ------------------------------------------------------------------------------- */

/* Borrowed from the index. */
const struct page_space *page_index_space(const struct page_index *index);

/* The packs that the index refers to. The number of a pack in the table is what extents contain. */
unsigned page_index_pack_count(const struct page_index *index);
const struct wire_b16 *page_index_pack_id(const struct page_index *index, unsigned pack);

/* How many pages of that pack the index maps, and how many pages the pack must have for that
 * (compare with pack_reader_page_count before believing an extent). */
uint64_t page_index_pack_live(const struct page_index *index, unsigned pack);
uint64_t page_index_pack_extent(const struct page_index *index, unsigned pack);

/* The extents, in order of page, without gaps. */
size_t page_index_extent_count(const struct page_index *index);
const struct index_extent *page_index_extents(const struct page_index *index);

/* The number of the extent that holds `page`; the extent count if there is no such page. */
size_t page_index_find(const struct page_index *index, uint64_t page);

/* What begins at `page`, up to the end of its extent. False if there is no such page. */
bool page_index_lookup(const struct page_index *index, uint64_t page, struct index_extent *ret);

/* True if the contents of `page` are exactly that page of that pack of the table. */
bool page_index_maps(
    const struct page_index *index, uint64_t page, unsigned pack, uint64_t pack_page);

struct page_index_stats {
    uint64_t zero_pages;
    uint64_t data_pages;
    uint64_t unspecified_pages;
};

void page_index_get_stats(const struct page_index *index, struct page_index_stats *ret);

/* --- Building --------------------------------------------------------------------------------- */

struct page_index_builder;

/* Starts an index of that space. What is not set later is as in `base` (an index of the same
 * number of pages, which must outlive the builder), or unspecified without one. */
int page_index_builder_new(const struct page_space *space, const struct page_index *base,
    struct page_index_builder **ret, struct thaw_error *error);
void page_index_builder_free(struct page_index_builder *builder);

/* Sets pages [page, page + count), in ascending order of page, to zero, to unspecified, or to
 * pack_page and up of a pack. -EINVAL if they are not above all that was set before, or lie outside
 * the space; -E2BIG if it would refer to more than PAGE_INDEX_PACKS_MAX packs, or have more than
 * INDEX_EXTENTS_MAX extents; -ENOMEM. After a failure only freeing is of use. */
int page_index_builder_set_zero(
    struct page_index_builder *builder, uint64_t page, uint64_t count, struct thaw_error *error);
int page_index_builder_set_unspecified(
    struct page_index_builder *builder, uint64_t page, uint64_t count, struct thaw_error *error);
int page_index_builder_set_data(struct page_index_builder *builder, uint64_t page, uint64_t count,
    const struct wire_b16 *pack_id, uint64_t pack_page, struct thaw_error *error);

/* Completes the index: packs that it no longer refers to are gone from its table. Frees the
 * builder, whatever comes out. */
int page_index_builder_finish(
    struct page_index_builder *builder, struct page_index **ret, struct thaw_error *error);

#endif
