// SPDX-License-Identifier: Apache-2.0
// All state that KVM has of a VM, read and set by the fewest ioctls: what a new VM has anyway is
// not set.

#include "floor.h"
#include <string.h>
#include <sys/ioctl.h>

#define MSR_TSC 0x10

struct step {
    unsigned long get, set;
    size_t offset;
};

#define STEP(name, member)                                                                         \
    {                                                                                              \
        KVM_GET_##name, KVM_SET_##name, offsetof(struct floor_state, member)                       \
    }

/* In the order in which they are set. MSRs, which can be refused one by one, come before the last.
 */
static const struct step steps[] = {
    STEP(MP_STATE, mp_state),
    STEP(REGS, regs),
    STEP(SREGS, sregs),
    STEP(XCRS, xcrs),
    STEP(XSAVE, xsave),
    STEP(DEBUGREGS, debugregs),
    STEP(LAPIC, lapic),
};
static const struct step last_step = STEP(VCPU_EVENTS, events);

/* KVM lists MSRs that a vCPU may not have: those go, one at a time. */
static int save_msrs(const struct floor_vm *vm, int kvm_fd, struct floor_state *ret)
{
    struct {
        struct kvm_msr_list head;
        uint32_t indices[FLOOR_MSRS_MAX];
    } list = {.head.nmsrs = FLOOR_MSRS_MAX};
    if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &list) < 0)
        return -1;
    for (uint32_t i = 0; i < list.head.nmsrs; i++) {
        struct {
            struct kvm_msrs head;
            struct kvm_msr_entry entry;
        } one = {.head.nmsrs = 1, .entry.index = list.indices[i]};
        if (ioctl(vm->vcpu_fd, KVM_GET_MSRS, &one) != 1 ||
            ioctl(vm->vcpu_fd, KVM_SET_MSRS, &one) != 1)
            continue;
        ret->msrs.entries[ret->msrs.head.nmsrs++] = one.entry;
    }
    return 0;
}

static bool is_left(const struct step *step)
{
    return step->get == KVM_GET_REGS || step->get == KVM_GET_SREGS;
}

static void take_left(const struct floor_vm *vm, struct floor_state *ret)
{
    ret->regs = vm->run->s.regs.regs;
    ret->sregs = vm->run->s.regs.sregs;
    ret->events = vm->run->s.regs.events;
}

int floor_state_save(
    const struct floor_vm *vm, int kvm_fd, struct floor_state *ret, struct thaw_error *error)
{
    bool again = ret->msrs.head.nmsrs > 0; /* then MSRs and CPUID are known: those stay */
    int r = ioctl(vm->fd, KVM_GET_CLOCK, &ret->clock);
    for (size_t i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++)
        if (!vm->left_regs || !is_left(&steps[i]))
            r = ioctl(vm->vcpu_fd, steps[i].get, (char *)ret + steps[i].offset);
    if (vm->left_regs)
        take_left(vm, ret);
    if (r >= 0 && !again) {
        ret->cpuid.head.nent = FLOOR_CPUID_MAX;
        r = ioctl(vm->vcpu_fd, KVM_GET_CPUID2, &ret->cpuid);
    }
    if (r >= 0)
        r = again ? ioctl(vm->vcpu_fd, KVM_GET_MSRS, &ret->msrs) : save_msrs(vm, kvm_fd, ret);
    if (r >= 0 && !vm->left_regs)
        r = ioctl(vm->vcpu_fd, last_step.get, (char *)ret + last_step.offset);
    if (r >= 0)
        r = ioctl(vm->fd, KVM_GET_PIT2, &ret->pit);
    for (uint32_t i = 0; i < ARRAY_SIZE(ret->chips) && r >= 0; i++) {
        ret->chips[i].chip_id = i;
        r = ioctl(vm->fd, KVM_GET_IRQCHIP, &ret->chips[i]);
    }
    return r < 0 ? bench_errno(error, "saving a VM by hand") : 0;
}

/* --- What a new VM has not -------------------------------------------------------------------- */

static bool is_same_msr(const struct floor_state *new_state, const struct kvm_msr_entry *entry)
{
    if (entry->index == MSR_TSC)
        return false;
    for (uint32_t i = 0; i < new_state->msrs.head.nmsrs; i++)
        if (new_state->msrs.entries[i].index == entry->index)
            return new_state->msrs.entries[i].data == entry->data;
    return false;
}

/* When a channel was loaded is always another time. */
static bool is_same_pit(struct kvm_pit_state2 a, struct kvm_pit_state2 b)
{
    for (size_t i = 0; i < ARRAY_SIZE(a.channels); i++)
        a.channels[i].count_load_time = b.channels[i].count_load_time = 0;
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static void compare(struct floor_state *state, const struct floor_state *new_state)
{
    static const size_t bytes[] = {sizeof(state->mp_state), sizeof(state->regs),
        sizeof(state->sregs), sizeof(state->xcrs), sizeof(state->xsave), sizeof(state->debugregs),
        sizeof(state->lapic)};
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
        if (memcmp((const char *)state + steps[i].offset, (const char *)new_state + steps[i].offset,
                bytes[i]) == 0)
            state->same_steps |= 1u << i;
    for (size_t i = 0; i < ARRAY_SIZE(state->chips); i++)
        if (memcmp(&state->chips[i], &new_state->chips[i], sizeof(state->chips[i])) == 0)
            state->same_chips |= 1u << i;
    state->same_events = memcmp(&state->events, &new_state->events, sizeof(state->events)) == 0;
    state->same_pit = is_same_pit(state->pit, new_state->pit);
    for (uint32_t i = 0; i < state->msrs.head.nmsrs; i++)
        if (!is_same_msr(new_state, &state->msrs.entries[i]))
            state->other_msrs.entries[state->other_msrs.head.nmsrs++] = state->msrs.entries[i];
}

int floor_vm_set_cpuid(
    struct floor_vm *vm, const struct floor_state *state, struct thaw_error *error)
{
    if (ioctl(vm->vcpu_fd, KVM_SET_CPUID2, &state->cpuid) < 0)
        return bench_errno(error, "setting the features of a VM by hand");
    vm->has_cpuid = true;
    return 0;
}

int floor_state_shorten(
    struct floor_state *state, struct floor_vm *new_vm, int kvm_fd, struct thaw_error *error)
{
    struct floor_state *new_state _cleanup_free_ = calloc(1, sizeof(*new_state));
    if (!new_state)
        return bench_fail(error, -ENOMEM, "no memory for the state of a VM");
    int r = floor_vm_set_cpuid(new_vm, state, error);
    if (r == 0)
        r = floor_state_save(new_vm, kvm_fd, new_state, error);
    if (r == 0)
        compare(state, new_state);
    return r;
}

/* --- Setting ---------------------------------------------------------------------------------- */

int floor_state_restore(
    const struct floor_vm *vm, const struct floor_state *state, struct thaw_error *error)
{
    struct kvm_clock_data clock = {.clock = state->clock.clock};
    int r = vm->has_cpuid ? 0 : ioctl(vm->vcpu_fd, KVM_SET_CPUID2, &state->cpuid);
    for (size_t i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++)
        if (vm->used || !(state->same_steps & 1u << i))
            r = ioctl(vm->vcpu_fd, steps[i].set, (const char *)state + steps[i].offset);
    if (r >= 0)
        r = vm->used ? ioctl(vm->vcpu_fd, KVM_SET_MSRS, &state->msrs)
                     : ioctl(vm->vcpu_fd, KVM_SET_MSRS, &state->other_msrs);
    if (r >= 0 && (vm->used || !state->same_events))
        r = ioctl(vm->vcpu_fd, last_step.set, (const char *)state + last_step.offset);
    if (r >= 0 && (vm->used || !state->same_pit))
        r = ioctl(vm->fd, KVM_SET_PIT2, &state->pit);
    if (r >= 0)
        r = ioctl(vm->fd, KVM_SET_CLOCK, &clock);
    for (size_t i = 0; i < ARRAY_SIZE(state->chips) && r >= 0; i++)
        if (vm->used || !(state->same_chips & 1u << i))
            r = ioctl(vm->fd, KVM_SET_IRQCHIP, &state->chips[i]);
    return r < 0 ? bench_errno(error, "setting the state of a VM by hand") : 0;
}
