// SPDX-License-Identifier: Apache-2.0
// From a reference to a snapshot that is held and verified. Changes nothing but locks and users/.

#include "store_internal.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define BUSY_WAIT_MS 2000
#define BUSY_POLL_NS 1000000

int store_locate(const struct thaw_store *store, const char *id, enum store_place *ret)
{
    /* In the order in which snapshots move, so that one that moves meanwhile is not missed. */
    static const enum store_place order[] = {
        STORE_CREATING, STORE_SNAPSHOTS, STORE_FAILED, STORE_TRASH};
    struct stat st;
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        if (fstatat(store->places[order[i]], id, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            if (!S_ISDIR(st.st_mode))
                continue;
            *ret = order[i];
            return 0;
        }
        if (errno != ENOENT)
            return -errno;
    }
    return -ENOENT;
}

struct prefix_walk {
    const char *prefix;
    size_t chars;
    enum store_place place;
    unsigned found;
    struct store_location location;
};

static int match_prefix(void *data, const char *name)
{
    struct prefix_walk *walk = data;
    if (strncmp(name, walk->prefix, walk->chars) != 0 || !manifest_id_valid(name))
        return 0;
    /* One that moved between two places while they were read is still one. */
    if (walk->found == 0 || strcmp(walk->location.id, name) != 0)
        walk->found++;
    memcpy(walk->location.id, name, sizeof(walk->location.id));
    walk->location.place = walk->place;
    return 0;
}

static int resolve_prefix(const struct thaw_store *store, const char *prefix,
    struct store_location *ret, struct thaw_error *error)
{
    struct prefix_walk walk = {.prefix = prefix, .chars = strlen(prefix)};
    for (int place = 0; place < STORE_STATES; place++) {
        walk.place = (enum store_place)place;
        int r = fs_each(store->places[place], match_prefix, &walk);
        if (r < 0)
            return error_errno(error, -r, "reading %s/%s", store->path, store_place_names[place]);
    }
    if (walk.found > 1)
        return error_set(error, -ENOTUNIQ, "%u snapshots' ids begin with %s: give more of it",
            walk.found, prefix);
    if (walk.found == 0)
        return error_set(error, -ENOENT, "there is no snapshot %s", prefix);
    *ret = walk.location;
    return 0;
}

static bool is_prefix(const char *ref)
{
    size_t chars = strlen(ref);
    return chars >= STORE_PREFIX_CHARS && chars < MANIFEST_ID_CHARS &&
           strspn(ref, "0123456789abcdef") == chars;
}

int store_resolve(const struct thaw_store *store, const char *ref, struct store_location *ret,
    struct thaw_error *error)
{
    struct store_location found = {0};
    char target[MANIFEST_ID_BYTES];
    int r = -ENOENT;
    if (!ref || (!manifest_name_valid(ref) && !manifest_id_valid(ref)))
        return error_set(error, -ENOENT, "there is no snapshot '%.80s': that is not a valid name",
            ref ? ref : "");
    if (manifest_id_valid(ref)) {
        memcpy(found.id, ref, sizeof(found.id));
        r = store_locate(store, found.id, &found.place);
    } else {
        r = fs_read_link(store->places[STORE_NAMES], ref, target, sizeof(target));
        if (r == -EINVAL || r == -ENAMETOOLONG || (r == 0 && !manifest_id_valid(target)))
            r = -ENOENT; /* not one of our links */
        if (r == 0) {
            memcpy(found.id, target, sizeof(found.id));
            r = store_locate(store, found.id, &found.place);
        }
    }
    if (r == -ENOENT && is_prefix(ref))
        return resolve_prefix(store, ref, ret, error);
    if (r == -ENOENT)
        return error_set(error, r, "there is no snapshot %s in %s", ref, store->path);
    if (r < 0)
        return error_errno(error, -r, "looking for snapshot %s", ref);
    *ret = found;
    return 0;
}

void store_manifest_free(struct store_manifest *manifest)
{
    if (!manifest)
        return;
    manifest_fini(&manifest->m);
    free(manifest->text);
    free(manifest);
}

static int read_text(
    int dirfd, const char *id, char **ret, size_t *ret_bytes, struct thaw_error *error)
{
    int r = fs_read_file(dirfd, "manifest.json", MANIFEST_BYTES_MAX, ret, ret_bytes);
    if (r == -ENOENT || r == -ELOOP || r == -EINVAL || r == -EFBIG)
        return error_set(error, THAW_ECORRUPT, "snapshot %s: manifest.json %s", id,
            r == -ENOENT ? "is missing" : "is not a regular file of a credible size");
    return r < 0 ? error_errno(error, -r, "snapshot %s: reading manifest.json", id) : 0;
}

static int decode(
    struct manifest *ret, const char *text, size_t bytes, const char *id, struct thaw_error *error)
{
    struct manifest m;
    int r = manifest_decode(&m, text, bytes, error);
    if (r < 0)
        return error_prefix(error, r, "snapshot %s", id);
    if (strcmp(m.id, id) != 0) {
        r = error_set(
            error, THAW_ECORRUPT, "snapshot %s: its manifest is that of snapshot %s", id, m.id);
        manifest_fini(&m);
        return r;
    }
    *ret = m;
    return 0;
}

static bool is_text(const struct store_manifest *manifest, const char *text, size_t bytes)
{
    return manifest && manifest->bytes == bytes && memcmp(manifest->text, text, bytes) == 0;
}

int store_look_at_manifest(struct thaw_store *store, int dirfd, const char *id,
    struct store_manifest **ret, struct thaw_error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t bytes = 0;
    int r = read_text(dirfd, id, &text, &bytes, error);
    if (r < 0)
        return r;
    struct store_manifest *last = atomic_exchange(&store->last_read, NULL);
    if (is_text(last, text, bytes) && strcmp(last->m.id, id) == 0) {
        *ret = last;
        return 0;
    }
    store_manifest_free(last);
    struct store_manifest *manifest = calloc(1, sizeof(*manifest));
    if (!manifest)
        return error_errno(error, ENOMEM, "snapshot %s: reading manifest.json", id);
    r = decode(&manifest->m, text, bytes, id, error);
    if (r < 0) {
        free(manifest);
        return r;
    }
    manifest->text = take_ptr(text);
    manifest->bytes = bytes;
    *ret = manifest;
    return 0;
}

void store_leave_manifest(struct thaw_store *store, struct store_manifest *manifest)
{
    store_manifest_free(atomic_exchange(&store->last_read, manifest));
}

int store_read_manifest(struct thaw_store *store, int dirfd, const char *id, struct manifest *ret,
    struct thaw_error *error)
{
    struct store_manifest *manifest;
    int r = store_look_at_manifest(store, dirfd, id, &manifest, error);
    if (r < 0)
        return r;
    *ret = manifest->m;
    free(manifest->text);
    free(manifest);
    return 0;
}

int store_read_error(int dirfd, char ret[STORE_ERROR_BYTES])
{
    _cleanup_free_ char *text = NULL;
    size_t bytes = 0;
    ret[0] = '\0';
    int r = fs_read_file(dirfd, "error", STORE_ERROR_BYTES - 1, &text, &bytes);
    if (r < 0)
        return r;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] < ' ')
            text[i] = ' ';
    memcpy(ret, text, bytes + 1);
    return 0;
}

/* Opens snapshots/<id> and locks it shared. -ENOENT once it is not there any more. */
static int open_shared(const struct thaw_store *store, const char *id, int *ret_fd)
{
    int dirfd = store->places[STORE_SNAPSHOTS];
    _cleanup_close_ int fd = fs_open_dir(dirfd, id);
    if (fd < 0)
        return fd;
    for (int64_t left_ns = (int64_t)BUSY_WAIT_MS * 1000000;; left_ns -= BUSY_POLL_NS) {
        int r = store_try_lock(fd, LOCK_SH);
        if (!fs_is_at(dirfd, id, fd))
            return -ENOENT; /* deleted between opening and locking */
        if (r == 0)
            *ret_fd = take_fd(&fd);
        if (r != -EBUSY || left_ns <= 0)
            return r;
        nanosleep(&(struct timespec){.tv_nsec = BUSY_POLL_NS}, NULL);
    }
}

static int get_ready(const struct thaw_store *store, const char *ref, struct store_location *at,
    int *ret_fd, struct thaw_error *error)
{
    static const char *const why[] = {
        [STORE_CREATING] = "is still being created",
        [STORE_FAILED] = "failed while it was created",
        [STORE_TRASH] = "is being deleted",
    };
    int r = store_resolve(store, ref, at, error);
    if (r < 0)
        return r;
    if (at->place != STORE_SNAPSHOTS)
        return error_set(error, at->place == STORE_TRASH ? -EBUSY : THAW_ESTATE, "snapshot %s %s",
            ref, why[at->place]);
    r = open_shared(store, at->id, ret_fd);
    if (r == -ENOENT)
        return error_set(error, r, "there is no snapshot %s any more", ref);
    if (r == -EBUSY)
        return error_set(error, r, "snapshot %s is just being published or deleted", ref);
    return r < 0 ? error_errno(error, -r, "opening snapshot %s", ref) : 0;
}

static int check_complete(const struct manifest *m, struct thaw_error *error)
{
    return m->complete ? 0
                       : error_set(error, THAW_ECORRUPT,
                             "snapshot %s: its manifest is that of an unfinished one", m->id);
}

int store_get(struct thaw_store *store, const char *ref, const char *holder,
    struct store_snapshot **ret, struct thaw_error *error)
{
    _cleanup_unlock_ int lock = -1;
    _cleanup_close_ int fd = -1;
    struct store_location at;
    int r = store_lock(store, LOCK_SH, 0, &lock, error);
    if (r == 0)
        r = get_ready(store, ref, &at, &fd, error);
    if (r < 0)
        return r;
    struct store_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (!snapshot)
        return error_errno(error, ENOMEM, "allocating a snapshot's handle");
    snapshot->store = store_ref(store);
    snapshot->fd = take_fd(&fd);
    snapshot->user_fd = -1;
    r = store_read_manifest(store, snapshot->fd, at.id, &snapshot->manifest, error);
    if (r == 0)
        r = check_complete(&snapshot->manifest, error);
    if (r < 0) {
        store_put(snapshot);
        return r;
    }
    store_add_user(snapshot, holder);
    *ret = snapshot;
    return 0;
}

void store_put(struct store_snapshot *snapshot)
{
    if (!snapshot)
        return;
    store_remove_user(snapshot);
    store_unlock(&snapshot->fd);
    manifest_fini(&snapshot->manifest);
    store_unref(snapshot->store);
    free(snapshot);
}
