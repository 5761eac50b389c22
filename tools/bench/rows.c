// SPDX-License-Identifier: Apache-2.0
// THE list of rows, and how samples of a row are taken. What is measured is elsewhere.

#include "rows.h"
#include "reaper.h"
#include "terminal.h"
#include <string.h>

const struct row rows[] = {
    {"capture", "full and diff snapshots against zstd on the same bytes", row_capture},
    {"pool", "restores of an empty guest into VMs that are ready, by RAM size, against the floor",
        row_pool},
    {"restore", "restores of an empty guest into new VMs, by RAM size, against the same by hand",
        row_restore},
    {"data", "restores of a guest with much data, until its working set is touched", row_data},
    {"reset", "a clone put back to its snapshot, against the same by hand", row_reset},
    {"pause", "how long the guest stands still for a snapshot", row_pause},
    {"fanout", "many clones of one snapshot at once", row_fanout},
    {"density", "memory per clone", row_density},
    {"process", "from the start of a process to the guest's first output", row_process},
};
const size_t row_count = ARRAY_SIZE(rows);

const struct row *rows_find(const char *name)
{
    for (size_t i = 0; i < row_count; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static int sample_one(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    if (bench_interrupted)
        return bench_fail(error, -EINTR, "interrupted");
    struct thaw_error own = {0};
    int r = mode->sample(bench, row, mode, &own);
    return r < 0 ? bench_fail(error, r, "%s, %s: %.400s", row, mode->name, own.message) : 0;
}

/* Numerical Recipes' generator: each run has the same orders. */
static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

static void shuffle(size_t *order, size_t count, uint32_t *state)
{
    for (size_t i = count; i > 1; i--) {
        size_t other = next_random(state) % i;
        size_t kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

void stay_awake(void)
{
    for (uint64_t end_ns = now_ns() + 500000; now_ns() < end_ns;)
        ;
}

int rows_run_modes(struct bench *bench, const char *row, const struct mode *modes, size_t count,
    const struct rounds *rounds, struct thaw_error *error)
{
    bool quick = bench->options.quick;
    unsigned samples = quick ? rounds->quick_samples : rounds->samples;
    uint64_t end_ns = now_ns() + (uint64_t)rounds->quick_s * 1000000000u;
    uint32_t random = 1;
    size_t order[ROW_MODES_MAX];
    for (size_t k = 0; k < count; k++)
        order[k] = k;
    for (unsigned i = 0; i < samples; i++) {
        if (quick && i > 0 && now_ns() > end_ns)
            break;
        if (i > 0 && !rounds->in_order) /* the first round sets the order of the table */
            shuffle(order, count, &random);
        for (size_t k = 0; k < count; k++) {
            const struct mode *mode = &modes[order[k]];
            terminal_progress(row, mode->name, i, samples);
            int r = sample_one(bench, row, mode, error);
            if (r < 0) {
                reaper_end_round(bench);
                return r;
            }
        }
        reaper_end_round(bench);
    }
    return 0;
}
