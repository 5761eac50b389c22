/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a mapping are this process's own: written since it was mapped. */
#ifndef VMM_PAGEMAP_H
#define VMM_PAGEMAP_H

#include "error.h"
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

/* Told of pages [page, page + count) that are private, in order. False: that is enough. */
typedef bool (*pagemap_run_fn)(void *data, uint64_t page, uint64_t count);

/* Finds the pages of [base, base + bytes) that are private: in memory or swapped out, not a page of
 * the mapped file, and not the shared page of zeros. Faults nothing in. base is page-aligned.
 *
 * *fd is the caller's, to be kept for the next time and closed in the end, since opening the page
 * map takes as long as a small scan; -1: it is not open yet. */
int pagemap_find_private(int *fd, const void *base, uint64_t bytes, pagemap_run_fn found,
    void *data, struct thaw_error *error);

/* The same, once: sets bit n of `bits` for each private page n. Other bits are left as they are. */
int pagemap_private(const void *base, uint64_t bytes, uint64_t *bits, struct thaw_error *error);

#endif
