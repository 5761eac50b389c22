// SPDX-License-Identifier: Apache-2.0
// Page indexes in files. An index is read into memory: a mapping would fault if the file shrank.

#include "check.h"
#include "file_header.h"
#include "page_index_internal.h"
#include "store_fs.h"
#include <fcntl.h>
#include <sys/stat.h>

#define INDEX_FILE_BYTES_MAX                                                                       \
    (FILE_HEADER_BYTES_MAX + INDEX_SPACE_BYTES + SPACE_REGIONS_MAX * INDEX_REGION_BYTES +          \
        INDEX_PACKS_MAX * INDEX_PACK_ID_BYTES + (uint64_t)INDEX_EXTENTS_MAX * INDEX_EXTENT_BYTES + \
        INDEX_CHECK_BYTES)

static int damaged(const char *name, const char *what, struct thaw_error *error)
{
    return error_set(error, THAW_ECORRUPT, "page index '%s' is damaged: %s", name, what);
}

/* --- Decoding --------------------------------------------------------------------------------- */

/* The parts of the file, found from counts that fit its size exactly. */
struct layout {
    struct index_space space;
    size_t regions_off, packs_off, extents_off, check_off;
};

static const char *find_layout(
    const uint8_t *bytes, size_t count, size_t space_off, struct layout *ret)
{
    if (!range_fits(space_off, INDEX_SPACE_BYTES, count))
        return "it is cut short";
    struct layout layout;
    index_space_decode(&layout.space, bytes + space_off);
    if (layout.space.region_count > SPACE_REGIONS_MAX)
        return "it has too many regions";
    if (layout.space.pack_count > INDEX_PACKS_MAX)
        return "it has too many packs";
    if (layout.space.extent_count > INDEX_EXTENTS_MAX)
        return "it has too many extents";
    layout.regions_off = space_off + INDEX_SPACE_BYTES;
    layout.packs_off = layout.regions_off + layout.space.region_count * INDEX_REGION_BYTES;
    layout.extents_off = layout.packs_off + layout.space.pack_count * INDEX_PACK_ID_BYTES;
    layout.check_off = layout.extents_off + (size_t)layout.space.extent_count * INDEX_EXTENT_BYTES;
    if (layout.check_off + INDEX_CHECK_BYTES != count)
        return "its tables do not fit the file";
    *ret = layout;
    return NULL;
}

static const char *decode_body(
    struct page_index *index, const uint8_t *bytes, size_t count, size_t space_off)
{
    struct layout at;
    const char *fault = find_layout(bytes, count, space_off, &at);
    if (fault)
        return fault;
    struct wire_b16 check = check_128(bytes, at.extents_off, bytes + at.extents_off,
        at.space.extent_count * (size_t)INDEX_EXTENT_BYTES);
    struct wire_b16 stored_check = wire_load_b16(bytes + at.check_off);
    if (!wire_b16_equal(&check, &stored_check))
        return "its contents do not match their check";

    index->space.number = at.space.number;
    index->space.kind = at.space.kind;
    index->space.page_count = at.space.page_count;
    index->space.region_count = at.space.region_count;
    for (unsigned i = 0; i < at.space.region_count; i++)
        index_region_decode(
            &index->space.regions[i], bytes + at.regions_off + i * INDEX_REGION_BYTES);
    index->pack_count = at.space.pack_count;
    for (unsigned i = 0; i < at.space.pack_count; i++)
        index->pack_ids[i] = wire_load_b16(bytes + at.packs_off + i * INDEX_PACK_ID_BYTES);
    /* In bounds by find_layout; aligned because malloc and all that precedes are, by eight. */
    index->extents = (const struct index_extent *)(const void *)(bytes + at.extents_off);
    index->extent_count = at.space.extent_count;
    fault = page_index_space_fault(&index->space);
    return fault ? fault : page_index_take_stock(index);
}

int page_index_decode(uint8_t *bytes, size_t count, const char *name, struct page_index **ret,
    struct thaw_error *error)
{
    struct page_index *index = calloc(1, sizeof(*index));
    if (!index) {
        free(bytes);
        return error_errno(error, ENOMEM, "reading page index '%s'", name);
    }
    index->memory = bytes;
    struct file_header header;
    int r = file_header_read(FILE_KIND_INDEX, bytes, count, name, &header, error);
    if (r == 0 && header.page_shift != FORMAT_PAGE_SHIFT)
        r = error_set(error, -EOPNOTSUPP,
            "page index '%s' has pages of 2^%u bytes; this version of thaw reads 2^%u", name,
            header.page_shift, FORMAT_PAGE_SHIFT);
    if (r == 0) {
        index->space.id = header.id;
        const char *fault = decode_body(index, bytes, count, header.header_bytes);
        if (fault)
            r = damaged(name, fault, error);
    }
    if (r < 0) {
        page_index_free(index);
        return r;
    }
    *ret = index;
    return 0;
}

static int read_whole(
    int fd, const char *name, uint8_t **ret_bytes, size_t *ret_count, struct thaw_error *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_errno(error, errno, "examining page index '%s'", name);
    if (!S_ISREG(st.st_mode))
        return error_set(error, -EINVAL, "page index '%s' is not a regular file", name);
    if ((uint64_t)st.st_size > INDEX_FILE_BYTES_MAX)
        return damaged(name, "it is larger than any page index", error);
    size_t count = (size_t)st.st_size, got = 0;
    _cleanup_free_ uint8_t *bytes = malloc(MAX(count, (size_t)1));
    if (!bytes)
        return error_errno(error, ENOMEM, "reading page index '%s'", name);
    while (got < count) {
        ssize_t n = pread(fd, bytes + got, count - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(error, errno, "reading page index '%s'", name);
        if (n == 0)
            return damaged(name, "it became shorter while it was read", error);
        got += (size_t)n;
    }
    *ret_bytes = take_ptr(bytes);
    *ret_count = count;
    return 0;
}

int page_index_load(int dirfd, const char *name, struct page_index **ret, struct thaw_error *error)
{
    /* O_NONBLOCK: a fifo put in the file's place must not hang the open. */
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_errno(error, errno, "opening page index '%s'", name);
    uint8_t *bytes = NULL;
    size_t count = 0;
    int r = read_whole(fd, name, &bytes, &count, error);
    return r < 0 ? r : page_index_decode(bytes, count, name, ret, error);
}

/* --- Encoding --------------------------------------------------------------------------------- */

/* All that precedes the extents. */
static void encode_head(const struct page_index *index, struct wire_writer *head)
{
    const struct page_space *space = &index->space;
    uint8_t *at = wire_put_room(head, FILE_HEADER_BYTES);
    if (at) {
        struct file_header header = {.id = space->id, .page_shift = FORMAT_PAGE_SHIFT};
        file_header_write(FILE_KIND_INDEX, &header, at);
    }
    at = wire_put_room(head, INDEX_SPACE_BYTES);
    if (at) {
        const struct index_space record = {
            .number = space->number,
            .kind = space->kind,
            .region_count = space->region_count,
            .page_count = space->page_count,
            .pack_count = index->pack_count,
            .extent_count = (uint32_t)index->extent_count,
        };
        index_space_encode(&record, at);
    }
    for (unsigned i = 0; i < space->region_count; i++) {
        at = wire_put_room(head, INDEX_REGION_BYTES);
        if (at)
            index_region_encode(&space->regions[i], at);
    }
    for (unsigned i = 0; i < index->pack_count; i++)
        wire_put_b16(head, index->pack_ids[i]);
}

static int write_file(const struct page_index *index, const struct wire_writer *head, int fd,
    struct page_index_totals *ret)
{
    size_t extent_bytes = index->extent_count * INDEX_EXTENT_BYTES;
    struct wire_b16 check = check_128(head->bytes, head->used, index->extents, extent_bytes);
    struct check_stream *digest = check_stream_new();
    if (!digest)
        return -ENOMEM;
    check_stream_add(digest, head->bytes, head->used);
    check_stream_add(digest, index->extents, extent_bytes);
    check_stream_add(digest, check.bytes, sizeof(check.bytes));
    ret->digest = check_stream_result(digest);
    ret->file_bytes = head->used + extent_bytes + sizeof(check.bytes);
    check_stream_free(digest);

    int r = fs_write_all(fd, head->bytes, head->used);
    if (r == 0)
        r = fs_write_all(fd, index->extents, extent_bytes);
    if (r == 0)
        r = fs_write_all(fd, check.bytes, sizeof(check.bytes));
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r;
}

int page_index_save(const struct page_index *index, int dirfd, const char *name,
    struct page_index_totals *ret, struct thaw_error *error)
{
    if (index->pack_count > INDEX_PACKS_MAX)
        return error_set(error, -E2BIG,
            "page index '%s' refers to %u packs; at most %u are allowed", name, index->pack_count,
            INDEX_PACKS_MAX);
    _cleanup_(wire_writer_fini) struct wire_writer head;
    wire_writer_init(&head);
    encode_head(index, &head);
    if (head.failed)
        return error_errno(error, ENOMEM, "writing page index '%s'", name);
    _cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(error, errno, "creating page index '%s'", name);
    struct page_index_totals totals;
    int r = write_file(index, &head, fd, &totals);
    if (r < 0)
        return error_errno(error, -r, "writing page index '%s'%s", name,
            r == -ENOSPC || r == -EDQUOT ? " (make room on that file system, then try again)" : "");
    if (ret)
        *ret = totals;
    return 0;
}
