// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "pack.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zstd.h>

/* --- Failures made to order: the linker sends the library's calls here -------------------------
 */

static atomic_int compress_fails_at; /* the n-th call fails; 0: none */
static atomic_int fsync_errno;
static atomic_int write_trouble; /* the next writes are interrupted or short, in turn */
static atomic_int write_errno_at;
static atomic_int read_trouble;
static atomic_size_t largest_read; /* and no larger one is carried out than READ_MAX */

#define READ_MAX (64u << 20)

size_t __real_ZSTD_compress2(ZSTD_CCtx *context, void *dst, size_t room, const void *src, size_t n);
size_t __wrap_ZSTD_compress2(ZSTD_CCtx *context, void *dst, size_t room, const void *src, size_t n);
size_t __wrap_ZSTD_compress2(ZSTD_CCtx *context, void *dst, size_t room, const void *src, size_t n)
{
    if (compress_fails_at && atomic_fetch_sub(&compress_fails_at, 1) == 1)
        room = 1; /* fails as the real one does */
    return __real_ZSTD_compress2(context, dst, room, src, n);
}

int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __wrap_fsync(int fd)
{
    errno = fsync_errno;
    return fsync_errno ? -1 : __real_fsync(fd);
}

ssize_t __real_pwrite(int fd, const void *bytes, size_t count, off_t off);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t off);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t off)
{
    if (write_errno_at && atomic_fetch_sub(&write_errno_at, 1) == 1) {
        errno = EIO;
        return -1;
    }
    if (write_trouble > 0) {
        if (atomic_fetch_sub(&write_trouble, 1) % 2) {
            errno = EINTR;
            return -1;
        }
        count = count / 3 + 1;
    }
    return __real_pwrite(fd, bytes, count, off);
}

ssize_t __real_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off)
{
    for (size_t seen = largest_read; seen < count;)
        if (atomic_compare_exchange_weak(&largest_read, &seen, count))
            break;
    if (read_trouble < 0 || count > READ_MAX) {
        errno = EIO;
        return -1;
    }
    if (read_trouble > 0) {
        if (atomic_fetch_sub(&read_trouble, 1) % 2) {
            errno = EINTR;
            return -1;
        }
        count = count / 3 + 1;
    }
    return __real_pread(fd, bytes, count, off);
}

/* --- Making packs ----------------------------------------------------------------------------- */

static const struct wire_b16 id = {{0xca, 0xfe, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

enum contents {
    TEXT,   /* compresses well */
    RANDOM, /* does not compress */
    MIXED,  /* a run of either */
};

static void fill_page(uint8_t *page, uint64_t number, enum contents contents)
{
    uint64_t x = number * 0x9e3779b97f4a7c15 + 1;
    if (contents == MIXED)
        contents = number / 40 % 2 ? RANDOM : TEXT;
    for (size_t i = 0; i < FORMAT_PAGE_BYTES; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        wire_store_u64(page + i, contents == RANDOM ? x : (x & 0x0300070001000500) + number);
    }
}

static int temporary_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

/* Pack page n holds page 3n of space n % 3. */
static int add_pages(struct pack_writer *writer, uint64_t first, uint64_t count,
    enum contents contents, struct thaw_error *error)
{
    uint8_t page[FORMAT_PAGE_BYTES];
    for (uint64_t n = first; n < first + count; n++) {
        uint64_t pack_page = UINT64_MAX;
        fill_page(page, n, contents);
        int r = pack_writer_add(writer, (unsigned)(n % 3), 3 * n, page, &pack_page, error);
        if (r < 0)
            return r;
        cr_assert_eq(pack_page, n);
    }
    return 0;
}

static int make_pack_with(struct pack_write_options options, uint64_t count, enum contents contents,
    struct pack_totals *ret)
{
    struct pack_totals totals;
    struct pack_writer *writer;
    struct thaw_error error;
    int fd = temporary_file();
    options.id = id;
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, &error), 0, "%s", error.message);
    cr_assert_eq(add_pages(writer, 0, count, contents, &error), 0, "%s", error.message);
    cr_assert_eq(pack_writer_finish(writer, &totals, &error), 0, "%s", error.message);
    cr_assert_eq(totals.pages, count);
    if (ret)
        *ret = totals;
    return fd;
}

static int make_pack(uint64_t count, enum contents contents)
{
    return make_pack_with((struct pack_write_options){0}, count, contents, NULL);
}

static struct pack_reader *open_pack(int fd)
{
    struct pack_reader *reader;
    struct thaw_error error;
    cr_assert_eq(pack_reader_open_fd(fd, "p", &id, &reader, &error), 0, "%s", error.message);
    return reader;
}

static void assert_holds(const struct pack_reader *reader, uint64_t count, enum contents contents)
{
    struct frame_scratch scratch = {0};
    struct thaw_error error;
    uint8_t page[FORMAT_PAGE_BYTES];
    unsigned frame_pages = pack_reader_frame_pages(reader);
    cr_assert_eq(pack_reader_page_count(reader), count);
    cr_assert_eq(pack_reader_frame_count(reader), (count + frame_pages - 1) / frame_pages);
    for (uint64_t n = 0; n < count; n++) {
        if (n % frame_pages == 0) {
            int slots = pack_read_frame(reader, n / frame_pages, &scratch, &error);
            cr_assert_eq(slots, (int)MIN(frame_pages, count - n), "%s", error.message);
        }
        fill_page(page, n, contents);
        cr_assert_eq(
            memcmp(scratch.pages + n % frame_pages * FORMAT_PAGE_BYTES, page, FORMAT_PAGE_BYTES), 0,
            "page %lu", n);
        cr_assert_eq(pack_reader_slot(reader, n), SLOT(n % 3, 3 * n));
    }
    frame_scratch_fini(&scratch);
}

static void check_round_trip(
    struct pack_write_options options, uint64_t count, enum contents contents)
{
    struct pack_totals totals;
    int fd = make_pack_with(options, count, contents, &totals);
    struct pack_reader *reader = open_pack(fd);
    assert_holds(reader, count, contents);
    cr_assert_eq(pack_verify(reader, NULL), 0);
    cr_assert_eq(totals.frames, pack_reader_frame_count(reader));
    cr_assert_eq(totals.raw_bytes, count * FORMAT_PAGE_BYTES);
    cr_assert_eq(totals.file_bytes, pack_reader_file_bytes(reader));
    cr_assert_eq(totals.file_bytes, FILE_HEADER_BYTES + totals.stored_bytes +
                                        totals.frames * FRAME_ENTRY_BYTES + count * SLOT_BYTES +
                                        PACK_FOOTER_BYTES);
    pack_reader_close(reader);
    close(fd);
}

/* --- What is written is read ------------------------------------------------------------------ */

Test(pack, pages_come_back_whatever_their_number)
{
    static const uint64_t counts[] = {0, 1, 15, 16, 17, 31, 32, 500};
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
        check_round_trip((struct pack_write_options){0}, counts[i], MIXED);
}

Test(pack, pages_come_back_whatever_the_size_of_a_frame)
{
    static const unsigned sizes[] = {1, 2, 7, 255, 256};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        check_round_trip((struct pack_write_options){.frame_pages = sizes[i]}, 600, MIXED);
    /* Tables that are read in several steps. */
    check_round_trip((struct pack_write_options){.frame_pages = 1}, 50000, TEXT);
}

Test(pack, pages_come_back_whatever_the_threads_the_level_and_the_way_of_writing)
{
    check_round_trip((struct pack_write_options){.threads = 1}, 1000, MIXED);
    check_round_trip((struct pack_write_options){.threads = 8, .level = 3}, 1000, TEXT);
    check_round_trip((struct pack_write_options){.threads = 1000, .level = -5}, 1000, MIXED);
    check_round_trip((struct pack_write_options){.flags = PACK_WRITE_NO_IO_URING}, 1000, RANDOM);
    check_round_trip((struct pack_write_options){.flags = PACK_WRITE_NO_SYNC}, 1000, TEXT);
}

Test(pack, incompressible_pages_take_no_more_than_their_size)
{
    struct pack_totals totals;
    close(make_pack_with((struct pack_write_options){0}, 160, RANDOM, &totals));
    cr_assert_eq(totals.stored_bytes, totals.raw_bytes);
}

static struct wire_b16 digest_of(int fd)
{
    static uint8_t bytes[1 << 20];
    struct check_stream *stream = check_stream_new();
    off_t off = 0;
    for (ssize_t n; (n = pread(fd, bytes, sizeof(bytes), off)) > 0; off += n)
        check_stream_add(stream, bytes, (size_t)n);
    struct wire_b16 digest = check_stream_result(stream);
    check_stream_free(stream);
    return digest;
}

Test(pack, the_same_pages_give_the_same_file_however_many_threads_work)
{
    struct pack_totals one, many;
    int fd1 = make_pack_with((struct pack_write_options){.threads = 1}, 700, MIXED, &one);
    int fd2 = make_pack_with((struct pack_write_options){.threads = 6}, 700, MIXED, &many);
    struct wire_b16 digest1 = digest_of(fd1), digest2 = digest_of(fd2);
    cr_assert(wire_b16_equal(&digest1, &digest2));
    cr_assert(wire_b16_equal(&digest1, &one.digest));
    cr_assert(wire_b16_equal(&digest1, &many.digest));
    close(fd1);
    close(fd2);
}

struct pipe_end {
    int from, to;
};

static void *drain_pipe(void *data)
{
    struct pipe_end *ends = data;
    char bytes[5000];
    for (ssize_t n; (n = read(ends->from, bytes, sizeof(bytes))) > 0;)
        cr_assert_eq(write(ends->to, bytes, (size_t)n), n);
    return NULL;
}

static void write_through_pipe(int pipe_flags)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, 0), 0);
    cr_assert_eq(fcntl(ends[1], F_SETFL, pipe_flags), 0);
    struct pipe_end copy = {.from = ends[0], .to = temporary_file()};
    pthread_t thread;
    pthread_create(&thread, NULL, drain_pipe, &copy);
    struct pack_write_options options = {.id = id};
    struct pack_writer *writer;
    cr_assert_eq(pack_writer_open_fd(ends[1], "p", &options, &writer, NULL), 0);
    cr_assert_eq(add_pages(writer, 0, 200, MIXED, NULL), 0);
    cr_assert_eq(pack_writer_finish(writer, NULL, NULL), 0);
    close(ends[1]);
    pthread_join(thread, NULL);
    struct pack_reader *reader = open_pack(copy.to);
    assert_holds(reader, 200, MIXED);
    pack_reader_close(reader);
}

Test(pack, can_be_streamed_through_a_pipe)
{
    write_through_pipe(0);
    write_through_pipe(O_NONBLOCK);
}

struct reading {
    const struct pack_reader *reader;
    uint64_t first;
};

static void *read_thread(void *data)
{
    const struct reading *reading = data;
    struct frame_scratch scratch = {0};
    uint64_t frames = pack_reader_frame_count(reading->reader);
    uintptr_t failures = 0;
    for (uint64_t i = 0; i < frames; i++)
        failures +=
            pack_read_frame(reading->reader, (i + reading->first) % frames, &scratch, NULL) != 16;
    frame_scratch_fini(&scratch);
    return (void *)failures;
}

Test(pack, threads_share_a_reader)
{
    int fd = make_pack(640, MIXED);
    struct reading reading[4];
    pthread_t threads[4];
    struct pack_reader *reader = open_pack(fd);
    for (unsigned i = 0; i < 4; i++) {
        reading[i] = (struct reading){reader, i * 10};
        pthread_create(&threads[i], NULL, read_thread, &reading[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        cr_assert_null(failures);
    }
    pack_reader_close(reader);
    close(fd);
}

Test(pack, a_frame_can_be_read_by_other_means)
{
    int fd = make_pack(20, TEXT);
    struct pack_reader *reader = open_pack(fd);
    struct frame_scratch scratch = {0};
    struct frame_entry entry;
    pack_reader_entry(reader, 1, &entry);
    cr_assert_eq(entry.first_slot, 16);
    uint8_t *stored = malloc(entry.stored_bytes);
    cr_assert_eq(pread(pack_reader_fd(reader), stored, entry.stored_bytes, (off_t)entry.file_off),
        entry.stored_bytes);
    cr_assert_eq(pack_decode_frame(reader, 1, stored, &scratch, NULL), 4);
    stored[0] ^= 1;
    cr_assert_eq(pack_decode_frame(reader, 1, stored, &scratch, NULL), THAW_ECORRUPT);
    cr_assert_eq(pack_decode_frame(reader, 2, stored, &scratch, NULL), THAW_ECORRUPT);
    free(stored);
    frame_scratch_fini(&scratch);
    pack_reader_close(reader);
    close(fd);
}

/* --- Names and files -------------------------------------------------------------------------- */

Test(pack, a_file_is_created_exclusively_and_opened_by_name)
{
    char dir[] = "/tmp/test_pack.XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY);
    struct pack_write_options options = {.id = id};
    struct pack_writer *writer;
    struct pack_reader *reader;
    struct thaw_error error;
    cr_assert_eq(pack_writer_open(dirfd, "a-pack", &options, &writer, NULL), 0);
    cr_assert_eq(add_pages(writer, 0, 40, TEXT, NULL), 0);
    cr_assert_eq(pack_writer_finish(writer, NULL, NULL), 0);
    cr_assert_eq(pack_writer_open(dirfd, "a-pack", &options, &writer, &error), -EEXIST);
    cr_assert_not_null(strstr(error.message, "a-pack"));

    cr_assert_eq(pack_reader_open(dirfd, "a-pack", NULL, &reader, NULL), 0);
    cr_assert(wire_b16_equal(pack_reader_id(reader), &id));
    assert_holds(reader, 40, TEXT);
    pack_reader_close(reader);
    pack_reader_close(NULL);

    struct wire_b16 other = {{1}};
    cr_assert_eq(pack_reader_open(dirfd, "a-pack", &other, &reader, &error), THAW_ECORRUPT);
    cr_assert_not_null(strstr(error.message, "another pack"), "%s", error.message);
    cr_assert_eq(pack_reader_open(dirfd, "b-pack", NULL, &reader, &error), -ENOENT);
    cr_assert_eq(symlinkat("a-pack", dirfd, "link"), 0);
    cr_assert_eq(pack_reader_open(dirfd, "link", NULL, &reader, &error), -ELOOP);
    cr_assert_eq(mkfifoat(dirfd, "fifo", 0600), 0);
    cr_assert_eq(pack_reader_open(dirfd, "fifo", NULL, &reader, &error), -EINVAL);
    cr_assert_eq(
        unlinkat(dirfd, "a-pack", 0) | unlinkat(dirfd, "link", 0) | unlinkat(dirfd, "fifo", 0), 0);
    close(dirfd);
    rmdir(dir);
}

Test(pack, a_file_that_is_not_empty_is_not_written_over)
{
    int fd = make_pack(3, TEXT);
    struct pack_write_options options = {.id = id};
    struct pack_writer *writer;
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), -EEXIST);
    pack_reader_close(open_pack(fd));
    close(fd);
}

Test(pack, what_does_not_fit_the_format_is_refused)
{
    struct pack_write_options options = {.id = id, .frame_pages = FRAME_PAGES_MAX + 1};
    struct pack_writer *writer;
    uint8_t page[FORMAT_PAGE_BYTES] = {1};
    uint64_t pack_page;
    int fd = temporary_file();
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), -EINVAL);
    options.frame_pages = 0;
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), 0);
    cr_assert_eq(pack_writer_add(writer, 256, 0, page, &pack_page, NULL), -EINVAL);
    cr_assert_eq(pack_writer_add(writer, 0, SPACE_PAGES_MAX, page, &pack_page, NULL), -EINVAL);
    cr_assert_eq(pack_writer_add(writer, 255, SPACE_PAGES_MAX - 1, page, &pack_page, NULL), 0);
    cr_assert_eq(pack_writer_finish(writer, NULL, NULL), 0);
    struct pack_reader *reader = open_pack(fd);
    cr_assert_eq(SLOT_SPACE(pack_reader_slot(reader, 0)), 255);
    cr_assert_eq(SLOT_PAGE(pack_reader_slot(reader, 0)), SPACE_PAGES_MAX - 1);
    pack_reader_close(reader);
    close(fd);
}

/* --- Failures while writing ------------------------------------------------------------------- */

Test(pack, can_be_abandoned_at_any_point)
{
    static const uint64_t counts[] = {0, 1, 16, 17, 400, 2000};
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        int fd = temporary_file();
        struct pack_write_options options = {.id = id, .threads = 4};
        struct pack_writer *writer;
        struct pack_reader *reader;
        cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), 0);
        cr_assert_eq(add_pages(writer, 0, counts[i], MIXED, NULL), 0);
        pack_writer_abort(writer);
        cr_assert_eq(pack_reader_open_fd(fd, "p", NULL, &reader, NULL), THAW_ECORRUPT);
        close(fd);
    }
    pack_writer_abort(NULL);
}

/* Adds pages until that fails, which it must, and goes on failing. */
static int fail_writing(int fd, struct pack_write_options options, struct thaw_error *error)
{
    struct pack_writer *writer;
    options.id = id;
    int r = pack_writer_open_fd(fd, "the-pack", &options, &writer, error);
    if (r < 0)
        return r;
    for (uint64_t first = 0; r == 0 && first < 100000; first += 100)
        r = add_pages(writer, first, 100, RANDOM, error);
    if (r < 0) {
        uint8_t page[FORMAT_PAGE_BYTES] = {1};
        uint64_t pack_page;
        struct thaw_error again;
        cr_assert_eq(pack_writer_add(writer, 0, 0, page, &pack_page, &again), r);
        cr_assert_str_eq(again.message, error->message);
    }
    struct pack_totals totals = {.pages = 77};
    struct thaw_error last;
    cr_assert_lt(pack_writer_finish(writer, &totals, &last), 0);
    if (r == 0)
        *error = last;
    cr_assert_str_eq(last.message, error->message);
    cr_assert_eq(totals.pages, 77);
    return last.code;
}

Test(pack, a_full_device_is_reported_with_what_to_do)
{
    struct thaw_error error;
    int fd = open("/dev/full", O_WRONLY);
    cr_assert_eq(fail_writing(fd, (struct pack_write_options){0}, &error), -ENOSPC);
    cr_assert_not_null(strstr(error.message, "the-pack"), "%s", error.message);
    cr_assert_not_null(strstr(error.message, "make room"), "%s", error.message);
}

Test(pack, a_file_system_that_fills_up_on_the_way_is_reported)
{
    char dir[] = "/tmp/test_pack.XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) < 0 || mount("", "/", "", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("thaw-test", dir, "tmpfs", 0, "size=4m") < 0) {
        rmdir(dir);
        cr_skip_test("mounting a tmpfs is not allowed here");
    }
    static const unsigned flags[] = {0, PACK_WRITE_NO_IO_URING};
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        struct thaw_error error;
        int fd = open(dir, O_TMPFILE | O_RDWR, 0600);
        cr_assert_geq(fd, 0);
        struct pack_write_options options = {.flags = flags[i], .threads = 3};
        cr_assert_eq(fail_writing(fd, options, &error), -ENOSPC, "%s", error.message);
        close(fd);
    }
    umount(dir);
    rmdir(dir);
}

Test(pack, writes_that_are_cut_short_by_a_limit_are_reported)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 1000001, .rlim_max = RLIM_INFINITY};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct thaw_error error;
    int fd = temporary_file();
    cr_assert_eq(fail_writing(fd, (struct pack_write_options){0}, &error), -EFBIG);
    close(fd);
}

Test(pack, a_reader_of_the_pipe_that_went_away_is_reported)
{
    int ends[2];
    struct thaw_error error;
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(pipe2(ends, 0), 0);
    close(ends[0]);
    cr_assert_eq(fail_writing(ends[1], (struct pack_write_options){0}, &error), -EPIPE);
    close(ends[1]);
}

Test(pack, a_worker_that_fails_ends_it)
{
    for (int nth = 1; nth < 60; nth += 13) {
        struct thaw_error error;
        int fd = temporary_file();
        compress_fails_at = nth;
        cr_assert_eq(fail_writing(fd, (struct pack_write_options){.threads = 3}, &error), -EIO);
        cr_assert_not_null(strstr(error.message, "the-pack"), "%s", error.message);
        close(fd);
    }
}

Test(pack, a_write_that_fails_ends_it_whichever_it_is)
{
    for (int nth = 1; nth < 20; nth++) {
        struct thaw_error error;
        int fd = temporary_file();
        struct pack_write_options options = {.flags = PACK_WRITE_NO_IO_URING};
        write_errno_at = nth;
        cr_assert_eq(fail_writing(fd, options, &error), -EIO);
        close(fd);
    }
}

Test(pack, a_failed_fsync_is_final)
{
    struct pack_write_options options = {.id = id};
    struct pack_writer *writer;
    struct thaw_error error;
    int fd = temporary_file();
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), 0);
    cr_assert_eq(add_pages(writer, 0, 10, TEXT, NULL), 0);
    fsync_errno = EIO;
    cr_assert_eq(pack_writer_finish(writer, NULL, &error), -EIO);
    cr_assert_not_null(strstr(error.message, "durable"), "%s", error.message);
    fsync_errno = 0;
    close(fd);
}

Test(pack, interrupted_and_short_writes_and_reads_are_continued)
{
    struct pack_write_options options = {.flags = PACK_WRITE_NO_IO_URING};
    write_trouble = 30;
    int fd = make_pack_with(options, 300, MIXED, NULL);
    cr_assert_eq(write_trouble, 0);
    read_trouble = 200;
    struct pack_reader *reader = open_pack(fd);
    assert_holds(reader, 300, MIXED);
    cr_assert_eq(read_trouble, 0);
    pack_reader_close(reader);
    close(fd);
}

/* --- Damage ----------------------------------------------------------------------------------- */

static int open_and_verify(int fd, struct thaw_error *error)
{
    struct pack_reader *reader;
    int r = pack_reader_open_fd(fd, "p", &id, &reader, error);
    if (r < 0)
        return r;
    r = pack_verify(reader, error);
    pack_reader_close(reader);
    return r;
}

/* A pack in memory of two compressed frames and, with a page alone, a raw one. */
static int small_pack(size_t *ret_count)
{
    struct pack_write_options options = {.id = id, .frame_pages = 2, .threads = 1};
    struct pack_writer *writer;
    struct pack_totals totals;
    int fd = memfd_create("pack", MFD_CLOEXEC);
    cr_assert_eq(pack_writer_open_fd(fd, "p", &options, &writer, NULL), 0);
    cr_assert_eq(add_pages(writer, 0, 4, TEXT, NULL), 0);
    cr_assert_eq(add_pages(writer, 4, 1, RANDOM, NULL), 0);
    cr_assert_eq(pack_writer_finish(writer, &totals, NULL), 0);
    cr_assert(totals.file_bytes > 6000 && totals.file_bytes < 20000);
    *ret_count = totals.file_bytes;
    return fd;
}

Test(pack, every_flipped_bit_is_found)
{
    size_t count;
    int fd = small_pack(&count);
    uint8_t *bytes = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(bytes, MAP_FAILED);
    for (size_t bit = 0; bit < 8 * count; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(open_and_verify(fd, NULL), THAW_ECORRUPT, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    cr_assert_eq(open_and_verify(fd, NULL), 0);
    munmap(bytes, count);
    close(fd);
}

Test(pack, every_truncation_and_extension_is_found)
{
    size_t count;
    int fd = small_pack(&count);
    for (size_t longer = count + 1; longer < count + 200; longer++) {
        cr_assert_eq(ftruncate(fd, (off_t)longer), 0);
        cr_assert_eq(open_and_verify(fd, NULL), THAW_ECORRUPT);
    }
    for (size_t shorter = count; shorter-- > 0;) {
        cr_assert_eq(ftruncate(fd, (off_t)shorter), 0);
        cr_assert_eq(open_and_verify(fd, NULL), THAW_ECORRUPT, "%zu bytes", shorter);
    }
    close(fd);
}

Test(pack, a_damaged_frame_is_named_with_its_offset)
{
    int fd = make_pack(100, TEXT);
    struct pack_reader *reader = open_pack(fd);
    struct frame_scratch scratch = {0};
    struct frame_entry entry;
    struct thaw_error error;
    char byte, expected[64];
    pack_reader_entry(reader, 3, &entry);
    off_t off = (off_t)entry.file_off + 10;
    cr_assert_eq(pread(fd, &byte, 1, off), 1);
    byte ^= 4;
    cr_assert_eq(pwrite(fd, &byte, 1, off), 1);
    cr_assert_eq(pack_read_frame(reader, 2, &scratch, &error), 16);
    cr_assert_eq(pack_read_frame(reader, 3, &scratch, &error), THAW_ECORRUPT);
    snprintf(expected, sizeof(expected), "'p', frame 3 at offset %lu", entry.file_off);
    cr_assert_not_null(strstr(error.message, expected), "%s", error.message);
    cr_assert_eq(pack_verify(reader, &error), THAW_ECORRUPT);

    cr_assert_eq(ftruncate(fd, off), 0); /* while it is open */
    cr_assert_eq(pack_read_frame(reader, 3, &scratch, &error), THAW_ECORRUPT);
    cr_assert_not_null(strstr(error.message, "cut short"), "%s", error.message);
    frame_scratch_fini(&scratch);
    pack_reader_close(reader);
    close(fd);
}

Test(pack, an_error_of_the_disk_is_not_called_damage)
{
    int fd = make_pack(100, TEXT);
    struct pack_reader *reader = open_pack(fd), *other;
    struct frame_scratch scratch = {0};
    struct thaw_error error;
    read_trouble = -1;
    cr_assert_eq(pack_read_frame(reader, 3, &scratch, &error), -EIO);
    cr_assert_eq(pack_reader_open_fd(fd, "p", &id, &other, &error), -EIO);
    read_trouble = 0;
    frame_scratch_fini(&scratch);
    pack_reader_close(reader);
    close(fd);
}

/* Whoever makes a file can compute its checks. Offsets are those in small_pack's file. */
static void reseal(uint8_t *bytes, size_t count)
{
    uint8_t *footer = bytes + count - PACK_FOOTER_BYTES;
    uint64_t table_off = wire_load_u64(footer + 24);
    if (table_off <= count - PACK_FOOTER_BYTES)
        wire_store_b16(footer + 40,
            check_128(footer + 8, 16, bytes + table_off, count - PACK_FOOTER_BYTES - table_off));
    wire_store_u64(footer + 56, check_64(footer, 56));
    wire_store_u64(bytes + 56, check_64(bytes, 56));
}

/* As many pages as a pack may have, in a file that takes no room. */
static int sparse_pack(unsigned frame_pages, unsigned real_frames)
{
    const uint64_t slots = PACK_PAGES_MAX, frames = slots / frame_pages;
    const uint64_t tables = frames * FRAME_ENTRY_BYTES + slots * SLOT_BYTES;
    uint8_t header[FILE_HEADER_BYTES], footer[PACK_FOOTER_BYTES] = {0}, bytes[FRAME_ENTRY_BYTES];
    int fd =
        make_pack_with((struct pack_write_options){.frame_pages = frame_pages}, 1, RANDOM, NULL);
    cr_assert_eq(pread(fd, header, sizeof(header), 0), sizeof(header));
    cr_assert_eq(ftruncate(fd, sizeof(header)), 0);
    uint64_t table_off = sizeof(header) + 10 * frames;
    for (unsigned i = 0; i < real_frames; i++) {
        const struct frame_entry entry = {
            .file_off = sizeof(header) + (uint64_t)i * 10,
            .stored_bytes = 10,
            .raw_bytes = frame_pages * FORMAT_PAGE_BYTES,
            .codec = FRAME_CODEC_ZSTD,
            .slots = (uint16_t)frame_pages,
            .first_slot = (uint64_t)i * frame_pages,
        };
        frame_entry_encode(&entry, bytes);
        cr_assert_eq(pwrite(fd, bytes, sizeof(bytes), (off_t)(table_off + i * sizeof(bytes))),
            sizeof(bytes));
    }
    const struct pack_footer fields = {.magic = FORMAT_MAGIC_FOOTER,
        .pack_id = id,
        .table_off = table_off,
        .frame_count = (uint32_t)frames,
        .slot_count = (uint32_t)slots};
    pack_footer_encode(&fields, footer);
    wire_store_u64(footer + 56, check_64(footer, 56));
    cr_assert_eq(pwrite(fd, footer, sizeof(footer), (off_t)(table_off + tables)), sizeof(footer));
    return fd;
}

Test(pack, a_file_of_holes_takes_no_memory)
{
    static const unsigned frame_pages[] = {1, 16, 256};
    for (size_t i = 0; i < ARRAY_SIZE(frame_pages); i++) {
        for (unsigned real = 0; real <= 40000; real += 20000) {
            struct thaw_error error;
            int fd = sparse_pack(frame_pages[i], real);
            largest_read = 0;
            cr_assert_eq(open_and_verify(fd, &error), THAW_ECORRUPT, "%s", error.message);
            cr_assert_lt(largest_read, 4u << 20, "%zu bytes at once", (size_t)largest_read);
            close(fd);
        }
    }
}

Test(pack, hostile_tables_with_good_checks_are_refused)
{
    size_t count;
    int fd = small_pack(&count);
    uint8_t *good = malloc(count), *bytes = malloc(count);
    cr_assert_eq(pread(fd, good, count, 0), (ssize_t)count);
    size_t footer = count - PACK_FOOTER_BYTES;
    size_t table = wire_load_u64(good + footer + 24);
    const struct {
        size_t off;
        unsigned bytes;
        uint64_t value;
    } bad[] = {
        {48, 1, 13},              /* page shift */
        {50, 2, 0},               /* pages a frame */
        {50, 2, 257}, {50, 2, 3}, /* contradicts the tables */
        {footer + 24, 8, 0},      /* table offset */
        {footer + 24, 8, table + 8}, {footer + 24, 8, UINT64_MAX}, {footer + 32, 4, 0}, /* frames */
        {footer + 32, 4, 4}, {footer + 32, 4, UINT32_MAX}, {footer + 36, 4, 0},         /* slots */
        {footer + 36, 4, 6}, {footer + 36, 4, UINT32_MAX},
        {table + 0, 8, 0},                              /* offset of a frame */
        {table + 0, 8, 72}, {table + 64, 8, 64},        /* overlaps the first */
        {table + 64, 8, UINT64_MAX}, {table + 8, 4, 0}, /* stored bytes */
        {table + 8, 4, UINT32_MAX}, {table + 8, 4, 2 * 4096}, {table + 12, 4, 4096}, /* raw bytes */
        {table + 12, 4, UINT32_MAX}, {table + 16, 1, 0},                             /* codec */
        {table + 16, 1, 2}, {table + 18, 2, 1},                                      /* slots */
        {table + 18, 2, 3}, {table + 128 + 18, 2, 2},          /* of the last frame */
        {table + 20, 4, 1},                                    /* dictionary */
        {table + 24, 4, 1},                                    /* key */
        {table + 32, 8, 1},                                    /* first slot */
        {table + 128 + 32, 8, UINT64_MAX}, {table + 48, 4, 0}, /* check of a frame */
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        memcpy(bytes, good, count);
        memcpy(bytes + bad[i].off, &bad[i].value, bad[i].bytes);
        reseal(bytes, count);
        cr_assert_eq(pwrite(fd, bytes, count, 0), (ssize_t)count);
        int r = open_and_verify(fd, NULL);
        cr_assert_eq(r, bad[i].off == 48 ? -EOPNOTSUPP : THAW_ECORRUPT, "case %zu: %d", i, r);
    }
    reseal(good, count);
    cr_assert_eq(pwrite(fd, good, count, 0), (ssize_t)count);
    cr_assert_eq(open_and_verify(fd, NULL), 0);
    free(good);
    free(bytes);
    close(fd);
}
