// SPDX-License-Identifier: Apache-2.0
// Construction of a VM and its state machine. Knows nothing of snapshots, nor of what a device
// does.

#include "vm.h"
#include "dirty.h"
#include "kvm_state.h"
#include "thread.h"
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

/* For how long whoever pauses a VM for a moment waits awake for it to park. */
#define PARKING_NS 100000u

static bool is_final(enum thaw_vm_state state)
{
    return state == THAW_VM_STOPPED || state == THAW_VM_FAILED;
}

static void notify_locked(struct thaw_vm *vm)
{
    vm->event_count++;
    /* Fails only when the counter is at its limit, and then the descriptor is readable anyway. */
    if (vm->event_fd >= 0)
        (void)eventfd_write(vm->event_fd, 1);
}

/* Made when somebody asks for it: that takes longer than a descriptor seems worth, and many VMs
 * come and go without. It says how much has happened by then, as if it had always been there. */
int thaw_vm_event_fd(thaw_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->event_fd < 0)
        vm->event_fd = eventfd(vm->event_count, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = vm->event_fd < 0 ? -errno : vm->event_fd;
    pthread_mutex_unlock(&vm->lock);
    return r;
}

/* The one place where the state changes. The vCPUs follow; nobody waits for them here. */
static void set_state_locked(
    struct thaw_vm *vm, enum thaw_vm_state state, enum thaw_vm_reason reason, const char *detail)
{
    vm->state = state;
    vm->reason = reason;
    snprintf(vm->detail, sizeof(vm->detail), "%s", detail);
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_order(&vm->vcpus[i], state == THAW_VM_RUNNING ? VCPU_RUN : VCPU_PARK);
    pthread_cond_broadcast(&vm->changed);
    notify_locked(vm);
}

static bool all_parked(const struct thaw_vm *vm)
{
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (!vcpu_is_parked(&vm->vcpus[i]))
            return false;
    return true;
}

/* Else someone needs a processor to do what others wait for. */
static bool has_spare_processor(const struct thaw_vm *vm)
{
    return vm->vcpu_count < vm->env->cpus;
}

/* With sched_yield, whoever else is there had the processor for as long as parking takes. */
static void wait_parked_awake(struct thaw_vm *vm)
{
    uint64_t end_ns = timing_now_ns() + PARKING_NS;
    while (!all_parked(vm) && timing_now_ns() < end_ns)
        __builtin_ia32_pause();
}

static void wait_parked_locked(struct thaw_vm *vm)
{
    while (!all_parked(vm))
        pthread_cond_wait(&vm->changed, &vm->lock);
}

/* What vCPUs and devices report, on their threads. */

static void on_ended(
    void *data, enum thaw_vm_state state, enum thaw_vm_reason reason, const char *detail)
{
    struct thaw_vm *vm = data;
    pthread_mutex_lock(&vm->lock);
    if (!is_final(vm->state))
        set_state_locked(vm, state, reason, detail);
    pthread_mutex_unlock(&vm->lock);
}

static void on_parked(void *data)
{
    struct thaw_vm *vm = data;
    pthread_mutex_lock(&vm->lock);
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

static void on_pio(void *data, uint16_t port, bool write, uint8_t *bytes, unsigned count)
{
    struct thaw_vm *vm = data;
    if (write)
        bus_write(&vm->machine.pio, port, bytes, count);
    else
        bus_read(&vm->machine.pio, port, bytes, count);
}

static void on_mmio(void *data, uint64_t gpa, bool write, uint8_t *bytes, unsigned count)
{
    struct thaw_vm *vm = data;
    /* KVM could not reach RAM and took it for a device. Going on would lose a write or invent data.
     */
    if (mem_overlaps_ram(&vm->mem, gpa, count)) {
        char detail[THAW_VM_DETAIL_BYTES];
        snprintf(
            detail, sizeof(detail), "guest memory at 0x%" PRIx64 " could not be provided", gpa);
        on_ended(vm, THAW_VM_FAILED, THAW_REASON_MEMORY, detail);
        return;
    }
    if (write)
        bus_write(&vm->machine.mmio, gpa, bytes, count);
    else
        bus_read(&vm->machine.mmio, gpa, bytes, count);
}

static const struct vcpu_ops vcpu_ops = {
    .pio = on_pio, .mmio = on_mmio, .ended = on_ended, .parked = on_parked};

static void on_poweroff(void *data)
{
    on_ended(data, THAW_VM_STOPPED, THAW_REASON_POWEROFF, "the guest powered off");
}

static void on_reset(void *data)
{
    on_ended(data, THAW_VM_STOPPED, THAW_REASON_RESET, "the guest asked for a reset");
}

static void on_exit_status(void *data, uint32_t status)
{
    struct thaw_vm *vm = data;
    char detail[THAW_VM_DETAIL_BYTES];
    snprintf(detail, sizeof(detail), "the guest exited with status %u", status);
    pthread_mutex_lock(&vm->lock);
    if (!is_final(vm->state)) {
        vm->exit_status = status;
        set_state_locked(vm, THAW_VM_STOPPED, THAW_REASON_EXIT, detail);
    }
    pthread_mutex_unlock(&vm->lock);
}

static void on_mark(void *data, uint32_t value)
{
    struct thaw_vm *vm = data;
    pthread_mutex_lock(&vm->lock);
    vm->mark = value;
    vm->mark_count++;
    notify_locked(vm);
    pthread_mutex_unlock(&vm->lock);
}

/* Nothing is lost: the request waits, and with it the guest, until the owner resumes. */
static void pause_for_disk_locked(struct thaw_vm *vm, int disk)
{
    char detail[THAW_VM_DETAIL_BYTES];
    snprintf(detail, sizeof(detail),
        "disk %d: no room on the host for what the guest writes; free some and resume", disk);
    set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_DISK_FULL, detail);
}

static void on_disk_full(void *data, unsigned disk)
{
    struct thaw_vm *vm = data;
    pthread_mutex_lock(&vm->lock);
    if (vm->state == THAW_VM_RUNNING)
        pause_for_disk_locked(vm, (int)disk);
    else
        vm->full_disk = (int)disk;
    pthread_mutex_unlock(&vm->lock);
}

static const struct power_ops power_ops = {
    .poweroff = on_poweroff, .reset = on_reset, .exit = on_exit_status, .mark = on_mark};

/* Construction */

static int check_shape(
    const struct thaw_env *env, const struct vm_shape *shape, struct thaw_error *error)
{
    uint32_t most = MIN(env->kvm.vcpus_max, (uint32_t)THAW_VCPUS_MAX);
    if (shape->vcpu_count < 1 || shape->vcpu_count > most)
        return error_set(
            error, -EINVAL, "%u vCPUs: this host offers 1 to %u", shape->vcpu_count, most);
    return 0; /* mem_init checks the memory size */
}

static void init_locks(struct thaw_vm *vm)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->changed, &attr);
    pthread_condattr_destroy(&attr);
    thread_init_brief_lock(&vm->lock);
    pthread_mutex_init(&vm->api_lock, NULL);
}

/* The same for all vCPUs of this host, and an ioctl. */
static int find_tsc(struct thaw_vm *vm, uint32_t *ret_khz, struct thaw_error *error)
{
    bool keeps;
    *ret_khz = atomic_load(&vm->env->tsc_khz);
    if (*ret_khz)
        return 0;
    int r = vcpu_read_tsc_khz(vm->vcpus[0].fd, ret_khz, error);
    if (r == 0)
        r = vcpu_try_tsc_offset(vm->vcpus[0].fd, &keeps, error);
    for (uint32_t i = 0; i < vm->vcpu_count && r == 0; i++)
        r = vcpu_share_tsc_offset(vm->vcpus[i].fd, vm->vcpus[0].fd, error);
    if (r < 0)
        return r;
    atomic_store(&vm->env->tsc_stays, !keeps);
    atomic_store(&vm->env->tsc_khz, *ret_khz);
    return 0;
}

static int set_processors(struct thaw_vm *vm, struct thaw_error *error)
{
    const struct env_host *host;
    uint32_t tsc_khz;
    int r = find_tsc(vm, &tsc_khz, error);
    if (r == 0)
        r = env_host(vm->env, &host, error);
    for (uint32_t i = 0; i < vm->vcpu_count && r == 0; i++)
        r = fresh_vcpu_init(&vm->vcpus[i].fresh, &vm->env->processors, vm->vcpus[i].fd, i,
            vm->vcpu_count, &host->cpuid, tsc_khz, error);
    return r;
}

static int create_vcpus(struct thaw_vm *vm, struct thaw_error *error)
{
    vm->vcpus = calloc(vm->shape.vcpu_count, sizeof(*vm->vcpus));
    if (!vm->vcpus)
        return error_errno(error, ENOMEM, "allocating vCPUs");
    for (uint32_t i = 0; i < vm->shape.vcpu_count; i++) {
        int r = vcpu_init(
            &vm->vcpus[i], &vm->env->kvm, vm->fd, i, vm->env->kick_signal, &vcpu_ops, vm, error);
        if (r < 0)
            return r;
        pthread_mutex_lock(&vm->lock);
        vm->vcpu_count++;
        pthread_mutex_unlock(&vm->lock);
    }
    return 0;
}

/* On whatever thread. */
struct timer {
    int vm_fd;
    int result;
    struct thaw_error error;
};

static void create_timer(void *data)
{
    struct timer *timer = data;
    timer->result = irq_create_timer(timer->vm_fd, &timer->error);
}

/* Making the timer is waiting for a thread of the kernel's, for about as long as it takes to set a
 * vCPU's features: the first vCPU's thread does it meanwhile, if it is started here. */
static int finish_processors(struct thaw_vm *vm, enum vm_threads threads, struct thaw_error *error)
{
    struct timer timer = {.vm_fd = vm->fd};
    struct vcpu_errand errand = {.run = create_timer, .data = &timer};
    int r = 0;
    vcpu_give_errand(&vm->vcpus[0], &errand);
    if (threads == VM_THREADS_ALERT)
        vm_alert(vm);
    if (threads != VM_THREADS_NONE)
        r = vm_start_threads(vm, error);
    if (r == 0)
        r = set_processors(vm, error);
    vcpu_end_errand(&vm->vcpus[0], &errand);
    if (r == 0 && timer.result < 0)
        r = error_set(error, timer.result, "%s", timer.error.message);
    return r;
}

static int map_memory(struct thaw_vm *vm, vm_map_fn map, void *map_data, struct thaw_error *error)
{
    if (map) {
        int r = mem_init_unplaced(&vm->mem, vm->shape.mem_bytes, error);
        return r < 0 ? r : map(map_data, vm, error);
    }
    int r = mem_init(&vm->mem, vm->shape.mem_bytes, error);
    if (r == 0)
        mem_vacate(&vm->mem);
    return r;
}

/* Memslots first: once there are interrupt controllers, each costs a grace period. */
static int build_shell(struct thaw_vm *vm, enum vm_threads threads, vm_map_fn map, void *map_data,
    struct thaw_error *error)
{
    int r = map_memory(vm, map, map_data, error);
    if (r == 0)
        r = env_create_vm(vm->env, &vm->fd, error);
    if (r == 0 && vm->shape.log_dirty)
        r = dirty_enable(vm->fd, error);
    if (r == 0)
        r = mem_register(&vm->mem, vm->fd, vm->shape.log_dirty, error);
    if (r == 0)
        r = irq_create_chips(vm->fd, error);
    if (r == 0)
        r = create_vcpus(vm, error);
    if (r == 0)
        r = finish_processors(vm, threads, error);
    /* A VM that remains the only one has nothing to learn for. */
    if (r == 0 && atomic_fetch_add(&vm->env->shells, 1) > 0)
        fresh_learn(&vm->env->fresh, vm);
    return r;
}

int vm_new_shell(struct thaw_env *env, const char *name, const struct vm_shape *shape,
    enum vm_threads threads, vm_map_fn map, void *map_data, struct thaw_vm **ret,
    struct thaw_error *error)
{
    int r = check_shape(env, shape, error);
    if (r < 0)
        return r;
    if (strlen(name) >= VM_NAME_BYTES)
        return error_set(error, -EINVAL, "a VM's name has at most %d bytes", VM_NAME_BYTES - 1);
    struct thaw_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return error_errno(error, ENOMEM, "allocating a VM");
    vm->env = env_ref(env);
    vm->shape = *shape;
    vm->fd = vm->event_fd = -1;
    memcpy(vm->name, name, strlen(name));
    init_locks(vm);
    r = build_shell(vm, threads, map, map_data, error);
    if (r < 0) {
        vm_destroy(vm);
        return r;
    }
    *ret = vm;
    return 0;
}

int vm_start_threads(struct thaw_vm *vm, struct thaw_error *error)
{
    int r = 0;
    for (uint32_t i = 0; i < vm->vcpu_count && r == 0; i++)
        r = vcpu_start_thread(&vm->vcpus[i], vm->name, error);
    return r;
}

int vm_prepare_shell(struct thaw_vm *vm, struct fresh *fresh, struct thaw_error *error)
{
    (void)thaw_vm_event_fd(vm); /* who wants it will not have to wait for it */
    int r = cpu_x86_set_firmware_state(vm->vcpus[0].fd, error);
    if (r == 0)
        fresh_learn(fresh, vm);
    return r;
}

int vm_add_machine(struct thaw_vm *vm, const struct vm_devices *devices,
    const struct machine_state *state, struct thaw_error *error)
{
    struct machine_config config = {
        .console = devices->console,
        .console_data = devices->console_data,
        .power_ops = &power_ops,
        .disk_full = on_disk_full,
        .data = vm,
        .disk_count = devices->disk_count,
        .open_disk = devices->open_disk,
        .disk_data = devices->disk_data,
    };
    return machine_init(&vm->machine, vm->fd, &vm->mem, &config, state, error);
}

int vm_note_disk(struct thaw_vm *vm, unsigned index, const struct disk_options *options,
    struct disk *disk, struct thaw_error *error)
{
    vm->disks[index].read_only = options->read_only;
    if (!options->path)
        return 0;
    vm->disks[index].path = realpath(options->path, NULL);
    if (vm->disks[index].path)
        return 0;
    int err = errno;
    disk_free(disk);
    return error_errno(error, err, "finding the full path of %s", options->path);
}

int vm_set_restored(struct thaw_vm *vm, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&vm->lock);
    if (vm->state == THAW_VM_CREATED)
        set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_REQUEST, "");
    else
        r = error_set(error, vm->reason == THAW_REASON_MEMORY ? THAW_ECORRUPT : THAW_EGUEST,
            "VM %s ended while it was restored: %s", vm->name, vm->detail);
    pthread_mutex_unlock(&vm->lock);
    return r;
}

void vm_fail(struct thaw_vm *vm, enum thaw_vm_reason reason, const char *detail)
{
    on_ended(vm, THAW_VM_FAILED, reason, detail);
}

void vm_set_name(struct thaw_vm *vm, const char *name)
{
    snprintf(vm->name, sizeof(vm->name), "%s", name);
}

void thaw_vm_free(thaw_vm *vm)
{
    if (!vm || !vm->reap) {
        vm_destroy(vm);
        return;
    }
    thaw_vm_stop(vm, NULL);
    vm->reap(vm->reap_data, vm);
}

void vm_destroy(struct thaw_vm *vm)
{
    if (!vm)
        return;
    /* While one vCPU could still run, it could give orders to the others. */
    thaw_vm_stop(vm, NULL);
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_fini(&vm->vcpus[i]);
    free(vm->vcpus);
    machine_fini(&vm->machine);
    /* KVM before what lies behind its memory: it would look through all of it. */
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->attachment.data)
        vm->attachment.free(vm->attachment.data);
    for (size_t i = 0; i < ARRAY_SIZE(vm->disks); i++)
        free(vm->disks[i].path);
    mem_fini(&vm->mem);
    if (vm->event_fd >= 0)
        close(vm->event_fd);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    pthread_mutex_destroy(&vm->api_lock);
    env_unref(vm->env);
    free(vm);
}

/* Life */

static int refuse(struct thaw_vm *vm, const char *what, struct thaw_error *error)
{
    return error_set(error, THAW_ESTATE, "VM %s is %s and cannot be %s", vm->name,
        thaw_vm_state_name(vm->state), what);
}

/* api_lock is held, so only a vCPU or device that ended the VM can have changed the state since the
 * caller looked. Devices first: they set their interrupt lines. They also retry what found no room
 * on the host, and may know that there is still none before the state changes. */
static void run_from(struct thaw_vm *vm, enum thaw_vm_state from)
{
    pthread_mutex_lock(&vm->lock);
    vm->full_disk = -1;
    pthread_mutex_unlock(&vm->lock);
    machine_resume(&vm->machine);
    /* A note made at the pause only may be lost on the way through a snapshot. */
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        if (vm->vcpus[i].has_kvmclock)
            vcpu_state_note_pause(vm->vcpus[i].fd);
        vm->vcpus[i].has_kvmclock = true; /* from now on it may */
    }
    pthread_mutex_lock(&vm->lock);
    if (vm->state == from && vm->full_disk >= 0)
        pause_for_disk_locked(vm, vm->full_disk);
    else if (vm->state == from)
        set_state_locked(vm, THAW_VM_RUNNING, THAW_REASON_NONE, "");
    pthread_mutex_unlock(&vm->lock);
}

int thaw_vm_start(thaw_vm *vm, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&vm->api_lock);
    pthread_mutex_lock(&vm->lock);
    if (vm->state != THAW_VM_CREATED)
        r = refuse(vm, "started", error);
    pthread_mutex_unlock(&vm->lock);
    if (r == 0)
        run_from(vm, THAW_VM_CREATED);
    pthread_mutex_unlock(&vm->api_lock);
    return r;
}

void vm_alert(struct thaw_vm *vm)
{
    for (uint32_t i = 0; i < vm->vcpu_count && has_spare_processor(vm); i++)
        vcpu_alert(&vm->vcpus[i]);
}

static int pause_held(
    struct thaw_vm *vm, bool briefly, bool *ret_was_running, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&vm->lock);
    *ret_was_running = vm->state == THAW_VM_RUNNING;
    if (vm->state == THAW_VM_RUNNING)
        set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_REQUEST, "");
    else if (vm->state != THAW_VM_PAUSED)
        r = refuse(vm, "paused", error);
    if (r == 0 && briefly && has_spare_processor(vm)) {
        pthread_mutex_unlock(&vm->lock);
        wait_parked_awake(vm);
        pthread_mutex_lock(&vm->lock);
    }
    if (r == 0)
        wait_parked_locked(vm);
    /* A vCPU finishes its instruction before it parks, and that may be the guest's last. */
    if (r == 0 && vm->state != THAW_VM_PAUSED)
        r = refuse(vm, "paused", error);
    pthread_mutex_unlock(&vm->lock);
    if (r == 0)
        machine_pause(&vm->machine);
    return r;
}

static void leave_regs(struct thaw_vm *vm, bool leave)
{
    for (uint32_t i = 0; i < vm->vcpu_count && vm->env->kvm.sync_regs; i++)
        vcpu_leave_regs(&vm->vcpus[i], leave);
}

int vm_hold(struct thaw_vm *vm, bool *ret_was_running, struct thaw_error *error)
{
    bool was_running;
    pthread_mutex_lock(&vm->api_lock);
    vm_alert(vm);
    leave_regs(vm, true);
    int r = pause_held(vm, true, &was_running, error);
    if (r < 0) {
        leave_regs(vm, false);
        pthread_mutex_unlock(&vm->api_lock);
    } else {
        *ret_was_running = was_running;
    }
    return r;
}

static bool is_still(enum thaw_vm_state state)
{
    return state == THAW_VM_PAUSED || state == THAW_VM_STOPPED;
}

int vm_hold_still(struct thaw_vm *vm, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&vm->api_lock);
    pthread_mutex_lock(&vm->lock);
    if (is_still(vm->state))
        wait_parked_locked(vm);
    if (!is_still(vm->state))
        r = error_set(error, THAW_ESTATE, "VM %s is %s, and neither paused nor stopped", vm->name,
            thaw_vm_state_name(vm->state));
    pthread_mutex_unlock(&vm->lock);
    if (r == 0)
        machine_pause(&vm->machine);
    else
        pthread_mutex_unlock(&vm->api_lock);
    return r;
}

void vm_release(struct thaw_vm *vm, bool run)
{
    leave_regs(vm, false);
    if (run)
        run_from(vm, THAW_VM_PAUSED);
    pthread_mutex_unlock(&vm->api_lock);
}

/* What has ended can be put back, unless its memory is what is wrong. */
static int check_resettable_locked(struct thaw_vm *vm, struct thaw_error *error)
{
    if (vm->state == THAW_VM_FAILED && vm->reason == THAW_REASON_MEMORY)
        return error_set(error, THAW_ESTATE,
            "VM %s cannot be reset, since its memory cannot be provided: %s", vm->name, vm->detail);
    return vm->state == THAW_VM_CREATED ? refuse(vm, "reset", error) : 0;
}

int vm_pause_for_reset(struct thaw_vm *vm, struct thaw_error *error)
{
    pthread_mutex_lock(&vm->lock);
    int r = check_resettable_locked(vm, error);
    if (r == 0 && vm->state == THAW_VM_RUNNING)
        set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_REQUEST, "");
    if (r == 0)
        wait_parked_locked(vm);
    if (r == 0)
        r = check_resettable_locked(vm, error);
    pthread_mutex_unlock(&vm->lock);
    if (r == 0)
        machine_pause(&vm->machine);
    return r;
}

void vm_begin_reset(struct thaw_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    if (is_final(vm->state))
        set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_REQUEST, "");
    pthread_mutex_unlock(&vm->lock);
}

int vm_end_reset(struct thaw_vm *vm, int r, const struct timing *timing, struct thaw_error *error)
{
    char detail[THAW_VM_DETAIL_BYTES];
    snprintf(detail, sizeof(detail), "it could not be reset: %.220s", r < 0 ? error->message : "");
    pthread_mutex_lock(&vm->lock);
    if (is_final(vm->state)) {
        r = error_set(error, vm->reason == THAW_REASON_MEMORY ? THAW_ECORRUPT : THAW_EGUEST,
            "VM %s ended while it was reset: %s", vm->name, vm->detail);
    } else if (r < 0) {
        set_state_locked(vm, THAW_VM_FAILED, THAW_REASON_KVM, detail);
    } else {
        for (uint32_t i = 0; i < vm->vcpu_count; i++)
            vcpu_forget(&vm->vcpus[i]);
        vm->timing = *timing;
        vm->exit_status = vm->mark = 0;
        vm->mark_count = 0;
        set_state_locked(vm, THAW_VM_PAUSED, THAW_REASON_REQUEST, "");
    }
    pthread_mutex_unlock(&vm->lock);
    return r;
}

int thaw_vm_pause(thaw_vm *vm, struct thaw_error *error)
{
    bool was_running;
    pthread_mutex_lock(&vm->api_lock);
    int r = pause_held(vm, false, &was_running, error);
    pthread_mutex_unlock(&vm->api_lock);
    return r;
}

int thaw_vm_resume(thaw_vm *vm, struct thaw_error *error)
{
    int r = 0;
    pthread_mutex_lock(&vm->api_lock);
    pthread_mutex_lock(&vm->lock);
    bool resume = vm->state == THAW_VM_PAUSED;
    if (!resume && vm->state != THAW_VM_RUNNING)
        r = refuse(vm, "resumed", error);
    pthread_mutex_unlock(&vm->lock);
    if (resume)
        run_from(vm, THAW_VM_PAUSED);
    pthread_mutex_unlock(&vm->api_lock);
    return r;
}

int thaw_vm_stop(thaw_vm *vm, struct thaw_error *error)
{
    (void)error;
    pthread_mutex_lock(&vm->api_lock);
    pthread_mutex_lock(&vm->lock);
    if (!is_final(vm->state))
        set_state_locked(vm, THAW_VM_STOPPED, THAW_REASON_REQUEST, "stopped by its owner");
    wait_parked_locked(vm);
    pthread_mutex_unlock(&vm->lock);
    machine_pause(&vm->machine);
    pthread_mutex_unlock(&vm->api_lock);
    return 0;
}

int thaw_vm_wait(thaw_vm *vm, int timeout_ms)
{
    struct timespec deadline = timing_deadline(timeout_ms);
    int err = 0;
    pthread_mutex_lock(&vm->lock);
    while (err == 0 && !(is_final(vm->state) && all_parked(vm)))
        err = timeout_ms < 0 ? pthread_cond_wait(&vm->changed, &vm->lock)
                             : pthread_cond_timedwait(&vm->changed, &vm->lock, &deadline);
    pthread_mutex_unlock(&vm->lock);
    return -err;
}
