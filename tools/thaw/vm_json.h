/* SPDX-License-Identifier: Apache-2.0 */
/* A VM as JSON: the same object on the control socket, in status.json and in `--json` output. The
 * fields are documented in docs/api.md. */
#ifndef TOOLS_VM_JSON_H
#define TOOLS_VM_JSON_H

#include "util.h"
#include <thaw/snapshot.h>

/* What a VM is restored from, and how. */
struct vm_restore {
    const char *ref; /* see thaw/store.h */
    enum thaw_restore_mode mode;
    enum thaw_clock clock;
    uint32_t flags;           /* THAW_RESTORE_* */
    bool paused;              /* leave it paused */
    const char *record_until; /* this text on the console; NULL: for record_seconds */
    unsigned record_seconds;
    struct vm_disk_override {
        uint32_t index;
        const char *path;
    } disks[THAW_DISKS_MAX];
    size_t disk_count;
};

/* What a VM was made from; strings are owned by whoever made the struct. Of a VM that is restored
 * only name, store and restore are given: the owner takes the rest from the snapshot, and what that
 * does not say is NULL. */
struct vm_config {
    const char *name;                 /* NULL: restored, and named after the snapshot */
    const char *store;                /* where its snapshots go: an absolute path */
    const struct vm_restore *restore; /* NULL: booted */
    const char *guest;                /* NULL: kernel was given */
    const char *kernel;
    const char *initrd; /* NULL: none */
    const char *cmdline;
    const char *template_name;
    const char *snapshot_id, *snapshot_name; /* NULL: booted */
    uint32_t cpus;
    uint64_t mem_bytes;
    struct vm_disk {
        const char *path;
        bool read_only; /* of a booted one */
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
