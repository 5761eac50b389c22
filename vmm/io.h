/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O engine of a VM: one thread that carries out file operations for the devices, by io_uring
 * where the host allows it, by preadv and pwritev on the same thread where not.
 *
 * Everything that a device does for a request after the guest's notification runs on this thread,
 * one thing at a time, so that state which only tasks and completions touch needs no lock.
 *
 * Lock order: a device's lock, then the engine's own. The engine calls out with no lock held.
 */
#ifndef VMM_IO_H
#define VMM_IO_H

#include "error.h"
#include <sys/uio.h>

struct io;

enum io_backend {
    IO_BACKEND_AUTO, /* io_uring if it works on this host */
    IO_BACKEND_SYNC, /* system calls that block the engine's thread */
};

/* Something to run on the io thread. Embedded in its owner, who sets fn once. */
struct io_task {
    void (*fn)(struct io_task *task);
    struct io_task *next; /* the engine's, like queued */
    bool queued;
};

enum io_op_kind {
    IO_READ,
    IO_WRITE,
    IO_DATASYNC,
};

/* One file operation. Embedded in its owner; it, iov and the memory behind iov stay until `done`.
 */
struct io_op {
    enum io_op_kind kind;
    int fd; /* regular file or block device */
    uint64_t file_off;
    struct iovec *iov;  /* consumed: the engine advances it over short transfers */
    unsigned iov_count; /* at most IOV_MAX */
    /* result is 0 if every byte was transferred, -ENODATA if the file ends before a read does, or
     * -errno. Runs on the io thread and may submit again, also this op. */
    void (*done)(struct io_op *op, int result);
    struct io_op *next; /* the engine's */
};

/* Makes an engine without thread or ring, which costs next to nothing. */
int io_new(enum io_backend backend, struct io **ret, struct thaw_error *error);

/* Starts the thread, unless it runs already. A device that needs the engine calls it when it is
 * made. The ring follows with the first operation, on the thread. Not for two threads at once. */
int io_start(struct io *io, struct thaw_error *error);

/* Completes what is in flight, ends the thread and frees the engine. Devices and disks that use it
 * are gone by then. NULL is allowed. */
void io_free(struct io *io);

/* Runs task->fn on the io thread soon. A task that is posted again before it ran runs once; one
 * that is posted while it runs, runs again. Any thread; never blocks on I/O, never fails. */
void io_post(struct io *io, struct io_task *task);

/* Starts an operation. On the io thread only. `done` is never called from within. */
void io_submit(struct io *io, struct io_op *op);

/* Returns once there was an instant, after the call began, at which no task was queued or running
 * and no operation in flight. If devices have stopped taking requests, that state lasts. Any thread
 * but the io thread; the caller holds no lock that a task or a completion takes. */
void io_drain(struct io *io);

/* Whether operations go through io_uring; false until the first one. Any thread. */
bool io_uses_uring(const struct io *io);

#endif
