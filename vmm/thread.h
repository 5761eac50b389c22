/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library. */
#ifndef VMM_THREAD_H
#define VMM_THREAD_H

#include <pthread.h>

/* Starts a thread that takes no signal of the embedding program's, but for those that a fault of
 * its own raises. The kernel keeps 15 characters of the name. Returns 0 or -errno. */
int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg);

/* The same, on another processor than the caller's, if it may use another: for work that is waited
 * for soon, and that the caller goes on beside. Schedulers that keep processors idle to save power
 * let the new thread wait for the caller otherwise. Once it runs, it may go where the caller may;
 * it starts no threads that stay, since they would keep that affinity also when a control group
 * gets other processors. */
int thread_start_aside(pthread_t *ret, const char *name, void *(*run)(void *), void *arg);

/* From now on the calling thread gets little of a processor that others want: for work that nobody
 * waits for, beside guests that run. */
void thread_give_way(void);

/* For a lock that is held for moments only: who finds it taken looks again before it sleeps. */
void thread_init_brief_lock(pthread_mutex_t *lock);

#endif
