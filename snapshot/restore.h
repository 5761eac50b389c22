/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM that was restored keeps of that: the memory of its lineage. */
#ifndef SNAPSHOT_RESTORE_H
#define SNAPSHOT_RESTORE_H

#include "opened.h"

struct clone_memory {
    struct thaw_image *image;
    struct image_clone *clone;
};

#endif
