/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The images of an environment: who opens a snapshot that is open already shares its memory, and
 * memory that nobody uses any more is kept for the next one, as far as the budget goes.
 *
 * What is kept is the memory alone, complete and sealed. The snapshot is not held by it, and may be
 * deleted; who opens it again does all but read its memory, which is found by the snapshot's id and
 * the identity of its directory.
 */
#ifndef SNAPSHOT_IMAGE_CACHE_H
#define SNAPSHOT_IMAGE_CACHE_H

#include "contents.h"
#include "env.h"
#include "image.h"

struct image_cache;
struct image_cache_entry;

/* The environment's, made if it has none. NULL: it has no budget, or there is no memory. */
struct image_cache *image_cache_of(struct thaw_env *env);

/* The snapshot's memory, a reference for the caller, and an entry to give back; NULL: it is not
 * there. */
struct image *image_cache_take(struct image_cache *cache, const struct contents *contents,
    struct image_cache_entry **ret_entry);

/* Offers the caller's image to others. NULL if there is one already: then it is the caller's alone.
 */
struct image_cache_entry *image_cache_add(
    struct image_cache *cache, const struct contents *contents, struct image *image);

/* The caller, who still has its reference to the image, uses the entry no more. NULL is allowed. */
void image_cache_give(struct image_cache *cache, struct image_cache_entry *entry);

#endif
