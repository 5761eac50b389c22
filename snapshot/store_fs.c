// SPDX-License-Identifier: Apache-2.0
// File operations below a directory's descriptor that follow no symlink. Knows nothing of
// snapshots.

#include "store_internal.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>

#define DIR_DEPTH_MAX 8
#define COPY_CHUNK    ((size_t)256 << 10)
#define REMOVE_ROUNDS 16 /* some file systems skip entries that move while a directory is read */

static void cleanup_closedir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

int fs_open_dir(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int fs_each(int dirfd, fs_entry_fn fn, void *data)
{
    int fd = fs_open_dir(dirfd, "."); /* its own read position */
    if (fd < 0)
        return fd;
    _cleanup_(cleanup_closedir) DIR *dir = fdopendir(fd);
    if (!dir) {
        int r = -errno;
        close(fd);
        return r;
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry)
            return -errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int r = fn(data, entry->d_name);
        if (r < 0)
            return r;
    }
}

int fs_sync(int fd)
{
    /* Not repeated, also not after EINTR: the kernel may have dropped what it could not write. */
    return fsync(fd) < 0 ? -errno : 0;
}

int fs_write_all(int fd, const void *bytes, size_t count)
{
    const char *at = bytes;
    while (count > 0) {
        ssize_t n = write(fd, at, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        count -= (size_t)n;
    }
    return 0;
}

int fs_write_file(int dirfd, const char *name, const char *bytes, size_t count)
{
    char temporary[64];
    snprintf(temporary, sizeof(temporary), "%s.tmp", name);
    if (unlinkat(dirfd, temporary, 0) < 0 && errno != ENOENT)
        return -errno;
    _cleanup_close_ int fd =
        openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, STORE_FILE_MODE);
    if (fd < 0)
        return -errno;
    int r = fs_write_all(fd, bytes, count);
    if (r == 0)
        r = fs_sync(fd);
    if (r == 0 && renameat(dirfd, temporary, dirfd, name) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(dirfd, temporary, 0);
    return r;
}

static int read_all(int fd, char *bytes, size_t max, size_t *ret_count)
{
    size_t count = 0;
    while (count < max) {
        ssize_t n = read(fd, bytes + count, max - count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        count += (size_t)n;
    }
    *ret_count = count;
    return 0;
}

int fs_read_file(int dirfd, const char *name, size_t max, char **ret, size_t *ret_bytes)
{
    /* O_NONBLOCK: somebody may have put a FIFO there. */
    _cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if ((uint64_t)st.st_size > max)
        return -EFBIG;
    size_t bytes = (size_t)st.st_size;
    _cleanup_free_ char *text = malloc(bytes + 1);
    if (!text)
        return -ENOMEM;
    int r = read_all(fd, text, bytes, &bytes);
    if (r < 0)
        return r;
    text[bytes] = '\0';
    *ret = take_ptr(text);
    *ret_bytes = bytes;
    return 0;
}

struct removal {
    int dirfd;
    unsigned depth;
    const char *const *keep;
    bool removed_any;
};

static int remove_below(int dirfd, const char *const *keep, unsigned depth);

static int remove_entry(void *data, const char *name)
{
    struct removal *removal = data;
    for (const char *const *keep = removal->keep; keep && *keep; keep++)
        if (strcmp(*keep, name) == 0)
            return 0;
    removal->removed_any = true;
    if (unlinkat(removal->dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return -errno;
    if (removal->depth >= DIR_DEPTH_MAX)
        return -ELOOP;
    _cleanup_close_ int fd = fs_open_dir(removal->dirfd, name);
    if (fd < 0)
        return fd;
    int r = remove_below(fd, NULL, removal->depth + 1);
    if (r == 0 && unlinkat(removal->dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = -errno;
    return r;
}

static int remove_below(int dirfd, const char *const *keep, unsigned depth)
{
    struct removal removal = {.dirfd = dirfd, .depth = depth, .keep = keep, .removed_any = true};
    int r = 0;
    for (int i = 0; i < REMOVE_ROUNDS && r == 0 && removal.removed_any; i++) {
        removal.removed_any = false;
        r = fs_each(dirfd, remove_entry, &removal);
    }
    return r;
}

int fs_remove_below(int dirfd, const char *const *keep)
{
    return remove_below(dirfd, keep, 0);
}

int fs_remove_dir(int parent_fd, const char *name, int fd)
{
    /* The description goes last, so that what is half gone can still be told apart. */
    static const char *const keep[] = {"manifest.json", NULL};
    int r = fs_remove_below(fd, keep);
    if (r == 0)
        r = fs_remove_below(fd, NULL);
    if (r == 0 && unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = -errno;
    return r;
}

int fs_move(int from_dirfd, int to_dirfd, const char *name)
{
    return renameat2(from_dirfd, name, to_dirfd, name, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

static int copy_bytes(int from, int to)
{
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    _cleanup_free_ char *chunk = malloc(COPY_CHUNK);
    if (!chunk)
        return -ENOMEM;
    for (;;) {
        size_t count;
        int r = read_all(from, chunk, COPY_CHUNK, &count);
        if (r == 0)
            r = fs_write_all(to, chunk, count);
        if (r < 0 || count == 0)
            return r;
    }
}

int fs_copy(int from_dirfd, int to_dirfd, const char *name)
{
    _cleanup_close_ int from =
        openat(from_dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (from < 0 || fstat(from, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    _cleanup_close_ int to =
        openat(to_dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, STORE_FILE_MODE);
    if (to < 0)
        return -errno;
    int r = copy_bytes(from, to);
    if (r < 0)
        unlinkat(to_dirfd, name, 0);
    return r;
}

bool fs_is_at(int dirfd, const char *name, int fd)
{
    struct stat there, here;
    return fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &here) == 0 &&
           there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

int fs_read_link(int dirfd, const char *name, char *ret, size_t bytes)
{
    ssize_t n = readlinkat(dirfd, name, ret, bytes);
    if (n < 0)
        return -errno;
    if ((size_t)n >= bytes)
        return -ENAMETOOLONG;
    ret[n] = '\0';
    return 0;
}

int fs_random_hex(char *ret, size_t chars)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[MANIFEST_ID_CHARS];
    if (chars > sizeof(bytes))
        return -EINVAL;
    /* Up to 256 bytes come whole and uninterrupted. */
    if (getrandom(bytes, chars, 0) != (ssize_t)chars)
        return -errno;
    for (size_t i = 0; i < chars; i++)
        ret[i] = hex[bytes[i] & 15];
    ret[chars] = '\0';
    return 0;
}
