// SPDX-License-Identifier: Apache-2.0
// What may be asked of a VM at any time, waiting for neither guest nor I/O, and its console's
// input. Changes no state.

#include "vm.h"
#include <string.h>

const char *thaw_vm_state_name(enum thaw_vm_state state)
{
    static const char *const names[] = {
        [THAW_VM_CREATED] = "created",
        [THAW_VM_RUNNING] = "running",
        [THAW_VM_PAUSED] = "paused",
        [THAW_VM_STOPPED] = "stopped",
        [THAW_VM_FAILED] = "failed",
    };
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

const char *thaw_vm_reason_name(enum thaw_vm_reason reason)
{
    static const char *const names[] = {
        [THAW_REASON_NONE] = "none",
        [THAW_REASON_REQUEST] = "request",
        [THAW_REASON_POWEROFF] = "poweroff",
        [THAW_REASON_RESET] = "reset",
        [THAW_REASON_EXIT] = "exit",
        [THAW_REASON_TRIPLE_FAULT] = "triple-fault",
        [THAW_REASON_EMULATION] = "emulation",
        [THAW_REASON_KVM] = "kvm",
        [THAW_REASON_MEMORY] = "memory",
        [THAW_REASON_DISK_FULL] = "disk-full",
    };
    return (unsigned)reason < ARRAY_SIZE(names) ? names[reason] : "unknown";
}

static void fill_info(struct thaw_vm *vm, struct thaw_vm_info *info)
{
    uint64_t exits = 0;
    for (uint32_t i = 0; i < vm->shape.vcpu_count; i++)
        exits += atomic_load_explicit(&vm->vcpus[i].exits, memory_order_relaxed);
    pthread_mutex_lock(&vm->lock);
    *info = (struct thaw_vm_info){
        .state = vm->state,
        .reason = vm->reason,
        .vcpu_count = vm->shape.vcpu_count,
        .disk_count = vm->machine.disk_count,
        .mem_bytes = vm->shape.mem_bytes,
        .exits = exits,
        .exit_status = vm->exit_status,
        .mark = vm->mark,
        .mark_count = vm->mark_count,
    };
    memcpy(info->detail, vm->detail, sizeof(info->detail));
    pthread_mutex_unlock(&vm->lock);
}

int thaw_vm_get_info(thaw_vm *vm, struct thaw_vm_info *info)
{
    size_t bytes = info->size;
    if (bytes < sizeof(info->size))
        return -EINVAL;
    struct thaw_vm_info all;
    fill_info(vm, &all);
    all.size = bytes;
    memcpy(info, &all, MIN(bytes, sizeof(all)));
    return 0;
}

int thaw_vm_console_input(thaw_vm *vm, const char *bytes, size_t count, struct thaw_error *error)
{
    if (count > INT32_MAX)
        return error_set(error, -EINVAL, "%zu bytes of input at once", count);
    return (int)serial_input(&vm->machine.serial, bytes, count);
}
