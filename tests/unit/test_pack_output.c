// SPDX-License-Identifier: Apache-2.0
// What is written past the page cache, and what happens where that does not go as it should. What a
// pack is, other tests know.
#include "pack_output.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define SMALL_BYTES (PACK_OUTPUT_CACHED_BYTES - 1)
#define LARGE_BYTES (PACK_OUTPUT_CACHED_BYTES + 7 * PACK_OUTPUT_PIECE_BYTES + 12345)

static atomic_int direct_writes; /* so far, by pwrite */
static atomic_bool direct_refused;
static atomic_int direct_trouble; /* the next of them are interrupted or short, in turn */

/* Failures made to order: the linker sends the library's calls here. */
ssize_t __real_pwrite(int fd, const void *bytes, size_t count, off_t off);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t off);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t off)
{
    if (!(fcntl(fd, F_GETFL) & O_DIRECT))
        return __real_pwrite(fd, bytes, count, off);
    direct_writes++;
    if (direct_refused) {
        errno = EINVAL;
        return -1;
    }
    if (direct_trouble > 0) {
        if (atomic_fetch_sub(&direct_trouble, 1) % 2 == 0) {
            errno = EINTR;
            return -1;
        }
        count /= 2;
    }
    return __real_pwrite(fd, bytes, count, off);
}

static int temporary_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

/* Whether this file system, the same as the tests', offers it. */
static bool takes_direct_writes(void)
{
    char path[40];
    _cleanup_close_ int fd = temporary_file();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    _cleanup_close_ int direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    return direct >= 0;
}

static void fill(uint64_t *words, size_t bytes, uint64_t off)
{
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = (off / 8 + i) * 0x9e3779b97f4a7c15;
}

/* In parts that no piece is a multiple of. */
static int append_all(struct pack_output *output, uint64_t bytes, struct thaw_error *error)
{
    static uint64_t part[3000];
    int r = 0;
    for (uint64_t off = 0; off < bytes && r == 0; off += sizeof(part)) {
        fill(part, sizeof(part), off);
        r = pack_output_append(output, part, MIN(sizeof(part), bytes - off), error);
    }
    return r < 0 ? r : pack_output_flush(output, error);
}

static int write_file(int fd, uint64_t bytes, bool ring, bool direct, struct thaw_error *error)
{
    struct pack_output output;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    cr_assert_eq(pack_output_init(&output, own, "p", ring, error), 0, "%s", error->message);
    if (direct)
        pack_output_go_direct(&output);
    int r = append_all(&output, bytes, error);
    if (r == 0)
        r = pack_output_sync(&output, error);
    pack_output_fini(&output);
    return r;
}

static void round_trip(uint64_t bytes, bool ring, bool direct)
{
    static uint64_t is[PACK_OUTPUT_PIECE_BYTES / 8], wanted[PACK_OUTPUT_PIECE_BYTES / 8];
    struct thaw_error error;
    _cleanup_close_ int fd = temporary_file();
    cr_assert_eq(write_file(fd, bytes, ring, direct, &error), 0, "%s", error.message);
    cr_assert_eq(lseek(fd, 0, SEEK_END), (off_t)bytes);
    for (uint64_t off = 0; off < bytes; off += sizeof(is)) {
        size_t count = MIN(sizeof(is), bytes - off);
        cr_assert_eq(pread(fd, is, count, (off_t)off), (ssize_t)count);
        fill(wanted, sizeof(wanted), off);
        cr_assert_eq(memcmp(is, wanted, count), 0, "at %lu", off);
    }
}

Test(pack_output, much_is_written_past_the_page_cache_where_that_can_be)
{
    round_trip(LARGE_BYTES, true, true);
    round_trip(LARGE_BYTES, false, true);
    cr_assert_eq(direct_writes, takes_direct_writes() ? 7 : 0);
}

Test(pack_output, little_is_not_nor_what_may_not_be)
{
    round_trip(SMALL_BYTES, true, true);
    round_trip(SMALL_BYTES, false, true);
    round_trip(LARGE_BYTES, true, false);
    round_trip(LARGE_BYTES, false, false);
    cr_assert_eq(direct_writes, 0);
}

Test(pack_output, a_refusal_is_final_and_loses_nothing)
{
    direct_refused = true;
    round_trip(LARGE_BYTES, false, true);
    cr_assert_eq(direct_writes, takes_direct_writes());
}

Test(pack_output, interrupted_and_short_writes_are_continued)
{
    direct_trouble = 4;
    round_trip(LARGE_BYTES, false, true);
    cr_assert_eq(direct_trouble, takes_direct_writes() ? 0 : 4);
}

/* The first byte that is too much lies in a piece: what comes before it can't be written directly.
 */
Test(pack_output, a_limit_on_the_way_is_reported)
{
    const rlim_t most = PACK_OUTPUT_CACHED_BYTES + 5 * PACK_OUTPUT_PIECE_BYTES + 1;
    const struct rlimit limit = {most, RLIM_INFINITY};
    struct thaw_error error;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int ring = 0; ring < 2; ring++) {
        _cleanup_close_ int fd = temporary_file();
        cr_assert_eq(write_file(fd, LARGE_BYTES, ring, true, &error), -EFBIG);
    }
}
