/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a shell out of a pool. */
#ifndef SNAPSHOT_POOL_H
#define SNAPSHOT_POOL_H

#include "vm.h"
#include <thaw/image.h>

/* A shell of the pool's shape, made now if none is ready. -EINVAL if the pool's shape is another.
 */
int pool_take(struct thaw_pool *pool, const char *name, const struct vm_shape *shape,
    struct thaw_vm **ret, struct thaw_error *error);

#endif
