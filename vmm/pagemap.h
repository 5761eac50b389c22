/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a mapping are this process's own: written since it was mapped. */
#ifndef VMM_PAGEMAP_H
#define VMM_PAGEMAP_H

#include "error.h"

/* Sets bit n of `bits` for each page n of [base, base + bytes) that is private: in memory or
 * swapped out, not a page of the mapped file, and not the shared page of zeros. Other bits are left
 * as they are. Faults nothing in. base is page-aligned. */
int pagemap_private(const void *base, uint64_t bytes, uint64_t *bits, struct thaw_error *error);

#endif
