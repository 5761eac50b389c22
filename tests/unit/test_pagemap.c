// SPDX-License-Identifier: Apache-2.0
#include "pagemap.h"
#include <criterion/criterion.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGES 9000u /* more than are asked for at once where there is no newer call */

static bool old_kernel;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (old_kernel) {
        errno = ENOTTY;
        return -1;
    }
    return __real_ioctl(fd, request, arg);
}

/* A private view of a file whose pages all exist. */
static uint8_t *make_view(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, PAGES * PAGE_BYTES), 0);
    cr_assert_eq(pwrite(fd, "x", 1, 5 * PAGE_BYTES), 1);
    uint8_t *view =
        mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    cr_assert_neq((void *)view, MAP_FAILED);
    close(fd);
    return view;
}

struct seen {
    unsigned count, most;
    struct {
        uint64_t page, count;
    } runs[8];
};

static bool see(void *data, uint64_t page, uint64_t count)
{
    struct seen *seen = data;
    cr_assert_lt(seen->count, 8);
    seen->runs[seen->count].page = page;
    seen->runs[seen->count].count = count;
    return ++seen->count < seen->most;
}

static void find(const uint8_t *view, struct seen *seen)
{
    struct thaw_error error;
    int fd = -1;
    int r = pagemap_find_private(&fd, view, PAGES * PAGE_BYTES, see, seen, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    close(fd);
}

static void expect_runs(void)
{
    static const uint64_t written[] = {0, 1, 2, 100, 4095, 4096, PAGES - 1};
    uint8_t *view = make_view();
    struct seen none = {.most = 8};
    cr_assert_eq(view[5 * PAGE_BYTES], 'x');
    find(view, &none);
    cr_assert_eq(none.count, 0, "what was read is the file's");
    for (size_t i = 0; i < ARRAY_SIZE(written); i++)
        view[written[i] * PAGE_BYTES] = 1;

    /* Runs are in order; one may come in two pieces. */
    struct seen seen = {.most = 8};
    uint64_t at = 0;
    find(view, &seen);
    for (unsigned i = 0; i < seen.count; i++)
        for (uint64_t page = 0; page < seen.runs[i].count; page++)
            cr_assert_eq(seen.runs[i].page + page, written[at++]);
    cr_assert_eq(at, ARRAY_SIZE(written));
    cr_assert_lt(seen.count, ARRAY_SIZE(written));

    struct seen first = {.most = 1};
    find(view, &first);
    cr_assert_eq(first.count, 1, "enough is enough");

    uint64_t bits[(PAGES + 63) / 64] = {0};
    cr_assert_eq(pagemap_private(view, PAGES * PAGE_BYTES, bits, NULL), 0);
    cr_assert_eq(bits[0], 7);
    cr_assert_eq(bits[1], (uint64_t)1 << 36);
    cr_assert_eq(bits[63], (uint64_t)1 << 63);
    cr_assert_eq(bits[64], 1);
    munmap(view, PAGES * PAGE_BYTES);
}

Test(pagemap, finds_what_was_written)
{
    expect_runs();
}

Test(pagemap, finds_what_was_written_on_older_kernels)
{
    old_kernel = true;
    expect_runs();
}
