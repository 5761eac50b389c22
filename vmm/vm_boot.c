// SPDX-License-Identifier: Apache-2.0
// Makes a VM that boots a kernel. What happens to it after that is vm.c's.

#include "boot.h"
#include "dev_vmgenid.h"
#include "options.h"
#include "vm.h"
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

struct boot_disks {
    struct thaw_vm *vm;
    struct disk_options options[THAW_DISKS_MAX];
};

/* The caller's disks, whose struct may be of another version, in the form that devices take. */
static int read_disks(const struct thaw_vm *vm, const struct thaw_vm_options *opt,
    struct disk_options *ret, struct thaw_error *error)
{
    if (opt->disk_count > THAW_DISKS_MAX)
        return error_set(
            error, -EINVAL, "%zu disks: a VM has at most %d", opt->disk_count, THAW_DISKS_MAX);
    const char *at = (const char *)opt->disks;
    for (size_t i = 0; i < opt->disk_count; i++, at += opt->disks->size) {
        struct thaw_disk_options disk = {0};
        int r = options_read(&disk, sizeof(disk), at, "struct thaw_disk_options", error);
        if (r < 0)
            return r;
        if (disk.flags & ~THAW_DISK_READ_ONLY)
            return error_set(error, -EINVAL, "disk %zu: unknown flags 0x%x", i, disk.flags);
        if (!disk.path && disk.fd <= 0)
            return error_set(error, -EINVAL, "disk %zu: neither path nor fd is set", i);
        ret[i] = (struct disk_options){
            .path = disk.path,
            .fd = disk.fd,
            .read_only = disk.flags & THAW_DISK_READ_ONLY,
            .overlay_dir = vm->env->overlay_dir,
        };
    }
    return 0;
}

/* Keeps where the disk's base is, so that a snapshot can name it. */
static int open_disk(
    void *data, struct io *io, unsigned index, struct disk **ret, struct thaw_error *error)
{
    const struct boot_disks *disks = data;
    const struct disk_options *options = &disks->options[index];
    int r = disk_open(io, options, ret, error);
    return r < 0 ? r : vm_note_disk(disks->vm, index, options, *ret, error);
}

static int map_memory(void *data, struct thaw_vm *vm, struct thaw_error *error)
{
    (void)data;
    return mem_map_anonymous(&vm->mem, error);
}

static int boot(struct thaw_vm *vm, const struct thaw_vm_options *opt, struct thaw_error *error)
{
    struct boot_disks disks = {.vm = vm};
    struct vm_devices devices = {
        .console = opt->console,
        .console_data = opt->console_data,
        .disk_count = (unsigned)opt->disk_count,
        .open_disk = open_disk,
        .disk_data = &disks,
    };
    struct boot_source source = {
        .kernel_path = opt->kernel_path,
        .initrd_path = opt->initrd_path,
        .cmdline = opt->cmdline,
    };
    struct boot_entry entry;
    int r = read_disks(vm, opt, disks.options, error);
    if (r == 0)
        r = vm_add_machine(vm, &devices, NULL, error);
    if (r == 0)
        r = boot_load(&vm->mem, &source, vm->shape.vcpu_count, &entry, error);
    if (r == 0)
        r = vmgenid_renew(&vm->mem, error);
    for (uint32_t i = 0; i < vm->vcpu_count && r == 0; i++) {
        const struct vcpu_fresh *fresh = &vm->vcpus[i].fresh;
        r = vcpu_settle(
            &vm->vcpus[i], fresh->tsc_khz, fresh->cpuid->entries, fresh->cpuid->head.nent, error);
        vm->vcpus[i].fixed.tsc_stays = atomic_load(&vm->env->tsc_stays);
    }
    /* The other vCPUs wait for the boot processor to start them. */
    if (r == 0)
        r = cpu_x86_set_firmware_state(vm->vcpus[0].fd, error);
    return r < 0 ? r : cpu_x86_set_boot_state(vm->vcpus[0].fd, &entry, error);
}

int thaw_vm_new(
    thaw_env *env, const struct thaw_vm_options *options, thaw_vm **ret, struct thaw_error *error)
{
    struct thaw_vm_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_vm_options", error);
    if (r < 0)
        return r;
    if (!opt.kernel_path)
        return error_set(error, -EINVAL, "a VM needs a kernel: kernel_path is not set");
    struct vm_shape shape = {
        .vcpu_count = opt.vcpu_count ? opt.vcpu_count : 1,
        .mem_bytes = opt.mem_bytes ? opt.mem_bytes : 128 * MIB,
        .log_dirty = true,
    };
    struct thaw_vm *vm;
    r = vm_new_shell(
        env, opt.name ? opt.name : "vm", &shape, VM_THREADS_ASLEEP, map_memory, NULL, &vm, error);
    if (r < 0)
        return r;
    r = boot(vm, &opt, error);
    if (r < 0) {
        thaw_vm_free(vm);
        return r;
    }
    *ret = vm;
    return 0;
}
