/* SPDX-License-Identifier: Apache-2.0 */
/* Working sets of opened snapshots: when they are recorded and when they are used. */
#ifndef SNAPSHOT_WORKING_SET_H
#define SNAPSHOT_WORKING_SET_H

#include "opened.h"

/* As early as possible, for an image that will fill lazily: starts to read the working set that was
 * recorded, if there is one, unless THAW_IMAGE_* flags say otherwise. */
void working_set_start(
    struct thaw_image *image, const struct store_snapshot *snapshot, uint32_t flags);

/* Once there is memory that fills lazily, which nobody else has yet: has it filled from what is
 * being read, or starts to record. Fails only where it was asked to record. */
int working_set_begin(struct thaw_image *image, uint32_t flags, struct thaw_error *error);

/* The THAW_IMAGE_* flags that belong to THAW_RESTORE_* ones. */
uint32_t working_set_flags(uint32_t restore_flags);

#endif
