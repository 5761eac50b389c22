// SPDX-License-Identifier: Apache-2.0
// Row `pool`: a guest that does nothing, restored from a complete image into a VM that is ready, by
// size of RAM; and the same by hand. Floor and thaw alternate sample by sample.

#include "reaper.h"
#include "sample.h"

static const unsigned sizes_mib[] = {128, 1024, 4096};

struct size {
    struct recipe recipe;
    struct fixture fixture;
    struct floor_image image;
    thaw_pool *pool;
    struct floor_case by_hand;
    struct thaw_case by_thaw;
    char names[2][64];
    /* Of the present round, until all sizes had their turn. */
    struct floor_vm shell;
    struct subject clone;
};

struct pools {
    struct size sizes[ARRAY_SIZE(sizes_mib)];
    struct reaper reaper;
    unsigned rounds;
};

static int make_size(
    struct bench *bench, unsigned mem_mib, struct size *size, struct thaw_error *error)
{
    const struct thaw_pool_options options = {
        .size = sizeof(options), .mem_bytes = (uint64_t)mem_mib * MIB, .target = 1};
    int r = recipe_beat(bench, mem_mib, &size->recipe, error);
    snprintf(size->recipe.name, sizeof(size->recipe.name), "pool-%u", mem_mib);
    if (r == 0)
        r = fixture_make(bench, &size->recipe, &size->fixture, error);
    if (r == 0)
        r = fixture_open_image(bench, &size->fixture, error);
    if (r == 0)
        r = floor_image_make(bench, &size->recipe, false, &size->image, error);
    if (r == 0)
        r = thaw_pool_new(bench->env, &options, &size->pool, error);
    size->by_hand = (struct floor_case){&size->image, &size->recipe, FLOOR_SHELL, false};
    size->by_thaw =
        (struct thaw_case){.fixture = &size->fixture, .image = true, .pool = size->pool};
    snprintf(size->names[0], sizeof(size->names[0]), "floor-shell, %u MiB", mem_mib);
    snprintf(size->names[1], sizeof(size->names[1]), "pooled, %u MiB", mem_mib);
    return r;
}

static void free_size(struct size *size)
{
    thaw_pool_free(size->pool);
    fixture_close_image(&size->fixture);
    floor_image_free(&size->image);
}

static int run_floor(
    struct bench *bench, const char *row, struct size *size, struct thaw_error *error)
{
    int r = floor_shell_make(&size->image, &size->shell, error);
    return r < 0 ? r
                 : sample_floor_shell(
                       bench, row, size->names[0], &size->by_hand, &size->shell, error);
}

/* The next VM is made meanwhile and after; nothing else begins before it is there. */
static int run_pooled(
    struct bench *bench, const char *row, struct size *size, struct thaw_error *error)
{
    int r = thaw_pool_wait(size->pool, GUEST_TIMEOUT_MS, error);
    if (r == 0)
        r = sample_thaw_keep(bench, row, size->names[1], &size->by_thaw, &size->clone, error);
    return r < 0 ? r : thaw_pool_wait(size->pool, GUEST_TIMEOUT_MS, error);
}

static void end_floor(void *what)
{
    floor_shell_free(what);
}

static void end_clone(void *what)
{
    subject_free(what);
}

/* All used VMs are taken apart together, and are gone before the next round. */
static int end_round(struct pools *pools, struct thaw_error *error)
{
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes); i++) {
        if (pools->sizes[i].shell.run)
            reaper_add(&pools->reaper, end_floor, &pools->sizes[i].shell);
        reaper_add(&pools->reaper, end_clone, &pools->sizes[i].clone);
    }
    reaper_wait(&pools->reaper);
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes) && r == 0; i++)
        r = thaw_pool_wait(pools->sizes[i].pool, GUEST_TIMEOUT_MS, error);
    return r;
}

/* Floor and thaw, and the sizes, are first in turn. */
static int sample_round(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct pools *pools = mode->data;
    unsigned round = pools->rounds++;
    bool floor_first = round % 2 == 0;
    struct thaw_error ignored;
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes) && r == 0; i++) {
        struct size *size = &pools->sizes[(round / 2 + i) % ARRAY_SIZE(pools->sizes)];
        r = floor_first ? run_floor(bench, row, size, error) : run_pooled(bench, row, size, error);
        if (r == 0)
            r = floor_first ? run_pooled(bench, row, size, error)
                            : run_floor(bench, row, size, error);
    }
    int ended = end_round(pools, r < 0 ? &ignored : error);
    return r < 0 ? r : ended;
}

/* A VM that was made because none was ready is no sample of the pool's. */
static int check_misses(const struct pools *pools, struct thaw_error *error)
{
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes); i++) {
        struct thaw_pool_info info = {.size = sizeof(info)};
        thaw_pool_get_info(pools->sizes[i].pool, &info);
        if (info.missed > 0)
            return bench_fail(error, -EAGAIN, "%llu of %llu VMs did not come from the pool",
                (unsigned long long)info.missed, (unsigned long long)(info.missed + info.taken));
    }
    return 0;
}

int row_pool(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct pools *pools = calloc(1, sizeof(*pools));
    const struct mode modes[] = {{"floor and thaw in turn", sample_round, pools}};
    const struct rounds rounds = {.samples = 1000, .quick_samples = 60, .quick_s = 3};
    if (!pools)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes) && r == 0; i++)
        r = make_size(bench, sizes_mib[i], &pools->sizes[i], error);
    if (r == 0)
        r = rows_run_modes(bench, row, modes, ARRAY_SIZE(modes), &rounds, error);
    if (r == 0)
        r = check_misses(pools, error);
    for (size_t i = 0; i < ARRAY_SIZE(pools->sizes); i++)
        free_size(&pools->sizes[i]);
    free(pools);
    return r;
}
