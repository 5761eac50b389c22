// SPDX-License-Identifier: Apache-2.0
// Asks the kernel which pages of a mapping are private. Knows nothing of guests.

#include "pagemap.h"
#include <fcntl.h>

/* Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define ENTRY_FILE    (1ull << 61)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)

static int by_scan(int fd, uint64_t base, uint64_t bytes, pagemap_run_fn found, void *data)
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
            if (!found(data, (regions[i].start - base) / PAGE_BYTES,
                    (regions[i].end - regions[i].start) / PAGE_BYTES))
                return 0;
        scan.start = scan.walk_end;
    }
    return 0;
}

static bool entry_is_private(uint64_t entry)
{
    return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) && !(entry & ENTRY_FILE);
}

/* Without the newer call, pages of zeros that were only read are taken for private: that costs
 * looking at them. */
static int by_entries(int fd, uint64_t base, uint64_t bytes, pagemap_run_fn found, void *data)
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
        for (uint64_t i = 0, end; i < count; i = end + 1) {
            for (end = i; end < count && entry_is_private(entries[end]);)
                end++;
            if (end > i && !found(data, page + i, end - i))
                return 0;
        }
        page += count;
    }
    return 0;
}

int pagemap_find_private(int *fd, const void *base, uint64_t bytes, pagemap_run_fn found,
    void *data, struct thaw_error *error)
{
    if (*fd < 0)
        *fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return error_errno(error, errno, "opening /proc/self/pagemap");
    int r = by_scan(*fd, (uintptr_t)base, bytes, found, data);
    if (r == -ENOTTY || r == -EINVAL || r == -ENOSYS)
        r = by_entries(*fd, (uintptr_t)base, bytes, found, data);
    return r < 0 ? error_errno(error, -r, "reading which pages of the guest are private") : 0;
}

static bool set_range(void *data, uint64_t page, uint64_t count)
{
    uint64_t *bits = data;
    uint64_t end = page + count;
    for (uint64_t i = page; i < end;) {
        if (i % 64 == 0 && end - i >= 64) {
            bits[i / 64] = UINT64_MAX;
            i += 64;
        } else {
            bits[i / 64] |= (uint64_t)1 << (i % 64);
            i++;
        }
    }
    return true;
}

int pagemap_private(const void *base, uint64_t bytes, uint64_t *bits, struct thaw_error *error)
{
    _cleanup_close_ int fd = -1;
    return pagemap_find_private(&fd, base, bytes, set_range, bits, error);
}
