// SPDX-License-Identifier: Apache-2.0
// Where seqwrite keeps its pages and what must be true of them at every instant.
// Little-endian 64-bit words; shared by the guest and those who look at its memory from outside.
#ifndef GUEST_SEQWRITE_LAYOUT_H
#define GUEST_SEQWRITE_LAYOUT_H

/* At SEQWRITE_GPA lies the control page, then the ring, then the disk ring.
 *
 * Write s (1, 2, ...) goes to page s * stride % pages of the ring, `pages` being a power of two and
 * `stride` odd: first word LAST of the page becomes s, then word 0, then DONE of the control page.
 * So at any instant, each page of the ring holds in both words the number of the last write up to
 * DONE that went to it, 0 if there was none; but for the page of write DONE + 1, where one or both
 * may hold that already.
 *
 * Request d (1, 2, ...) reads block d % blocks of the disk, whose word 0 is that number plus 1,
 * into page d % disk pages of the disk ring. SUBMITTED counts them; all but the last SEQWRITE_DEPTH
 * are complete. */
#define SEQWRITE_GPA        0x800000u
#define SEQWRITE_PAGE_BYTES 4096u
#define SEQWRITE_PAGE_WORDS 512u
#define SEQWRITE_MAGIC      0x6574697277716573u /* "seqwrite" */
#define SEQWRITE_DEPTH      4u

enum seqwrite_control {
    SEQWRITE_CONTROL_MAGIC,
    SEQWRITE_PAGES,
    SEQWRITE_STRIDE,
    SEQWRITE_DONE,
    SEQWRITE_DISK_PAGES,
    SEQWRITE_DISK_BLOCKS,
    SEQWRITE_SUBMITTED,
};

enum seqwrite_word {
    SEQWRITE_FIRST = 0,
    SEQWRITE_LAST = SEQWRITE_PAGE_WORDS - 1,
};

#endif
