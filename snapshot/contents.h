/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contents of a stored snapshot: its spaces (RAM, disks), where each page of them is, and the
 * packs that hold them. Opened once and shared by all that need it; immutable, but for the count of
 * references. Keeps the snapshot from being deleted while it exists.
 */
#ifndef SNAPSHOT_CONTENTS_H
#define SNAPSHOT_CONTENTS_H

#include "pack.h"
#include "page_index.h"
#include "store.h"
#include <thaw/vm.h>

#define CONTENTS_SPACES_MAX (1 + THAW_DISKS_MAX)

/* A space, and the reader of each pack of its index, by the pack's number there. */
struct contents_space {
    struct page_index *index;
    struct pack_reader *packs[INDEX_PACKS_MAX]; /* borrowed from the contents */
};

struct contents {
    struct store_snapshot *snapshot;
    unsigned space_count; /* RAM and disks: space 0, and 1 + k */
    struct contents_space spaces[CONTENTS_SPACES_MAX];
    struct pack_reader **packs; /* one each, owned */
    size_t pack_count;
    unsigned references;
};

/* Opens what a snapshot that is held consists of; `snapshot` is the contents' if this succeeds. All
 * but the frames themselves is checked. */
int contents_open(struct store_snapshot *snapshot, struct contents **ret, struct thaw_error *error);
struct contents *contents_ref(struct contents *contents);
void contents_unref(struct contents *contents);

/* The reader of a pack that some index of the snapshot refers to, borrowed; NULL: none does. */
struct pack_reader *contents_find_pack(const struct contents *contents, const struct wire_b16 *id);

/* The file of a space's index: "ram.index", "disk0.index". */
void contents_index_name(unsigned space, char *ret, size_t bytes);

/* "packs/" is not part of a pack's file name, which is its id in hexadecimal. */
void contents_pack_name(const struct wire_b16 *id, char ret[33]);

/* Reads and checks the saved state of the VM. */
struct vm_state;
int contents_read_state(
    const struct contents *contents, struct vm_state **ret, struct thaw_error *error);

/* The whole of a small file of the snapshot, whose size and digest the manifest must confirm.
 * *ret_bytes is malloced. */
int contents_read_file(const struct store_snapshot *snapshot, const char *name, size_t limit,
    uint8_t **ret_bytes, size_t *ret_count, struct thaw_error *error);

/* Reads pages one after the other, keeping the last frame. */
struct contents_cursor {
    const struct contents *contents;
    struct frame_scratch scratch;
    const struct pack_reader *pack; /* whose frame is in the scratch; NULL: none */
    uint64_t frame;
};

/* A pointer to the contents of a page whose extent is of kind DATA, valid until the next call. */
int contents_page(struct contents_cursor *cursor, const struct pack_reader *pack,
    uint64_t pack_page, const uint8_t **ret, struct thaw_error *error);
void contents_cursor_fini(struct contents_cursor *cursor);

#endif
