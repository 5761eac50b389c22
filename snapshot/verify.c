// SPDX-License-Identifier: Apache-2.0
// Reads every byte of a stored snapshot and says what is wrong with it. Repairs nothing.

#include "check.h"
#include "contents.h"
#include "job.h"
#include "vm_state.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define BUFFER_BYTES (1u << 20)

struct verify {
    struct store_snapshot *snapshot; /* the contents' once they are open */
    struct contents *contents;
};

static int read_and_check(const struct verify *verify, struct thaw_job *job,
    const struct manifest_file *file, struct check_stream *stream, uint8_t *buffer,
    struct thaw_error *error)
{
    _cleanup_close_ int fd =
        openat(verify->snapshot->fd, file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO))
        return error_set(error, THAW_ECORRUPT, "'%s' is missing, or not a file: %s", file->path,
            thaw_strerror(-errno));
    if (fd < 0)
        return error_errno(error, errno, "opening '%s'", file->path);
    uint64_t bytes = 0;
    for (;;) {
        ssize_t got = read(fd, buffer, BUFFER_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(error, errno, "reading '%s' at %" PRIu64, file->path, bytes);
        if (got == 0)
            break;
        check_stream_add(stream, buffer, (size_t)got);
        bytes += (uint64_t)got;
        job_advance(job, (uint64_t)got);
        if (job_cancelled(job))
            return error_set(error, -ECANCELED, "cancelled");
    }
    char digest[MANIFEST_DIGEST_BYTES];
    struct wire_b16 result = check_stream_result(stream);
    manifest_format_digest(result.bytes, digest);
    if (bytes != file->bytes)
        return error_set(error, THAW_ECORRUPT,
            "'%s' ends at offset %" PRIu64 ", and should at %" PRIu64, file->path, bytes,
            file->bytes);
    if (strcmp(digest, file->digest) != 0)
        return error_set(error, THAW_ECORRUPT,
            "'%s' is damaged somewhere from offset 0 to %" PRIu64
            ": it is not what the manifest says",
            file->path, bytes);
    return 0;
}

static int check_file(const struct verify *verify, struct thaw_job *job,
    const struct manifest_file *file, struct thaw_error *error)
{
    uint8_t *buffer _cleanup_free_ = malloc(BUFFER_BYTES);
    struct check_stream *stream = check_stream_new();
    int r = buffer && stream ? read_and_check(verify, job, file, stream, buffer, error)
                             : error_errno(error, ENOMEM, "checking '%s'", file->path);
    check_stream_free(stream);
    return r;
}

/* What each file says. Of a pack, that tells where the damage is. */
static int check_meaning(struct verify *verify, struct thaw_error *error)
{
    struct vm_state *state;
    int r = contents_open(verify->snapshot, &verify->contents, error);
    if (r < 0)
        return r;
    r = contents_read_state(verify->contents, &state, error);
    if (r < 0)
        return r;
    vm_state_free(state);
    for (size_t i = 0; i < verify->contents->pack_count && r == 0; i++)
        r = pack_verify(verify->contents->packs[i], error);
    return r;
}

/* Every byte, which also finds damage that no reader would trip over. */
static int check_files(
    const struct verify *verify, struct thaw_job *job, bool packs, struct thaw_error *error)
{
    const struct manifest *manifest = &verify->snapshot->manifest;
    int r = 0;
    for (size_t i = 0; i < manifest->file_count && r == 0; i++)
        if ((strchr(manifest->files[i].path, '/') != NULL) == packs)
            r = check_file(verify, job, &manifest->files[i], error);
    return r;
}

static int run(struct thaw_job *job, void *data, struct thaw_error *error)
{
    struct verify *verify = data;
    const struct manifest *manifest = &verify->snapshot->manifest;
    uint64_t total = 0;
    for (size_t i = 0; i < manifest->file_count; i++)
        total += manifest->files[i].bytes;
    job_phase(job, "verifying", total);
    int r = check_files(verify, job, false, error);
    if (r == 0)
        r = check_meaning(verify, error);
    return r < 0 ? r : check_files(verify, job, true, error);
}

static void free_verify(void *data)
{
    struct verify *verify = data;
    if (verify->contents)
        contents_unref(verify->contents);
    else if (verify->snapshot)
        store_put(verify->snapshot);
    free(verify);
}

static const struct job_ops ops = {.run = run, .free = free_verify};

int thaw_snapshot_verify(
    thaw_store *store, const char *ref, thaw_job **ret, struct thaw_error *error)
{
    struct verify *verify = calloc(1, sizeof(*verify));
    if (!verify)
        return error_errno(error, ENOMEM, "verifying a snapshot");
    int r = store_get(store, ref, "verify", &verify->snapshot, error);
    if (r == 0)
        r = job_start("thaw/verify", &ops, verify, NULL, ret, error);
    if (r < 0)
        free_verify(verify);
    return r;
}
