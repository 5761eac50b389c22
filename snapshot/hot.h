/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded working sets in the store: packs in <store>/hot/<id>, outside the snapshot that they
 * belong to and disposable. Their pack id follows from the snapshot, so that every check in them
 * fails for any other. Nothing that is wrong with one is more than a loss of time.
 */
#ifndef SNAPSHOT_HOT_H
#define SNAPSHOT_HOT_H

#include "contents.h"

/* The pack id that the working set of this snapshot has. */
struct wire_b16 hot_pack_id(const struct manifest *manifest);

/* Opens the working set of a snapshot. -ENOENT: there is none; otherwise errors as
 * pack_reader_open's. */
int hot_open(
    const struct store_snapshot *snapshot, struct pack_reader **ret, struct thaw_error *error);

/* Stores these pages of RAM, which have contents, as the working set, durably and in the place of
 * any before. `pages` is in the order in which they are needed, and changed. */
int hot_write(const struct contents *contents, uint32_t *pages, uint64_t count,
    struct pack_totals *ret, struct thaw_error *error);

#endif
