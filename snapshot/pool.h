/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a shell out of a pool. */
#ifndef SNAPSHOT_POOL_H
#define SNAPSHOT_POOL_H

#include "vm.h"
#include <thaw/image.h>

/* Takes a shell; NULL if none is ready. -EINVAL if the pool's shape is another. pool_refill comes
 * when it has been put to use, or not: waking a thread costs time. */
int pool_take(struct thaw_pool *pool, const char *name, const struct vm_shape *shape,
    struct thaw_vm **ret, struct thaw_error *error);

/* Lets the pool make as many as were taken. */
void pool_refill(struct thaw_pool *pool);

/* A VM that was made since none was ready: the pool takes it apart, as it does its own. */
void pool_adopt(struct thaw_pool *pool, struct thaw_vm *vm);

#endif
