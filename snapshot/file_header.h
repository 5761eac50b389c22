/* SPDX-License-Identifier: Apache-2.0 */
/* The header that every binary file of a snapshot begins with: identity, version, features. */
#ifndef SNAPSHOT_FILE_HEADER_H
#define SNAPSHOT_FILE_HEADER_H

#include "error.h"
#include "format.h"

enum file_kind {
    FILE_KIND_PACK,
    FILE_KIND_INDEX,
    FILE_KIND_STATE,
};
#define FILE_KINDS 3

/* Fills in magic, version and size of *header and writes FILE_HEADER_BYTES to `bytes`, with the
 * checksum. The caller has set id, ignorable, page_shift and frame_pages. */
void file_header_write(enum file_kind kind, struct file_header *header, uint8_t *bytes);

/* Reads a header from the first `count` bytes of a file (FILE_HEADER_BYTES_MAX, or the whole of a
 * shorter file). Checks everything that must hold before the rest of the file is looked at; after
 * success the body begins at header_bytes. THAW_ECORRUPT if it is damaged or not a file of that
 * kind, -EOPNOTSUPP if it needs a newer thaw. `name` is the file's name, for messages. */
int file_header_read(enum file_kind kind, const uint8_t *bytes, size_t count, const char *name,
    struct file_header *ret, struct thaw_error *error);

#endif
