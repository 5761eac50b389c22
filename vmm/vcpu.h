/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual processor and the thread that runs it.
 *
 * The thread either is parked (waits for orders, guest registers complete and readable) or runs
 * guest code. vcpu_order changes what it should do; the thread obeys as soon as it is out of
 * KVM_RUN, which vcpu_order sees to: it sets immediate_exit and sends the kick signal. The signal
 * is blocked in the thread and unblocked by KVM only inside KVM_RUN (KVM_SET_SIGNAL_MASK), so it
 * needs no handler; it stays pending and the thread takes it off with sigtimedwait.
 *
 * A thread that sleeps takes tens of microseconds to wake up. One that is told to be alert waits
 * for its order awake, for a moment, and lets others have the processor meanwhile.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "kvm_state.h"
#include <pthread.h>
#include <stdatomic.h>
#include <thaw/vm.h>

struct kvm_run;
struct vcpu;

enum vcpu_order {
    VCPU_PARK,
    VCPU_RUN,
    VCPU_QUIT, /* the thread ends */
};

/* Something that the thread of a parked vCPU does for the VM's owner, if it is awake: the owner has
 * to end it, and looks at what was done only then. */
struct vcpu_errand {
    void (*run)(void *data);
    void *data;
    atomic_bool done; /* by the thread */
};

/* What a vCPU needs from the VM around it. All are called on the vCPU's thread without locks held.
 */
struct vcpu_ops {
    void (*pio)(void *data, uint16_t port, bool write, uint8_t *bytes, unsigned count);
    void (*mmio)(void *data, uint64_t gpa, bool write, uint8_t *bytes, unsigned count);
    /* The guest can't go on, or ended by a system event: the VM orders all its vCPUs to park. */
    void (*ended)(
        void *data, enum thaw_vm_state state, enum thaw_vm_reason reason, const char *detail);
    void (*parked)(void *data); /* some vCPU has become parked */
};

struct vcpu {
    uint32_t index;
    int fd;
    struct kvm_run *run;
    size_t run_bytes;
    int kick_signal;
    const struct vcpu_ops *ops;
    void *ops_data;
    pthread_t thread;
    bool thread_started;
    struct vcpu_fresh fresh; /* until its state is set */
    struct vcpu_fixed fixed; /* from then on */
    bool has_kvmclock;       /* may have: the guest is to be told of pauses */
    bool completion_pending; /* vCPU thread: the last exit's instruction is not finished yet */
    bool kicked;             /* vCPU thread: a kick may be pending */
    _Atomic uint64_t exits;
    /* Of its life; written by its thread. 0: not yet. */
    _Atomic uint64_t first_run_ns, first_exit_ns;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t order_changed;
    _Atomic enum vcpu_order order;      /* read without the lock, too */
    _Atomic bool parked;                /* so is that */
    bool alert;                         /* to do so, once it is parked */
    struct vcpu_errand *_Atomic errand; /* not begun; NULL: none. Read without the lock, too */
};

/* Creates the vCPU in the kernel, parked, and without a thread yet. */
int vcpu_init(struct vcpu *vcpu, const struct kvm *kvm, int vm_fd, uint32_t index, int kick_signal,
    const struct vcpu_ops *ops, void *ops_data, struct thaw_error *error);

/* Starts its thread, named after `name`. Once, before the first order. */
int vcpu_start_thread(struct vcpu *vcpu, const char *name, struct thaw_error *error);

/* Its features are what they will always be: `fresh` is over. */
int vcpu_settle(struct vcpu *vcpu, uint32_t tsc_khz, const struct kvm_cpuid_entry2 *cpuid,
    uint32_t cpuid_count, struct thaw_error *error);

/* Orders the thread to quit and waits for it. A vCPU of zeroes is allowed. */
void vcpu_fini(struct vcpu *vcpu);

/* Any thread, the vCPU's own included. Returns at once; see vcpu_is_parked. */
void vcpu_order(struct vcpu *vcpu, enum vcpu_order order);
bool vcpu_is_parked(struct vcpu *vcpu);

/* An order to run is about to come. Before or after it parks; costs time only if none comes. */
void vcpu_alert(struct vcpu *vcpu);

/* One at a time, of a parked vCPU. A thread that sleeps is not woken; one that is started begins
 * with it. */
void vcpu_give_errand(struct vcpu *vcpu, struct vcpu_errand *errand);

/* Waits until the thread is through with it. If that has not begun, or there is none, it is done
 * here. */
void vcpu_end_errand(struct vcpu *vcpu, struct vcpu_errand *errand);

/* Has KVM leave registers in the run area each time KVM_RUN ends, where they can be read sooner
 * than by two calls; until told otherwise, which is only when the vCPU is parked or will not run
 * again. On hosts that can (struct kvm), and before the order to park. */
void vcpu_leave_regs(struct vcpu *vcpu, bool leave);

/* The registers that the last KVM_RUN of a parked vCPU left, if it was since vcpu_leave_regs; NULL:
 * none. */
const struct kvm_sync_regs *vcpu_left_regs(const struct vcpu *vcpu);

/* Counts and times begin anew. It is parked. */
void vcpu_forget(struct vcpu *vcpu);

#endif
