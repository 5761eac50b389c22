/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime directory: one directory per VM, named after it, that tells other processes what
 * runs.
 *
 *   lock          locked by the process that owns the VM for as long as it lives
 *   api.sock      its control socket
 *   status.json   the VM as of its last change of state, replaced as a whole
 *   console.log   what the guest wrote, and console.log.1 what it wrote before
 *
 * Whether a VM lives is decided by the lock alone, never by a process id. The lock is of the "open
 * file description" kind, because that kind can be asked about without taking it: a reader never
 * makes a creator believe that the name is in use. Everything here is private to the user (0700).
 */
#ifndef TOOLS_RUNTIME_H
#define TOOLS_RUNTIME_H

#include "text.h"
#include "util.h"
#include <thaw/error.h>

#define RUNTIME_SOCKET  "api.sock"
#define RUNTIME_LOG     "console.log"
#define RUNTIME_OLD_LOG "console.log.1"

/* A claimed name: the caller owns the VM's directory. */
struct runtime_slot {
    char name[NAME_BYTES];
    char *socket_path; /* absolute */
    int root_fd;
    int dir_fd;
    int lock_fd;
};

/* Takes the name and empties its directory. -EBUSY: a living process has it; -ENAMETOOLONG: the
 * socket's path would not fit; -EPERM: the directory is another user's, or others can change it. */
int runtime_claim(const char *name, struct runtime_slot *ret, struct thaw_error *error);

/* Replaces status.json. */
int runtime_write_status(
    const struct runtime_slot *slot, const json_t *status, struct thaw_error *error);

/* Gives the name back. With `remove` the record goes, too. A slot that was never claimed (all fds
 * -1) is fine. */
void runtime_release(struct runtime_slot *slot, bool remove);

/* What a reader finds. */
struct runtime_entry {
    char name[NAME_BYTES];
    char *dir_path; /* absolute */
    bool alive;     /* a process holds the lock */
    json_t *status; /* status.json; NULL if there is none yet */
};

/* -ENOENT: there is neither a living process nor a record. */
int runtime_find(const char *name, struct runtime_entry *ret, struct thaw_error *error);

/* All VMs and records in the order of their names; none if there is no runtime directory. */
int runtime_list(struct runtime_entry **ret, size_t *ret_count, struct thaw_error *error);

void runtime_entry_fini(struct runtime_entry *entry);
void runtime_list_free(struct runtime_entry *entries, size_t count);

/* True while a process holds the name. */
bool runtime_is_alive(const struct runtime_entry *entry);

/* True if another VM's directory is the user's own, and nobody else can change it. */
bool runtime_is_own(const struct runtime_slot *slot, const char *name);

/* Removes the record of a VM whose process is gone. -EBUSY if it has one; no error if another
 * process was faster. */
int runtime_remove(const char *name, struct thaw_error *error);

#endif
