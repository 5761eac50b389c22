/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls of this program, between the library and the C library (ld --wrap): any of them can
 * be made to fail or to be the last, and what a power failure would lose is kept account of. fsync
 * does that accounting only; it does not reach the disk.
 */
#ifndef TESTS_STORE_WRAP_H
#define TESTS_STORE_WRAP_H

#include <stdbool.h>

enum wrap_mode {
    WRAP_COUNT,  /* nothing fails */
    WRAP_KILL,   /* SIGKILL in place of the call; calls that only read do not count */
    WRAP_FAIL,   /* the one call fails with EIO */
    WRAP_BROKEN, /* it and all later ones fail with EIO */
    WRAP_FULL,   /* it and all later ones that need space fail with ENOSPC */
    WRAP_MODES,
};

/* From now on, the call number `at` (from 1) of this process is treated so. */
void wrap_arm(enum wrap_mode mode, unsigned at);
/* Ends that. Returns how many calls there were. */
unsigned wrap_disarm(void);
/* Makes hard links impossible, as between two file systems. */
void wrap_forbid_links(bool forbid);

/* Makes every file system look like one of this type (0: as it is). */
void wrap_set_file_system(long type);

/* Starts the accounting below anew. */
void wrap_forget(void);
/* What a power failure could undo or tear: true if the file or directory at path was changed and
 * not fsynced since. */
bool wrap_is_dirty(const char *path);
/* How many renames from creating/ to snapshots/ there were, and how many of them published
 * something of which a file, a directory or the name was dirty. */
extern unsigned wrap_published, wrap_published_dirty;

#endif
