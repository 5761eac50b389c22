/* SPDX-License-Identifier: Apache-2.0 */
/* Working sets of opened snapshots: when they are recorded and when they are used. */
#ifndef SNAPSHOT_WORKING_SET_H
#define SNAPSHOT_WORKING_SET_H

#include "opened.h"

/* For an image that fills lazily, and that nobody else has yet: starts to record its working set or
 * to read the one that was recorded, if there is one, as THAW_IMAGE_* say. Fails only where it was
 * asked to record. */
int working_set_begin(struct thaw_image *image, uint32_t flags, struct thaw_error *error);

/* The THAW_IMAGE_* flags that belong to THAW_RESTORE_* ones. */
uint32_t working_set_flags(uint32_t restore_flags);

#endif
