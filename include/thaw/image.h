/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring many times, fast. An image is a snapshot opened once: its state decoded, its memory (as
 * far as it was needed yet) decompressed and shared by all clones. A pool holds empty VMs, made in
 * advance, for clones to be put into.
 */
#ifndef THAW_IMAGE_H
#define THAW_IMAGE_H

#include <thaw/snapshot.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Images ----------------------------------------------------------------------------------- */

typedef struct thaw_image thaw_image;

struct thaw_image_options {
    size_t size;
    enum thaw_restore_mode mode; /* EAGER: all memory is read before this returns */
    int memory_fd; /* the memory of the same snapshot, complete, from another process's
                      thaw_image_memory_fd; 0: none. Duplicated */
};

/* Opens a snapshot for restoring. It cannot be deleted as long as the image or a clone of it
 * exists. holder is who to name when someone tries; NULL: only the process is named. options may be
 * NULL. On success *ret is owned by the caller. Errors as thaw_restore's. Any thread. */
THAW_API int thaw_image_open(thaw_env *env, thaw_store *store, const char *ref, const char *holder,
    const struct thaw_image_options *options, thaw_image **ret, struct thaw_error *error);

/* Gives the caller's reference back; clones keep what they need. NULL is allowed. Any thread. */
THAW_API void thaw_image_close(thaw_image *image);

/* Makes a new VM, PAUSED, from an image. options as for thaw_restore, but the mode is the image's.
 * Any thread, several at once. */
THAW_API int thaw_image_restore(thaw_image *image, const struct thaw_restore_options *options,
    thaw_vm **ret, struct thaw_error *error);

/* Reads all memory that is missing yet, and returns when the image is complete. */
THAW_API int thaw_image_fill(thaw_image *image, struct thaw_error *error);

struct thaw_image_info {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    uint64_t mem_bytes;
    uint32_t vcpu_count;
    uint32_t complete;       /* 1: all memory is there */
    uint64_t frames;         /* pieces of memory that the snapshot stores */
    uint64_t frames_present; /* of them, read so far */
};

THAW_API int thaw_image_get_info(thaw_image *image, struct thaw_image_info *info);

/* The memory of a complete image, sealed against any change, to be passed to other processes.
 * Borrowed. THAW_ESTATE if the image is not complete. */
THAW_API int thaw_image_memory_fd(thaw_image *image, struct thaw_error *error);

/* --- Pools ------------------------------------------------------------------------------------ */

typedef struct thaw_pool thaw_pool;

/* Empty VMs of one shape. */
struct thaw_pool_options {
    size_t size;
    uint32_t vcpu_count; /* 0: 1 */
    uint64_t mem_bytes;  /* 0: 128 MiB */
    uint32_t target;     /* how many to keep ready; 0: 1. At most THAW_POOL_TARGET_MAX */
};

#define THAW_POOL_TARGET_MAX 1024

/* Makes a pool, and starts to fill it in the background. VMs in it hold no byte and no mapping of
 * any snapshot. VMs that came from a pool are taken apart in the background as well: thaw_vm_free
 * stops them and returns, and what they hold (the snapshot, memory) is free a little later. */
THAW_API int thaw_pool_new(thaw_env *env, const struct thaw_pool_options *options, thaw_pool **ret,
    struct thaw_error *error);

/* Frees the pool and its VMs, and waits for those that are being taken apart. VMs that were taken
 * from it live on. NULL is allowed. */
THAW_API void thaw_pool_free(thaw_pool *pool);

/* Changes how many VMs are kept ready; those that are too many are freed. */
THAW_API int thaw_pool_set_target(thaw_pool *pool, uint32_t target, struct thaw_error *error);

/* Waits until as many are ready as shall be and nothing is being taken apart, at most timeout_ms
 * milliseconds (negative: for ever). Returns 0, -ETIMEDOUT, or why the last VM could not be made.
 */
THAW_API int thaw_pool_wait(thaw_pool *pool, int timeout_ms, struct thaw_error *error);

struct thaw_pool_info {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    uint32_t target;
    uint32_t ready;
    uint32_t leaving; /* VMs that are being taken apart */
    uint32_t reserved;
    uint64_t taken;  /* VMs that came from the pool */
    uint64_t missed; /* VMs that had to be made since none was ready */
};

THAW_API int thaw_pool_get_info(thaw_pool *pool, struct thaw_pool_info *info);

#ifdef __cplusplus
}
#endif
#endif
