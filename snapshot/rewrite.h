/* SPDX-License-Identifier: Apache-2.0 */
/* Moves pages out of packs that a snapshot should no longer refer to, into the pack that is being
 * written. */
#ifndef SNAPSHOT_REWRITE_H
#define SNAPSHOT_REWRITE_H

#include "contents.h"
#include "job.h"

struct rewrite {
    struct thaw_job *job;        /* for progress and cancellation; may be NULL */
    const struct contents *from; /* has the packs */
    struct pack_writer *writer;
    struct wire_b16 own; /* the id of the pack that is being written */
    bool all;            /* every pack but that one is given up; else only those that are not worth
                            keeping: mostly dead, or too many */
};

/* Replaces *index by one that refers to fewer packs, if that should be. *index stays the caller's,
 * and on failure the same. */
int rewrite_space(
    const struct rewrite *rewrite, struct page_index **index, struct thaw_error *error);

#endif
