// SPDX-License-Identifier: Apache-2.0
// Manifests are untrusted. Any text is refused, or read, written and read again with the same
// result. It is tried as it stands, and with the digest that would make it credible.

#include "manifest.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void decode(const char *text, size_t bytes)
{
    struct manifest m, again;
    struct thaw_error error;
    char *first, *second;
    size_t first_bytes, second_bytes;
    if (manifest_decode(&m, text, bytes, &error) < 0)
        return;
    require(manifest_encode(&m, &first, &first_bytes, &error) == 0);
    require(manifest_decode(&again, first, first_bytes, &error) == 0);
    require(manifest_encode(&again, &second, &second_bytes, &error) == 0);
    require(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
    free(first);
    free(second);
    manifest_fini(&again);
    manifest_fini(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    char digest[MANIFEST_DIGEST_BYTES];
    const char *text = (const char *)data;
    decode(text, count);
    json_t *root =
        manifest_check_shape(text, count, NULL) < 0 ? NULL : json_loadb(text, count, 0, NULL);
    if (json_is_object(root) && manifest_json_digest(root, digest) == 0) {
        json_object_set_new(root, "digest", json_string(digest));
        char *sealed = json_dumps(root, JSON_COMPACT);
        decode(sealed, strlen(sealed));
        free(sealed);
    }
    json_decref(root);
    return 0;
}
