// SPDX-License-Identifier: Apache-2.0
// Finds images of snapshots that are in use, and keeps some that are not. Reads no frame.

#include "image_cache.h"
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <thaw/image.h>

struct image_cache_entry {
    struct image_cache_entry *next;
    char id[MANIFEST_ID_BYTES];
    dev_t dev; /* of the snapshot's directory */
    ino_t ino;
    unsigned users;
    struct image *image; /* while there are users; theirs */
    int fd;              /* while there are none */
    uint64_t mem_bytes;
    uint64_t kept_bytes; /* that it takes up */
    uint64_t order;      /* of the last use */
};

struct image_cache {
    pthread_mutex_t lock; /* guards all below */
    uint64_t budget_bytes;
    struct image_cache_entry *entries;
    uint64_t uses;
    struct thaw_image_cache_info counts; /* hits, misses, evicted */
};

/* --- The environment's ------------------------------------------------------------------------ */

static void free_entry(struct image_cache_entry *entry)
{
    if (entry->fd >= 0)
        close(entry->fd);
    free(entry);
}

/* No image lives any more: each holds the environment. */
static void free_cache(void *data)
{
    struct image_cache *cache = data;
    while (cache->entries) {
        struct image_cache_entry *entry = cache->entries;
        cache->entries = entry->next;
        free_entry(entry);
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

struct image_cache *image_cache_of(struct thaw_env *env)
{
    if (env->image_budget_bytes == 0)
        return NULL;
    pthread_mutex_lock(&env->images_lock);
    if (!env->images) {
        struct image_cache *cache = calloc(1, sizeof(*cache));
        if (cache) {
            pthread_mutex_init(&cache->lock, NULL);
            cache->budget_bytes = env->image_budget_bytes;
        }
        env->images = cache;
        env->images_free = free_cache;
    }
    struct image_cache *cache = env->images;
    pthread_mutex_unlock(&env->images_lock);
    return cache;
}

int thaw_env_get_image_cache(thaw_env *env, struct thaw_image_cache_info *info)
{
    size_t bytes = info->size;
    if (bytes < sizeof(info->size))
        return -EINVAL;
    struct thaw_image_cache_info all = {0};
    struct image_cache *cache = image_cache_of(env);
    if (cache) {
        pthread_mutex_lock(&cache->lock);
        all = cache->counts;
        all.budget_bytes = cache->budget_bytes;
        for (const struct image_cache_entry *entry = cache->entries; entry; entry = entry->next) {
            if (entry->users > 0) {
                all.used++;
                continue;
            }
            all.kept++;
            all.kept_bytes += entry->kept_bytes;
        }
        pthread_mutex_unlock(&cache->lock);
    }
    all.size = bytes;
    memcpy(info, &all, MIN(bytes, sizeof(all)));
    return 0;
}

/* --- Entries ---------------------------------------------------------------------------------- */

static struct image_cache_entry *find_locked(
    struct image_cache *cache, const struct contents *contents)
{
    struct stat st;
    if (fstat(contents->snapshot->fd, &st) < 0)
        return NULL;
    struct image_cache_entry *entry = cache->entries;
    while (entry && (entry->dev != st.st_dev || entry->ino != st.st_ino ||
                        strcmp(entry->id, contents->snapshot->manifest.id) != 0))
        entry = entry->next;
    return entry;
}

static void remove_locked(struct image_cache *cache, struct image_cache_entry *entry)
{
    struct image_cache_entry **at = &cache->entries;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    free_entry(entry);
}

static bool has_bad_frames(struct image *image)
{
    struct image_info info;
    image_get_info(image, &info);
    return info.frames_bad > 0;
}

/* NULL if it can't be used again. */
static struct image *wake_locked(struct image_cache_entry *entry)
{
    if (entry->users > 0)
        return has_bad_frames(entry->image) ? NULL : image_ref(entry->image);
    struct image *image;
    if (image_adopt(entry->fd, entry->mem_bytes, &image, NULL) < 0)
        return NULL;
    close(entry->fd);
    entry->fd = -1;
    entry->image = image;
    return image;
}

struct image *image_cache_take(struct image_cache *cache, const struct contents *contents,
    struct image_cache_entry **ret_entry)
{
    pthread_mutex_lock(&cache->lock);
    struct image_cache_entry *entry = find_locked(cache, contents);
    struct image *image = entry ? wake_locked(entry) : NULL;
    if (image) {
        entry->users++;
        cache->counts.hits++;
        *ret_entry = entry;
    } else {
        cache->counts.misses++;
    }
    pthread_mutex_unlock(&cache->lock);
    return image;
}

struct image_cache_entry *image_cache_add(
    struct image_cache *cache, const struct contents *contents, struct image *image)
{
    struct stat st;
    struct image_cache_entry *entry = calloc(1, sizeof(*entry));
    if (!entry || fstat(contents->snapshot->fd, &st) < 0) {
        free(entry);
        return NULL;
    }
    *entry = (struct image_cache_entry){
        .dev = st.st_dev,
        .ino = st.st_ino,
        .users = 1,
        .image = image,
        .fd = -1,
        .mem_bytes = contents->snapshot->manifest.mem_bytes,
    };
    snprintf(entry->id, sizeof(entry->id), "%s", contents->snapshot->manifest.id);
    pthread_mutex_lock(&cache->lock);
    bool exists = find_locked(cache, contents) != NULL;
    if (!exists) {
        entry->next = cache->entries;
        cache->entries = entry;
    }
    pthread_mutex_unlock(&cache->lock);
    if (!exists)
        return entry;
    free(entry);
    return NULL;
}

/* --- The budget ------------------------------------------------------------------------------- */

static struct image_cache_entry *oldest_locked(const struct image_cache *cache, uint64_t *ret_bytes)
{
    struct image_cache_entry *oldest = NULL;
    *ret_bytes = 0;
    for (struct image_cache_entry *entry = cache->entries; entry; entry = entry->next) {
        if (entry->users > 0)
            continue;
        *ret_bytes += entry->kept_bytes;
        if (!oldest || entry->order < oldest->order)
            oldest = entry;
    }
    return oldest;
}

static void keep_within_budget_locked(struct image_cache *cache)
{
    uint64_t kept;
    struct image_cache_entry *oldest;
    while ((oldest = oldest_locked(cache, &kept)) && kept > cache->budget_bytes) {
        remove_locked(cache, oldest);
        cache->counts.evicted++;
    }
}

/* The entry keeps a descriptor instead of the image. */
static int put_to_sleep_locked(struct image_cache_entry *entry, int fd)
{
    struct stat st;
    entry->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (entry->fd < 0 || fstat(entry->fd, &st) < 0)
        return -1;
    entry->kept_bytes = (uint64_t)st.st_blocks * 512;
    entry->image = NULL;
    return 0;
}

void image_cache_give(struct image_cache *cache, struct image_cache_entry *entry)
{
    if (!entry)
        return;
    /* Sealing takes long; an image that is not complete is not kept. */
    int fd = image_fd(entry->image, NULL);
    pthread_mutex_lock(&cache->lock);
    entry->order = ++cache->uses;
    if (--entry->users == 0) {
        if (put_to_sleep_locked(entry, fd) < 0)
            remove_locked(cache, entry);
        else
            keep_within_budget_locked(cache);
    }
    pthread_mutex_unlock(&cache->lock);
}
