// SPDX-License-Identifier: Apache-2.0
// How every thread of the library begins, and locks that are held for moments. Ends none.

#include "thread.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define GIVE_WAY_NICE 10

struct start {
    void *(*run)(void *);
    void *arg;
    char name[16];
    bool aside; /* it may run on all that are `allowed` once it runs */
    cpu_set_t allowed;
};

/* The thread names itself: for another, libc goes through /proc. */
static void *begin(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    if (start.aside)
        sched_setaffinity(0, sizeof(start.allowed), &start.allowed);
    prctl(PR_SET_NAME, start.name);
    return start.run(start.arg);
}

/* All processors but the one that the caller runs on. False if that leaves none, or is unknown. */
static bool find_others(cpu_set_t *ret_allowed, cpu_set_t *ret_others)
{
    int cpu = sched_getcpu();
    if (cpu < 0 || sched_getaffinity(0, sizeof(*ret_allowed), ret_allowed) < 0)
        return false;
    *ret_others = *ret_allowed;
    CPU_CLR((size_t)cpu, ret_others);
    return CPU_COUNT(ret_others) > 0;
}

static int start_thread(
    pthread_t *ret, const char *name, void *(*run)(void *), void *arg, bool aside)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigset_t blocked, old;
    struct start *start = malloc(sizeof(*start));
    if (!start)
        return -ENOMEM;
    start->run = run;
    start->arg = arg;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    cpu_set_t others;
    start->aside = aside && find_others(&start->allowed, &others) &&
                   pthread_attr_setaffinity_np(&attr, sizeof(others), &others) == 0;
    snprintf(start->name, sizeof(start->name), "%s", name);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&blocked, faults[i]);
    /* A new thread inherits its creator's mask, so that is changed around the creation. */
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    int err = pthread_create(ret, &attr, begin, start);
    if (err && err != EAGAIN && err != ENOMEM && start->aside) { /* the affinity was refused */
        start->aside = false;
        err = pthread_create(ret, NULL, begin, start);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (err)
        free(start);
    return -err;
}

int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    return start_thread(ret, name, run, arg, false);
}

int thread_start_aside(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    return start_thread(ret, name, run, arg, true);
}

void thread_give_way(void)
{
    /* On Linux this is of one thread. Lowering it is always allowed. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), GIVE_WAY_NICE);
}

void thread_init_brief_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
}
