/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of thaw_vm.
 *
 * A VM is built in two steps. The *shell* is everything that takes time and does not depend on what
 * will run: memory range, memslots, interrupt controllers, vCPUs with their threads. Then memory is
 * mapped, devices are made and state is set: by booting a kernel, or from a snapshot.
 *
 * Lock order: api_lock, then lock, then a vCPU's lock. Devices' locks are never held while taking
 * one of these, except `lock`, which no one holds while calling a device.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "env.h"
#include "machine.h"
#include "vcpu.h"

#define VM_NAME_BYTES 65

struct vm_shape {
    uint32_t vcpu_count;
    uint64_t mem_bytes;
    bool log_dirty; /* KVM records which pages the guest writes */
};

struct thaw_vm {
    struct thaw_env *env;
    char name[VM_NAME_BYTES];
    struct vm_shape shape;
    int fd;
    int event_fd;
    struct mem mem;
    struct machine machine;
    struct vcpu *vcpus; /* shape.vcpu_count of them */

    pthread_mutex_t api_lock; /* one of start, pause, resume, stop at a time */
    pthread_mutex_t lock;     /* guards all below */
    pthread_cond_t changed;   /* state, or a vCPU has become parked */
    enum thaw_vm_state state;
    enum thaw_vm_reason reason;
    char detail[THAW_VM_DETAIL_BYTES];
    uint32_t vcpu_count; /* how many of vcpus are made */
    uint32_t exit_status;
    uint32_t mark;
    uint64_t mark_count;
};

/* Makes a shell: CREATED, no memory mapped, no devices. */
int vm_new_shell(struct thaw_env *env, const char *name, const struct vm_shape *shape,
    struct thaw_vm **ret, struct thaw_error *error);

#endif
