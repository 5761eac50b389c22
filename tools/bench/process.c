// SPDX-License-Identifier: Apache-2.0
// The shortest programs that restore a VM, to be measured from their start. Measure nothing
// themselves.

#include "process.h"
#include "floor.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

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

int process_rawfile(char **args)
{
    static struct floor_state state;
    struct floor_vm vm;
    struct thaw_error error = {0};
    struct stat st = {0};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int file = open(args[0], O_RDONLY | O_CLOEXEC);
    int state_file = open(args[1], O_RDONLY | O_CLOEXEC);
    if (kvm < 0 || file < 0 || fstat(file, &st) < 0 ||
        read(state_file, &state, sizeof(state)) != sizeof(state))
        return EXIT_FAILURE;
    uint8_t *ram = floor_map(NULL, (uint64_t)st.st_size, file);
    if (!ram || floor_vm_open(kvm, ram, (uint64_t)st.st_size, false, &vm, &error) < 0 ||
        floor_state_restore(&vm, &state, &error) < 0)
        return EXIT_FAILURE;
    floor_vm_pump(&vm, STDOUT_FILENO, &error);
    return EXIT_FAILURE;
}
