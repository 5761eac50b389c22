// SPDX-License-Identifier: Apache-2.0
// Brings images and recorded working sets together. Neither reads nor writes any pages itself.

#include "working_set.h"
#include "hot.h"
#include "lineage.h"
#include <string.h>

uint32_t working_set_flags(uint32_t restore_flags)
{
    uint32_t flags = 0;
    if (restore_flags & THAW_RESTORE_NO_PREFETCH)
        flags |= THAW_IMAGE_NO_PREFETCH;
    if (restore_flags & THAW_RESTORE_PREFETCH_ASYNC)
        flags |= THAW_IMAGE_PREFETCH_ASYNC;
    if (restore_flags & THAW_RESTORE_RECORD)
        flags |= THAW_IMAGE_RECORD;
    return flags;
}

void working_set_start(
    struct thaw_image *image, const struct store_snapshot *snapshot, uint32_t flags)
{
    struct pack_reader *hot;
    struct thaw_error why;
    if (flags & (THAW_IMAGE_RECORD | THAW_IMAGE_NO_PREFETCH))
        return;
    int r = hot_open(snapshot, &hot, &why);
    if (r == 0)
        image->prefetch = image_prefetch_start(hot);
    else if (r != -ENOENT)
        env_log(image->env, THAW_LOG_WARNING,
            "the recorded working set of snapshot %s is not used, which costs time only: %s",
            snapshot->manifest.name, why.message);
}

int working_set_begin(struct thaw_image *image, uint32_t flags, struct thaw_error *error)
{
    if (flags & THAW_IMAGE_RECORD)
        return image_record(image->ram, error);
    image_prefetch(image->ram, take_ptr(image->prefetch));
    return 0;
}

/* --- Recordings ------------------------------------------------------------------------------- */

static int store_recording(struct thaw_image *image, struct thaw_recording *ret,
    const struct image_recording *recording, struct thaw_error *error)
{
    struct pack_totals totals = {0};
    int r = recording->count > 0
                ? hot_write(image->contents, recording->pages, recording->count, &totals, error)
                : 0;
    if (r < 0 || !ret)
        return r;
    struct thaw_recording all = {
        .size = ret->size,
        .pages = totals.pages,
        .bytes = totals.file_bytes,
        .full = recording->full,
    };
    memcpy(ret, &all, MIN(ret->size, sizeof(all)));
    return 0;
}

int thaw_image_record_end(thaw_image *image, struct thaw_recording *ret, struct thaw_error *error)
{
    struct image_recording recording;
    if (ret && ret->size < sizeof(ret->size))
        return error_set(error, -EINVAL, "struct thaw_recording: size is not set");
    int r = image_record_end(image->ram, &recording, error);
    if (r < 0)
        return r;
    r = store_recording(image, ret, &recording, error);
    free(recording.pages);
    /* Without it what is missing still comes on demand. */
    image_read_ahead(image->ram, NULL);
    return r;
}

int thaw_vm_record_end(thaw_vm *vm, struct thaw_recording *ret, struct thaw_error *error)
{
    pthread_mutex_lock(&vm->api_lock);
    const struct lineage *lineage = vm->attachment.data;
    thaw_image *image = lineage && lineage->image ? opened_ref(lineage->image) : NULL;
    pthread_mutex_unlock(&vm->api_lock);
    if (!image)
        return error_set(error, THAW_ESTATE, "no working set is being recorded");
    int r = thaw_image_record_end(image, ret, error);
    thaw_image_close(image);
    return r;
}
