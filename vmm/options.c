// SPDX-License-Identifier: Apache-2.0
// Versioned option structs. Knows no particular one.

#include "options.h"
#include <string.h>

int options_read(
    void *dst, size_t dst_bytes, const void *src, const char *what, struct thaw_error *error)
{
    size_t src_bytes = 0;
    if (src)
        memcpy(&src_bytes, src, sizeof(src_bytes));
    if (src && src_bytes < sizeof(size_t))
        return error_set(error, -EINVAL, "%s: size is not set", what);

    for (size_t i = dst_bytes; i < src_bytes; i++)
        if (((const unsigned char *)src)[i] != 0)
            return error_set(error, -EINVAL,
                "%s: an option at byte %zu is not known to this version of the library", what, i);
    if (src)
        memcpy(dst, src, MIN(src_bytes, dst_bytes));
    memcpy(dst, &dst_bytes, sizeof(dst_bytes));
    return 0;
}
