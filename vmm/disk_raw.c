// SPDX-License-Identifier: Apache-2.0
// The bottom layer of a disk: a raw image that is only read.
// Does not interpret what is in it.

#include "disk_layer.h"
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

struct disk_raw {
    struct disk_layer layer;
    int fd;
    uint64_t mtime_ns;
};

static void raw_lookup(
    const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret)
{
    const struct disk_raw *raw = CONTAINER_OF(layer, const struct disk_raw, layer);
    *ret = (struct disk_extent){.kind = DISK_EXTENT_FILE,
        .fd = raw->fd,
        .file_off = block << DISK_BLOCK_SHIFT,
        .blocks = count};
}

static void raw_free(struct disk_layer *layer)
{
    struct disk_raw *raw = CONTAINER_OF(layer, struct disk_raw, layer);
    close(raw->fd);
    free(raw);
}

static const struct disk_layer_ops raw_ops = {.lookup = raw_lookup, .free = raw_free};

/* Opens the image by name. Without O_NONBLOCK, opening a FIFO by mistake would wait for ever; with
 * it left on, io_uring would refuse to wait for the disk. */
static int open_path(const char *path, const char *what, int *ret_fd, struct thaw_error *error)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_errno(error, errno, "opening %s", what);
    if (fcntl(fd, F_SETFL, 0) < 0)
        return error_errno(error, errno, "opening %s", what);
    if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return error_set(error, -EBUSY,
            "opening %s: another program has locked it for writing; stop that program or use a "
            "copy",
            what);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* A descriptor of our own for the caller's file. With an open file description of our own too,
 * where /proc lets us: flags and locks of the caller's stay the caller's. */
static int open_fd(int fd, const char *what, int *ret_fd, struct thaw_error *error)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r = open_path(path, what, ret_fd, NULL);
    if (r == 0)
        return 0;
    if (r == -EBUSY)
        return open_path(path, what, ret_fd, error);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return error_errno(error, errno, "using %s", what);
    if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH))
        return error_set(error, -EBADF, "using %s: it is not open for reading", what);
    *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return *ret_fd >= 0 ? 0 : error_errno(error, errno, "using %s", what);
}

static int examine(
    int fd, const char *what, uint64_t *ret_bytes, uint64_t *ret_mtime_ns, struct thaw_error *error)
{
    struct stat st;
    uint64_t bytes = 0;
    if (fstat(fd, &st) < 0)
        return error_errno(error, errno, "looking at %s", what);
    if (S_ISDIR(st.st_mode))
        return error_set(error, -EISDIR, "%s is a directory", what);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(error, -EINVAL, "%s is neither a regular file nor a block device", what);
    if (S_ISREG(st.st_mode))
        bytes = (uint64_t)st.st_size;
    else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
        return error_errno(error, errno, "asking for the size of %s", what);

    if (bytes == 0)
        return error_set(error, -EINVAL, "%s is empty", what);
    if (bytes % DISK_SECTOR_BYTES != 0)
        return error_set(error, -EINVAL,
            "%s has %" PRIu64 " bytes, which is no multiple of 512: a raw disk image is needed",
            what, bytes);
    if (bytes > DISK_BYTES_MAX)
        return error_set(
            error, -EFBIG, "%s has %" PRIu64 " bytes: more than a disk may have", what, bytes);
    *ret_bytes = bytes;
    *ret_mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    return 0;
}

int disk_raw_open(const char *path, int fd, struct disk_layer **ret, uint64_t *ret_bytes,
    struct thaw_error *error)
{
    char what[256];
    _cleanup_close_ int own_fd = -1;
    uint64_t bytes = 0, mtime_ns = 0;
    int r;
    if (fd > 0) {
        snprintf(what, sizeof(what), "base image (descriptor %d)", fd);
        r = open_fd(fd, what, &own_fd, error);
    } else if (path) {
        snprintf(what, sizeof(what), "base image '%s'", path);
        r = open_path(path, what, &own_fd, error);
    } else {
        r = error_set(error, -EINVAL, "a disk needs a base image, by path or descriptor");
    }
    if (r < 0)
        return r;
    r = examine(own_fd, what, &bytes, &mtime_ns, error);
    if (r < 0)
        return r;

    struct disk_raw *raw = calloc(1, sizeof(*raw));
    if (!raw)
        return error_errno(error, ENOMEM, "opening %s", what);
    raw->layer.ops = &raw_ops;
    raw->fd = take_fd(&own_fd);
    raw->mtime_ns = mtime_ns;
    *ret = &raw->layer;
    *ret_bytes = bytes;
    return 0;
}

uint64_t disk_raw_mtime_ns(const struct disk_layer *layer)
{
    return CONTAINER_OF(layer, const struct disk_raw, layer)->mtime_ns;
}
