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
    struct thaw_store_options where = {
        .size = sizeof(where), .path = argc > 2 ? argv[2] : "store", .flags = THAW_STORE_CREATE};
    struct thaw_vm_options what = {.size = sizeof(what), .console = print, .console_data = stdout};
    struct thaw_restore_options how = {
        .size = sizeof(how), .name = "clone", .console = print, .console_data = stderr};
    struct thaw_snapshot_result snapshot = {.size = sizeof(snapshot)};
    struct thaw_error error = {0};
    thaw_env *env = NULL;
    thaw_store *store = NULL;
    thaw_vm *vm = NULL, *clone = NULL;
    thaw_job *job = NULL;
    what.kernel_path = argc > 1 ? argv[1] : "build/guests/tick";
    what.cmdline = "ticks=5";

    if (thaw_env_new(NULL, &env, &error) < 0 || thaw_store_open(&where, &store, &error) < 0 ||
        thaw_vm_new(env, &what, &vm, &error) < 0 || thaw_vm_start(vm, &error) < 0 ||
        thaw_vm_snapshot(vm, store, NULL, &job, &error) < 0 || /* the VM goes on */
        thaw_job_wait(job, -1, &error) < 0 || thaw_job_get_snapshot(job, &snapshot) < 0 ||
        thaw_restore(env, store, snapshot.id, &how, &clone, &error) < 0 ||
        thaw_vm_resume(clone, &error) < 0 || thaw_vm_wait(vm, -1) < 0 ||
        thaw_vm_wait(clone, -1) < 0)
        fprintf(stderr, "%s\n", error.message);

    thaw_job_free(job);
    thaw_vm_free(clone);
    thaw_vm_free(vm);
    thaw_store_close(store);
    thaw_env_free(env);
    return error.code != 0;
}
