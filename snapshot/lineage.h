/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a running VM stands among snapshots: attached to the VM, and freed with it. The snapshots
 * it refers to are held, so they cannot be deleted while the VM lives.
 */
#ifndef SNAPSHOT_LINEAGE_H
#define SNAPSHOT_LINEAGE_H

#include "contents.h"
#include "vm.h"

struct image_clone;
struct thaw_image;

struct lineage {
    bool busy; /* a snapshot is being taken; guarded by the VM's api_lock */
    char template_name[MANIFEST_LABEL_BYTES];
    char *metadata;          /* NULL: none */
    struct contents *origin; /* what the VM was restored from; NULL: it was booted */
    struct contents
        *base; /* what a diff is relative to: the last snapshot, or the origin; NULL: none */
    /* Per disk, the layer above which is what changed since the base; NULL: all overlays. */
    struct disk_layer *base_layer[THAW_DISKS_MAX];
    struct disk_layer *origin_layer[THAW_DISKS_MAX];
    /* What gives a clone its memory, freed first; NULL: the VM was booted. */
    struct thaw_image *image;
    struct image_clone *clone;
};

/* The VM's lineage, made if it has none. NULL: no memory. The caller holds the VM's api_lock. */
struct lineage *lineage_of(struct thaw_vm *vm);

/* The snapshot that the VM was last saved as is `base` from now on, which becomes the lineage's;
 * NULL: there is none any more. layers: of each disk the highest that has blocks of that
 * instant. */
void lineage_advance(struct lineage *lineage, struct contents *base,
    struct disk_layer *const layers[THAW_DISKS_MAX]);

#endif
