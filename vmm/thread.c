// SPDX-License-Identifier: Apache-2.0
// How every thread of the library begins. Ends none.

#include "thread.h"
#include <signal.h>
#include <stddef.h>
#include <stdio.h>

int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    char short_name[16];
    sigset_t blocked, old;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&blocked, faults[i]);
    /* A new thread inherits its creator's mask, so that is changed around the creation. */
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    int err = pthread_create(ret, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err == 0) {
        snprintf(short_name, sizeof(short_name), "%s", name);
        pthread_setname_np(*ret, short_name);
    }
    return -err;
}
