/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums against damage, not against malice: XXH3, as docs/format.md defines their use. */
#ifndef SNAPSHOT_CHECK_H
#define SNAPSHOT_CHECK_H

#include "wire.h"

/* XXH3-64. */
uint64_t check_64(const void *bytes, size_t count);

/* XXH3-128 of `bytes`, in canonical form, seeded with the XXH3-64 of `context`: the same bytes in
 * another place have another check. */
struct wire_b16 check_128(
    const void *context, size_t context_bytes, const void *bytes, size_t count);

/* XXH3-128 without a seed, of bytes that come in pieces. */
struct check_stream;
struct check_stream *check_stream_new(void); /* NULL: no memory */
void check_stream_free(struct check_stream *stream);
void check_stream_add(struct check_stream *stream, const void *bytes, size_t count);
struct wire_b16 check_stream_result(const struct check_stream *stream);

#endif
