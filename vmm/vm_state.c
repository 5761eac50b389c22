// SPDX-License-Identifier: Apache-2.0
// Saves and restores a whole VM but for its memory and disks. What the bytes of a file look like is
// not known here.

#include "vm_state.h"
#include "dev_vmgenid.h"
#include <string.h>
#include <time.h>

struct vm_state *vm_state_new(uint32_t vcpu_count)
{
    struct vm_state *state = calloc(1, sizeof(*state));
    if (!state)
        return NULL;
    state->vcpu_count = vcpu_count;
    state->vcpus = calloc(vcpu_count, sizeof(*state->vcpus));
    if (state->vcpus)
        return state;
    free(state);
    return NULL;
}

void vm_state_free(struct vm_state *state)
{
    if (!state)
        return;
    free(state->vcpus);
    free(state);
}

static void touch(volatile uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += PAGE_BYTES)
        bytes[i] = 0;
    bytes[count - 1] = 0;
}

void vm_state_make_ready(struct vm_state *state)
{
    uint8_t stack[10 * PAGE_BYTES]; /* a list of MSRs takes four */
    touch(stack, sizeof(stack));
    memset(state->vcpus, 0, state->vcpu_count * sizeof(*state->vcpus));
}

static uint32_t host_khz(const struct thaw_vm *vm)
{
    return atomic_load_explicit(&vm->env->tsc_khz, memory_order_relaxed);
}

static void save_vcpu(void *data)
{
    struct vcpu_save *own = data;
    struct vm_save *save = own->save;
    struct vcpu *vcpu = &save->vm->vcpus[own->index];
    own->result = vcpu_state_save(&save->vm->env->kvm, vcpu->fd, vcpu_left_regs(vcpu),
        save->vm->vcpu_count == 1, &save->host->msrs, &vcpu->fixed, &save->state->vcpus[own->index],
        &own->error);
}

int vm_state_begin_save(
    struct thaw_vm *vm, struct vm_state *state, struct vm_save *ret, struct thaw_error *error)
{
    int r = env_host(vm->env, &ret->host, error);
    if (r < 0)
        return r;
    ret->vm = vm;
    ret->state = state;
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        struct vcpu_save *own = &ret->vcpus[i];
        own->save = ret;
        own->index = i;
        own->errand = (struct vcpu_errand){.run = save_vcpu, .data = own};
        vcpu_give_errand(&vm->vcpus[i], &own->errand);
    }
    return 0;
}

int vm_state_save_machine(struct vm_save *save, struct thaw_error *error)
{
    struct thaw_vm *vm = save->vm;
    machine_save(&vm->machine, &save->state->machine);
    return vm_clock_save(vm->fd, host_khz(vm), &save->state->clock, error);
}

/* A guest that has no clock when it goes on need not be told that it stood still. */
static void finish_vcpu(struct vm_save *save, uint32_t index)
{
    struct vcpu_state *state = &save->state->vcpus[index];
    vcpu_state_set_instant(state, &save->state->clock);
    save->vm->vcpus[index].has_kvmclock = vcpu_state_has_kvmclock(state);
}

int vm_state_end_save(struct vm_save *save, int r, struct thaw_error *error)
{
    if (r == 0)
        r = vm_chips_save(save->vm->fd, &save->state->chips, error);
    for (uint32_t i = 0; i < save->vm->vcpu_count; i++) {
        struct vcpu_save *own = &save->vcpus[i];
        vcpu_end_errand(&save->vm->vcpus[i], &own->errand);
        if (r == 0 && own->result < 0)
            r = error_set(error, own->result, "%s", own->error.message);
        if (r == 0)
            finish_vcpu(save, i);
    }
    return r;
}

int vm_state_save(struct thaw_vm *vm, struct vm_state *state, struct thaw_error *error)
{
    struct vm_save *save _cleanup_free_ = malloc(sizeof(*save));
    if (!save)
        return error_errno(error, ENOMEM, "saving a VM");
    int r = vm_state_begin_save(vm, state, save, error);
    return r < 0 ? r : vm_state_end_save(save, vm_state_save_machine(save, error), error);
}

/* How far the guest's clocks move on beyond what they showed. */
static uint64_t elapsed_ns(const struct vm_clock *saved, enum vm_clock_policy policy)
{
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    uint64_t now = (uint64_t)real.tv_sec * 1000000000u + (uint64_t)real.tv_nsec;
    return policy == VM_CLOCK_HOST && now > saved->realtime_ns ? now - saved->realtime_ns : 0;
}

static uint64_t ns_to_ticks(uint64_t ns, uint32_t khz)
{
    return (uint64_t)((unsigned __int128)ns * khz / 1000000u);
}

/* again: into vCPUs that have run. */
static int restore_kvm(struct thaw_vm *vm, const struct vm_state *state,
    enum vm_clock_policy policy, bool again, struct thaw_error *error)
{
    const struct kvm *kvm = &vm->env->kvm;
    uint64_t advance_ns = elapsed_ns(&state->clock, policy);
    uint64_t now = host_tsc();
    bool tsc_stays = atomic_load(&vm->env->tsc_stays);
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        const struct vcpu_state *from = &state->vcpus[i];
        struct vcpu *vcpu = &vm->vcpus[i];
        const struct tsc_start tsc = {
            .scaled_now = tsc_scale(now, host_khz(vm), from->tsc_khz),
            .advance = ns_to_ticks(advance_ns, from->tsc_khz),
            .leave = tsc_stays && vm->vcpu_count == 1,
        };
        int r = again ? vcpu_state_reset(kvm, vcpu->fd, from, &tsc, error)
                      : vcpu_state_restore(kvm, vcpu->fd, &vcpu->fresh, from, &tsc, error);
        /* KVM may have been content with a frequency near to that. */
        if (r == 0 && !again)
            r = vcpu_settle(vcpu, from->tsc_khz == vcpu->fresh.tsc_khz ? from->tsc_khz : 0,
                from->cpuid, from->cpuid_count, error);
        vcpu->fixed.tsc_stays = tsc_stays;
        if (r < 0)
            return error_prefix(error, r, "restoring vCPU %u", i);
        vcpu->has_kvmclock = vcpu_state_has_kvmclock(from);
    }
    const struct clock_start clock = {
        .kvmclock_ns = state->clock.kvmclock_ns + advance_ns,
        .host_tsc = now,
        .tsc_khz = state->vcpus[0].tsc_khz,
        .host_khz = host_khz(vm),
        .one_cpu = vm->vcpu_count == 1,
    };
    return vm_chips_restore(vm->fd, &state->chips, again ? NULL : vm->fresh_chips, &clock, error);
}

/* A guest that has its line masked looks at the id when it unmasks it. The PIC's way to a processor
 * is LINT0 of the first. */
static bool listens(const struct vm_state *state)
{
    return !state->chips.ioapic.chip.ioapic.redirtbl[MACHINE_GED_GSI].fields.mask ||
           !lapic_masks_pic(&state->vcpus[0]);
}

/* Only once the interrupt controllers are restored, which would have undone it. */
static void announce_generation(struct thaw_vm *vm, const struct vm_state *state)
{
    if (listens(state))
        vmgenid_notify(&vm->machine.ged_irq);
}

bool vm_state_tsc_goes_back(const struct thaw_vm *vm, const struct vm_state *state)
{
    uint64_t now = host_tsc();
    for (uint32_t i = 0; i < state->vcpu_count && atomic_load(&vm->env->tsc_stays); i++)
        if (now < state->vcpus[i].tsc)
            return true;
    return false;
}

struct renewal {
    struct mem *mem;
    int result;
    struct thaw_error error;
};

static void renew_generation(void *data)
{
    struct renewal *renewal = data;
    renewal->result = vmgenid_renew(renewal->mem, &renewal->error);
}

/* The page with the id is copied for the clone, which takes as long as an ioctl. */
int vm_state_restore(struct thaw_vm *vm, const struct vm_state *state,
    const struct vm_devices *devices, enum vm_clock_policy policy, struct thaw_error *error)
{
    if (state->vcpu_count != vm->vcpu_count)
        return error_set(error, THAW_ECORRUPT, "the state is of %u vCPUs, the VM has %u",
            state->vcpu_count, vm->vcpu_count);
    struct renewal renewal = {.mem = &vm->mem};
    struct vcpu_errand errand = {.run = renew_generation, .data = &renewal};
    vcpu_give_errand(&vm->vcpus[0], &errand);
    int r = restore_kvm(vm, state, policy, false, error);
    if (r == 0)
        r = vm_add_machine(vm, devices, &state->machine, error);
    vcpu_end_errand(&vm->vcpus[0], &errand);
    if (r == 0 && renewal.result < 0)
        r = error_set(error, renewal.result, "%s", renewal.error.message);
    if (r < 0)
        return r;
    announce_generation(vm, state);
    return vm_set_restored(vm, error);
}

int vm_state_reset(struct thaw_vm *vm, const struct vm_state *state, enum vm_clock_policy policy,
    struct thaw_error *error)
{
    int r = restore_kvm(vm, state, policy, true, error);
    if (r < 0)
        return r;
    machine_reset(&vm->machine, &state->machine);
    r = vmgenid_renew(&vm->mem, error);
    if (r == 0)
        announce_generation(vm, state);
    return r;
}
