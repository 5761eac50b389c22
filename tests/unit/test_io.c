/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O engine, with io_uring and without. */
#include "io.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static const enum io_backend backends[] = {IO_BACKEND_AUTO, IO_BACKEND_SYNC};

static struct io *start(enum io_backend backend)
{
    struct io *io = NULL;
    cr_assert_eq(io_new(backend, &io, NULL), 0);
    cr_assert_eq(io_start(io, NULL), 0);
    return io;
}

static int temporary_file(void)
{
    char path[] = "/tmp/thaw-test-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    unlink(path);
    return fd;
}

/* An operation that is submitted from a task, as devices do, and again `repeat` times when done. */
struct job {
    struct io *io;
    struct io_task task;
    struct io_op op;
    struct iovec iov;
    int result;
    int completions;
    int repeat;
};

static void job_done(struct io_op *op, int result)
{
    struct job *job = CONTAINER_OF(op, struct job, op);
    job->result = result;
    job->completions++;
    if (job->repeat-- > 0)
        io_submit(job->io, op);
}

static void job_run(struct io_task *task)
{
    struct job *job = CONTAINER_OF(task, struct job, task);
    io_submit(job->io, &job->op);
}

static void job_post(struct job *job, struct io *io, enum io_op_kind kind, int fd, uint64_t off,
    void *buf, size_t bytes)
{
    *job = (struct job){.io = io, .task.fn = job_run, .iov = {buf, bytes}, .result = 1};
    job->op = (struct io_op){.kind = kind,
        .fd = fd,
        .file_off = off,
        .iov = &job->iov,
        .iov_count = 1,
        .done = job_done};
    io_post(io, &job->task);
}

static int transfer(
    struct io *io, enum io_op_kind kind, int fd, uint64_t off, void *buf, size_t bytes)
{
    struct job job;
    job_post(&job, io, kind, fd, off, buf, bytes);
    io_drain(io);
    cr_assert_eq(job.completions, 1);
    return job.result;
}

struct counter {
    struct io_task task;
    struct io *io;
    pthread_t thread;
    _Atomic int gate;
    _Atomic int started;
    int runs;
};

static void count_run(struct io_task *task)
{
    struct counter *counter = CONTAINER_OF(task, struct counter, task);
    counter->thread = pthread_self();
    counter->runs++;
    atomic_store(&counter->started, 1);
    while (!atomic_load(&counter->gate))
        usleep(100);
}

Test(io, runs_a_posted_task_on_its_own_thread)
{
    struct io *io = start(IO_BACKEND_AUTO);
    struct counter counter = {.task.fn = count_run, .gate = 1};
    io_post(io, &counter.task);
    io_drain(io);
    cr_assert_eq(counter.runs, 1);
    cr_assert(!pthread_equal(counter.thread, pthread_self()));
    io_free(io);
}

Test(io, runs_a_task_once_that_is_posted_twice_and_again_if_posted_while_it_runs)
{
    struct io *io = start(IO_BACKEND_AUTO);
    struct counter block = {.task.fn = count_run};
    struct counter counter = {.task.fn = count_run, .gate = 1};
    io_post(io, &block.task);
    while (!atomic_load(&block.started))
        usleep(100);
    io_post(io, &counter.task);
    io_post(io, &counter.task);
    io_post(io, &block.task);
    atomic_store(&block.gate, 1);
    io_drain(io);
    cr_assert_eq(counter.runs, 1);
    cr_assert_eq(block.runs, 2);
    io_free(io);
}

Test(io, reads_back_what_it_wrote)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        int fd = temporary_file();
        char out[10000], in[10000];
        memset(out, 'x', sizeof(out));
        memset(in, 0, sizeof(in));
        cr_assert_eq(transfer(io, IO_WRITE, fd, 512, out, sizeof(out)), 0);
        cr_assert_eq(transfer(io, IO_DATASYNC, fd, 0, NULL, 0), 0);
        cr_assert_eq(transfer(io, IO_READ, fd, 512, in, sizeof(in)), 0);
        cr_assert(memcmp(in, out, sizeof(in)) == 0);
        close(fd);
        io_free(io);
    }
}

Test(io, uses_io_uring_only_if_allowed)
{
    struct io *io = start(IO_BACKEND_SYNC);
    int fd = temporary_file();
    cr_assert_eq(transfer(io, IO_DATASYNC, fd, 0, NULL, 0), 0);
    cr_assert(!io_uses_uring(io));
    io_free(io);
    close(fd);
}

Test(io, tells_a_read_beyond_the_end_of_the_file)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        int fd = temporary_file();
        char buf[1024];
        cr_assert_eq(ftruncate(fd, 512), 0);
        cr_assert_eq(transfer(io, IO_READ, fd, 0, buf, 512), 0);
        cr_assert_eq(transfer(io, IO_READ, fd, 0, buf, 1024), -ENODATA);
        cr_assert_eq(transfer(io, IO_READ, fd, 4096, buf, 1), -ENODATA);
        close(fd);
        io_free(io);
    }
}

Test(io, passes_errors_of_the_file_on)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        char buf[16] = {0};
        cr_assert_eq(transfer(io, IO_READ, -1, 0, buf, sizeof(buf)), -EBADF);
        FILE *full = fopen("/dev/full", "w");
        cr_assert_eq(transfer(io, IO_WRITE, fileno(full), 0, buf, sizeof(buf)), -ENOSPC);
        fclose(full);
        io_free(io);
    }
}

Test(io, goes_on_after_a_short_transfer_until_the_file_ends)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        char buf[3000];
        struct iovec iov[] = {{buf, 100}, {buf + 100, 0}, {buf + 100, 900}, {buf + 1000, 2000}};
        struct job job;
        int fd = temporary_file();
        memset(buf, 0, sizeof(buf));
        char *content = malloc(2500);
        memset(content, 'y', 2500);
        cr_assert_eq((int)pwrite(fd, content, 2500, 0), 2500);
        job_post(&job, io, IO_READ, fd, 0, NULL, 0);
        io_drain(io);
        cr_assert_eq(job.result, 0, "nothing to transfer is done at once");

        job.op.iov = iov;
        job.op.iov_count = 4;
        io_post(io, &job.task);
        io_drain(io);
        cr_assert_eq(job.result, -ENODATA, "2500 bytes came, then none");
        cr_assert(memcmp(buf, content, 2500) == 0);
        cr_assert_eq(buf[2500], 0);
        free(content);
        close(fd);
        io_free(io);
    }
}

Test(io, takes_more_operations_than_fit_the_ring)
{
    enum {
        JOBS = 1000
    };
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        int fd = temporary_file();
        struct job *jobs = calloc(JOBS, sizeof(*jobs));
        uint32_t *values = calloc(JOBS, sizeof(*values));
        for (uint32_t n = 0; n < JOBS; n++) {
            values[n] = n;
            job_post(&jobs[n], io, IO_WRITE, fd, n * 4ull, &values[n], 4);
        }
        io_drain(io);
        for (uint32_t n = 0; n < JOBS; n++) {
            uint32_t value = 0;
            cr_assert_eq(jobs[n].result, 0);
            cr_assert_eq((int)pread(fd, &value, 4, n * 4ll), 4);
            cr_assert_eq(value, n);
        }
        free(jobs);
        free(values);
        close(fd);
        io_free(io);
    }
}

Test(io, drains_operations_that_follow_on_operations)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        int fd = temporary_file();
        struct job job = {.io = io, .task.fn = job_run, .repeat = 100};
        job.op = (struct io_op){.kind = IO_DATASYNC, .fd = fd, .done = job_done};
        io_post(io, &job.task);
        io_drain(io);
        cr_assert_eq(job.completions, 101);
        close(fd);
        io_free(io);
    }
}

Test(io, completes_what_is_in_flight_before_it_is_freed)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        struct io *io = start(backends[i]);
        int fd = temporary_file();
        char buf[512] = {1};
        struct job job;
        job_post(&job, io, IO_WRITE, fd, 0, buf, sizeof(buf));
        io_free(io);
        cr_assert_eq(job.result, 0);
        close(fd);
    }
}

static void *post_many(void *arg)
{
    struct counter *counter = arg;
    for (int i = 0; i < 2000; i++)
        io_post(counter->io, &counter->task);
    return NULL;
}

Test(io, takes_posts_from_many_threads)
{
    struct io *io = start(IO_BACKEND_AUTO);
    struct counter counters[2] = {
        {.task.fn = count_run, .io = io, .gate = 1}, {.task.fn = count_run, .io = io, .gate = 1}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, post_many, &counters[i % 2]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    io_drain(io);
    cr_assert(counters[0].runs >= 1 && counters[0].runs <= 4000);
    cr_assert(counters[1].runs >= 1 && counters[1].runs <= 4000);
    io_free(io);
}

Test(io, is_cheap_to_make_and_frees_what_never_started)
{
    struct io *io = NULL;
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &io, NULL), 0);
    io_drain(io);
    io_free(io);
    io_free(NULL);
}
