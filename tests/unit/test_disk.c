/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual disks: layers, writes of parts of blocks, a full host. */
#include "disk.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define SECTOR DISK_SECTOR_BYTES
#define BLOCK  DISK_BLOCK_BYTES

struct rig {
    struct io *io;
    struct disk *disk;
    char path[64];
};

struct job {
    struct io_task task;
    struct disk *disk;
    struct disk_request request;
    struct iovec iov[4];
    int result;
    bool done;
};

/* The byte that the base image has at an offset: differs between sectors and within them. */
static uint8_t base_byte(uint64_t off)
{
    return (uint8_t)(off / SECTOR * 7 + off % 251 + 1);
}

static void make_base(char path[64], uint64_t bytes)
{
    strcpy(path, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    uint8_t *content = malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++)
        content[i] = base_byte(i);
    cr_assert_eq(write(fd, content, bytes), (ssize_t)bytes);
    free(content);
    close(fd);
}

static struct rig setup(enum io_backend backend, uint64_t bytes, bool read_only)
{
    struct rig rig = {0};
    struct thaw_error error = {0};
    make_base(rig.path, bytes);
    cr_assert_eq(io_new(backend, &rig.io, NULL), 0);
    cr_assert_eq(io_start(rig.io, NULL), 0);
    struct disk_options options = {.path = rig.path, .read_only = read_only, .overlay_dir = "/tmp"};
    cr_assert_eq(disk_open(rig.io, &options, &rig.disk, &error), 0, "%s", error.message);
    return rig;
}

static void teardown(struct rig *rig)
{
    disk_free(rig->disk);
    io_free(rig->io);
    unlink(rig->path);
}

static void job_done(struct disk_request *request, int result)
{
    struct job *job = CONTAINER_OF(request, struct job, request);
    job->result = result;
    job->done = true;
}

static void job_run(struct io_task *task)
{
    struct job *job = CONTAINER_OF(task, struct job, task);
    disk_submit(job->disk, &job->request);
}

static void job_init(struct job *job, struct rig *rig, enum disk_request_kind kind, uint64_t off,
    void *buf, size_t bytes)
{
    *job = (struct job){.task.fn = job_run, .disk = rig->disk, .iov[0] = {buf, bytes}};
    job->request = (struct disk_request){
        .kind = kind, .disk_off = off, .iov = job->iov, .iov_count = 1, .done = job_done};
}

static int request(
    struct rig *rig, enum disk_request_kind kind, uint64_t off, void *buf, size_t bytes)
{
    struct job job;
    job_init(&job, rig, kind, off, buf, bytes);
    io_post(rig->io, &job.task);
    io_drain(rig->io);
    cr_assert(job.done);
    return job.result;
}

static void expect(struct rig *rig, const uint8_t *model, uint64_t off, size_t bytes)
{
    uint8_t *buf = malloc(bytes);
    memset(buf, 0xee, bytes);
    cr_assert_eq(request(rig, DISK_READ, off, buf, bytes), 0);
    cr_assert(memcmp(buf, model + off, bytes) == 0);
    free(buf);
}

static uint8_t *model_new(uint64_t bytes)
{
    uint8_t *model = malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++)
        model[i] = base_byte(i);
    return model;
}

static void push(struct rig *rig)
{
    struct disk_overlay *overlay = NULL;
    cr_assert_eq(disk_overlay_new("/tmp", disk_bytes(rig->disk), &overlay, NULL), 0);
    disk_push_overlay(rig->disk, overlay);
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

Test(disk, shows_the_base_image)
{
    const uint64_t bytes = 64 * 1024 + 3 * SECTOR;
    struct rig rig = setup(IO_BACKEND_AUTO, bytes, false);
    uint8_t *model = model_new(bytes);
    cr_assert_eq(disk_bytes(rig.disk), bytes);
    expect(&rig, model, 0, bytes);
    expect(&rig, model, 3 * SECTOR, SECTOR);
    expect(&rig, model, bytes - SECTOR, SECTOR);
    free(model);
    teardown(&rig);
}

Test(disk, keeps_writes_and_leaves_the_base_alone)
{
    const uint64_t bytes = 64 * 1024;
    struct rig rig = setup(IO_BACKEND_AUTO, bytes, false);
    uint8_t *model = model_new(bytes);
    memset(model + 2 * BLOCK, 0xaa, 3 * BLOCK);
    cr_assert_eq(request(&rig, DISK_WRITE, 2 * BLOCK, model + 2 * BLOCK, 3 * BLOCK), 0);
    cr_assert_eq(request(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    expect(&rig, model, 0, bytes);

    int fd = open(rig.path, O_RDONLY);
    uint8_t byte = 0;
    for (uint64_t off = 0; off < bytes; off += 100) {
        cr_assert_eq(pread(fd, &byte, 1, (off_t)off), 1);
        cr_assert_eq(byte, base_byte(off));
    }
    close(fd);
    free(model);
    teardown(&rig);
}

Test(disk, keeps_the_neighbours_of_sectors_that_are_written)
{
    const uint64_t bytes = 16 * BLOCK + 3 * SECTOR;
    static const struct {
        uint64_t sector, count;
    } writes[] = {{1, 1}, {7, 2}, {15, 18}, {40, 8}, {33, 1}, {128, 1}, {130, 1}, {127, 4}};
    struct rig rig = setup(IO_BACKEND_AUTO, bytes, false);
    uint8_t *model = model_new(bytes);
    for (size_t i = 0; i < ARRAY_SIZE(writes); i++) {
        uint64_t off = writes[i].sector * SECTOR;
        memset(model + off, (int)(0xa0 + i), writes[i].count * SECTOR);
        cr_assert_eq(request(&rig, DISK_WRITE, off, model + off, writes[i].count * SECTOR), 0);
        expect(&rig, model, 0, bytes);
    }
    free(model);
    teardown(&rig);
}

Test(disk, loses_none_of_many_sectors_written_to_one_block_at_once)
{
    struct rig rig = setup(IO_BACKEND_AUTO, 4 * BLOCK, false);
    uint8_t *model = model_new(4 * BLOCK);
    for (int round = 0; round < 50; round++) {
        struct job jobs[24];
        for (uint64_t i = 0; i < 24; i++) {
            memset(model + i * SECTOR, (int)i + round, SECTOR);
            job_init(&jobs[i], &rig, DISK_WRITE, i * SECTOR, model + i * SECTOR, SECTOR);
            io_post(rig.io, &jobs[i].task);
        }
        io_drain(rig.io);
        for (int i = 0; i < 24; i++)
            cr_assert(jobs[i].done && jobs[i].result == 0);
        expect(&rig, model, 0, 4 * BLOCK);
        push(&rig);
    }
    free(model);
    teardown(&rig);
}

static void random_requests(enum io_backend backend)
{
    const uint64_t sectors = 800 * 8 + 5;
    const uint64_t bytes = sectors * SECTOR;
    struct rig rig = setup(backend, bytes, false);
    uint8_t *model = model_new(bytes);
    uint32_t seed = 1;
    for (int round = 0; round < 60; round++) {
        /* Twenty writes at a time, each in its own stretch of the disk, which meet in blocks. */
        struct job jobs[20];
        uint64_t stretch = sectors / 20;
        for (uint64_t i = 0; i < 20; i++) {
            uint64_t sector = i * stretch + next_random(&seed) % stretch;
            uint64_t count = 1 + next_random(&seed) % ((i + 1) * stretch - sector);
            if (next_random(&seed) % 2)
                count = MIN(count, 9);
            uint8_t *at = model + sector * SECTOR;
            memset(at, (int)next_random(&seed), count * SECTOR);
            job_init(&jobs[i], &rig, DISK_WRITE, sector * SECTOR, at, count * SECTOR);
            /* Memory in pieces that are no sectors. */
            size_t piece = 1 + next_random(&seed) % (count * SECTOR);
            jobs[i].iov[0] = (struct iovec){at, piece};
            jobs[i].iov[1] = (struct iovec){at + piece, 0};
            jobs[i].iov[2] = (struct iovec){at + piece, count * SECTOR - piece};
            jobs[i].request.iov_count = 3;
            io_post(rig.io, &jobs[i].task);
        }
        io_drain(rig.io);
        for (int i = 0; i < 20; i++)
            cr_assert(jobs[i].done && jobs[i].result == 0);
        uint64_t from = next_random(&seed) % sectors;
        expect(&rig, model, from * SECTOR, (1 + next_random(&seed) % (sectors - from)) * SECTOR);
        if (round % 16 == 15)
            push(&rig);
    }
    expect(&rig, model, 0, bytes);
    free(model);
    teardown(&rig);
}

Test(disk, agrees_with_a_model_after_random_requests)
{
    random_requests(IO_BACKEND_AUTO);
}

Test(disk, agrees_with_a_model_without_io_uring)
{
    random_requests(IO_BACKEND_SYNC);
}

Test(disk, reads_through_overlays_that_were_frozen)
{
    struct rig rig = setup(IO_BACKEND_AUTO, 8 * BLOCK, false);
    uint8_t *model = model_new(8 * BLOCK);
    struct disk_overlay *first = disk_overlay_of(disk_top(rig.disk));
    memset(model + BLOCK, 0x11, 3 * BLOCK);
    cr_assert_eq(request(&rig, DISK_WRITE, BLOCK, model + BLOCK, 3 * BLOCK), 0);
    push(&rig);
    memset(model + 2 * BLOCK + SECTOR, 0x22, SECTOR);
    cr_assert_eq(
        request(&rig, DISK_WRITE, 2 * BLOCK + SECTOR, model + 2 * BLOCK + SECTOR, SECTOR), 0);
    cr_assert_eq(request(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    cr_assert_eq(request(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    expect(&rig, model, 0, 8 * BLOCK);

    uint64_t block = 0, count = 0;
    cr_assert(disk_overlay_next_run(first, 0, &block, &count));
    cr_assert_eq(block, 1);
    cr_assert_eq(count, 3, "a frozen overlay changes no more");
    cr_assert(!disk_overlay_next_run(first, 4, &block, &count));
    struct disk_overlay *second = disk_overlay_of(disk_top(rig.disk));
    cr_assert(disk_overlay_next_run(second, 0, &block, &count));
    cr_assert_eq(block, 2);
    cr_assert_eq(count, 1);
    free(model);
    teardown(&rig);
}

/* A layer as a snapshot will have: block b is a hole, zeros, made on demand, or can't be made. */
static void strange_lookup(
    const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret)
{
    static const enum disk_extent_kind kinds[] = {
        DISK_EXTENT_HOLE, DISK_EXTENT_ZERO, DISK_EXTENT_SOURCE, DISK_EXTENT_SOURCE};
    (void)layer;
    (void)count;
    *ret = (struct disk_extent){.kind = kinds[block % 4], .fd = -1, .blocks = 1};
}

static int strange_read(const struct disk_layer *layer, uint64_t block, uint64_t count, void *buf)
{
    (void)layer;
    if (block % 4 == 3 || count != 1)
        return -EIO;
    memset(buf, (int)(0x80 + block), BLOCK);
    return 0;
}

static void strange_free(struct disk_layer *layer)
{
    free(layer);
}

static const struct disk_layer_ops strange_ops = {
    .lookup = strange_lookup, .read = strange_read, .free = strange_free};

Test(disk, takes_blocks_from_layers_that_make_them)
{
    struct rig rig = {0};
    struct disk_layer *raw = NULL;
    struct disk_overlay *overlay = NULL;
    uint64_t bytes = 0;
    make_base(rig.path, 12 * BLOCK);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig.io, NULL), 0);
    cr_assert_eq(io_start(rig.io, NULL), 0);
    cr_assert_eq(disk_raw_open(rig.path, -1, &raw, &bytes, NULL), 0);
    cr_assert_eq(disk_overlay_new("/tmp", bytes, &overlay, NULL), 0);
    struct disk_layer *strange = malloc(sizeof(*strange));
    *strange = (struct disk_layer){.ops = &strange_ops, .below = raw};
    cr_assert_eq(disk_new(rig.io, strange, overlay, bytes, &rig.disk, NULL), 0);

    uint8_t *model = model_new(12 * BLOCK);
    for (uint64_t b = 0; b < 12; b++) {
        if (b % 4 == 1)
            memset(model + b * BLOCK, 0, BLOCK);
        if (b % 4 == 2)
            memset(model + b * BLOCK, (int)(0x80 + b), BLOCK);
    }
    expect(&rig, model, 0, 3 * BLOCK);
    expect(&rig, model, 4 * BLOCK + SECTOR, 2 * BLOCK + SECTOR);
    uint8_t buf[4 * BLOCK];
    cr_assert_eq(request(&rig, DISK_READ, 0, buf, 4 * BLOCK), -EIO);

    for (uint64_t b = 4; b < 7; b++) {
        memset(model + b * BLOCK + SECTOR, 0x33, SECTOR);
        cr_assert_eq(
            request(&rig, DISK_WRITE, b * BLOCK + SECTOR, model + b * BLOCK + SECTOR, SECTOR), 0);
    }
    cr_assert_eq(request(&rig, DISK_WRITE, 7 * BLOCK + SECTOR, buf, SECTOR), -EIO,
        "a block that can't be completed is not written");
    cr_assert_eq(request(&rig, DISK_READ, 7 * BLOCK, buf, BLOCK), -EIO);
    expect(&rig, model, 4 * BLOCK, 3 * BLOCK);
    memset(model + 7 * BLOCK, 0x44, BLOCK);
    cr_assert_eq(request(&rig, DISK_WRITE, 7 * BLOCK, model + 7 * BLOCK, BLOCK), 0);
    expect(&rig, model, 4 * BLOCK, 4 * BLOCK);
    free(model);
    teardown(&rig);
}

Test(disk, refuses_requests_off_the_disk_or_between_sectors)
{
    uint8_t buf[2 * BLOCK];
    struct rig rig = setup(IO_BACKEND_AUTO, 2 * BLOCK + SECTOR, false);
    cr_assert_eq(request(&rig, DISK_READ, 2 * BLOCK + SECTOR, buf, SECTOR), -EINVAL);
    cr_assert_eq(request(&rig, DISK_READ, 2 * BLOCK, buf, 2 * SECTOR), -EINVAL);
    cr_assert_eq(request(&rig, DISK_WRITE, UINT64_MAX - 511, buf, SECTOR), -EINVAL);
    cr_assert_eq(request(&rig, DISK_READ, 1, buf, SECTOR), -EINVAL);
    cr_assert_eq(request(&rig, DISK_WRITE, 0, buf, 100), -EINVAL);
    cr_assert_eq(request(&rig, DISK_READ, 0, buf, 0), 0);
    teardown(&rig);
}

Test(disk, refuses_writes_if_it_is_read_only)
{
    uint8_t buf[SECTOR] = {0};
    struct rig rig = setup(IO_BACKEND_AUTO, BLOCK, true);
    cr_assert(disk_is_read_only(rig.disk));
    cr_assert_eq(request(&rig, DISK_WRITE, 0, buf, SECTOR), -EROFS);
    cr_assert_eq(request(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    uint8_t *model = model_new(BLOCK);
    expect(&rig, model, 0, BLOCK);
    free(model);
    teardown(&rig);
}

Test(disk, never_makes_up_what_a_truncated_base_has_lost)
{
    uint8_t buf[BLOCK];
    struct rig rig = setup(IO_BACKEND_AUTO, 4 * BLOCK, false);
    cr_assert_eq(truncate(rig.path, BLOCK), 0);
    cr_assert_lt(request(&rig, DISK_READ, 2 * BLOCK, buf, BLOCK), 0);
    cr_assert_lt(request(&rig, DISK_WRITE, 2 * BLOCK, buf, SECTOR), 0);
    teardown(&rig);
}

static int open_error(const char *path, int fd, const char *dir, struct thaw_error *error)
{
    struct disk *disk = NULL;
    struct disk_options options = {.path = path, .fd = fd, .overlay_dir = dir};
    int r = disk_open(NULL, &options, &disk, error);
    disk_free(disk);
    return r;
}

Test(disk, says_what_is_wrong_with_a_base_image)
{
    struct thaw_error error = {0};
    char path[64];
    make_base(path, BLOCK);
    cr_assert_eq(open_error("/nonexistent/x", 0, "/tmp", &error), -ENOENT);
    cr_assert_not_null(strstr(error.message, "/nonexistent/x"));
    cr_assert_eq(open_error("/tmp", 0, "/tmp", &error), -EISDIR);
    cr_assert_eq(open_error("/dev/null", 0, "/tmp", &error), -EINVAL);
    cr_assert_eq(open_error(NULL, 0, "/tmp", &error), -EINVAL);
    cr_assert_eq(open_error(path, 0, "/nonexistent/dir", &error), -ENOENT);
    cr_assert_not_null(strstr(error.message, "/nonexistent/dir"));
    cr_assert_eq(truncate(path, 1000), 0);
    cr_assert_eq(open_error(path, 0, "/tmp", &error), -EINVAL);
    cr_assert_not_null(strstr(error.message, "512"));
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_eq(open_error(path, 0, "/tmp", &error), -EINVAL);
    cr_assert_not_null(strstr(error.message, "empty"));
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_eq(open_error(path, 0, "/tmp", &error), -EINVAL);
    unlink(path);
}

Test(disk, refuses_a_base_image_that_someone_has_locked)
{
    struct thaw_error error = {0};
    char path[64];
    make_base(path, BLOCK);
    int fd = open(path, O_RDWR);
    cr_assert_eq(flock(fd, LOCK_EX), 0);
    cr_assert_eq(open_error(path, 0, "/tmp", &error), -EBUSY);
    cr_assert_eq(open_error(path, fd, "/tmp", &error), -EBUSY);
    cr_assert_eq(flock(fd, LOCK_SH), 0);
    cr_assert_eq(open_error(path, 0, "/tmp", &error), 0);
    close(fd);
    unlink(path);
}

Test(disk, takes_a_base_image_by_descriptor)
{
    struct rig rig = {0};
    make_base(rig.path, 2 * BLOCK);
    int fd = open(rig.path, O_RDONLY | O_NONBLOCK);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig.io, NULL), 0);
    cr_assert_eq(io_start(rig.io, NULL), 0);
    struct disk_options options = {.fd = fd, .overlay_dir = "/tmp"};
    cr_assert_eq(disk_open(rig.io, &options, &rig.disk, NULL), 0);
    close(fd);
    uint8_t *model = model_new(2 * BLOCK);
    expect(&rig, model, 0, 2 * BLOCK);
    free(model);
    teardown(&rig);
}

Test(disk, reports_a_full_host_and_takes_the_write_again_later)
{
    char dir[] = "/tmp/thaw-full-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=64k") < 0) {
        rmdir(dir);
        cr_skip_test("needs the right to mount a small tmpfs");
    }
    const uint64_t bytes = 64 * BLOCK;
    struct rig rig = {0};
    make_base(rig.path, bytes);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig.io, NULL), 0);
    cr_assert_eq(io_start(rig.io, NULL), 0);
    struct disk_options options = {.path = rig.path, .overlay_dir = dir};
    cr_assert_eq(disk_open(rig.io, &options, &rig.disk, NULL), 0);

    uint8_t *model = model_new(bytes);
    memset(model, 0x55, 8 * BLOCK);
    cr_assert_eq(request(&rig, DISK_WRITE, 0, model, 8 * BLOCK), 0);
    expect(&rig, model, 0, bytes);
    uint8_t *more = malloc(bytes);
    memset(more, 0x66, bytes);
    cr_assert_eq(request(&rig, DISK_WRITE, 8 * BLOCK, more, bytes - 8 * BLOCK), -ENOSPC);
    expect(&rig, model, 0, 8 * BLOCK);
    cr_assert_eq(mount("none", dir, "tmpfs", MS_REMOUNT, "size=1m"), 0);
    cr_assert_eq(request(&rig, DISK_WRITE, 8 * BLOCK, more, bytes - 8 * BLOCK), 0);
    memset(model + 8 * BLOCK, 0x66, bytes - 8 * BLOCK);
    expect(&rig, model, 0, bytes);
    free(more);
    free(model);
    teardown(&rig);
    umount(dir);
    rmdir(dir);
}

Test(disk, finds_runs_of_blocks_in_large_overlays)
{
    struct disk_overlay *overlay = NULL;
    uint64_t block = 0, count = 0;
    cr_assert_eq(disk_overlay_new("/tmp", 100 * GIB, &overlay, NULL), 0);
    cr_assert(!disk_overlay_next_run(overlay, 0, &block, &count));
    disk_overlay_hold(overlay, 63, 66);
    disk_overlay_hold(overlay, overlay->blocks - 1, 1);
    cr_assert(disk_overlay_next_run(overlay, 0, &block, &count));
    cr_assert(block == 63 && count == 66);
    cr_assert(disk_overlay_next_run(overlay, 100, &block, &count));
    cr_assert(block == 100 && count == 29);
    cr_assert(disk_overlay_next_run(overlay, 129, &block, &count));
    cr_assert(block == overlay->blocks - 1 && count == 1);
    disk_overlay_free(overlay);
}

Test(disk, overlays_can_be_replaced_by_an_empty_one)
{
    const uint64_t bytes = 64 * 1024;
    struct rig rig = setup(IO_BACKEND_AUTO, bytes, false);
    uint8_t *model = model_new(bytes), block[BLOCK];
    struct disk_layer *base = disk_top(rig.disk)->below;
    memset(block, 0xaa, sizeof(block));
    cr_assert(disk_is_unwritten(rig.disk, base));
    expect(&rig, model, 0, bytes);
    cr_assert(disk_is_unwritten(rig.disk, base), "it was only read");
    push(&rig);
    cr_assert(!disk_is_unwritten(rig.disk, base), "another one lies below");
    for (unsigned i = 0; i < 3; i++) {
        struct disk_overlay *overlay = NULL;
        cr_assert_eq(request(&rig, DISK_WRITE, i * BLOCK, block, sizeof(block)), 0);
        cr_assert_eq(request(&rig, DISK_WRITE, 9 * BLOCK + SECTOR, block, SECTOR), 0);
        cr_assert(!disk_is_unwritten(rig.disk, base));
        if (i == 1)
            push(&rig);
        cr_assert_eq(disk_overlay_new("/tmp", bytes, &overlay, NULL), 0);
        disk_replace_overlays(rig.disk, base, overlay);
        cr_assert(disk_is_unwritten(rig.disk, base));
        expect(&rig, model, 0, bytes);
    }
    cr_assert_eq(request(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    free(model);
    teardown(&rig);
}
