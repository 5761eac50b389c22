// SPDX-License-Identifier: Apache-2.0
// Makes a golden snapshot: make_golden DIRECTORY. Once a release; see README.md.

#include "check.h"
#include "vm.h"
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <thaw/thaw.h>
#include <unistd.h>

#define TICKS 12

static struct thaw_error error;

static void must(int r)
{
    if (r < 0)
        errx(1, "%s", error.message);
}

static thaw_vm *make_source(thaw_env *env)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    struct thaw_vm_options options = {
        .size = sizeof(options),
        .name = "golden",
        .kernel_path = THAW_GUEST_DIR "/tick",
        .cmdline = "interval=3000000 nonce=golden",
        .mem_bytes = 16 << 20,
    };
    thaw_vm *vm;
    must(thaw_vm_new(env, &options, &vm, &error));
    must(thaw_vm_start(vm, &error));
    while (info.mark < TICKS && thaw_vm_wait(vm, 1) < 0)
        must(thaw_vm_get_info(vm, &info));
    must(thaw_vm_pause(vm, &error));
    return vm;
}

static void take(thaw_store *store, thaw_vm *vm)
{
    struct thaw_snapshot_options options = {
        .size = sizeof(options), .name = "golden", .template_name = "golden"};
    thaw_job *job;
    must(thaw_vm_snapshot(vm, store, &options, &job, &error));
    must(thaw_job_wait(job, -1, &error));
    thaw_job_free(job);
}

static void write_expected(const char *directory, thaw_vm *vm)
{
    char path[4096];
    struct thaw_vm_info info = {.size = sizeof(info)};
    struct check_stream *stream = check_stream_new();
    uint64_t behind = MACHINE_VMGENID_GPA + PAGE_BYTES;
    must(thaw_vm_get_info(vm, &info));
    check_stream_add(stream, vm->mem.base, MACHINE_VMGENID_GPA);
    check_stream_add(stream, vm->mem.base + behind, vm->mem.bytes - behind);
    struct wire_b16 sum = check_stream_result(stream);
    check_stream_free(stream);
    snprintf(path, sizeof(path), "%s/expected", directory);
    FILE *file = fopen(path, "w");
    if (!file)
        err(1, "%s", path);
    fprintf(file, "tick %u\nmemory ", info.mark);
    for (size_t i = 0; i < sizeof(sum.bytes); i++)
        fprintf(file, "%02x", sum.bytes[i]);
    fprintf(file, "\n");
    fclose(file);
}

int main(int argc, char **argv)
{
    char store_path[] = "/tmp/thaw-golden-XXXXXX", command[8192];
    thaw_env *env;
    thaw_store *store;
    if (argc != 2)
        errx(2, "usage: make_golden DIRECTORY");
    if (!mkdtemp(store_path))
        err(1, "%s", store_path);
    struct thaw_store_options options = {
        .size = sizeof(options), .path = store_path, .flags = THAW_STORE_CREATE};
    must(thaw_store_open(&options, &store, &error));
    must(thaw_env_new(NULL, &env, &error));
    thaw_vm *vm = make_source(env);
    take(store, vm);
    snprintf(command, sizeof(command),
        "set -e; mkdir '%s'; cp -r %s/snapshots/* '%s/snapshot'; chmod -R u+rw,go+rX '%s'", argv[1],
        store_path, argv[1], argv[1]);
    if (system(command) != 0)
        errx(1, "copying failed");
    write_expected(argv[1], vm);
    thaw_vm_free(vm);
    thaw_env_free(env);
    thaw_store_close(store);
    snprintf(command, sizeof(command), "rm -r %s", store_path);
    return system(command) != 0;
}
