/* SPDX-License-Identifier: Apache-2.0 */
/* A shell that is made while the snapshot that it is for is still being opened. */
#ifndef SNAPSHOT_EARLY_SHELL_H
#define SNAPSHOT_EARLY_SHELL_H

#include "vm.h"

struct early_shell {
    struct thaw_env *env;
    struct vm_shape shape;
    char name[VM_NAME_BYTES];
    pthread_t thread;
    bool begun;
    struct thaw_vm *vm;
    int result;
    struct thaw_error error;
};

/* Begins to make a shell on a thread. Where there can be no thread there will be no shell. */
void early_shell_begin(struct early_shell *early, struct thaw_env *env, const char *name,
    const struct vm_shape *shape);

/* Waits for the shell, which is the caller's, as is starting its threads; NULL: none was begun. */
int early_shell_take(struct early_shell *early, struct thaw_vm **ret, struct thaw_error *error);

#endif
