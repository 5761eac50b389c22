// SPDX-License-Identifier: Apache-2.0
// Opens a stored snapshot for reading. Writes nothing, and knows nothing of running VMs.

#include "contents.h"
#include "check.h"
#include "state_file.h"
#include "state_records.h"
#include <fcntl.h>
#include <sys/stat.h>

void contents_index_name(unsigned space, char *ret, size_t bytes)
{
    if (space == SPACE_NUMBER_RAM)
        snprintf(ret, bytes, "ram.index");
    else
        snprintf(ret, bytes, "disk%u.index", space - 1);
}

void contents_pack_name(const struct wire_b16 *id, char ret[33])
{
    for (size_t i = 0; i < sizeof(id->bytes); i++)
        snprintf(ret + 2 * i, 3, "%02x", id->bytes[i]);
}

struct pack_reader *contents_find_pack(const struct contents *contents, const struct wire_b16 *id)
{
    for (size_t i = 0; i < contents->pack_count; i++)
        if (wire_b16_equal(pack_reader_id(contents->packs[i]), id))
            return contents->packs[i];
    return NULL;
}

static int open_pack(struct contents *contents, const struct wire_b16 *id, struct pack_reader **ret,
    struct thaw_error *error)
{
    *ret = contents_find_pack(contents, id);
    if (*ret)
        return 0;
    struct pack_reader **more =
        realloc(contents->packs, (contents->pack_count + 1) * sizeof(*contents->packs));
    if (!more)
        return error_errno(error, ENOMEM, "allocating room for packs");
    contents->packs = more;
    char name[6 + 33] = "packs/";
    contents_pack_name(id, name + 6);
    int r = pack_reader_open(contents->snapshot->fd, name, id, ret, error);
    if (r == 0)
        contents->packs[contents->pack_count++] = *ret;
    return r;
}

static int open_space(struct contents *contents, unsigned number, struct thaw_error *error)
{
    struct contents_space *space = &contents->spaces[number];
    char name[32];
    contents_index_name(number, name, sizeof(name));
    int r = page_index_load(contents->snapshot->fd, name, &space->index, error);
    if (r < 0)
        return r;
    contents->space_count++;
    if (page_index_space(space->index)->number != number)
        return error_set(error, THAW_ECORRUPT, "page index '%s' is of another space", name);
    for (unsigned i = 0; i < page_index_pack_count(space->index); i++) {
        r = open_pack(contents, page_index_pack_id(space->index, i), &space->packs[i], error);
        if (r < 0)
            return r;
        if (page_index_pack_extent(space->index, i) > pack_reader_page_count(space->packs[i]))
            return error_set(error, THAW_ECORRUPT,
                "page index '%s' refers to pages that pack %u does not have", name, i);
    }
    return 0;
}

static int check_shape(const struct contents *contents, struct thaw_error *error)
{
    const struct manifest *manifest = &contents->snapshot->manifest;
    const struct page_space *ram = page_index_space(contents->spaces[0].index);
    if (ram->kind != SPACE_KIND_RAM || ram->page_count * FORMAT_PAGE_BYTES != manifest->mem_bytes)
        return error_set(error, THAW_ECORRUPT, "the snapshot's memory is not of the size it says");
    for (size_t i = 0; i < manifest->disk_count; i++) {
        const struct page_space *disk = page_index_space(contents->spaces[1 + i].index);
        if (disk->kind != SPACE_KIND_DISK ||
            disk->page_count !=
                ALIGN_UP(manifest->disks[i].bytes, FORMAT_PAGE_BYTES) / FORMAT_PAGE_BYTES)
            return error_set(
                error, THAW_ECORRUPT, "the snapshot's disk %zu is not of the size it says", i);
    }
    return 0;
}

int contents_open(struct store_snapshot *snapshot, struct contents **ret, struct thaw_error *error)
{
    if (snapshot->manifest.disk_count > THAW_DISKS_MAX)
        return error_set(error, THAW_ECORRUPT,
            "the snapshot has %zu disks, more than a VM can have", snapshot->manifest.disk_count);
    struct contents *contents = calloc(1, sizeof(*contents));
    if (!contents)
        return error_errno(error, ENOMEM, "opening a snapshot");
    contents->references = 1;
    contents->snapshot = snapshot;
    int r = 0;
    for (unsigned i = 0; i < 1 + snapshot->manifest.disk_count && r == 0; i++)
        r = open_space(contents, i, error);
    if (r == 0)
        r = check_shape(contents, error);
    if (r < 0) {
        contents->snapshot = NULL;
        contents_unref(contents);
        return r;
    }
    *ret = contents;
    return 0;
}

struct contents *contents_ref(struct contents *contents)
{
    __atomic_add_fetch(&contents->references, 1, __ATOMIC_SEQ_CST);
    return contents;
}

void contents_unref(struct contents *contents)
{
    if (!contents || __atomic_sub_fetch(&contents->references, 1, __ATOMIC_SEQ_CST) > 0)
        return;
    for (unsigned i = 0; i < CONTENTS_SPACES_MAX; i++)
        page_index_free(contents->spaces[i].index);
    for (size_t i = 0; i < contents->pack_count; i++)
        pack_reader_close(contents->packs[i]);
    free(contents->packs);
    if (contents->snapshot)
        store_put(contents->snapshot);
    free(contents);
}

/* --- Small files ------------------------------------------------------------------------------ */

static int read_all(int fd, uint8_t *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t got = read(fd, bytes + done, count - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        done += (size_t)got;
    }
    return 0;
}

static int check_digest(const struct store_snapshot *snapshot, const char *name,
    const uint8_t *bytes, size_t count, struct thaw_error *error)
{
    const struct manifest_file *file = manifest_find_file(&snapshot->manifest, name);
    struct check_stream *stream = check_stream_new();
    if (!stream)
        return error_errno(error, ENOMEM, "checking '%s'", name);
    check_stream_add(stream, bytes, count);
    struct wire_b16 digest = check_stream_result(stream);
    check_stream_free(stream);
    char text[MANIFEST_DIGEST_BYTES];
    manifest_format_digest(digest.bytes, text);
    if (!file || file->bytes != count || strcmp(file->digest, text) != 0)
        return error_set(
            error, THAW_ECORRUPT, "'%s' is damaged: it is not what the manifest says", name);
    return 0;
}

int contents_read_file(const struct store_snapshot *snapshot, const char *name, size_t limit,
    uint8_t **ret_bytes, size_t *ret_count, struct thaw_error *error)
{
    _cleanup_close_ int fd =
        openat(snapshot->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(error, errno, "opening '%s'", name);
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)limit)
        return error_set(error, THAW_ECORRUPT, "'%s' is no file of at most %zu bytes", name, limit);
    size_t count = (size_t)st.st_size;
    uint8_t *bytes _cleanup_free_ = malloc(count + 1);
    if (!bytes)
        return error_errno(error, ENOMEM, "reading '%s'", name);
    int r = read_all(fd, bytes, count);
    if (r < 0)
        return error_errno(error, -r, "reading '%s'", name);
    r = check_digest(snapshot, name, bytes, count, error);
    if (r < 0)
        return r;
    *ret_bytes = take_ptr(bytes);
    *ret_count = count;
    return 0;
}

int contents_read_state(
    const struct contents *contents, struct vm_state **ret, struct thaw_error *error)
{
    uint8_t *bytes _cleanup_free_ = NULL;
    size_t count = 0;
    int r = contents_read_file(
        contents->snapshot, "vmstate", STATE_FILE_BYTES_MAX, &bytes, &count, error);
    return r < 0 ? r : state_file_decode(bytes, count, "vmstate", ret, error);
}

/* --- Pages ------------------------------------------------------------------------------------ */

int contents_page(struct contents_cursor *cursor, const struct pack_reader *pack,
    uint64_t pack_page, const uint8_t **ret, struct thaw_error *error)
{
    unsigned frame_pages = pack_reader_frame_pages(pack);
    uint64_t frame = pack_page / frame_pages;
    if (cursor->pack != pack || cursor->frame != frame) {
        cursor->pack = NULL;
        int r = pack_read_frame(pack, frame, &cursor->scratch, error);
        if (r < 0)
            return r;
        cursor->pack = pack;
        cursor->frame = frame;
    }
    *ret = cursor->scratch.pages + (size_t)(pack_page % frame_pages) * FORMAT_PAGE_BYTES;
    return 0;
}

void contents_cursor_fini(struct contents_cursor *cursor)
{
    frame_scratch_fini(&cursor->scratch);
}
