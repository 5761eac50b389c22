// SPDX-License-Identifier: Apache-2.0
// Reading manifests, which are untrusted: every member is type-checked and bounded. Opens no file.

#include "json_build.h"
#include "manifest.h"
#include <stdarg.h>
#include <string.h>

static const char what[] = "manifest";

/* Features that must be understood, and are. None yet. */
static const char *const known_incompatible[] = {NULL};

/* The first thing that is wrong ends the decoding: later calls do nothing. */
struct decoder {
    int r;
    struct thaw_error *error;
};

static void _printf_(2, 3) bad(struct decoder *d, const char *format, ...)
{
    char text[256];
    if (d->r < 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    d->r = error_set(d->error, THAW_ECORRUPT, "%s: %s", what, text);
}

static void *allocate(struct decoder *d, size_t count, size_t bytes)
{
    if (d->r < 0 || count == 0)
        return NULL;
    void *memory = calloc(count, bytes);
    if (!memory)
        d->r = error_errno(d->error, ENOMEM, "%s: allocating %zu entries", what, count);
    return memory;
}

static const json_t *get(struct decoder *d, const json_t *object, const char *key, json_type type)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
        "a real number", "a truth value", "a truth value", "null"};
    if (d->r < 0)
        return NULL;
    const json_t *value = json_object_get(object, key);
    if (!value)
        bad(d, "\"%s\" is missing", key);
    else if (json_typeof(value) != type && !(type == JSON_TRUE && json_is_false(value)))
        bad(d, "\"%s\" is not %s", key, names[type]);
    return d->r < 0 ? NULL : value;
}

static uint64_t as_u64(struct decoder *d, const json_t *value, const char *key, uint64_t max)
{
    json_int_t number = json_integer_value(value);
    if (d->r == 0 && (!json_is_integer(value) || number < 0 || (uint64_t)number > max))
        bad(d, "\"%s\" is not an integer from 0 to %llu", key, (unsigned long long)max);
    return d->r < 0 ? 0 : (uint64_t)number;
}

static uint64_t get_u64(struct decoder *d, const json_t *object, const char *key, uint64_t max)
{
    return as_u64(d, get(d, object, key, JSON_INTEGER), key, max);
}

static uint32_t get_u32(struct decoder *d, const json_t *object, const char *key, uint32_t max)
{
    return (uint32_t)get_u64(d, object, key, max);
}

static bool get_bool(struct decoder *d, const json_t *object, const char *key)
{
    return json_is_true(get(d, object, key, JSON_TRUE));
}

static void copy_text(struct decoder *d, const json_t *value, const char *key, char *ret,
    size_t bytes, bool (*valid)(const char *))
{
    if (d->r < 0)
        return;
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= bytes || !valid(text))
        bad(d, "a value of \"%s\" is not allowed: %.80s", key, text ? text : "not a string");
    else
        memcpy(ret, text, strlen(text) + 1);
}

static void get_text(struct decoder *d, const json_t *object, const char *key, char *ret,
    size_t bytes, bool (*valid)(const char *))
{
    copy_text(d, get(d, object, key, JSON_STRING), key, ret, bytes, valid);
}

static bool name_or_none(const char *name)
{
    return !*name || manifest_name_valid(name);
}

static bool id_or_none(const char *id)
{
    return !*id || manifest_id_valid(id);
}

static bool some_label(const char *label)
{
    return *label && manifest_label_valid(label);
}

static bool base_path_valid(const char *path)
{
    return path[0] == '/' || !path[0];
}

static const json_t *get_array(
    struct decoder *d, const json_t *object, const char *key, size_t max, size_t *ret_count)
{
    const json_t *array = get(d, object, key, JSON_ARRAY);
    *ret_count = 0;
    if (array && json_array_size(array) > max)
        bad(d, "\"%s\" has more than %zu entries", key, max);
    else if (array)
        *ret_count = json_array_size(array);
    return array;
}

/* An entry of an array of objects. */
static const json_t *get_entry(struct decoder *d, const json_t *array, size_t i, const char *key)
{
    const json_t *entry = json_array_get(array, i);
    if (!json_is_object(entry))
        bad(d, "an entry of \"%s\" is not an object", key);
    return entry;
}

static void get_strings(
    struct decoder *d, const json_t *object, const char *key, struct manifest_strings *ret)
{
    size_t count;
    const json_t *array = get_array(d, object, key, MANIFEST_STRINGS_MAX, &count);
    ret->items = allocate(d, count, sizeof(*ret->items));
    for (size_t i = 0; i < count && d->r == 0; i++) {
        copy_text(
            d, json_array_get(array, i), key, ret->items[i], sizeof(ret->items[i]), some_label);
        for (size_t j = 0; j < i && d->r == 0; j++)
            if (strcmp(ret->items[i], ret->items[j]) == 0)
                bad(d, "\"%s\" has \"%s\" twice", key, ret->items[i]);
        ret->count++;
    }
}

static void check_features(struct decoder *d, const struct manifest *m)
{
    for (size_t i = 0; i < m->incompatible.count && d->r == 0; i++) {
        bool known = false;
        for (const char *const *name = known_incompatible; *name; name++)
            known = known || strcmp(*name, m->incompatible.items[i]) == 0;
        if (!known)
            d->r = error_set(d->error, -EOPNOTSUPP,
                "%s: it needs the feature \"%s\", which this version of thaw does not have", what,
                m->incompatible.items[i]);
    }
}

static void decode_identity(struct decoder *d, const json_t *root, struct manifest *m)
{
    m->complete = get_bool(d, root, "complete");
    get_text(d, root, "id", m->id, sizeof(m->id), manifest_id_valid);
    get_text(d, root, "name", m->name, sizeof(m->name), name_or_none);
    get_text(d, root, "source", m->source, sizeof(m->source), manifest_label_valid);
    get_text(d, root, "template", m->template_name, sizeof(m->template_name), manifest_label_valid);
    get_text(d, root, "producer", m->producer, sizeof(m->producer), manifest_label_valid);
    m->created_ns = get_u64(d, root, "created_ns", MANIFEST_SIZE_MAX);
}

static void decode_disks(struct decoder *d, const json_t *machine, struct manifest *m)
{
    size_t count;
    const json_t *disks = get_array(d, machine, "disks", MANIFEST_DISKS_MAX, &count);
    m->disks = allocate(d, count, sizeof(*m->disks));
    for (size_t i = 0; i < count && d->r == 0; i++) {
        struct manifest_disk *disk = &m->disks[m->disk_count++];
        const json_t *entry = get_entry(d, disks, i, "disks");
        char path[MANIFEST_BASE_PATH_BYTES] = "";
        disk->bytes = get_u64(d, entry, "bytes", MANIFEST_SIZE_MAX);
        disk->read_only = get_bool(d, entry, "read_only");
        disk->base_bytes = get_u64(d, entry, "base_bytes", MANIFEST_SIZE_MAX);
        disk->base_mtime_ns = get_u64(d, entry, "base_mtime_ns", MANIFEST_SIZE_MAX);
        get_text(d, entry, "base_path", path, sizeof(path), base_path_valid);
        get_text(d, entry, "base_identity", disk->base_identity, sizeof(disk->base_identity),
            manifest_label_valid);
        disk->base_path = allocate(d, strlen(path) + 1, 1);
        if (disk->base_path)
            memcpy(disk->base_path, path, strlen(path) + 1);
    }
}

static void decode_machine(struct decoder *d, const json_t *root, struct manifest *m)
{
    const json_t *machine = get(d, root, "machine", JSON_OBJECT);
    m->vcpu_count = get_u32(d, machine, "vcpus", MANIFEST_VCPUS_MAX);
    m->mem_bytes = get_u64(d, machine, "mem_bytes", MANIFEST_MEM_BYTES_MAX);
    get_strings(d, machine, "devices", &m->devices);
    decode_disks(d, machine, m);
    if (m->vcpu_count == 0)
        bad(d, "a machine without vCPUs");
    if (m->mem_bytes == 0 || !IS_ALIGNED(m->mem_bytes, PAGE_BYTES))
        bad(d, "a memory size that is not a positive multiple of the page size");
}

static void decode_cpuid(struct decoder *d, const json_t *host, struct manifest *m)
{
    size_t count;
    const json_t *rows = get_array(d, host, "cpuid", MANIFEST_CPUID_MAX, &count);
    m->cpuid = allocate(d, count, sizeof(*m->cpuid));
    for (size_t i = 0; i < count && d->r == 0; i++) {
        struct manifest_cpuid *c = &m->cpuid[m->cpuid_count++];
        uint32_t *const words[] = {&c->leaf, &c->subleaf, &c->eax, &c->ebx, &c->ecx, &c->edx};
        const json_t *row = json_array_get(rows, i);
        if (json_array_size(row) != ARRAY_SIZE(words))
            bad(d, "an entry of \"cpuid\" is not an array of six integers");
        for (size_t j = 0; j < ARRAY_SIZE(words); j++)
            *words[j] = (uint32_t)as_u64(d, json_array_get(row, j), "cpuid", UINT32_MAX);
    }
}

static void decode_host(struct decoder *d, const json_t *root, struct manifest *m)
{
    const json_t *host = get(d, root, "host", JSON_OBJECT);
    get_text(d, host, "cpu_vendor", m->cpu_vendor, sizeof(m->cpu_vendor), manifest_label_valid);
    get_text(d, host, "kvm_backend", m->kvm_backend, sizeof(m->kvm_backend), manifest_label_valid);
    m->cpu_family = get_u32(d, host, "cpu_family", UINT32_MAX);
    m->cpu_model = get_u32(d, host, "cpu_model", UINT32_MAX);
    m->cpu_stepping = get_u32(d, host, "cpu_stepping", UINT32_MAX);
    m->tsc_khz = get_u32(d, host, "tsc_khz", UINT32_MAX);
    decode_cpuid(d, host, m);
}

static void decode_files(struct decoder *d, const json_t *root, struct manifest *m)
{
    size_t count;
    uint64_t total = 0;
    const json_t *files = get_array(d, root, "files", MANIFEST_FILES_MAX, &count);
    m->files = allocate(d, count, sizeof(*m->files));
    for (size_t i = 0; i < count && d->r == 0; i++) {
        struct manifest_file *file = &m->files[i];
        const json_t *entry = get_entry(d, files, i, "files");
        get_text(d, entry, "path", file->path, sizeof(file->path), manifest_path_valid);
        get_text(d, entry, "digest", file->digest, sizeof(file->digest), manifest_digest_valid);
        file->bytes = get_u64(d, entry, "bytes", MANIFEST_SIZE_MAX);
        if (d->r == 0 && manifest_find_file(m, file->path))
            bad(d, "\"%s\" is listed twice", file->path);
        if (file->bytes > MANIFEST_SIZE_MAX - total)
            bad(d, "its files are too large");
        total += file->bytes;
        m->file_count++;
    }
}

/* Packs come after files: each is one of them. */
static void decode_packs(struct decoder *d, const json_t *root, struct manifest *m)
{
    size_t count;
    const json_t *packs = get_array(d, root, "packs", MANIFEST_PACKS_MAX, &count);
    m->packs = allocate(d, count, sizeof(*m->packs));
    for (size_t i = 0; i < count && d->r == 0; i++) {
        struct manifest_pack *pack = &m->packs[i];
        const json_t *entry = get_entry(d, packs, i, "packs");
        get_text(d, entry, "id", pack->id, sizeof(pack->id), manifest_id_valid);
        pack->bytes = get_u64(d, entry, "bytes", MANIFEST_SIZE_MAX);
        pack->live_bytes = get_u64(d, entry, "live_bytes", MANIFEST_SIZE_MAX);
        pack->own = get_bool(d, entry, "own");
        for (size_t j = 0; j < i && d->r == 0; j++)
            if (strcmp(pack->id, m->packs[j].id) == 0)
                bad(d, "pack %s is listed twice", pack->id);
        char path[MANIFEST_PATH_BYTES];
        snprintf(path, sizeof(path), "packs/%s", pack->id);
        const struct manifest_file *file = manifest_find_file(m, path);
        if (!file || file->bytes != pack->bytes || pack->live_bytes > pack->bytes)
            bad(d, "pack %s and the list of files disagree", pack->id);
        m->pack_count++;
    }
}

static void decode_stats(struct decoder *d, const json_t *root, struct manifest *m)
{
    json_t *stats = (json_t *)get(d, root, "stats", JSON_OBJECT);
    size_t count = json_object_size(stats);
    if (count > MANIFEST_STATS_MAX)
        bad(d, "\"stats\" has more than %d members", MANIFEST_STATS_MAX);
    m->stats = allocate(d, count, sizeof(*m->stats));
    const char *key;
    json_t *value;
    json_object_foreach(stats, key, value)
    {
        if (d->r < 0)
            break;
        struct manifest_stat *stat = &m->stats[m->stat_count++];
        if (!some_label(key))
            bad(d, "a name in \"stats\" is not allowed");
        else
            memcpy(stat->name, key, strlen(key) + 1);
        stat->value = as_u64(d, value, key, MANIFEST_SIZE_MAX);
    }
}

/* The text's own limit bounds the recursion. */
static unsigned depth_of(const json_t *value)
{
    unsigned depth = 0;
    const char *key;
    json_t *child;
    size_t i;
    if (!json_is_object(value) && !json_is_array(value))
        return 0;
    json_object_foreach((json_t *)value, key, child) depth = MAX(depth, depth_of(child));
    json_array_foreach(value, i, child) depth = MAX(depth, depth_of(child));
    return depth + 1;
}

int manifest_metadata_text(const json_t *metadata, char **ret_text, struct thaw_error *error)
{
    if (depth_of(metadata) > MANIFEST_METADATA_DEPTH_MAX)
        return error_set(
            error, -EINVAL, "metadata is nested more than %d deep", MANIFEST_METADATA_DEPTH_MAX);
    size_t bytes;
    _cleanup_free_ char *text = json_build_text(metadata, JSON_COMPACT, &bytes);
    if (!text)
        return error_errno(error, ENOMEM, "copying metadata");
    if (bytes > MANIFEST_METADATA_BYTES_MAX)
        return error_set(
            error, -EINVAL, "metadata is larger than %u bytes", MANIFEST_METADATA_BYTES_MAX);
    *ret_text = take_ptr(text);
    return 0;
}

static void decode_metadata(struct decoder *d, const json_t *root, struct manifest *m)
{
    const json_t *metadata = get(d, root, "metadata", JSON_OBJECT);
    struct thaw_error why;
    if (d->r < 0)
        return;
    int r = manifest_metadata_text(metadata, &m->metadata, &why);
    if (r == -EINVAL)
        bad(d, "%s", why.message);
    else if (r < 0)
        d->r = error_errno(d->error, ENOMEM, "%s: copying the metadata", what);
}

static void decode_content(struct decoder *d, const json_t *root, struct manifest *m)
{
    const char *kind = json_string_value(get(d, root, "kind", JSON_STRING));
    if (kind && strcmp(kind, "full") != 0 && strcmp(kind, "diff") != 0)
        bad(d, "\"kind\" is neither full nor diff");
    m->kind = kind && strcmp(kind, "diff") == 0 ? MANIFEST_DIFF : MANIFEST_FULL;
    get_text(d, root, "parent", m->parent, sizeof(m->parent), id_or_none);
    if (m->kind == MANIFEST_DIFF && !m->parent[0])
        bad(d, "a diff without a parent");
    get_strings(d, root, "overrides", &m->overrides);
    decode_machine(d, root, m);
    decode_host(d, root, m);
    decode_files(d, root, m);
    decode_packs(d, root, m);
    decode_stats(d, root, m);
    decode_metadata(d, root, m);
}

/* Version before digest: a later major version may compute its digest otherwise. */
static void check_envelope(struct decoder *d, const json_t *root, struct manifest *m)
{
    const char *format = json_string_value(get(d, root, "format", JSON_STRING));
    if (format && strcmp(format, MANIFEST_FORMAT) != 0)
        bad(d, "this is not the description of a thaw snapshot");
    m->version_major = get_u32(d, root, "version_major", UINT32_MAX);
    m->version_minor = get_u32(d, root, "version_minor", UINT32_MAX);
    if (d->r == 0 && m->version_major != MANIFEST_VERSION_MAJOR)
        d->r = error_set(d->error, -EOPNOTSUPP,
            "%s: it is of format version %u.%u; this version of thaw reads version %d", what,
            m->version_major, m->version_minor, MANIFEST_VERSION_MAJOR);
    const char *stored = json_string_value(get(d, root, "digest", JSON_STRING));
    char digest[MANIFEST_DIGEST_BYTES];
    if (d->r < 0)
        return;
    if (manifest_json_digest(root, digest) < 0)
        d->r = error_errno(d->error, ENOMEM, "%s: computing its digest", what);
    else if (strcmp(stored, digest) != 0)
        bad(d, "its digest does not match: it was changed or damaged");
}

int manifest_check_shape(const char *text, size_t bytes, struct thaw_error *error)
{
    size_t depth = 0, values = 0;
    bool in_string = false;
    if (bytes > MANIFEST_BYTES_MAX)
        return error_set(
            error, THAW_ECORRUPT, "%s: it is larger than %u bytes", what, MANIFEST_BYTES_MAX);
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        if (in_string)
            continue;
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        values += c == ',' || c == '{' || c == '[';
        if (depth > MANIFEST_DEPTH_MAX || values > MANIFEST_VALUES_MAX)
            return error_set(error, THAW_ECORRUPT,
                "%s: it has too many values, or too deeply nested ones", what);
    }
    return 0;
}

bool manifest_is_syntax(const json_error_t *problem)
{
    enum json_error_code code = json_error_code(problem);
    return code != json_error_out_of_memory && code != json_error_unknown;
}

static int decode(struct manifest *ret, const char *text, size_t bytes, struct thaw_error *error)
{
    struct decoder d = {.error = error};
    struct manifest m = {0};
    json_error_t problem = {0};
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!root && !manifest_is_syntax(&problem))
        d.r = error_errno(error, ENOMEM, "%s: reading it", what);
    else if (!root)
        bad(&d, "line %d: %s", problem.line, problem.text);
    else if (!json_is_object(root))
        bad(&d, "it is not a JSON object");
    check_envelope(&d, root, &m);
    const json_t *features = get(&d, root, "features", JSON_OBJECT);
    get_strings(&d, features, "incompatible", &m.incompatible);
    get_strings(&d, features, "ignorable", &m.ignorable);
    check_features(&d, &m);
    decode_identity(&d, root, &m);
    if (m.complete)
        decode_content(&d, root, &m);
    json_decref(root);
    if (d.r < 0) {
        manifest_fini(&m);
        return d.r;
    }
    *ret = m;
    return 0;
}

/* Where jansson lacks the memory for a token, or for a part of one, it goes on with another.
 * Without memory the second look fails otherwise. */
int manifest_decode(struct manifest *ret, const char *text, size_t bytes, struct thaw_error *error)
{
    int r = manifest_check_shape(text, bytes, error);
    if (r < 0)
        return r;
    r = decode(ret, text, bytes, error);
    return r == THAW_ECORRUPT ? decode(ret, text, bytes, error) : r;
}
