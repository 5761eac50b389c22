// SPDX-License-Identifier: Apache-2.0
// Makes a stored snapshot one of another host: other_host DIRECTORY [backend] [feature]
// [tsc]. Its processor had PCOMMIT, which no processor ever had, and a TSC that was further on than
// any. All checks hold afterwards.

#include "check.h"
#include "file_header.h"
#include "manifest.h"
#include "state_file.h"
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_7_EBX_PCOMMIT (1u << 22)
#define TSC_FAR_AHEAD      (UINT64_C(1) << 60)

static struct thaw_error error;

static void must(int r)
{
    if (r < 0)
        errx(1, "%s", error.message);
}

static char *read_file(const char *directory, const char *name, size_t *ret_bytes)
{
    static char content[1 << 20];
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (!file)
        err(1, "%s", path);
    *ret_bytes = fread(content, 1, sizeof(content), file);
    fclose(file);
    return content;
}

static void write_file(const char *directory, const char *name, const void *bytes, size_t count)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) != 0)
        err(1, "%s", path);
}

static void promise_feature(struct vm_state *state)
{
    bool found = false;
    for (uint32_t i = 0; i < state->vcpu_count; i++) {
        struct vcpu_state *vcpu = &state->vcpus[i];
        for (uint32_t j = 0; j < vcpu->cpuid_count; j++) {
            if (vcpu->cpuid[j].function == 7 && vcpu->cpuid[j].index == 0) {
                vcpu->cpuid[j].ebx |= LEAF_7_EBX_PCOMMIT;
                found = true;
            }
        }
    }
    if (!found)
        errx(1, "the guest has no CPUID leaf 7");
}

static void advance_tsc(struct vm_state *state)
{
    for (uint32_t i = 0; i < state->vcpu_count; i++)
        state->vcpus[i].tsc += TSC_FAR_AHEAD;
}

static void change_state(
    const char *directory, struct manifest *manifest, void (*change)(struct vm_state *state))
{
    struct file_header header;
    struct vm_state *state;
    uint8_t *bytes;
    size_t count;
    char *content = read_file(directory, "vmstate", &count);
    must(file_header_read(FILE_KIND_STATE, (uint8_t *)content, count, "vmstate", &header, &error));
    must(state_file_decode((uint8_t *)content, count, "vmstate", &state, &error));
    change(state);
    must(state_file_encode(state, &header.id, &bytes, &count, &error));
    write_file(directory, "vmstate", bytes, count);
    struct check_stream *stream = check_stream_new();
    check_stream_add(stream, bytes, count);
    struct wire_b16 digest = check_stream_result(stream);
    check_stream_free(stream);
    for (size_t i = 0; i < manifest->file_count; i++)
        if (strcmp(manifest->files[i].path, "vmstate") == 0)
            manifest_format_digest(digest.bytes, manifest->files[i].digest);
    free(bytes);
    vm_state_free(state);
}

int main(int argc, char **argv)
{
    struct manifest manifest;
    size_t count;
    char *text;
    if (argc < 3)
        errx(2, "usage: other_host DIRECTORY [backend] [feature] [tsc]");
    text = read_file(argv[1], "manifest.json", &count);
    must(manifest_decode(&manifest, text, count, &error));
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "backend") == 0)
            snprintf(manifest.kvm_backend, sizeof(manifest.kvm_backend), "kvm_other");
        else
            change_state(
                argv[1], &manifest, strcmp(argv[i], "tsc") == 0 ? advance_tsc : promise_feature);
    }
    must(manifest_encode(&manifest, &text, &count, &error));
    write_file(argv[1], "manifest.json", text, count);
    free(text);
    manifest_fini(&manifest);
    return 0;
}
