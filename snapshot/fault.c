// SPDX-License-Identifier: Apache-2.0
// Userfaultfd calls. Does not know what a page should contain.

#include "fault.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define READ_AT_ONCE 16

/* The device gives descriptors that handle faults from within the kernel, as KVM's are, to whoever
 * may open it; the system call needs a capability for that. */
static int open_uffd(int device_fd)
{
    if (device_fd > 0)
        return ioctl(device_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    _cleanup_close_ int own = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (own >= 0)
        return ioctl(own, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

int fault_open(int device_fd, int *ret_uffd, struct thaw_error *error)
{
    _cleanup_close_ int uffd = open_uffd(device_fd);
    if (uffd < 0)
        return error_errno(error, errno, "opening a userfaultfd");
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    if (ioctl(uffd, UFFDIO_API, &api) < 0)
        return error_errno(error, errno, "asking for page faults on shared memory");
    *ret_uffd = take_fd(&uffd);
    return 0;
}

int fault_register(int uffd, void *start, uint64_t bytes, struct thaw_error *error)
{
    struct uffdio_register range = {
        .range = {.start = (uintptr_t)start, .len = bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (ioctl(uffd, UFFDIO_REGISTER, &range) < 0)
        return error_errno(error, errno, "registering guest memory for page faults");
    return 0;
}

/* How far to go on after a call that did `done` bytes, or failed with -errno as `done`. */
static int64_t progress(int64_t done)
{
    if (done > 0)
        return done;
    if (done == -EEXIST)
        return PAGE_BYTES; /* the first page is there; the rest may not be */
    if (done == -EAGAIN || done == -EINTR || done == 0) {
        sched_yield(); /* the mappings are just being changed */
        return 0;
    }
    return done;
}

int fault_copy(int uffd, void *dst, const void *src, uint64_t bytes)
{
    uint64_t off = 0;
    while (off < bytes) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)dst + off,
            .src = (uintptr_t)src + off,
            .len = bytes - off,
            .mode = UFFDIO_COPY_MODE_DONTWAKE,
        };
        if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
            return 0;
        /* `copy` is only written by calls that got past the checks of their arguments. */
        int64_t step = progress(copy.copy ? copy.copy : -errno);
        if (step < 0)
            return (int)step;
        off += (uint64_t)step;
    }
    return 0;
}

int fault_zero(int uffd, void *dst, uint64_t bytes)
{
    uint64_t off = 0;
    while (off < bytes) {
        struct uffdio_zeropage zero = {
            .range = {.start = (uintptr_t)dst + off, .len = bytes - off},
            .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
        };
        if (ioctl(uffd, UFFDIO_ZEROPAGE, &zero) == 0)
            return 0;
        int64_t step = progress(zero.zeropage ? zero.zeropage : -errno);
        if (step < 0)
            return (int)step;
        off += (uint64_t)step;
    }
    return 0;
}

void fault_wake(int uffd, void *start, uint64_t bytes)
{
    struct uffdio_range range = {.start = (uintptr_t)start, .len = bytes};
    ioctl(uffd, UFFDIO_WAKE, &range);
}

int fault_read(int uffd, uint64_t *addresses, unsigned room)
{
    struct uffd_msg messages[READ_AT_ONCE];
    ssize_t n = read(uffd, messages, MIN(room, (unsigned)READ_AT_ONCE) * sizeof(*messages));
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    unsigned count = 0;
    for (size_t i = 0; i < (size_t)n / sizeof(*messages); i++)
        if (messages[i].event == UFFD_EVENT_PAGEFAULT)
            addresses[count++] = messages[i].arg.pagefault.address;
    return (int)count;
}
