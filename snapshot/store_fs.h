/* SPDX-License-Identifier: Apache-2.0 */
/* Files and directories, with descriptors and without following symlinks. Functions return 0 or
 * -errno unless they say otherwise. */
#ifndef SNAPSHOT_STORE_FS_H
#define SNAPSHOT_STORE_FS_H

#include "util.h"

/* Calls fn for every entry but "." and ".."; a negative result ends the walk and is returned. */
typedef int (*fs_entry_fn)(void *data, const char *name);
int fs_each(int dirfd, fs_entry_fn fn, void *data);
int fs_open_dir(int dirfd, const char *name); /* a descriptor, or -errno */
int fs_sync(int fd);
/* All of it, wherever fd stands. */
int fs_write_all(int fd, const void *bytes, size_t count);
/* Replaces a file atomically; durable except for its entry in dirfd. */
int fs_write_file(int dirfd, const char *name, const char *bytes, size_t count);
/* A whole regular file of at most max bytes (-EFBIG), malloced, with a NUL after it. */
int fs_read_file(int dirfd, const char *name, size_t max, char **ret, size_t *ret_bytes);
/* Removes what is below dirfd, except the entries that are named in keep (NULL-terminated), which
 * need not exist. */
int fs_remove_below(int dirfd, const char *const *keep);
/* Removes a directory with all that is in it; 0 if there is none. fd is open on it. */
int fs_remove_dir(int parent_fd, const char *name, int fd);
/* Renames a directory to where nothing is. */
int fs_move(int from_dirfd, int to_dirfd, const char *name);
int fs_copy(int from_dirfd, int to_dirfd, const char *name);
/* True if name in dirfd is what fd is open on. */
bool fs_is_at(int dirfd, const char *name, int fd);
/* Reads a symlink into ret; -ENAMETOOLONG if it does not fit. */
int fs_read_link(int dirfd, const char *name, char *ret, size_t bytes);
int fs_random_hex(char *ret, size_t chars); /* and a NUL */

#endif
