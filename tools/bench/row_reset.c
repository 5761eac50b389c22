// SPDX-License-Identifier: Apache-2.0
// Row `reset`: a clone that has written some pages is put back to its snapshot, by thaw and by
// hand. Each time the guest has to write the same again as if it were the first.

#include "floor_reset.h"
#include "rows.h"
#include "subject.h"
#include <string.h>

#define MEM_MIB  1024
#define DATA_MIB 64
#define BURST    "burst 2" /* MiB: 512 pages */

struct reset {
    struct fixture fixture;
    struct subject clone;
    struct floor_reset floor;
};

/* Its first generation, though it is not the first time. */
static int check(const char *answer, struct thaw_error *error)
{
    return strcmp(answer, "burst 1 pages 512") == 0
               ? 0
               : bench_fail(
                     error, THAW_EGUEST, "the guest was not put back: it answered '%.80s'", answer);
}

static int dirty(struct reset *reset, struct thaw_error *error)
{
    char answer[128];
    int r = thaw_vm_resume(reset->clone.vm, error);
    if (r == 0)
        r = subject_tell(&reset->clone, BURST, answer, sizeof(answer), error);
    return r < 0 ? r : check(answer, error);
}

static void add_times(struct bench *bench, const char *row, const char *mode, uint64_t stop_ns,
    uint64_t memory_ns, uint64_t state_ns)
{
    struct results *results = &bench->results;
    results_add(results, row, mode, "phase: stop", "us", (double)stop_ns / 1e3);
    results_add(results, row, mode, "phase: memory", "us", (double)memory_ns / 1e3);
    results_add(results, row, mode, "phase: state", "us", (double)state_ns / 1e3);
}

static int add_reset(struct bench *bench, const char *row, const struct mode *mode,
    struct reset *reset, struct thaw_error *error)
{
    const struct thaw_reset_options options = {.size = sizeof(options)};
    uint64_t cpu = cpu_ns(), start_ns = now_ns();
    int r = thaw_vm_reset(reset->clone.vm, &options, error);
    uint64_t end_ns = now_ns();
    cpu = cpu_ns() - cpu;
    if (r < 0)
        return r;
    results_add(
        &bench->results, row, mode->name, "applied", "us", (double)(end_ns - start_ns) / 1e3);
    results_add(&bench->results, row, mode->name, "cpu", "us", (double)cpu / 1e3);
    struct thaw_vm_timing timing = {.size = sizeof(timing)};
    thaw_vm_get_timing(reset->clone.vm, &timing);
    add_times(bench, row, mode->name, timing.shell_ns - start_ns,
        timing.memory_ns - timing.shell_ns, timing.state_ns - timing.memory_ns);
    return 0;
}

static int sample_paused(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct reset *reset = mode->data;
    int r = dirty(reset, error);
    if (r == 0)
        r = thaw_vm_pause(reset->clone.vm, error);
    return r < 0 ? r : add_reset(bench, row, mode, reset, error);
}

static int sample_running(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct reset *reset = mode->data;
    int r = dirty(reset, error);
    return r < 0 ? r : add_reset(bench, row, mode, reset, error);
}

static int sample_floor(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct reset *reset = mode->data;
    struct floor_reset *floor = &reset->floor;
    struct floor_ran ran;
    struct floor_reset_result result;
    floor->vm.input = BURST "\n";
    int r = floor_vm_run(&floor->vm, bench, &reset->fixture.recipe, 0, &ran, error);
    if (r == 0 && ran.position != 1)
        r = bench_fail(error, THAW_EGUEST, "the floor was not put back");
    if (r == 0)
        r = floor_vm_finish_io(&floor->vm, error);
    if (r == 0)
        r = floor_reset_run(floor, &result, error);
    if (r < 0)
        return r;
    results_add(&bench->results, row, mode->name, "applied", "us", (double)result.ns / 1e3);
    results_add(&bench->results, row, mode->name, "pages", "", (double)result.pages);
    add_times(bench, row, mode->name, 0, result.memory_ns, result.ns - result.memory_ns);
    return 0;
}

static int prepare(struct bench *bench, struct reset *reset, struct thaw_error *error)
{
    struct recipe recipe;
    const struct memtouch_options options = {.mem_mib = MEM_MIB, .data_mib = DATA_MIB, .ws_mib = 1};
    const struct thaw_restore_options how = {.mode = THAW_RESTORE_EAGER};
    int r = recipe_churn(bench, "reset", &options, &recipe, error);
    if (r == 0)
        r = fixture_make(bench, &recipe, &reset->fixture, error);
    if (r == 0)
        r = fixture_open_image(bench, &reset->fixture, error);
    if (r == 0)
        r = subject_restore(bench, &reset->fixture.recipe, reset->fixture.image, &how, recipe.name,
            &reset->clone, error);
    return r < 0 ? r : floor_reset_make(bench, &reset->fixture.recipe, &reset->floor, error);
}

int row_reset(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct reset *reset = calloc(1, sizeof(*reset));
    const struct mode modes[] = {
        {"floor-reset", sample_floor, reset},
        {"reset", sample_paused, reset},
        {"reset, of a running guest", sample_running, reset},
    };
    const struct rounds rounds = {.samples = 1000, .quick_samples = 60, .quick_s = 2};
    if (!reset)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    int r = prepare(bench, reset, error);
    if (r == 0)
        r = rows_run_modes(bench, row, modes, ARRAY_SIZE(modes), &rounds, error);
    subject_free(&reset->clone);
    fixture_close_image(&reset->fixture);
    floor_reset_free(&reset->floor);
    free(reset);
    return r;
}
