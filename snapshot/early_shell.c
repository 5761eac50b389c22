// SPDX-License-Identifier: Apache-2.0
// Makes a shell beside whatever the caller does. Decides neither when nor for what.

#include "early_shell.h"
#include "thread.h"
#include "util.h"
#include <stdio.h>

static void *make_shell(void *data)
{
    struct early_shell *early = data;
    early->result = vm_new_shell(early->env, early->name, &early->shape, VM_THREADS_NONE, NULL,
        NULL, &early->vm, &early->error);
    return NULL;
}

void early_shell_begin(
    struct early_shell *early, struct thaw_env *env, const char *name, const struct vm_shape *shape)
{
    *early = (struct early_shell){.env = env, .shape = *shape};
    snprintf(early->name, sizeof(early->name), "%s", name);
    early->begun = thread_start_aside(&early->thread, "thaw/shell", make_shell, early) == 0;
}

int early_shell_take(struct early_shell *early, struct thaw_vm **ret, struct thaw_error *error)
{
    *ret = NULL;
    if (!early->begun)
        return 0;
    pthread_join(early->thread, NULL);
    early->begun = false;
    if (early->result < 0 && error)
        *error = early->error;
    if (early->result == 0)
        *ret = early->vm;
    return early->result;
}
