/* SPDX-License-Identifier: Apache-2.0 */
/* A VM as JSON: the same object on the control socket, in status.json and in `--json` output. The
 * fields are documented in docs/api.md. */
#ifndef TOOLS_VM_JSON_H
#define TOOLS_VM_JSON_H

#include "util.h"
#include <thaw/vm.h>

/* What a VM was made from; strings are owned by whoever made the struct. */
struct vm_config {
    const char *name;
    const char *guest; /* NULL: kernel was given */
    const char *kernel;
    const char *initrd; /* NULL: none */
    const char *cmdline;
    const char *template_name;
    uint32_t cpus;
    uint64_t mem_bytes;
    struct vm_disk {
        const char *path;
        bool read_only;
    } disks[THAW_DISKS_MAX];
    size_t disk_count;
};

struct vm_times {
    struct timespec started; /* wall clock */
    int64_t uptime_ms;
    bool ended;
    struct timespec stopped; /* wall clock, if ended */
};

/* NULL if memory is short. */
json_t *vm_json_new(
    const struct vm_config *config, const struct thaw_vm_info *info, const struct vm_times *times);

/* A JSON string of any bytes: those that are no UTF-8 become '?'. */
json_t *vm_json_text(const char *text);

/* The member as text or number; "" or 0 if it is absent or something else. */
const char *vm_json_get(const json_t *vm, const char *key);
uint64_t vm_json_number(const json_t *vm, const char *key);

/* A record whose process is gone without having said so becomes failed. */
void vm_json_mark_dead(json_t *vm);

/* True for the states after which nothing comes. */
bool vm_json_has_ended(const json_t *vm);

#endif
