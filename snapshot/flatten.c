// SPDX-License-Identifier: Apache-2.0
// Makes an independent copy of a stored snapshot. Needs no VM.

#include "capture.h"
#include "rewrite.h"

/* An index equal to one of the source's, to be changed. */
static int copy_index(
    const struct page_index *index, struct page_index **ret, struct thaw_error *error)
{
    struct page_index_builder *builder;
    int r = page_index_builder_new(page_index_space(index), index, &builder, error);
    return r < 0 ? r : page_index_builder_finish(builder, ret, error);
}

static uint64_t data_bytes(const struct capture *capture)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < capture->from->space_count; i++) {
        struct page_index_stats stats;
        page_index_get_stats(capture->from->spaces[i].index, &stats);
        bytes += stats.data_pages * FORMAT_PAGE_BYTES;
    }
    return bytes;
}

static int copy_spaces(struct capture *capture, struct thaw_job *job, struct thaw_error *error)
{
    const struct rewrite rewrite = {
        .job = job,
        .from = capture->from,
        .writer = capture->writer,
        .own = capture->pack_id,
        .all = true,
    };
    job_phase(job, "copying", data_bytes(capture));
    for (unsigned i = 0; i < capture->from->space_count; i++) {
        int r = copy_index(capture->from->spaces[i].index, &capture->indexes[i], error);
        if (r < 0)
            return r;
    }
    return rewrite_spaces(&rewrite, capture->indexes, capture->from->space_count, error);
}

static int write_pack(struct capture *capture, struct thaw_job *job, struct thaw_error *error)
{
    char name[33];
    int r = capture_random_id(&capture->pack_id, error);
    if (r < 0)
        return r;
    contents_pack_name(&capture->pack_id, name);
    const struct pack_write_options options = {.id = capture->pack_id};
    r = pack_writer_open(
        store_creation_packs_dirfd(capture->creation), name, &options, &capture->writer, error);
    if (r == 0) {
        pack_writer_go_direct(capture->writer);
        r = copy_spaces(capture, job, error);
    }
    return r < 0 ? r : pack_writer_finish(take_ptr(capture->writer), &capture->totals, error);
}

/* The source's manifest, but for what is about files and kinship. */
static int copy_manifest(
    const struct manifest *source, struct manifest *ret, struct thaw_error *error)
{
    char *text _cleanup_free_ = NULL;
    size_t bytes = 0;
    int r = manifest_encode(source, &text, &bytes, error);
    if (r == 0)
        r = manifest_decode(ret, text, bytes, error);
    if (r < 0)
        return r;
    ret->kind = MANIFEST_FULL;
    ret->parent[0] = '\0';
    ret->file_count = ret->pack_count = ret->stat_count = 0;
    free(take_ptr(ret->files));
    free(take_ptr(ret->packs));
    free(take_ptr(ret->stats));
    return 0;
}

static int publish(struct capture *capture, struct thaw_error *error)
{
    struct manifest manifest = {0};
    int r = copy_manifest(&capture->from->snapshot->manifest, &manifest, error);
    if (r == 0)
        r = capture_publish(capture, &manifest, error);
    manifest_fini(&manifest);
    return r;
}

static int run(struct thaw_job *job, void *data, struct thaw_error *error)
{
    struct capture *capture = data;
    int r = contents_read_state(capture->from, &capture->state, error);
    if (r == 0)
        r = write_pack(capture, job, error);
    if (r == 0)
        r = publish(capture, error);
    capture->result.total_ns = timing_now_ns() - capture->begin_ns;
    if (r < 0) {
        pack_writer_abort(take_ptr(capture->writer));
        store_abort(take_ptr(capture->creation), error->message, NULL);
    }
    return r;
}

const struct job_ops capture_flatten_ops = {.run = run, .free = capture_free};

static int begin(struct capture *capture, const char *ref, const char *name, struct thaw_job **ret,
    struct thaw_error *error)
{
    struct store_snapshot *snapshot;
    int r = store_get(capture->store, ref, "flatten", &snapshot, error);
    if (r < 0)
        return r;
    r = contents_open(snapshot, &capture->from, error);
    if (r < 0) {
        store_put(snapshot);
        return r;
    }
    capture->disk_count = capture->from->space_count - 1;
    const struct manifest *manifest = &capture->from->snapshot->manifest;
    const struct store_request request = {
        .name = name, .template_name = manifest->template_name, .source = manifest->source};
    r = store_begin(capture->store, &request, &capture->creation, error);
    return r < 0 ? r : job_start("thaw/flatten", &capture_flatten_ops, capture, NULL, ret, error);
}

int thaw_snapshot_flatten(
    thaw_store *store, const char *ref, const char *name, thaw_job **ret, struct thaw_error *error)
{
    struct capture *capture = calloc(1, sizeof(*capture));
    if (!capture)
        return error_errno(error, ENOMEM, "flattening a snapshot");
    capture->begin_ns = timing_now_ns();
    capture->store = store_ref(store);
    int r = begin(capture, ref, name, ret, error);
    if (r < 0)
        capture_free(capture);
    return r;
}
