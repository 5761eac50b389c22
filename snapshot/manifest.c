// SPDX-License-Identifier: Apache-2.0
// Manifests: their grammar, their digest, and how they are written. Reading is manifest_decode.c's.

#include "manifest.h"
#include "json_build.h"
#include <string.h>
#include <xxhash.h>

static const char digest_tag[] = "xxh3-128:";
static const char packs_prefix[] = "packs/";

static bool is_lower_hex(const char *text, size_t count)
{
    return strspn(text, "0123456789abcdef") == count && text[count] == '\0';
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_file_name(const char *name)
{
    size_t length = strlen(name);
    if (length < 1 || length > MANIFEST_NAME_CHARS || !is_alnum(name[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!is_alnum(name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

bool manifest_id_valid(const char *id)
{
    return id && is_lower_hex(id, MANIFEST_ID_CHARS);
}

bool manifest_name_valid(const char *name)
{
    return name && is_file_name(name) && !manifest_id_valid(name);
}

bool manifest_label_valid(const char *label)
{
    if (!label || strlen(label) >= MANIFEST_LABEL_BYTES)
        return false;
    for (const char *p = label; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return false;
    return true;
}

bool manifest_path_valid(const char *path)
{
    if (!path)
        return false;
    size_t prefix = sizeof(packs_prefix) - 1;
    if (strncmp(path, packs_prefix, prefix) == 0)
        return is_file_name(path + prefix);
    return is_file_name(path) && strcmp(path, "packs") != 0 && strcmp(path, "error") != 0 &&
           strncmp(path, "manifest.json", strlen("manifest.json")) != 0;
}

bool manifest_digest_valid(const char *digest)
{
    size_t tag = sizeof(digest_tag) - 1;
    return digest && strncmp(digest, digest_tag, tag) == 0 && is_lower_hex(digest + tag, 32);
}

void manifest_format_digest(const uint8_t canonical[16], char ret[MANIFEST_DIGEST_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    size_t at = sizeof(digest_tag) - 1;
    memcpy(ret, digest_tag, at);
    for (size_t i = 0; i < 16; i++) {
        ret[at++] = hex[canonical[i] >> 4];
        ret[at++] = hex[canonical[i] & 15];
    }
    ret[at] = '\0';
}

const struct manifest_file *manifest_find_file(const struct manifest *m, const char *path)
{
    for (size_t i = 0; i < m->file_count; i++)
        if (strcmp(m->files[i].path, path) == 0)
            return &m->files[i];
    return NULL;
}

void manifest_fini(struct manifest *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->disk_count; i++)
        free(m->disks[i].base_path);
    free(m->disks);
    free(m->cpuid);
    free(m->files);
    free(m->packs);
    free(m->stats);
    free(m->incompatible.items);
    free(m->ignorable.items);
    free(m->overrides.items);
    free(m->devices.items);
    free(m->metadata);
    *m = (struct manifest){0};
}

/* The digest */

static int hash_chunk(const char *bytes, size_t count, void *state)
{
    return XXH3_128bits_update(state, bytes, count) == XXH_OK ? 0 : -1;
}

int manifest_json_digest(const json_t *root, char ret[MANIFEST_DIGEST_BYTES])
{
    json_t *content = json_copy((json_t *)root); /* shallow: members are shared */
    XXH3_state_t *state = XXH3_createState();
    int r = -ENOMEM;
    /* A copy that lacks members for want of memory is made as well. */
    if (content && state && json_object_size(content) == json_object_size(root)) {
        json_object_del(content, "digest");
        XXH3_128bits_reset(state);
        if (json_dump_callback(content, hash_chunk, state, JSON_COMPACT | JSON_SORT_KEYS) == 0) {
            XXH128_canonical_t canonical;
            XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
            manifest_format_digest(canonical.digest, ret);
            r = 0;
        }
    }
    XXH3_freeState(state);
    json_decref(content);
    return r;
}

/* Writing. Only memory can run out here; that is noticed once, at the end. */

struct encoder {
    bool failed;
    bool not_utf8;
};

/* Takes the value over in every case. */
static void put(struct encoder *e, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) < 0)
        e->failed = true;
}

static void put_u64(struct encoder *e, json_t *object, const char *key, uint64_t value)
{
    /* A value that JSON's signed integers cannot hold comes out negative, which decoding refuses.
     */
    put(e, object, key, json_integer((json_int_t)value));
}

static void put_string(struct encoder *e, json_t *object, const char *key, const char *value)
{
    json_t *string = json_string(value);
    if (!string && value) {
        json_t *unchecked = json_string_nocheck(value); /* NULL: it was memory */
        string = unchecked ? json_string(value) : NULL;
        e->not_utf8 = e->not_utf8 || (unchecked && !string);
        json_decref(unchecked);
    }
    put(e, object, key, string);
}

/* Returns the value, which is the array's; NULL if it could not be appended, and is gone. */
static json_t *append(struct encoder *e, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) == 0)
        return value;
    e->failed = true;
    return NULL;
}

static json_t *put_array(struct encoder *e, json_t *object, const char *key)
{
    json_t *array = json_array();
    put(e, object, key, array);
    return e->failed ? NULL : array;
}

static json_t *put_object(struct encoder *e, json_t *object, const char *key)
{
    json_t *child = json_object();
    put(e, object, key, child);
    return e->failed ? NULL : child;
}

static void put_strings(
    struct encoder *e, json_t *object, const char *key, const struct manifest_strings *strings)
{
    json_t *array = put_array(e, object, key);
    for (size_t i = 0; i < strings->count; i++)
        append(e, array, json_string(strings->items[i]));
}

static void put_identity(struct encoder *e, json_t *root, const struct manifest *m)
{
    put_string(e, root, "format", MANIFEST_FORMAT);
    put_u64(e, root, "version_major", MANIFEST_VERSION_MAJOR);
    put_u64(e, root, "version_minor", MANIFEST_VERSION_MINOR);
    put(e, root, "complete", json_boolean(m->complete));
    put_string(e, root, "id", m->id);
    put_string(e, root, "name", m->name);
    put_string(e, root, "source", m->source);
    put_string(e, root, "template", m->template_name);
    put_string(e, root, "producer", m->producer);
    put_u64(e, root, "created_ns", m->created_ns);
    json_t *features = put_object(e, root, "features");
    put_strings(e, features, "incompatible", &m->incompatible);
    put_strings(e, features, "ignorable", &m->ignorable);
}

static void put_machine(struct encoder *e, json_t *root, const struct manifest *m)
{
    json_t *machine = put_object(e, root, "machine");
    put_u64(e, machine, "vcpus", m->vcpu_count);
    put_u64(e, machine, "mem_bytes", m->mem_bytes);
    put_strings(e, machine, "devices", &m->devices);
    json_t *disks = put_array(e, machine, "disks");
    for (size_t i = 0; i < m->disk_count; i++) {
        const struct manifest_disk *disk = &m->disks[i];
        json_t *object = append(e, disks, json_object());
        put_u64(e, object, "bytes", disk->bytes);
        put(e, object, "read_only", json_boolean(disk->read_only));
        put_string(e, object, "base_path", disk->base_path ? disk->base_path : "");
        put_u64(e, object, "base_bytes", disk->base_bytes);
        put_u64(e, object, "base_mtime_ns", disk->base_mtime_ns);
        put_string(e, object, "base_identity", disk->base_identity);
    }
}

static void put_host(struct encoder *e, json_t *root, const struct manifest *m)
{
    json_t *host = put_object(e, root, "host");
    put_string(e, host, "cpu_vendor", m->cpu_vendor);
    put_u64(e, host, "cpu_family", m->cpu_family);
    put_u64(e, host, "cpu_model", m->cpu_model);
    put_u64(e, host, "cpu_stepping", m->cpu_stepping);
    put_u64(e, host, "tsc_khz", m->tsc_khz);
    put_string(e, host, "kvm_backend", m->kvm_backend);
    json_t *cpuid = put_array(e, host, "cpuid");
    for (size_t i = 0; i < m->cpuid_count; i++) {
        const struct manifest_cpuid *c = &m->cpuid[i];
        const uint32_t words[] = {c->leaf, c->subleaf, c->eax, c->ebx, c->ecx, c->edx};
        json_t *row = append(e, cpuid, json_array());
        for (size_t j = 0; j < ARRAY_SIZE(words); j++)
            append(e, row, json_integer(words[j]));
    }
}

static void put_files(struct encoder *e, json_t *root, const struct manifest *m)
{
    json_t *files = put_array(e, root, "files");
    for (size_t i = 0; i < m->file_count; i++) {
        json_t *object = append(e, files, json_object());
        put_string(e, object, "path", m->files[i].path);
        put_u64(e, object, "bytes", m->files[i].bytes);
        put_string(e, object, "digest", m->files[i].digest);
    }
    json_t *packs = put_array(e, root, "packs");
    for (size_t i = 0; i < m->pack_count; i++) {
        json_t *object = append(e, packs, json_object());
        put_string(e, object, "id", m->packs[i].id);
        put_u64(e, object, "bytes", m->packs[i].bytes);
        put_u64(e, object, "live_bytes", m->packs[i].live_bytes);
        put(e, object, "own", json_boolean(m->packs[i].own));
    }
    json_t *stats = put_object(e, root, "stats");
    for (size_t i = 0; i < m->stat_count; i++)
        put_u64(e, stats, m->stats[i].name, m->stats[i].value);
}

static json_t *parse_once(const char *text, bool *ret_syntax)
{
    json_error_t problem = {0};
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    *ret_syntax = !root && manifest_is_syntax(&problem);
    return root;
}

/* Twice: where jansson lacks the memory for a token, it takes another one's place. Returns NULL and
 * stores -ENOMEM, or -EINVAL if the text is wrong. */
static json_t *parse(const char *text, int *ret_r)
{
    bool wrong[2];
    json_t *one = parse_once(text, &wrong[0]), *two = parse_once(text, &wrong[1]);
    *ret_r = wrong[0] && wrong[1] ? -EINVAL : json_equal(one, two) ? 0 : -ENOMEM;
    json_decref(two);
    if (*ret_r == 0)
        return one;
    json_decref(one);
    return NULL;
}

static int parse_metadata(const char *text, json_t **ret, struct thaw_error *error)
{
    int r = manifest_check_shape(text, strlen(text), NULL);
    if (r < 0)
        return error_set(error, -EINVAL, "metadata is too large or too deeply nested");
    json_t *metadata = parse(text, &r);
    if (r == -ENOMEM)
        return error_errno(error, ENOMEM, "reading a snapshot's metadata");
    if (!json_is_object(metadata)) {
        json_decref(metadata);
        return error_set(error, -EINVAL, "metadata is not a JSON object");
    }
    *ret = metadata;
    return 0;
}

int manifest_check_metadata(const char *text, struct thaw_error *error)
{
    json_t *metadata;
    char *compact;
    int r = parse_metadata(text, &metadata, error);
    if (r < 0)
        return r;
    r = manifest_metadata_text(metadata, &compact, error);
    json_decref(metadata);
    if (r == 0)
        free(compact);
    return r;
}

static int put_content(
    struct encoder *e, json_t *root, const struct manifest *m, struct thaw_error *error)
{
    json_t *metadata;
    int r = parse_metadata(m->metadata ? m->metadata : "{}", &metadata, error);
    if (r < 0)
        return r;
    put(e, root, "metadata", metadata);
    put_string(e, root, "kind", m->kind == MANIFEST_DIFF ? "diff" : "full");
    put_string(e, root, "parent", m->parent);
    put_strings(e, root, "overrides", &m->overrides);
    put_machine(e, root, m);
    put_host(e, root, m);
    put_files(e, root, m);
    return 0;
}

/* What is written must be readable: the rules are in one place, the decoder. */
static int check_text(const char *text, size_t bytes, struct thaw_error *error)
{
    struct manifest back;
    int r = manifest_decode(&back, text, bytes, error);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        error_prefix(error, -EINVAL, "writing a snapshot's description");
        if (error)
            error->code = -EINVAL;
        return -EINVAL;
    }
    manifest_fini(&back);
    return 0;
}

int manifest_to_json(const struct manifest *m, json_t **ret_root, struct thaw_error *error)
{
    struct encoder e = {0};
    char digest[MANIFEST_DIGEST_BYTES];
    json_t *root = json_object();
    put_identity(&e, root, m);
    int r = m->complete ? put_content(&e, root, m, error) : 0;
    if (r == 0 && !e.failed && manifest_json_digest(root, digest) == 0)
        put_string(&e, root, "digest", digest);
    else
        e.failed = true;
    if (r == 0 && e.not_utf8)
        r = error_set(error, -EINVAL, "writing a snapshot's description: a text is not UTF-8");
    else if (r == 0 && e.failed)
        r = error_errno(error, ENOMEM, "writing a snapshot's description");
    if (r == 0)
        *ret_root = root;
    else
        json_decref(root);
    return r;
}

int manifest_encode(
    const struct manifest *m, char **ret_text, size_t *ret_bytes, struct thaw_error *error)
{
    json_t *root;
    int r = manifest_to_json(m, &root, error);
    if (r < 0)
        return r;
    size_t bytes;
    _cleanup_free_ char *text = json_build_text(root, JSON_INDENT(1), &bytes);
    json_decref(root);
    if (!text)
        return error_errno(error, ENOMEM, "writing a snapshot's description");
    r = check_text(text, bytes, error);
    if (r < 0)
        return r;
    *ret_text = take_ptr(text);
    *ret_bytes = bytes;
    return 0;
}
