/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows: what can be measured, one function each, listed once in rows.c. A row makes its guests,
 * then takes samples of several modes in turn, so that what changes on the host meanwhile meets all
 * of them alike. A new row is a function here and a line in rows.c; a new mode of a row is a line
 * in the row's table.
 */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "bench.h"

struct row {
    const char *name;
    const char *what; /* for `thaw-bench list` */
    int (*run)(struct bench *bench, const char *row, struct thaw_error *error);
};

extern const struct row rows[];
extern const size_t row_count;

const struct row *rows_find(const char *name);

struct mode;

/* Adds its values to the results itself. */
typedef int (*sample_fn)(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error);

/* One way of doing what a row measures. */
struct mode {
    const char *name;
    sample_fn sample;
    void *data;
};

#define ROW_MODES_MAX 64

/* Runs every mode `samples` times, one sample of each in a round, in an order that is another in
 * every round, since what a sample leaves in the caches costs the next. In a quick run, stops after
 * `quick_s` seconds if each mode has had one sample. At most ROW_MODES_MAX modes. */
struct rounds {
    unsigned samples;
    unsigned quick_samples;
    unsigned quick_s;
    bool in_order; /* each mode needs what the one before it has left */
};

int rows_run_modes(struct bench *bench, const char *row, const struct mode *modes, size_t count,
    const struct rounds *rounds, struct thaw_error *error);

/* What a thread has done just before makes a difference of a tenth: all samples of what takes less
 * than some milliseconds begin with half a millisecond of work. A timeline's start is behind it. */
void stay_awake(void);

int row_capture(struct bench *bench, const char *row, struct thaw_error *error);
int row_pool(struct bench *bench, const char *row, struct thaw_error *error);
int row_restore(struct bench *bench, const char *row, struct thaw_error *error);
int row_data(struct bench *bench, const char *row, struct thaw_error *error);
int row_reset(struct bench *bench, const char *row, struct thaw_error *error);
int row_pause(struct bench *bench, const char *row, struct thaw_error *error);
int row_fanout(struct bench *bench, const char *row, struct thaw_error *error);
int row_density(struct bench *bench, const char *row, struct thaw_error *error);
int row_process(struct bench *bench, const char *row, struct thaw_error *error);

/* Adds all targets to the results, once all rows that were asked for have run. */
void targets_add(struct bench *bench);

#endif
