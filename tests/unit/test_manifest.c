// SPDX-License-Identifier: Apache-2.0
#include "manifest.h"
#include "store_fixture.h"
#include <criterion/criterion.h>
#include <string.h>

static char *encode(const struct manifest *m)
{
    struct thaw_error error = {0};
    char *text = NULL;
    size_t bytes = 0;
    cr_assert_eq(manifest_encode(m, &text, &bytes, &error), 0, "%s", error.message);
    cr_assert_eq(strlen(text), bytes);
    return text;
}

static json_t *sample(void)
{
    struct manifest m;
    fixture_manifest(&m);
    char *text = encode(&m);
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    manifest_fini(&m);
    cr_assert(root);
    return root;
}

/* Gives root a matching digest, decodes it, and frees it. */
static int decode(json_t *root, struct thaw_error *error)
{
    char digest[MANIFEST_DIGEST_BYTES];
    struct manifest m;
    cr_assert_eq(manifest_json_digest(root, digest), 0);
    json_object_set_new(root, "digest", json_string(digest));
    char *text = json_dumps(root, 0);
    int r = manifest_decode(&m, text, strlen(text), error);
    if (r == 0)
        manifest_fini(&m);
    free(text);
    json_decref(root);
    return r;
}

Test(manifest, what_is_written_is_read_back)
{
    struct manifest m, back;
    fixture_manifest(&m);
    char *text = encode(&m);
    cr_assert_eq(manifest_decode(&back, text, strlen(text), NULL), 0);
    cr_assert_eq(back.version_major, MANIFEST_VERSION_MAJOR);
    cr_assert_eq(back.created_ns, m.created_ns);
    cr_assert_str_eq(back.parent, m.parent);
    cr_assert_eq(back.kind, MANIFEST_DIFF);
    cr_assert_str_eq(back.disks[0].base_path, "/images/root.img");
    cr_assert_eq(back.cpuid[0].ebx, 0xffffffff);
    cr_assert_str_eq(back.ignorable.items[0], "comment");
    cr_assert_eq(back.packs[0].live_bytes, 7);
    cr_assert_eq(back.stats[0].value, 123456);
    cr_assert_str_eq(back.metadata, m.metadata);
    char *again = encode(&back);
    cr_assert_str_eq(again, text);
    free(again);
    free(text);
    manifest_fini(&back);
    manifest_fini(&m);
}

Test(manifest, an_unfinished_one_has_its_identity_only)
{
    struct manifest m = {.id = "00000000000000000000000000000001", .name = "n"}, back;
    char *text = encode(&m);
    cr_assert_eq(manifest_decode(&back, text, strlen(text), NULL), 0);
    cr_assert_not(back.complete);
    cr_assert_str_eq(back.name, "n");
    cr_assert_eq(back.file_count, 0);
    free(text);
    manifest_fini(&back);
}

/* Flips every bit of the text: what is still accepted must say the same. */
Test(manifest, every_changed_bit_is_found_or_harmless)
{
    struct manifest m, back;
    unsigned accepted = 0;
    fixture_manifest(&m);
    char *text = encode(&m);
    size_t bytes = strlen(text);
    for (size_t i = 0; i < 8 * bytes; i++) {
        text[i / 8] = (char)(text[i / 8] ^ (1 << i % 8));
        if (manifest_decode(&back, text, bytes, NULL) == 0) {
            text[i / 8] = (char)(text[i / 8] ^ (1 << i % 8));
            char *again = encode(&back);
            cr_assert_str_eq(again, text, "bit %zu", i);
            free(again);
            manifest_fini(&back);
            accepted++;
        } else {
            text[i / 8] = (char)(text[i / 8] ^ (1 << i % 8));
        }
    }
    cr_assert_lt(accepted, bytes / 4); /* white space that became other white space */
    free(text);
    manifest_fini(&m);
}

Test(manifest, every_truncation_is_found)
{
    struct manifest m, back;
    fixture_manifest(&m);
    char *text = encode(&m);
    for (size_t i = 0; i < strlen(text); i++)
        cr_assert_eq(manifest_decode(&back, text, i, NULL), THAW_ECORRUPT, "%zu", i);
    free(text);
    manifest_fini(&m);
}

Test(manifest, members_of_a_later_minor_version_are_ignored)
{
    json_t *root = sample();
    json_object_set_new(root, "version_minor", json_integer(MANIFEST_VERSION_MINOR + 1));
    json_object_set_new(root, "novelty", json_pack("{s:[i,f]}", "x", 1, 0.1));
    json_object_set_new(json_object_get(root, "machine"), "sockets", json_integer(2));
    struct thaw_error error = {0};
    cr_assert_eq(decode(root, &error), 0, "%s", error.message);
}

Test(manifest, a_later_major_version_is_refused_by_number)
{
    json_t *root = sample();
    struct thaw_error error = {0};
    json_object_set_new(root, "version_major", json_integer(7));
    cr_assert_eq(decode(root, &error), -EOPNOTSUPP);
    cr_assert(strstr(error.message, "version 7.0"), "%s", error.message);
}

Test(manifest, an_unknown_incompatible_feature_is_refused_by_name)
{
    json_t *root = sample();
    struct thaw_error error = {0};
    json_t *features = json_object_get(root, "features");
    json_object_set_new(features, "incompatible", json_pack("[s]", "encrypted-packs"));
    cr_assert_eq(decode(root, &error), -EOPNOTSUPP);
    cr_assert(strstr(error.message, "encrypted-packs"), "%s", error.message);
}

/* Walks all members: leaves each out once, and gives each a value of every wrong type once. */
static unsigned break_members(const char *path[], unsigned depth)
{
    static const char *const values[] = {"null", "true", "-1", "1.5", "\"\\u0001\"", "[[]]",
        "{\"a\":{}}", "9223372036854775807", "[1]"};
    unsigned refused = 0;
    json_t *root = sample(), *object = root;
    for (unsigned i = 0; i < depth; i++)
        object = json_object_get(object, path[i]);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "digest") == 0 || strcmp(key, "metadata") == 0 ||
            strcmp(key, "pause_ns") == 0)
            continue;
        for (size_t i = 0; i <= ARRAY_SIZE(values); i++) {
            json_t *broken = sample(), *inner = broken;
            for (unsigned j = 0; j < depth; j++)
                inner = json_object_get(inner, path[j]);
            json_object_del(inner, key);
            json_t *wrong =
                i < ARRAY_SIZE(values) ? json_loads(values[i], JSON_DECODE_ANY, NULL) : NULL;
            bool same_type = wrong && (json_typeof(wrong) == json_typeof(value) ||
                                          (json_is_boolean(wrong) && json_is_boolean(value)));
            if (wrong)
                json_object_set_new(inner, key, wrong);
            int r = decode(broken, NULL);
            cr_assert(r < 0 || same_type, "%s with %s was accepted", key,
                i < ARRAY_SIZE(values) ? values[i] : "nothing");
            refused += r < 0;
        }
        if (json_is_object(value)) {
            path[depth] = key;
            refused += break_members(path, depth + 1);
        }
    }
    json_decref(root);
    return refused;
}

Test(manifest, every_member_is_required_and_type_checked)
{
    const char *path[8];
    cr_assert_gt(break_members(path, 0), 200);
}

static int decode_with(const char *key, json_t *value)
{
    json_t *root = sample();
    json_object_set_new(root, key, value);
    return decode(root, NULL);
}

Test(manifest, entries_of_lists_are_checked)
{
    static const char *const paths[] = {"../x", "/x", "packs/../x", "packs/a/b", "a/b", "", ".",
        "manifest.json", "manifest.json.tmp", "error", "packs", "packs/", "x y", "x\n"};
    const char *digest = "xxh3-128:00112233445566778899aabbccddeeff";
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        cr_assert_eq(decode_with("files", json_pack("[{s:s,s:i,s:s}]", "path", paths[i], "bytes", 1,
                                              "digest", digest)),
            THAW_ECORRUPT, "%s", paths[i]);
    json_t *twice = json_pack("[{s:s,s:i,s:s},{s:s,s:i,s:s}]", "path", "a", "bytes", 1, "digest",
        digest, "path", "a", "bytes", 1, "digest", digest);
    cr_assert_eq(decode_with("files", twice), THAW_ECORRUPT);
    cr_assert_eq(decode_with("files", json_pack("[]")), THAW_ECORRUPT, "a pack without its file");
    cr_assert_eq(decode_with("overrides", json_pack("[s,s]", "a", "a")), THAW_ECORRUPT);
    cr_assert_eq(decode_with("stats", json_pack("{s:s}", "a", "b")), THAW_ECORRUPT);
    cr_assert_eq(decode_with("parent", json_string("")), THAW_ECORRUPT, "a diff without a parent");
    cr_assert_eq(decode_with("id", json_string("0000")), THAW_ECORRUPT);
    cr_assert_eq(decode_with("name", json_string("../x")), THAW_ECORRUPT);
}

Test(manifest, duplicate_members_are_refused)
{
    const char *text = "{\"format\":\"thaw-snapshot\",\"format\":\"thaw-snapshot\"}";
    struct thaw_error error;
    struct manifest m;
    cr_assert_eq(manifest_decode(&m, text, strlen(text), &error), THAW_ECORRUPT);
    cr_assert(strstr(error.message, "duplicate"), "%s", error.message);
}

Test(manifest, size_depth_and_number_of_values_are_limited)
{
    static char text[MANIFEST_BYTES_MAX + 1];
    struct manifest m;
    static const char fills[] = {' ', '[', '{', ','};
    for (size_t i = 0; i < ARRAY_SIZE(fills); i++) {
        memset(text, fills[i], sizeof(text));
        text[0] = '[';
        cr_assert_eq(manifest_decode(&m, text, sizeof(text), NULL), THAW_ECORRUPT);
        cr_assert_eq(manifest_decode(&m, text, sizeof(text) - 1, NULL), THAW_ECORRUPT);
    }
    cr_assert_eq(manifest_decode(&m, "", 0, NULL), THAW_ECORRUPT);
}

Test(manifest, metadata_is_echoed_within_its_limits)
{
    static char text[MANIFEST_METADATA_BYTES_MAX + 64];
    struct manifest m;
    char *out;
    size_t bytes;
    static const char *const refused[] = {"[]", "x", "", "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}",
        "{\"a\":[[[[[[[[[[[[[]]]]]]]]]]]]]}"};
    fixture_manifest(&m);
    char *original = m.metadata;
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct thaw_error error = {0};
        m.metadata = (char *)refused[i];
        cr_assert_eq(manifest_encode(&m, &out, &bytes, &error), -EINVAL, "%s", refused[i]);
        cr_assert_eq(error.code, -EINVAL);
        cr_assert_eq(manifest_check_metadata(refused[i], NULL), -EINVAL, "%s", refused[i]);
    }
    m.metadata = text;
    snprintf(text, sizeof(text), "{\"a\":\"%0*d\"}", (int)MANIFEST_METADATA_BYTES_MAX - 8, 0);
    cr_assert_eq(manifest_encode(&m, &out, &bytes, NULL), 0);
    cr_assert_eq(manifest_check_metadata(text, NULL), 0);
    free(out);
    snprintf(text, sizeof(text), "{\"a\":\"%0*d\"}", (int)MANIFEST_METADATA_BYTES_MAX - 7, 0);
    cr_assert_eq(manifest_encode(&m, &out, &bytes, NULL), -EINVAL);
    cr_assert_eq(manifest_check_metadata(text, NULL), -EINVAL);
    m.metadata = original;
    manifest_fini(&m);
}

Test(manifest, what_could_not_be_read_is_not_written)
{
    struct manifest m;
    char *out;
    size_t bytes;
    struct thaw_error error;
    fixture_manifest(&m);
    strcpy(m.files[0].path, "a/b");
    cr_assert_eq(manifest_encode(&m, &out, &bytes, &error), -EINVAL);
    cr_assert(strstr(error.message, "a/b"), "%s", error.message);
    strcpy(m.files[0].path, "vmstate");
    strcpy(m.source, "\xff");
    cr_assert_eq(manifest_encode(&m, &out, &bytes, &error), -EINVAL);
    cr_assert(strstr(error.message, "UTF-8"), "%s", error.message);
    m.source[0] = '\0';
    m.mem_bytes = UINT64_MAX;
    cr_assert_eq(manifest_encode(&m, &out, &bytes, &error), -EINVAL);
    manifest_fini(&m);
}

Test(manifest, names_have_a_grammar)
{
    char name[MANIFEST_NAME_BYTES + 1];
    memset(name, 'a', sizeof(name));
    name[MANIFEST_NAME_CHARS + 1] = '\0';
    cr_assert_not(manifest_name_valid(name));
    name[MANIFEST_NAME_CHARS] = '\0';
    cr_assert(manifest_name_valid(name));
    name[MANIFEST_ID_CHARS] = '\0';
    cr_assert_not(manifest_name_valid(name), "that is an id");
    cr_assert(manifest_id_valid(name));
    cr_assert(manifest_name_valid("0.9-x_Y"));
    static const char *const bad[] = {"", ".", "..", "-a", "_a", "a/b", "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        cr_assert_not(manifest_name_valid(bad[i]), "%s", bad[i]);
}
