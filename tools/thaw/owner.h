/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM and the one thread that owns it: it makes all calls into the library, serves the control
 * socket, and keeps the VM's record up to date. The vCPUs run on threads of the library.
 */
#ifndef TOOLS_OWNER_H
#define TOOLS_OWNER_H

#include "console.h"
#include "loop.h"
#include "server.h"
#include "vm_json.h"

struct owner;

/* Called once a turn; returns in how many milliseconds to be called again, -1: whenever there is
 * something. `last` is true when the VM has ended: 0 then means that all is done. */
typedef int (*owner_turn_fn)(void *data, bool last);

/* Claims the name, boots or restores the VM, opens its control socket and starts it; nobody finds
 * it by its record yet. `config` is copied; its strings are borrowed until owner_close. The caller
 * has blocked the signals that it wants handled by owner_run. */
int owner_open(const struct vm_config *config, struct owner **ret, struct thaw_error *error);

/* Writes the VM's record, and offers its memory to others who restore the same, after what the
 * guest prints first, if `turn` delivers it: people wait for that. Before owner_run. */
int owner_announce(struct owner *owner, owner_turn_fn turn, void *data, struct thaw_error *error);

/* Stops the VM if need be, and gives the name back. The record stays if the VM ended by itself.
 * NULL is allowed. */
void owner_close(struct owner *owner);

/* Runs until the VM has ended. SIGINT, SIGTERM, SIGHUP and SIGQUIT stop it. turn may be NULL. */
void owner_run(struct owner *owner, owner_turn_fn turn, void *data);

const char *owner_name(const struct owner *owner); /* the VM's */
struct loop *owner_loop(struct owner *owner);
struct console *owner_console(struct owner *owner);
void owner_get_info(struct owner *owner, struct thaw_vm_info *ret);

/* The VM object; NULL if memory is short. The caller owns it. */
json_t *owner_describe(struct owner *owner);

/* Pauses, resumes or stops. The VM's record is up to date afterwards. */
int owner_set_state(struct owner *owner, enum thaw_vm_state state, struct thaw_error *error);

/* Puts the VM back to the snapshot that it was restored from. The same holds for its record. */
int owner_reset(struct owner *owner, enum thaw_clock clock, struct thaw_error *error);

/* Starts to take a snapshot, into `store` (an absolute path) or, if that is NULL, the VM's own;
 * *ret follows it. What options do not say is as the VM was made with. */
int owner_snapshot(struct owner *owner, const char *store,
    const struct thaw_snapshot_options *options, struct server_stream *ret,
    struct thaw_error *error);

/* False: none is being taken. */
bool owner_cancel_snapshot(struct owner *owner);

/* The memory of snapshot `id`, complete and sealed, if that is what the VM was restored from;
 * borrowed. THAW_ESTATE otherwise. */
int owner_image_fd(struct owner *owner, const char *id, struct thaw_error *error);

/* Offers input to the guest's serial port; returns how many bytes were taken. */
int owner_input(struct owner *owner, const char *bytes, size_t count, struct thaw_error *error);

#endif
