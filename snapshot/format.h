/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of snapshot files, and every limit. Nothing here does anything: wire.h turns the
 * tables into encoders and decoders, and the files named after each record check what they decode.
 * docs/format.md is the normative description and changes together with this header.
 */
#ifndef SNAPSHOT_FORMAT_H
#define SNAPSHOT_FORMAT_H

#include "wire.h"

/* Eight ASCII characters as the integer that they are when loaded. */
#define FORMAT_MAGIC(a, b, c, d, e, f, g, h)                                                       \
    ((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 |              \
        (uint64_t)(e) << 32 | (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)

/* --- The header of every file ----------------------------------------------------------------- */

/* The checksum is the last 8 bytes of the header, wherever header_bytes puts its end. These fields
 * and that rule hold for all majors, so that any version can tell what it cannot read. */
#define FILE_HEADER_FIELDS(FIELD)                                                                  \
    FIELD(u64, magic, 0)                                                                           \
    FIELD(u16, major, 8)                                                                           \
    FIELD(u16, minor, 10)                                                                          \
    FIELD(u32, header_bytes, 12)                                                                   \
    FIELD(u64, incompatible, 16)                                                                   \
    FIELD(u64, ignorable, 24)                                                                      \
    FIELD(b16, id, 32)                                                                             \
    FIELD(u8, page_shift, 48) /* 0 in files without pages */                                       \
    FIELD(u8, reserved0, 49)                                                                       \
    FIELD(u16, frame_pages, 50) /* packs only */                                                   \
    FIELD(u32, reserved1, 52)

#define FILE_HEADER_FIELD_BYTES    56
#define FILE_HEADER_CHECKSUM_BYTES 8
#define FILE_HEADER_BYTES          64 /* what this version writes */
#define FILE_HEADER_BYTES_MAX      4096

WIRE_RECORD(file_header, FILE_HEADER_FIELD_BYTES, FILE_HEADER_FIELDS);

#define FORMAT_PAGE_SHIFT   12
#define FORMAT_PAGE_BYTES   (1u << FORMAT_PAGE_SHIFT)

#define FORMAT_MAGIC_PACK   FORMAT_MAGIC('T', 'H', 'A', 'W', 'p', 'a', 'c', 'k')
#define FORMAT_MAGIC_INDEX  FORMAT_MAGIC('T', 'H', 'A', 'W', 'i', 'n', 'd', 'x')
#define FORMAT_MAGIC_STATE  FORMAT_MAGIC('T', 'H', 'A', 'W', 's', 't', 'a', 't')
#define FORMAT_MAGIC_FOOTER FORMAT_MAGIC('T', 'H', 'A', 'W', 'p', 'e', 'n', 'd')

#define PACK_MAJOR          1
#define PACK_MINOR          0
#define INDEX_MAJOR         1
#define INDEX_MINOR         0
#define STATE_MAJOR         1
#define STATE_MINOR         0

/* Incompatible features. Names are given away early, so that a version that cannot read a file can
 * at least say why. */
#define PACK_INCOMPAT_DICTIONARY (1ull << 0) /* some frame has a dictionary id */
#define PACK_INCOMPAT_ENCRYPTED  (1ull << 1) /* some frame has a key id */
#define PACK_INCOMPAT_SUPPORTED  0ull
#define INDEX_INCOMPAT_SUPPORTED 0ull
#define STATE_INCOMPAT_SUPPORTED 0ull

/* --- Spaces ----------------------------------------------------------------------------------- */

#define SPACE_NUMBER_RAM  0 /* disk k is space 1 + k */
#define SPACE_NUMBER_MAX  255
#define SPACE_PAGES_MAX   (1ull << 36)
#define SPACE_REGIONS_MAX 16

#define SPACE_KIND_RAM    1
#define SPACE_KIND_DISK   2

/* A slot names the page it holds: space number above, page number below. */
#define SLOT_PAGE_BITS    56
#define SLOT_BYTES        8
#define SLOT(space, page) ((uint64_t)(space) << SLOT_PAGE_BITS | (page))
#define SLOT_SPACE(slot)  ((uint8_t)((slot) >> SLOT_PAGE_BITS))
#define SLOT_PAGE(slot)   ((slot) & ((1ull << SLOT_PAGE_BITS) - 1))

/* --- Packs: header, frames, frame table, slot table, footer ----------------------------------- */

#define FRAME_PAGES_DEFAULT 16
#define FRAME_PAGES_MAX     256
#define FRAME_RAW_BYTES_MAX (FRAME_PAGES_MAX * FORMAT_PAGE_BYTES)
#define PACK_PAGES_MAX      (1ull << 31) /* 8 TiB */

/* What is written as a working set; readers take any. */
#define HOT_FRAME_PAGES  64
#define HOT_WINDOW_PAGES 16384 /* within so many, pages are in order of their number */

#define FRAME_CODEC_RAW  0
#define FRAME_CODEC_ZSTD 1

#define FRAME_ENTRY_FIELDS(FIELD)                                                                  \
    FIELD(u64, file_off, 0)                                                                        \
    FIELD(u32, stored_bytes, 8)                                                                    \
    FIELD(u32, raw_bytes, 12)                                                                      \
    FIELD(u8, codec, 16)                                                                           \
    FIELD(u8, reserved0, 17)                                                                       \
    FIELD(u16, slots, 18)                                                                          \
    FIELD(u32, dictionary_id, 20)                                                                  \
    FIELD(u32, key_id, 24)                                                                         \
    FIELD(u32, reserved1, 28)                                                                      \
    FIELD(u64, first_slot, 32)                                                                     \
    FIELD(u64, reserved2, 40)                                                                      \
    FIELD(b16, check, 48)

#define FRAME_ENTRY_BYTES 64
WIRE_RECORD(frame_entry, FRAME_ENTRY_BYTES, FRAME_ENTRY_FIELDS);

/* What a frame's check covers besides the stored bytes: the context of its check128. */
#define FRAME_SEED_FIELDS(FIELD)                                                                   \
    FIELD(b16, pack_id, 0)                                                                         \
    FIELD(u64, frame, 16)                                                                          \
    FIELD(u32, stored_bytes, 24)                                                                   \
    FIELD(u32, raw_bytes, 28)                                                                      \
    FIELD(u8, codec, 32)                                                                           \
    FIELD(u8, reserved0, 33)                                                                       \
    FIELD(u16, slots, 34)                                                                          \
    FIELD(u32, dictionary_id, 36)                                                                  \
    FIELD(u32, key_id, 40)                                                                         \
    FIELD(u32, reserved1, 44)

#define FRAME_SEED_BYTES 48
WIRE_RECORD(frame_seed, FRAME_SEED_BYTES, FRAME_SEED_FIELDS);

#define PACK_FOOTER_FIELDS(FIELD)                                                                  \
    FIELD(u64, magic, 0)                                                                           \
    FIELD(b16, pack_id, 8)                                                                         \
    FIELD(u64, table_off, 24)                                                                      \
    FIELD(u32, frame_count, 32)                                                                    \
    FIELD(u32, slot_count, 36)                                                                     \
    FIELD(b16, table_check, 40)                                                                    \
    FIELD(u64, checksum, 56)

#define PACK_FOOTER_BYTES         64
#define PACK_FOOTER_CHECKED_BYTES 56
WIRE_RECORD(pack_footer, PACK_FOOTER_BYTES, PACK_FOOTER_FIELDS);

/* --- Page indexes: header, descriptor, regions, pack ids, extents, check ---------------------- */

#define INDEX_PACKS_MAX        64
#define INDEX_EXTENTS_MAX      (1u << 26)
#define INDEX_EXTENT_PAGES_MAX UINT32_MAX
#define INDEX_PACK_ID_BYTES    16
#define INDEX_CHECK_BYTES      16

#define INDEX_SPACE_FIELDS(FIELD)                                                                  \
    FIELD(u8, number, 0)                                                                           \
    FIELD(u8, kind, 1)                                                                             \
    FIELD(u16, reserved0, 2)                                                                       \
    FIELD(u32, region_count, 4)                                                                    \
    FIELD(u64, page_count, 8)                                                                      \
    FIELD(u32, pack_count, 16)                                                                     \
    FIELD(u32, extent_count, 20)                                                                   \
    FIELD(u64, reserved1, 24)

#define INDEX_SPACE_BYTES 32
WIRE_RECORD(index_space, INDEX_SPACE_BYTES, INDEX_SPACE_FIELDS);

/* Where a run of the space's pages lies in the guest's physical addresses. */
#define INDEX_REGION_FIELDS(FIELD)                                                                 \
    FIELD(u64, gpa, 0)                                                                             \
    FIELD(u64, page_count, 8)                                                                      \
    FIELD(u64, page, 16)

#define INDEX_REGION_BYTES 24
WIRE_RECORD(index_region, INDEX_REGION_BYTES, INDEX_REGION_FIELDS);

#define EXTENT_UNSPECIFIED 0 /* a disk: the base image's page; RAM: never touched, so zero */
#define EXTENT_ZERO        1
#define EXTENT_DATA        2

/* Pages [page, page + count) are pack pages [pack_page, pack_page + count) of pack `pack` of the
 * index's pack table, if the kind is DATA; otherwise pack and pack_page are 0. */
#define INDEX_EXTENT_FIELDS(FIELD)                                                                 \
    FIELD(u64, page, 0)                                                                            \
    FIELD(u64, pack_page, 8)                                                                       \
    FIELD(u32, count, 16)                                                                          \
    FIELD(u16, pack, 20)                                                                           \
    FIELD(u16, kind, 22)

/* The one array that is used as it lies in the file: struct and record agree byte for byte. */
#define INDEX_EXTENT_BYTES 24
WIRE_RECORD(index_extent, INDEX_EXTENT_BYTES, INDEX_EXTENT_FIELDS);
_Static_assert(sizeof(struct index_extent) == INDEX_EXTENT_BYTES, "used in place");
_Static_assert(offsetof(struct index_extent, kind) == 22, "used in place");

#endif
