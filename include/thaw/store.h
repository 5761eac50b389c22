/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store: a directory of snapshots, shared by any number of processes on one host. Where a
 * snapshot's directory is, is what state it is in:
 *
 *   CREATING  accepted, and being written; its name is taken
 *   READY     complete and durable; never changes again
 *   FAILED    what is left of one that was not completed: what it was to be, and why it failed
 *   DELETING  its data is being removed
 *   DAMAGED   it was READY, but its description cannot be read; it can be deleted
 *
 * A process that dies at any moment leaves CREATING and DELETING snapshots behind. The next process
 * that opens the store finishes them: what was complete becomes READY, the rest FAILED or gone.
 *
 * A name has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', begins with a letter or a
 * digit, and is not like an id. An id is 32 lower-case hexadecimal characters, drawn at random. The
 * names of templates and of sources are any text of up to 64 bytes without control characters.
 *
 * References to a snapshot (`ref`) are its name, its id, or the first 6 or more characters of its
 * id if no other snapshot's begins with them; a name goes before an id.
 *
 * Threads: all calls may come from any thread, also at the same time, except thaw_store_close,
 * which must be the last. The locks that a call holds are inherited by a child that is forked
 * during it, until the child calls exec or exits.
 */
#ifndef THAW_STORE_H
#define THAW_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/error.h>

#ifdef __cplusplus
extern "C" {
#endif

#define THAW_STORE_CREATE 1u /* make the store if there is none */

struct thaw_store_options {
    size_t size;
    const char *path; /* the store's directory; also for messages where fd is given */
    int fd;           /* the directory already open, instead of path; 0: none. Duplicated */
    uint32_t flags;   /* THAW_STORE_* */
};

typedef struct thaw_store thaw_store;

/* Opens a store, and recovers what dead processes left unless another process is at work just now
 * (thaw_store_recover insists). THAW_STORE_CREATE also makes missing parent directories; an
 * existing directory must be empty. On success *ret is owned by the caller. Errors: -ENOENT,
 * -ENOTDIR, -ENOTEMPTY, -EOPNOTSUPP (the file system is a network's, where locks and renames do not
 * hold what they promise), -errno. */
THAW_API int thaw_store_open(
    const struct thaw_store_options *options, thaw_store **ret, struct thaw_error *error);

/* Gives the caller's reference back; VMs that use the store keep what they need. NULL is allowed.
 */
THAW_API void thaw_store_close(thaw_store *store);

enum thaw_snapshot_state {
    THAW_SNAPSHOT_CREATING = 0,
    THAW_SNAPSHOT_READY = 1,
    THAW_SNAPSHOT_FAILED = 2,
    THAW_SNAPSHOT_DELETING = 3,
    THAW_SNAPSHOT_DAMAGED = 4,
};

/* A constant lower-case word ("ready"); "unknown" for others. */
THAW_API const char *thaw_snapshot_state_name(enum thaw_snapshot_state state);

/* What a store knows of a snapshot. Strings are never NULL; what is not known is empty or 0. Fields
 * may be added at the end. */
struct thaw_snapshot_info {
    enum thaw_snapshot_state state;
    const char *id;
    const char *name;
    const char *source;        /* the VM that it was taken of */
    const char *template_name; /* what that VM was created from */
    const char *parent;        /* the id of the snapshot that a diff was based on, or empty */
    const char *producer;      /* the program and version that made it */
    const char *error;         /* FAILED, DAMAGED: why */
    uint64_t created_ns;       /* since 1970, UTC */
    uint64_t stored_bytes;     /* in files of its own */
    uint64_t shared_bytes;     /* in files that it shares with its ancestors */
    uint64_t mem_bytes;
    uint32_t vcpu_count;
    uint32_t disk_count;
    uint64_t hot_bytes; /* of its recorded working set, which is not part of it; 0: none */
};

/* What to list. Zero fields do not restrict. */
struct thaw_snapshot_query {
    size_t size;
    uint32_t states;           /* 1u << THAW_SNAPSHOT_READY and so on */
    uint32_t page;             /* from 1; 0: 1 */
    uint32_t page_size;        /* 0: all on one page */
    const char *source;        /* exactly */
    const char *template_name; /* exactly */
    const char *text;          /* part of the name, or beginning of the id */
};

typedef struct thaw_snapshot_list thaw_snapshot_list;

/* Lists the newest first. query may be NULL. Sees every snapshot that exists during the whole call
 * exactly once. On success *ret is owned by the caller and independent of the store. */
THAW_API int thaw_store_list(thaw_store *store, const struct thaw_snapshot_query *query,
    thaw_snapshot_list **ret, struct thaw_error *error);

/* A list of the one snapshot that is referred to. Errors: -ENOENT, -ENOTUNIQ (the beginning of
 * several ids), -errno. */
THAW_API int thaw_store_find(
    thaw_store *store, const char *ref, thaw_snapshot_list **ret, struct thaw_error *error);

THAW_API void thaw_snapshot_list_free(thaw_snapshot_list *list);
/* How many are on this page, and how many fit the query on all pages. */
THAW_API size_t thaw_snapshot_list_count(const thaw_snapshot_list *list);
THAW_API size_t thaw_snapshot_list_total(const thaw_snapshot_list *list);
/* How many files and directories were passed over because they do not belong in a store. */
THAW_API size_t thaw_snapshot_list_strays(const thaw_snapshot_list *list);
/* Borrowed until the list is freed; NULL past the end. */
THAW_API const struct thaw_snapshot_info *thaw_snapshot_list_get(
    const thaw_snapshot_list *list, size_t index);

/* Deletes a snapshot, or the record of a failed one. Data that a descendant shares stays until the
 * descendant goes. Errors: -ENOENT, -ENOTUNIQ, -EBUSY (in use, by whom the message says; or still
 * being created), -errno. Where only removing its files failed, it is gone from view, the error
 * says so, and recovery tries again. */
THAW_API int thaw_store_delete(thaw_store *store, const char *ref, struct thaw_error *error);

/* What a recovery did. */
struct thaw_store_recovery {
    size_t size;         /* set by the caller; fields that lie beyond it are not written */
    uint32_t finished;   /* snapshots that were complete and became READY */
    uint32_t failed;     /* snapshots that became FAILED */
    uint32_t removed;    /* unfinished deletions, and creations that had not been accepted yet */
    uint32_t names;      /* names that referred to nothing */
    uint32_t side_files; /* working sets and usage records of what no longer exists */
};

/* Finishes what dead processes left, after waiting up to 10 seconds for the calls of others that
 * are under way (-EBUSY). Never touches what a living process works on. result may be NULL. */
THAW_API int thaw_store_recover(
    thaw_store *store, struct thaw_store_recovery *result, struct thaw_error *error);

#ifdef __cplusplus
}
#endif
#endif
