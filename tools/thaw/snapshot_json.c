/* SPDX-License-Identifier: Apache-2.0 */
/* Role: the JSON form of a snapshot.
 * Not here: the library's own description of its insides (cmd_inspect.c). */
#include "snapshot_json.h"
#include "fail.h"
#include "text.h"
#include "vm_json.h"
#include <errno.h>

static json_t *text_or_null(const char *text)
{
    return *text ? vm_json_text(text) : json_null();
}

static json_t *time_or_null(uint64_t ns)
{
    struct timespec time = {
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    char text[TIME_BYTES];

    if (ns == 0)
        return json_null();
    text_format_time(&time, text);
    return json_string(text);
}

json_t *snapshot_json_new(const struct thaw_snapshot_info *info)
{
    return json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:i, s:i, s:o, s:o}",
        "id", info->id, "name", vm_json_text(info->name), "state",
        thaw_snapshot_state_name(info->state), "source", vm_json_text(info->source), "template",
        vm_json_text(info->template_name), "parent", text_or_null(info->parent), "created",
        time_or_null(info->created_ns), "stored_bytes", (json_int_t)info->stored_bytes,
        "shared_bytes", (json_int_t)info->shared_bytes, "hot_bytes", (json_int_t)info->hot_bytes,
        "mem_bytes", (json_int_t)info->mem_bytes, "cpus", (int)info->vcpu_count, "disks",
        (int)info->disk_count, "producer", vm_json_text(info->producer), "error",
        text_or_null(info->error));
}

int snapshot_json_find(thaw_store *store, const char *ref, json_t **ret, struct thaw_error *error)
{
    thaw_snapshot_list *list;
    json_t *json;
    int rc = thaw_store_find(store, ref, &list, error);

    if (rc < 0)
        return rc;
    json = snapshot_json_new(thaw_snapshot_list_get(list, 0));
    thaw_snapshot_list_free(list);
    if (!json)
        return fail_errno(error, ENOMEM, "cannot describe snapshot '%s'", ref);
    *ret = json;
    return 0;
}

json_t *snapshot_json_result(thaw_store *store, const struct thaw_snapshot_result *result)
{
    json_t *json, *cost;

    /* It may be gone again already. */
    if (snapshot_json_find(store, result->id, &json, NULL) < 0)
        json =
            json_pack("{s:s, s:s, s:s}", "id", result->id, "name", result->name, "state", "ready");
    cost = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "diff", (int)result->diff,
        "pause_ns", (json_int_t)result->pause_ns, "total_ns", (json_int_t)result->total_ns, "pages",
        (json_int_t)result->pages, "zero_pages", (json_int_t)result->zero_pages, "rounds",
        (json_int_t)result->rounds, "paused_pages", (json_int_t)result->paused_pages, "stale_pages",
        (json_int_t)result->stale_pages);
    if (json && json_object_update(json, cost) == 0)
        json_object_set_new(json, "stored_bytes", json_integer((json_int_t)result->stored_bytes));
    json_decref(cost);
    return json;
}
