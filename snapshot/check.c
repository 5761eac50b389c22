// SPDX-License-Identifier: Apache-2.0
// The only place that knows libxxhash. Does not know what is being checked.

#include "check.h"
#include <xxhash.h>

static struct wire_b16 canonical(XXH128_hash_t hash)
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, hash);
    return wire_load_b16(bytes.digest);
}

uint64_t check_64(const void *bytes, size_t count)
{
    return XXH3_64bits(bytes, count);
}

struct wire_b16 check_128(
    const void *context, size_t context_bytes, const void *bytes, size_t count)
{
    uint64_t seed = XXH3_64bits(context, context_bytes);
    return canonical(XXH3_128bits_withSeed(bytes, count, seed));
}

/* The library's state has an alignment and a size that only it knows. */
static XXH3_state_t *state_of(const struct check_stream *stream)
{
    return (XXH3_state_t *)(uintptr_t)stream;
}

struct check_stream *check_stream_new(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state)
        XXH3_128bits_reset(state);
    return (struct check_stream *)(void *)state;
}

void check_stream_free(struct check_stream *stream)
{
    XXH3_freeState(state_of(stream));
}

void check_stream_add(struct check_stream *stream, const void *bytes, size_t count)
{
    if (count > 0)
        XXH3_128bits_update(state_of(stream), bytes, count);
}

struct wire_b16 check_stream_result(const struct check_stream *stream)
{
    return canonical(XXH3_128bits_digest(state_of(stream)));
}
