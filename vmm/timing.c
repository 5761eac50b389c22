// SPDX-License-Identifier: Apache-2.0
// The clock, and when a VM's restore came how far. What the steps are is known to those who do
// them.

#include "timing.h"
#include "vm.h"
#include <string.h>

uint64_t timing_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct timespec timing_deadline(int timeout_ms)
{
    uint64_t when = timing_now_ns() + (uint64_t)MAX(timeout_ms, 0) * 1000000u;
    return (struct timespec){
        .tv_sec = (time_t)(when / 1000000000u), .tv_nsec = (long)(when % 1000000000u)};
}

/* The earlier one, where 0 is never. */
static uint64_t earlier(uint64_t a, const _Atomic uint64_t *b)
{
    uint64_t other = atomic_load_explicit(b, memory_order_relaxed);
    return a == 0 || (other != 0 && other < a) ? other : a;
}

int thaw_vm_get_timing(thaw_vm *vm, struct thaw_vm_timing *timing)
{
    size_t bytes = timing->size;
    if (bytes < sizeof(timing->size))
        return -EINVAL;
    pthread_mutex_lock(&vm->lock); /* a reset makes them new ones */
    struct thaw_vm_timing all = {
        .size = bytes,
        .request_ns = vm->timing.request_ns,
        .opened_ns = vm->timing.opened_ns,
        .shell_ns = vm->timing.shell_ns,
        .memory_ns = vm->timing.memory_ns,
        .state_ns = vm->timing.state_ns,
    };
    pthread_mutex_unlock(&vm->lock);
    for (uint32_t i = 0; i < vm->shape.vcpu_count; i++) {
        all.first_run_ns = earlier(all.first_run_ns, &vm->vcpus[i].first_run_ns);
        all.first_exit_ns = earlier(all.first_exit_ns, &vm->vcpus[i].first_exit_ns);
    }
    memcpy(timing, &all, MIN(bytes, sizeof(all)));
    return 0;
}
