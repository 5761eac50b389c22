// SPDX-License-Identifier: Apache-2.0
// The example of README.md, which shows it from here on:
#include <stdio.h>
#include <thaw/thaw.h>

static void print(void *file, const char *bytes, size_t count)
{
    fwrite(bytes, 1, count, file);
}

int main(int argc, char **argv)
{
    struct thaw_vm_options options = {.size = sizeof(options), .console = print};
    struct thaw_error error = {0};
    thaw_env *env = NULL;
    thaw_vm *vm = NULL;
    options.kernel_path = argc > 1 ? argv[1] : "build/guests/tick";
    options.cmdline = "ticks=3";
    options.console_data = stdout;
    if (thaw_env_new(NULL, &env, &error) < 0 || thaw_vm_new(env, &options, &vm, &error) < 0 ||
        thaw_vm_start(vm, &error) < 0 || thaw_vm_wait(vm, -1) < 0)
        fprintf(stderr, "%s\n", error.message);
    thaw_vm_free(vm);
    thaw_env_free(env);
    return error.code != 0;
}
