// SPDX-License-Identifier: Apache-2.0
// The store's lock, and the records that tell who holds a snapshot. store.h has the protocol.

#include "store_internal.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define POLL_NS     2000000
#define NAMED_MAX   3  /* holders that a message names */
#define USER_SUFFIX 12 /* random characters after "<id>." */

int store_try_lock(int fd, int operation)
{
    while (flock(fd, operation | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return -EBUSY;
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

static int wait_exclusive(int fd, int timeout_ms)
{
    for (int64_t left_ns = (int64_t)timeout_ms * 1000000;; left_ns -= POLL_NS) {
        int r = store_try_lock(fd, LOCK_EX);
        if (r != -EBUSY || left_ns <= 0)
            return r;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

static int wait_shared(int fd)
{
    while (flock(fd, LOCK_SH) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int store_lock(const struct thaw_store *store, int operation, int timeout_ms, int *ret_fd,
    struct thaw_error *error)
{
    /* Locks belong to open file descriptions: each operation needs its own. */
    _cleanup_close_ int fd =
        openat(store->fd, "store.lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_errno(error, errno, "opening %s/store.lock", store->path);
    int r = operation == LOCK_EX ? wait_exclusive(fd, timeout_ms) : wait_shared(fd);
    if (r == -EBUSY)
        return error_set(error, r, "store %s: other processes are changing it", store->path);
    if (r < 0)
        return error_errno(error, -r, "locking %s/store.lock", store->path);
    *ret_fd = take_fd(&fd);
    return 0;
}

void store_unlock(int *fd)
{
    if (*fd < 0)
        return;
    flock(*fd, LOCK_UN);
    close(take_fd(fd));
}

/* Records of holders: users/<id>.<random>, locked as long as the holder lives. Nothing depends on
 * them but messages, so they are not made durable and failing to make one is no error. */

void store_add_user(struct store_snapshot *snapshot, const char *holder)
{
    int dirfd = snapshot->store->places[STORE_USERS];
    char suffix[USER_SUFFIX + 1], text[STORE_HOLDER_BYTES];
    if (!holder || fs_random_hex(suffix, USER_SUFFIX) < 0)
        return;
    snprintf(
        snapshot->user_name, sizeof(snapshot->user_name), "%s.%s", snapshot->manifest.id, suffix);
    int count = snprintf(text, sizeof(text), "%.200s (process %d)", holder, (int)getpid());
    _cleanup_close_ int fd = openat(dirfd, snapshot->user_name,
        O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, STORE_FILE_MODE);
    if (fd < 0)
        return;
    if (store_try_lock(fd, LOCK_EX) < 0 || write(fd, text, (size_t)count) != count)
        unlinkat(dirfd, snapshot->user_name, 0);
    else
        snapshot->user_fd = take_fd(&fd);
}

void store_remove_user(struct store_snapshot *snapshot)
{
    if (snapshot->user_fd < 0)
        return;
    unlinkat(snapshot->store->places[STORE_USERS], snapshot->user_name, 0);
    store_unlock(&snapshot->user_fd);
}

static bool is_user_of(const char *name, const char *id)
{
    return strncmp(name, id, MANIFEST_ID_CHARS) == 0 && name[MANIFEST_ID_CHARS] == '.';
}

struct user_walk {
    const struct thaw_store *store;
    const char *id;
    char *text; /* describing */
    size_t bytes;
    unsigned named, more;
    uint32_t removed; /* sweeping */
};

static void add_named(struct user_walk *walk, const char *holder)
{
    size_t used = strlen(walk->text);
    if (walk->named >= NAMED_MAX) {
        walk->more++;
        return;
    }
    snprintf(walk->text + used, walk->bytes - used, "%s%s", walk->named ? ", " : "", holder);
    walk->named++;
}

/* Text that others wrote goes into a message of one line. */
static void clean(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
}

static int describe_user(void *data, const char *name)
{
    struct user_walk *walk = data;
    int dirfd = walk->store->places[STORE_USERS];
    _cleanup_free_ char *holder = NULL;
    size_t count;
    if (!is_user_of(name, walk->id))
        return 0;
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || store_try_lock(fd, LOCK_SH) == 0)
        return 0; /* gone, or its holder is */
    if (fs_read_file(dirfd, name, STORE_HOLDER_BYTES, &holder, &count) == 0 && count > 0) {
        clean(holder);
        add_named(walk, holder);
    }
    return 0;
}

/* Where no record tells, the kernel's list of locks at least knows the process. */
static void describe_processes(struct user_walk *walk, int fd)
{
    struct stat st;
    _cleanup_fclose_ FILE *locks = fopen("/proc/locks", "re");
    char line[256], file[64], expected[64];
    int pid;
    if (!locks || fstat(fd, &st) < 0)
        return;
    snprintf(expected, sizeof(expected), "%02x:%02x:%" PRIu64, major(st.st_dev), minor(st.st_dev),
        (uint64_t)st.st_ino);
    while (fgets(line, sizeof(line), locks)) {
        char path[64], comm[64] = "", holder[160];
        if (strstr(line, "->") || sscanf(line, "%*s FLOCK %*s %*s %d %63s", &pid, file) != 2 ||
            strcmp(file, expected) != 0 || pid <= 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/comm", pid);
        _cleanup_fclose_ FILE *stream = fopen(path, "re");
        if (!stream || !fgets(comm, sizeof(comm), stream))
            snprintf(comm, sizeof(comm), "?");
        comm[strcspn(comm, "\n")] = '\0';
        clean(comm);
        snprintf(holder, sizeof(holder), "process %d (%s)", pid, comm);
        add_named(walk, holder);
    }
}

void store_describe_users(
    const struct thaw_store *store, const char *id, int fd, char *ret, size_t bytes)
{
    struct user_walk walk = {.store = store, .id = id, .text = ret, .bytes = bytes};
    ret[0] = '\0';
    fs_each(store->places[STORE_USERS], describe_user, &walk);
    if (walk.named == 0)
        describe_processes(&walk, fd);
    size_t used = strlen(ret);
    if (walk.named == 0)
        snprintf(ret, bytes, "another process");
    else if (walk.more > 0)
        snprintf(ret + used, bytes - used, " and %u more", walk.more);
}

static int sweep_user(void *data, const char *name)
{
    struct user_walk *walk = data;
    int dirfd = walk->store->places[STORE_USERS];
    char id[MANIFEST_ID_BYTES];
    snprintf(id, sizeof(id), "%.*s", MANIFEST_ID_CHARS, name);
    if (!manifest_id_valid(id) || !is_user_of(name, walk->id ? walk->id : id))
        return 0; /* not ours */
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || store_try_lock(fd, LOCK_EX) < 0)
        return 0;
    if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
        return errno == EISDIR ? 0 : -errno;
    walk->removed++;
    return 0;
}

int store_sweep_users(const struct thaw_store *store, const char *id, uint32_t *removed)
{
    struct user_walk walk = {.store = store, .id = id};
    int r = fs_each(store->places[STORE_USERS], sweep_user, &walk);
    *removed += walk.removed;
    return r;
}
