// SPDX-License-Identifier: Apache-2.0
// Remembers which snapshots a VM came from and became. Takes and restores none.

#include "lineage.h"
#include "image.h"
#include <thaw/image.h>

static void lineage_free(void *data)
{
    struct lineage *lineage = data;
    image_detach(lineage->clone);
    thaw_image_close(lineage->image);
    contents_unref(lineage->base);
    contents_unref(lineage->origin);
    free(lineage->metadata);
    free(lineage);
}

struct lineage *lineage_of(struct thaw_vm *vm)
{
    if (!vm->attachment.data) {
        vm->attachment.data = calloc(1, sizeof(struct lineage));
        vm->attachment.free = lineage_free;
    }
    return vm->attachment.data;
}

void lineage_advance(
    struct lineage *lineage, struct contents *base, struct disk_layer *const layers[THAW_DISKS_MAX])
{
    contents_unref(lineage->base);
    lineage->base = base;
    for (size_t i = 0; i < THAW_DISKS_MAX; i++)
        lineage->base_layer[i] = base ? layers[i] : lineage->origin_layer[i];
}
