// SPDX-License-Identifier: Apache-2.0
// A VM by the fewest ioctls: made, and run until it prints. No thread, no
// device but a serial port that keeps what it is sent.

#include "floor.h"
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define HOLE_GPA  0xc0000000u
#define HIGH_GPA  0x100000000u
#define PORT_COM1 0x3f8
#define PORT_LSR  0x3fd
#define LSR_DATA  1
#define PORT_EXIT 0xf4

/* --- Making ----------------------------------------------------------------------------------- */

static int add_slot(const struct floor_vm *vm, uint32_t number, uint64_t gpa, uint64_t offset,
    uint64_t bytes, bool log_dirty)
{
    const struct kvm_userspace_memory_region slot = {
        .slot = number,
        .flags = log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = gpa,
        .memory_size = bytes,
        .userspace_addr = (uintptr_t)vm->ram + offset,
    };
    return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

static int build(struct floor_vm *vm, int kvm_fd, bool log_dirty)
{
    const struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    uint64_t low = MIN(vm->ram_bytes, (uint64_t)HOLE_GPA);
    vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return -1;
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
    };
    if (log_dirty && ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0)
        return -1;
    if (add_slot(vm, 0, 0, 0, low, log_dirty) < 0 ||
        (vm->ram_bytes > low &&
            add_slot(vm, 1, HIGH_GPA, low, vm->ram_bytes - low, log_dirty) < 0) ||
        ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return -1;
    vm->vcpu_fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
    if (vm->vcpu_fd < 0 || ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
        return -1;
    vm->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
    if (vm->run != MAP_FAILED)
        return 0;
    vm->run = NULL;
    return -1;
}

int floor_vm_open(int kvm_fd, uint8_t *ram, uint64_t bytes, bool log_dirty, struct floor_vm *ret,
    struct thaw_error *error)
{
    *ret = (struct floor_vm){.fd = -1, .vcpu_fd = -1, .ram = ram, .ram_bytes = bytes};
    int run_bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    ret->run_bytes = (size_t)MAX(run_bytes, 0);
    if (run_bytes > 0 && build(ret, kvm_fd, log_dirty) == 0)
        return 0;
    int r = bench_errno(error, "making a VM by hand");
    floor_vm_close(ret);
    return r;
}

void floor_vm_close(struct floor_vm *vm)
{
    if (vm->run)
        munmap(vm->run, vm->run_bytes);
    if (vm->vcpu_fd >= 0)
        close(vm->vcpu_fd);
    if (vm->fd >= 0)
        close(vm->fd);
    *vm = (struct floor_vm){.fd = -1, .vcpu_fd = -1};
}

/* --- Running ---------------------------------------------------------------------------------- */

struct output {
    char bytes[512];
    size_t count;
    uint64_t first_ns;
};

static void give_input(struct floor_vm *vm)
{
    char *bytes = (char *)vm->run + vm->run->io.data_offset;
    bool any = vm->input && *vm->input;
    memset(bytes, 0, (size_t)vm->run->io.size * vm->run->io.count);
    if (vm->run->io.port == PORT_LSR)
        *bytes = any ? LSR_DATA : 0;
    else if (vm->run->io.port == PORT_COM1 && any)
        *bytes = *vm->input++;
}

static int take_output(struct floor_vm *vm, struct output *output, struct thaw_error *error)
{
    const struct kvm_run *run = vm->run;
    const char *bytes = (const char *)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_IN) {
        give_input(vm);
        return 0;
    }
    if (run->io.port == PORT_EXIT)
        return bench_fail(error, THAW_EGUEST, "the guest ended: %.200s", output->bytes);
    if (run->io.port != PORT_COM1)
        return 0;
    if (output->count == 0)
        output->first_ns = now_ns();
    size_t count = MIN((size_t)run->io.count, sizeof(output->bytes) - output->count);
    memcpy(output->bytes + output->count, bytes, count);
    output->count += count;
    return 0;
}

/* Also what the kernel wakes a thread for interrupts it. */
static int run(const struct floor_vm *vm)
{
    int r;
    do
        r = ioctl(vm->vcpu_fd, KVM_RUN, 0);
    while (r < 0 && errno == EINTR && !bench_interrupted);
    return r;
}

int floor_vm_run(struct floor_vm *vm, const struct bench *bench, const struct recipe *recipe,
    uint32_t from, struct floor_ran *ret, struct thaw_error *error)
{
    struct output output = {0};
    struct floor_ran ran = {.run_ns = now_ns()};
    int r = 0;
    vm->used = true;
    while (r == 0) {
        if (run(vm) < 0)
            return bench_errno(error, "running a VM by hand");
        if (ran.exit_ns == 0)
            ran.exit_ns = now_ns();
        if (vm->run->exit_reason != KVM_EXIT_IO)
            return bench_fail(
                error, THAW_EGUEST, "KVM exit %u of a VM made by hand", vm->run->exit_reason);
        r = take_output(vm, &output, error);
        if (r == 0)
            r = recipe_read(bench, recipe, from, output.bytes, output.count, &ran.position, error);
    }
    ran.output_ns = output.first_ns;
    if (r > 0)
        *ret = ran;
    return MIN(r, 0);
}

bool floor_vm_step(struct floor_vm *vm)
{
    if (run(vm) < 0 || vm->run->exit_reason != KVM_EXIT_IO)
        return false;
    if (vm->run->io.direction == KVM_EXIT_IO_IN)
        give_input(vm);
    return true;
}

int floor_vm_pump(struct floor_vm *vm, int fd, struct thaw_error *error)
{
    while (run(vm) == 0 && vm->run->exit_reason == KVM_EXIT_IO) {
        char *bytes = (char *)vm->run + vm->run->io.data_offset;
        size_t count = (size_t)vm->run->io.size * vm->run->io.count;
        if (vm->run->io.direction == KVM_EXIT_IO_IN)
            memset(bytes, 0, count);
        else if (vm->run->io.port == PORT_COM1 && write(fd, bytes, count) < 0)
            break;
    }
    return bench_errno(error, "running a VM by hand, until exit %u", vm->run->exit_reason);
}

int floor_vm_finish_io(struct floor_vm *vm, struct thaw_error *error)
{
    vm->run->immediate_exit = 1;
    int r = ioctl(vm->vcpu_fd, KVM_RUN, 0);
    vm->run->immediate_exit = 0;
    return r < 0 && errno == EINTR ? 0 : bench_fail(error, -EIO, "a VM made by hand runs on");
}
