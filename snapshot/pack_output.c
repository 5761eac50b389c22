// SPDX-License-Identifier: Apache-2.0
// Ordered output of a pack through io_uring or write(). Knows nothing of frames.

#include "pack_output.h"
#include "format.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

int pack_output_init(
    struct pack_output *output, int fd, const char *name, bool want_ring, struct thaw_error *error)
{
    *output = (struct pack_output){.fd = fd, .direct_fd = -1};
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_errno(error, errno, "examining pack '%s'", name);
    output->seekable = S_ISREG(st.st_mode);
    if (output->seekable && st.st_size > 0)
        return error_set(
            error, -EEXIST, "pack '%s' cannot be written: the file is not empty", name);
    output->name = strdup(name);
    output->digest = check_stream_new();
    if (!output->name || !output->digest)
        return error_errno(error, ENOMEM, "starting pack '%s'", name);
    /* Containers and kernel.io_uring_disabled forbid io_uring; that is no reason to fail. */
    output->has_ring = want_ring && output->seekable &&
                       io_uring_queue_init(PACK_OUTPUT_PIECES, &output->ring, 0) == 0;
    return 0;
}

static int report(const struct pack_output *output, int err, struct thaw_error *error)
{
    const char *remedy =
        err == ENOSPC || err == EDQUOT ? " (make room on that file system, then try again)" : "";
    return error_errno(error, err, "writing pack '%s'%s", output->name, remedy);
}

void pack_output_go_direct(struct pack_output *output)
{
    atomic_store(&output->may_direct, true);
}

/* Where a piece, or what is left of it, is to be written. Whole ones only may go past the page
 * cache, at multiples of their size: that is an offset and a size for every file system. */
static int choose_fd(struct pack_output *output, struct pack_output_piece *piece)
{
    piece->direct = false;
    if (!atomic_load(&output->may_direct) || output->no_direct || !output->seekable ||
        piece->file_off < PACK_OUTPUT_CACHED_BYTES ||
        piece->file_off % PACK_OUTPUT_PIECE_BYTES != 0 || piece->used < PACK_OUTPUT_PIECE_BYTES ||
        piece->written > 0)
        return output->fd;
    if (output->direct_fd < 0) {
        char path[40];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", output->fd);
        output->direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
        output->no_direct = output->direct_fd < 0;
    }
    piece->direct = output->direct_fd >= 0;
    return piece->direct ? output->direct_fd : output->fd;
}

/* Accounts for a write that returned `result`. The piece may need another one. */
static int advance(struct pack_output *output, struct pack_output_piece *piece, ssize_t result,
    struct thaw_error *error)
{
    if (result == -EINTR || result == -EAGAIN)
        return 0;
    /* A file system that takes O_DIRECT, but not like this. */
    if (result == -EINVAL && piece->direct) {
        output->no_direct = true;
        return 0;
    }
    if (result <= 0)
        return report(output, result < 0 ? (int)-result : EIO, error);
    piece->written += (size_t)result;
    return 0;
}

static ssize_t write_some(struct pack_output *output, struct pack_output_piece *piece)
{
    const uint8_t *bytes = piece->bytes + piece->written;
    size_t count = piece->used - piece->written;
    int fd = choose_fd(output, piece);
    ssize_t n = output->seekable
                    ? pwrite(fd, bytes, count, (off_t)(piece->file_off + piece->written))
                    : write(fd, bytes, count);
    if (n >= 0)
        return n;
    int err = errno;
    if (err == EAGAIN) {
        /* The caller's pipe does not block; wait as if it did. */
        struct pollfd pipe = {.fd = output->fd, .events = POLLOUT};
        poll(&pipe, 1, -1);
    }
    return -err;
}

static int start_write(
    struct pack_output *output, struct pack_output_piece *piece, struct thaw_error *error)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&output->ring);
    if (!sqe)
        return report(output, EBUSY, error);
    io_uring_prep_write(sqe, choose_fd(output, piece), piece->bytes + piece->written,
        (unsigned)(piece->used - piece->written), piece->file_off + piece->written);
    io_uring_sqe_set_data(sqe, piece);
    int r;
    do
        r = io_uring_submit(&output->ring);
    while (r == -EINTR || r == -EAGAIN);
    if (r != 1)
        return report(output, r < 0 ? -r : EBUSY, error);
    piece->in_flight = true;
    output->in_flight++;
    return 0;
}

/* Waits for one write to end. */
static int reap(struct pack_output *output, struct pack_output_piece **ret_piece, int *ret_result)
{
    struct io_uring_cqe *cqe;
    int r;
    do
        r = io_uring_wait_cqe(&output->ring, &cqe);
    while (r == -EINTR || r == -EAGAIN);
    if (r < 0)
        return r;
    struct pack_output_piece *piece = io_uring_cqe_get_data(cqe);
    *ret_result = cqe->res;
    io_uring_cqe_seen(&output->ring, cqe);
    piece->in_flight = false;
    output->in_flight--;
    *ret_piece = piece;
    return 0;
}

/* Lets the disk begin with what fsync would have to wait for otherwise. A hint. */
static void start_writeback(const struct pack_output *output, const struct pack_output_piece *piece)
{
    if (output->seekable)
        (void)sync_file_range(
            output->fd, (off_t)piece->file_off, (off_t)piece->used, SYNC_FILE_RANGE_WRITE);
}

/* Waits for one write to end, and starts it again if it was short. */
static int await_one(struct pack_output *output, struct thaw_error *error)
{
    struct pack_output_piece *piece;
    int result;
    int r = reap(output, &piece, &result);
    if (r < 0)
        return report(output, -r, error);
    r = advance(output, piece, result, error);
    if (r == 0 && piece->written < piece->used)
        return start_write(output, piece, error);
    if (r == 0)
        start_writeback(output, piece);
    return r;
}

/* Starts writing the piece that is being filled. */
static int put_piece(struct pack_output *output, struct thaw_error *error)
{
    struct pack_output_piece *piece = take_ptr(output->filling);
    if (output->has_ring)
        return start_write(output, piece, error);
    int r = 0;
    while (r == 0 && piece->written < piece->used)
        r = advance(output, piece, write_some(output, piece), error);
    if (r == 0)
        start_writeback(output, piece);
    return r;
}

/* Finds a piece to fill, waiting if all are under way. */
static int begin_piece(struct pack_output *output, struct thaw_error *error)
{
    for (;;) {
        for (unsigned i = 0; i < PACK_OUTPUT_PIECES && !output->filling; i++)
            if (!output->pieces[i].in_flight)
                output->filling = &output->pieces[i];
        if (output->filling)
            break;
        int r = await_one(output, error);
        if (r < 0)
            return r;
    }
    struct pack_output_piece *piece = output->filling;
    if (!piece->bytes)
        piece->bytes = aligned_alloc(FORMAT_PAGE_BYTES, PACK_OUTPUT_PIECE_BYTES);
    if (!piece->bytes)
        return error_errno(error, ENOMEM, "writing pack '%s'", output->name);
    piece->used = 0;
    piece->written = 0;
    piece->file_off = output->file_bytes;
    return 0;
}

int pack_output_append(
    struct pack_output *output, const void *bytes, size_t count, struct thaw_error *error)
{
    const uint8_t *at = bytes;
    check_stream_add(output->digest, bytes, count);
    while (count > 0) {
        int r = output->filling ? 0 : begin_piece(output, error);
        if (r < 0)
            return r;
        struct pack_output_piece *piece = output->filling;
        size_t part = MIN(count, PACK_OUTPUT_PIECE_BYTES - piece->used);
        memcpy(piece->bytes + piece->used, at, part);
        piece->used += part;
        output->file_bytes += part;
        at += part;
        count -= part;
        if (piece->used == PACK_OUTPUT_PIECE_BYTES)
            r = put_piece(output, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int pack_output_flush(struct pack_output *output, struct thaw_error *error)
{
    int r = output->filling ? put_piece(output, error) : 0;
    while (r == 0 && output->in_flight > 0)
        r = await_one(output, error);
    return r;
}

int pack_output_sync(struct pack_output *output, struct thaw_error *error)
{
    if (!output->seekable || fsync(output->fd) == 0)
        return 0;
    return error_errno(error, errno,
        "making pack '%s' durable (its data may be lost; the snapshot must be taken again)",
        output->name);
}

struct wire_b16 pack_output_digest(const struct pack_output *output)
{
    return check_stream_result(output->digest);
}

void pack_output_fini(struct pack_output *output)
{
    if (!output)
        return;
    if (output->has_ring) {
        /* Closing a ring does not wait, and the pieces are about to be freed. */
        struct pack_output_piece *piece;
        int result;
        while (output->in_flight > 0 && reap(output, &piece, &result) == 0)
            ;
        io_uring_queue_exit(&output->ring);
    }
    for (unsigned i = 0; i < PACK_OUTPUT_PIECES; i++)
        free(output->pieces[i].bytes);
    if (output->fd >= 0)
        close(output->fd);
    if (output->direct_fd >= 0)
        close(output->direct_fd);
    check_stream_free(output->digest);
    free(output->name);
    *output = (struct pack_output){.fd = -1, .direct_fd = -1};
}
