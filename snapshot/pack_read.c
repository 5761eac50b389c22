// SPDX-License-Identifier: Apache-2.0
// Reading packs. Believes nothing before it is checked; decides nothing about which page is wanted.

#include "check.h"
#include "file_header.h"
#include "pack.h"
#include <fcntl.h>
#include <sys/stat.h>

/* So much of the tables is read before anything is known of them; whole entries. */
#define TABLE_STEP_BYTES MIB

_Static_assert(TABLE_STEP_BYTES % FRAME_ENTRY_BYTES == 0, "whole entries");
_Static_assert(FRAME_PAGES_MAX *SLOT_BYTES <= 32 * FRAME_ENTRY_BYTES, "slots of a frame");

struct pack_reader {
    int fd;
    char *name;
    struct wire_b16 id;
    uint64_t file_bytes;
    uint64_t frames_off; /* where the first frame begins */
    uint64_t table_off;  /* where the last one ends */
    unsigned frame_pages;
    uint32_t frame_count;
    uint32_t slot_count;
    uint8_t *tables; /* as in the file: frame table, slot table */
};

int pack_reader_read(const struct pack_reader *reader, void *dst, size_t count, uint64_t file_off,
    struct thaw_error *error)
{
    uint8_t *at = dst;
    while (count > 0) {
        ssize_t n = pread(reader->fd, at, count, (off_t)file_off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(error, errno, "reading pack '%s' at offset %llu", reader->name,
                (unsigned long long)file_off);
        if (n == 0)
            return error_set(error, THAW_ECORRUPT, "pack '%s' is cut short: it ends at offset %llu",
                reader->name, (unsigned long long)file_off);
        at += n;
        count -= (size_t)n;
        file_off += (uint64_t)n;
    }
    return 0;
}

static int damaged(
    const struct pack_reader *reader, uint64_t file_off, const char *what, struct thaw_error *error)
{
    return error_set(error, THAW_ECORRUPT, "pack '%s' is damaged at offset %llu: %s", reader->name,
        (unsigned long long)file_off, what);
}

static int read_header(
    struct pack_reader *reader, const struct wire_b16 *id, struct thaw_error *error)
{
    struct stat st;
    if (fstat(reader->fd, &st) < 0)
        return error_errno(error, errno, "examining pack '%s'", reader->name);
    if (!S_ISREG(st.st_mode))
        return error_set(error, -EINVAL, "pack '%s' is not a regular file", reader->name);
    reader->file_bytes = (uint64_t)st.st_size;

    uint8_t bytes[FILE_HEADER_BYTES_MAX];
    size_t count = (size_t)MIN(reader->file_bytes, sizeof(bytes));
    int r = pack_reader_read(reader, bytes, count, 0, error);
    if (r < 0)
        return r;
    struct file_header header;
    r = file_header_read(FILE_KIND_PACK, bytes, count, reader->name, &header, error);
    if (r < 0)
        return r;
    if (header.page_shift != FORMAT_PAGE_SHIFT)
        return error_set(error, -EOPNOTSUPP,
            "pack '%s' has pages of 2^%u bytes; this version of thaw reads 2^%u", reader->name,
            header.page_shift, FORMAT_PAGE_SHIFT);
    if (header.frame_pages < 1 || header.frame_pages > FRAME_PAGES_MAX)
        return damaged(reader, 0, "the number of pages in a frame is out of bounds", error);
    if (id && !wire_b16_equal(id, &header.id))
        return damaged(reader, 0, "it is another pack than the one that belongs here", error);
    reader->id = header.id;
    reader->frame_pages = header.frame_pages;
    reader->frames_off = header.header_bytes;
    return 0;
}

static int check_counts(const struct pack_reader *reader, struct thaw_error *error)
{
    uint64_t frames = reader->frame_count, slots = reader->slot_count;
    uint64_t room = reader->file_bytes - PACK_FOOTER_BYTES;
    if (slots > PACK_PAGES_MAX || reader->table_off < reader->frames_off ||
        reader->table_off > room ||
        frames * FRAME_ENTRY_BYTES + slots * SLOT_BYTES != room - reader->table_off)
        return damaged(reader, reader->file_bytes - PACK_FOOTER_BYTES,
            "its tables do not fit the file", error);
    if (frames != (slots + reader->frame_pages - 1) / reader->frame_pages)
        return damaged(reader, reader->file_bytes - PACK_FOOTER_BYTES,
            "its numbers of frames and pages contradict each other", error);
    return 0;
}

static int read_footer(
    struct pack_reader *reader, struct wire_b16 *ret_table_check, struct thaw_error *error)
{
    if (reader->file_bytes < reader->frames_off + PACK_FOOTER_BYTES)
        return damaged(reader, reader->file_bytes, "it was not completed, or is cut short", error);
    uint8_t bytes[PACK_FOOTER_BYTES];
    int r =
        pack_reader_read(reader, bytes, sizeof(bytes), reader->file_bytes - sizeof(bytes), error);
    if (r < 0)
        return r;
    struct pack_footer footer;
    pack_footer_decode(&footer, bytes);
    if (footer.magic != FORMAT_MAGIC_FOOTER)
        return damaged(reader, reader->file_bytes - PACK_FOOTER_BYTES,
            "it was not completed, or is cut short", error);
    if (footer.checksum != check_64(bytes, PACK_FOOTER_CHECKED_BYTES))
        return damaged(reader, reader->file_bytes - PACK_FOOTER_BYTES,
            "its footer does not match its checksum", error);
    if (!wire_b16_equal(&footer.pack_id, &reader->id))
        return damaged(reader, reader->file_bytes - PACK_FOOTER_BYTES,
            "header and footer are of different packs", error);
    reader->table_off = footer.table_off;
    reader->frame_count = footer.frame_count;
    reader->slot_count = footer.slot_count;
    *ret_table_check = footer.table_check;
    return check_counts(reader, error);
}

/* What is wrong with the entry, or NULL. The caller tracks where its frame must begin. */
static const char *entry_fault(const struct pack_reader *reader, uint64_t frame, uint64_t file_off,
    const struct frame_entry *entry)
{
    uint64_t first_slot = frame * reader->frame_pages;
    uint64_t slots = MIN(reader->frame_pages, reader->slot_count - first_slot);
    if (entry->dictionary_id || entry->key_id)
        return "it names a dictionary or a key without saying so in its header";
    if (entry->slots != slots || entry->first_slot != first_slot)
        return "a frame has the wrong slots";
    if (entry->raw_bytes != slots * FORMAT_PAGE_BYTES)
        return "a frame does not consist of whole pages";
    if (entry->codec == FRAME_CODEC_RAW ? entry->stored_bytes != entry->raw_bytes
        : entry->codec == FRAME_CODEC_ZSTD
            ? entry->stored_bytes == 0 || entry->stored_bytes >= entry->raw_bytes
            : true)
        return "a frame has an unknown codec or the wrong size";
    if (entry->file_off != file_off || entry->stored_bytes > reader->table_off - file_off)
        return "a frame does not begin where the one before it ends";
    return NULL;
}

/* Where a file has a hole, zeros are read, which no frame's entry consists of. [from, to) of the
 * tables, the frame table being in front. */
static int check_no_hole(
    const struct pack_reader *reader, size_t from, size_t to, struct thaw_error *error)
{
    static const uint8_t hole[FRAME_ENTRY_BYTES];
    to = MIN(to, (size_t)reader->frame_count * FRAME_ENTRY_BYTES);
    for (size_t at = from; at < to; at += FRAME_ENTRY_BYTES)
        if (memcmp(reader->tables + at, hole, FRAME_ENTRY_BYTES) == 0)
            return damaged(reader, reader->table_off + at, "a frame has no entry", error);
    return 0;
}

/* The tables are at most as long as the file (check_counts), which says little of one with holes.
 * So memory grows with the entries that were found; slots take at most 32 times as much. */
static int load_tables(struct pack_reader *reader, size_t count, struct thaw_error *error)
{
    const size_t frame_table = (size_t)reader->frame_count * FRAME_ENTRY_BYTES;
    size_t done = 0, next;
    do {
        next = done < frame_table ? MAX(2 * done, (size_t)TABLE_STEP_BYTES) : count;
        next = MIN(next, count);
        uint8_t *more = realloc(reader->tables, MAX(next, (size_t)1));
        if (!more)
            return error_errno(error, ENOMEM, "reading the tables of pack '%s'", reader->name);
        reader->tables = more;
        int r = pack_reader_read(
            reader, reader->tables + done, next - done, reader->table_off + done, error);
        if (r == 0)
            r = check_no_hole(reader, done, next, error);
        if (r < 0)
            return r;
        done = next;
    } while (done < count);
    return 0;
}

static int read_tables(
    struct pack_reader *reader, const struct wire_b16 *table_check, struct thaw_error *error)
{
    size_t count = (size_t)(reader->file_bytes - PACK_FOOTER_BYTES - reader->table_off);
    int r = load_tables(reader, count, error);
    if (r < 0)
        return r;

    struct wire_b16 check =
        check_128(reader->id.bytes, sizeof(reader->id.bytes), reader->tables, count);
    if (!wire_b16_equal(&check, table_check))
        return damaged(reader, reader->table_off, "its tables do not match their check", error);

    uint64_t file_off = reader->frames_off;
    for (uint64_t frame = 0; frame < reader->frame_count; frame++) {
        struct frame_entry entry;
        frame_entry_decode(&entry, reader->tables + frame * FRAME_ENTRY_BYTES);
        const char *fault = entry_fault(reader, frame, file_off, &entry);
        if (fault)
            return damaged(reader, reader->table_off + frame * FRAME_ENTRY_BYTES, fault, error);
        file_off += entry.stored_bytes;
    }
    if (file_off != reader->table_off)
        return damaged(
            reader, file_off, "there is something between its frames and its tables", error);
    return 0;
}

/* Takes over fd in every case. */
static int open_taken(int fd, const char *name, const struct wire_b16 *id, struct pack_reader **ret,
    struct thaw_error *error)
{
    struct pack_reader *reader = calloc(1, sizeof(*reader));
    if (!reader) {
        close(fd);
        return error_errno(error, ENOMEM, "opening pack '%s'", name);
    }
    reader->fd = fd;
    reader->name = strdup(name);
    struct wire_b16 table_check;
    int r = reader->name ? read_header(reader, id, error)
                         : error_errno(error, ENOMEM, "opening pack '%s'", name);
    if (r == 0)
        r = read_footer(reader, &table_check, error);
    if (r == 0)
        r = read_tables(reader, &table_check, error);
    if (r < 0) {
        pack_reader_close(reader);
        return r;
    }
    *ret = reader;
    return 0;
}

int pack_reader_open(int dirfd, const char *name, const struct wire_b16 *id,
    struct pack_reader **ret, struct thaw_error *error)
{
    /* O_NONBLOCK: a fifo put in the pack's place must not hang the open. */
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_errno(error, errno, "opening pack '%s'", name);
    return open_taken(fd, name, id, ret, error);
}

int pack_reader_open_fd(int fd, const char *name, const struct wire_b16 *id,
    struct pack_reader **ret, struct thaw_error *error)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return error_errno(error, errno, "duplicating the descriptor of pack '%s'", name);
    return open_taken(own, name, id, ret, error);
}

void pack_reader_close(struct pack_reader *reader)
{
    if (!reader)
        return;
    close(reader->fd);
    free(reader->tables);
    free(reader->name);
    free(reader);
}

const struct wire_b16 *pack_reader_id(const struct pack_reader *reader)
{
    return &reader->id;
}

unsigned pack_reader_frame_pages(const struct pack_reader *reader)
{
    return reader->frame_pages;
}

uint64_t pack_reader_frame_count(const struct pack_reader *reader)
{
    return reader->frame_count;
}

uint64_t pack_reader_page_count(const struct pack_reader *reader)
{
    return reader->slot_count;
}

uint64_t pack_reader_file_bytes(const struct pack_reader *reader)
{
    return reader->file_bytes;
}

int pack_reader_fd(const struct pack_reader *reader)
{
    return reader->fd;
}

uint64_t pack_reader_slot(const struct pack_reader *reader, uint64_t pack_page)
{
    const uint8_t *slots = reader->tables + (size_t)reader->frame_count * FRAME_ENTRY_BYTES;
    return wire_load_u64(slots + pack_page * SLOT_BYTES);
}

void pack_reader_entry(
    const struct pack_reader *reader, uint64_t frame, struct frame_entry *ret_entry)
{
    frame_entry_decode(ret_entry, reader->tables + frame * FRAME_ENTRY_BYTES);
}

static int check_frame_number(
    const struct pack_reader *reader, uint64_t frame, struct thaw_error *error)
{
    if (frame < reader->frame_count)
        return 0;
    return error_set(error, THAW_ECORRUPT, "pack '%s' has %u frames, and frame %llu is wanted",
        reader->name, reader->frame_count, (unsigned long long)frame);
}

static int decode(const struct pack_reader *reader, uint64_t frame, const struct frame_entry *entry,
    const uint8_t *stored, struct frame_scratch *scratch, struct thaw_error *error)
{
    int r = frame_decode(scratch, &reader->id, frame, entry, stored, error);
    if (r == 0)
        return entry->slots;
    return error_prefix(error, r, "pack '%s', frame %llu at offset %llu", reader->name,
        (unsigned long long)frame, (unsigned long long)entry->file_off);
}

int pack_decode_frame(const struct pack_reader *reader, uint64_t frame, const uint8_t *stored,
    struct frame_scratch *scratch, struct thaw_error *error)
{
    int r = check_frame_number(reader, frame, error);
    if (r == 0)
        r = frame_scratch_reserve(scratch, reader->frame_pages, error);
    if (r < 0)
        return r;
    struct frame_entry entry;
    pack_reader_entry(reader, frame, &entry);
    return decode(reader, frame, &entry, stored, scratch, error);
}

int pack_read_frame(const struct pack_reader *reader, uint64_t frame, struct frame_scratch *scratch,
    struct thaw_error *error)
{
    int r = check_frame_number(reader, frame, error);
    if (r == 0)
        r = frame_scratch_reserve(scratch, reader->frame_pages, error);
    if (r < 0)
        return r;
    struct frame_entry entry;
    pack_reader_entry(reader, frame, &entry);
    uint8_t *stored = entry.codec == FRAME_CODEC_RAW ? scratch->pages : scratch->stored;
    r = pack_reader_read(reader, stored, entry.stored_bytes, entry.file_off, error);
    if (r < 0)
        return r;
    return decode(reader, frame, &entry, stored, scratch, error);
}

int pack_verify(const struct pack_reader *reader, struct thaw_error *error)
{
    _cleanup_(frame_scratch_fini) struct frame_scratch scratch = {0};
    for (uint64_t frame = 0; frame < reader->frame_count; frame++) {
        int r = pack_read_frame(reader, frame, &scratch, error);
        if (r < 0)
            return r;
    }
    return 0;
}
