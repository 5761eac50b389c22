// SPDX-License-Identifier: Apache-2.0
// Everything that a stored snapshot says of itself, as JSON. Checks no frame.

#include "contents.h"
#include "hot.h"
#include "json_build.h"
#include "state_file.h"
#include <string.h>
#include <thaw/snapshot.h>

static bool is_own(const struct manifest *manifest, const struct wire_b16 *id)
{
    char name[33];
    contents_pack_name(id, name);
    for (size_t i = 0; i < manifest->pack_count; i++)
        if (strcmp(manifest->packs[i].id, name) == 0)
            return manifest->packs[i].own;
    return false;
}

static json_t *describe_space(const struct contents *contents, unsigned number)
{
    const struct page_index *index = contents->spaces[number].index;
    struct page_index_stats stats;
    uint64_t own = 0, shared = 0;
    char name[32];
    page_index_get_stats(index, &stats);
    for (unsigned i = 0; i < page_index_pack_count(index); i++) {
        bool mine = is_own(&contents->snapshot->manifest, page_index_pack_id(index, i));
        *(mine ? &own : &shared) += page_index_pack_live(index, i);
    }
    if (number == SPACE_NUMBER_RAM)
        snprintf(name, sizeof(name), "ram");
    else
        snprintf(name, sizeof(name), "disk%u", number - 1);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "name", name, "pages",
        (json_int_t)page_index_space(index)->page_count, "zero_pages", (json_int_t)stats.zero_pages,
        "unspecified_pages", (json_int_t)stats.unspecified_pages, "own_pages", (json_int_t)own,
        "shared_pages", (json_int_t)shared, "extents", (json_int_t)page_index_extent_count(index),
        "packs", (int)page_index_pack_count(index));
}

static json_t *describe_packs(const struct contents *contents)
{
    json_t *list = json_array();
    for (size_t i = 0; i < contents->pack_count; i++) {
        const struct pack_reader *pack = contents->packs[i];
        char name[33];
        uint64_t pages = pack_reader_page_count(pack), bytes = pack_reader_file_bytes(pack);
        contents_pack_name(pack_reader_id(pack), name);
        json_build_append(
            &list, json_pack("{s:s, s:b, s:I, s:I, s:I, s:f}", "id", name, "own",
                       is_own(&contents->snapshot->manifest, pack_reader_id(pack)), "file_bytes",
                       (json_int_t)bytes, "pages", (json_int_t)pages, "frames",
                       (json_int_t)pack_reader_frame_count(pack), "compression_ratio",
                       bytes ? (double)(pages * FORMAT_PAGE_BYTES) / (double)bytes : 0.0));
    }
    return list;
}

/* JSON's null: there is none, or none that can be used. NULL: no memory. */
static json_t *describe_working_set(const struct contents *contents)
{
    struct pack_reader *hot;
    struct thaw_error error;
    int r = hot_open(contents->snapshot, &hot, &error);
    if (r < 0)
        return r == -ENOMEM ? NULL : json_null();
    json_t *set = json_pack("{s:I, s:I}", "pages", (json_int_t)pack_reader_page_count(hot),
        "file_bytes", (json_int_t)pack_reader_file_bytes(hot));
    pack_reader_close(hot);
    return set;
}

static json_t *describe_spaces(const struct contents *contents)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < contents->space_count; i++)
        json_build_append(&list, describe_space(contents, i));
    return list;
}

static int describe(const struct contents *contents, char **ret, struct thaw_error *error)
{
    struct vm_state *state = NULL;
    json_t *root = NULL;
    int r = contents_read_state(contents, &state, error);
    if (r == 0)
        r = manifest_to_json(&contents->snapshot->manifest, &root, error);
    if (r == 0) {
        json_build_set(&root, "spaces", describe_spaces(contents));
        json_build_set(&root, "pack_files", describe_packs(contents));
        json_build_set(&root, "working_set", describe_working_set(contents));
        json_build_set(&root, "vmstate", state_file_describe(state));
        size_t bytes;
        char *text = json_build_text(root, JSON_INDENT(2), &bytes);
        if (text)
            *ret = text;
        else
            r = error_errno(error, ENOMEM, "describing a snapshot");
    }
    json_decref(root);
    vm_state_free(state);
    return r;
}

int thaw_snapshot_inspect(
    thaw_store *store, const char *ref, char **ret_json, struct thaw_error *error)
{
    struct store_snapshot *snapshot;
    struct contents *contents;
    int r = store_get(store, ref, "inspect", &snapshot, error);
    if (r < 0)
        return r;
    r = contents_open(snapshot, &contents, error);
    if (r < 0) {
        store_put(snapshot);
        return r;
    }
    r = describe(contents, ret_json, error);
    contents_unref(contents);
    return r;
}

void thaw_text_free(char *text)
{
    free(text);
}
