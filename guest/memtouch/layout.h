// SPDX-License-Identifier: Apache-2.0
// The memory image that memtouch works on, shared by the guest and the tool that makes it.
// Little-endian 64-bit words; everything a test needs to predict the guest's sums is here.
#ifndef GUEST_MEMTOUCH_LAYOUT_H
#define GUEST_MEMTOUCH_LAYOUT_H

#include <stdint.h>

/* The image is an array of 4096-byte pages. In page i:
 *   word 0  memtouch_mix(i, seed); never changes
 *   word 1  number of the last pass that wrote this page, at first 0
 *   rest    filler that zstd -1 shrinks to between a half and a third
 * except that page 0 also holds, in words 2 to 4, the magic number, the seed and the page count.
 *
 * The sum of pass P over pages 0 to n-1, in any order, modulo 2^64, is
 *   op=read   sum of word 0
 *   op=write  sum of word 0 and of word 1 as just written, that is the sum above plus n * P */
#define MEMTOUCH_PAGE_BYTES 4096u
#define MEMTOUCH_PAGE_WORDS 512u
#define MEMTOUCH_MAGIC      0x6863756f746d656du /* "memtouch" */

enum memtouch_word {
    MEMTOUCH_MIX,
    MEMTOUCH_PASS,
    MEMTOUCH_HEADER_MAGIC,
    MEMTOUCH_HEADER_SEED,
    MEMTOUCH_HEADER_PAGES,
    MEMTOUCH_FILLER
};

/* Differs from page to page, and by the same step each time, which keeps the guest's loop short. */
#define MEMTOUCH_MIX_STEP 0x9e3779b97f4a7c15u

static inline uint64_t memtouch_mix(uint64_t page, uint64_t seed)
{
    return (page + seed + 1) * MEMTOUCH_MIX_STEP;
}

#endif
