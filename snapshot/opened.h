/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of thaw_image: all that restoring needs of a snapshot, opened once for any number of
 * clones. Immutable, but for the image that fills and the counts. */
#ifndef SNAPSHOT_OPENED_H
#define SNAPSHOT_OPENED_H

#include "contents.h"
#include "env.h"
#include "image.h"
#include "image_cache.h"
#include "vm_state.h"
#include <stdatomic.h>
#include <thaw/image.h>

struct thaw_image {
    atomic_uint references;
    struct thaw_env *env;
    struct contents *contents;
    struct vm_state *state;
    struct image *ram;
    struct image_cache_entry *cached; /* NULL: the memory is this image's alone */
    atomic_bool host_checked;         /* this host has what the guest needs */
    struct prefetch *prefetch;        /* until `ram` has it */
    bool prefetch_async;              /* restores do not wait for the working set */
};

struct thaw_image *opened_ref(struct thaw_image *image);

/* Called as soon as it is known what the snapshot is of, on the caller's thread. */
typedef void (*opened_known_fn)(void *data, const struct manifest *manifest);

/* thaw_image_open; `known` may be NULL. */
int opened_open(struct thaw_env *env, struct thaw_store *store, const char *ref, const char *holder,
    const struct thaw_image_options *options, opened_known_fn known, void *known_data,
    struct thaw_image **ret, struct thaw_error *error);

#endif
