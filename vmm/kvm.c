// SPDX-License-Identifier: Apache-2.0
// The device node and the table of capabilities. What is done with a VM is elsewhere.

#include "kvm.h"
#include "machine.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

const struct kvm_cap kvm_caps[] = {
    {KVM_CAP_USER_MEMORY, "kvm-user-memory", true, "guest RAM in this process's memory"},
    {KVM_CAP_SYNC_MMU, "kvm-sync-mmu", true, "what lies behind guest RAM can be exchanged"},
    {KVM_CAP_IRQCHIP, "kvm-irqchip", true, "interrupt controllers in the kernel"},
    {KVM_CAP_PIT2, "kvm-pit2", true, "interval timer in the kernel"},
    {KVM_CAP_PIT_STATE2, "kvm-pit-state2", true, "the timer's state can be saved"},
    {KVM_CAP_EXT_CPUID, "kvm-cpuid", true, "what processors guests see"},
    {KVM_CAP_MP_STATE, "kvm-mp-state", true, "which processors wait to be started"},
    {KVM_CAP_IMMEDIATE_EXIT, "kvm-immediate-exit", true, "vCPUs can be stopped without a race"},
    {KVM_CAP_VCPU_EVENTS, "kvm-vcpu-events", true, "pending exceptions and interrupts are saved"},
    {KVM_CAP_DEBUGREGS, "kvm-debugregs", true, "debug registers are saved"},
    {KVM_CAP_XSAVE, "kvm-xsave", true, "floating point and vector state is saved"},
    {KVM_CAP_ADJUST_CLOCK, "kvm-clock", true, "the guest's clock is saved"},
    {KVM_CAP_VCPU_ATTRIBUTES, "kvm-vcpu-attributes", true, "the guest's TSC is saved"},
    {KVM_CAP_GET_TSC_KHZ, "kvm-tsc-khz", true, "the guest's TSC frequency is known"},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "kvm-manual-dirty-log", true, "changed pages are known"},
    {KVM_CAP_XCRS, "kvm-xcrs", false, "without it, guests have no AVX"},
    {KVM_CAP_XSAVE2, "kvm-xsave2", false, "without it, AMX tile state cannot be saved"},
    {KVM_CAP_TSC_CONTROL, "kvm-tsc-scaling", false,
        "without it, snapshots restore only where the TSC frequency is the same"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "kvm-tsc-deadline", false,
        "without it, guests calibrate their APIC timer at boot"},
    {KVM_CAP_SYNC_REGS, "kvm-sync-regs", false,
        "without it, a pause takes two calls more for each vCPU"},
};
const size_t kvm_cap_count = ARRAY_SIZE(kvm_caps);

int kvm_check(const struct kvm *kvm, int capability)
{
    int r = ioctl(kvm->fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return r > 0 ? r : 0;
}

static int open_node(int fd, struct thaw_error *error)
{
    if (fd > 0) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return copy >= 0 ? copy : error_errno(error, errno, "duplicating the KVM descriptor");
    }
    int opened = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (opened >= 0)
        return opened;
    if (errno == ENOENT)
        return error_set(error, THAW_EHOST,
            "/dev/kvm does not exist: this machine has no KVM, or its kvm module is not loaded");
    if (errno == EACCES || errno == EPERM)
        return error_set(error, THAW_EHOST,
            "/dev/kvm may not be opened: run as root or join the group that owns it");
    return error_errno(error, errno, "opening /dev/kvm");
}

/* Appends the names of all missing required capabilities to list. */
static void list_missing(const struct kvm *kvm, char *list, size_t bytes)
{
    list[0] = '\0';
    for (size_t i = 0; i < kvm_cap_count; i++) {
        if (!kvm_caps[i].required || kvm_check(kvm, kvm_caps[i].number))
            continue;
        size_t used = strlen(list);
        snprintf(list + used, bytes - used, "%s%s (%s)", used ? ", " : "", kvm_caps[i].name,
            kvm_caps[i].effect);
    }
}

static const char *find_backend(void)
{
    static const char *const modules[] = {"kvm_amd", "kvm_intel", "kvm_pvm"};
    for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/sys/module/%s", modules[i]);
        if (access(path, F_OK) == 0)
            return modules[i];
    }
    return "kvm";
}

/* Modules that keep shadows of page tables where the processor could do better were told to. */
static bool walks_page_tables(const char *backend)
{
    const char *path = strcmp(backend, "kvm_amd") == 0     ? "/sys/module/kvm_amd/parameters/npt"
                       : strcmp(backend, "kvm_intel") == 0 ? "/sys/module/kvm_intel/parameters/ept"
                                                           : NULL;
    _cleanup_close_ int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char value = 'Y';
    return fd < 0 || read(fd, &value, 1) != 1 || (value != 'N' && value != '0');
}

static void ask_once(struct kvm *kvm)
{
    int vcpus = kvm_check(kvm, KVM_CAP_MAX_VCPUS);
    kvm->vcpus_max = vcpus > 0 ? (uint32_t)vcpus : 4; /* 4: api.rst, KVM_CAP_NR_VCPUS */
    kvm->xsave_bytes = MAX(kvm_check(kvm, KVM_CAP_XSAVE2), (int)sizeof(struct kvm_xsave));
    kvm->sregs2 = kvm_check(kvm, KVM_CAP_SREGS2);
    kvm->xcrs = kvm_check(kvm, KVM_CAP_XCRS);
    kvm->tsc_scaling = kvm_check(kvm, KVM_CAP_TSC_CONTROL);
    uint64_t regs = (uint64_t)kvm_check(kvm, KVM_CAP_SYNC_REGS);
    kvm->sync_regs = (regs & KVM_LEFT_REGS) == KVM_LEFT_REGS;
    kvm->has_identity_map = kvm_check(kvm, KVM_CAP_SET_IDENTITY_MAP_ADDR);
    kvm->has_tss = kvm_check(kvm, KVM_CAP_SET_TSS_ADDR);
    kvm->backend = find_backend();
    kvm->walks_page_tables = walks_page_tables(kvm->backend);
}

int kvm_open(struct kvm *kvm, int fd, struct thaw_error *error)
{
    _cleanup_close_ int node = open_node(fd, error);
    if (node < 0)
        return node;

    int version = ioctl(node, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return error_set(error, THAW_EHOST, "not a KVM device of API version %d (it answers %d)",
            KVM_API_VERSION, version);
    int run_bytes = ioctl(node, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return error_set(error, THAW_EHOST, "KVM shares %d bytes per vCPU, too few", run_bytes);

    struct kvm found = {.fd = node, .run_bytes = (size_t)run_bytes};
    char missing[THAW_ERROR_MESSAGE_BYTES - 64];
    list_missing(&found, missing, sizeof(missing));
    if (missing[0])
        return error_set(error, THAW_EHOST, "this host's KVM lacks: %s", missing);

    ask_once(&found);
    take_fd(&node);
    *kvm = found;
    return 0;
}

void kvm_close(struct kvm *kvm)
{
    if (kvm->fd >= 0)
        close(kvm->fd);
    kvm->fd = -1;
}

int kvm_create_vm(const struct kvm *kvm, int *ret_fd, struct thaw_error *error)
{
    /* A signal that arrives in the middle makes it fail with EINTR; nothing was made then. */
    int fd;
    do
        fd = ioctl(kvm->fd, KVM_CREATE_VM, 0);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return error_errno(error, errno, "creating a VM");
    _cleanup_close_ int vm_fd = fd;

    /* Intel hosts without unrestricted guest need four pages of guest address space of their own.
     */
    uint64_t identity = MACHINE_IDENTITY_MAP_GPA;
    if (kvm->has_identity_map && ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
        return error_errno(error, errno, "placing KVM's identity map");
    if (kvm->has_tss && ioctl(vm_fd, KVM_SET_TSS_ADDR, (unsigned long)MACHINE_TSS_GPA) < 0)
        return error_errno(error, errno, "placing KVM's task state segment");
    *ret_fd = take_fd(&vm_fd);
    return 0;
}
