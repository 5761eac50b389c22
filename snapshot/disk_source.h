/* SPDX-License-Identifier: Apache-2.0 */
/* A disk layer whose blocks are a stored snapshot's: nothing is copied when a disk is restored. */
#ifndef SNAPSHOT_DISK_SOURCE_H
#define SNAPSHOT_DISK_SOURCE_H

#include "contents.h"
#include "disk_layer.h"

/* Makes the layer of disk `disk` above `base`, the base image's. On success both are one stack, and
 * the layer keeps a reference to the contents. */
int disk_source_new(struct contents *contents, unsigned disk, struct disk_layer *base,
    struct disk_layer **ret, struct thaw_error *error);

#endif
