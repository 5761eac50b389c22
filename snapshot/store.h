/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: where snapshots live, and how they come and go without a moment at which a crash could
 * leave half of one. Knows nothing of the files in a snapshot but manifest.json; docs/store.md is
 * normative for the layout.
 *
 * Who holds which lock when. All are flock()s, each on an open file description of its own, all
 * descriptors close-on-exec, released with LOCK_UN so that a forked child cannot prolong them.
 *
 *   store.lock   shared     while an operation changes what is where: begin, commit, abort, get,
 *                           delete; each for the moment only, not for the life of a handle
 *                exclusive  by recovery while it judges and moves
 *   <id>/        exclusive  by its creator from begin to the end of commit or abort;
 *                           by a deleter and by recovery while they move and remove it
 *                shared     by every struct store_snapshot, for as long as it exists
 *   users/<...>  exclusive  by the same, for as long as its record of who it is exists
 *
 * Order: store.lock before <id>/ before users/. A creator, who holds <id>/, takes store.lock shared
 * in commit and abort; that cannot deadlock, because the only ones to take it exclusive, recovery,
 * never wait for a directory's lock. A reader waits, in small steps, for a directory that is just
 * being published or deleted, and gives up when it is gone. Listing takes no lock.
 *
 * Every operation that changes something is ordered so that recovery, seeing only what is on disk,
 * does the right thing after each of its steps:
 *   begin    directory, manifest (identity only), name. No name yet: never accepted, removed
 *   commit   manifest (complete), rename to snapshots/. Complete and no "error" file: finished
 *   abort    "error" file, data, name, rename to failed/
 *   delete   rename to trash/, name, data
 */
#ifndef SNAPSHOT_STORE_H
#define SNAPSHOT_STORE_H

#include "manifest.h"
#include <thaw/store.h>

struct store_creation;

/* A snapshot that is held: it cannot be deleted while this exists. Owned by whoever got it. */
struct store_snapshot {
    struct thaw_store *store;
    int fd; /* its directory: openat() below it only, with O_NOFOLLOW */
    struct manifest manifest;
    int user_fd; /* the record of the holder, or -1 */
    char user_name[MANIFEST_ID_BYTES + 16];
};

struct store_request {
    const char *name;          /* NULL: "<template>-<6 characters>" */
    const char *template_name; /* a label; may be NULL */
    const char *source;        /* a label; may be NULL */
};

struct thaw_store *store_ref(struct thaw_store *store);
void store_unref(struct thaw_store *store);

/* Accepts the work: when it returns 0, the name is reserved and that will survive a crash. Errors:
 * -EINVAL (a name or label that is not allowed), -EEXIST (the name is in use, by what the message
 * says), -errno. */
int store_begin(struct thaw_store *store, const struct store_request *request,
    struct store_creation **ret, struct thaw_error *error);

/* The id and name that were given; valid as long as the creation. */
const char *store_creation_id(const struct store_creation *creation);
const char *store_creation_name(const struct store_creation *creation);

/* The directory to write into (files directly below it, and below packs/). Borrowed. Files are
 * made with O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC; commit fsyncs them. */
int store_creation_dirfd(const struct store_creation *creation);
int store_creation_packs_dirfd(const struct store_creation *creation);

/* Makes packs/<pack_id> the same file as in the snapshot directory source_dirfd: a hard link, or
 * where that is not possible a reflink, or a copy. -EEXIST if it is there already. */
int store_link_pack(struct store_creation *creation, int source_dirfd, const char *pack_id,
    struct thaw_error *error);

/* Publishes: on 0 the snapshot is READY and durable, and the creation is freed. The manifest lists
 * every file that was written; its identity members and `complete` are filled in here. On failure
 * nothing was published, the creation still exists, and all that can be done with it is
 * store_abort. */
int store_commit(
    struct store_creation *creation, struct manifest *manifest, struct thaw_error *error);

/* Gives the work up: data is removed, the name released, a FAILED record with the text is kept.
 * Frees the creation in any case; where a step failed, recovery does the rest. NULL is allowed. */
int store_abort(struct store_creation *creation, const char *text, struct thaw_error *error);

/* Opens a READY snapshot, verifies its manifest and keeps it from being deleted. holder is who to
 * name when someone tries ("VM web-1"); NULL: only the process will be named. The record of it is
 * kept as far as possible: a store that is not writable can be read all the same. Errors: -ENOENT,
 * -ENOTUNIQ, -EBUSY (just being published or deleted, for over 2 seconds), THAW_ESTATE (not READY),
 * THAW_ECORRUPT and -EOPNOTSUPP (as manifest_decode), -errno. */
int store_get(struct thaw_store *store, const char *ref, const char *holder,
    struct store_snapshot **ret, struct thaw_error *error);
void store_put(struct store_snapshot *snapshot);

/* The directory of hot files, which are named "<id>", or "<id>.<anything>" while they are written,
 * with an exclusive flock. Borrowed. They go with their snapshot. */
int store_hot_dirfd(const struct thaw_store *store);

#endif
