// SPDX-License-Identifier: Apache-2.0
// Carries out file operations and tasks of the devices on one thread.
// Knows nothing of devices, disks or guest memory.

#include "io.h"
#include "thread.h"
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#define IO_RING_ENTRIES 128
#define IO_RING_OPS_MAX (IO_RING_ENTRIES - 1) /* one entry is for the wake-up */

enum io_ring_state {
    IO_RING_UNTRIED,
    IO_RING_NONE,
    IO_RING_READY,
};

struct io {
    enum io_backend backend;
    bool started; /* the owner's */
    pthread_t thread;
    int wake_fd; /* eventfd: readable when there is something in `tasks`, or `stop` */

    pthread_mutex_t lock; /* guards what follows, up to the blank line */
    pthread_cond_t idle_cond;
    struct io_task *tasks;
    struct io_task **tasks_end;
    bool idle;           /* no task queued or running, no operation in flight */
    uint64_t idle_count; /* how often that became so */
    bool stop;

    _Atomic bool uses_uring;

    /* The io thread's own. */
    enum io_ring_state ring_state;
    struct io_uring ring;
    unsigned ring_ops;   /* operations that the ring has */
    bool wake_armed;     /* the ring polls wake_fd */
    struct io_op *queue; /* operations to be started */
    struct io_op **queue_end;
};

int io_new(enum io_backend backend, struct io **ret, struct thaw_error *error)
{
    struct io *io = calloc(1, sizeof(*io));
    if (!io)
        return error_errno(error, ENOMEM, "making the I/O engine");
    io->backend = backend;
    io->wake_fd = -1;
    io->idle = true;
    io->tasks_end = &io->tasks;
    io->queue_end = &io->queue;
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->idle_cond, NULL);
    *ret = io;
    return 0;
}

void io_free(struct io *io)
{
    if (!io)
        return;
    if (io->started) {
        pthread_mutex_lock(&io->lock);
        io->stop = true;
        pthread_mutex_unlock(&io->lock);
        eventfd_write(io->wake_fd, 1);
        pthread_join(io->thread, NULL);
    }
    if (io->wake_fd >= 0)
        close(io->wake_fd);
    pthread_cond_destroy(&io->idle_cond);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

void io_post(struct io *io, struct io_task *task)
{
    pthread_mutex_lock(&io->lock);
    bool wake = !io->tasks;
    if (!task->queued) {
        task->queued = true;
        task->next = NULL;
        *io->tasks_end = task;
        io->tasks_end = &task->next;
        io->idle = false;
    }
    pthread_mutex_unlock(&io->lock);
    if (wake)
        eventfd_write(io->wake_fd, 1);
}

void io_submit(struct io *io, struct io_op *op)
{
    op->next = NULL;
    *io->queue_end = op;
    io->queue_end = &op->next;
}

void io_drain(struct io *io)
{
    pthread_mutex_lock(&io->lock);
    uint64_t before = io->idle_count;
    while (!io->idle && io->idle_count == before)
        pthread_cond_wait(&io->idle_cond, &io->lock);
    pthread_mutex_unlock(&io->lock);
}

bool io_uses_uring(const struct io *io)
{
    return atomic_load_explicit(&io->uses_uring, memory_order_relaxed);
}

/* Takes note of `bytes` more bytes transferred. Returns true if there is something left. */
static bool advance(struct io_op *op, size_t bytes)
{
    op->file_off += bytes;
    while (op->iov_count > 0 && bytes >= op->iov->iov_len) {
        bytes -= op->iov->iov_len;
        op->iov++;
        op->iov_count--;
    }
    if (op->iov_count == 0)
        return false;
    op->iov->iov_base = (char *)op->iov->iov_base + bytes;
    op->iov->iov_len -= bytes;
    return true;
}

/* What a transfer of no bytes means where some were asked for. */
static int empty_transfer(const struct io_op *op)
{
    return op->kind == IO_READ ? -ENODATA : -EIO;
}

/* Carries the operation out on this thread. */
static int perform(struct io_op *op)
{
    if (op->kind == IO_DATASYNC)
        return fdatasync(op->fd) == 0 ? 0 : -errno;
    if (!advance(op, 0))
        return 0;
    for (;;) {
        ssize_t n = op->kind == IO_READ
                        ? preadv(op->fd, op->iov, (int)op->iov_count, (off_t)op->file_off)
                        : pwritev(op->fd, op->iov, (int)op->iov_count, (off_t)op->file_off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return empty_transfer(op);
        if (!advance(op, (size_t)n))
            return 0;
    }
}

/* Tries to make a ring that works: a system call filter may let the set-up pass and nothing else.
 */
static bool ring_open(struct io_uring *ring)
{
    int r = io_uring_queue_init(
        IO_RING_ENTRIES, ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN);
    if (r == -EINVAL) /* a kernel before 6.0 */
        r = io_uring_queue_init(IO_RING_ENTRIES, ring, 0);
    if (r < 0)
        return false;
    struct io_uring_cqe *cqe = NULL;
    io_uring_prep_nop(io_uring_get_sqe(ring));
    r = io_uring_submit_and_wait(ring, 1);
    if (r == 1 && io_uring_peek_cqe(ring, &cqe) == 0 && cqe->res == 0) {
        io_uring_cqe_seen(ring, cqe);
        return true;
    }
    io_uring_queue_exit(ring);
    return false;
}

static void ring_try(struct io *io)
{
    bool ready = io->backend == IO_BACKEND_AUTO && ring_open(&io->ring);
    io->ring_state = ready ? IO_RING_READY : IO_RING_NONE;
    atomic_store_explicit(&io->uses_uring, ready, memory_order_relaxed);
}

static void ring_put(struct io *io, struct io_op *op)
{
    /* There is always a free entry: the ring never has more than IO_RING_OPS_MAX operations. */
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    switch (op->kind) {
    case IO_READ:
        io_uring_prep_readv(sqe, op->fd, op->iov, op->iov_count, op->file_off);
        break;
    case IO_WRITE:
        io_uring_prep_writev(sqe, op->fd, op->iov, op->iov_count, op->file_off);
        break;
    case IO_DATASYNC:
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
    io->ring_ops++;
}

/* Starts what is in the queue; without a ring, does it. What `done` submits meanwhile is left for
 * the next time, so that tasks get their turn. */
static void start_queue(struct io *io)
{
    if (!io->queue)
        return;
    if (io->ring_state == IO_RING_UNTRIED)
        ring_try(io);

    struct io_op *op = io->queue;
    bool ring = io->ring_state == IO_RING_READY;
    io->queue = NULL;
    io->queue_end = &io->queue;
    while (op && (!ring || io->ring_ops < IO_RING_OPS_MAX)) {
        struct io_op *next = op->next; /* `done` may free op */
        if (!ring)
            op->done(op, perform(op));
        else if (op->kind != IO_DATASYNC && !advance(op, 0))
            op->done(op, 0);
        else
            ring_put(io, op);
        op = next;
    }
    if (!op)
        return;
    /* The ring is full. The rest goes to the front again. */
    struct io_op **end = &op;
    while (*end)
        end = &(*end)->next;
    *end = io->queue;
    if (io->queue_end == &io->queue)
        io->queue_end = end;
    io->queue = op;
}

static void complete(struct io *io, struct io_op *op, int res)
{
    io->ring_ops--;
    if (res == -EINTR) {
        io_submit(io, op);
    } else if (res == -EAGAIN) {
        /* The file system or the file's O_NONBLOCK keeps io_uring from waiting. */
        op->done(op, perform(op));
    } else if (res < 0 || op->kind == IO_DATASYNC) {
        op->done(op, res);
    } else if (res == 0) {
        op->done(op, empty_transfer(op));
    } else if (advance(op, (size_t)res)) {
        io_submit(io, op);
    } else {
        op->done(op, 0);
    }
}

static void wait_ring(struct io *io, bool block)
{
    if (!io->wake_armed) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
        io_uring_prep_poll_add(sqe, io->wake_fd, POLLIN);
        io_uring_sqe_set_data(sqe, NULL);
        io->wake_armed = true;
    }
    int r = io_uring_submit_and_wait(&io->ring, block ? 1 : 0);
    if (r < 0 && r != -EINTR) {
        /* The kernel is short of memory for requests: what it did not take stays in the ring. */
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
    struct io_uring_cqe *cqe = NULL;
    while (io_uring_peek_cqe(&io->ring, &cqe) == 0) {
        struct io_op *op = io_uring_cqe_get_data(cqe);
        int res = cqe->res;
        io_uring_cqe_seen(&io->ring, cqe);
        if (op) {
            complete(io, op, res);
        } else {
            io->wake_armed = false;
            eventfd_t count = 0;
            eventfd_read(io->wake_fd, &count);
        }
    }
}

static void wait_plain(struct io *io)
{
    struct pollfd poll_fd = {.fd = io->wake_fd, .events = POLLIN};
    eventfd_t count = 0;
    poll(&poll_fd, 1, -1);
    eventfd_read(io->wake_fd, &count);
}

static void run_tasks(struct io *io)
{
    pthread_mutex_lock(&io->lock);
    struct io_task *task = io->tasks;
    io->tasks = NULL;
    io->tasks_end = &io->tasks;
    while (task) {
        /* From here on it may be posted again, or be gone once it ran. */
        struct io_task *next = task->next;
        task->queued = false;
        pthread_mutex_unlock(&io->lock);
        task->fn(task);
        pthread_mutex_lock(&io->lock);
        task = next;
    }
    pthread_mutex_unlock(&io->lock);
}

static void *io_thread(void *arg)
{
    struct io *io = arg;
    for (;;) {
        run_tasks(io);
        start_queue(io);

        bool flight = io->ring_ops > 0 || io->queue;
        pthread_mutex_lock(&io->lock);
        bool tasks = io->tasks;
        if (!flight && !tasks) {
            if (!io->idle)
                io->idle_count++;
            io->idle = true;
            pthread_cond_broadcast(&io->idle_cond);
        }
        bool stop = io->stop && io->idle;
        pthread_mutex_unlock(&io->lock);
        if (stop)
            break;

        /* A full ring is the only reason for a queue to be waited on. */
        bool block = !tasks && (!io->queue || io->ring_ops == IO_RING_OPS_MAX);
        if (io->ring_state == IO_RING_READY)
            wait_ring(io, block);
        else if (block)
            wait_plain(io);
    }
    if (io->ring_state == IO_RING_READY)
        io_uring_queue_exit(&io->ring);
    return NULL;
}

int io_start(struct io *io, struct thaw_error *error)
{
    if (io->started)
        return 0;
    if (io->wake_fd < 0)
        io->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->wake_fd < 0)
        return error_errno(error, errno, "making an eventfd for the I/O thread");

    int r = thread_start(&io->thread, "thaw-io", io_thread, io);
    if (r < 0)
        return error_errno(error, -r, "starting the I/O thread");
    io->started = true;
    return 0;
}
