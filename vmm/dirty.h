/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest RAM have changed since their marks were last taken away.
 *
 * A page has a mark if KVM's dirty log or this process's own bitmap has it. The log's bits are
 * initially set, so of pages whose mark was never taken those have changed that are private to this
 * VM (pagemap.h); whatever else is there is shared with an image, or was never touched. A page that
 * becomes private later gets a mark by what makes it so: a write.
 *
 * The caller gives the marks back if what it took them for fails.
 */
#ifndef VMM_DIRTY_H
#define VMM_DIRTY_H

#include "mem.h"

/* Has KVM keep dirty logs in the mode that this file relies on: read without clearing, and all bits
 * set initially. Before the memslots. */
int dirty_enable(int vm_fd, struct thaw_error *error);

/* Words of a bitmap of all pages. */
size_t dirty_bitmap_words(const struct mem *mem);

/* Stores the marks of all pages in `ret_bits` and takes them away. Any time: a write whose bytes a
 * read of the page after this does not see, whole, leaves a mark for the next time. All that was
 * written is marked only while no vCPU runs and no device writes. Allocates nothing. On failure no
 * mark is lost, and ret_bits is undefined. */
int dirty_take(struct mem *mem, int vm_fd, uint64_t *ret_bits, struct thaw_error *error);

/* Stores the marks of all pages in `ret_bits`, and leaves them. */
int dirty_peek(const struct mem *mem, int vm_fd, uint64_t *ret_bits, struct thaw_error *error);

/* Marks pages again. Any time. */
void dirty_put_back(struct mem *mem, const uint64_t *bits);

#endif
