/* SPDX-License-Identifier: Apache-2.0 */
/* Role: find who has a snapshot's memory, and be found.
 * Not here: what a descriptor must be like (the library) and requests (client.c, api.c). */
#include "offer.h"
#include "client.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define IMAGES_DIR ".images"
/* Asking takes a fraction of a millisecond where the other is idle. All that are asked together
 * must not hold the restore up for long. */
#define ANSWER_MS 100
#define ASKED_MAX 4

struct offer_path {
    char dir[40];
    char file[40 + NAME_BYTES];
};

static struct offer_path path_of(const char *snapshot_id, const char *name)
{
    struct offer_path path;

    snprintf(path.dir, sizeof(path.dir), "%.36s", snapshot_id);
    snprintf(path.file, sizeof(path.file), "%s/%.*s", path.dir, NAME_BYTES - 1, name);
    return path;
}

/* The directory of all offers, or -1. Where others may make files, too, it could be theirs, and
 * lead us anywhere: only our own is used. */
static int open_images(const struct runtime_slot *slot)
{
    _cleanup_close_ int fd =
        openat(slot->root_fd, IMAGES_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 022))
        return -1;
    return take_fd(&fd);
}

/* Whoever withdraws may remove a directory just when it was made. */
void offer_make(const struct runtime_slot *slot, const char *snapshot_id)
{
    struct offer_path path = path_of(snapshot_id, slot->name);

    for (int attempt = 0; attempt < 3; attempt++) {
        _cleanup_close_ int images_fd = -1, fd = -1;

        mkdirat(slot->root_fd, IMAGES_DIR, 0700);
        images_fd = open_images(slot);
        if (images_fd < 0)
            continue;
        mkdirat(images_fd, path.dir, 0700);
        fd = openat(images_fd, path.file, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0 || errno != ENOENT)
            return;
    }
}

static void remove_offer(const struct runtime_slot *slot, const struct offer_path *path)
{
    _cleanup_close_ int images_fd = open_images(slot);

    if (images_fd < 0)
        return;
    unlinkat(images_fd, path->file, 0);
    if (unlinkat(images_fd, path->dir, AT_REMOVEDIR) == 0)
        unlinkat(slot->root_fd, IMAGES_DIR, AT_REMOVEDIR);
}

void offer_withdraw(const struct runtime_slot *slot, const char *snapshot_id)
{
    struct offer_path path = path_of(snapshot_id, slot->name);

    remove_offer(slot, &path);
}

/* The VM's directory: the slot's socket has the runtime directory's path. NULL: no memory. */
static char *dir_of(const struct runtime_slot *slot, const char *name)
{
    size_t own = strlen(slot->name) + strlen("/" RUNTIME_SOCKET);
    char *path;

    return asprintf(
               &path, "%.*s%s", (int)(strlen(slot->socket_path) - own), slot->socket_path, name) < 0
               ? NULL
               : path;
}

static int ask(
    const struct runtime_slot *slot, const char *name, const char *snapshot_id, int64_t deadline)
{
    _cleanup_free_ char *dir_path = dir_of(slot, name);
    _cleanup_close_ int fd = -ENOENT;
    char target[80];
    int memory_fd = -1, rc;

    /* Somebody else may have taken the name after its VM was gone. */
    if (runtime_is_own(slot, name))
        fd = dir_path ? client_connect(dir_path, deadline, NULL) : -ENOMEM;
    if (fd == -ENOENT || fd == -ECONNREFUSED) {
        struct offer_path path = path_of(snapshot_id, name);

        remove_offer(slot, &path);
    }
    if (fd < 0)
        return -1;
    snprintf(target, sizeof(target), "/v1/image?snapshot=%.36s", snapshot_id);
    rc = client_ask_fd(fd, target, deadline, &memory_fd, NULL);
    return rc < 0 ? -1 : memory_fd;
}

int offer_take(const struct runtime_slot *slot, const char *snapshot_id)
{
    struct offer_path path = path_of(snapshot_id, "");
    _cleanup_close_ int images_fd = open_images(slot);
    int fd = images_fd < 0
                 ? -1
                 : openat(images_fd, path.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    int64_t deadline = now_ms() + ANSWER_MS;
    int memory_fd = -1;

    if (!dir) {
        cleanup_close(&fd);
        return -1;
    }
    for (int asked = 0; asked < ASKED_MAX && memory_fd < 0 && (entry = readdir(dir));) {
        if (!text_is_name(entry->d_name) || strcmp(entry->d_name, slot->name) == 0)
            continue;
        memory_fd = ask(slot, entry->d_name, snapshot_id, deadline);
        asked++;
    }
    closedir(dir);
    return memory_fd;
}
