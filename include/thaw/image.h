/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring many times, fast. An image is a snapshot opened once: its state decoded, its memory (as
 * far as it was needed yet) decompressed and shared by all clones. A pool holds empty VMs, made in
 * advance, for clones to be put into.
 *
 * Threads: all calls may come from any thread, also at the same time on one image or one pool,
 * except thaw_image_close and thaw_pool_free, which must be the last on theirs.
 */
#ifndef THAW_IMAGE_H
#define THAW_IMAGE_H

#include <thaw/snapshot.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Images ----------------------------------------------------------------------------------- */

typedef struct thaw_image thaw_image;

/* If the snapshot has a recorded working set, opening it lazily starts to read that, and the first
 * restore waits until it is there, which takes less time than to read it as it is touched. These
 * change that. */

/* The working set is not used. Nothing is read before the first restore, however small the memory
 * is. */
#define THAW_IMAGE_NO_PREFETCH 1u
/* No restore waits; a page touched before its turn is read at once. */
#define THAW_IMAGE_PREFETCH_ASYNC 2u
/* Records a working set, see thaw_image_record_end: neither reads one nor ahead. */
#define THAW_IMAGE_RECORD 4u

struct thaw_image_options {
    size_t size;
    enum thaw_restore_mode mode; /* EAGER: all memory is read before this returns */
    int memory_fd;  /* the memory of the same snapshot, complete, from another process's
                       thaw_image_memory_fd; 0: none. Duplicated. It must be sealed and of the right
                       size (-EINVAL); what is in it is not checked against the snapshot, so
                       accept it only from someone you trust with the guest */
    uint32_t flags; /* THAW_IMAGE_*. RECORD neither with EAGER nor with memory_fd */
};

/* Opens a snapshot for restoring. It cannot be deleted as long as the image or a clone of it
 * exists. holder is who to name when someone tries; NULL: only the process is named. options may be
 * NULL. On success *ret is owned by the caller. Errors as thaw_restore's. Any thread. */
THAW_API int thaw_image_open(thaw_env *env, thaw_store *store, const char *ref, const char *holder,
    const struct thaw_image_options *options, thaw_image **ret, struct thaw_error *error);

/* Gives the caller's reference back; clones keep what they need. NULL is allowed. Any thread. */
THAW_API void thaw_image_close(thaw_image *image);

/* Makes a new VM, PAUSED or, with THAW_RESTORE_RESUME, RUNNING, from an image. options as for
 * thaw_restore, but the mode is the image's. Any thread, several at once. Errors as thaw_restore's,
 * but for those of `ref`. */
THAW_API int thaw_image_restore(thaw_image *image, const struct thaw_restore_options *options,
    thaw_vm **ret, struct thaw_error *error);

/* Reads all memory that is still missing, and returns when the image is complete. Errors:
 * THAW_ECORRUPT, -ENOMEM, -errno. */
THAW_API int thaw_image_fill(thaw_image *image, struct thaw_error *error);

struct thaw_image_info {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    uint64_t mem_bytes;
    uint32_t vcpu_count;
    uint32_t complete;         /* 1: all memory is there */
    uint64_t frames;           /* pieces of memory that the snapshot stores */
    uint64_t frames_present;   /* of them, read so far */
    uint64_t demand_pages;     /* read because a guest or a device needed one of their piece */
    uint64_t prefetched_pages; /* that came from the recorded working set */
    uint64_t prefetch_ns;      /* from opening until all of it was there; 0: none, or not yet */
    uint64_t prefetch_wait_ns; /* of this, how long a restore waited for it: the longest */
    uint64_t recorded_pages;   /* so far */
    uint32_t recording;        /* 1: what is touched is being recorded */
    uint32_t reserved;
};

/* Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_image_get_info(thaw_image *image, struct thaw_image_info *info);

/* The memory of a complete image, sealed against any change, to be passed to other processes.
 * Borrowed. THAW_ESTATE if the image is not complete. */
THAW_API int thaw_image_memory_fd(thaw_image *image, struct thaw_error *error);

/* The same of the image that a VM was restored from. THAW_ESTATE also if the VM was booted. Any
 * thread. Borrowed: it is open as long as the VM lives. */
THAW_API int thaw_vm_memory_fd(thaw_vm *vm, struct thaw_error *error);

/* With thaw_env_options.image_budget_bytes, an environment remembers images. Who opens a snapshot,
 * thaw_restore included, that is open in the same environment shares its memory. When nobody uses
 * it any more, memory that is complete is kept, the most recently used first, as far as the
 * budget goes; memory in use is never given up, and does not count. What is kept does not hold the
 * snapshot, which can be deleted. Options with a memory_fd pass all this by. */
struct thaw_image_cache_info {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    uint64_t budget_bytes;
    uint64_t kept_bytes; /* of memory that nobody uses */
    uint32_t kept;       /* of how many snapshots */
    uint32_t used;       /* snapshots whose memory is in use */
    uint64_t hits;       /* how often memory was there already */
    uint64_t misses;     /* and how often not */
    uint64_t evicted;    /* given up for the budget */
};

/* Any thread. Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_env_get_image_cache(thaw_env *env, struct thaw_image_cache_info *info);

/* --- Working sets ----------------------------------------------------------------------------- */

/* What a recording came to. */
struct thaw_recording {
    size_t size;    /* set by the caller; fields that lie beyond it are not written */
    uint64_t pages; /* of 4 KiB; 0: nothing was stored */
    uint64_t bytes; /* of its file */
    uint32_t full;  /* 1: more than half of the memory was touched, and not all of it recorded */
    uint32_t reserved;
};

/* Ends the recording of an image that was opened with THAW_IMAGE_RECORD: stores which pages its
 * clones have touched so far, in that order and as the snapshot has them, and starts to read ahead.
 * Clones may run meanwhile. Later restores of the snapshot, by whoever uses the store, read the
 * working set first. It takes the place of any before, goes with the snapshot, and is nothing but
 * advice: one that is damaged, or of other pages than the guest will need, costs time only. ret may
 * be NULL. THAW_ESTATE if nothing is being recorded; -errno if it can't be stored, and then a
 * working set that was there before stays. Any thread. */
THAW_API int thaw_image_record_end(
    thaw_image *image, struct thaw_recording *ret, struct thaw_error *error);

/* The same for a VM that thaw_restore made with THAW_RESTORE_RECORD, or thaw_image_restore from
 * such an image. It may have ended. */
THAW_API int thaw_vm_record_end(thaw_vm *vm, struct thaw_recording *ret, struct thaw_error *error);

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

/* Makes a pool with one VM, and starts to fill it in the background. VMs in it hold no byte and no
 * mapping of any snapshot. VMs that came from a pool are taken apart in the background as well:
 * thaw_vm_free stops them and returns, and what they hold (the snapshot, memory) is free a little
 * later. Errors: -EINVAL (an option, or a shape that cannot be), THAW_EHOST, -ENOMEM, -errno. */
THAW_API int thaw_pool_new(thaw_env *env, const struct thaw_pool_options *options, thaw_pool **ret,
    struct thaw_error *error);

/* Frees the pool and its VMs, and waits for those that are being taken apart. VMs that were taken
 * from it live on. NULL is allowed. */
THAW_API void thaw_pool_free(thaw_pool *pool);

/* Changes how many VMs are kept ready; surplus VMs are freed. 0: none. -EINVAL if the
 * target is above THAW_POOL_TARGET_MAX. */
THAW_API int thaw_pool_set_target(thaw_pool *pool, uint32_t target, struct thaw_error *error);

/* Waits until the target number is ready and nothing is being taken apart, at most timeout_ms
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

/* Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_pool_get_info(thaw_pool *pool, struct thaw_pool_info *info);

#ifdef __cplusplus
}
#endif
#endif
