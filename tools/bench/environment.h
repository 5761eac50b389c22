/* SPDX-License-Identifier: Apache-2.0 */
/* The machine that a run was on: without it, its figures mean nothing. */
#ifndef BENCH_ENVIRONMENT_H
#define BENCH_ENVIRONMENT_H

#include "bench.h"
#include <jansson.h>

/* Name and value of each thing, in the order to show them. NULL: no memory. */
json_t *environment_describe(const struct bench *bench);

#endif
