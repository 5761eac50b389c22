// SPDX-License-Identifier: Apache-2.0
// Row `data`: a guest with much data that touches a small part of it, page by page in random order.
// What counts is when it has touched it all.

#include "floor_read.h"
#include "sample.h"
#include "scratch.h"

#define MEM_MIB        1024
#define DATA_MIB       512
#define WS_MIB         32
#define DATA_MIB_QUICK 48
#define WS_MIB_QUICK   8

/* As thaw stores what is in a snapshot, and what was recorded. */
#define FRAME_BYTES     (16 * PAGE_BYTES)
#define LEVEL           1
#define HOT_FRAME_BYTES (64 * PAGE_BYTES)
#define HOT_LEVEL       3

struct data {
    struct fixture fixture;
    thaw_pool *pool; /* NULL: of a quick run */
    struct floor_image image;
    struct floor_frames all, hot;
};

struct read_case {
    const struct floor_frames *frames;
    bool cold;
};

static int sample_read(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct read_case *how = mode->data;
    uint64_t ns, cpu, read;
    int r = how->cold ? scratch_drop_cache(how->frames->path, error) : 0;
    if (r < 0)
        return r;
    if (!how->cold)
        scratch_warm_cache(how->frames->path);
    stay_awake();
    read = scratch_bytes_read();
    cpu = cpu_ns();
    r = floor_frames_read(how->frames, bench->cpus, &ns, error);
    if (r < 0)
        return r;
    results_add(&bench->results, row, mode->name, "until read", "us", (double)ns / 1e3);
    results_add(&bench->results, row, mode->name, "cpu", "us", (double)(cpu_ns() - cpu) / 1e3);
    results_add(&bench->results, row, mode->name, "read", "MiB",
        (double)(scratch_bytes_read() - read) / MIB);
    return 0;
}

/* Those that read all data are slow, and come with the floor that does. What no target is about is
 * left out of a quick run. */
static const struct way {
    const char *name;
    bool slow, in_quick, pooled;
    struct thaw_case how;
} ways[] = {
    {"new, image", false, true, false, {.image = true}},
    {"new, working set, cold", false, true, false, {.working_set = true, .cold = true}},
    {"new, working set, warm", false, false, false, {.working_set = true}},
    {"new, lazy, cold", false, false, false, {.flags = THAW_RESTORE_NO_PREFETCH, .cold = true}},
    {"new, lazy, warm", false, false, false, {.flags = THAW_RESTORE_NO_PREFETCH}},
    {"pooled, working set, cold", false, false, true, {.working_set = true, .cold = true}},
    {"pooled, lazy, warm", false, false, true, {.flags = THAW_RESTORE_NO_PREFETCH}},
    {"new, eager, cold", true, true, false, {.mode = THAW_RESTORE_EAGER, .cold = true}},
    {"new, eager, warm", true, false, false, {.mode = THAW_RESTORE_EAGER}},
};

#define MODES_MAX (4 + ARRAY_SIZE(ways))

static size_t add_ways(const struct bench *bench, struct data *data, bool slow,
    struct thaw_case *cases, struct mode *ret)
{
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        if (ways[i].slow != slow || (bench->options.quick && !ways[i].in_quick))
            continue;
        cases[count] = ways[i].how;
        cases[count].fixture = &data->fixture;
        cases[count].pool = ways[i].pooled ? data->pool : NULL;
        ret[count] = (struct mode){ways[i].name, sample_thaw, &cases[count]};
        count++;
    }
    return count;
}

static int run_fast(
    struct bench *bench, const char *row, struct data *data, struct thaw_error *error)
{
    const struct recipe *recipe = &data->fixture.recipe;
    struct read_case hot = {&data->hot, true};
    struct floor_case touch = {&data->image, recipe, FLOOR_SHELL, false};
    struct floor_case raw_warm = {&data->image, recipe, FLOOR_RAW, false};
    struct floor_case raw_cold = {&data->image, recipe, FLOOR_RAW, true};
    struct thaw_case cases[ARRAY_SIZE(ways)];
    struct mode modes[MODES_MAX] = {
        {"floor-read, hot, cold", sample_read, &hot},
        {"floor-touch", sample_floor, &touch},
        {"rawfile, cold", sample_floor, &raw_cold},
        {"rawfile, warm", sample_floor, &raw_warm},
    };
    const struct rounds rounds = {.samples = 100, .quick_samples = 20, .quick_s = 6};
    size_t count = bench->options.quick ? 3 : 4;
    count += add_ways(bench, data, false, cases, &modes[count]);
    return rows_run_modes(bench, row, modes, count, &rounds, error);
}

static int run_slow(
    struct bench *bench, const char *row, struct data *data, struct thaw_error *error)
{
    struct read_case cold = {&data->all, true}, warm = {&data->all, false};
    struct thaw_case cases[ARRAY_SIZE(ways)];
    struct mode modes[MODES_MAX] = {
        {"floor-read, all, cold", sample_read, &cold},
        {"floor-read, all, warm", sample_read, &warm},
    };
    const struct rounds rounds = {.samples = 100, .quick_samples = 20, .quick_s = 8};
    size_t count = bench->options.quick ? 1 : 2;
    count += add_ways(bench, data, true, cases, &modes[count]);
    return rows_run_modes(bench, row, modes, count, &rounds, error);
}

static int prepare(
    struct bench *bench, const char *row, struct data *data, struct thaw_error *error)
{
    struct recipe recipe;
    uint64_t hot_bytes = 0;
    bool quick = bench->options.quick;
    unsigned data_mib = quick ? DATA_MIB_QUICK : DATA_MIB, ws_mib = quick ? WS_MIB_QUICK : WS_MIB;
    const struct memtouch_options options = {
        .mem_mib = MEM_MIB, .data_mib = data_mib, .ws_mib = ws_mib};
    const struct thaw_pool_options pool = {
        .size = sizeof(pool), .vcpu_count = 1, .mem_bytes = (uint64_t)MEM_MIB * MIB, .target = 1};
    int r = recipe_churn(bench, "data", &options, &recipe, error);
    if (r == 0 && !quick)
        r = thaw_pool_new(bench->env, &pool, &data->pool, error);
    if (r == 0)
        r = floor_image_make(bench, &recipe, true, &data->image, error);
    if (r == 0)
        r = fixture_make(bench, &recipe, &data->fixture, error);
    if (r == 0)
        r = fixture_record(bench, &data->fixture, ORDER_RECORDED, &hot_bytes, error);
    if (r == 0)
        results_add(&bench->results, row, "recording", "hot pack", "bytes", (double)hot_bytes);
    if (r == 0)
        r = fixture_open_image(bench, &data->fixture, error);
    if (r == 0)
        r = floor_frames_make(bench, "frames-all", recipe.initrd, (uint64_t)data_mib * MIB,
            FRAME_BYTES, LEVEL, &data->all, error);
    if (r == 0)
        r = floor_frames_make(bench, "frames-hot", recipe.initrd, (uint64_t)ws_mib * MIB,
            HOT_FRAME_BYTES, HOT_LEVEL, &data->hot, error);
    return r;
}

int row_data(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct data *data = calloc(1, sizeof(*data));
    if (!data)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    int r = prepare(bench, row, data, error);
    if (r == 0)
        r = run_fast(bench, row, data, error);
    if (r == 0)
        r = run_slow(bench, row, data, error);
    thaw_pool_free(data->pool);
    fixture_close_image(&data->fixture);
    floor_image_free(&data->image);
    floor_frames_free(&data->all);
    floor_frames_free(&data->hot);
    free(data);
    return r;
}
