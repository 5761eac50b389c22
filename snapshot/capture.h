/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a snapshot job: what its parts share. */
#ifndef SNAPSHOT_CAPTURE_H
#define SNAPSHOT_CAPTURE_H

#include "job.h"
#include "lineage.h"
#include "vm_state.h"

struct capture {
    struct thaw_vm *vm;
    struct thaw_store *store;
    struct lineage *lineage;
    uint32_t flags;
    int level;
    uint32_t threads;
    char *metadata;                  /* NULL: none */
    struct store_creation *creation; /* NULL: committed or given up */
    struct thaw_snapshot_result result;
    uint64_t begin_ns; /* of the call */

    struct contents *from; /* what the rest is taken from: base or origin; NULL: nothing is */
    bool diff;
    struct wire_b16 pack_id;
    struct pack_writer *writer;
    struct vm_state *state;
    struct capture_memory *memory; /* NULL: not begun */
    bool kept_from_running;        /* for KILL: to be resumed if it comes to nothing */
    /* To be pushed; NULL: read-only, or pushed. One that turns out not to be needed stays. */
    struct disk_overlay *overlays[THAW_DISKS_MAX];
    struct disk_layer *frozen[THAW_DISKS_MAX]; /* the highest with blocks of the instant */
    unsigned disk_count;
    struct page_index *indexes[CONTENTS_SPACES_MAX];
    struct pack_totals totals;
};

/* Builds the index of a disk from its frozen layers, adding blocks to the pack. */
int capture_disk(
    struct capture *capture, struct thaw_job *job, unsigned disk, struct thaw_error *error);

/* Says in the manifest what VM it is of. *ret is freed with manifest_fini. */
int capture_describe(struct capture *capture, struct manifest *ret, struct thaw_error *error);

/* Writes the state and the indexes, links the packs that are kept, lists all files in the manifest,
 * and publishes the snapshot. The pack is finished. */
int capture_publish(struct capture *capture, struct manifest *manifest, struct thaw_error *error);

/* A job's data that is a capture: what thaw_job_get_snapshot reports of. */
extern const struct job_ops capture_snapshot_ops, capture_flatten_ops;
void capture_free(void *data);

/* Draws an id for a pack or a space. */
int capture_random_id(struct wire_b16 *ret, struct thaw_error *error);

#endif
