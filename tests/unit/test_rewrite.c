// SPDX-License-Identifier: Apache-2.0
#include "manifest.h"
#include "rewrite.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>

#define OWN        1000 /* the number of the pack that is being written */
#define PACK_FLAGS (PACK_WRITE_NO_SYNC | PACK_WRITE_NO_IO_URING)

static char dir[64];
static int dirfd;
static struct contents from;
static struct pack_writer *writer;
static struct page_index *indexes[CONTENTS_SPACES_MAX];
static unsigned index_count;

static struct wire_b16 id_of(unsigned pack)
{
    return (struct wire_b16){.bytes = {(uint8_t)(pack >> 8), (uint8_t)pack, 0x70}};
}

static struct pack_writer *open_pack(unsigned pack)
{
    struct thaw_error error;
    struct pack_writer *ret = NULL;
    char name[16];
    snprintf(name, sizeof(name), "%u", pack);
    struct pack_write_options options = {.id = id_of(pack), .threads = 1, .flags = PACK_FLAGS};
    int r = pack_writer_open(dirfd, name, &options, &ret, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return ret;
}

static struct pack_reader *finish_pack(struct pack_writer *pack_writer, unsigned pack)
{
    struct thaw_error error;
    struct pack_totals totals;
    struct pack_reader *reader = NULL;
    char name[16];
    snprintf(name, sizeof(name), "%u", pack);
    int r = pack_writer_finish(pack_writer, &totals, &error);
    if (r == 0)
        r = pack_reader_open(dirfd, name, NULL, &reader, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return reader;
}

/* What page `page` of a space contains. */
static void fill(uint8_t bytes[PAGE_BYTES], unsigned space, uint64_t page)
{
    memset(bytes, 0, PAGE_BYTES);
    snprintf((char *)bytes, PAGE_BYTES, "page %llu of space %u", (unsigned long long)page, space);
}

/* A run of a space's pages, which an old pack has from pack_page on. */
struct run {
    unsigned space;
    uint64_t page, count;
    unsigned pack;
    uint64_t pack_page;
};

/* Makes a pack of the runs that are of it, and of pages that nobody wants. */
static void make_pack(unsigned pack, const struct run *runs, size_t count, uint64_t dead_pages)
{
    struct thaw_error error;
    struct pack_writer *old = open_pack(pack);
    uint8_t bytes[PAGE_BYTES];
    uint64_t at;
    for (size_t i = 0; i < count; i++)
        for (uint64_t k = 0; k < runs[i].count && runs[i].pack == pack; k++) {
            fill(bytes, runs[i].space, runs[i].page + k);
            cr_assert_eq(pack_writer_add(old, runs[i].space, runs[i].page + k, bytes, &at, &error),
                0, "%s", error.message);
            cr_assert_eq(at, runs[i].pack_page + k);
        }
    for (uint64_t k = 0; k < dead_pages; k++) {
        memset(bytes, 0xdd, sizeof(bytes));
        cr_assert_eq(pack_writer_add(old, 0, k, bytes, &at, &error), 0, "%s", error.message);
    }
    from.packs = realloc(from.packs, (from.pack_count + 1) * sizeof(*from.packs));
    from.packs[from.pack_count++] = finish_pack(old, pack);
}

/* Makes the index of a space of so many pages: the runs, in order; the rest is zero. */
static void make_index(unsigned space, uint64_t pages, const struct run *runs, size_t count)
{
    struct thaw_error error;
    struct page_index_builder *builder;
    struct page_space shape = {
        .number = (uint8_t)space,
        .kind = space == SPACE_NUMBER_RAM ? SPACE_KIND_RAM : SPACE_KIND_DISK,
        .page_count = pages,
        .region_count = space == SPACE_NUMBER_RAM,
        .regions = {{.page_count = space == SPACE_NUMBER_RAM ? pages : 0}},
    };
    int r = page_index_builder_new(&shape, NULL, &builder, &error);
    for (size_t i = 0; i < count && r == 0; i++) {
        struct wire_b16 id = id_of(runs[i].pack);
        if (runs[i].space == space)
            r = page_index_builder_set_data(
                builder, runs[i].page, runs[i].count, &id, runs[i].pack_page, &error);
    }
    if (r == 0)
        r = page_index_builder_finish(builder, &indexes[space], &error);
    cr_assert_eq(r, 0, "%s", error.message);
    index_count = MAX(index_count, space + 1);
}

/* Rewrites, and completes the pack that was written. Returns how many pages it has. */
static uint64_t rewrite(bool all)
{
    struct thaw_error error;
    const struct rewrite how = {.from = &from, .writer = writer, .own = id_of(OWN), .all = all};
    int r = rewrite_spaces(&how, indexes, index_count, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    struct pack_reader *own = finish_pack(take_ptr(writer), OWN);
    from.packs = realloc(from.packs, (from.pack_count + 1) * sizeof(*from.packs));
    from.packs[from.pack_count++] = own;
    return pack_reader_page_count(own);
}

static bool refers_to(unsigned space, unsigned pack)
{
    struct wire_b16 id = id_of(pack);
    for (unsigned i = 0; i < page_index_pack_count(indexes[space]); i++)
        if (wire_b16_equal(page_index_pack_id(indexes[space], i), &id))
            return true;
    return false;
}

static void check_contents(const struct run *runs, size_t count)
{
    struct contents_cursor cursor = {.contents = &from};
    for (size_t i = 0; i < count; i++)
        for (uint64_t page = runs[i].page; page < runs[i].page + runs[i].count; page++) {
            struct index_extent at;
            struct thaw_error error;
            const uint8_t *bytes;
            uint8_t expected[PAGE_BYTES];
            const struct page_index *index = indexes[runs[i].space];
            cr_assert(page_index_lookup(index, page, &at) && at.kind == EXTENT_DATA);
            int r = contents_page(&cursor,
                contents_find_pack(&from, page_index_pack_id(index, at.pack)), at.pack_page, &bytes,
                &error);
            cr_assert_eq(r, 0, "%s", error.message);
            fill(expected, runs[i].space, page);
            cr_assert_arr_eq(bytes, expected, PAGE_BYTES);
        }
    contents_cursor_fini(&cursor);
}

static void set_up(void)
{
    strcpy(dir, "/tmp/thaw-rewrite-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(dirfd, 0);
    writer = open_pack(OWN);
}

static void tear_down(void)
{
    char command[128];
    for (unsigned i = 0; i < index_count; i++)
        page_index_free(indexes[i]);
    for (size_t i = 0; i < from.pack_count; i++)
        pack_reader_close(from.packs[i]);
    free(from.packs);
    pack_writer_abort(writer);
    close(dirfd);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(rewrite, .init = set_up, .fini = tear_down);

Test(rewrite, a_pack_that_a_disk_needs_is_left_where_it_is_by_memory_too)
{
    const struct run runs[] = {{0, 0, 100, 1, 0}, {1, 0, 1000, 1, 100}};
    make_pack(1, runs, 2, 0);
    uint8_t bytes[PAGE_BYTES];
    uint64_t at;
    fill(bytes, 0, 50); /* the one page that changed */
    cr_assert_eq(pack_writer_add(writer, 0, 50, bytes, &at, NULL), 0);
    const struct run now[] = {{0, 0, 50, 1, 0}, {0, 50, 1, OWN, at}, {0, 51, 49, 1, 51}};
    make_index(0, 200, now, 3);
    make_index(1, 2000, runs, 2);

    cr_assert_eq(rewrite(false), 1);
    cr_assert(refers_to(0, 1) && refers_to(1, 1));
    check_contents(runs, 2);
}

Test(rewrite, a_pack_of_which_all_keep_little_is_given_up_by_all)
{
    const struct run runs[] = {{0, 10, 100, 1, 0}, {1, 0, 100, 1, 100}, {1, 200, 40, 2, 0}};
    make_pack(1, runs, 3, 800);
    make_pack(2, runs, 3, 0);
    make_index(0, 200, runs, 3);
    make_index(1, 2000, runs, 3);
    cr_assert_eq(rewrite(false), 200);
    cr_assert(!refers_to(0, 1) && !refers_to(1, 1));
    cr_assert(refers_to(1, 2));
    check_contents(runs, 3);
}

Test(rewrite, a_pack_of_which_none_keeps_much_but_all_keep_enough_stays)
{
    const struct run runs[] = {{0, 0, 150, 1, 0}, {1, 0, 150, 1, 150}};
    make_pack(1, runs, 2, 700);
    make_index(0, 200, runs, 2);
    make_index(1, 2000, runs, 2);
    cr_assert_eq(rewrite(false), 0);
    check_contents(runs, 2);
}

Test(rewrite, everything_moves_if_that_is_wanted)
{
    const struct run runs[] = {{0, 0, 150, 1, 0}, {1, 7, 20, 1, 150}, {1, 30, 20, 2, 0}};
    make_pack(1, runs, 3, 0);
    make_pack(2, runs, 3, 0);
    make_index(0, 150, runs, 3);
    make_index(1, 60, runs, 3);
    cr_assert_eq(rewrite(true), 190);
    cr_assert(!refers_to(0, 1) && !refers_to(1, 1) && !refers_to(1, 2));
    check_contents(runs, 3);
}

/* Two pages of each pack, but one of those that end with a 7. */
Test(rewrite, an_index_keeps_the_packs_that_hold_most_of_it)
{
    struct run runs[INDEX_PACKS_MAX + 4];
    for (unsigned i = 0; i < ARRAY_SIZE(runs); i++) {
        runs[i] = (struct run){0, 2 * i, i % 10 == 7 ? 1 : 2, i, 0};
        make_pack(i, &runs[i], 1, 0);
    }
    make_index(0, 2 * ARRAY_SIZE(runs), runs, ARRAY_SIZE(runs));
    cr_assert_eq(rewrite(false), 5);
    cr_assert_eq(page_index_pack_count(indexes[0]), INDEX_PACKS_MAX);
    cr_assert(!refers_to(0, 7) && !refers_to(0, 47) && refers_to(0, 8));
    check_contents(runs, ARRAY_SIZE(runs));
}

/* Each space has packs of its own. Those of memory hold a page, and the others two. */
Test(rewrite, all_spaces_together_refer_to_no_more_packs_than_a_snapshot_can_have)
{
    enum {
        EACH = 30,
        TOO_MANY = CONTENTS_SPACES_MAX * EACH + 1 - MANIFEST_PACKS_MAX
    };
    static struct run runs[CONTENTS_SPACES_MAX * EACH];
    for (unsigned i = 0; i < ARRAY_SIZE(runs); i++) {
        unsigned space = i / EACH;
        runs[i] = (struct run){space, 2 * (i % EACH), space ? 2 : 1, i, 0};
        make_pack(i, &runs[i], 1, 0);
    }
    for (unsigned space = 0; space < CONTENTS_SPACES_MAX; space++)
        make_index(space, 2 * EACH, runs, ARRAY_SIZE(runs));
    cr_assert_eq(rewrite(false), TOO_MANY);
    cr_assert_eq(page_index_pack_count(indexes[0]), EACH - TOO_MANY + 1);
    for (unsigned space = 1; space < CONTENTS_SPACES_MAX; space++)
        cr_assert_eq(page_index_pack_count(indexes[space]), EACH);
    check_contents(runs, ARRAY_SIZE(runs));
}
