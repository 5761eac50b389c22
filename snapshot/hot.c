// SPDX-License-Identifier: Apache-2.0
// Working sets as files. Decides neither what is recorded nor when it is used.

#include "hot.h"
#include "check.h"
#include "store_internal.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define HOT_LEVEL       3 /* what is read often may cost more to write */
#define SUFFIX_CHARS    8
#define TEMPORARY_BYTES (MANIFEST_ID_BYTES + 1 + SUFFIX_CHARS)
#define CREATE_ATTEMPTS 16

struct wire_b16 hot_pack_id(const struct manifest *manifest)
{
    const struct manifest_file *index = manifest_find_file(manifest, "ram.index");
    const char *digest = index ? index->digest : "";
    return check_128(manifest->id, strlen(manifest->id), digest, strlen(digest));
}

int hot_open(
    const struct store_snapshot *snapshot, struct pack_reader **ret, struct thaw_error *error)
{
    struct wire_b16 id = hot_pack_id(&snapshot->manifest);
    struct pack_reader *reader;
    int r = pack_reader_open(
        store_hot_dirfd(snapshot->store), snapshot->manifest.id, &id, &reader, error);
    if (r < 0)
        return r;
    if (pack_reader_page_count(reader) > snapshot->manifest.mem_bytes / FORMAT_PAGE_BYTES) {
        pack_reader_close(reader);
        return error_set(error, THAW_ECORRUPT, "the working set of snapshot %s exceeds its memory",
            snapshot->manifest.name);
    }
    *ret = reader;
    return 0;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static int compare_pages(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Neighbours that lie together are put into an image by one call, and compress better; what is
 * needed first still comes first by and large. */
static void arrange(uint32_t *pages, uint64_t count)
{
    for (uint64_t at = 0; at < count; at += HOT_WINDOW_PAGES)
        qsort(
            pages + at, MIN(count - at, (uint64_t)HOT_WINDOW_PAGES), sizeof(*pages), compare_pages);
}

static int add_page(struct contents_cursor *cursor, struct pack_writer *writer, uint32_t page,
    struct thaw_error *error)
{
    const struct contents_space *ram = &cursor->contents->spaces[SPACE_NUMBER_RAM];
    const uint8_t *bytes;
    uint64_t ignored;
    struct index_extent at;
    if (!page_index_lookup(ram->index, page, &at) || at.kind != EXTENT_DATA)
        return error_set(error, -EINVAL, "page %" PRIu32 " of memory has no contents", page);
    int r = contents_page(cursor, ram->packs[at.pack], at.pack_page, &bytes, error);
    return r < 0 ? r : pack_writer_add(writer, SPACE_NUMBER_RAM, page, bytes, &ignored, error);
}

static int write_pack(const struct contents *contents, int fd, const uint32_t *pages,
    uint64_t count, struct pack_totals *ret, struct thaw_error *error)
{
    struct pack_writer *writer;
    const struct pack_write_options options = {
        .id = hot_pack_id(&contents->snapshot->manifest),
        .frame_pages = HOT_FRAME_PAGES,
        .level = HOT_LEVEL,
    };
    int r = pack_writer_open_fd(fd, "working set", &options, &writer, error);
    if (r < 0)
        return r;
    _cleanup_(contents_cursor_fini) struct contents_cursor cursor = {.contents = contents};
    for (uint64_t i = 0; i < count && r == 0; i++)
        r = add_page(&cursor, writer, pages[i], error);
    if (r == 0)
        return pack_writer_finish(writer, ret, error);
    pack_writer_abort(writer);
    return r;
}

/* A file that is being written is locked, and recovery removes those that are not. */
static int create(int dirfd, const char *id, char name[TEMPORARY_BYTES], int *ret_fd)
{
    char suffix[SUFFIX_CHARS + 1];
    for (int i = 0; i < CREATE_ATTEMPTS; i++) {
        int r = fs_random_hex(suffix, SUFFIX_CHARS);
        if (r < 0)
            return r;
        snprintf(name, TEMPORARY_BYTES, "%s.%s", id, suffix);
        _cleanup_close_ int fd =
            openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, STORE_FILE_MODE);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return -errno;
        r = flock(fd, LOCK_EX) < 0 ? -errno : 0;
        if (r == 0 && fs_is_at(dirfd, name, fd)) {
            *ret_fd = take_fd(&fd);
            return 0;
        }
        unlinkat(dirfd, name, 0);
        if (r < 0)
            return r;
        /* recovery was faster: again */
    }
    return -EEXIST;
}

int hot_write(const struct contents *contents, uint32_t *pages, uint64_t count,
    struct pack_totals *ret, struct thaw_error *error)
{
    const struct manifest *manifest = &contents->snapshot->manifest;
    int dirfd = store_hot_dirfd(contents->snapshot->store);
    char name[TEMPORARY_BYTES];
    _cleanup_close_ int fd = -1;
    struct pack_totals totals;
    int r = create(dirfd, manifest->id, name, &fd);
    if (r < 0)
        return error_errno(
            error, -r, "creating the file for the working set of snapshot %s", manifest->name);
    arrange(pages, count);
    r = write_pack(contents, fd, pages, count, &totals, error);
    if (r == 0 && renameat(dirfd, name, dirfd, manifest->id) < 0)
        r = error_errno(error, errno, "publishing a working set");
    if (r < 0) {
        unlinkat(dirfd, name, 0);
        return error_prefix(error, r, "storing the working set of snapshot %s", manifest->name);
    }
    r = fs_sync(dirfd);
    if (r < 0)
        return error_errno(
            error, -r, "making the working set of snapshot %s durable", manifest->name);
    *ret = totals;
    return 0;
}
