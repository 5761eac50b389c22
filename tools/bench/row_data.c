// SPDX-License-Identifier: Apache-2.0
// Row `data`: a guest with much data that touches a small part of it, page by page in random order.
// What counts is when it has touched it all.

#include "floor_read.h"
#include "sample.h"
#include "scratch.h"

#define MEM_MIB        1024
#define DATA_MIB       512
#define DATA_MIB_QUICK 64
#define WS_MIB         32
#define WS_MIB_QUICK   8

struct data {
    struct fixture fixture;
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
    uint64_t ns, cpu;
    int r = how->cold ? scratch_drop_cache(how->frames->path, error) : 0;
    if (r < 0)
        return r;
    if (!how->cold)
        scratch_warm_cache(how->frames->path);
    cpu = cpu_ns();
    r = floor_frames_read(how->frames, bench->cpus, &ns, error);
    if (r < 0)
        return r;
    results_add(&bench->results, row, mode->name, "until read", "us", (double)ns / 1e3);
    results_add(&bench->results, row, mode->name, "cpu", "us", (double)(cpu_ns() - cpu) / 1e3);
    return 0;
}

static int run_modes(
    struct bench *bench, const char *row, struct data *data, struct thaw_error *error)
{
    const struct recipe *recipe = &data->fixture.recipe;
    struct read_case all = {&data->all, true}, hot = {&data->hot, true}, warm = {&data->all, false};
    struct floor_case touch = {&data->image, recipe, FLOOR_SHELL, false};
    struct floor_case raw_warm = {&data->image, recipe, FLOOR_RAW, false};
    struct floor_case raw_cold = {&data->image, recipe, FLOOR_RAW, true};
    const struct fixture *fixture = &data->fixture;
    struct thaw_case image = {.fixture = fixture, .image = true};
    struct thaw_case eager_warm = {.fixture = fixture, .mode = THAW_RESTORE_EAGER};
    struct thaw_case eager_cold = {.fixture = fixture, .mode = THAW_RESTORE_EAGER, .cold = true};
    struct thaw_case lazy_warm = {.fixture = fixture, .mode = THAW_RESTORE_LAZY};
    struct thaw_case lazy_cold = {.fixture = fixture, .mode = THAW_RESTORE_LAZY, .cold = true};
    const struct mode modes[] = {
        {"floor-read, all, warm", sample_read, &warm},
        {"floor-read, all, cold", sample_read, &all},
        {"floor-read, hot, cold", sample_read, &hot},
        {"floor-touch", sample_floor, &touch},
        {"rawfile, warm", sample_floor, &raw_warm},
        {"rawfile, cold", sample_floor, &raw_cold},
        {"new, image", sample_thaw, &image},
        {"new, eager, warm", sample_thaw, &eager_warm},
        {"new, eager, cold", sample_thaw, &eager_cold},
        {"new, lazy, warm", sample_thaw, &lazy_warm},
        {"new, lazy, cold", sample_thaw, &lazy_cold},
    };
    const struct rounds rounds = {.samples = 100, .quick_samples = 5, .quick_s = 8};
    return rows_run_modes(bench, row, modes, ARRAY_SIZE(modes), &rounds, error);
}

static int prepare(struct bench *bench, struct data *data, unsigned data_mib, unsigned ws_mib,
    struct thaw_error *error)
{
    struct recipe recipe;
    const struct memtouch_options options = {
        .mem_mib = MEM_MIB, .data_mib = data_mib, .ws_mib = ws_mib, .random = true};
    int r = recipe_memtouch(bench, "data", &options, &recipe, error);
    if (r == 0)
        r = floor_image_make(bench, &recipe, true, &data->image, error);
    if (r == 0)
        r = fixture_make(bench, &recipe, &data->fixture, error);
    if (r == 0)
        r = fixture_open_image(bench, &data->fixture, error);
    if (r == 0)
        r = floor_frames_make(
            bench, "frames-all", recipe.initrd, (uint64_t)data_mib * MIB, &data->all, error);
    return r < 0 ? r
                 : floor_frames_make(bench, "frames-hot", recipe.initrd, (uint64_t)ws_mib * MIB,
                       &data->hot, error);
}

int row_data(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct data *data = calloc(1, sizeof(*data));
    bool quick = bench->options.quick;
    if (!data)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    int r = prepare(
        bench, data, quick ? DATA_MIB_QUICK : DATA_MIB, quick ? WS_MIB_QUICK : WS_MIB, error);
    if (r == 0)
        r = run_modes(bench, row, data, error);
    fixture_close_image(&data->fixture);
    floor_image_free(&data->image);
    floor_frames_free(&data->all);
    floor_frames_free(&data->hot);
    free(data);
    return r;
}
