// SPDX-License-Identifier: Apache-2.0
// The control socket's HTTP parser, with a request that arrives in pieces: the first byte says how
// many, a byte for each says how long it is, and the rest is the request.

#include "fuzz_input.h"
#include "http.h"
#include <errno.h>

static void check_complete(const char *buf, size_t count, const struct http_request *request,
    const struct http_progress *progress)
{
    FUZZ_ASSERT(progress->used > 0 && progress->used <= count);
    FUZZ_ASSERT(request->method && request->method[0]);
    FUZZ_ASSERT(strlen(request->path) <= HTTP_TARGET_MAX_BYTES);
    FUZZ_ASSERT(strlen(request->query) <= HTTP_TARGET_MAX_BYTES);
    FUZZ_ASSERT(request->body_count <= HTTP_BODY_MAX_BYTES);
    if (request->body_count > 0) {
        FUZZ_ASSERT(request->body >= buf);
        FUZZ_ASSERT(request->body + request->body_count <= buf + progress->used);
    }
}

/* Parses what has arrived, in a buffer that ends where it ends. */
static int parse(const uint8_t *data, size_t count, size_t *ret_used)
{
    struct http_request request;
    struct http_progress progress;
    char *buf = malloc(count ? count : 1);
    FUZZ_ASSERT(buf);
    memcpy(buf, data, count);
    int r = http_parse_request(buf, count, &request, &progress);
    FUZZ_ASSERT(r == 0 || r == -EAGAIN || (r >= 400 && r < 600));
    if (r == 0)
        check_complete(buf, count, &request, &progress);
    else if (r > 0)
        FUZZ_ASSERT(http_reason(r)[0]);
    *ret_used = r == 0 ? progress.used : 0;
    free(buf);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct fuzz_input input = {data, count};
    uint8_t pieces[16];
    size_t piece_count = fuzz_u8(&input) % sizeof(pieces);
    fuzz_take(&input, pieces, piece_count);

    int before = -EAGAIN;
    size_t used_before = 0, arrived = 0;
    for (size_t i = 0; i <= piece_count; i++) {
        arrived = i == piece_count ? input.left : arrived + pieces[i];
        if (arrived > input.left)
            arrived = input.left;
        size_t used;
        int r = parse(input.at, arrived, &used);
        /* What was understood stays as it is, whatever follows. */
        if (before != -EAGAIN)
            FUZZ_ASSERT(r == before && used == used_before);
        before = r;
        used_before = used;
    }
    return 0;
}
