/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a mapping are this process's own: written since it was mapped. */
#ifndef VMM_PAGEMAP_H
#define VMM_PAGEMAP_H

#include "error.h"

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
