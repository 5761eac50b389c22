/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest RAM have changed since they were last collected.
 *
 * A page is dirty if it is private to this VM (whatever else is there is shared with an image, or
 * was never touched) and either KVM's dirty log or this process's own bitmap has it. With the log's
 * bits initially set, a page that was never collected counts as changed as soon as it is private,
 * so the first collection finds all that differs from the image or from zero, and no case is
 * special.
 *
 * Collecting takes the marks away; the caller gives them back if what it collected them for fails.
 */
#ifndef VMM_DIRTY_H
#define VMM_DIRTY_H

#include "mem.h"

/* Has KVM keep dirty logs in the mode that this file relies on: read without clearing, and all bits
 * set initially. Before the memslots. */
int dirty_enable(int vm_fd, struct thaw_error *error);

/* Words of a bitmap of all pages. */
size_t dirty_bitmap_words(const struct mem *mem);

/* Sets the bits of all dirty pages in `bits`, which is all zero, and takes their marks away. Exact
 * while no vCPU runs and no device writes. On failure no mark is lost. */
int dirty_collect(struct mem *mem, int vm_fd, uint64_t *bits, struct thaw_error *error);

/* Marks pages again. Any time. */
void dirty_put_back(struct mem *mem, const uint64_t *bits);

#endif
