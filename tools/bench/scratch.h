/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a run: the scratch directory, the page cache, and programs that are started. */
#ifndef BENCH_SCRATCH_H
#define BENCH_SCRATCH_H

#include "bench.h"
#include <sys/types.h>

/* Finds guests and tools beside this program, makes the scratch directory in it a store, and opens
 * the library. scratch_close undoes it all, also half of it, and removes the directory. */
int scratch_open(struct bench *bench, struct thaw_error *error);
void scratch_close(struct bench *bench);

/* dir/name. Returns -ENAMETOOLONG if that does not fit. */
int scratch_path(
    const struct bench *bench, const char *name, char *ret, size_t bytes, struct thaw_error *error);

/* Writes what is dirty and takes all files below the path out of the page cache. */
int scratch_drop_cache(const char *path, struct thaw_error *error);

/* Reads all files below the path into the page cache. Main thread only. */
void scratch_warm_cache(const char *path);

/* Bytes of the files below the path. */
uint64_t scratch_bytes(const char *path);

/* How much this process has had read from storage so far: shows whether a cache was cold. */
uint64_t scratch_bytes_read(void);

/* Starts a program. Its output goes to out_fd, if >= 0, else to nowhere. A file at open_path, if
 * not NULL, is open to be read as its descriptor SCRATCH_OPEN_FD. */
#define SCRATCH_OPEN_FD 3
int scratch_spawn(const char *const *argv, int out_fd, const char *open_path, pid_t *ret_pid,
    struct thaw_error *error);

/* Waits for a program; a status other than `expected` is an error that names the program. */
int scratch_wait(pid_t pid, int expected, const char *name, struct thaw_error *error);

#endif
