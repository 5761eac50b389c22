// SPDX-License-Identifier: Apache-2.0
// Finds out what a new VM has. What need not be set then is decided where state is set.

#include "fresh.h"
#include "vm.h"

void fresh_fini(struct fresh *fresh)
{
    for (size_t i = 0; i < ARRAY_SIZE(fresh->vcpus); i++)
        free(fresh->vcpus[i]);
    free(fresh->chips);
}

void fresh_processors_fini(struct fresh_processors *processors)
{
    for (size_t i = 0; i < THAW_VCPUS_MAX; i++)
        for (size_t j = 0; j < THAW_VCPUS_MAX; j++)
            free(processors->known[i][j]);
}

static int try_first(struct cpu_x86_default *_Atomic *known, int vcpu_fd, uint32_t index,
    uint32_t count, const struct cpu_x86_cpuid *template, struct thaw_error *error)
{
    struct cpu_x86_default *none = NULL, *found _cleanup_free_ = malloc(sizeof(*found));
    if (!found)
        return error_errno(error, ENOMEM, "allocating CPUID tables");
    int r = cpu_x86_try_default(vcpu_fd, template, index, count, found, error);
    if (r == 0 && atomic_compare_exchange_strong(known, &none, found))
        found = NULL;
    return r;
}

int fresh_vcpu_init(struct vcpu_fresh *vcpu, struct fresh_processors *processors, int vcpu_fd,
    uint32_t index, uint32_t count, const struct cpu_x86_cpuid *template, uint32_t tsc_khz,
    struct thaw_error *error)
{
    struct cpu_x86_default *_Atomic *known = &processors->known[count - 1][index];
    const struct cpu_x86_default *same = atomic_load(known);
    int r = same ? cpu_x86_set_default(vcpu_fd, same, error)
                 : try_first(known, vcpu_fd, index, count, template, error);
    if (r == 0)
        *vcpu = (struct vcpu_fresh){.tsc_khz = tsc_khz, .cpuid = &atomic_load(known)->shown};
    return r;
}

static void learn_vcpu(
    struct fresh *fresh, struct thaw_vm *vm, uint32_t index, const struct msr_list *msrs)
{
    const struct vcpu_fixed unknown = {0};
    struct vcpu_state *none = NULL, *state _cleanup_free_ = calloc(1, sizeof(*state));
    if (state &&
        vcpu_state_save(
            &vm->env->kvm, vm->vcpus[index].fd, NULL, false, msrs, &unknown, state, NULL) == 0 &&
        atomic_compare_exchange_strong(&fresh->vcpus[index], &none, state))
        state = NULL;
}

static void learn_chips(struct fresh *fresh, struct thaw_vm *vm)
{
    struct vm_chips *none = NULL, *chips _cleanup_free_ = calloc(1, sizeof(*chips));
    if (chips && vm_chips_save(vm->fd, chips, NULL) == 0 &&
        atomic_compare_exchange_strong(&fresh->chips, &none, chips))
        chips = NULL;
}

void fresh_learn(struct fresh *fresh, struct thaw_vm *vm)
{
    const struct env_host *host;
    vm->fresh_chips = NULL;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vm->vcpus[i].fresh.state = NULL;
    if (env_host(vm->env, &host, NULL) < 0)
        return;
    if (!atomic_load(&fresh->chips))
        learn_chips(fresh, vm);
    vm->fresh_chips = atomic_load(&fresh->chips);
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        if (!atomic_load(&fresh->vcpus[i]))
            learn_vcpu(fresh, vm, i, &host->msrs);
        vm->vcpus[i].fresh.state = atomic_load(&fresh->vcpus[i]);
    }
}
