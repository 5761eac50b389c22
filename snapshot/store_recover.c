// SPDX-License-Identifier: Apache-2.0
// Finishing what dead processes left, from what is on disk alone. Runs under the exclusive
// store.lock, touches only directories whose own lock it gets, and may itself die at any step.

#include "store_internal.h"
#include <fcntl.h>
#include <string.h>

static const char orphaned[] = "the process that was creating it ended before it was complete";

struct recovery {
    struct thaw_store *store;
    struct thaw_store_recovery did;
    int r; /* the first failure; the others' work is done all the same */
    struct thaw_error *error;
};

static void note(struct recovery *rec, int r, const char *what, const char *name)
{
    if (r < 0 && rec->r == 0)
        rec->r =
            error_errno(rec->error, -r, "recovering store %s: %s %s", rec->store->path, what, name);
}

/* A descriptor with the exclusive lock, or -1 if there is nothing to do. */
static int claim(struct recovery *rec, enum store_place place, const char *id)
{
    if (!manifest_id_valid(id))
        return -1;
    _cleanup_close_ int fd = fs_open_dir(rec->store->places[place], id);
    if (fd == -ENOTDIR || fd == -ELOOP || fd == -ENOENT)
        return -1;
    int r = fd < 0 ? fd : store_try_lock(fd, LOCK_EX);
    if (r == 0)
        return take_fd(&fd);
    if (r != -EBUSY)
        note(rec, r, "opening", id);
    return -1;
}

/* 1 if nothing but the last move is missing, 0 if more is, negative if that can't be told now. */
static int is_complete(struct thaw_store *store, const char *id, int fd)
{
    struct manifest m;
    int r = store_read_manifest(store, fd, id, &m, NULL);
    if (r < 0)
        return store_is_lack(r) ? r : 0;
    r = m.complete ? store_check_files(fd, &m, NULL) : -ENOENT;
    if (r == 0)
        r = fs_sync(fd);
    manifest_fini(&m);
    return store_is_lack(r) ? r : r == 0;
}

static int recover_creation(void *data, const char *id)
{
    struct recovery *rec = data;
    struct thaw_store *store = rec->store;
    char text[STORE_ERROR_BYTES];
    _cleanup_unlock_ int fd = claim(rec, STORE_CREATING, id);
    if (fd < 0)
        return 0;
    int error = store_read_error(fd, text);
    bool marked = error != -ENOENT;
    int named = store_has_name(store, id);
    int complete = named > 0 && !marked ? is_complete(store, id, fd) : 0;
    int r = store_is_lack(error) ? error : MIN(named, complete);
    if (r < 0) {
        ; /* the next recovery may see more */
    } else if (named == 0 && !marked) {
        r = fs_remove_dir(store->places[STORE_CREATING], id, fd);
        rec->did.removed += r == 0;
    } else if (complete) {
        r = store_move(store, id, STORE_CREATING, STORE_SNAPSHOTS);
        rec->did.finished += r == 0;
    } else {
        r = store_fail(store, id, fd, orphaned, NULL);
        rec->did.failed += r == 0;
    }
    note(rec, r, "finishing the creation of", id);
    return 0;
}

static int recover_trash(void *data, const char *id)
{
    struct recovery *rec = data;
    _cleanup_unlock_ int fd = claim(rec, STORE_TRASH, id);
    if (fd < 0)
        return 0;
    int r = store_release_names(rec->store, id);
    if (r == 0)
        r = store_empty_trash(rec->store, id, fd);
    rec->did.removed += r == 0;
    note(rec, r, "finishing the deletion of", id);
    return 0;
}

static int recover_name(void *data, const char *name)
{
    struct recovery *rec = data;
    int names = rec->store->places[STORE_NAMES];
    char target[MANIFEST_ID_BYTES];
    enum store_place place;
    int r = fs_read_link(names, name, target, sizeof(target));
    if (r == -EINVAL || r == -ENOENT)
        return 0; /* not a symlink: not ours */
    if (r < 0 && r != -ENAMETOOLONG) {
        note(rec, r, "reading the name", name);
        return 0;
    }
    bool valid = r == 0 && manifest_id_valid(target);
    r = valid ? store_locate(rec->store, target, &place) : -ENOENT;
    if (r == 0 && (place == STORE_CREATING || place == STORE_SNAPSHOTS))
        return 0;
    if (r == 0 || r == -ENOENT)
        r = unlinkat(names, name, 0) < 0 && errno != ENOENT ? -errno : 0;
    rec->did.names += r == 0;
    note(rec, r, "releasing the name", name);
    return 0;
}

/* A file with a suffix is being written as long as someone has its lock. */
static bool is_abandoned(int dirfd, const char *name)
{
    if (name[MANIFEST_ID_CHARS] == '\0')
        return false;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static int recover_hot(void *data, const char *name)
{
    struct recovery *rec = data;
    int dirfd = rec->store->places[STORE_HOT];
    char id[MANIFEST_ID_BYTES];
    enum store_place place;
    snprintf(id, sizeof(id), "%.*s", MANIFEST_ID_CHARS, name);
    if (!manifest_id_valid(id) ||
        (name[MANIFEST_ID_CHARS] != '\0' && name[MANIFEST_ID_CHARS] != '.'))
        return 0;
    int r = store_locate(rec->store, id, &place);
    if (r == 0 && place == STORE_TRASH)
        return 0; /* its deleter is at work and removes it */
    if (r == 0 && place == STORE_SNAPSHOTS && !is_abandoned(dirfd, name))
        return 0;
    if (r == 0 || r == -ENOENT)
        r = unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
    if (r == -ENOENT || r == -EISDIR)
        return 0;
    rec->did.side_files += r == 0;
    note(rec, r, "removing the hot file", name);
    return 0;
}

static void recover_place(struct recovery *rec, enum store_place place, fs_entry_fn fn)
{
    note(rec, fs_each(rec->store->places[place], fn, rec), "reading", store_place_names[place]);
}

static int count_entry(void *data, const char *name)
{
    (void)name;
    ++*(unsigned *)data;
    return 0;
}

/* Every crash that leaves work leaves a directory in one of these two. */
static bool is_work_left(const struct thaw_store *store)
{
    unsigned count = 0;
    int r = fs_each(store->places[STORE_CREATING], count_entry, &count);
    int s = fs_each(store->places[STORE_TRASH], count_entry, &count);
    return count > 0 || r < 0 || s < 0;
}

static void recover_side_files(struct recovery *rec)
{
    uint32_t released = rec->did.names;
    recover_place(rec, STORE_NAMES, recover_name);
    if (rec->did.names != released)
        note(rec, fs_sync(rec->store->places[STORE_NAMES]), "making durable", "names");
    recover_place(rec, STORE_HOT, recover_hot);
    note(rec, store_sweep_users(rec->store, NULL, &rec->did.side_files), "reading", "users");
}

int store_recover(struct thaw_store *store, int timeout_ms, bool all,
    struct thaw_store_recovery *ret, struct thaw_error *error)
{
    struct recovery rec = {.store = store, .error = error};
    _cleanup_unlock_ int lock = -1;
    if (!all && !is_work_left(store))
        return 0;
    int r = store_lock(store, LOCK_EX, timeout_ms, &lock, error);
    if (r < 0)
        return r;
    recover_place(&rec, STORE_CREATING, recover_creation);
    recover_place(&rec, STORE_TRASH, recover_trash);
    if (all || rec.did.finished + rec.did.failed + rec.did.removed > 0)
        recover_side_files(&rec);
    if (ret)
        *ret = rec.did;
    return rec.r;
}

int thaw_store_recover(
    thaw_store *store, struct thaw_store_recovery *result, struct thaw_error *error)
{
    const int timeout_ms = 10000;
    struct thaw_store_recovery did = {0};
    if (result && result->size < sizeof(result->size))
        return error_set(error, -EINVAL, "struct thaw_store_recovery: size is not set");
    int r = store_recover(store, timeout_ms, true, &did, error);
    if (r < 0 || !result)
        return r;
    did.size = result->size;
    memcpy(result, &did, MIN(result->size, sizeof(did)));
    return 0;
}
