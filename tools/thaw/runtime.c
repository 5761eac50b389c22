/* SPDX-License-Identifier: Apache-2.0 */
/* Role: claim, list and remove the per-VM directories.
 * Not here: what the status says (vm_json.c) and talking to the owner of a VM (client.c). */
#include "runtime.h"
#include "fail.h"
#include "json_text.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#define LOCK_FILE        "lock"
#define STATUS_FILE      "status.json"
#define STATUS_TMP       "status.json.tmp"
#define STATUS_MAX_BYTES (1u << 20)

static int root_path(char **ret, struct thaw_error *error)
{
    const char *dir = getenv("THAW_RUNTIME"), *xdg = getenv("XDG_RUNTIME_DIR");
    int rc;

    if (dir && *dir)
        rc = asprintf(ret, "%s", dir);
    else if (xdg && *xdg)
        rc = asprintf(ret, "%s/thaw", xdg);
    else
        rc = asprintf(ret, "/run/thaw");
    return rc < 0 ? fail_errno(error, ENOMEM, "cannot name the runtime directory") : 0;
}

static void make_parents(char *path)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

/* A directory in which others may rename things would let them swap a VM for another. */
static int check_root(int fd, const char *path, struct thaw_error *error)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return fail_errno(error, errno, "cannot examine the runtime directory '%s'", path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) ||
        ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
        return fail_set(error, -EPERM,
            "the runtime directory '%s' can be changed by other users: set THAW_RUNTIME to one of "
            "your own",
            path);
    return 0;
}

/* Opens the runtime directory. *ret_path becomes its absolute path. */
static int open_root(bool create, char **ret_path, int *ret_fd, struct thaw_error *error)
{
    _cleanup_free_ char *path = NULL;
    _cleanup_close_ int fd = -1;
    char *absolute;
    int rc = root_path(&path, error);

    if (rc < 0)
        return rc;
    if (create) {
        make_parents(path);
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return fail_errno(error, errno, "cannot make the runtime directory '%s'", path);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, errno, "cannot open the runtime directory '%s'", path);
    rc = check_root(fd, path, error);
    if (rc < 0)
        return rc;
    absolute = realpath(path, NULL);
    if (!absolute)
        return fail_errno(error, errno, "cannot find the runtime directory '%s'", path);
    *ret_path = absolute;
    *ret_fd = take_fd(&fd);
    return 0;
}

static int socket_path(const char *root, const char *name, char **ret, struct thaw_error *error)
{
    struct sockaddr_un addr;
    char *path;
    int count = asprintf(&path, "%s/%s/" RUNTIME_SOCKET, root, name);

    if (count < 0)
        return fail_errno(error, ENOMEM, "cannot name the control socket");
    if ((size_t)count >= sizeof(addr.sun_path)) {
        free(path);
        return fail_set(error, -ENAMETOOLONG,
            "the control socket's path would have %d bytes, and %zu are possible: set THAW_RUNTIME "
            "to a directory with a shorter path",
            count, sizeof(addr.sun_path) - 1);
    }
    *ret = path;
    return 0;
}

static int lock_op(int fd, int op, short type, short *ret_type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    int rc = fcntl(fd, op, &lock);

    if (ret_type)
        *ret_type = lock.l_type;
    return rc < 0 ? -errno : 0;
}

/* Where all may make directories, such as in /tmp, a VM's may be another user's, or one that others
 * can put links into. */
static bool is_private(int dir_fd, bool *ret_own)
{
    struct stat st;

    if (fstat(dir_fd, &st) != 0)
        return false;
    *ret_own = st.st_uid == geteuid();
    return !(st.st_mode & 022);
}

static bool is_locked(int dir_fd)
{
    _cleanup_close_ int fd =
        openat(dir_fd, LOCK_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    short type = F_UNLCK;

    return fd >= 0 && lock_op(fd, F_OFD_GETLK, F_RDLCK, &type) == 0 && type != F_UNLCK;
}

/* Locks the directory's lock file. 1: locked, and both are still what their names lead to. 0: they
 * were replaced meanwhile, try again. */
static int lock_dir(int root_fd, int dir_fd, const char *name, int *ret_fd)
{
    _cleanup_close_ int fd =
        openat(dir_fd, LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat held, found;
    int rc;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    rc = lock_op(fd, F_OFD_SETLK, F_WRLCK, NULL);
    if (rc < 0)
        return rc == -EAGAIN || rc == -EACCES ? -EBUSY : rc;
    if (fstat(fd, &held) != 0 || fstatat(dir_fd, LOCK_FILE, &found, AT_SYMLINK_NOFOLLOW) != 0 ||
        held.st_ino != found.st_ino)
        return 0;
    if (fstat(dir_fd, &held) != 0 || fstatat(root_fd, name, &found, AT_SYMLINK_NOFOLLOW) != 0 ||
        held.st_ino != found.st_ino)
        return 0;
    *ret_fd = take_fd(&fd);
    return 1;
}

/* Opens (or with `create` makes) and locks the VM's directory. THAW_ESTATE: it is not ours alone,
 * and nothing in it was touched. */
static int open_locked(
    int root_fd, const char *name, bool create, int *ret_dir_fd, int *ret_lock_fd)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        _cleanup_close_ int dir_fd = -1;
        bool own;
        int rc;

        if (create && mkdirat(root_fd, name, 0700) != 0 && errno != EEXIST)
            return -errno;
        dir_fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir_fd < 0) {
            if (create && errno == ENOENT)
                continue;
            return -errno;
        }
        if (!is_private(dir_fd, &own) || !own)
            return THAW_ESTATE;
        rc = lock_dir(root_fd, dir_fd, name, ret_lock_fd);
        if (rc < 0)
            return rc;
        if (rc == 1) {
            *ret_dir_fd = take_fd(&dir_fd);
            return 0;
        }
    }
    return -EBUSY;
}

static void empty_dir(int dir_fd)
{
    static const char *const files[] = {
        RUNTIME_SOCKET, STATUS_FILE, STATUS_TMP, RUNTIME_LOG, RUNTIME_OLD_LOG};

    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        unlinkat(dir_fd, files[i], 0);
}

int runtime_claim(const char *name, struct runtime_slot *ret, struct thaw_error *error)
{
    struct runtime_slot slot = {.root_fd = -1, .dir_fd = -1, .lock_fd = -1};
    _cleanup_free_ char *root = NULL;
    int rc = open_root(true, &root, &slot.root_fd, error);

    if (rc < 0)
        return rc;
    snprintf(slot.name, sizeof(slot.name), "%s", name);
    rc = socket_path(root, name, &slot.socket_path, error);
    if (rc == 0) {
        rc = open_locked(slot.root_fd, name, true, &slot.dir_fd, &slot.lock_fd);
        if (rc == -EBUSY)
            fail_set(error, rc, "the name '%s' is in use by a running VM", name);
        else if (rc == THAW_ESTATE)
            rc = fail_set(error, -EPERM,
                "the directory '%s/%s' is another user's, or can be changed by others: remove it, "
                "or "
                "set THAW_RUNTIME to a directory of your own",
                root, name);
        else if (rc < 0)
            fail_errno(error, -rc, "cannot use the runtime directory '%s/%s'", root, name);
    }
    if (rc < 0) {
        runtime_release(&slot, false);
        return rc;
    }
    empty_dir(slot.dir_fd);
    *ret = slot;
    return 0;
}

/* Whoever opened the lock file meanwhile notices that it is gone (lock_dir). */
static void remove_locked(int root_fd, int dir_fd, const char *name)
{
    empty_dir(dir_fd);
    unlinkat(dir_fd, LOCK_FILE, 0);
    unlinkat(root_fd, name, AT_REMOVEDIR);
}

void runtime_release(struct runtime_slot *slot, bool remove)
{
    if (slot->lock_fd >= 0) {
        unlinkat(slot->dir_fd, RUNTIME_SOCKET, 0);
        if (remove)
            remove_locked(slot->root_fd, slot->dir_fd, slot->name);
    }
    cleanup_close(&slot->lock_fd);
    cleanup_close(&slot->dir_fd);
    cleanup_close(&slot->root_fd);
    free(slot->socket_path);
    *slot = (struct runtime_slot){.root_fd = -1, .dir_fd = -1, .lock_fd = -1};
}

static int write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t n = write(fd, bytes, count);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        count -= (size_t)n;
    }
    return 0;
}

int runtime_write_status(
    const struct runtime_slot *slot, const json_t *status, struct thaw_error *error)
{
    size_t count = 0;
    _cleanup_free_ char *text = json_text_make(status, &count);
    _cleanup_close_ int fd = openat(
        slot->dir_fd, STATUS_TMP, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;

    if (!text)
        return fail_errno(error, ENOMEM, "cannot write the status of VM '%s'", slot->name);
    rc = fd < 0 ? -errno : write_all(fd, text, count);
    if (rc == 0 && renameat(slot->dir_fd, STATUS_TMP, slot->dir_fd, STATUS_FILE) != 0)
        rc = -errno;
    if (rc < 0)
        return fail_errno(error, -rc, "cannot write the status of VM '%s'", slot->name);
    return 0;
}

static json_t *read_status(int dir_fd)
{
    _cleanup_close_ int fd =
        openat(dir_fd, STATUS_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_json_ json_t *status = NULL;
    _cleanup_free_ char *text = NULL;
    struct stat st;
    ssize_t count;

    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > STATUS_MAX_BYTES)
        return NULL;
    text = malloc((size_t)st.st_size + 1);
    count = text ? read(fd, text, (size_t)st.st_size) : -1;
    if (count != st.st_size)
        return NULL;
    status = json_loadb(text, (size_t)count, 0, NULL);
    return json_is_object(status) ? take_ptr(status) : NULL;
}

/* -ENOENT if the directory is gone, or neither owned nor a record: one being made or removed.
 * -EPERM if it is not for us to believe; root reads what other users' VMs are. */
static int read_entry(int root_fd, const char *root, const char *name, struct runtime_entry *ret)
{
    _cleanup_close_ int dir_fd =
        openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct runtime_entry entry = {0};
    bool own;

    if (dir_fd < 0)
        return errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
    if (!is_private(dir_fd, &own) || !(own || geteuid() == 0))
        return -EPERM;
    /* In this order: a process that ends writes its last status before it gives up the lock. */
    entry.alive = is_locked(dir_fd);
    entry.status = read_status(dir_fd);
    if (!entry.alive && !entry.status)
        return -ENOENT;
    if (asprintf(&entry.dir_path, "%s/%s", root, name) < 0) {
        json_decref(entry.status);
        return -ENOMEM;
    }
    snprintf(entry.name, sizeof(entry.name), "%s", name);
    *ret = entry;
    return 0;
}

int runtime_find(const char *name, struct runtime_entry *ret, struct thaw_error *error)
{
    _cleanup_free_ char *root = NULL;
    _cleanup_close_ int root_fd = -1;
    int rc = -ENOENT;

    if (text_is_name(name)) {
        rc = open_root(false, &root, &root_fd, error);
        if (rc == 0) {
            rc = read_entry(root_fd, root, name, ret);
            if (rc < 0 && rc != -ENOENT)
                return fail_errno(error, -rc, "cannot read '%s/%s'", root, name);
        }
    }
    if (rc == -ENOENT)
        return fail_set(error, rc, "no VM named '%s'", name);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct runtime_entry *)a)->name, ((const struct runtime_entry *)b)->name);
}

static int read_entries(DIR *dir, const char *root, struct runtime_entry **entries, size_t *count)
{
    size_t capacity = 0;
    const struct dirent *found;

    while (errno = 0, (found = readdir(dir))) {
        if (!text_is_name(found->d_name))
            continue;
        if (*count == capacity) {
            struct runtime_entry *larger;

            capacity = capacity ? 2 * capacity : 16;
            larger = realloc(*entries, capacity * sizeof(**entries));
            if (!larger)
                return -ENOMEM;
            *entries = larger;
        }
        if (read_entry(dirfd(dir), root, found->d_name, *entries + *count) == 0)
            ++*count;
    }
    return -errno;
}

int runtime_list(struct runtime_entry **ret, size_t *ret_count, struct thaw_error *error)
{
    _cleanup_free_ char *root = NULL;
    _cleanup_close_ int root_fd = -1;
    struct runtime_entry *entries = NULL;
    size_t count = 0;
    DIR *dir;
    int rc = open_root(false, &root, &root_fd, error);

    if (rc == 0) {
        dir = fdopendir(root_fd);
        if (!dir)
            return fail_errno(error, errno, "cannot read '%s'", root);
        root_fd = -1;
        rc = read_entries(dir, root, &entries, &count);
        closedir(dir);
        if (rc < 0) {
            runtime_list_free(entries, count);
            return fail_errno(error, -rc, "cannot read '%s'", root);
        }
        if (count > 0)
            qsort(entries, count, sizeof(*entries), by_name);
    } else if (rc != -ENOENT) {
        return rc;
    }
    *ret = entries;
    *ret_count = count;
    return 0;
}

void runtime_entry_fini(struct runtime_entry *entry)
{
    free(entry->dir_path);
    json_decref(entry->status);
    *entry = (struct runtime_entry){0};
}

void runtime_list_free(struct runtime_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        runtime_entry_fini(entries + i);
    free(entries);
}

bool runtime_is_alive(const struct runtime_entry *entry)
{
    _cleanup_close_ int dir_fd =
        open(entry->dir_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return dir_fd >= 0 && is_locked(dir_fd);
}

bool runtime_is_own(const struct runtime_slot *slot, const char *name)
{
    _cleanup_close_ int dir_fd =
        openat(slot->root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool own;

    return dir_fd >= 0 && is_private(dir_fd, &own) && own;
}

int runtime_remove(const char *name, struct thaw_error *error)
{
    struct runtime_slot slot = {.root_fd = -1, .dir_fd = -1, .lock_fd = -1};
    _cleanup_free_ char *root = NULL;
    int rc = open_root(false, &root, &slot.root_fd, error);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    snprintf(slot.name, sizeof(slot.name), "%s", name);
    rc = open_locked(slot.root_fd, name, false, &slot.dir_fd, &slot.lock_fd);
    runtime_release(&slot, rc == 0);
    if (rc == -EBUSY)
        return fail_set(error, rc, "VM '%s' is running", name);
    if (rc == THAW_ESTATE)
        return fail_set(error, -EPERM,
            "cannot remove the record of VM '%s': it is another user's, or can be changed by "
            "others",
            name);
    if (rc < 0 && rc != -ENOENT)
        return fail_errno(error, -rc, "cannot remove the record of VM '%s'", name);
    return 0;
}
