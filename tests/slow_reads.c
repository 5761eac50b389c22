// SPDX-License-Identifier: Apache-2.0
#include "slow_reads.h"
#include <errno.h>
#include <unistd.h>

atomic_int slow_reads_us;
atomic_bool no_reads;
atomic_int reads;

ssize_t __real_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off)
{
    atomic_fetch_add(&reads, 1);
    if (atomic_load(&slow_reads_us) > 0)
        usleep((useconds_t)atomic_load(&slow_reads_us));
    if (atomic_load(&no_reads)) {
        errno = EIO;
        return -1;
    }
    return __real_pread(fd, bytes, count, off);
}
