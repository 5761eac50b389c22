// SPDX-License-Identifier: Apache-2.0
// The thread of a vCPU: running, being stopped, and what an exit means. Saves and sets no state.

#include "vcpu.h"
#include "fresh.h"
#include "thread.h"
#include "timing.h"
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#ifndef KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
#define KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES (1ULL << 0)
#endif

#define RFLAGS_ALWAYS 2u /* a bit that is never clear (SDM volume 1, 3.4.3) */

/* For how long an alert thread waits awake: about as long as setting or saving a VM's state takes.
 */
#define ALERT_NS 250000u

static void end(struct vcpu *vcpu, enum thaw_vm_state state, enum thaw_vm_reason reason,
    const char *format, ...) _printf_(4, 5);

static void end(struct vcpu *vcpu, enum thaw_vm_state state, enum thaw_vm_reason reason,
    const char *format, ...)
{
    char detail[THAW_VM_DETAIL_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    vcpu->ops->ended(vcpu->ops_data, state, reason, detail);
}

static uint64_t guest_rip(const struct vcpu *vcpu)
{
    struct kvm_regs regs;
    return ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

static void exit_internal_error(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        end(vcpu, THAW_VM_FAILED, THAW_REASON_KVM,
            "vCPU %u: KVM internal error %u at rip 0x%" PRIx64, vcpu->index, run->internal.suberror,
            guest_rip(vcpu));
        return;
    }
    char bytes[3 * sizeof(run->emulation_failure.insn_bytes) + 1] = "";
    if (run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        size_t count =
            MIN(run->emulation_failure.insn_size, sizeof(run->emulation_failure.insn_bytes));
        for (size_t i = 0; i < count; i++)
            snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    }
    end(vcpu, THAW_VM_FAILED, THAW_REASON_EMULATION,
        "vCPU %u: KVM cannot emulate the instruction at rip 0x%" PRIx64 "%s%s", vcpu->index,
        guest_rip(vcpu), bytes[0] ? ", bytes" : "", bytes);
}

static void exit_system_event(struct vcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        end(vcpu, THAW_VM_STOPPED, THAW_REASON_POWEROFF, "the guest powered off");
        break;
    case KVM_SYSTEM_EVENT_RESET:
        end(vcpu, THAW_VM_STOPPED, THAW_REASON_RESET, "the guest asked for a reset");
        break;
    default:
        end(vcpu, THAW_VM_FAILED, THAW_REASON_KVM, "vCPU %u: KVM system event %u", vcpu->index,
            vcpu->run->system_event.type);
    }
}

static void exit_io(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    uint8_t *bytes = (uint8_t *)vcpu->run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++)
        vcpu->ops->pio(vcpu->ops_data, run->io.port, run->io.direction == KVM_EXIT_IO_OUT,
            bytes + (size_t)i * run->io.size, run->io.size);
    vcpu->completion_pending = true;
}

static void exit_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    vcpu->ops->mmio(vcpu->ops_data, run->mmio.phys_addr, run->mmio.is_write, run->mmio.data,
        MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data)));
    vcpu->completion_pending = true;
}

static void handle_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(vcpu);
        break;
    case KVM_EXIT_MMIO:
        exit_mmio(vcpu);
        break;
    case KVM_EXIT_HLT:
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_SHUTDOWN:
        end(vcpu, THAW_VM_FAILED, THAW_REASON_TRIPLE_FAULT,
            "vCPU %u: triple fault at rip 0x%" PRIx64, vcpu->index, guest_rip(vcpu));
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit_system_event(vcpu);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        exit_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        end(vcpu, THAW_VM_FAILED, THAW_REASON_KVM,
            "vCPU %u: the processor refused to enter the guest, hardware reason 0x%llx",
            vcpu->index, (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        end(vcpu, THAW_VM_FAILED, THAW_REASON_KVM,
            "vCPU %u: unexpected KVM exit %u at rip 0x%" PRIx64, vcpu->index, run->exit_reason,
            guest_rip(vcpu));
    }
}

static void set_immediate_exit(struct vcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

/* Notes the first time of something that happens again and again. */
static void note_first(_Atomic uint64_t *when_ns)
{
    if (atomic_load_explicit(when_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(when_ns, timing_now_ns(), memory_order_relaxed);
}

/* What is stored by the next KVM_RUN has a bit that tells. */
static void forget_left_regs(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->s.regs.regs.rflags, 0, __ATOMIC_RELAXED);
}

/* Enters the guest once. False if the vCPU was kicked instead of making an exit of its own. */
static bool enter(struct vcpu *vcpu)
{
    vcpu->completion_pending = false;
    forget_left_regs(vcpu);
    note_first(&vcpu->first_run_ns);
    int r = ioctl(vcpu->fd, KVM_RUN, 0);
    if (r == 0)
        note_first(&vcpu->first_exit_ns);
    atomic_fetch_add_explicit(&vcpu->exits, 1, memory_order_relaxed);
    if (r == 0) {
        handle_exit(vcpu);
        return true;
    }
    if (errno == EINTR || errno == EAGAIN)
        return false;
    int err = errno;
    end(vcpu, THAW_VM_FAILED, err == EFAULT ? THAW_REASON_MEMORY : THAW_REASON_KVM,
        "vCPU %u: KVM_RUN at rip 0x%" PRIx64 ": %s", vcpu->index, guest_rip(vcpu),
        thaw_strerror(-err));
    return false;
}

/* An I/O exit leaves its instruction half done, in a way that depends on the backend; entering once
 * more with immediate_exit finishes it without running the next one. One instruction may take
 * several exits. */
static void complete_io(struct vcpu *vcpu)
{
    while (vcpu->completion_pending) {
        set_immediate_exit(vcpu, 1);
        enter(vcpu);
    }
}

static void take_kick(struct vcpu *vcpu)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, vcpu->kick_signal);
    while (sigtimedwait(&kick, NULL, &(struct timespec){0}) > 0)
        ;
}

/* Runs guest code until the order is another. The kick that came with that is taken later:
 * someone is waiting for this thread to park. */
static void run_guest(struct vcpu *vcpu)
{
    for (;;) {
        /* Whoever gives an order changes it before setting immediate_exit, so clearing the flag
         * first and looking at the order after that misses none. */
        set_immediate_exit(vcpu, 0);
        if (atomic_load(&vcpu->order) != VCPU_RUN)
            break;
        if (vcpu->kicked)
            take_kick(vcpu);
        vcpu->kicked = !enter(vcpu);
    }
    complete_io(vcpu);
}

/* Others are let in between, so that where processors are scarce this is little more than sleeping.
 */
static void wait_awake(struct vcpu *vcpu)
{
    uint64_t end_ns = timing_now_ns() + ALERT_NS;
    while (atomic_load(&vcpu->order) == VCPU_PARK && !atomic_load(&vcpu->errand) &&
           timing_now_ns() < end_ns)
        sched_yield();
}

static void run_errand_locked(struct vcpu *vcpu)
{
    struct vcpu_errand *errand = vcpu->errand;
    vcpu->errand = NULL;
    pthread_mutex_unlock(&vcpu->lock);
    errand->run(errand->data);
    atomic_store(&errand->done, true); /* and it may be gone */
    pthread_mutex_lock(&vcpu->lock);
}

/* Parks until there is an order to do something, and says so each time it parks: an order to run
 * may be taken back before this thread has seen it. */
static enum vcpu_order wait_for_order(struct vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    while (vcpu->order == VCPU_PARK) {
        if (!vcpu->parked) {
            vcpu->parked = true;
            vcpu->kicked = true; /* the order came with one, unless it is this thread's own */
            pthread_mutex_unlock(&vcpu->lock);
            vcpu->ops->parked(vcpu->ops_data);
            pthread_mutex_lock(&vcpu->lock);
        } else if (vcpu->errand) {
            run_errand_locked(vcpu);
        } else if (vcpu->alert) {
            vcpu->alert = false;
            pthread_mutex_unlock(&vcpu->lock);
            wait_awake(vcpu);
            pthread_mutex_lock(&vcpu->lock);
            vcpu->alert |= vcpu->errand != NULL; /* the order comes behind that */
        } else if (vcpu->kicked) {
            /* There are only so many that may be pending, of all a user's processes. */
            vcpu->kicked = false;
            pthread_mutex_unlock(&vcpu->lock);
            take_kick(vcpu);
            pthread_mutex_lock(&vcpu->lock);
        } else {
            pthread_cond_wait(&vcpu->order_changed, &vcpu->lock);
        }
    }
    vcpu->alert = false;
    enum vcpu_order order = vcpu->order;
    vcpu->parked = order == VCPU_QUIT;
    pthread_mutex_unlock(&vcpu->lock);
    return order;
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *vcpu = arg;
    while (wait_for_order(vcpu) == VCPU_RUN)
        run_guest(vcpu);
    return NULL;
}

/* KVM unblocks the kick signal, and that one only, while the guest runs. */
static int set_run_signals(struct vcpu *vcpu, struct thaw_error *error)
{
    struct {
        struct kvm_signal_mask head;
        uint64_t blocked; /* the kernel's sigset: bit n - 1 for signal n */
    } __attribute__((packed)) mask = {
        .head.len = sizeof(mask.blocked),
        .blocked = ~((uint64_t)1 << (vcpu->kick_signal - 1)),
    };
    if (ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
        return error_errno(error, errno, "setting the signals of vCPU %u", vcpu->index);
    return 0;
}

int vcpu_start_thread(struct vcpu *vcpu, const char *name, struct thaw_error *error)
{
    char thread_name[16];
    snprintf(thread_name, sizeof(thread_name), "%.8s/cpu%u", name, vcpu->index % 100);
    int r = thread_start(&vcpu->thread, thread_name, vcpu_thread, vcpu);
    if (r < 0)
        return error_errno(error, -r, "starting the thread of vCPU %u", vcpu->index);
    vcpu->thread_started = true;
    return 0;
}

int vcpu_init(struct vcpu *vcpu, const struct kvm *kvm, int vm_fd, uint32_t index, int kick_signal,
    const struct vcpu_ops *ops, void *ops_data, struct thaw_error *error)
{
    *vcpu = (struct vcpu){.index = index,
        .fd = -1,
        .kick_signal = kick_signal,
        .ops = ops,
        .ops_data = ops_data,
        .parked = true};
    thread_init_brief_lock(&vcpu->lock);
    pthread_cond_init(&vcpu->order_changed, NULL);

    int r = 0;
    vcpu->fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0) {
        r = error_errno(error, errno, "creating vCPU %u", index);
        goto fail;
    }
    void *run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED) {
        r = error_errno(error, errno, "mapping the run area of vCPU %u", index);
        goto fail;
    }
    vcpu->run = run;
    vcpu->run_bytes = kvm->run_bytes;
    r = set_run_signals(vcpu, error);
    if (r == 0)
        return 0;
fail:
    vcpu_fini(vcpu);
    return r;
}

int vcpu_settle(struct vcpu *vcpu, uint32_t tsc_khz, const struct kvm_cpuid_entry2 *cpuid,
    uint32_t cpuid_count, struct thaw_error *error)
{
    int r = vcpu_fixed_init(&vcpu->fixed, tsc_khz, cpuid, cpuid_count, error);
    vcpu->fresh = (struct vcpu_fresh){0};
    return r;
}

void vcpu_fini(struct vcpu *vcpu)
{
    if (!vcpu->ops)
        return;
    if (vcpu->thread_started) {
        vcpu_order(vcpu, VCPU_QUIT);
        pthread_join(vcpu->thread, NULL);
    }
    if (vcpu->run)
        munmap(vcpu->run, vcpu->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    vcpu_fixed_fini(&vcpu->fixed);
    pthread_cond_destroy(&vcpu->order_changed);
    pthread_mutex_destroy(&vcpu->lock);
    *vcpu = (struct vcpu){.fd = -1};
}

void vcpu_order(struct vcpu *vcpu, enum vcpu_order order)
{
    pthread_mutex_lock(&vcpu->lock);
    bool changes = vcpu->order != order;
    bool kick = !vcpu->parked && order != VCPU_RUN && changes;
    vcpu->order = order;
    if (order == VCPU_RUN)
        vcpu->parked = false;
    if (kick)
        set_immediate_exit(vcpu, 1);
    pthread_mutex_unlock(&vcpu->lock);
    /* Behind the lock, which the thread takes first. It does not end meanwhile: the caller holds
     * the VM's lock, or joins the thread. */
    if (kick && !pthread_equal(pthread_self(), vcpu->thread))
        pthread_kill(vcpu->thread, vcpu->kick_signal);
    if (changes)
        pthread_cond_signal(&vcpu->order_changed);
}

void vcpu_alert(struct vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->alert = true;
    pthread_mutex_unlock(&vcpu->lock);
    pthread_cond_signal(&vcpu->order_changed);
}

void vcpu_give_errand(struct vcpu *vcpu, struct vcpu_errand *errand)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->errand = errand;
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_end_errand(struct vcpu *vcpu, struct vcpu_errand *errand)
{
    pthread_mutex_lock(&vcpu->lock);
    bool begun = vcpu->errand != errand;
    vcpu->errand = NULL;
    pthread_mutex_unlock(&vcpu->lock);
    if (!begun)
        errand->run(errand->data);
    while (begun && !atomic_load(&errand->done))
        sched_yield();
}

/* KVM looks at the mask whenever KVM_RUN ends, also one that only finishes an instruction. */
void vcpu_leave_regs(struct vcpu *vcpu, bool leave)
{
    if (leave)
        forget_left_regs(vcpu);
    __atomic_store_n(
        &vcpu->run->kvm_valid_regs, leave ? (uint64_t)KVM_LEFT_REGS : 0, __ATOMIC_SEQ_CST);
}

const struct kvm_sync_regs *vcpu_left_regs(const struct vcpu *vcpu)
{
    bool left = vcpu->run->kvm_valid_regs && vcpu->run->s.regs.regs.rflags & RFLAGS_ALWAYS;
    return left ? &vcpu->run->s.regs : NULL;
}

void vcpu_forget(struct vcpu *vcpu)
{
    _Atomic uint64_t *const all[] = {&vcpu->exits, &vcpu->first_run_ns, &vcpu->first_exit_ns};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        atomic_store_explicit(all[i], 0, memory_order_relaxed);
}

bool vcpu_is_parked(struct vcpu *vcpu)
{
    return atomic_load(&vcpu->parked);
}
