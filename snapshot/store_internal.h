/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share. Functions return 0 or -errno unless they say otherwise. */
#ifndef SNAPSHOT_STORE_INTERNAL_H
#define SNAPSHOT_STORE_INTERNAL_H

#include "store.h"
#include "store_fs.h"
#include <stdatomic.h>
#include <sys/file.h>

#define STORE_DIR_MODE     0700
#define STORE_FILE_MODE    0600
#define STORE_HOLDER_BYTES 256
#define STORE_ERROR_BYTES  THAW_ERROR_MESSAGE_BYTES
#define STORE_PREFIX_CHARS 6 /* the shortest beginning of an id that is accepted */

enum store_place {
    STORE_CREATING,
    STORE_SNAPSHOTS,
    STORE_FAILED,
    STORE_TRASH,
    STORE_STATES, /* the places above hold one directory per snapshot */
    STORE_NAMES = STORE_STATES,
    STORE_HOT,
    STORE_USERS,
    STORE_PLACES,
};

extern const char *const store_place_names[STORE_PLACES];

/* Whether an error is this process's lack of memory or descriptors, and says nothing of what is
 * stored. */
static inline bool store_is_lack(int r)
{
    return r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

/* A manifest that was read and found to be good, and the text that it was. */
struct store_manifest {
    struct manifest m;
    char *text;
    size_t bytes;
};

/* Constant after opening, but for what is atomic, so any thread may use it. */
struct thaw_store {
    atomic_uint references;
    int fd;
    int places[STORE_PLACES];
    char *path; /* for messages */
    /* What was looked at last. Whoever is told of a snapshot is likely to restore it next: reading
     * the same text again would come to the same, and takes a twentieth of `thaw restore`. */
    struct store_manifest *_Atomic last_read;
};

/* store_lock.c: locks, and who holds what. */

/* operation: LOCK_SH, which waits; or LOCK_EX, which waits up to timeout_ms (-EBUSY). */
int store_lock(const struct thaw_store *store, int operation, int timeout_ms, int *ret_fd,
    struct thaw_error *error);
void store_unlock(int *fd);
static inline void cleanup_unlock(int *fd)
{
    store_unlock(fd);
}
#define _cleanup_unlock_ _cleanup_(cleanup_unlock)

/* flock with LOCK_NB; -EBUSY if someone else has it. */
int store_try_lock(int fd, int operation);
void store_add_user(struct store_snapshot *snapshot, const char *holder);
void store_remove_user(struct store_snapshot *snapshot);
/* Who holds a snapshot's directory, for an error message. */
void store_describe_users(
    const struct thaw_store *store, const char *id, int fd, char *ret, size_t bytes);
/* Removes the records of holders that are gone: of one snapshot, or with NULL of all. Only where no
 * holder can come: with store.lock exclusive, or with the directory's lock exclusive. */
int store_sweep_users(const struct thaw_store *store, const char *id, uint32_t *removed);

/* store_get.c */

struct store_location {
    enum store_place place;
    char id[MANIFEST_ID_BYTES];
};

/* Finds what ref stands for, in whatever state. -ENOENT, -ENOTUNIQ, -errno. */
int store_resolve(const struct thaw_store *store, const char *ref, struct store_location *ret,
    struct thaw_error *error);
/* Where a snapshot is now; -ENOENT if nowhere. */
int store_locate(const struct thaw_store *store, const char *id, enum store_place *ret);
/* Reads dirfd/manifest.json and checks that it is of this id. What was left for the next reader is
 * taken over by whoever reads the same text. */
int store_read_manifest(struct thaw_store *store, int dirfd, const char *id, struct manifest *ret,
    struct thaw_error *error);
int store_look_at_manifest(struct thaw_store *store, int dirfd, const char *id,
    struct store_manifest **ret, struct thaw_error *error);
/* Ends looking at it, and leaves it for the next reader. */
void store_leave_manifest(struct thaw_store *store, struct store_manifest *manifest);
void store_manifest_free(struct store_manifest *manifest);
/* Reads dirfd/error. ret is empty if there is none; -ENOENT then. */
int store_read_error(int dirfd, char ret[STORE_ERROR_BYTES]);

/* store_create.c: what recovery and abort share. */

int store_write_manifest(int dirfd, const struct manifest *m, struct thaw_error *error);
/* Keeps a directory in creating/ from ever being published. */
int store_mark_failed(int dirfd, const char *text);
/* Checks that the files are as the manifest says, and that there are no others; makes them durable.
 */
int store_check_files(int dirfd, const struct manifest *m, struct thaw_error *error);
/* Moves between two places and makes that durable; moves back if it cannot. */
int store_move(
    const struct thaw_store *store, const char *id, enum store_place from, enum store_place to);
/* From creating/ to failed/, data removed and name released. fd is open on the directory. */
int store_fail(const struct thaw_store *store, const char *id, int fd, const char *text,
    struct thaw_error *error);

/* store_delete.c */

int store_has_name(const struct thaw_store *store, const char *id); /* 1, 0 or -errno */
/* Removes every name that refers to id, and makes that durable. */
int store_release_names(const struct thaw_store *store, const char *id);
/* Removes trash/<id> and the side files; fd is open on it and locked. */
int store_empty_trash(const struct thaw_store *store, const char *id, int fd);

/* store_recover.c */

/* timeout_ms 0: only if nobody is at work (-EBUSY). all: also looks through names and side files
 * when there is no unfinished work. */
int store_recover(struct thaw_store *store, int timeout_ms, bool all,
    struct thaw_store_recovery *ret, struct thaw_error *error);

#endif
