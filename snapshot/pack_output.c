// SPDX-License-Identifier: Apache-2.0
// Ordered output of a pack through io_uring or write(). Knows nothing of frames.

#include "pack_output.h"
#include <poll.h>
#include <sys/stat.h>

int pack_output_init(struct pack_output *output, int fd, const char *name, unsigned depth,
    bool want_ring, struct thaw_error *error)
{
    *output = (struct pack_output){.fd = fd};
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
                       io_uring_queue_init(depth, &output->ring, IORING_SETUP_CLAMP) == 0;
    return 0;
}

static int reap(struct pack_output *output, struct pack_output_op **ret_op, int *ret_result)
{
    struct io_uring_cqe *cqe;
    int r;
    do
        r = io_uring_wait_cqe(&output->ring, &cqe);
    while (r == -EINTR || r == -EAGAIN);
    if (r < 0)
        return r;
    *ret_op = io_uring_cqe_get_data(cqe);
    *ret_result = cqe->res;
    io_uring_cqe_seen(&output->ring, cqe);
    output->in_flight--;
    return 0;
}

void pack_output_fini(struct pack_output *output)
{
    if (!output)
        return;
    if (output->has_ring) {
        /* Closing a ring does not wait, and the buffers are about to be freed. */
        struct pack_output_op *op;
        int result;
        while (output->in_flight > 0 && reap(output, &op, &result) == 0)
            ;
        io_uring_queue_exit(&output->ring);
    }
    if (output->fd >= 0)
        close(output->fd);
    check_stream_free(output->digest);
    free(output->name);
    *output = (struct pack_output){.fd = -1};
}

static int report(const struct pack_output *output, int err, struct thaw_error *error)
{
    const char *remedy =
        err == ENOSPC || err == EDQUOT ? " (make room on that file system, then try again)" : "";
    return error_errno(error, err, "writing pack '%s'%s", output->name, remedy);
}

/* Accounts for a write that returned `result`: 1 if the op is complete, 0 if it needs another
 * round. */
static int advance(
    struct pack_output *output, struct pack_output_op *op, ssize_t result, struct thaw_error *error)
{
    if (result == -EINTR || result == -EAGAIN)
        return 0;
    if (result < 0)
        return report(output, (int)-result, error);
    if (result == 0 && op->bytes_left > 0)
        return report(output, EIO, error);
    op->bytes += result;
    op->bytes_left -= (size_t)result;
    op->file_off += (uint64_t)result;
    return op->bytes_left == 0;
}

static ssize_t write_some(const struct pack_output *output, const struct pack_output_op *op)
{
    ssize_t n = output->seekable
                    ? pwrite(output->fd, op->bytes, op->bytes_left, (off_t)op->file_off)
                    : write(output->fd, op->bytes, op->bytes_left);
    int err = errno;
    if (n >= 0)
        return n;
    if (err == EAGAIN) {
        /* The caller's pipe does not block; wait as if it did. */
        struct pollfd pipe = {.fd = output->fd, .events = POLLOUT};
        poll(&pipe, 1, -1);
    }
    return -err;
}

static int write_now(
    struct pack_output *output, struct pack_output_op *op, struct thaw_error *error)
{
    int r = op->bytes_left == 0;
    while (r == 0)
        r = advance(output, op, write_some(output, op), error);
    return r;
}

static int queue(struct pack_output *output, struct pack_output_op *op, struct thaw_error *error)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&output->ring);
    if (!sqe) {
        int r = pack_output_submit(output, error);
        if (r < 0)
            return r;
        sqe = io_uring_get_sqe(&output->ring);
        if (!sqe)
            return report(output, EBUSY, error);
    }
    io_uring_prep_write(
        sqe, output->fd, op->bytes, (unsigned)op->bytes_left, (uint64_t)op->file_off);
    io_uring_sqe_set_data(sqe, op);
    return 0;
}

int pack_output_start(struct pack_output *output, struct pack_output_op *op, const void *bytes,
    size_t count, struct thaw_error *error)
{
    *op = (struct pack_output_op){
        .bytes = bytes, .bytes_left = count, .file_off = output->file_bytes};
    check_stream_add(output->digest, bytes, count);
    output->file_bytes += count;
    return output->has_ring ? queue(output, op, error) : write_now(output, op, error);
}

int pack_output_submit(struct pack_output *output, struct thaw_error *error)
{
    while (output->has_ring && io_uring_sq_ready(&output->ring) > 0) {
        int r = io_uring_submit(&output->ring);
        if (r > 0)
            output->in_flight += (unsigned)r;
        else if (r != -EINTR && r != -EAGAIN)
            return report(output, r < 0 ? -r : EBUSY, error);
    }
    return 0;
}

int pack_output_wait(
    struct pack_output *output, struct pack_output_op **ret_op, struct thaw_error *error)
{
    struct pack_output_op *op;
    int result;
    int r = reap(output, &op, &result);
    if (r < 0)
        return report(output, -r, error);
    r = advance(output, op, result, error);
    if (r < 0)
        return r;
    if (r == 0) {
        r = queue(output, op, error);
        if (r == 0)
            r = pack_output_submit(output, error);
        if (r < 0)
            return r;
        op = NULL;
    }
    *ret_op = op;
    return 0;
}

int pack_output_append(
    struct pack_output *output, const void *bytes, size_t count, struct thaw_error *error)
{
    struct pack_output_op op = {
        .bytes = bytes, .bytes_left = count, .file_off = output->file_bytes};
    check_stream_add(output->digest, bytes, count);
    output->file_bytes += count;
    int r = write_now(output, &op, error);
    return r < 0 ? r : 0;
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
