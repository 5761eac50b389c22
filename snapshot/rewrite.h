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
    bool all;            /* every pack but that one is given up; else only those of which the spaces
                            together keep too little, and the least of what is too many */
};

/* Replaces each of the snapshot's indexes, of which there are `count`, by one that refers to fewer
 * packs, if that should be. They stay the caller's, and those that were not replaced when it failed
 * are the same. */
int rewrite_spaces(const struct rewrite *rewrite, struct page_index **indexes, unsigned count,
    struct thaw_error *error);

#endif
