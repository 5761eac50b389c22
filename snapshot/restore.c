// SPDX-License-Identifier: Apache-2.0
// Makes a VM from an opened snapshot: the order of it. Memory, disks and state are each
// elsewhere's.

#include "disk_source.h"
#include "early_shell.h"
#include "lineage.h"
#include "opened.h"
#include "options.h"
#include "pool.h"
#include "working_set.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

struct restore {
    struct thaw_env *env;
    struct thaw_image *image;
    struct thaw_restore_options opt;
    struct timing timing;
    char name[VM_NAME_BYTES]; /* of the VM; cut where it is too long */
    struct early_shell early;
    struct thaw_vm *vm;
};

/* A disk's base image, if it is not the one that the manifest names. */
struct base_override {
    const char *path;
    int fd;
};

/* --- Memory ----------------------------------------------------------------------------------- */

static void on_bad_memory(void *data, const char *detail)
{
    vm_fail(data, THAW_REASON_MEMORY, detail);
}

static int attach_image(
    struct restore *restore, struct thaw_vm *vm, struct lineage *lineage, struct thaw_error *error)
{
    lineage->image = opened_ref(restore->image);
    return image_attach(restore->image->ram, &vm->mem, on_bad_memory, vm, &lineage->clone, error);
}

static int inherit(struct restore *restore, struct lineage *lineage, struct thaw_error *error)
{
    const struct manifest *manifest = &restore->image->contents->snapshot->manifest;
    lineage->origin = contents_ref(restore->image->contents);
    lineage->base = contents_ref(restore->image->contents);
    snprintf(lineage->template_name, sizeof(lineage->template_name), "%s", manifest->template_name);
    if (!manifest->metadata)
        return 0;
    lineage->metadata = strdup(manifest->metadata);
    return lineage->metadata ? 0 : error_errno(error, ENOMEM, "restoring a VM");
}

/* As vm_map_fn. */
static int restore_memory(void *data, struct thaw_vm *vm, struct thaw_error *error)
{
    struct restore *restore = data;
    struct lineage *lineage = lineage_of(vm);
    int r =
        lineage ? inherit(restore, lineage, error) : error_errno(error, ENOMEM, "restoring a VM");
    return r < 0 ? r : attach_image(restore, vm, lineage, error);
}

int thaw_vm_memory_fd(thaw_vm *vm, struct thaw_error *error)
{
    pthread_mutex_lock(&vm->api_lock);
    const struct lineage *lineage = vm->attachment.data;
    const struct thaw_image *image = lineage ? lineage->image : NULL;
    pthread_mutex_unlock(&vm->api_lock);
    return image ? image_fd(image->ram, error)
                 : error_set(error, THAW_ESTATE, "VM %s was not restored", vm->name);
}

/* --- Disks ------------------------------------------------------------------------------------ */

static struct base_override find_override(const struct thaw_restore_options *opt, unsigned index)
{
    const char *at = (const char *)opt->disks;
    for (size_t i = 0; i < opt->disk_count; i++, at += opt->disks->size) {
        struct thaw_disk_override disk = {0};
        memcpy(&disk, at, MIN(opt->disks->size, sizeof(disk)));
        if (disk.index == index)
            return (struct base_override){disk.path, disk.fd};
    }
    return (struct base_override){0};
}

static int check_overrides(const struct restore *restore, struct thaw_error *error)
{
    const struct thaw_restore_options *opt = &restore->opt;
    const char *at = (const char *)opt->disks;
    for (size_t i = 0; i < opt->disk_count; i++, at += opt->disks->size) {
        struct thaw_disk_override disk = {0};
        int r = options_read(&disk, sizeof(disk), at, "struct thaw_disk_override", error);
        if (r < 0)
            return r;
        if (disk.index >= restore->image->state->machine.disk_count)
            return error_set(error, -EINVAL, "the snapshot has no disk %u", disk.index);
        if (!disk.path && disk.fd <= 0)
            return error_set(error, -EINVAL, "disk %u: neither path nor fd is set", disk.index);
    }
    return 0;
}

/* Another image, or one that was changed since the VM opened it, is not what the guest's file
 * system expects. */
static int check_base(const struct manifest_disk *disk, const struct base_override *other,
    const struct disk_layer *base, uint64_t bytes, unsigned index, struct thaw_error *error)
{
    if (bytes != disk->base_bytes)
        return error_set(error, THAW_EIMAGE,
            "the base image of disk %u has %" PRIu64 " bytes, and had %" PRIu64
            " when the snapshot was taken",
            index, bytes, disk->base_bytes);
    if (other->path || other->fd > 0)
        return 0;
    if (disk_raw_mtime_ns(base) != disk->base_mtime_ns)
        return error_set(error, THAW_EIMAGE,
            "the base image of disk %u, %s, was replaced or written to since the VM opened it; "
            "give the unchanged image as another path",
            index, disk->base_path);
    return 0;
}

static int open_layers(struct restore *restore, unsigned index, struct disk_layer **ret,
    uint64_t *ret_bytes, struct thaw_error *error)
{
    const struct manifest_disk *disk = &restore->image->contents->snapshot->manifest.disks[index];
    struct base_override other = find_override(&restore->opt, index);
    const char *path = other.path ? other.path : disk->base_path;
    struct disk_layer *base;
    if (other.fd <= 0 && (!path || !path[0]))
        return error_set(
            error, -EINVAL, "the base image of disk %u has no path of its own: give one", index);
    int r = disk_raw_open(other.fd > 0 ? NULL : path, other.fd, &base, ret_bytes, error);
    if (r < 0)
        return r;
    r = check_base(disk, &other, base, *ret_bytes, index, error);
    if (r == 0)
        r = disk_source_new(restore->image->contents, index, base, ret, error);
    if (r < 0)
        disk_layer_free_stack(base);
    return r;
}

static int open_disk(
    void *data, struct io *io, unsigned index, struct disk **ret, struct thaw_error *error)
{
    struct restore *restore = data;
    const struct manifest_disk *disk = &restore->image->contents->snapshot->manifest.disks[index];
    struct base_override other = find_override(&restore->opt, index);
    struct disk_layer *layers;
    struct disk_overlay *overlay = NULL;
    uint64_t bytes = 0;
    int r = open_layers(restore, index, &layers, &bytes, error);
    if (r < 0)
        return r;
    if (!disk->read_only)
        r = disk_overlay_new(restore->env->overlay_dir, bytes, &overlay, error);
    if (r == 0)
        r = disk_new(io, layers, overlay, bytes, ret, error);
    if (r < 0) {
        disk_overlay_free(overlay);
        disk_layer_free_stack(layers);
        return r;
    }
    struct lineage *lineage = lineage_of(restore->vm);
    lineage->origin_layer[index] = lineage->base_layer[index] = layers;
    const struct disk_options base = {
        .path = other.path     ? other.path
                : other.fd > 0 ? NULL
                               : disk->base_path,
        .read_only = disk->read_only,
    };
    return vm_note_disk(restore->vm, index, &base, *ret, error);
}

/* --- The host --------------------------------------------------------------------------------- */

static int check_host(const struct restore *restore, struct thaw_error *error)
{
    const struct manifest *manifest = &restore->image->contents->snapshot->manifest;
    const struct vcpu_state *vcpu = &restore->image->state->vcpus[0];
    char missing[THAW_ERROR_MESSAGE_BYTES - 96] = "";
    if (atomic_load(&restore->image->host_checked))
        return 0;
    const char *backend = restore->env->kvm.backend;
    if (strcmp(manifest->kvm_backend, backend) != 0)
        snprintf(missing, sizeof(missing), "KVM backend %s (this is %s)", manifest->kvm_backend,
            backend);
    cpu_x86_list_missing(restore->vm->vcpus[0].fresh.cpuid, vcpu->cpuid, vcpu->cpuid_count, missing,
        sizeof(missing));
    size_t used = strlen(missing);
    if (vm_state_tsc_goes_back(restore->vm, restore->image->state))
        snprintf(missing + used, sizeof(missing) - used,
            "%sa TSC that is further on (this KVM shows guests the host's, which begins anew when "
            "the host does)",
            used ? ", " : "");
    if (!missing[0])
        atomic_store(&restore->image->host_checked, true);
    if (missing[0] && !(restore->opt.flags & THAW_RESTORE_FORCE))
        return error_set(
            error, THAW_EHOST, "this host lacks what the guest was started with: %s", missing);
    return 0;
}

/* --- Order ------------------------------------------------------------------------------------ */

/* Whether the vCPUs' threads had better be awake. Where many VMs are restored at once, no processor
 * is idle for that. */
static bool runs_soon(const struct restore *restore)
{
    uint32_t vcpus = restore->image->contents->snapshot->manifest.vcpu_count;
    return (restore->opt.flags & THAW_RESTORE_RESUME) &&
           atomic_load(&restore->env->restoring) * (1 + vcpus) <= restore->env->cpus;
}

static void alert(const struct restore *restore)
{
    if (runs_soon(restore))
        vm_alert(restore->vm);
}

/* Threads are started here: an embedding program may want of its thread what they inherit. */
static int take_early(struct restore *restore, struct thaw_error *error)
{
    int r = early_shell_take(&restore->early, &restore->vm, error);
    return restore->vm ? vm_start_threads(restore->vm, error) : r;
}

/* A VM that was made in advance, if there is one. */
static int take_shell(
    struct restore *restore, const struct vm_shape *shape, struct thaw_error *error)
{
    int r = restore->opt.pool
                ? pool_take(restore->opt.pool, restore->name, shape, &restore->vm, error)
                : take_early(restore, error);
    if (r < 0 || !restore->vm)
        return r;
    restore->timing.shell_ns = timing_now_ns();
    r = restore_memory(restore, restore->vm, error);
    restore->timing.memory_ns = timing_now_ns();
    if (r != -EEXIST)
        return r;
    /* Someone else's mapping has come to where its memory should go. */
    thaw_vm_free(take_ptr(restore->vm));
    return 0;
}

static int make_shell(
    struct restore *restore, const struct vm_shape *shape, struct thaw_error *error)
{
    int r = vm_new_shell(restore->env, restore->name, shape,
        runs_soon(restore) ? VM_THREADS_ALERT : VM_THREADS_ASLEEP, restore_memory, restore,
        &restore->vm, error);
    if (r < 0)
        return r;
    if (restore->opt.pool)
        pool_adopt(restore->opt.pool, restore->vm);
    restore->timing.shell_ns = restore->timing.memory_ns = timing_now_ns();
    return 0;
}

/* Nothing has touched memory yet: it would have been read by demand. */
static void await_working_set(struct restore *restore)
{
    if (restore->image->prefetch_async)
        return;
    image_prefetch_wait(restore->image->ram);
    restore->timing.memory_ns = timing_now_ns();
}

static int set_state(struct restore *restore, struct thaw_error *error)
{
    const struct vm_devices devices = {
        .console = restore->opt.console,
        .console_data = restore->opt.console_data,
        .disk_count = restore->image->state->machine.disk_count,
        .open_disk = open_disk,
        .disk_data = restore,
    };
    enum vm_clock_policy policy =
        restore->opt.clock == THAW_CLOCK_HOST ? VM_CLOCK_HOST : VM_CLOCK_CONTINUE;
    return vm_state_restore(restore->vm, restore->image->state, &devices, policy, error);
}

static struct vm_shape shape_of(const struct manifest *manifest)
{
    return (struct vm_shape){
        .vcpu_count = manifest->vcpu_count, .mem_bytes = manifest->mem_bytes, .log_dirty = true};
}

static int build_vm(struct restore *restore, struct thaw_error *error)
{
    const struct vm_shape shape = shape_of(&restore->image->contents->snapshot->manifest);
    int r = take_shell(restore, &shape, error);
    if (r == 0 && !restore->vm)
        r = make_shell(restore, &shape, error);
    if (r == 0)
        r = check_host(restore, error);
    if (r == 0) {
        await_working_set(restore);
        alert(restore);
        r = set_state(restore, error);
    }
    restore->timing.state_ns = timing_now_ns();
    return r;
}

static int read_options(
    struct restore *restore, const struct thaw_restore_options *options, struct thaw_error *error)
{
    int r = options_read(
        &restore->opt, sizeof(restore->opt), options, "struct thaw_restore_options", error);
    if (r < 0)
        return r;
    const uint32_t known = THAW_RESTORE_FORCE | THAW_RESTORE_NO_PREFETCH |
                           THAW_RESTORE_PREFETCH_ASYNC | THAW_RESTORE_RECORD | THAW_RESTORE_RESUME;
    if ((restore->opt.flags & ~known) || restore->opt.mode > THAW_RESTORE_EAGER ||
        restore->opt.clock > THAW_CLOCK_HOST)
        return error_set(error, -EINVAL, "unknown restore flags, mode or clock policy");
    return 0;
}

/* A VM without a name of its own gets the snapshot's. */
static void name_vm(struct restore *restore, const struct manifest *manifest)
{
    snprintf(restore->name, sizeof(restore->name), "%s",
        restore->opt.name ? restore->opt.name : manifest->name);
}

static int restore_vm(struct restore *restore, struct thaw_error *error)
{
    name_vm(restore, &restore->image->contents->snapshot->manifest);
    int r = check_overrides(restore, error);
    if (r == 0)
        r = build_vm(restore, error);
    if (r < 0)
        return r;
    restore->vm->timing = restore->timing;
    if (restore->opt.flags & THAW_RESTORE_RESUME)
        r = thaw_vm_resume(restore->vm, error);
    /* Last: it competes for processor and disk. Once is enough for all clones, and without it what
     * is missing still comes on demand. */
    struct thaw_error why;
    if (r == 0 && image_read_ahead(restore->image->ram, &why) < 0)
        env_log(restore->env, THAW_LOG_WARNING,
            "memory of VM %s is read on demand only, which costs time: %s", restore->name,
            why.message);
    return r;
}

/* Of an image that the caller keeps. */
static int restore_image(struct restore *restore, thaw_vm **ret, struct thaw_error *error)
{
    int r = restore_vm(restore, error);
    if (restore->opt.pool)
        pool_refill(restore->opt.pool);
    if (r < 0)
        thaw_vm_free(take_ptr(restore->vm));
    else
        *ret = restore->vm;
    return r;
}

int thaw_image_restore(thaw_image *image, const struct thaw_restore_options *options, thaw_vm **ret,
    struct thaw_error *error)
{
    uint64_t now_ns = timing_now_ns();
    struct restore restore = {
        .env = image->env, .image = image, .timing = {.request_ns = now_ns, .opened_ns = now_ns}};
    int r = read_options(&restore, options, error);
    if (r < 0)
        return r;
    atomic_fetch_add(&image->env->restoring, 1);
    r = restore_image(&restore, ret, error);
    atomic_fetch_sub(&image->env->restoring, 1);
    return r;
}

/* --- From a store ----------------------------------------------------------------------------- */

/* Opening a snapshot takes about as long as making a VM for it. */
static void begin_shell(void *data, const struct manifest *manifest)
{
    struct restore *restore = data;
    const struct vm_shape shape = shape_of(manifest);
    name_vm(restore, manifest);
    if (atomic_load(&restore->env->restoring) * 2 <= restore->env->cpus)
        early_shell_begin(&restore->early, restore->env, restore->name, &shape);
}

static int open_and_restore(struct restore *restore, struct thaw_store *store, const char *ref,
    thaw_vm **ret, struct thaw_error *error)
{
    char holder[VM_NAME_BYTES + 8];
    const struct thaw_image_options how = {
        .size = sizeof(how),
        .mode = restore->opt.mode,
        .memory_fd = restore->opt.memory_fd,
        .flags = working_set_flags(restore->opt.flags),
    };
    snprintf(holder, sizeof(holder), "VM %s", restore->opt.name ? restore->opt.name : ref);
    int r = opened_open(restore->env, store, ref, holder, &how,
        restore->opt.pool ? NULL : begin_shell, restore, &restore->image, error);
    if (r == 0) {
        restore->timing.opened_ns = timing_now_ns();
        r = restore_image(restore, ret, error);
        thaw_image_close(restore->image);
    }
    /* Where opening failed, nobody has taken it. */
    thaw_vm *unused;
    early_shell_take(&restore->early, &unused, NULL);
    thaw_vm_free(unused);
    return r;
}

int thaw_restore(thaw_env *env, thaw_store *store, const char *ref,
    const struct thaw_restore_options *options, thaw_vm **ret, struct thaw_error *error)
{
    struct restore restore = {.env = env, .timing.request_ns = timing_now_ns()};
    int r = read_options(&restore, options, error);
    if (r < 0)
        return r;
    atomic_fetch_add(&env->restoring, 1);
    r = open_and_restore(&restore, store, ref, ret, error);
    atomic_fetch_sub(&env->restoring, 1);
    return r;
}
