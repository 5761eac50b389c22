// SPDX-License-Identifier: Apache-2.0
// Opens a snapshot for restoring, once for all its clones. Makes no VM.

#include "opened.h"
#include "image_cache.h"
#include "options.h"
#include "working_set.h"
#include <string.h>

/* Of all packs that a snapshot refers to, so that it has no more. Being complete has a price: each
 * page without data that a clone touches takes a page of the image, too. */
#define SMALL_FRAMES_MAX 8

static void release_contents(void *data)
{
    contents_unref(data);
}

static int open_contents(struct thaw_image *image, struct thaw_store *store, const char *ref,
    const char *holder, const struct thaw_image_options *opt, opened_known_fn known,
    void *known_data, struct thaw_error *error)
{
    struct store_snapshot *snapshot;
    int r = store_get(store, ref, holder, &snapshot, error);
    if (r < 0)
        return r;
    if (known)
        known(known_data, &snapshot->manifest);
    if (opt->mode == THAW_RESTORE_LAZY && opt->memory_fd <= 0)
        working_set_start(image, snapshot, opt->flags);
    r = contents_open(snapshot, &image->contents, error);
    if (r < 0) {
        error_prefix(error, r, "snapshot %s", snapshot->manifest.name);
        store_put(snapshot);
    }
    return r;
}

static int open_state(struct thaw_image *image, struct thaw_error *error)
{
    const struct manifest *manifest = &image->contents->snapshot->manifest;
    int r = contents_read_state(image->contents, &image->state, error);
    if (r < 0)
        return r;
    if (image->state->vcpu_count != manifest->vcpu_count ||
        image->state->machine.disk_count != manifest->disk_count)
        return error_set(error, THAW_ECORRUPT,
            "the snapshot's state is not of the machine that its manifest describes");
    return 0;
}

/* And seals it, so that no restore has to; if that fails, who wants the descriptor tries again. */
static int fill_all(struct thaw_image *image, struct thaw_error *error)
{
    const struct image_fill_options all = {0};
    int r = image_fill_all(image->ram, &all, error);
    if (r == 0)
        (void)image_fd(image->ram, NULL);
    return r;
}

/* To wait for a page, once or twice, takes longer than to read so little whole. */
static bool is_small(const struct thaw_image *image, uint32_t flags)
{
    const struct contents_space *ram = &image->contents->spaces[SPACE_NUMBER_RAM];
    uint64_t frames = 0;
    if (image->prefetch || (flags & (THAW_IMAGE_NO_PREFETCH | THAW_IMAGE_RECORD)))
        return false;
    for (unsigned i = 0; i < page_index_pack_count(ram->index); i++)
        frames += pack_reader_frame_count(ram->packs[i]);
    return frames <= SMALL_FRAMES_MAX;
}

/* Fills it as asked. Without userfaultfd there is no filling by demand, so all is read first. */
static int open_memory(
    struct thaw_image *image, const struct thaw_image_options *opt, struct thaw_error *error)
{
    const struct contents_space *ram = &image->contents->spaces[SPACE_NUMBER_RAM];
    bool small = is_small(image, opt->flags), whole = small || opt->mode == THAW_RESTORE_EAGER;
    const struct image_options options = {
        .userfaultfd_fd = image->env->userfaultfd_fd,
        .no_faults = small,
        .release = release_contents,
        .release_data = image->contents,
    };
    if (opt->memory_fd > 0)
        return image_adopt(
            opt->memory_fd, image->contents->snapshot->manifest.mem_bytes, &image->ram, error);
    /* Who records wants to see each first touch: memory of its own. */
    struct image_cache *cache = opt->flags & THAW_IMAGE_RECORD ? NULL : image_cache_of(image->env);
    if (cache)
        image->ram = image_cache_take(cache, image->contents, &image->cached);
    int r = 0;
    /* Also of a working set that someone else has begun to read. */
    image->prefetch_async = opt->flags & (THAW_IMAGE_PREFETCH_ASYNC | THAW_IMAGE_NO_PREFETCH);
    if (image->ram) {
        image_prefetch_cancel(take_ptr(image->prefetch));
    } else {
        r = image_new(ram->index, ram->packs, &options, &image->ram, error);
        if (r < 0)
            return r;
        contents_ref(image->contents);
        if (!whole)
            r = working_set_begin(image, opt->flags, error);
        if (r == 0 && cache)
            image->cached = image_cache_add(cache, image->contents, image->ram);
    }
    return r == 0 && whole ? fill_all(image, error) : r;
}

static int check_options(const struct thaw_image_options *opt, struct thaw_error *error)
{
    const uint32_t known = THAW_IMAGE_NO_PREFETCH | THAW_IMAGE_PREFETCH_ASYNC | THAW_IMAGE_RECORD;
    if (opt->mode > THAW_RESTORE_EAGER || (opt->flags & ~known))
        return error_set(error, -EINVAL, "unknown restore mode %d or image flags 0x%x",
            (int)opt->mode, opt->flags);
    if ((opt->flags & THAW_IMAGE_RECORD) && (opt->mode == THAW_RESTORE_EAGER || opt->memory_fd > 0))
        return error_set(error, -EINVAL,
            "a working set is recorded while memory is read lazily: it cannot be there already");
    return 0;
}

int opened_open(struct thaw_env *env, struct thaw_store *store, const char *ref, const char *holder,
    const struct thaw_image_options *options, opened_known_fn known, void *known_data,
    struct thaw_image **ret, struct thaw_error *error)
{
    struct thaw_image_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_image_options", error);
    if (r == 0)
        r = check_options(&opt, error);
    if (r < 0)
        return r;
    struct thaw_image *image = calloc(1, sizeof(*image));
    if (!image)
        return error_errno(error, ENOMEM, "opening a snapshot");
    atomic_init(&image->references, 1);
    image->env = env_ref(env);
    r = open_contents(image, store, ref, holder, &opt, known, known_data, error);
    if (r == 0) {
        r = open_state(image, error);
        if (r == 0)
            r = open_memory(image, &opt, error);
        if (r < 0)
            error_prefix(error, r, "snapshot %s", image->contents->snapshot->manifest.name);
    }
    if (r < 0) {
        thaw_image_close(image);
        return r;
    }
    *ret = image;
    return 0;
}

int thaw_image_open(thaw_env *env, thaw_store *store, const char *ref, const char *holder,
    const struct thaw_image_options *options, thaw_image **ret, struct thaw_error *error)
{
    return opened_open(env, store, ref, holder, options, NULL, NULL, ret, error);
}

struct thaw_image *opened_ref(struct thaw_image *image)
{
    atomic_fetch_add(&image->references, 1);
    return image;
}

void thaw_image_close(thaw_image *image)
{
    if (!image || atomic_fetch_sub(&image->references, 1) > 1)
        return;
    image_prefetch_cancel(image->prefetch);
    if (image->cached)
        image_cache_give(image_cache_of(image->env), image->cached);
    image_unref(image->ram);
    vm_state_free(image->state);
    contents_unref(image->contents);
    env_unref(image->env);
    free(image);
}

int thaw_image_fill(thaw_image *image, struct thaw_error *error)
{
    return fill_all(image, error);
}

int thaw_image_get_info(thaw_image *image, struct thaw_image_info *info)
{
    size_t bytes = info->size;
    if (bytes < sizeof(info->size))
        return -EINVAL;
    struct image_info ram;
    image_get_info(image->ram, &ram);
    struct thaw_image_info all = {
        .size = bytes,
        .mem_bytes = ram.bytes,
        .vcpu_count = image->state->vcpu_count,
        .complete = ram.complete,
        .frames = ram.frames,
        .frames_present = ram.frames_present,
        .demand_pages = ram.demand_pages,
        .prefetched_pages = ram.prefetched_pages,
        .prefetch_ns = ram.prefetch_ns,
        .prefetch_wait_ns = ram.prefetch_wait_ns,
        .recorded_pages = ram.recorded_pages,
        .recording = ram.recording,
    };
    memcpy(info, &all, MIN(bytes, sizeof(all)));
    return 0;
}

int thaw_image_memory_fd(thaw_image *image, struct thaw_error *error)
{
    return image_fd(image->ram, error);
}
