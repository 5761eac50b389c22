/* SPDX-License-Identifier: Apache-2.0 */
/* Takes VMs apart side by side: each waits for the kernel most of the time. Nothing is measured
 * until the last one is gone. */
#ifndef BENCH_REAPER_H
#define BENCH_REAPER_H

#include "bench.h"
#include <pthread.h>

#define REAPER_THREADS 16

struct reaper {
    pthread_t threads[REAPER_THREADS];
    unsigned count;
};

/* Runs end(what) on a thread of its own, or here if there can be none. */
void reaper_add(struct reaper *reaper, void (*end)(void *what), void *what);

/* Waits for all that were added. */
void reaper_wait(struct reaper *reaper);

/* Keeps what was measured until the end of the round, or until there are too many. */
void reaper_later(struct bench *bench, void (*end)(void *what), void *what);

/* Takes all that was kept apart, side by side. */
void reaper_end_round(struct bench *bench);

#endif
