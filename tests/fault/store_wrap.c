// SPDX-License-Identifier: Apache-2.0
// Stand-ins for system calls. Knows of the store only what publishing looks like.

#include "store_wrap.h"
#include "util.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define DIRTY_MAX 4096

/* Each stand-in's declaration, and that of the function that it stands for. */
#define WRAPPED(type, name, ...)                                                                   \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

static enum wrap_mode mode;
static bool armed, links_forbidden;
static unsigned calls, target;
static long file_system;
static ino_t dirty[DIRTY_MAX];
static size_t dirty_count;
unsigned wrap_published, wrap_published_dirty;

void wrap_arm(enum wrap_mode new_mode, unsigned at)
{
    mode = new_mode;
    target = at;
    calls = 0;
    armed = true;
}

unsigned wrap_disarm(void)
{
    armed = false;
    return calls;
}

void wrap_forbid_links(bool forbid)
{
    links_forbidden = forbid;
}

enum effect {
    READS,
    CHANGES,
    NEEDS_SPACE
};

/* True if the call must fail; errno is set. Dying before a call that only reads is the same as
 * dying before the next, so those do not count then. */
static bool before(enum effect effect)
{
    if (!armed || (mode == WRAP_KILL && effect == READS))
        return false;
    calls++;
    if (mode == WRAP_KILL && calls == target)
        raise(SIGKILL);
    if ((mode == WRAP_FAIL && calls == target) || (mode == WRAP_BROKEN && calls >= target)) {
        errno = EIO;
        return true;
    }
    if (mode == WRAP_FULL && calls >= target && effect == NEEDS_SPACE) {
        errno = ENOSPC;
        return true;
    }
    return false;
}

/* Accounting, by inode number: each test program uses one file system. */

static void set_dirty(ino_t ino, bool value)
{
    for (size_t i = 0; i < dirty_count; i++) {
        if (dirty[i] != ino)
            continue;
        if (!value)
            dirty[i] = dirty[--dirty_count];
        return;
    }
    if (value && dirty_count < DIRTY_MAX)
        dirty[dirty_count++] = ino;
}

int __real_fstat(int fd, struct stat *st);

static void set_dirty_fd(int fd, bool value)
{
    struct stat st;
    int err = errno;
    if (__real_fstat(fd, &st) == 0)
        set_dirty(st.st_ino, value);
    errno = err;
}

static bool is_dirty(const struct stat *st)
{
    for (size_t i = 0; i < dirty_count; i++)
        if (dirty[i] == st->st_ino)
            return true;
    return false;
}

void wrap_forget(void)
{
    dirty_count = 0;
}

bool wrap_is_dirty(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && is_dirty(&st);
}

static int find_dirty(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path, (void)type, (void)ftw;
    return is_dirty(st);
}

static bool path_of(int fd, char *ret, size_t bytes)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, ret, bytes - 1);
    if (n < 0)
        return false;
    ret[n] = '\0';
    return true;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

static void account_publication(int from_fd, const char *name, int to_fd)
{
    char from[512], to[512], path[1024];
    if (!path_of(from_fd, from, sizeof(from)) || !path_of(to_fd, to, sizeof(to)) ||
        !ends_with(from, "/creating") || !ends_with(to, "/snapshots"))
        return;
    wrap_published++;
    snprintf(path, sizeof(path), "%s/%s", from, name);
    bool torn = nftw(path, find_dirty, 16, FTW_PHYS) != 0;
    snprintf(path, sizeof(path), "%s/../names", from);
    wrap_published_dirty += torn || wrap_is_dirty(path);
}

/* The stand-ins */

void wrap_set_file_system(long type)
{
    file_system = type;
}

WRAPPED(int, fstatfs, int fd, struct statfs *fs)
{
    if (before(READS))
        return -1;
    int r = __real_fstatfs(fd, fs);
    if (file_system)
        fs->f_type = file_system;
    return r;
}

int __real_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t permissions = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (before(flags & O_CREAT ? NEEDS_SPACE : READS))
        return -1;
    int fd = __real_openat(dirfd, path, flags, permissions);
    if (fd >= 0 && flags & O_CREAT) {
        set_dirty_fd(fd, true);
        set_dirty_fd(dirfd, true);
    }
    return fd;
}

WRAPPED(int, mkdirat, int dirfd, const char *path, mode_t permissions)
{
    if (before(NEEDS_SPACE))
        return -1;
    int r = __real_mkdirat(dirfd, path, permissions);
    if (r == 0)
        set_dirty_fd(dirfd, true);
    return r;
}

WRAPPED(int, symlinkat, const char *to, int dirfd, const char *path)
{
    if (before(NEEDS_SPACE))
        return -1;
    int r = __real_symlinkat(to, dirfd, path);
    if (r == 0)
        set_dirty_fd(dirfd, true);
    return r;
}

WRAPPED(int, linkat, int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (before(NEEDS_SPACE))
        return -1;
    if (links_forbidden) {
        errno = EXDEV;
        return -1;
    }
    int r = __real_linkat(from_fd, from, to_fd, to, flags);
    if (r == 0)
        set_dirty_fd(to_fd, true);
    return r;
}

WRAPPED(int, unlinkat, int dirfd, const char *path, int flags)
{
    if (before(CHANGES))
        return -1;
    int r = __real_unlinkat(dirfd, path, flags);
    if (r == 0)
        set_dirty_fd(dirfd, true);
    return r;
}

WRAPPED(int, renameat, int from_fd, const char *from, int to_fd, const char *to)
{
    if (before(CHANGES))
        return -1;
    int r = __real_renameat(from_fd, from, to_fd, to);
    if (r == 0) {
        set_dirty_fd(from_fd, true);
        set_dirty_fd(to_fd, true);
    }
    return r;
}

WRAPPED(int, renameat2, int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (before(CHANGES))
        return -1;
    account_publication(from_fd, from, to_fd);
    int r = __real_renameat2(from_fd, from, to_fd, to, flags);
    if (r == 0) {
        set_dirty_fd(from_fd, true);
        set_dirty_fd(to_fd, true);
    }
    return r;
}

WRAPPED(ssize_t, write, int fd, const void *bytes, size_t count)
{
    if (before(NEEDS_SPACE))
        return -1;
    ssize_t r = __real_write(fd, bytes, count);
    set_dirty_fd(fd, true);
    return r;
}

WRAPPED(int, fsync, int fd)
{
    if (before(NEEDS_SPACE))
        return -1;
    set_dirty_fd(fd, false);
    return 0;
}

WRAPPED(ssize_t, read, int fd, void *bytes, size_t count)
{
    if (before(READS))
        return -1;
    ssize_t r = __real_read(fd, bytes, count);
    return r;
}

WRAPPED(int, fstat, int fd, struct stat *st)
{
    if (before(READS))
        return -1;
    int r = __real_fstat(fd, st);
    return r;
}

WRAPPED(int, fstatat, int dirfd, const char *path, struct stat *st, int flags)
{
    if (before(READS))
        return -1;
    int r = __real_fstatat(dirfd, path, st, flags);
    return r;
}

WRAPPED(ssize_t, readlinkat, int dirfd, const char *path, char *bytes, size_t count)
{
    if (before(READS))
        return -1;
    ssize_t r = __real_readlinkat(dirfd, path, bytes, count);
    return r;
}

WRAPPED(struct dirent *, readdir, DIR *dir)
{
    if (before(READS))
        return NULL;
    struct dirent *r = __real_readdir(dir);
    return r;
}

WRAPPED(int, flock, int fd, int operation)
{
    /* Letting go does not fail; and where it did, the close that follows would do it. */
    if (operation != LOCK_UN && before(CHANGES))
        return -1;
    int r = __real_flock(fd, operation);
    return r;
}
