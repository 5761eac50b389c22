// SPDX-License-Identifier: Apache-2.0
// Finds out what this host offers, by trying each thing. Changes nothing and decides nothing.

#include "kvm.h"
#include "kvm_state.h"
#include "pagemap.h"
#include "timing.h"
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thaw/host.h>

#ifndef USERFAULTFD_IOC_NEW /* Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef F_SEAL_FUTURE_WRITE /* Linux 5.1 */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define CHECKS_MAX 48

struct thaw_host_report {
    struct thaw_host_check checks[CHECKS_MAX];
    size_t count;
    bool out_of_memory;
};

static void add(struct thaw_host_report *report, const char *name, enum thaw_check_status status,
    const char *effect, const char *format, ...) _printf_(5, 6);

/* Texts that are not constants are copied, so `found` is formatted and the rest borrowed. */
static void add(struct thaw_host_report *report, const char *name, enum thaw_check_status status,
    const char *effect, const char *format, ...)
{
    if (report->count == CHECKS_MAX)
        return;
    char *found;
    va_list args;
    va_start(args, format);
    if (vasprintf(&found, format, args) < 0)
        found = NULL;
    va_end(args);
    if (!found)
        report->out_of_memory = true;
    else
        report->checks[report->count++] = (struct thaw_host_check){name, status, found, effect};
}

#define SPEED_LOOPS 2000u

/* Real mode: counts down, then writes to a port, twice over: the first round warms up. */
static const uint8_t speed_code[] = {
    0xb9, SPEED_LOOPS & 0xff, SPEED_LOOPS >> 8, /* mov cx, SPEED_LOOPS */
    0x49,                                       /* dec cx */
    0x75, 0xfd,                                 /* jnz -3 */
    0xe6, 0x80,                                 /* out 0x80, al */
    0xeb, 0xf6,                                 /* jmp to the start */
};

static int run_to_exit(int vcpu_fd, const struct kvm_run *run)
{
    int r;
    do
        r = ioctl(vcpu_fd, KVM_RUN, 0);
    while (r < 0 && (errno == EINTR || errno == EAGAIN));
    return r == 0 && run->exit_reason == KVM_EXIT_IO ? 0 : -EIO;
}

static int start_in_real_mode(int vcpu_fd)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    struct kvm_regs regs = {.rip = 0, .rflags = 2};
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return -errno;
    return 0;
}

struct probe {
    uint64_t ns;
    bool keeps_tsc;
};

static int probe_vcpu(const struct kvm *kvm, int vm_fd, struct probe *ret)
{
    _cleanup_close_ int vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
    if (vcpu_fd < 0)
        return -errno;
    struct kvm_run *run =
        mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (run == MAP_FAILED)
        return -errno;
    int r = vcpu_try_tsc_offset(vcpu_fd, &ret->keeps_tsc, NULL);
    if (r == 0)
        r = start_in_real_mode(vcpu_fd);
    if (r == 0)
        r = run_to_exit(vcpu_fd, run);
    uint64_t start = timing_now_ns();
    if (r == 0)
        r = run_to_exit(vcpu_fd, run);
    ret->ns = timing_now_ns() - start;
    munmap(run, kvm->run_bytes);
    return r;
}

static int probe_guest(const struct kvm *kvm, struct probe *ret)
{
    _cleanup_close_ int vm_fd = -1;
    int r = kvm_create_vm(kvm, &vm_fd, NULL);
    if (r < 0)
        return r;
    void *ram = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        return -errno;
    memcpy(ram, speed_code, sizeof(speed_code));
    struct kvm_userspace_memory_region slot = {
        .memory_size = PAGE_BYTES, .userspace_addr = (uintptr_t)ram};
    r = ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : probe_vcpu(kvm, vm_fd, ret);
    munmap(ram, PAGE_BYTES);
    return r;
}

static void check_guest(struct thaw_host_report *report, const struct kvm *kvm)
{
    struct probe probe = {0};
    int r = probe_guest(kvm, &probe);
    if (r < 0) {
        add(report, "kvm-guest", THAW_CHECK_MISSING, "a small guest could not be run", "%s",
            thaw_strerror(r));
        return;
    }
    /* Two instructions a loop. A processor needs well under 10 ns for one, an emulator over 200. */
    uint64_t per_instruction = probe.ns / (2 * SPEED_LOOPS);
    bool native = per_instruction < 100;
    add(report, "kvm-native", native ? THAW_CHECK_OK : THAW_CHECK_DEGRADED,
        native
            ? "guest code runs on the processor itself"
            : "guest code is emulated: small guests only, no stock Linux kernel; use a host whose "
              "processor flags show vmx or svm",
        "%s, %" PRIu64 " ns per instruction", native ? "native" : "emulated", per_instruction);
    add(report, "kvm-tsc-offset", probe.keeps_tsc ? THAW_CHECK_OK : THAW_CHECK_DEGRADED,
        "without it, guests see the host's TSC, which goes on while they are saved, and snapshots "
        "restore only where it is further on",
        probe.keeps_tsc ? "yes" : "no");
}

static void check_kvm(struct thaw_host_report *report)
{
    struct kvm kvm;
    struct thaw_error error;
    if (kvm_open(&kvm, 0, &error) < 0) {
        add(report, "kvm", THAW_CHECK_MISSING, "no VM can run without KVM", "%s", error.message);
        return;
    }
    add(report, "kvm", THAW_CHECK_OK, "virtual machines", "/dev/kvm, API version %d",
        KVM_API_VERSION);
    for (size_t i = 0; i < kvm_cap_count; i++) {
        int value = kvm_check(&kvm, kvm_caps[i].number);
        enum thaw_check_status status = value                  ? THAW_CHECK_OK
                                        : kvm_caps[i].required ? THAW_CHECK_MISSING
                                                               : THAW_CHECK_DEGRADED;
        add(report, kvm_caps[i].name, status, kvm_caps[i].effect, value ? "yes" : "no");
    }
    add(report, "kvm-vcpus", THAW_CHECK_OK, "most vCPUs of one VM", "%u", kvm.vcpus_max);
    check_guest(report, &kvm);
    kvm_close(&kvm);
}

/* An unprivileged userfaultfd() cannot handle faults that KVM takes, so the device is what counts.
 */
static void check_userfaultfd(struct thaw_host_report *report)
{
    const char *effect = "lazy restore; without it, images are filled before the guest runs. Needs "
                         "access to /dev/userfaultfd (Linux 6.1) or CAP_SYS_PTRACE";
    _cleanup_close_ int node = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    _cleanup_close_ int uffd = node >= 0 ? ioctl(node, USERFAULTFD_IOC_NEW, O_CLOEXEC) : -1;
    int err = errno; /* of whichever failed */
    if (uffd >= 0) {
        add(report, "userfaultfd", THAW_CHECK_OK, effect, "/dev/userfaultfd");
        return;
    }
    _cleanup_close_ int called = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (called >= 0)
        add(report, "userfaultfd", THAW_CHECK_OK, effect, "system call");
    else
        add(report, "userfaultfd", THAW_CHECK_DEGRADED, effect, "/dev/userfaultfd: %s",
            thaw_strerror(-err));
}

static void check_io_uring(struct thaw_host_report *report)
{
    struct io_uring ring;
    int r = io_uring_queue_init(4, &ring, 0);
    if (r == 0)
        io_uring_queue_exit(&ring);
    add(report, "io-uring", r == 0 ? THAW_CHECK_OK : THAW_CHECK_DEGRADED,
        "disk and snapshot I/O in parallel; without it, plain reads and writes one at a time", "%s",
        r == 0 ? "yes" : thaw_strerror(r));
}

static void check_pagemap(struct thaw_host_report *report)
{
    struct page_region region;
    struct pm_scan_arg scan = {
        .size = sizeof(scan),
        .start = ALIGN_DOWN((uintptr_t)&report->count, PAGE_BYTES),
        .end = ALIGN_DOWN((uintptr_t)&report->count, PAGE_BYTES) + PAGE_BYTES,
        .vec = (uintptr_t)&region,
        .vec_len = 1,
        .category_mask = PAGE_IS_PRESENT,
        .return_mask = PAGE_IS_PRESENT,
    };
    const char *effect =
        "finding the pages that a clone has written; without it, /proc/self/pagemap "
        "is read, which is slower for large guests";
    _cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : ioctl(fd, PAGEMAP_SCAN, &scan) < 0 ? -errno : 0;
    add(report, "pagemap-scan", r == 0 ? THAW_CHECK_OK : THAW_CHECK_DEGRADED, effect, "%s",
        r == 0 ? "yes" : thaw_strerror(r));
}

static void check_memfd(struct thaw_host_report *report)
{
    _cleanup_close_ int fd = memfd_create("thaw-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r = fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 ? -errno : 0;
    add(report, "memfd-seals", r == 0 ? THAW_CHECK_OK : THAW_CHECK_MISSING,
        "snapshot memory that clones share and nobody can change", "%s",
        r == 0 ? "yes" : thaw_strerror(r));
}

static void check_limits(struct thaw_host_report *report)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        add(report, "open-files", files.rlim_cur >= 1024 ? THAW_CHECK_OK : THAW_CHECK_DEGRADED,
            "a VM takes 10 to 20 descriptors; raise it with ulimit -n", "%llu",
            (unsigned long long)files.rlim_cur);
    long pages = sysconf(_SC_AVPHYS_PAGES);
    add(report, "free-memory", THAW_CHECK_OK,
        "guests take what they touch, not what they are given", "%" PRIu64 " MiB",
        (uint64_t)pages * PAGE_BYTES / MIB);
}

int thaw_host_probe(thaw_host_report **ret, struct thaw_error *error)
{
    struct thaw_host_report *report = calloc(1, sizeof(*report));
    if (!report)
        return error_errno(error, ENOMEM, "allocating the host report");
    check_kvm(report);
    check_userfaultfd(report);
    check_io_uring(report);
    check_pagemap(report);
    check_memfd(report);
    check_limits(report);
    if (report->out_of_memory) {
        thaw_host_report_free(report);
        return error_errno(error, ENOMEM, "filling the host report");
    }
    *ret = report;
    return 0;
}

void thaw_host_report_free(thaw_host_report *report)
{
    if (!report)
        return;
    for (size_t i = 0; i < report->count; i++)
        free((char *)(uintptr_t)report->checks[i].found);
    free(report);
}

size_t thaw_host_report_count(const thaw_host_report *report)
{
    return report->count;
}

const struct thaw_host_check *thaw_host_report_get(const thaw_host_report *report, size_t index)
{
    return index < report->count ? &report->checks[index] : NULL;
}

enum thaw_check_status thaw_host_report_status(const thaw_host_report *report)
{
    enum thaw_check_status worst = THAW_CHECK_OK;
    for (size_t i = 0; i < report->count; i++)
        worst = MAX(worst, report->checks[i].status);
    return worst;
}
