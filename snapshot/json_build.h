/* SPDX-License-Identifier: Apache-2.0 */
/* Building JSON where memory may run out: what could not be completed becomes NULL as a whole, and
 * stays so. */
#ifndef SNAPSHOT_JSON_BUILD_H
#define SNAPSHOT_JSON_BUILD_H

#include <jansson.h>
#include <stdlib.h>

/* Both take `value` over, which is NULL if it could not be made. */
static inline void json_build_set(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value) < 0) {
        json_decref(*object);
        *object = NULL;
    }
}

static inline void json_build_append(json_t **array, json_t *value)
{
    if (json_array_append_new(*array, value) < 0) {
        json_decref(*array);
        *array = NULL;
    }
}

/* json_dumps leaves out keys that it lacks memory for. Malloced, with a NUL that *ret_bytes does
 * not count; NULL: no memory. */
static inline char *json_build_text(const json_t *root, size_t flags, size_t *ret_bytes)
{
    size_t bytes = root ? json_dumpb(root, NULL, 0, flags) : 0;
    char *text = bytes > 0 ? malloc(bytes + 1) : NULL;
    if (!text || json_dumpb(root, text, bytes, flags) != bytes) {
        free(text);
        return NULL;
    }
    text[bytes] = '\0';
    *ret_bytes = bytes;
    return text;
}

#endif
