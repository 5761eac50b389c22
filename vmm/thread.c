// SPDX-License-Identifier: Apache-2.0
// How every thread of the library begins. Ends none.

#include "thread.h"
#include <errno.h>
#include <signal.h>
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
};

/* The thread names itself: for another, libc goes through /proc. */
static void *begin(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    prctl(PR_SET_NAME, start.name);
    return start.run(start.arg);
}

int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigset_t blocked, old;
    struct start *start = malloc(sizeof(*start));
    if (!start)
        return -ENOMEM;
    start->run = run;
    start->arg = arg;
    snprintf(start->name, sizeof(start->name), "%s", name);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&blocked, faults[i]);
    /* A new thread inherits its creator's mask, so that is changed around the creation. */
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    int err = pthread_create(ret, NULL, begin, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        free(start);
    return -err;
}

void thread_give_way(void)
{
    /* On Linux this is of one thread. Lowering it is always allowed. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), GIVE_WAY_NICE);
}
