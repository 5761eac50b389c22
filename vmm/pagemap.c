// SPDX-License-Identifier: Apache-2.0
// Asks the kernel which pages of a mapping are private. Knows nothing of guests.

#include "pagemap.h"
#include <fcntl.h>
#include <sys/ioctl.h>

/* linux/fs.h of Linux 6.7; the headers we build with may be older. */
struct page_region {
    uint64_t start, end, categories;
};

struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN    _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_FILE    (1u << 2)
#define PAGE_IS_PRESENT (1u << 3)
#define PAGE_IS_SWAPPED (1u << 4)
#define PAGE_IS_PFNZERO (1u << 5)

/* Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_FILE    (1ull << 61)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)

static void set_range(uint64_t *bits, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end;) {
        if (i % 64 == 0 && end - i >= 64) {
            bits[i / 64] = UINT64_MAX;
            i += 64;
        } else {
            bits[i / 64] |= (uint64_t)1 << (i % 64);
            i++;
        }
    }
}

static int by_scan(int fd, uint64_t base, uint64_t bytes, uint64_t *bits)
{
    struct page_region regions[512];
    struct pm_scan_arg scan = {
        .size = sizeof(scan),
        .start = base,
        .end = base + bytes,
        .vec = (uintptr_t)regions,
        .vec_len = ARRAY_SIZE(regions),
        .category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        .return_mask = PAGE_IS_PRESENT,
    };
    while (scan.start < scan.end) {
        int count = ioctl(fd, PAGEMAP_SCAN, &scan);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -errno;
        for (int i = 0; i < count; i++)
            set_range(
                bits, (regions[i].start - base) / PAGE_BYTES, (regions[i].end - base) / PAGE_BYTES);
        scan.start = scan.walk_end;
    }
    return 0;
}

/* Without the newer call, pages of zeros that were only read are taken for private: that costs
 * looking at them. */
static int by_entries(int fd, uint64_t base, uint64_t bytes, uint64_t *bits)
{
    uint64_t entries[4096];
    uint64_t pages = bytes / PAGE_BYTES;
    for (uint64_t page = 0; page < pages;) {
        size_t want = (size_t)MIN(pages - page, (uint64_t)ARRAY_SIZE(entries)) * sizeof(entries[0]);
        ssize_t got =
            pread(fd, entries, want, (off_t)((base / PAGE_BYTES + page) * sizeof(entries[0])));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < (ssize_t)sizeof(entries[0]))
            return got < 0 ? -errno : -EIO;
        uint64_t count = (uint64_t)got / sizeof(entries[0]);
        for (uint64_t i = 0; i < count; i++)
            if ((entries[i] & (ENTRY_PRESENT | ENTRY_SWAPPED)) && !(entries[i] & ENTRY_FILE))
                set_range(bits, page + i, page + i + 1);
        page += count;
    }
    return 0;
}

int pagemap_private(const void *base, uint64_t bytes, uint64_t *bits, struct thaw_error *error)
{
    _cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(error, errno, "opening /proc/self/pagemap");
    int r = by_scan(fd, (uintptr_t)base, bytes, bits);
    if (r == -ENOTTY || r == -EINVAL || r == -ENOSYS)
        r = by_entries(fd, (uintptr_t)base, bytes, bits);
    return r < 0 ? error_errno(error, -r, "reading which pages of the guest are private") : 0;
}
