/* SPDX-License-Identifier: Apache-2.0 */
/* What commands do to VMs of other processes. */
#ifndef TOOLS_CONTROL_H
#define TOOLS_CONTROL_H

#include "runtime.h"
#include <thaw/vm.h>

#define CONTROL_ANSWER_MS 10000

/* Connects to the living VM of this name; waits a little while one is starting. -ENOENT: there is
 * no such VM; -ESRCH: it has ended (*ret_entry is valid then, too). ret_entry is to be finished by
 * the caller if this returns a descriptor or -ESRCH. */
int control_connect(const char *name, struct runtime_entry *ret_entry, struct thaw_error *error);

/* Asks for a state and waits until the VM has it. *ret_vm (NULL allowed) is the VM then. */
int control_set_state(
    const char *name, enum thaw_vm_state state, json_t **ret_vm, struct thaw_error *error);

/* Puts a VM back to its snapshot, `clock` being the policy's name. *ret_vm as above. */
int control_reset(const char *name, const char *clock, json_t **ret_vm, struct thaw_error *error);

/* Stops a VM and waits until its process is gone; of one that has ended, removes the record. */
int control_stop(const char *name, json_t **ret_vm, struct thaw_error *error);

/* A descriptor of the process at the other end of a connection, or -1. */
int control_open_process(int fd);

/* Waits until the VM's process is gone. */
int control_wait_gone(int pid_fd, const struct runtime_entry *entry, struct thaw_error *error);

/* The VM that a dead process left, as it is to be shown. Borrowed from the entry. */
json_t *control_last_words(struct runtime_entry *entry);

#endif
