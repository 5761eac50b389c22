// SPDX-License-Identifier: Apache-2.0
// Writing packs: pages are staged into frames by the caller, compressed by a few workers and
// written in order by one output thread. Where the bytes go is pack_output's matter.

#include "file_header.h"
#include "pack.h"
#include "pack_output.h"
#include "thread.h"
#include <fcntl.h>
#include <pthread.h>
#include <zstd.h>

/* Frames that change hands together: waking a thread takes as long as compressing a page. */
#define BATCH            4
#define LEVEL_1_HASH_LOG 11

#define STAGES_A_WORKER  (2 * BATCH)
#define STAGES_EXTRA     (2 * BATCH) /* being filled, and waiting for one before them */

/* A stage goes round this circle once a frame. */
enum stage_state {
    STAGE_FREE,
    STAGE_FILLING, /* by the caller */
    STAGE_QUEUED,  /* for a worker, or with one */
    STAGE_READY,   /* to be written, or just being so */
};

struct stage {
    enum stage_state state; /* guarded by lock; who owns the rest follows from it */
    unsigned used;          /* pages */
    uint8_t *raw;
    uint8_t *packed;
    uint64_t *slots;
    const uint8_t *stored;
    struct frame_entry entry;
};

struct pack_writer {
    struct wire_b16 id;
    unsigned frame_pages;
    unsigned thread_limit;
    int level;
    unsigned flags;

    /* The caller's alone. */
    struct stage *filling; /* NULL: the next page begins a frame */
    uint64_t pages;

    pthread_mutex_t lock; /* guards all up to the empty line, and the stages' states */
    pthread_cond_t room;  /* stages became free, or it failed */
    pthread_cond_t work;  /* a batch was queued, or it ends */
    pthread_cond_t ready; /* frames became ready, or it ends */
    uint64_t queued;      /* frames handed over by the caller */
    uint64_t claimed;     /* of them taken by workers */
    uint64_t written;     /* of them given to the output */
    unsigned idle;        /* workers that wait */
    bool closing;         /* no more frames come */
    bool stopped;         /* it failed or was aborted */
    struct thaw_error error;

    pthread_t workers[PACK_WRITE_THREADS_MAX]; /* started and joined by the caller */
    unsigned worker_count;
    pthread_t output_thread;
    bool has_output_thread;

    /* The output thread's, and the caller's once that is joined. */
    struct pack_output output;
    struct wire_writer entries;
    struct wire_writer slots;
    uint64_t frames;
    uint64_t stored_bytes;

    unsigned stage_count;
    struct stage stages[]; /* frame n uses stage n % stage_count */
};

static struct stage *stage_of(struct pack_writer *writer, uint64_t frame)
{
    return &writer->stages[frame % writer->stage_count];
}

/* Keeps the first error and lets everyone know. */
static void stop_locked(struct pack_writer *writer, const struct thaw_error *error)
{
    if (!writer->stopped && error)
        writer->error = *error;
    writer->stopped = true;
    pthread_cond_broadcast(&writer->room);
    pthread_cond_broadcast(&writer->work);
    pthread_cond_broadcast(&writer->ready);
}

static void stop(struct pack_writer *writer, const struct thaw_error *error)
{
    pthread_mutex_lock(&writer->lock);
    stop_locked(writer, error);
    pthread_mutex_unlock(&writer->lock);
}

/* --- Workers ---------------------------------------------------------------------------------- */

static bool has_work_locked(const struct pack_writer *writer)
{
    return writer->queued - writer->claimed >= BATCH ||
           (writer->closing && writer->claimed < writer->queued);
}

/* Returns how many frames the worker has from now on, the first of which is *ret_first. 0: the work
 * is over. */
static unsigned claim(struct pack_writer *writer, uint64_t *ret_first)
{
    unsigned count = 0;
    pthread_mutex_lock(&writer->lock);
    writer->idle++;
    while (!writer->stopped && !writer->closing && !has_work_locked(writer))
        pthread_cond_wait(&writer->work, &writer->lock);
    writer->idle--;
    if (!writer->stopped && has_work_locked(writer)) {
        count = (unsigned)MIN(writer->queued - writer->claimed, (uint64_t)BATCH);
        *ret_first = writer->claimed;
        writer->claimed += count;
    }
    pthread_mutex_unlock(&writer->lock);
    return count;
}

static void give_ready(struct pack_writer *writer, uint64_t first, unsigned count)
{
    pthread_mutex_lock(&writer->lock);
    for (unsigned i = 0; i < count; i++)
        stage_of(writer, first + i)->state = STAGE_READY;
    /* Nobody waits for frames that are not the next. */
    if (first == writer->written)
        pthread_cond_signal(&writer->ready);
    pthread_mutex_unlock(&writer->lock);
}

static int encode(struct pack_writer *writer, ZSTD_CCtx *context, uint64_t first, unsigned count,
    struct thaw_error *error)
{
    for (unsigned i = 0; i < count; i++) {
        struct stage *stage = stage_of(writer, first + i);
        int r = frame_encode(context, &writer->id, first + i, stage->raw, stage->used,
            stage->packed, &stage->entry, &stage->stored, error);
        if (r < 0)
            return error_prefix(error, r, "writing pack '%s'", writer->output.name);
    }
    return 0;
}

/* At its fastest level zstd takes a table of 2^13 entries for a frame, which fills the processor's
 * first cache by itself and is cleared for each. A quarter of that is 22 to 28 % faster, for up to
 * 3.4 % more bytes. */
static ZSTD_CCtx *new_context(int level)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context && (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)) ||
                       (level == 1 && ZSTD_isError(ZSTD_CCtx_setParameter(
                                          context, ZSTD_c_hashLog, LEVEL_1_HASH_LOG))))) {
        ZSTD_freeCCtx(context);
        return NULL;
    }
    return context;
}

static void *worker_thread(void *data)
{
    struct pack_writer *writer = data;
    struct thaw_error error;
    if (writer->flags & PACK_WRITE_GIVE_WAY)
        thread_give_way();
    ZSTD_CCtx *context = new_context(writer->level);
    if (!context) {
        error_errno(&error, ENOMEM, "preparing to compress pack '%s'", writer->output.name);
        stop(writer, &error);
    }
    uint64_t first;
    for (unsigned count; (count = claim(writer, &first)) > 0;) {
        if (encode(writer, context, first, count, &error) < 0)
            stop(writer, &error);
        else
            give_ready(writer, first, count);
    }
    ZSTD_freeCCtx(context);
    return NULL;
}

static int start_thread(struct pack_writer *writer, pthread_t *thread, void *(*main)(void *),
    const char *thread_name, struct thaw_error *error)
{
    int r = thread_start(thread, thread_name, main, writer);
    if (r < 0)
        return error_errno(error, -r, "starting a thread to write pack '%s'", writer->output.name);
    return 0;
}

/* --- The output thread ------------------------------------------------------------------------ */

/* Returns how many frames are ready that are the next in order. 0: the work is over. */
static unsigned await_ready(struct pack_writer *writer)
{
    unsigned count = 0;
    pthread_mutex_lock(&writer->lock);
    while (!writer->stopped && !(writer->closing && writer->written == writer->queued)) {
        while (writer->written + count < writer->queued && count < BATCH &&
               stage_of(writer, writer->written + count)->state == STAGE_READY)
            count++;
        if (count > 0)
            break;
        pthread_cond_wait(&writer->ready, &writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    return count;
}

static void release(struct pack_writer *writer, unsigned count)
{
    pthread_mutex_lock(&writer->lock);
    for (unsigned i = 0; i < count; i++)
        stage_of(writer, writer->written++)->state = STAGE_FREE;
    pthread_cond_signal(&writer->room);
    pthread_mutex_unlock(&writer->lock);
}

static int write_frame(struct pack_writer *writer, struct stage *stage, struct thaw_error *error)
{
    stage->entry.file_off = writer->output.file_bytes;
    stage->entry.first_slot = writer->frames * writer->frame_pages;
    uint8_t *entry = wire_put_room(&writer->entries, FRAME_ENTRY_BYTES);
    uint8_t *slots = wire_put_room(&writer->slots, stage->used * SLOT_BYTES);
    if (!entry || !slots)
        return error_errno(error, ENOMEM, "writing the tables of pack '%s'", writer->output.name);
    frame_entry_encode(&stage->entry, entry);
    for (unsigned i = 0; i < stage->used; i++)
        wire_store_u64(slots + i * SLOT_BYTES, stage->slots[i]);
    writer->frames++;
    writer->stored_bytes += stage->entry.stored_bytes;
    return pack_output_append(&writer->output, stage->stored, stage->entry.stored_bytes, error);
}

static void *output_thread(void *data)
{
    struct pack_writer *writer = data;
    struct thaw_error error;
    int r = 0;
    for (unsigned count; r == 0 && (count = await_ready(writer)) > 0;) {
        for (unsigned i = 0; i < count && r == 0; i++)
            r = write_frame(writer, stage_of(writer, writer->written + i), &error);
        if (r == 0)
            release(writer, count);
    }
    /* Not left to the caller: the kernel cancels what a thread has submitted when that ends. */
    if (r == 0)
        r = pack_output_flush(&writer->output, &error);
    if (r < 0)
        stop(writer, &error);
    return NULL;
}

/* --- The caller's side ------------------------------------------------------------------------ */

static void join_threads(struct pack_writer *writer)
{
    for (unsigned i = 0; i < writer->worker_count; i++)
        pthread_join(writer->workers[i], NULL);
    writer->worker_count = 0;
    if (writer->has_output_thread)
        pthread_join(writer->output_thread, NULL);
    writer->has_output_thread = false;
}

static void writer_free(struct pack_writer *writer)
{
    join_threads(writer);
    pack_output_fini(&writer->output);
    for (unsigned i = 0; i < writer->stage_count; i++) {
        free(writer->stages[i].raw);
        free(writer->stages[i].packed);
        free(writer->stages[i].slots);
    }
    wire_writer_fini(&writer->entries);
    wire_writer_fini(&writer->slots);
    pthread_cond_destroy(&writer->room);
    pthread_cond_destroy(&writer->work);
    pthread_cond_destroy(&writer->ready);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}

static unsigned choose_threads(unsigned wanted)
{
    long online = wanted ? (long)wanted : sysconf(_SC_NPROCESSORS_ONLN);
    return (unsigned)MAX(1, MIN(online, PACK_WRITE_THREADS_MAX));
}

static int write_header(struct pack_writer *writer, struct thaw_error *error)
{
    struct file_header header = {
        .id = writer->id,
        .page_shift = FORMAT_PAGE_SHIFT,
        .frame_pages = (uint16_t)writer->frame_pages,
    };
    uint8_t bytes[FILE_HEADER_BYTES];
    file_header_write(FILE_KIND_PACK, &header, bytes);
    return pack_output_append(&writer->output, bytes, sizeof(bytes), error);
}

/* Takes over fd in every case. */
static int open_taken(int fd, const char *name, const struct pack_write_options *options,
    struct pack_writer **ret, struct thaw_error *error)
{
    unsigned threads = choose_threads(options->threads);
    unsigned stage_count = threads * STAGES_A_WORKER + STAGES_EXTRA;
    struct pack_writer *writer =
        calloc(1, sizeof(*writer) + stage_count * sizeof(writer->stages[0]));
    if (!writer) {
        close(fd);
        return error_errno(error, ENOMEM, "starting pack '%s'", name);
    }
    writer->id = options->id;
    writer->frame_pages = options->frame_pages ? options->frame_pages : FRAME_PAGES_DEFAULT;
    writer->thread_limit = threads;
    writer->level = options->level ? options->level : 1;
    writer->flags = options->flags;
    writer->stage_count = stage_count;
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->room, NULL);
    pthread_cond_init(&writer->work, NULL);
    pthread_cond_init(&writer->ready, NULL);
    wire_writer_init(&writer->entries);
    wire_writer_init(&writer->slots);

    bool want_ring = !(options->flags & PACK_WRITE_NO_IO_URING);
    int r = pack_output_init(&writer->output, fd, name, want_ring, error);
    if (r == 0)
        r = write_header(writer, error);
    if (r == 0)
        r = start_thread(writer, &writer->output_thread, output_thread, "pack/output", error);
    if (r < 0) {
        writer_free(writer);
        return r;
    }
    writer->has_output_thread = true;
    *ret = writer;
    return 0;
}

static int check_options(
    const char *name, const struct pack_write_options *options, struct thaw_error *error)
{
    if (options->frame_pages > FRAME_PAGES_MAX)
        return error_set(error, -EINVAL, "pack '%s': frames of %u pages; at most %u are allowed",
            name, options->frame_pages, FRAME_PAGES_MAX);
    return 0;
}

int pack_writer_open(int dirfd, const char *name, const struct pack_write_options *options,
    struct pack_writer **ret, struct thaw_error *error)
{
    int r = check_options(name, options, error);
    if (r < 0)
        return r;
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(error, errno, "creating pack '%s'", name);
    return open_taken(fd, name, options, ret, error);
}

int pack_writer_open_fd(int fd, const char *name, const struct pack_write_options *options,
    struct pack_writer **ret, struct thaw_error *error)
{
    int r = check_options(name, options, error);
    if (r < 0)
        return r;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return error_errno(error, errno, "duplicating the descriptor of pack '%s'", name);
    return open_taken(own, name, options, ret, error);
}

static int stage_allocate(struct pack_writer *writer, struct stage *stage, struct thaw_error *error)
{
    if (stage->raw)
        return 0;
    stage->packed = malloc(frame_encode_bound(writer->frame_pages));
    stage->slots = calloc(writer->frame_pages, sizeof(stage->slots[0]));
    if (stage->packed && stage->slots)
        stage->raw = malloc((size_t)writer->frame_pages * FORMAT_PAGE_BYTES);
    if (stage->raw)
        return 0;
    free(take_ptr(stage->packed));
    free(take_ptr(stage->slots));
    return error_errno(error, ENOMEM, "staging pages for pack '%s'", writer->output.name);
}

static int begin_frame(struct pack_writer *writer, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&writer->lock);
    struct stage *stage = stage_of(writer, writer->queued);
    while (!writer->stopped && stage->state != STAGE_FREE)
        pthread_cond_wait(&writer->room, &writer->lock);
    if (writer->stopped)
        r = error_set(error, writer->error.code, "%s", writer->error.message);
    else
        stage->state = STAGE_FILLING;
    pthread_mutex_unlock(&writer->lock);
    if (r < 0)
        return r;

    struct thaw_error reason;
    r = stage_allocate(writer, stage, &reason);
    if (r < 0) {
        stop(writer, &reason);
        return error_set(error, r, "%s", reason.message);
    }
    stage->used = 0;
    writer->filling = stage;
    return 0;
}

/* Hands the frame over, and where that completes a batch and all workers are busy, with one more.
 * Running with fewer than wanted is fine; with none is not. */
static int end_frame(struct pack_writer *writer, struct thaw_error *error)
{
    pthread_mutex_lock(&writer->lock);
    take_ptr(writer->filling)->state = STAGE_QUEUED;
    writer->queued++;
    bool batch = has_work_locked(writer);
    bool need_worker =
        writer->worker_count == 0 || writer->idle * BATCH < writer->queued - writer->claimed;
    if (batch)
        pthread_cond_signal(&writer->work);
    pthread_mutex_unlock(&writer->lock);

    if (!need_worker || writer->worker_count == writer->thread_limit)
        return 0;
    struct thaw_error reason;
    int r = start_thread(
        writer, &writer->workers[writer->worker_count], worker_thread, "pack/worker", &reason);
    if (r == 0) {
        writer->worker_count++;
    } else if (writer->worker_count == 0) {
        stop(writer, &reason);
        return error_set(error, r, "%s", reason.message);
    }
    return 0;
}

int pack_writer_add(struct pack_writer *writer, unsigned space, uint64_t page, const void *bytes,
    uint64_t *ret_pack_page, struct thaw_error *error)
{
    if (space > SPACE_NUMBER_MAX || page >= SPACE_PAGES_MAX)
        return error_set(error, -EINVAL, "pack '%s': no page %llu in space %u", writer->output.name,
            (unsigned long long)page, space);
    if (writer->pages == PACK_PAGES_MAX)
        return error_set(error, -EFBIG, "pack '%s' is full: it holds %llu pages",
            writer->output.name, (unsigned long long)PACK_PAGES_MAX);
    if (!writer->filling) {
        int r = begin_frame(writer, error);
        if (r < 0)
            return r;
    }
    struct stage *stage = writer->filling;
    memcpy(stage->raw + (size_t)stage->used * FORMAT_PAGE_BYTES, bytes, FORMAT_PAGE_BYTES);
    stage->slots[stage->used++] = SLOT(space, page);
    uint64_t pack_page = writer->pages++;
    if (stage->used == writer->frame_pages) {
        int r = end_frame(writer, error);
        if (r < 0)
            return r;
    }
    *ret_pack_page = pack_page;
    return 0;
}

void pack_writer_go_direct(struct pack_writer *writer)
{
    pack_output_go_direct(&writer->output);
}

/* After this, `entries` is the frame table with the slot table behind it. */
static int write_tables(struct pack_writer *writer, struct thaw_error *error)
{
    struct pack_output *output = &writer->output;
    struct wire_writer *tables = &writer->entries;
    struct pack_footer footer = {
        .magic = FORMAT_MAGIC_FOOTER,
        .pack_id = writer->id,
        .table_off = output->file_bytes,
        .frame_count = (uint32_t)writer->frames,
        .slot_count = (uint32_t)writer->pages,
    };
    wire_put_bytes(tables, writer->slots.bytes, writer->slots.used);
    if (tables->failed)
        return error_errno(error, ENOMEM, "writing the tables of pack '%s'", output->name);
    footer.table_check =
        check_128(writer->id.bytes, sizeof(writer->id.bytes), tables->bytes, tables->used);
    uint8_t bytes[PACK_FOOTER_BYTES];
    pack_footer_encode(&footer, bytes);
    footer.checksum = check_64(bytes, PACK_FOOTER_CHECKED_BYTES);
    pack_footer_encode(&footer, bytes);

    int r = pack_output_append(output, tables->bytes, tables->used, error);
    if (r == 0)
        r = pack_output_append(output, bytes, sizeof(bytes), error);
    if (r == 0)
        r = pack_output_flush(output, error);
    if (r == 0 && !(writer->flags & PACK_WRITE_NO_SYNC))
        r = pack_output_sync(output, error);
    return r;
}

/* Ends the threads when all that was added is written, or with the error that prevented it. */
static int drain(struct pack_writer *writer, struct thaw_error *error)
{
    int r = writer->filling ? end_frame(writer, error) : 0;
    pthread_mutex_lock(&writer->lock);
    writer->closing = true;
    pthread_cond_broadcast(&writer->work);
    pthread_cond_broadcast(&writer->ready);
    pthread_mutex_unlock(&writer->lock);
    join_threads(writer);
    if (r == 0 && writer->stopped)
        r = error_set(error, writer->error.code, "%s", writer->error.message);
    return r;
}

int pack_writer_finish(
    struct pack_writer *writer, struct pack_totals *ret, struct thaw_error *error)
{
    int r = drain(writer, error);
    if (r == 0)
        r = write_tables(writer, error);
    if (r == 0 && ret)
        *ret = (struct pack_totals){
            .pages = writer->pages,
            .frames = writer->frames,
            .raw_bytes = writer->pages * FORMAT_PAGE_BYTES,
            .stored_bytes = writer->stored_bytes,
            .file_bytes = writer->output.file_bytes,
            .digest = pack_output_digest(&writer->output),
        };
    writer_free(writer);
    return r;
}

void pack_writer_abort(struct pack_writer *writer)
{
    if (!writer)
        return;
    stop(writer, NULL);
    writer_free(writer);
}
