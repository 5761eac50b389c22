// SPDX-License-Identifier: Apache-2.0
// Takes a snapshot of a VM: the order of it. What is stored how is elsewhere.

#include "capture_memory.h"
#include "options.h"
#include "rewrite.h"
#include "timing.h"
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

int capture_random_id(struct wire_b16 *ret, struct thaw_error *error)
{
    if (getrandom(ret->bytes, sizeof(ret->bytes), 0) != sizeof(ret->bytes))
        return error_errno(error, errno, "drawing an id");
    return 0;
}

/* --- The instant ------------------------------------------------------------------------------ */

static int make_overlays(struct capture *capture, struct thaw_error *error)
{
    const struct machine *machine = &capture->vm->machine;
    capture->disk_count = machine->disk_count;
    for (unsigned i = 0; i < machine->disk_count; i++) {
        const struct disk *disk = blk_disk(machine->disks[i].blk);
        if (disk_is_read_only(disk))
            continue;
        int r = disk_overlay_new(
            capture->vm->env->overlay_dir, disk_bytes(disk), &capture->overlays[i], error);
        if (r < 0)
            return r;
    }
    return 0;
}

/* From here on the guest writes above what the snapshot reads. Cannot fail. An overlay that was not
 * written is above that already: each that is pushed costs a file for as long as the VM lives. */
static void freeze_disks(struct capture *capture)
{
    for (unsigned i = 0; i < capture->disk_count; i++) {
        struct disk *disk = blk_disk(capture->vm->machine.disks[i].blk);
        struct disk_layer *top = disk_top(disk);
        capture->frozen[i] = top;
        if (!capture->overlays[i])
            continue;
        if (disk_is_unwritten(disk, top->below))
            capture->frozen[i] = top->below;
        else
            disk_push_overlay(disk, take_ptr(capture->overlays[i]));
    }
}

/* Nothing in here takes long, unless memory is all copied here or changes faster than it can be
 * copied. */
static int capture_held(struct capture *capture, struct vm_save *save, struct thaw_error *error)
{
    int r = vm_state_begin_save(capture->vm, capture->state, save, error);
    if (r < 0)
        return r;
    r = vm_state_save_machine(save, error);
    if (r == 0)
        r = capture_memory_rest(capture->memory, error);
    r = vm_state_end_save(save, r, error);
    if (r == 0)
        freeze_disks(capture);
    return r;
}

static int capture_instant(struct capture *capture, struct thaw_error *error)
{
    bool was_running = false;
    struct vm_save *save _cleanup_free_ = calloc(1, sizeof(*save));
    if (!save)
        return error_errno(error, ENOMEM, "saving a VM");
    vm_state_make_ready(capture->state);
    uint64_t start = timing_now_ns();
    int r = vm_hold(capture->vm, &was_running, error);
    if (r < 0)
        return r;
    if (!was_running)
        pack_writer_go_direct(capture->writer);
    r = capture_held(capture, save, error);
    bool kill = capture->flags & THAW_SNAPSHOT_KILL;
    vm_release(capture->vm, was_running && (r < 0 || !kill));
    pack_writer_go_direct(capture->writer);
    capture->kept_from_running = r == 0 && was_running && kill;
    if (was_running)
        capture->result.pause_ns = timing_now_ns() - start;
    return r;
}

/* Of a VM that stands still anyway, everything is copied at once. */
static bool is_live(struct capture *capture)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    thaw_vm_get_info(capture->vm, &info);
    return info.state == THAW_VM_RUNNING && !(capture->flags & THAW_SNAPSHOT_STOP_AND_COPY);
}

static int capture_memory(struct capture *capture, struct thaw_job *job, struct thaw_error *error)
{
    bool live = is_live(capture);
    int r = capture_memory_new(capture, job, live, &capture->memory, error);
    if (r == 0 && live)
        r = capture_memory_rounds(capture->memory, error);
    if (r == 0)
        r = capture_instant(capture, error);
    return r < 0 ? r : capture_memory_finish(capture->memory, error);
}

/* --- The rest --------------------------------------------------------------------------------- */

static int capture_spaces(struct capture *capture, struct thaw_job *job, struct thaw_error *error)
{
    int r = capture_memory(capture, job, error);
    job_phase(job, "disks", 0);
    for (unsigned i = 0; i < capture->disk_count && r == 0; i++)
        r = capture_disk(capture, job, i, error);
    if (r < 0 || !capture->from)
        return r;
    const struct rewrite rewrite = {
        .job = job,
        .from = capture->from,
        .writer = capture->writer,
        .own = capture->pack_id,
        .all = !capture->diff,
    };
    job_phase(job, "shared data", 0);
    return rewrite_spaces(&rewrite, capture->indexes, 1 + capture->disk_count, error);
}

static int write_pack(struct capture *capture, struct thaw_job *job, struct thaw_error *error)
{
    int r = capture_random_id(&capture->pack_id, error);
    if (r < 0)
        return r;
    char name[33];
    contents_pack_name(&capture->pack_id, name);
    const struct pack_write_options options = {
        .id = capture->pack_id,
        .threads = capture->threads,
        .level = capture->level,
        /* A guest that runs on should not notice. */
        .flags = is_live(capture) ? PACK_WRITE_GIVE_WAY : 0,
    };
    r = pack_writer_open(
        store_creation_packs_dirfd(capture->creation), name, &options, &capture->writer, error);
    if (r == 0)
        r = capture_spaces(capture, job, error);
    if (r < 0)
        return r;
    job_phase(job, "finishing", 0);
    return pack_writer_finish(take_ptr(capture->writer), &capture->totals, error);
}

static int publish(struct capture *capture, struct thaw_error *error)
{
    struct manifest manifest = {0};
    int r = capture_describe(capture, &manifest, error);
    if (r == 0)
        r = capture_publish(capture, &manifest, error);
    manifest_fini(&manifest);
    return r;
}

/* The next diff is relative to this snapshot. If it cannot be opened, which the one that was just
 * taken does not suffer from, the next one is not a diff. */
static void advance(struct capture *capture)
{
    struct store_snapshot *snapshot;
    struct contents *base = NULL;
    char holder[VM_NAME_BYTES + 8];
    snprintf(holder, sizeof(holder), "VM %s", capture->vm->name);
    if (store_get(capture->store, capture->result.id, holder, &snapshot, NULL) == 0 &&
        contents_open(snapshot, &base, NULL) < 0)
        store_put(snapshot);
    lineage_advance(capture->lineage, base, capture->frozen);
}

static void give_up(struct capture *capture, const char *why)
{
    if (capture->memory)
        capture_memory_put_back(capture->memory);
    pack_writer_abort(take_ptr(capture->writer));
    store_abort(take_ptr(capture->creation), why, NULL);
}

static int run(struct thaw_job *job, void *data, struct thaw_error *error)
{
    struct capture *capture = data;
    int r = make_overlays(capture, error);
    if (r == 0)
        r = write_pack(capture, job, error);
    if (r == 0 && job_cancelled(job)) /* a small one may not have been asked before */
        r = error_set(error, -ECANCELED, "cancelled");
    if (r == 0)
        r = publish(capture, error);
    capture->result.total_ns = timing_now_ns() - capture->begin_ns;
    if (r < 0)
        give_up(capture, error->message);

    pthread_mutex_lock(&capture->vm->api_lock);
    if (r == 0)
        advance(capture);
    pthread_mutex_unlock(&capture->vm->api_lock);
    if (r == 0 && (capture->flags & THAW_SNAPSHOT_KILL))
        thaw_vm_stop(capture->vm, NULL);
    else if (capture->kept_from_running)
        thaw_vm_resume(capture->vm, NULL);
    /* Last: a VM that is reset as soon as that is allowed must not be stopped after it. */
    pthread_mutex_lock(&capture->vm->api_lock);
    capture->lineage->busy = false;
    pthread_mutex_unlock(&capture->vm->api_lock);
    return r;
}

void capture_free(void *data)
{
    struct capture *capture = data;
    if (capture->creation)
        store_abort(capture->creation, "never started", NULL);
    capture_memory_free(capture->memory);
    for (unsigned i = 0; i < THAW_DISKS_MAX; i++)
        disk_overlay_free(capture->overlays[i]);
    for (unsigned i = 0; i < CONTENTS_SPACES_MAX; i++)
        page_index_free(capture->indexes[i]);
    contents_unref(capture->from);
    vm_state_free(capture->state);
    free(capture->metadata);
    store_unref(capture->store);
    free(capture);
}

const struct job_ops capture_snapshot_ops = {.run = run, .free = capture_free};

/* --- Starting --------------------------------------------------------------------------------- */

static bool same_store(const struct thaw_store *a, const struct thaw_store *b)
{
    struct stat one, other;
    return a == b ||
           (fstat(store_hot_dirfd(a), &one) == 0 && fstat(store_hot_dirfd(b), &other) == 0 &&
               one.st_dev == other.st_dev && one.st_ino == other.st_ino);
}

static int check_options(const struct thaw_snapshot_options *opt, struct thaw_error *error)
{
    const uint32_t known =
        THAW_SNAPSHOT_FULL | THAW_SNAPSHOT_DIFF | THAW_SNAPSHOT_KILL | THAW_SNAPSHOT_STOP_AND_COPY;
    if (opt->flags & ~known)
        return error_set(error, -EINVAL, "unknown snapshot flags 0x%x", opt->flags & ~known);
    if ((opt->flags & THAW_SNAPSHOT_FULL) && (opt->flags & THAW_SNAPSHOT_DIFF))
        return error_set(error, -EINVAL, "a snapshot is either full or a diff");
    if (opt->level < 0 || opt->level > 19)
        return error_set(error, -EINVAL, "compression level %d: must be 1 to 19", opt->level);
    if (opt->threads > PACK_WRITE_THREADS_MAX)
        return error_set(
            error, -EINVAL, "%u threads: at most %d", opt->threads, PACK_WRITE_THREADS_MAX);
    /* Now, and not when all is written. */
    return opt->metadata ? manifest_check_metadata(opt->metadata, error) : 0;
}

/* What the rest of the data comes from, and whether the snapshot may go on referring to it. */
static int choose_base(struct capture *capture, struct thaw_error *error)
{
    const struct lineage *lineage = capture->lineage;
    bool possible = lineage->base && same_store(lineage->base->snapshot->store, capture->store);
    if ((capture->flags & THAW_SNAPSHOT_DIFF) && !possible)
        return error_set(error, THAW_ESTATE,
            "VM %s has no snapshot in this store that a diff could be relative to",
            capture->vm->name);
    capture->diff = possible && !(capture->flags & THAW_SNAPSHOT_FULL);
    struct contents *from = lineage->base ? lineage->base : lineage->origin;
    capture->from = from ? contents_ref(from) : NULL;
    return 0;
}

static int prepare(
    struct capture *capture, const struct thaw_snapshot_options *opt, struct thaw_error *error)
{
    int r = choose_base(capture, error);
    if (r < 0)
        return r;
    const char *metadata = opt->metadata ? opt->metadata : capture->lineage->metadata;
    capture->metadata = metadata ? strdup(metadata) : NULL;
    capture->state = vm_state_new(capture->vm->vcpu_count);
    if (!capture->state || (metadata && !capture->metadata))
        return error_errno(error, ENOMEM, "preparing a snapshot");
    const char *kept = capture->lineage->template_name;
    const struct store_request request = {
        .name = opt->name,
        .template_name = opt->template_name ? opt->template_name
                         : kept[0]          ? kept
                                            : "vm",
        .source = capture->vm->name,
    };
    return store_begin(capture->store, &request, &capture->creation, error);
}

static int begin(struct capture *capture, const struct thaw_snapshot_options *opt,
    struct thaw_job **ret, struct thaw_error *error)
{
    const struct job_listener listener = {opt->progress, opt->progress_data};
    int r = prepare(capture, opt, error);
    return r < 0
               ? r
               : job_start("thaw/snapshot", &capture_snapshot_ops, capture, &listener, ret, error);
}

static int begin_locked(struct capture *capture, const struct thaw_snapshot_options *opt,
    struct thaw_job **ret, struct thaw_error *error)
{
    struct thaw_vm *vm = capture->vm;
    struct thaw_vm_info info = {.size = sizeof(info)};
    thaw_vm_get_info(vm, &info);
    if (info.state != THAW_VM_RUNNING && info.state != THAW_VM_PAUSED)
        return error_set(error, THAW_ESTATE, "VM %s is %s: there is nothing to take a snapshot of",
            vm->name, thaw_vm_state_name(info.state));
    capture->lineage = lineage_of(vm);
    if (!capture->lineage)
        return error_errno(error, ENOMEM, "preparing a snapshot");
    if (capture->lineage->busy)
        return error_set(
            error, -EBUSY, "another snapshot of VM %s is being taken just now", vm->name);
    capture->lineage->busy = true;
    int r = begin(capture, opt, ret, error);
    if (r < 0)
        capture->lineage->busy = false;
    return r;
}

int thaw_vm_snapshot(thaw_vm *vm, thaw_store *store, const struct thaw_snapshot_options *options,
    thaw_job **ret, struct thaw_error *error)
{
    struct thaw_snapshot_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_snapshot_options", error);
    if (r == 0)
        r = check_options(&opt, error);
    if (r < 0)
        return r;
    struct capture *capture = calloc(1, sizeof(*capture));
    if (!capture)
        return error_errno(error, ENOMEM, "preparing a snapshot");
    *capture = (struct capture){
        .vm = vm,
        .store = store_ref(store),
        .flags = opt.flags,
        .level = opt.level,
        .threads = opt.threads,
        .begin_ns = timing_now_ns(),
    };
    pthread_mutex_lock(&vm->api_lock);
    r = begin_locked(capture, &opt, ret, error);
    pthread_mutex_unlock(&vm->api_lock);
    if (r < 0)
        capture_free(capture);
    return r;
}

int thaw_job_get_snapshot(thaw_job *job, struct thaw_snapshot_result *result)
{
    const struct capture *capture = job_done_data(job, &capture_snapshot_ops);
    if (!capture)
        capture = job_done_data(job, &capture_flatten_ops);
    size_t bytes = result->size;
    if (!capture)
        return THAW_ESTATE;
    if (bytes < sizeof(result->size))
        return -EINVAL;
    memcpy(result, &capture->result, MIN(bytes, sizeof(*result)));
    result->size = bytes;
    return 0;
}
