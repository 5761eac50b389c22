// SPDX-License-Identifier: Apache-2.0
// Puts a restored VM back to its snapshot: the order of it. How memory and state are put back is
// elsewhere.

#include "lineage.h"
#include "opened.h"
#include "options.h"
#include <thaw/snapshot.h>

struct reset {
    struct thaw_vm *vm;
    struct lineage *lineage;
    enum vm_clock_policy policy;
    bool resume;
    struct timing timing;
    struct disk_overlay *overlays[THAW_DISKS_MAX]; /* to be used; NULL: none is needed */
};

static int find_origin(struct reset *reset, struct thaw_error *error)
{
    struct thaw_vm *vm = reset->vm;
    reset->lineage = vm->attachment.data;
    if (!reset->lineage || !reset->lineage->image)
        return error_set(error, THAW_ESTATE,
            "VM %s was not restored from a snapshot that it could be reset to", vm->name);
    if (reset->lineage->busy)
        return error_set(error, -EBUSY, "a snapshot of VM %s is being taken just now", vm->name);
    if (!vm->env->kvm.walks_page_tables)
        return error_set(error, THAW_EHOST,
            "this host's KVM was loaded without nested paging (ept=0 or npt=0), and a VM can't be "
            "reset then: restore another");
    return 0;
}

/* All that can fail for want of something, before anything is changed. An overlay that was not
 * written is as good as a new one. */
static int prepare(struct reset *reset, struct thaw_error *error)
{
    const struct machine *machine = &reset->vm->machine;
    int r = image_check(reset->lineage->image->ram, error);
    for (unsigned i = 0; i < machine->disk_count && r == 0; i++) {
        const struct disk *disk = blk_disk(machine->disks[i].blk);
        if (disk_is_read_only(disk) || disk_is_unwritten(disk, reset->lineage->origin_layer[i]))
            continue;
        r = disk_overlay_new(
            reset->vm->env->overlay_dir, disk_bytes(disk), &reset->overlays[i], error);
    }
    return r;
}

static void put_disks_back(struct reset *reset)
{
    struct lineage *lineage = reset->lineage;
    for (unsigned i = 0; i < reset->vm->machine.disk_count; i++)
        if (reset->overlays[i])
            disk_replace_overlays(blk_disk(reset->vm->machine.disks[i].blk),
                lineage->origin_layer[i], take_ptr(reset->overlays[i]));
    if (lineage->base != lineage->origin)
        lineage_advance(lineage, contents_ref(lineage->origin), lineage->origin_layer);
}

/* Memory before state: setting registers may make KVM read it. Marks of pages that equal the base
 * say nothing; KVM's own stay, since taking them away would cost the guest a fault for each. */
static int put_back(struct reset *reset, struct thaw_error *error)
{
    struct thaw_vm *vm = reset->vm;
    int r = image_reset(reset->lineage->clone, error);
    if (r < 0)
        return r;
    reset->timing.memory_ns = timing_now_ns();
    mem_forget_dirty(&vm->mem);
    put_disks_back(reset);
    if (reset->resume)
        vm_alert(vm);
    r = vm_state_reset(vm, reset->lineage->image->state, reset->policy, error);
    reset->timing.state_ns = timing_now_ns();
    return r;
}

static int reset_locked(struct reset *reset, struct thaw_error *error)
{
    int r = find_origin(reset, error);
    if (r == 0)
        r = vm_pause_for_reset(reset->vm, error);
    if (r == 0)
        r = prepare(reset, error);
    if (r == 0) {
        reset->timing.shell_ns = timing_now_ns();
        vm_begin_reset(reset->vm);
        r = put_back(reset, error);
        r = vm_end_reset(reset->vm, r, &reset->timing, error);
    }
    for (unsigned i = 0; i < THAW_DISKS_MAX; i++)
        disk_overlay_free(reset->overlays[i]);
    return r;
}

int thaw_vm_reset(thaw_vm *vm, const struct thaw_reset_options *options, struct thaw_error *error)
{
    uint64_t now_ns = timing_now_ns();
    struct thaw_error own = {0};
    struct thaw_reset_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_reset_options", error);
    if (r < 0)
        return r;
    if (opt.clock > THAW_CLOCK_HOST || (opt.flags & ~THAW_RESET_RESUME))
        return error_set(error, -EINVAL, "unknown reset flags or clock policy");
    struct reset reset = {
        .vm = vm,
        .resume = opt.flags & THAW_RESET_RESUME,
        .timing = {.request_ns = now_ns, .opened_ns = now_ns},
        .policy = opt.clock == THAW_CLOCK_HOST ? VM_CLOCK_HOST : VM_CLOCK_CONTINUE,
    };
    pthread_mutex_lock(&vm->api_lock);
    r = reset_locked(&reset, &own);
    pthread_mutex_unlock(&vm->api_lock);
    if (r == 0 && reset.resume)
        r = thaw_vm_resume(vm, &own);
    if (r < 0 && error)
        *error = own;
    return r;
}
