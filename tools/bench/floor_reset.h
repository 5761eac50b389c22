/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of a reset in place: the pages that a VM has made private are found and get the image's
 * bytes back, and its state is set. */
#ifndef BENCH_FLOOR_RESET_H
#define BENCH_FLOOR_RESET_H

#include "floor.h"

struct floor_reset {
    struct floor_image image;
    struct floor_vm vm;
    const uint8_t *pristine; /* the image, mapped apart */
};

/* What putting one back took: all of it, and its memory alone. */
struct floor_reset_result {
    uint64_t ns, memory_ns, pages;
};

/* A VM that is at the image, ready to run. */
int floor_reset_make(struct bench *bench, const struct recipe *recipe, struct floor_reset *ret,
    struct thaw_error *error);
void floor_reset_free(struct floor_reset *reset);

/* Puts a VM back that has run, and whose I/O is finished. */
int floor_reset_run(
    struct floor_reset *reset, struct floor_reset_result *ret, struct thaw_error *error);

#endif
