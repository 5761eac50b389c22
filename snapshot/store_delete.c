// SPDX-License-Identifier: Apache-2.0
// How a snapshot goes: out of sight first, then its name, then its data. Each step can be the last
// that happens; recovery goes on from there.

#include "store_internal.h"
#include <fcntl.h>
#include <string.h>

struct name_walk {
    const struct thaw_store *store;
    const char *id;
    bool found;
};

/* 1, 0 or -errno. What is not a symlink to an id refers to nothing. */
static int refers_to(const struct name_walk *walk, const char *name)
{
    char target[MANIFEST_ID_BYTES];
    int r = fs_read_link(walk->store->places[STORE_NAMES], name, target, sizeof(target));
    if (r == -ENOENT || r == -EINVAL || r == -ENAMETOOLONG)
        return 0;
    return r < 0 ? r : strcmp(target, walk->id) == 0;
}

static int find_name(void *data, const char *name)
{
    struct name_walk *walk = data;
    int r = refers_to(walk, name);
    walk->found = walk->found || r > 0;
    return r;
}

int store_has_name(const struct thaw_store *store, const char *id)
{
    struct name_walk walk = {.store = store, .id = id};
    int r = fs_each(store->places[STORE_NAMES], find_name, &walk);
    return r < 0 ? r : walk.found;
}

static int release_name(void *data, const char *name)
{
    struct name_walk *walk = data;
    int r = refers_to(walk, name);
    if (r <= 0)
        return r;
    walk->found = true;
    return unlinkat(walk->store->places[STORE_NAMES], name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int store_release_names(const struct thaw_store *store, const char *id)
{
    struct name_walk walk = {.store = store, .id = id};
    int r = fs_each(store->places[STORE_NAMES], release_name, &walk);
    return r == 0 && walk.found ? fs_sync(store->places[STORE_NAMES]) : r;
}

static int remove_hot(void *data, const char *name)
{
    const struct name_walk *walk = data;
    if (strncmp(name, walk->id, MANIFEST_ID_CHARS) != 0 ||
        (name[MANIFEST_ID_CHARS] != '\0' && name[MANIFEST_ID_CHARS] != '.'))
        return 0;
    int r = unlinkat(walk->store->places[STORE_HOT], name, 0) < 0 ? -errno : 0;
    return r == -ENOENT || r == -EISDIR ? 0 : r;
}

int store_empty_trash(const struct thaw_store *store, const char *id, int fd)
{
    struct name_walk walk = {.store = store, .id = id};
    uint32_t ignored = 0;
    int r = fs_each(store->places[STORE_HOT], remove_hot, &walk);
    if (r == 0)
        r = store_sweep_users(store, id, &ignored);
    return r < 0 ? r : fs_remove_dir(store->places[STORE_TRASH], id, fd);
}

static int refuse_busy(const struct thaw_store *store, const char *ref, const char *id, int fd,
    struct thaw_error *error)
{
    char users[THAW_ERROR_MESSAGE_BYTES - 128];
    store_describe_users(store, id, fd, users, sizeof(users));
    return error_set(error, -EBUSY, "snapshot %s is in use by %s", ref, users);
}

/* Opens the directory and takes its exclusive lock. */
static int claim(const struct thaw_store *store, const char *ref, const struct store_location *at,
    int *ret_fd, struct thaw_error *error)
{
    int dirfd = store->places[at->place];
    _cleanup_close_ int fd = fs_open_dir(dirfd, at->id);
    if (fd < 0)
        return error_errno(error, -fd, "opening snapshot %s", ref);
    if (at->place == STORE_CREATING)
        return error_set(error, -EBUSY, "snapshot %s is still being created", ref);
    int r = store_try_lock(fd, LOCK_EX);
    if (r == -EBUSY)
        return refuse_busy(store, ref, at->id, fd, error);
    if (r < 0)
        return error_errno(error, -r, "locking snapshot %s", ref);
    if (!fs_is_at(dirfd, at->id, fd))
        return error_set(error, -ENOENT, "snapshot %s was just deleted", ref);
    *ret_fd = take_fd(&fd);
    return 0;
}

static int put_out_of_sight(const struct thaw_store *store, const char *ref,
    struct store_location *at, int *ret_fd, struct thaw_error *error)
{
    _cleanup_unlock_ int lock = -1;
    int r = store_lock(store, LOCK_SH, 0, &lock, error);
    if (r == 0)
        r = store_resolve(store, ref, at, error);
    if (r == 0)
        r = claim(store, ref, at, ret_fd, error);
    if (r < 0)
        return r;
    if (at->place != STORE_TRASH) {
        r = store_move(store, at->id, at->place, STORE_TRASH);
        if (r < 0)
            return error_errno(error, -r, "deleting snapshot %s", ref);
    }
    r = store_release_names(store, at->id);
    return r < 0 ? error_errno(
                       error, -r, "snapshot %s is deleted, but releasing its name failed", ref)
                 : 0;
}

int thaw_store_delete(thaw_store *store, const char *ref, struct thaw_error *error)
{
    struct store_location at;
    _cleanup_unlock_ int fd = -1;
    int r = put_out_of_sight(store, ref, &at, &fd, error);
    if (r < 0)
        return r;
    /* The directory's own lock keeps recovery away from what may take long. */
    r = store_empty_trash(store, at.id, fd);
    return r < 0 ? error_errno(
                       error, -r, "snapshot %s is deleted, but removing its files failed", ref)
                 : 0;
}
