// SPDX-License-Identifier: Apache-2.0
// Row `restore`: a guest that does nothing, so that what is measured is the restore itself, into a
// new VM, by size of RAM; by thaw and by hand.

#include "sample.h"
#include <string.h>

static const unsigned sizes_mib[] = {128, 1024, 4096};

struct size {
    struct recipe recipe;
    struct fixture fixture;
    struct floor_image image;
};

/* One line for each way to restore. `floor` is looked at where `by_hand` is set. */
static const struct way {
    const char *name;
    bool by_hand;
    enum floor_kind floor;
    enum thaw_restore_mode mode;
    bool cold;
    bool image;
    bool quick; /* takes about a millisecond, and a target or a curve is about it */
} ways[] = {
    {"floor-new", .by_hand = true, .floor = FLOOR_NEW, .quick = true},
    {"rawfile, warm", .by_hand = true, .floor = FLOOR_RAW, .quick = true},
    {"rawfile, cold", .by_hand = true, .floor = FLOOR_RAW, .cold = true},
    {"new, image", .image = true, .quick = true},
    {"new, eager, warm", .mode = THAW_RESTORE_EAGER},
    {"new, lazy, warm", .mode = THAW_RESTORE_LAZY, .quick = true},
    {"new, eager, cold", .mode = THAW_RESTORE_EAGER, .cold = true},
    {"new, lazy, cold", .mode = THAW_RESTORE_LAZY, .cold = true},
};

struct slot {
    char name[64];
    struct thaw_case thaw;
    struct floor_case floor;
};

static void fill_mode(
    const struct size *size, const struct way *way, struct slot *slot, struct mode *ret)
{
    snprintf(slot->name, sizeof(slot->name), "%s, %u MiB", way->name, size->recipe.mem_mib);
    slot->thaw = (struct thaw_case){
        .fixture = &size->fixture, .mode = way->mode, .cold = way->cold, .image = way->image};
    slot->floor = (struct floor_case){
        .image = &size->image, .recipe = &size->recipe, .kind = way->floor, .cold = way->cold};
    *ret = way->by_hand ? (struct mode){slot->name, sample_floor, &slot->floor}
                        : (struct mode){slot->name, sample_thaw, &slot->thaw};
}

static int make_size(
    struct bench *bench, unsigned mem_mib, struct size *size, struct thaw_error *error)
{
    int r = recipe_beat(bench, mem_mib, &size->recipe, error);
    if (r == 0)
        r = fixture_make(bench, &size->recipe, &size->fixture, error);
    if (r == 0)
        r = fixture_open_image(bench, &size->fixture, error);
    return r < 0 ? r : floor_image_make(bench, &size->recipe, true, &size->image, error);
}

static void free_size(struct size *size)
{
    fixture_close_image(&size->fixture);
    floor_image_free(&size->image);
}

/* All sizes by the ways that are quick, or by the others. */
static int run_ways(struct bench *bench, const char *row, const struct size *sizes, bool quick,
    const struct rounds *rounds, struct thaw_error *error)
{
    enum {
        MODES = ARRAY_SIZE(sizes_mib) * ARRAY_SIZE(ways)
    };
    static struct slot slots[MODES];
    struct mode modes[MODES];
    size_t count = 0;
    for (size_t i = 0; i < MODES; i++) {
        const struct way *way = &ways[i % ARRAY_SIZE(ways)];
        if (way->quick != quick)
            continue;
        fill_mode(&sizes[i / ARRAY_SIZE(ways)], way, &slots[i], &modes[count++]);
    }
    return rows_run_modes(bench, row, modes, count, rounds, error);
}

/* What goes through packs and page cache is kept apart from what takes a millisecond. */
int row_restore(struct bench *bench, const char *row, struct thaw_error *error)
{
    static struct size sizes[ARRAY_SIZE(sizes_mib)];
    const struct rounds many = {.samples = 1000, .quick_samples = 20, .quick_s = 5};
    const struct rounds fewer = {.samples = 100};
    int r = 0;
    for (size_t i = 0; i < ARRAY_SIZE(sizes) && r == 0; i++)
        r = make_size(bench, sizes_mib[i], &sizes[i], error);
    if (r == 0)
        r = run_ways(bench, row, sizes, true, &many, error);
    if (r == 0 && !bench->options.quick)
        r = run_ways(bench, row, sizes, false, &fewer, error);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        free_size(&sizes[i]);
    return r;
}
