/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs: files of frames. A pack is written once, front to back, and never changed; it may be
 * written to a pipe. Its pages are numbered in the order in which they were added: every frame but
 * the last holds exactly frame_pages pages, so pack page n is slot n % frame_pages of frame
 * n / frame_pages.
 */
#ifndef SNAPSHOT_PACK_H
#define SNAPSHOT_PACK_H

#include "frame.h"

/* --- Writing ---------------------------------------------------------------------------------- */

#define PACK_WRITE_THREADS_MAX 64

#define PACK_WRITE_NO_IO_URING 1u /* use write() even where io_uring is there */
#define PACK_WRITE_NO_SYNC     2u /* the caller makes the file durable, or does not need that */
#define PACK_WRITE_GIVE_WAY    4u /* compress with what others leave of the processors */

/* A zero field means the default. */
struct pack_write_options {
    struct wire_b16 id;   /* required: unique, and what an index refers to */
    unsigned frame_pages; /* 1 to FRAME_PAGES_MAX; 0: FRAME_PAGES_DEFAULT */
    unsigned threads;     /* compressing at most so many frames at once; 0: one a CPU */
    int level;            /* of zstd; 0: 1 */
    unsigned flags;       /* PACK_WRITE_* */
};

struct pack_totals {
    uint64_t pages;
    uint64_t frames;
    uint64_t raw_bytes;     /* of the pages */
    uint64_t stored_bytes;  /* of the frames */
    uint64_t file_bytes;    /* of the whole file */
    struct wire_b16 digest; /* XXH3-128 of the whole file */
};

struct pack_writer;

/* Creates the file `name` in a directory, which must not exist yet, and starts a pack in it. On
 * failure nothing is left behind but possibly the file: the caller owns the directory. */
int pack_writer_open(int dirfd, const char *name, const struct pack_write_options *options,
    struct pack_writer **ret, struct thaw_error *error);

/* The same into an open descriptor: an empty file, a pipe or a socket. It is duplicated, so the
 * caller keeps its own. `name` is for messages. Who writes to a pipe has SIGPIPE ignored. */
int pack_writer_open_fd(int fd, const char *name, const struct pack_write_options *options,
    struct pack_writer **ret, struct thaw_error *error);

/* Copies a page, which is not all zero, into the pack; *ret_pack_page is its number there. Waits
 * while compression and disk lag behind, so memory stays bounded apart from the tables (about 12
 * bytes a page). Returns the first error of any thread from then on. One thread at a time. */
int pack_writer_add(struct pack_writer *writer, unsigned space, uint64_t page, const void *bytes,
    uint64_t *ret_pack_page, struct thaw_error *error);

/* Until this is called, what is written goes through the page cache, so that whoever adds pages
 * while a guest stands still waits for no disk; from then on past it, where that can be and the
 * pack is large. Any thread. */
void pack_writer_go_direct(struct pack_writer *writer);

/* Completes the pack, makes it durable and frees the writer, whatever comes out. A pack for which
 * this has failed is worthless; in particular, a failed fsync must not be tried again. */
int pack_writer_finish(
    struct pack_writer *writer, struct pack_totals *ret, struct thaw_error *error);

/* Stops and frees the writer without completing the pack. NULL is allowed. The file stays. */
void pack_writer_abort(struct pack_writer *writer);

/* --- Reading ---------------------------------------------------------------------------------- */

/* An open pack. After opening it is immutable, so any number of threads may use it at once, each
 * with its own scratch. */
struct pack_reader;

/* Opens a pack and checks all of it but the frames' contents. `id` is the pack that is expected;
 * NULL: any. THAW_ECORRUPT, -EOPNOTSUPP (needs a newer thaw), -errno. */
int pack_reader_open(int dirfd, const char *name, const struct wire_b16 *id,
    struct pack_reader **ret, struct thaw_error *error);

/* The same on an open file, which is duplicated. `name` is for messages. */
int pack_reader_open_fd(int fd, const char *name, const struct wire_b16 *id,
    struct pack_reader **ret, struct thaw_error *error);
void pack_reader_close(struct pack_reader *reader);

const struct wire_b16 *pack_reader_id(const struct pack_reader *reader);
unsigned pack_reader_frame_pages(const struct pack_reader *reader);
uint64_t pack_reader_frame_count(const struct pack_reader *reader);
uint64_t pack_reader_page_count(const struct pack_reader *reader);
uint64_t pack_reader_file_bytes(const struct pack_reader *reader);

/* Which page a pack page below the page count is: a SLOT(). What it says has been checked for
 * damage, but the space and the page may not exist, or an index may not want this copy: publish a
 * page only if page_index_maps() agrees. */
uint64_t pack_reader_slot(const struct pack_reader *reader, uint64_t pack_page);

/* The entry of a frame below the frame count, within bounds: file_off and stored_bytes say what to
 * read for pack_decode_frame, and first_slot is the pack page of its first slot. */
void pack_reader_entry(
    const struct pack_reader *reader, uint64_t frame, struct frame_entry *ret_entry);

/* Reads a frame into scratch->pages and returns how many pages it holds. THAW_ECORRUPT if the file
 * is damaged, with file, frame and offset in the message; -errno if it could not be read. */
int pack_read_frame(const struct pack_reader *reader, uint64_t frame, struct frame_scratch *scratch,
    struct thaw_error *error);

/* The second half of that, for callers that have read `stored` by their own means. */
int pack_decode_frame(const struct pack_reader *reader, uint64_t frame, const uint8_t *stored,
    struct frame_scratch *scratch, struct thaw_error *error);

/* The file, borrowed, for callers that read by their own means. */
int pack_reader_fd(const struct pack_reader *reader);

/* Reads exactly `count` bytes of the file; an end of file before that is damage. Any thread. */
int pack_reader_read(const struct pack_reader *reader, void *dst, size_t count, uint64_t file_off,
    struct thaw_error *error);

/* Reads and checks every frame. */
int pack_verify(const struct pack_reader *reader, struct thaw_error *error);

#endif
