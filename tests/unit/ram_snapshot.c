// SPDX-License-Identifier: Apache-2.0
// Test support: makes packs and indexes of RAM without capturing a VM.

#include "ram_snapshot.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

static const char *pack_name(const struct ram_snapshot *snapshot, unsigned pack, char *path)
{
    sprintf(path, "%s/ram.pack%u", snapshot->dir, pack);
    return path;
}

static void start_pack(struct ram_snapshot *snapshot)
{
    struct wire_b16 *id = &snapshot->pack_ids[snapshot->pack_count];
    id->bytes[0] = 0x70;
    id->bytes[1] = (uint8_t)snapshot->pack_count;
    struct pack_write_options options = {.id = *id,
        .frame_pages = snapshot->frame_pages,
        .flags = PACK_WRITE_NO_SYNC | PACK_WRITE_NO_IO_URING};
    struct thaw_error error;
    char path[64];
    int r = pack_writer_open(AT_FDCWD, pack_name(snapshot, snapshot->pack_count++, path), &options,
        &snapshot->writer, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

void ram_snapshot_init(struct ram_snapshot *snapshot, uint64_t bytes, unsigned frame_pages)
{
    *snapshot = (struct ram_snapshot){
        .dir = "/tmp/thaw-image-XXXXXX",
        .pages = bytes / PAGE_BYTES,
        .frame_pages = frame_pages,
    };
    cr_assert_not_null(mkdtemp(snapshot->dir));
    snapshot->map = calloc(snapshot->pages, sizeof(*snapshot->map));
    cr_assert_not_null(snapshot->map);
    start_pack(snapshot);
}

void ram_snapshot_fini(struct ram_snapshot *snapshot)
{
    char path[64];
    for (unsigned i = 0; i < snapshot->pack_count; i++)
        unlink(pack_name(snapshot, i, path));
    rmdir(snapshot->dir);
    free(snapshot->map);
}

void ram_snapshot_end_pack(struct ram_snapshot *snapshot)
{
    struct thaw_error error;
    struct pack_totals totals;
    int r = pack_writer_finish(snapshot->writer, &totals, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

void ram_snapshot_next_pack(struct ram_snapshot *snapshot)
{
    ram_snapshot_end_pack(snapshot);
    start_pack(snapshot);
}

uint64_t ram_snapshot_add(struct ram_snapshot *snapshot, uint64_t page, const void *bytes)
{
    struct thaw_error error;
    uint64_t at = 0;
    int r = pack_writer_add(snapshot->writer, SPACE_NUMBER_RAM, page, bytes, &at, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return at;
}

void ram_snapshot_map(struct ram_snapshot *snapshot, uint64_t page, unsigned pack, uint64_t at)
{
    snapshot->map[page] =
        (struct index_extent){.kind = EXTENT_DATA, .pack = (uint16_t)pack, .pack_page = at};
}

void ram_snapshot_add_all(struct ram_snapshot *snapshot, const uint8_t *ram)
{
    for (uint64_t page = 0; page < snapshot->pages; page++)
        if (!frame_page_is_zero(ram + page * PAGE_BYTES))
            ram_snapshot_map(snapshot, page, snapshot->pack_count - 1,
                ram_snapshot_add(snapshot, page, ram + page * PAGE_BYTES));
}

static struct page_index *build_index(const struct ram_snapshot *snapshot)
{
    struct page_space space = {
        .number = SPACE_NUMBER_RAM,
        .kind = SPACE_KIND_RAM,
        .page_count = snapshot->pages,
        .region_count = 1,
        .regions = {{.page_count = snapshot->pages}},
    };
    struct thaw_error error;
    struct page_index_builder *builder;
    int r = page_index_builder_new(&space, NULL, &builder, &error);
    for (uint64_t page = 0; page < snapshot->pages && r == 0; page++) {
        const struct index_extent *at = &snapshot->map[page];
        if (at->kind == EXTENT_DATA)
            r = page_index_builder_set_data(
                builder, page, 1, &snapshot->pack_ids[at->pack], at->pack_page, &error);
        else if (page % 2)
            r = page_index_builder_set_zero(builder, page, 1, &error);
    }
    struct page_index *index = NULL;
    if (r == 0)
        r = page_index_builder_finish(builder, &index, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return index;
}

static struct pack_reader *open_pack(const struct ram_snapshot *snapshot, const struct wire_b16 *id)
{
    struct thaw_error error;
    struct pack_reader *reader = NULL;
    char path[64];
    int r =
        pack_reader_open(AT_FDCWD, pack_name(snapshot, id->bytes[1], path), id, &reader, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return reader;
}

struct image *ram_snapshot_open_with(
    const struct ram_snapshot *snapshot, const struct image_options *options)
{
    struct page_index *index = build_index(snapshot);
    struct pack_reader *readers[RAM_SNAPSHOT_PACKS_MAX];
    for (unsigned i = 0; i < page_index_pack_count(index); i++)
        readers[i] = open_pack(snapshot, page_index_pack_id(index, i));
    struct thaw_error error;
    struct image *image = NULL;
    int r = image_new(index, readers, options, &image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return image;
}

struct image *ram_snapshot_open(const struct ram_snapshot *snapshot)
{
    return ram_snapshot_open_with(snapshot, NULL);
}

uint64_t ram_snapshot_frame_of(const struct ram_snapshot *snapshot, uint64_t page)
{
    return snapshot->map[page].pack_page / snapshot->frame_pages;
}

void ram_snapshot_damage(const struct ram_snapshot *snapshot, uint64_t frame)
{
    struct pack_reader *reader = open_pack(snapshot, &snapshot->pack_ids[0]);
    struct frame_entry entry;
    pack_reader_entry(reader, frame, &entry);
    pack_reader_close(reader);

    char path[64];
    int fd = open(pack_name(snapshot, 0, path), O_RDWR | O_CLOEXEC);
    off_t at = (off_t)(entry.file_off + entry.stored_bytes / 2);
    uint8_t byte = 0;
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

struct image *ram_snapshot_image(struct ram_snapshot *snapshot, const uint8_t *ram, uint64_t bytes)
{
    ram_snapshot_init(snapshot, bytes, FRAME_PAGES_DEFAULT);
    ram_snapshot_add_all(snapshot, ram);
    ram_snapshot_end_pack(snapshot);
    return ram_snapshot_open(snapshot);
}
