/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of standing still for a snapshot: a VM by hand, whose guest ran until just now on a
 * thread of its own, whose state is saved, whose dirty log is read and cleared, and of whose memory
 * as many pages are copied. How long it takes to stop the guest and to let it go on is not in it.
 */
#ifndef BENCH_FLOOR_PAUSE_H
#define BENCH_FLOOR_PAUSE_H

#include "floor.h"
#include <pthread.h>
#include <stdatomic.h>

struct floor_pause {
    struct floor_image image;
    struct floor_vm vm;
    uint8_t *ram;
    uint8_t *copy;
    uint64_t *bitmap;
    uint64_t pages_max;
    atomic_bool stop, stopped; /* told to the guest's thread, and by it */
    bool failed;               /* by it, before it has stopped */
};

/* A guest with data, all of it resident. */
int floor_pause_make(struct bench *bench, const struct recipe *recipe, struct floor_pause *ret,
    struct thaw_error *error);
void floor_pause_free(struct floor_pause *pause);

int floor_pause_run(
    struct floor_pause *pause, uint64_t pages, uint64_t *ret_ns, struct thaw_error *error);

#endif
