// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "page_index.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct wire_b16 pack_id(unsigned number)
{
    struct wire_b16 id = {{0x50}};
    wire_store_u32(id.bytes + 8, number);
    return id;
}

static struct page_space disk(uint64_t pages)
{
    return (struct page_space){
        .id = {{0xd1}}, .number = 1, .kind = SPACE_KIND_DISK, .page_count = pages};
}

/* RAM of that many pages, the second half of them above a hole. */
static struct page_space ram(uint64_t pages)
{
    return (struct page_space){
        .id = {{0xaa}},
        .number = SPACE_NUMBER_RAM,
        .kind = SPACE_KIND_RAM,
        .page_count = pages,
        .region_count = 2,
        .regions = {{.gpa = 0, .page_count = pages / 2, .page = 0},
            {.gpa = 4 * GIB, .page_count = pages - pages / 2, .page = pages / 2}},
    };
}

static struct page_index_builder *builder_on(struct page_space space, const struct page_index *base)
{
    struct page_index_builder *builder;
    struct thaw_error error;
    cr_assert_eq(page_index_builder_new(&space, base, &builder, &error), 0, "%s", error.message);
    return builder;
}

static struct page_index *finish(struct page_index_builder *builder)
{
    struct page_index *index;
    struct thaw_error error;
    cr_assert_eq(page_index_builder_finish(builder, &index, &error), 0, "%s", error.message);
    return index;
}

static int set_data(struct page_index_builder *builder, uint64_t page, uint64_t count,
    unsigned pack, uint64_t pack_page)
{
    struct wire_b16 id = pack_id(pack);
    return page_index_builder_set_data(builder, page, count, &id, pack_page, NULL);
}

static void assert_extent(const struct page_index *index, size_t number, uint64_t page,
    uint32_t count, unsigned kind, uint64_t pack_page)
{
    cr_assert_lt(number, page_index_extent_count(index));
    const struct index_extent *extent = &page_index_extents(index)[number];
    cr_assert_eq(extent->page, page, "extent %zu: page %lu", number, extent->page);
    cr_assert_eq(extent->count, count, "extent %zu: %u pages", number, extent->count);
    cr_assert_eq(extent->kind, kind);
    cr_assert_eq(extent->pack_page, pack_page);
}

/* A directory that goes away by itself. */
static int scratch_dir(void)
{
    char path[] = "/tmp/test_page_index.XXXXXX";
    cr_assert_not_null(mkdtemp(path));
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    cr_assert_geq(fd, 0);
    rmdir(path);
    return fd;
}

/* The bytes of an index, as it would be saved. */
static uint8_t *saved(const struct page_index *index, size_t *ret_count)
{
    char dir[] = "/tmp/test_page_index.XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY);
    struct page_index_totals totals;
    struct thaw_error error;
    cr_assert_eq(page_index_save(index, dirfd, "i", &totals, &error), 0, "%s", error.message);
    int fd = openat(dirfd, "i", O_RDONLY);
    uint8_t *bytes = malloc(totals.file_bytes);
    cr_assert_eq(read(fd, bytes, totals.file_bytes), (ssize_t)totals.file_bytes);
    cr_assert_eq(read(fd, &(char){0}, 1), 0);
    close(fd);
    unlinkat(dirfd, "i", 0);
    close(dirfd);
    rmdir(dir);

    struct check_stream *stream = check_stream_new();
    check_stream_add(stream, bytes, totals.file_bytes);
    struct wire_b16 digest = check_stream_result(stream);
    check_stream_free(stream);
    cr_assert(wire_b16_equal(&digest, &totals.digest));
    *ret_count = totals.file_bytes;
    return bytes;
}

static int decode_copy(
    const uint8_t *bytes, size_t count, struct page_index **ret, struct thaw_error *error)
{
    uint8_t *copy = malloc(MAX(count, (size_t)1));
    memcpy(copy, bytes, count);
    return page_index_decode(copy, count, "i", ret, error);
}

static struct page_index *reread(const struct page_index *index)
{
    size_t count;
    uint8_t *bytes = saved(index, &count);
    struct page_index *back;
    struct thaw_error error;
    cr_assert_eq(page_index_decode(bytes, count, "i", &back, &error), 0, "%s", error.message);
    return back;
}

static void assert_same(const struct page_index *a, const struct page_index *b)
{
    cr_assert_eq(page_index_extent_count(a), page_index_extent_count(b));
    cr_assert_eq(memcmp(page_index_extents(a), page_index_extents(b),
                     page_index_extent_count(a) * sizeof(struct index_extent)),
        0);
    cr_assert_eq(page_index_pack_count(a), page_index_pack_count(b));
    for (unsigned i = 0; i < page_index_pack_count(a); i++) {
        cr_assert(wire_b16_equal(page_index_pack_id(a, i), page_index_pack_id(b, i)));
        cr_assert_eq(page_index_pack_live(a, i), page_index_pack_live(b, i));
    }
    struct page_index_stats sa, sb;
    page_index_get_stats(a, &sa);
    page_index_get_stats(b, &sb);
    cr_assert_eq(memcmp(&sa, &sb, sizeof(sa)), 0);
}

Test(page_index, what_is_not_set_is_unspecified)
{
    struct page_index_builder *builder = builder_on(ram(1000), NULL);
    cr_assert_eq(set_data(builder, 10, 5, 1, 100), 0);
    cr_assert_eq(page_index_builder_set_zero(builder, 20, 1, NULL), 0);
    struct page_index *index = finish(builder);
    cr_assert_eq(page_index_extent_count(index), 5);
    assert_extent(index, 0, 0, 10, EXTENT_UNSPECIFIED, 0);
    assert_extent(index, 1, 10, 5, EXTENT_DATA, 100);
    assert_extent(index, 2, 15, 5, EXTENT_UNSPECIFIED, 0);
    assert_extent(index, 3, 20, 1, EXTENT_ZERO, 0);
    assert_extent(index, 4, 21, 979, EXTENT_UNSPECIFIED, 0);
    struct page_index_stats stats;
    page_index_get_stats(index, &stats);
    cr_assert_eq(stats.data_pages, 5);
    cr_assert_eq(stats.zero_pages, 1);
    cr_assert_eq(stats.unspecified_pages, 994);
    page_index_free(index);
}

Test(page_index, runs_that_continue_each_other_become_one_extent)
{
    struct page_index_builder *builder = builder_on(disk(100), NULL);
    for (uint64_t page = 0; page < 50; page++)
        cr_assert_eq(set_data(builder, page, 1, 1, 7 + page), 0);
    cr_assert_eq(set_data(builder, 50, 10, 2, 57), 0); /* another pack */
    cr_assert_eq(set_data(builder, 60, 10, 2, 68), 0); /* a page of the pack left out */
    cr_assert_eq(page_index_builder_set_zero(builder, 70, 15, NULL), 0);
    cr_assert_eq(page_index_builder_set_zero(builder, 85, 15, NULL), 0);
    struct page_index *index = finish(builder);
    cr_assert_eq(page_index_extent_count(index), 4);
    assert_extent(index, 0, 0, 50, EXTENT_DATA, 7);
    assert_extent(index, 1, 50, 10, EXTENT_DATA, 57);
    assert_extent(index, 2, 60, 10, EXTENT_DATA, 68);
    assert_extent(index, 3, 70, 30, EXTENT_ZERO, 0);
    page_index_free(index);
}

Test(page_index, changes_split_the_extents_of_the_base)
{
    struct page_index_builder *builder = builder_on(disk(100), NULL);
    cr_assert_eq(set_data(builder, 0, 100, 1, 1000), 0);
    struct page_index *base = finish(builder);
    builder = builder_on(disk(100), base);
    cr_assert_eq(page_index_builder_set_zero(builder, 0, 1, NULL), 0);
    cr_assert_eq(set_data(builder, 50, 2, 2, 0), 0);
    cr_assert_eq(set_data(builder, 60, 5, 1, 1060), 0); /* as it was */
    cr_assert_eq(page_index_builder_set_unspecified(builder, 99, 1, NULL), 0);
    struct page_index *index = finish(builder);
    cr_assert_eq(page_index_extent_count(index), 5);
    assert_extent(index, 0, 0, 1, EXTENT_ZERO, 0);
    assert_extent(index, 1, 1, 49, EXTENT_DATA, 1001);
    assert_extent(index, 2, 50, 2, EXTENT_DATA, 0);
    assert_extent(index, 3, 52, 47, EXTENT_DATA, 1052);
    assert_extent(index, 4, 99, 1, EXTENT_UNSPECIFIED, 0);
    cr_assert_eq(page_index_pack_count(index), 2);
    cr_assert_eq(page_index_pack_live(index, 0), 96);
    cr_assert_eq(page_index_pack_extent(index, 0), 1099);
    page_index_free(base); /* complete without it */
    cr_assert(page_index_maps(index, 98, 0, 1098));
    page_index_free(index);
}

Test(page_index, lookups_begin_at_the_page_that_was_asked_for)
{
    struct page_index_builder *builder = builder_on(ram(100), NULL);
    cr_assert_eq(set_data(builder, 10, 20, 1, 500), 0);
    struct page_index *index = finish(builder);
    struct index_extent extent;
    cr_assert(page_index_lookup(index, 15, &extent));
    cr_assert_eq(extent.page, 15);
    cr_assert_eq(extent.count, 15);
    cr_assert_eq(extent.pack_page, 505);
    cr_assert(page_index_lookup(index, 99, &extent));
    cr_assert_eq(extent.count, 1);
    cr_assert_eq(extent.kind, EXTENT_UNSPECIFIED);
    cr_assert(!page_index_lookup(index, 100, &extent));
    cr_assert(!page_index_lookup(index, UINT64_MAX, &extent));

    cr_assert(page_index_maps(index, 15, 0, 505));
    cr_assert(!page_index_maps(index, 15, 0, 506));
    cr_assert(!page_index_maps(index, 15, 1, 505));
    cr_assert(!page_index_maps(index, 9, 0, 499));
    cr_assert(!page_index_maps(index, 0, 0, 0));
    cr_assert(!page_index_maps(index, 1000, 0, 500));
    page_index_free(index);
}

Test(page_index, an_empty_space_has_an_index)
{
    struct page_space spaces[] = {disk(0), ram(0)};
    spaces[1].region_count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
        struct page_index *index = finish(builder_on(spaces[i], NULL));
        struct page_index *back = reread(index);
        cr_assert_eq(page_index_extent_count(back), 0);
        cr_assert_eq(page_index_find(back, 0), 0);
        struct index_extent extent;
        cr_assert(!page_index_lookup(back, 0, &extent));
        page_index_free(index);
        page_index_free(back);
    }
}

Test(page_index, is_read_back_with_its_space)
{
    struct page_index_builder *builder = builder_on(ram(1000), NULL);
    cr_assert_eq(set_data(builder, 3, 500, 1, 9), 0);
    cr_assert_eq(set_data(builder, 600, 1, 2, 0), 0);
    struct page_index *index = finish(builder);
    struct page_index *back = reread(index);
    assert_same(index, back);
    const struct page_space *space = page_index_space(back);
    cr_assert_eq(space->id.bytes[0], 0xaa);
    cr_assert_eq(space->kind, SPACE_KIND_RAM);
    cr_assert_eq(space->page_count, 1000);
    cr_assert_eq(space->region_count, 2);
    cr_assert_eq(space->regions[1].gpa, 4 * GIB);
    cr_assert_eq(space->regions[1].page, 500);
    page_index_free(index);
    page_index_free(back);
}

Test(page_index, a_fragmented_index_stays_exact)
{
    enum {
        PAGES = 100000
    };
    struct page_index_builder *builder = builder_on(disk(PAGES), NULL);
    for (uint64_t page = 0; page < PAGES; page += 2)
        cr_assert_eq(set_data(builder, page, 1, (unsigned)page % 64, page * 7919 % PAGES), 0);
    struct page_index *index = finish(builder);
    struct page_index *back = reread(index);
    assert_same(index, back);
    cr_assert_eq(page_index_extent_count(back), PAGES);
    for (uint64_t page = 0; page < PAGES; page++) {
        struct index_extent extent;
        cr_assert(page_index_lookup(back, page, &extent));
        cr_assert_eq(extent.count, 1);
        cr_assert_eq(extent.kind, page % 2 ? EXTENT_UNSPECIFIED : EXTENT_DATA);
        if (extent.kind == EXTENT_DATA)
            cr_assert(page_index_maps(back, page, extent.pack, page * 7919 % PAGES));
    }
    page_index_free(index);
    page_index_free(back);
}

Test(page_index, more_than_64_packs_can_be_rewritten_but_not_saved)
{
    struct page_index_builder *builder = builder_on(disk(100), NULL);
    for (unsigned i = 0; i < 65; i++)
        cr_assert_eq(set_data(builder, i, 1, i, 5), 0);
    struct page_index *many = finish(builder);
    struct thaw_error error;
    int dir = scratch_dir();
    cr_assert_eq(page_index_save(many, dir, "i", NULL, &error), -E2BIG);
    close(dir);

    builder = builder_on(disk(100), many); /* moves the pages of two packs to a third */
    cr_assert_eq(set_data(builder, 0, 2, 1000, 0), 0);
    struct page_index *fewer = finish(builder);
    page_index_free(many);
    cr_assert_eq(page_index_pack_count(fewer), 64);
    struct page_index *back = reread(fewer);
    for (unsigned i = 2; i < 65; i++) {
        struct index_extent extent;
        struct wire_b16 id = pack_id(i);
        cr_assert(page_index_lookup(back, i, &extent));
        cr_assert(wire_b16_equal(page_index_pack_id(back, extent.pack), &id));
    }
    page_index_free(fewer);
    page_index_free(back);
}

Test(page_index, building_with_too_many_packs_is_refused)
{
    struct page_index_builder *builder = builder_on(disk(1000), NULL);
    for (unsigned i = 0; i < PAGE_INDEX_PACKS_MAX; i++)
        cr_assert_eq(set_data(builder, i, 1, i, 5), 0);
    cr_assert_eq(set_data(builder, 500, 1, 999, 0), -E2BIG);
    page_index_builder_free(builder);
}

Test(page_index, packs_that_are_no_longer_used_leave_the_table)
{
    struct page_index_builder *builder = builder_on(disk(10), NULL);
    cr_assert_eq(set_data(builder, 0, 5, 1, 0), 0);
    cr_assert_eq(set_data(builder, 5, 5, 2, 0), 0);
    struct page_index *base = finish(builder);
    builder = builder_on(disk(10), base);
    cr_assert_eq(set_data(builder, 0, 5, 3, 0), 0);
    struct page_index *index = finish(builder);
    struct wire_b16 two = pack_id(2), three = pack_id(3);
    cr_assert_eq(page_index_pack_count(index), 2);
    cr_assert(wire_b16_equal(page_index_pack_id(index, 0), &two));
    cr_assert(wire_b16_equal(page_index_pack_id(index, 1), &three));
    cr_assert(page_index_maps(index, 0, 1, 0));
    cr_assert(page_index_maps(index, 9, 0, 4));
    page_index_free(base);
    page_index_free(index);
}

Test(page_index, runs_longer_than_an_extent_can_hold_are_split)
{
    uint64_t pages = 3 * (uint64_t)UINT32_MAX;
    struct page_index_builder *builder = builder_on(disk(pages), NULL);
    cr_assert_eq(page_index_builder_set_zero(builder, 5, pages - 5, NULL), 0);
    struct page_index *index = finish(builder);
    struct page_index *copy = finish(builder_on(disk(pages), index));
    assert_same(index, copy);
    cr_assert_eq(page_index_extent_count(index), 4);
    cr_assert_eq(page_index_find(index, pages - 1), 3);
    page_index_free(index);
    page_index_free(copy);
}

Test(page_index, changes_out_of_order_or_out_of_bounds_are_refused)
{
    struct page_index_builder *builder = builder_on(disk(100), NULL);
    cr_assert_eq(page_index_builder_set_zero(builder, 50, 10, NULL), 0);
    cr_assert_eq(page_index_builder_set_zero(builder, 59, 1, NULL), -EINVAL);
    cr_assert_eq(page_index_builder_set_zero(builder, 99, 2, NULL), -EINVAL);
    cr_assert_eq(page_index_builder_set_zero(builder, UINT64_MAX, 2, NULL), -EINVAL);
    cr_assert_eq(page_index_builder_set_zero(builder, 60, UINT64_MAX, NULL), -EINVAL);
    cr_assert_eq(set_data(builder, 60, 1, 1, PACK_PAGES_MAX), -EINVAL);
    cr_assert_eq(set_data(builder, 60, 2, 1, UINT64_MAX), -EINVAL);
    page_index_builder_free(builder);

    struct page_index *small = finish(builder_on(disk(10), NULL));
    struct page_space larger = disk(11);
    cr_assert_eq(page_index_builder_new(&larger, small, &builder, NULL), -EINVAL);
    page_index_free(small);
    page_index_builder_free(NULL);
    page_index_free(NULL);
}

Test(page_index, impossible_spaces_are_refused)
{
    struct page_index_builder *builder;
    struct page_space good = ram(100), bad[9];
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = good;
    bad[0].kind = 3;
    bad[1].kind = SPACE_KIND_DISK;
    bad[2].number = 1;
    bad[3].page_count = SPACE_PAGES_MAX + 1;
    bad[4].region_count = 1;
    bad[5].regions[1].page = 51;
    bad[6].regions[1].gpa = 49 * FORMAT_PAGE_BYTES; /* overlaps the first */
    bad[7].regions[1].gpa = UINT64_MAX - FORMAT_PAGE_BYTES + 1;
    bad[8].regions[0].gpa = 1;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        cr_assert_eq(page_index_builder_new(&bad[i], NULL, &builder, NULL), -EINVAL, "case %zu", i);
}

/* --- Files ------------------------------------------------------------------------------------ */

/* An index of some 10 KiB. */
static uint8_t *sample(size_t *ret_count)
{
    struct page_index_builder *builder = builder_on(ram(4000), NULL);
    for (uint64_t page = 0; page < 3200; page += 16)
        cr_assert_eq(set_data(builder, page, 3 + page % 7, (unsigned)page % 5, page), 0);
    struct page_index *index = finish(builder);
    uint8_t *bytes = saved(index, ret_count);
    page_index_free(index);
    return bytes;
}

Test(page_index, every_flipped_bit_is_found)
{
    size_t count;
    uint8_t *bytes = sample(&count);
    struct page_index *index;
    cr_assert_gt(count, 9000);
    for (size_t bit = 0; bit < 8 * count; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(decode_copy(bytes, count, &index, NULL), THAW_ECORRUPT, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    cr_assert_eq(decode_copy(bytes, count, &index, NULL), 0);
    page_index_free(index);
    free(bytes);
}

Test(page_index, every_truncation_and_extension_is_found)
{
    size_t count;
    uint8_t *bytes = sample(&count);
    struct page_index *index;
    for (size_t shorter = 0; shorter < count; shorter++)
        cr_assert_eq(decode_copy(bytes, shorter, &index, NULL), THAW_ECORRUPT);
    bytes = realloc(bytes, count + 24);
    memset(bytes + count, 0, 24);
    for (size_t longer = count + 1; longer <= count + 24; longer++)
        cr_assert_eq(decode_copy(bytes, longer, &index, NULL), THAW_ECORRUPT);
    free(bytes);
}

/* Offsets in an index of a disk with 100 pages and one pack, which is all that these tests make. */
enum {
    SPACE_OFF = 64,
    PACKS_OFF = 96,
    EXTENTS_OFF = 112,
};

static uint8_t *hostile_base(size_t *ret_count)
{
    struct page_index_builder *builder = builder_on(disk(100), NULL);
    cr_assert_eq(set_data(builder, 10, 10, 1, 0), 0);
    struct page_index *index = finish(builder);
    uint8_t *bytes = saved(index, ret_count);
    page_index_free(index);
    return bytes;
}

/* Whoever makes a file can compute its checks. */
static int decode_resealed(uint8_t *bytes, size_t count, struct thaw_error *error)
{
    struct wire_b16 check =
        check_128(bytes, EXTENTS_OFF, bytes + EXTENTS_OFF, count - EXTENTS_OFF - 16);
    wire_store_b16(bytes + count - 16, check);
    struct page_index *index;
    int r = decode_copy(bytes, count, &index, error);
    if (r == 0)
        page_index_free(index);
    return r;
}

Test(page_index, hostile_contents_with_good_checks_are_refused)
{
    static const struct {
        size_t off;
        unsigned bytes;
        uint64_t value;
    } bad[] = {
        {SPACE_OFF + 0, 1, 0}, /* a disk with RAM's number */
        {SPACE_OFF + 1, 1, 7}, /* unknown kind */
        {SPACE_OFF + 4, 4, 1}, /* regions that are not there */
        {SPACE_OFF + 4, 4, UINT32_MAX},
        {SPACE_OFF + 8, 8, 99},  /* extents beyond the pages */
        {SPACE_OFF + 8, 8, 101}, /* pages beyond the extents */
        {SPACE_OFF + 8, 8, UINT64_MAX},
        {SPACE_OFF + 16, 4, 0}, /* packs */
        {SPACE_OFF + 16, 4, 65},
        {SPACE_OFF + 16, 4, UINT32_MAX},
        {SPACE_OFF + 20, 4, 2}, /* extents */
        {SPACE_OFF + 20, 4, UINT32_MAX},
        {EXTENTS_OFF + 0, 8, 1},       /* a gap at the beginning */
        {EXTENTS_OFF + 24, 8, 9},      /* overlap */
        {EXTENTS_OFF + 24, 8, 11},     /* gap */
        {EXTENTS_OFF + 24 + 16, 4, 0}, /* empty */
        {EXTENTS_OFF + 24 + 16, 4, UINT32_MAX},
        {EXTENTS_OFF + 24 + 8, 8, PACK_PAGES_MAX - 9}, /* beyond a pack */
        {EXTENTS_OFF + 24 + 8, 8, UINT64_MAX - 5},     /* wraps */
        {EXTENTS_OFF + 24 + 20, 2, 1},                 /* no such pack */
        {EXTENTS_OFF + 24 + 22, 2, 3},                 /* unknown kind */
        {EXTENTS_OFF + 20, 2, 1},                      /* unspecified, but with a pack */
        {EXTENTS_OFF + 8, 8, 1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        size_t count;
        uint8_t *bytes = hostile_base(&count);
        cr_assert_eq(decode_resealed(bytes, count, NULL), 0);
        memcpy(bytes + bad[i].off, &bad[i].value, bad[i].bytes);
        cr_assert_eq(decode_resealed(bytes, count, NULL), THAW_ECORRUPT, "case %zu", i);
        free(bytes);
    }
}

Test(page_index, a_pack_that_is_twice_in_the_table_is_refused)
{
    struct page_index_builder *builder = builder_on(disk(2), NULL);
    cr_assert_eq(set_data(builder, 0, 1, 1, 0), 0);
    cr_assert_eq(set_data(builder, 1, 1, 2, 0), 0);
    struct page_index *index = finish(builder), *back;
    size_t count;
    uint8_t *bytes = saved(index, &count);
    page_index_free(index);
    memcpy(bytes + PACKS_OFF + 16, bytes + PACKS_OFF, 16);
    struct wire_b16 check = check_128(bytes, PACKS_OFF + 32, bytes + PACKS_OFF + 32, 48);
    wire_store_b16(bytes + count - 16, check);
    struct thaw_error error;
    cr_assert_eq(page_index_decode(bytes, count, "i", &back, &error), THAW_ECORRUPT);
    cr_assert_not_null(strstr(error.message, "twice"), "%s", error.message);
}

Test(page_index, files_are_created_exclusively_and_errors_name_them)
{
    char dir[] = "/tmp/test_page_index.XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY);
    struct page_index *index = finish(builder_on(disk(5), NULL)), *back;
    struct thaw_error error;
    cr_assert_eq(page_index_load(dirfd, "disk0.index", &back, &error), -ENOENT);
    cr_assert_eq(page_index_save(index, dirfd, "disk0.index", NULL, &error), 0);
    cr_assert_eq(page_index_save(index, dirfd, "disk0.index", NULL, &error), -EEXIST);
    cr_assert_not_null(strstr(error.message, "disk0.index"));
    cr_assert_eq(page_index_load(dirfd, "disk0.index", &back, &error), 0);
    assert_same(index, back);
    page_index_free(back);
    page_index_free(index);

    cr_assert_eq(symlinkat("disk0.index", dirfd, "link"), 0);
    cr_assert_eq(page_index_load(dirfd, "link", &back, &error), -ELOOP);
    cr_assert_eq(mkfifoat(dirfd, "fifo", 0600), 0);
    cr_assert_eq(page_index_load(dirfd, "fifo", &back, &error), -EINVAL);
    cr_assert_eq(unlinkat(dirfd, "fifo", 0), 0);
    cr_assert_eq(unlinkat(dirfd, "link", 0), 0);

    int fd = openat(dirfd, "disk0.index", O_WRONLY | O_TRUNC);
    cr_assert_eq(ftruncate(fd, (off_t)1 << 42), 0); /* sparse, and larger than memory */
    close(fd);
    cr_assert_eq(page_index_load(dirfd, "disk0.index", &back, &error), THAW_ECORRUPT);
    cr_assert_eq(unlinkat(dirfd, "disk0.index", 0), 0);
    close(dirfd);
    rmdir(dir);
}
