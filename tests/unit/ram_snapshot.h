/* SPDX-License-Identifier: Apache-2.0 */
/* Test support: a pack and an index of RAM, made by hand. Fails the test where anything fails. */
#ifndef TESTS_UNIT_RAM_SNAPSHOT_H
#define TESTS_UNIT_RAM_SNAPSHOT_H

#include "image.h"

#define RAM_SNAPSHOT_PACKS_MAX 2

struct ram_snapshot {
    char dir[32];
    uint64_t pages;
    unsigned frame_pages;
    struct pack_writer *writer;
    unsigned pack_count;
    struct wire_b16 pack_ids[RAM_SNAPSHOT_PACKS_MAX];
    struct index_extent *map; /* one a page */
};

void ram_snapshot_init(struct ram_snapshot *snapshot, uint64_t bytes, unsigned frame_pages);
void ram_snapshot_fini(struct ram_snapshot *snapshot);

/* Starts the next pack; the first is started by init. */
void ram_snapshot_next_pack(struct ram_snapshot *snapshot);

/* Adds a copy of a page to the pack, which the index does not map to it yet. Returns its pack page.
 */
uint64_t ram_snapshot_add(struct ram_snapshot *snapshot, uint64_t page, const void *bytes);
void ram_snapshot_map(struct ram_snapshot *snapshot, uint64_t page, unsigned pack, uint64_t at);

/* Adds and maps all pages of `ram` that are not zero. */
void ram_snapshot_add_all(struct ram_snapshot *snapshot, const uint8_t *ram);

/* Completes the current pack. */
void ram_snapshot_end_pack(struct ram_snapshot *snapshot);

/* Flips a bit in the stored bytes of a frame of pack 0. */
void ram_snapshot_damage(const struct ram_snapshot *snapshot, uint64_t frame);

/* The frame of pack 0 that holds a page. */
uint64_t ram_snapshot_frame_of(const struct ram_snapshot *snapshot, uint64_t page);

struct image *ram_snapshot_open(const struct ram_snapshot *snapshot);
struct image *ram_snapshot_open_with(
    const struct ram_snapshot *snapshot, const struct image_options *options);

/* All of the above: RAM to image. */
struct image *ram_snapshot_image(struct ram_snapshot *snapshot, const uint8_t *ram, uint64_t bytes);

#endif
