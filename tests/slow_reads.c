// SPDX-License-Identifier: Apache-2.0
#include "slow_reads.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

/* Longer than anything takes that does not wait for those who are held. */
#define HOLD_MS_MAX 20000

atomic_int slow_reads_us;
atomic_bool no_reads;
atomic_int reads;

static _Atomic(const char *) held_name; /* NULL: nobody is to be held */
static atomic_bool is_held, went_on;

void slow_reads_hold(const char *thread_name)
{
    atomic_store(&is_held, false);
    atomic_store(&held_name, thread_name);
}

void slow_reads_wait_held(void)
{
    while (!atomic_load(&is_held))
        usleep(1000);
}

void slow_reads_release(void)
{
    atomic_store(&held_name, NULL);
    cr_assert_not(atomic_load(&went_on), "what was needed came after what was held");
}

static void hold(void)
{
    char name[16] = "";
    const char *held = atomic_load(&held_name);
    if (!held || pthread_getname_np(pthread_self(), name, sizeof(name)) != 0 ||
        strcmp(name, held) != 0)
        return;
    atomic_store(&is_held, true);
    for (unsigned ms = 0; atomic_load(&held_name) == held && ms < HOLD_MS_MAX; ms++)
        usleep(1000);
    if (atomic_exchange(&held_name, NULL) == held)
        atomic_store(&went_on, true);
}

ssize_t __real_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off);
ssize_t __wrap_pread(int fd, void *bytes, size_t count, off_t off)
{
    atomic_fetch_add(&reads, 1);
    hold();
    if (atomic_load(&slow_reads_us) > 0)
        usleep((useconds_t)atomic_load(&slow_reads_us));
    if (atomic_load(&no_reads)) {
        errno = EIO;
        return -1;
    }
    return __real_pread(fd, bytes, count, off);
}
