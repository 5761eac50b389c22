// SPDX-License-Identifier: Apache-2.0
// Lists of snapshots for people and control planes. Takes no lock, changes nothing.

#include "options.h"
#include "store_internal.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* An entry owns the strings that its info points to. */
struct entry {
    struct thaw_snapshot_info info;
    enum store_place place;
    char id[MANIFEST_ID_BYTES];
    char name[MANIFEST_NAME_BYTES];
    char source[MANIFEST_LABEL_BYTES];
    char template_name[MANIFEST_LABEL_BYTES];
    char parent[MANIFEST_ID_BYTES];
    char producer[MANIFEST_LABEL_BYTES];
    char error[STORE_ERROR_BYTES];
};

struct thaw_snapshot_list {
    struct entry **entries;
    size_t count, capacity;
    size_t total, strays;
};

void thaw_snapshot_list_free(thaw_snapshot_list *list)
{
    if (!list)
        return;
    for (size_t i = 0; i < list->count; i++)
        free(list->entries[i]);
    free(list->entries);
    free(list);
}

size_t thaw_snapshot_list_count(const thaw_snapshot_list *list)
{
    return list->count;
}

size_t thaw_snapshot_list_total(const thaw_snapshot_list *list)
{
    return list->total;
}

size_t thaw_snapshot_list_strays(const thaw_snapshot_list *list)
{
    return list->strays;
}

const struct thaw_snapshot_info *thaw_snapshot_list_get(
    const thaw_snapshot_list *list, size_t index)
{
    return index < list->count ? &list->entries[index]->info : NULL;
}

/* Reading one */

static bool is_shared(const struct manifest *m, const char *path)
{
    const char *slash = strchr(path, '/');
    for (size_t i = 0; slash && i < m->pack_count; i++)
        if (strcmp(m->packs[i].id, slash + 1) == 0)
            return !m->packs[i].own;
    return false;
}

static void fill_entry(struct entry *entry, const struct manifest *m)
{
    memcpy(entry->name, m->name, sizeof(entry->name));
    memcpy(entry->source, m->source, sizeof(entry->source));
    memcpy(entry->template_name, m->template_name, sizeof(entry->template_name));
    memcpy(entry->parent, m->parent, sizeof(entry->parent));
    memcpy(entry->producer, m->producer, sizeof(entry->producer));
    entry->info.created_ns = m->created_ns;
    entry->info.mem_bytes = m->mem_bytes;
    entry->info.vcpu_count = m->vcpu_count;
    entry->info.disk_count = (uint32_t)m->disk_count;
}

static void fill_sizes(struct thaw_snapshot_info *info, const struct manifest *m)
{
    for (size_t i = 0; i < m->file_count; i++)
        if (is_shared(m, m->files[i].path))
            info->shared_bytes += m->files[i].bytes;
        else
            info->stored_bytes += m->files[i].bytes;
}

static uint64_t hot_bytes(const struct thaw_store *store, const char *id)
{
    struct stat st;
    int dirfd = store->places[STORE_HOT];
    if (fstatat(dirfd, id, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return 0;
    return (uint64_t)st.st_size;
}

static enum thaw_snapshot_state state_of(enum store_place place)
{
    static const enum thaw_snapshot_state states[] = {
        [STORE_CREATING] = THAW_SNAPSHOT_CREATING,
        [STORE_SNAPSHOTS] = THAW_SNAPSHOT_READY,
        [STORE_FAILED] = THAW_SNAPSHOT_FAILED,
        [STORE_TRASH] = THAW_SNAPSHOT_DELETING,
    };
    return states[place];
}

static int read_entry(struct thaw_store *store, struct entry *entry, enum store_place place, int fd)
{
    struct thaw_error error = {0};
    struct store_manifest *manifest;
    int r = store_look_at_manifest(store, fd, entry->id, &manifest, &error);
    if (r == 0) {
        fill_entry(entry, &manifest->m);
        if (place == STORE_SNAPSHOTS || place == STORE_TRASH)
            fill_sizes(&entry->info, &manifest->m);
        if (place == STORE_SNAPSHOTS && !manifest->m.complete)
            r = error_set(&error, THAW_ECORRUPT, "its manifest is that of an unfinished one");
        store_leave_manifest(store, manifest);
    }
    if (store_is_lack(r))
        return r;
    if (place == STORE_FAILED && (store_read_error(fd, entry->error) < 0 || !entry->error[0]))
        snprintf(entry->error, sizeof(entry->error), "its record does not say why");
    if (r < 0 && place == STORE_SNAPSHOTS) {
        entry->info.state = THAW_SNAPSHOT_DAMAGED;
        memcpy(entry->error, error.message, sizeof(entry->error));
    }
    return 0;
}

static struct entry *new_entry(const char *id, enum store_place place)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    memcpy(entry->id, id, sizeof(entry->id));
    entry->place = place;
    entry->info.state = state_of(place);
    entry->info.id = entry->id;
    entry->info.name = entry->name;
    entry->info.source = entry->source;
    entry->info.template_name = entry->template_name;
    entry->info.parent = entry->parent;
    entry->info.producer = entry->producer;
    entry->info.error = entry->error;
    return entry;
}

static int append(struct thaw_snapshot_list *list, struct entry *entry)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        struct entry **entries = realloc(list->entries, capacity * sizeof(struct entry *));
        if (!entries)
            return -ENOMEM;
        list->entries = entries;
        list->capacity = capacity;
    }
    list->entries[list->count++] = entry;
    return 0;
}

/* 0 also if it has gone meanwhile: then it is found where it went, or it is no more. */
static int add_snapshot(struct thaw_store *store, enum store_place place, const char *id,
    struct thaw_snapshot_list *list)
{
    int dirfd = store->places[place];
    _cleanup_close_ int fd = fs_open_dir(dirfd, id);
    if (fd == -ENOENT)
        return 0;
    if (fd == -ENOTDIR || fd == -ELOOP) {
        list->strays++;
        return 0;
    }
    if (fd < 0)
        return fd;
    struct entry *entry = new_entry(id, place);
    if (!entry)
        return -ENOMEM;
    int r = read_entry(store, entry, place, fd);
    entry->info.hot_bytes = hot_bytes(store, id);
    /* Read while it was being removed, it would look damaged. */
    if (r == 0)
        r = fs_is_at(dirfd, id, fd) ? append(list, entry) : -ENOENT;
    if (r < 0)
        free(entry);
    return r == -ENOENT ? 0 : r;
}

/* All of them */

struct list_walk {
    struct thaw_store *store;
    enum store_place place;
    struct thaw_snapshot_list *list;
};

static int list_entry(void *data, const char *name)
{
    struct list_walk *walk = data;
    if (manifest_id_valid(name))
        return add_snapshot(walk->store, walk->place, name, walk->list);
    walk->list->strays++;
    return 0;
}

/* By id; of one id, the later place last. */
static int compare_ids(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    int order = strcmp(x->id, y->id);
    return order ? order : (int)x->place - (int)y->place;
}

static int compare_newest_first(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    if (x->info.created_ns != y->info.created_ns)
        return x->info.created_ns < y->info.created_ns ? 1 : -1;
    return strcmp(x->id, y->id);
}

static void sort(struct thaw_snapshot_list *list, int (*compare)(const void *, const void *))
{
    if (list->count > 1)
        qsort(list->entries, list->count, sizeof(struct entry *), compare);
}

/* One that moved while the places were read was seen in each. */
static void drop_duplicates(struct thaw_snapshot_list *list)
{
    size_t kept = 0;
    sort(list, compare_ids);
    for (size_t i = 0; i < list->count; i++) {
        if (i + 1 < list->count && strcmp(list->entries[i]->id, list->entries[i + 1]->id) == 0)
            free(list->entries[i]);
        else
            list->entries[kept++] = list->entries[i];
    }
    list->count = kept;
}

static bool fits(const struct thaw_snapshot_info *info, const struct thaw_snapshot_query *query)
{
    if (query->states && !(query->states & (1u << info->state)))
        return false;
    if (query->source && strcmp(query->source, info->source) != 0)
        return false;
    if (query->template_name && strcmp(query->template_name, info->template_name) != 0)
        return false;
    return !query->text || strstr(info->name, query->text) ||
           strncmp(info->id, query->text, strlen(query->text)) == 0;
}

static void select_entries(struct thaw_snapshot_list *list, const struct thaw_snapshot_query *query)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (fits(&list->entries[i]->info, query))
            list->entries[kept++] = list->entries[i];
        else
            free(list->entries[i]);
    }
    list->count = list->total = kept;
}

static void cut_page(struct thaw_snapshot_list *list, const struct thaw_snapshot_query *query)
{
    uint64_t size = query->page_size ? query->page_size : UINT32_MAX;
    uint64_t first = (query->page ? query->page - 1 : 0) * size;
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (i >= first && i - first < size)
            list->entries[kept++] = list->entries[i];
        else
            free(list->entries[i]);
    }
    list->count = kept;
}

/* In the order in which snapshots move, so that none is missed. */
static int read_places(
    struct thaw_store *store, struct thaw_snapshot_list *list, struct thaw_error *error)
{
    struct list_walk walk = {.store = store, .list = list};
    for (int place = 0; place < STORE_STATES; place++) {
        walk.place = (enum store_place)place;
        int r = fs_each(store->places[place], list_entry, &walk);
        if (r < 0)
            return error_errno(error, -r, "listing %s/%s", store->path, store_place_names[place]);
    }
    return 0;
}

int thaw_store_list(thaw_store *store, const struct thaw_snapshot_query *query,
    thaw_snapshot_list **ret, struct thaw_error *error)
{
    struct thaw_snapshot_query own = {0};
    int r = options_read(&own, sizeof(own), query, "struct thaw_snapshot_query", error);
    if (r < 0)
        return r;
    struct thaw_snapshot_list *list = calloc(1, sizeof(*list));
    if (!list)
        return error_errno(error, ENOMEM, "allocating a list");
    r = read_places(store, list, error);
    if (r < 0) {
        thaw_snapshot_list_free(list);
        return r;
    }
    drop_duplicates(list);
    select_entries(list, &own);
    sort(list, compare_newest_first);
    cut_page(list, &own);
    *ret = list;
    return 0;
}

int thaw_store_find(
    thaw_store *store, const char *ref, thaw_snapshot_list **ret, struct thaw_error *error)
{
    struct store_location at;
    int r = store_resolve(store, ref, &at, error);
    if (r < 0)
        return r;
    struct thaw_snapshot_list *list = calloc(1, sizeof(*list));
    if (!list)
        return error_errno(error, ENOMEM, "allocating a list");
    r = add_snapshot(store, at.place, at.id, list);
    if (r == 0 && list->count == 0)
        r = error_set(error, -ENOENT, "snapshot %s was just deleted, or moved: try again", ref);
    else if (r < 0)
        error_errno(error, -r, "reading snapshot %s", ref);
    if (r < 0) {
        thaw_snapshot_list_free(list);
        return r;
    }
    list->total = list->count;
    *ret = list;
    return 0;
}
