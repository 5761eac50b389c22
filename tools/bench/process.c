// SPDX-License-Identifier: Apache-2.0
// The shortest program that restores a VM, to be measured from its start. Measures nothing itself.

#include "process.h"
#include "bench.h"
#include <string.h>

static void on_console(void *data, const char *bytes, size_t count)
{
    (void)data;
    if (write(STDOUT_FILENO, bytes, count) < 0)
        _exit(EXIT_FAILURE);
}

int process_embed(char **args)
{
    struct thaw_error error;
    thaw_env *env;
    thaw_store *store;
    thaw_vm *vm;
    const struct thaw_store_options where = {.size = sizeof(where), .path = args[0]};
    const struct thaw_restore_options options = {
        .size = sizeof(options),
        .mode = strcmp(args[2], "eager") == 0 ? THAW_RESTORE_EAGER : THAW_RESTORE_LAZY,
        .console = on_console,
    };
    if (thaw_env_new(NULL, &env, &error) < 0 || thaw_store_open(&where, &store, &error) < 0 ||
        thaw_restore(env, store, args[1], &options, &vm, &error) < 0 ||
        thaw_vm_resume(vm, &error) < 0) {
        fprintf(stderr, "thaw-bench: %s\n", error.message);
        return EXIT_FAILURE;
    }
    thaw_vm_wait(vm, -1);
    return EXIT_SUCCESS;
}
