/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was measured: series of raw values, each named by row (what was tried), mode (how) and
 * metric (what of it), and targets, which are ratios of two of them. Nothing is rounded or left
 * out; whoever prints chooses.
 */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

struct series {
    char *row;
    char *mode;
    char *metric;
    char *unit;     /* "us", "MB/s", "MiB", "bytes", "" */
    double *values; /* in the order in which they were taken */
    size_t count;
    size_t room;
};

struct target {
    char *name;   /* "pooled restore, 128 MiB" */
    char *text;   /* "p50 at most 1.3 x floor-shell" */
    double value; /* where measured */
    double limit;
    bool at_least; /* the limit is a least */
    bool below;    /* the limit itself is not met */
    bool measured; /* false: `note` says why */
    char *note;    /* may be NULL */
};

/* A row or mode that was not run. */
struct skip {
    char *row;
    char *reason;
};

struct results {
    struct series *series;
    size_t series_count;
    struct target *targets;
    size_t target_count;
    struct skip *skips;
    size_t skip_count;
    bool out_of_memory; /* something is missing; the run fails at the end */
};

struct summary {
    size_t count;
    double min, p50, p90, p99, max;
};

void results_add(struct results *results, const char *row, const char *mode, const char *metric,
    const char *unit, double value);
void results_skip(struct results *results, const char *row, const char *reason);
void results_free(struct results *results);

/* NULL: nothing was measured under these names. Borrowed. */
const struct series *results_find(
    const struct results *results, const char *row, const char *mode, const char *metric);

/* All zero where there are no values. Percentiles are by nearest rank. */
struct summary results_summary(const struct series *series);

/* The median under these names; 0: there is none. */
double results_median(
    const struct results *results, const char *row, const char *mode, const char *metric);

/* `limit` is a most; results_target_least: a least. `measured` false: `note` says why. Returned
 * value borrowed, for a note to be added; NULL: no memory. */
struct target *results_target(
    struct results *results, const char *name, const char *text, double limit);
bool target_is_met(const struct target *target);

#endif
