// SPDX-License-Identifier: Apache-2.0
// The wrappers, the count of calls, and the loop over all of them. Knows nothing of what the
// library is used for.

#include "fault.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

#define RUNS_MAX      50000 /* a scenario that never ends by itself */
#define LEAK_INTERVAL 64    /* looking for leaked memory takes longer than most runs */

static struct {
    atomic_bool armed, suspended;
    pthread_t caller;
    enum fault_side side;
    atomic_uint calls; /* counted in this run */
    unsigned nth;      /* the one that fails */
    _Atomic(const char *) hit;
    const struct fault_tolerated *tolerated;
    atomic_int hit_errno;
    bool hit_reported; /* the caller has been told */

    atomic_int mappings; /* made and not unmapped */
    atomic_bool no_uring;
    atomic_bool few_cpuid;
    atomic_bool disk_full;
    atomic_uint kvm_run_one_in;
    atomic_int kvm_run_err;
    atomic_uint random;
} fault;

static bool on_our_side(void)
{
    bool caller = pthread_equal(pthread_self(), fault.caller);
    return fault.side == FAULT_ALL || caller == (fault.side == FAULT_CALLER);
}

/* True if this call is the one that fails. */
static bool inject(const char *call, int err)
{
    if (!atomic_load(&fault.armed) || atomic_load(&fault.suspended) || !on_our_side() ||
        atomic_fetch_add(&fault.calls, 1) + 1 != fault.nth)
        return false;
    atomic_store(&fault.hit_errno, err);
    atomic_store(&fault.hit, call);
    return true;
}

/* Wrappers of one shape: fail with `err` and the value `failure`. Names that begin with __wrap_ and
 * __real_ are the linker's. */
#define WRAP(type, name, err, failure, params, args)                                               \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        if (inject(#name, err)) {                                                                  \
            errno = err;                                                                           \
            return failure;                                                                        \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }

WRAP(void *, malloc, ENOMEM, NULL, (size_t bytes), (bytes))
WRAP(void *, calloc, ENOMEM, NULL, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, ENOMEM, NULL, (void *old, size_t bytes), (old, bytes))
WRAP(void *, reallocarray, ENOMEM, NULL, (void *old, size_t count, size_t bytes),
    (old, count, bytes))
WRAP(void *, aligned_alloc, ENOMEM, NULL, (size_t align, size_t bytes), (align, bytes))
WRAP(ZSTD_CCtx *, ZSTD_createCCtx, ENOMEM, NULL, (void), ())
WRAP(ZSTD_DCtx *, ZSTD_createDCtx, ENOMEM, NULL, (void), ())
WRAP(XXH3_state_t *, XXH3_createState, ENOMEM, NULL, (void), ())
WRAP(char *, realpath, ENOMEM, NULL, (const char *path, char *ret), (path, ret))
WRAP(char *, strdup, ENOMEM, NULL, (const char *text), (text))
WRAP(
    int, vasprintf, ENOMEM, -1, (char **ret, const char *format, va_list args), (ret, format, args))
WRAP(int, madvise, ENOMEM, -1, (void *addr, size_t bytes, int advice), (addr, bytes, advice))
WRAP(int, mprotect, ENOMEM, -1, (void *addr, size_t bytes, int prot), (addr, bytes, prot))
WRAP(int, memfd_create, EMFILE, -1, (const char *name, unsigned flags), (name, flags))
WRAP(int, eventfd, EMFILE, -1, (unsigned count, int flags), (count, flags))
WRAP(int, mkostemp, EMFILE, -1, (char *path, int flags), (path, flags))
WRAP(int, flock, EWOULDBLOCK, -1, (int fd, int operation), (fd, operation))
WRAP(int, fstat, EIO, -1, (int fd, struct stat *ret), (fd, ret))
WRAP(int, ftruncate, ENOSPC, -1, (int fd, off_t bytes), (fd, bytes))
WRAP(int, fallocate, ENOSPC, -1, (int fd, int mode, off_t off, off_t bytes), (fd, mode, off, bytes))
WRAP(int, fsync, EIO, -1, (int fd), (fd))
WRAP(int, fdatasync, EIO, -1, (int fd), (fd))
WRAP(ssize_t, read, EIO, -1, (int fd, void *buf, size_t bytes), (fd, buf, bytes))
WRAP(ssize_t, pread, EIO, -1, (int fd, void *buf, size_t bytes, off_t off), (fd, buf, bytes, off))
WRAP(ssize_t, preadv, EIO, -1, (int fd, const struct iovec *iov, int count, off_t off),
    (fd, iov, count, off))
WRAP(ssize_t, pwrite, ENOSPC, -1, (int fd, const void *buf, size_t bytes, off_t off),
    (fd, buf, bytes, off))
WRAP(ssize_t, getrandom, ENOSYS, -1, (void *buf, size_t bytes, unsigned flags), (buf, bytes, flags))
WRAP(int, mkdirat, ENOSPC, -1, (int fd, const char *path, mode_t mode), (fd, path, mode))
WRAP(int, renameat, EIO, -1, (int from_fd, const char *from, int to_fd, const char *to),
    (from_fd, from, to_fd, to))
WRAP(int, renameat2, EIO, -1,
    (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
    (from_fd, from, to_fd, to, flags))
WRAP(int, fstatat, EIO, -1, (int fd, const char *path, struct stat *ret, int flags),
    (fd, path, ret, flags))
WRAP(ssize_t, readlinkat, EIO, -1, (int fd, const char *path, char *ret, size_t bytes),
    (fd, path, ret, bytes))
WRAP(int, linkat, EMLINK, -1, (int from_fd, const char *from, int to_fd, const char *to, int flags),
    (from_fd, from, to_fd, to, flags))
WRAP(int, symlinkat, ENOSPC, -1, (const char *target, int fd, const char *path), (target, fd, path))
WRAP(int, unlinkat, EIO, -1, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(DIR *, fdopendir, ENOMEM, NULL, (int fd), (fd))

#undef WRAP

/* The others. */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_asprintf(char **ret, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *__real_mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t off);
int __real_munmap(void *addr, size_t bytes);
int __wrap_munmap(void *addr, size_t bytes);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int count, off_t off);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t off);
ssize_t __real_write(int fd, const void *buf, size_t bytes);
ssize_t __wrap_write(int fd, const void *buf, size_t bytes);
int __real_pthread_create(
    pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(
    pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);

/* Those that a test names; the rest are just "ioctl". */
static const char *ioctl_name(unsigned long request)
{
    static const struct {
        unsigned long request;
        const char *name;
    } names[] = {
#define NAME(request) {request, "ioctl " #request}
        NAME(KVM_CHECK_EXTENSION),
        NAME(KVM_CREATE_IRQCHIP),
        NAME(KVM_CREATE_PIT2),
        NAME(KVM_CREATE_VCPU),
        NAME(KVM_CREATE_VM),
        NAME(KVM_GET_REGS),
        NAME(KVM_GET_SUPPORTED_CPUID),
        NAME(KVM_IRQ_LINE),
        NAME(KVM_KVMCLOCK_CTRL),
        NAME(KVM_SET_CPUID2),
        NAME(KVM_SET_MSRS),
        NAME(KVM_SET_SIGNAL_MASK),
        NAME(KVM_SET_USER_MEMORY_REGION),
#undef NAME
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].request == request)
            return names[i].name;
    return "ioctl";
}

static bool kvm_run_fails(void)
{
    unsigned one_in = atomic_load(&fault.kvm_run_one_in);
    if (one_in == 0)
        return false;
    unsigned x = atomic_fetch_add(&fault.random, 2654435761u);
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return x % one_in == 0;
}

/* What guests can't do without. */
static bool is_needed(uint32_t leaf, uint32_t subleaf)
{
    static const uint32_t leaves[] = {
        0, 1, 7, 0xd, 0x40000000, 0x40000001, 0x80000000, 0x80000001, 0x80000008};
    for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
        if (leaves[i] == leaf)
            return subleaf <= 1;
    return false;
}

static void keep_few(struct kvm_cpuid2 *cpuid)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (is_needed(cpuid->entries[i].function, cpuid->entries[i].index))
            cpuid->entries[count++] = cpuid->entries[i];
    cpuid->nent = count;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    /* Can't fail for a range that is registered, and nobody could do anything about it. */
    if (request == UFFDIO_WAKE)
        return __real_ioctl(fd, request, arg);
    /* How often a vCPU is entered is never the same twice. */
    if (request == KVM_RUN && !pthread_equal(pthread_self(), fault.caller)) {
        if (!kvm_run_fails())
            return __real_ioctl(fd, request, arg);
        errno = atomic_load(&fault.kvm_run_err);
        return -1;
    }
    int err = request == KVM_RUN ? EFAULT : ENOMEM;
    if (inject(ioctl_name(request), err)) {
        errno = err;
        return -1;
    }
    int r = __real_ioctl(fd, request, arg);
    if (r == 0 && request == KVM_GET_SUPPORTED_CPUID && atomic_load(&fault.few_cpuid))
        keep_few(arg);
    return r;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = va_arg(args, mode_t);
    va_end(args);
    bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
    int err = unnamed ? EOPNOTSUPP : EMFILE;
    if (inject(unnamed ? "open O_TMPFILE" : "open", err)) {
        errno = err;
        return -1;
    }
    return __real_open(path, flags, mode);
}

int __wrap_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = va_arg(args, mode_t);
    va_end(args);
    if (inject("openat", EMFILE)) {
        errno = EMFILE;
        return -1;
    }
    return __real_openat(dir, path, flags, mode);
}

int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (inject("fcntl", EMFILE)) {
        errno = EMFILE;
        return -1;
    }
    return __real_fcntl(fd, command, arg);
}

int __wrap_asprintf(char **ret, const char *format, ...)
{
    if (inject("asprintf", ENOMEM))
        return -1;
    va_list args;
    va_start(args, format);
    char *text;
    int r = vasprintf(&text, format, args);
    va_end(args);
    if (r >= 0)
        *ret = text;
    return r;
}

void *__wrap_mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t off)
{
    if (inject("mmap", ENOMEM)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *got = __real_mmap(addr, bytes, prot, flags, fd, off);
    if (got != MAP_FAILED && !(flags & MAP_FIXED))
        atomic_fetch_add(&fault.mappings, 1);
    return got;
}

int __wrap_munmap(void *addr, size_t bytes)
{
    atomic_fetch_sub(&fault.mappings, 1);
    return __real_munmap(addr, bytes);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
    if (atomic_load(&fault.disk_full) || inject("pwritev", ENOSPC)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_pwritev(fd, iov, count, off);
}

/* Of files; what is written to an eventfd always fits. */
ssize_t __wrap_write(int fd, const void *buf, size_t bytes)
{
    if (bytes != sizeof(eventfd_t) && inject("write", ENOSPC)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_write(fd, buf, bytes);
}

int __wrap_pthread_create(
    pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    return inject("pthread_create", EAGAIN) ? EAGAIN : __real_pthread_create(ret, attr, run, arg);
}

int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    if (atomic_load(&fault.no_uring))
        return -EPERM;
    return inject("io_uring_queue_init", ENOMEM) ? -ENOMEM
                                                 : __real_io_uring_queue_init(entries, ring, flags);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    return inject("io_uring_submit_and_wait", EAGAIN) ? -EAGAIN
                                                      : __real_io_uring_submit_and_wait(ring, wait);
}

void fault_suspend(bool suspended)
{
    atomic_store(&fault.suspended, suspended);
}

const char *fault_hit(void)
{
    return atomic_load(&fault.hit);
}

void fault_forbid_uring(void)
{
    atomic_store(&fault.no_uring, true);
}

void fault_few_cpuid(void)
{
    atomic_store(&fault.few_cpuid, true);
}

void fault_disk_full(bool full)
{
    atomic_store(&fault.disk_full, full);
}

void fault_kvm_run(unsigned one_in, int err, unsigned seed)
{
    atomic_store(&fault.kvm_run_err, err);
    atomic_store(&fault.random, seed);
    atomic_store(&fault.kvm_run_one_in, one_in);
}

static bool is_tolerated(const char *call)
{
    const struct fault_tolerated *entry = fault.tolerated;
    for (; entry && entry->call; entry++)
        if (strcmp(entry->call, call) == 0)
            return true;
    return false;
}

bool fault_failed(const char *what, int r, const struct thaw_error *error)
{
    const char *hit = fault.hit_reported ? NULL : fault_hit();
    if (r < 0) {
        cr_assert(hit, "%s failed without a fault: %s", what, error ? error->message : "?");
        fault.hit_reported = true;
        cr_assert(!error || (error->code == r && error->message[0]),
            "%s: %s failed, call %u: code %d, error %d \"%s\"", what, hit, fault.nth, r,
            error->code, error->message);
        /* The cause, or what the library knows better. Jobs meet faults on the way to other errors.
         */
        int err = atomic_load(&fault.hit_errno);
        cr_assert(r != THAW_ECORRUPT || (err != ENOMEM && err != EMFILE),
            "%s: %s failed with %d, call %u, and that is taken for damage: %s", what, hit, err,
            fault.nth, error ? error->message : "?");
        cr_assert(fault.side == FAULT_ALL || r == -err || r == THAW_EHOST ||
                      (err == EWOULDBLOCK && r == -EBUSY),
            "%s: %s failed with %d, call %u, but what came out is %d", what, hit, err, fault.nth,
            r);
    } else if (hit && fault.side == FAULT_CALLER) {
        fault.hit_reported = true;
        cr_assert(
            is_tolerated(hit), "%s succeeded although %s failed (call %u)", what, hit, fault.nth);
    }
    return r < 0;
}

static unsigned entries(const char *directory)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    cr_assert_not_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Without `unnamed`, not those of files that have no name: a living VM gets one more overlay with
 * each snapshot that fails late, and its overlays lose their names at once where they have one. */
static unsigned descriptors(bool unnamed)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        char link[PATH_MAX];
        ssize_t n = __real_readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
        link[n < 0 ? 0 : n] = '\0';
        bool has_name =
            !strstr(link, "/#") && (!strstr(link, " (deleted)") || strstr(link, "memfd:"));
        count += unnamed || has_name;
    }
    closedir(dir);
    return count;
}

/* A thread that was joined may be listed for a moment longer. */
static unsigned threads(unsigned at_most)
{
    unsigned count = entries("/proc/self/task");
    for (unsigned i = 0; i < 100 && count > at_most; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        count = entries("/proc/self/task");
    }
    return count;
}

/* Without those that are about to end. */
static unsigned settled_threads(void)
{
    unsigned least = UINT_MAX;
    for (unsigned i = 0; i < 50; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        unsigned now = entries("/proc/self/task");
        least = now < least ? now : least;
    }
    return least;
}

/* What was leaked remains so: it suffices to look now and then. */
static void check_memory(unsigned nth)
{
#if defined(__SANITIZE_ADDRESS__)
    cr_assert_eq(__lsan_do_recoverable_leak_check(), 0,
        "memory leaked after one of the %u calls before call %u had failed", LEAK_INTERVAL, nth);
#else
    (void)nth;
#endif
}

unsigned fault_for_every_call(const struct fault_scenario *scenario)
{
    fault.caller = pthread_self();
    fault.side = scenario->side;
    fault.tolerated = scenario->tolerated;
    unsigned runs = 0;
    scenario->run(); /* once as it should be: whatever is set up for good is there now */
    unsigned thread_count = settled_threads(), fd_count = descriptors(false),
             all_fd_count = descriptors(true);
    int mappings = atomic_load(&fault.mappings);

    for (unsigned nth = 1; nth < RUNS_MAX; nth++) {
        char when[128];
        fault.nth = nth;
        fault.hit_reported = false;
        atomic_store(&fault.hit, NULL);
        atomic_store(&fault.calls, 0);
        atomic_store(&fault.armed, true);
        scenario->run();
        atomic_store(&fault.armed, false);
        const char *hit = fault_hit();
        if (!hit || ++runs % LEAK_INTERVAL == 0)
            check_memory(nth);
        if (!hit) {
            cr_assert_eq(descriptors(true), all_fd_count, "files without names are left");
            return nth - 1;
        }

        snprintf(when, sizeof(when), "after %s had failed (call %u)", hit, nth);
        cr_assert_eq(threads(thread_count), thread_count, "threads are left %s", when);
        unsigned fds_now = descriptors(false);
        cr_assert_eq(
            fds_now, fd_count, "%u descriptors, not %u, are left %s", fds_now, fd_count, when);
        cr_assert_eq(atomic_load(&fault.mappings), mappings, "mappings are left %s", when);
        atomic_store(&fault.hit, NULL);
        if (scenario->afterwards)
            scenario->afterwards();
    }
    cr_assert_fail("%u runs were not enough", RUNS_MAX);
    return 0;
}
