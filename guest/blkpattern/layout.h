// SPDX-License-Identifier: Apache-2.0
// What blkpattern writes to the disk, so that a test can check the disk file by itself.
// Block here is 4096 bytes, sector 512 bytes, word 64 bits little-endian.
#ifndef GUEST_BLKPATTERN_LAYOUT_H
#define GUEST_BLKPATTERN_LAYOUT_H

#include <stdint.h>

/* Pattern block i is disk block i * stride. In each of its eight sectors:
 *   first word  blkpattern_word(sector number on the disk, generation)
 *   last word   the first word plus 1
 *   the rest    zero
 * Only these two words are checked: every word more costs a microsecond under an emulating KVM.
 *
 * The sum that is printed is that of the first and last words of all sectors of all pattern blocks,
 * modulo 2^64, as they were read. For a read-only disk it is that of whatever is there. */
#define BLKPATTERN_BLOCK_SECTORS 8u
#define BLKPATTERN_SECTOR_WORDS  64u
#define BLKPATTERN_BLOCK_WORDS   512u

static inline uint64_t blkpattern_word(uint64_t sector, uint64_t generation)
{
    return (sector + 1) * 0x9e3779b97f4a7c15u + generation * 0xd1342543de82ef95u;
}

#endif
