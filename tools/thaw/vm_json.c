/* SPDX-License-Identifier: Apache-2.0 */
/* Role: the JSON form of a VM.
 * Not here: where it comes from or goes to (owner.c, runtime.c, cmd_*.c). */
#include "vm_json.h"
#include "text.h"
#include <string.h>

json_t *vm_json_text(const char *text)
{
    json_t *json = json_string(text);
    char *copy;

    if (json)
        return json;
    copy = strdup(text);
    if (!copy)
        return NULL;
    for (char *c = copy; *c; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    json = json_string(copy);
    free(copy);
    return json;
}

static json_t *text_or_null(const char *text)
{
    return text ? vm_json_text(text) : json_null();
}

static json_t *time_or_null(const struct timespec *ts, bool present)
{
    char text[TIME_BYTES];

    if (!present)
        return json_null();
    text_format_time(ts, text);
    return json_string(text);
}

static json_t *disks_json(const struct vm_config *config)
{
    json_t *disks = json_array();

    for (size_t i = 0; i < config->disk_count; i++)
        json_array_append_new(
            disks, json_pack("{s:o, s:o}", "path", text_or_null(config->disks[i].path), "read_only",
                       config->restore ? json_null() : json_boolean(config->disks[i].read_only)));
    return disks;
}

json_t *vm_json_new(
    const struct vm_config *config, const struct thaw_vm_info *info, const struct vm_times *times)
{
    json_t *exit_status =
        info->reason == THAW_REASON_EXIT ? json_integer(info->exit_status) : json_null();

    return json_pack("{s:o, s:i, s:s, s:s, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
                     "s:o, s:o, s:o, s:I, s:I, s:I, s:I}",
        "name", vm_json_text(config->name), "pid", (int)getpid(), "state",
        thaw_vm_state_name(info->state), "reason", thaw_vm_reason_name(info->reason), "detail",
        vm_json_text(info->detail), "exit_status", exit_status, "cpus", (json_int_t)config->cpus,
        "mem_bytes", (json_int_t)config->mem_bytes, "disks", disks_json(config), "template",
        vm_json_text(config->template_name), "guest", text_or_null(config->guest), "kernel",
        text_or_null(config->kernel), "initrd", text_or_null(config->initrd), "cmdline",
        text_or_null(config->cmdline), "snapshot", text_or_null(config->snapshot_name),
        "snapshot_id", text_or_null(config->snapshot_id), "started_at",
        time_or_null(&times->started, true), "ended_at",
        time_or_null(&times->stopped, times->ended), "uptime_ms", (json_int_t)times->uptime_ms,
        "exits", (json_int_t)info->exits, "mark", (json_int_t)info->mark, "marks",
        (json_int_t)info->mark_count);
}

const char *vm_json_get(const json_t *vm, const char *key)
{
    const char *text = json_string_value(json_object_get(vm, key));

    return text ? text : "";
}

uint64_t vm_json_number(const json_t *vm, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(vm, key));

    return value > 0 ? (uint64_t)value : 0;
}

bool vm_json_has_ended(const json_t *vm)
{
    const char *state = vm_json_get(vm, "state");

    return strcmp(state, "stopped") == 0 || strcmp(state, "failed") == 0;
}

void vm_json_mark_dead(json_t *vm)
{
    if (vm_json_has_ended(vm))
        return;
    json_object_set_new(vm, "state", json_string("failed"));
    json_object_set_new(vm, "reason", json_string("process-died"));
    json_object_set_new(vm, "detail", json_string("process died"));
}
