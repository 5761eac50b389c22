// SPDX-License-Identifier: Apache-2.0
// Opening a store and laying it out. What happens in it is the matter of the other store_*.c.

#include "options.h"
#include "store_internal.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

const char *const store_place_names[STORE_PLACES] = {
    [STORE_CREATING] = "creating",
    [STORE_SNAPSHOTS] = "snapshots",
    [STORE_FAILED] = "failed",
    [STORE_TRASH] = "trash",
    [STORE_NAMES] = "names",
    [STORE_HOT] = "hot",
    [STORE_USERS] = "users",
};

const char *thaw_snapshot_state_name(enum thaw_snapshot_state state)
{
    static const char *const names[] = {
        [THAW_SNAPSHOT_CREATING] = "creating",
        [THAW_SNAPSHOT_READY] = "ready",
        [THAW_SNAPSHOT_FAILED] = "failed",
        [THAW_SNAPSHOT_DELETING] = "deleting",
        [THAW_SNAPSHOT_DAMAGED] = "damaged",
    };
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

struct thaw_store *store_ref(struct thaw_store *store)
{
    atomic_fetch_add(&store->references, 1);
    return store;
}

void store_unref(struct thaw_store *store)
{
    if (!store || atomic_fetch_sub(&store->references, 1) > 1)
        return;
    for (int i = 0; i < STORE_PLACES; i++)
        if (store->places[i] >= 0)
            close(store->places[i]);
    if (store->fd >= 0)
        close(store->fd);
    store_manifest_free(atomic_load(&store->last_read));
    free(store->path);
    free(store);
}

void thaw_store_close(thaw_store *store)
{
    store_unref(store);
}

int store_hot_dirfd(const struct thaw_store *store)
{
    return store->places[STORE_HOT];
}

/* mkdir -p. What exists already is no error here. */
static int make_directories(const char *path, struct thaw_error *error)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof(part))
        return error_errno(error, ENAMETOOLONG, "store %.100s...", path);
    memcpy(part, path, strlen(path) + 1);
    for (char *p = part + 1;; p++) {
        char end = *p;
        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        if (mkdir(part, STORE_DIR_MODE) < 0 && errno != EEXIST)
            return error_errno(error, errno, "making the directory %s", part);
        if (end == '\0')
            return 0;
        *p = end;
    }
}

static int open_root(
    struct thaw_store *store, const struct thaw_store_options *opt, struct thaw_error *error)
{
    if (opt->fd <= 0) {
        int r = opt->flags & THAW_STORE_CREATE ? make_directories(opt->path, error) : 0;
        if (r < 0)
            return r;
        store->fd = open(opt->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (store->fd < 0)
            return error_errno(error, errno, "opening store %s", store->path);
        return 0;
    }
    struct stat st;
    store->fd = fcntl(opt->fd, F_DUPFD_CLOEXEC, 0);
    if (store->fd < 0 || fstat(store->fd, &st) < 0)
        return error_errno(error, errno, "the descriptor of store %s", store->path);
    if (!S_ISDIR(st.st_mode))
        return error_errno(error, ENOTDIR, "the descriptor of store %s", store->path);
    return 0;
}

/* Over a network neither flock nor rename and fsync promise what the store is built on. */
static int check_file_system(const struct thaw_store *store, struct thaw_error *error)
{
    static const unsigned refused[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, SMB2_SUPER_MAGIC,
        CIFS_SUPER_MAGIC, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC};
    struct statfs fs;
    if (fstatfs(store->fd, &fs) < 0)
        return error_errno(error, errno, "examining the file system of store %s", store->path);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
        if ((unsigned)fs.f_type == refused[i])
            return error_set(error, -EOPNOTSUPP,
                "store %s is on a network file system (NFS, SMB or the like), where locks cannot "
                "be relied upon; use a local one",
                store->path);
    return 0;
}

static int refuse_entry(void *data, const char *name)
{
    (void)data;
    /* Others may be laying the same store out; and a mounted file system begins with lost+found. */
    for (int i = 0; i < STORE_PLACES; i++)
        if (strcmp(name, store_place_names[i]) == 0)
            return 0;
    return strcmp(name, "lost+found") == 0 || strcmp(name, "store.lock") == 0 ? 0 : -ENOTEMPTY;
}

/* store.lock comes first and makes a directory a store. */
static int make_lock_file(const struct thaw_store *store, bool create, struct thaw_error *error)
{
    struct stat st;
    if (fstatat(store->fd, "store.lock", &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISREG(st.st_mode))
            return error_set(
                error, THAW_ECORRUPT, "store %s: store.lock is not a regular file", store->path);
        return 0;
    }
    if (errno != ENOENT)
        return error_errno(error, errno, "looking for %s/store.lock", store->path);
    if (!create)
        return error_set(error, -ENOENT, "%s is not a store: it has no store.lock", store->path);
    int r = fs_each(store->fd, refuse_entry, NULL);
    if (r == -ENOTEMPTY)
        return error_set(error, r,
            "%s is neither empty nor a store: nothing was made there; name another directory",
            store->path);
    _cleanup_close_ int fd =
        r < 0 ? -1
              : openat(store->fd, "store.lock", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
                    STORE_FILE_MODE);
    if (fd < 0)
        return error_errno(error, r < 0 ? -r : errno, "making %s/store.lock", store->path);
    return 0;
}

static int open_places(struct thaw_store *store, struct thaw_error *error)
{
    bool made = false;
    for (int i = 0; i < STORE_PLACES; i++) {
        int fd = fs_open_dir(store->fd, store_place_names[i]);
        if (fd == -ENOENT) {
            made = true;
            if (mkdirat(store->fd, store_place_names[i], STORE_DIR_MODE) < 0 && errno != EEXIST)
                return error_errno(error, errno, "making %s/%s", store->path, store_place_names[i]);
            fd = fs_open_dir(store->fd, store_place_names[i]);
        }
        if (fd < 0)
            return error_errno(error, -fd, "opening %s/%s", store->path, store_place_names[i]);
        store->places[i] = fd;
    }
    int r = made ? fs_sync(store->fd) : 0;
    return r < 0 ? error_errno(error, -r, "making store %s durable", store->path) : 0;
}

/* The store's own entry in its parent; that of parents which were made is the file system's. */
static int sync_parent(const struct thaw_store *store, struct thaw_error *error)
{
    _cleanup_close_ int parent = openat(store->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return 0; /* not ours to look into, so not made by us either */
    int r = fs_sync(parent);
    return r < 0 ? error_errno(error, -r, "making store %s durable", store->path) : 0;
}

static int open_store(
    struct thaw_store *store, const struct thaw_store_options *opt, struct thaw_error *error)
{
    bool create = opt->flags & THAW_STORE_CREATE;
    int r = open_root(store, opt, error);
    if (r == 0)
        r = check_file_system(store, error);
    if (r == 0)
        r = make_lock_file(store, create, error);
    if (r == 0)
        r = open_places(store, error);
    if (r == 0 && create && opt->fd <= 0)
        r = sync_parent(store, error);
    return r;
}

static int check_options(const struct thaw_store_options *opt, struct thaw_error *error)
{
    if (opt->flags & ~THAW_STORE_CREATE)
        return error_set(error, -EINVAL, "store flags 0x%x are not known", opt->flags);
    if ((!opt->path || !opt->path[0]) && opt->fd <= 0)
        return error_set(error, -EINVAL, "a store needs a path or a descriptor");
    return 0;
}

int thaw_store_open(
    const struct thaw_store_options *options, thaw_store **ret, struct thaw_error *error)
{
    struct thaw_store_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_store_options", error);
    if (r == 0)
        r = check_options(&opt, error);
    if (r < 0)
        return r;
    struct thaw_store *store = calloc(1, sizeof(*store));
    if (!store)
        return error_errno(error, ENOMEM, "allocating a store");
    atomic_init(&store->references, 1);
    store->fd = -1;
    for (int i = 0; i < STORE_PLACES; i++)
        store->places[i] = -1;
    store->path = strdup(opt.path ? opt.path : "(descriptor)");
    r = store->path ? open_store(store, &opt, error)
                    : error_errno(error, ENOMEM, "allocating a store");
    if (r < 0) {
        store_unref(store);
        return r;
    }
    /* What cannot be recovered now, for want of rights or because others are at work, does not keep
     * the rest of the store from being used. */
    store_recover(store, 0, false, NULL, NULL);
    *ret = store;
    return 0;
}
