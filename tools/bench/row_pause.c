// SPDX-License-Identifier: Apache-2.0
// Row `pause`: how long a guest stands still while it is saved, as the host and as the guest itself
// see it: by how much is dirty, by how fast it goes on dirtying, and by hand for as many pages.

#include "floor_pause.h"
#include "rows.h"
#include "subject.h"
#include "terminal.h"
#include <string.h>

#define MEM_MIB        1024
#define DATA_MIB       512
#define DATA_MIB_QUICK 64
#define WS_MIB         64 /* what the target says is dirty */
#define WS_MIB_QUICK   8
#define BRIEF_MIB      16    /* so much is stored within a tenth of a second */
#define SETTLE_US      20000 /* at its rate, before the snapshot */
#define WITHOUT_US     50000 /* a snapshot's time, without one */

#define LIVE           THAW_SNAPSHOT_DIFF
#define STOP           (THAW_SNAPSHOT_DIFF | THAW_SNAPSHOT_STOP_AND_COPY)

struct pause {
    struct recipe recipe;
    struct subject subject;
    char names[2][40];
    unsigned taken;
    unsigned ws_mib;
    struct floor_pause floor;
};

struct pause_case {
    char name[64];
    unsigned dirty_mib, rate_mibs;
    uint32_t flags; /* 0: no snapshot is taken */
    struct pause *pause;
    const struct pause_case *of; /* a floor: of whose last sample */
    uint64_t last_pages;         /* that the last sample copied while the guest stood still */
};

/* The last two are kept: the newest is what the next diff is based on. */
static int forget_old(struct bench *bench, struct pause *pause, struct thaw_error *error)
{
    char *old = pause->names[pause->taken % 2];
    int r = old[0] ? thaw_store_delete(bench->store, old, error) : 0;
    old[0] = '\0';
    return r;
}

static int take(struct bench *bench, struct pause *pause, uint32_t flags,
    struct thaw_snapshot_result *ret, struct thaw_error *error)
{
    int r = forget_old(bench, pause, error);
    char *name = pause->names[pause->taken % 2];
    snprintf(name, sizeof(pause->names[0]), "pause-%u", pause->taken);
    const struct thaw_snapshot_options options = {.name = name, .flags = flags};
    if (r == 0)
        r = subject_snapshot(&pause->subject, &options, ret, error);
    if (r < 0)
        name[0] = '\0';
    else
        pause->taken++;
    return r;
}

static int tell(struct pause *pause, const char *what, unsigned number, struct thaw_error *error)
{
    char text[32], answer[128];
    snprintf(text, sizeof(text), "%s %u", what, number);
    return subject_tell(&pause->subject, text, answer, sizeof(answer), error);
}

/* What the guest has seen and done since it was asked last. */
struct seen {
    unsigned long gap_ns, writes;
    uint64_t asked_ns;
};

static int ask_gap(struct pause *pause, struct seen *ret, struct thaw_error *error)
{
    char answer[128];
    int r = subject_tell(&pause->subject, "gap", answer, sizeof(answer), error);
    if (r == 0 && sscanf(answer, "gap %lu writes %lu", &ret->gap_ns, &ret->writes) != 2)
        r = bench_fail(error, THAW_EGUEST, "the guest answered '%.80s'", answer);
    ret->asked_ns = now_ns();
    return r;
}

/* It writes a word of each page, at a rate that it reaches only if it is let run. */
static void add_seen(struct bench *bench, const char *row, const struct mode *mode,
    const struct seen *from, const struct seen *to)
{
    const struct pause_case *how = mode->data;
    double seconds = (double)(to->asked_ns - from->asked_ns) / 1e9;
    results_add(&bench->results, row, mode->name, "guest's gap", "us", (double)to->gap_ns / 1e3);
    if (how->rate_mibs)
        results_add(&bench->results, row, mode->name, "dirtied", "MiB/s",
            (double)to->writes / PAGES_PER_MIB / seconds);
}

static void add_result(struct bench *bench, const char *row, const char *mode,
    const struct thaw_snapshot_result *result)
{
    struct results *results = &bench->results;
    results_add(results, row, mode, "pause", "us", (double)result->pause_ns / 1e3);
    results_add(results, row, mode, "until durable", "us", (double)result->total_ns / 1e3);
    results_add(results, row, mode, "changed", "MiB", (double)result->pages / PAGES_PER_MIB);
    results_add(results, row, mode, "copied while paused", "MiB",
        (double)result->paused_pages / PAGES_PER_MIB);
    results_add(results, row, mode, "rounds", "", (double)result->rounds);
}

static int save(
    struct bench *bench, const char *row, struct pause_case *how, struct thaw_error *error)
{
    struct thaw_snapshot_result result;
    if (how->flags == 0) {
        usleep(WITHOUT_US);
        return 0;
    }
    int r = take(bench, how->pause, how->flags, &result, error);
    if (r < 0)
        return r;
    how->last_pages = how->flags & THAW_SNAPSHOT_STOP_AND_COPY ? result.pages : result.paused_pages;
    add_result(bench, row, how->name, &result);
    return 0;
}

/* Between two samples the guest stands still: it is the others' turn. */
static int sample_snapshot(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    struct pause_case *how = mode->data;
    struct pause *pause = how->pause;
    struct seen before, after;
    int r = thaw_vm_resume(pause->subject.vm, error);
    if (r == 0)
        r = tell(pause, "rate", how->rate_mibs, error);
    if (r == 0 && how->dirty_mib)
        r = tell(pause, "burst", how->dirty_mib, error);
    if (r < 0)
        return r;
    usleep(SETTLE_US);
    r = ask_gap(pause, &before, error);
    if (r == 0)
        r = save(bench, row, how, error);
    if (r == 0)
        r = ask_gap(pause, &after, error);
    if (r == 0)
        add_seen(bench, row, mode, &before, &after);
    return r < 0 ? r : thaw_vm_pause(pause->subject.vm, error);
}

static int sample_floor(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct pause_case *how = mode->data;
    uint64_t ns;
    int r = floor_pause_run(&how->pause->floor, how->of->last_pages, &ns, error);
    if (r == 0)
        results_add(&bench->results, row, mode->name, "pause", "us", (double)ns / 1e3);
    return r;
}

/* --- Modes ------------------------------------------------------------------------------------ */

#define MODES_MAX 24

struct table {
    struct pause *pause;
    struct pause_case cases[MODES_MAX];
    struct mode modes[MODES_MAX];
    size_t count;
};

static struct pause_case *add_case(struct table *table, const struct pause_case *what)
{
    struct pause_case *how = &table->cases[table->count];
    *how = *what;
    how->pause = table->pause;
    table->modes[table->count++] =
        (struct mode){how->name, how->of ? sample_floor : sample_snapshot, how};
    return how;
}

/* And the floor for as many pages. */
static void add_with_floor(struct table *table, const struct pause_case *what)
{
    struct pause_case floor = {.of = add_case(table, what)};
    snprintf(floor.name, sizeof(floor.name), "floor, %.50s", what->name);
    add_case(table, &floor);
}

/* By rate, with as much dirty as the target says. */
static int run_rates(
    struct bench *bench, const char *row, struct table *table, struct thaw_error *error)
{
    static const unsigned rates_mibs[] = {0, 10, 100};
    const struct rounds rounds = {.samples = 1000, .quick_samples = 20, .quick_s = 9};
    table->count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(rates_mibs); i++) {
        struct pause_case live = {
            .dirty_mib = table->pause->ws_mib, .rate_mibs = rates_mibs[i], .flags = LIVE};
        snprintf(live.name, sizeof(live.name), "live, guest dirties %u MiB/s", rates_mibs[i]);
        add_with_floor(table, &live);
    }
    if (!bench->options.quick)
        add_case(table, &(struct pause_case){.name = "no snapshot, 100 MiB/s", .rate_mibs = 100});
    return rows_run_modes(bench, row, table->modes, table->count, &rounds, error);
}

/* By how much is dirty, of a guest that writes no more then: where the pause and the snapshot are
 * short, or the others. */
static int run_sizes(
    struct bench *bench, const char *row, struct table *table, bool brief, struct thaw_error *error)
{
    static const unsigned sizes_mib[] = {0, 4, 16, 64, 256, 512}, quick_mib[] = {4};
    bool quick = bench->options.quick;
    size_t count = quick ? ARRAY_SIZE(quick_mib) : ARRAY_SIZE(sizes_mib);
    const struct rounds rounds = {
        .samples = brief ? 1000 : 100, .quick_samples = 20, .quick_s = brief ? 3 : 2};
    table->count = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned size = quick ? quick_mib[i] : sizes_mib[i];
        struct pause_case live = {.dirty_mib = size, .flags = LIVE};
        struct pause_case stop = {.dirty_mib = size, .flags = STOP};
        snprintf(live.name, sizeof(live.name), "live, %u MiB dirty", size);
        snprintf(stop.name, sizeof(stop.name), "stop-and-copy, %u MiB dirty", size);
        if (brief == (size <= BRIEF_MIB))
            add_case(table, &live);
        if (brief == (size == 0))
            add_with_floor(table, &stop);
    }
    return rows_run_modes(bench, row, table->modes, table->count, &rounds, error);
}

static int run_all(
    struct bench *bench, const char *row, struct table *table, struct thaw_error *error)
{
    struct thaw_snapshot_result result;
    int r = run_rates(bench, row, table, error);
    if (r == 0)
        r = take(bench, table->pause, LIVE, &result, error); /* of what was written before */
    if (r == 0)
        r = run_sizes(bench, row, table, true, error);
    return r < 0 ? r : run_sizes(bench, row, table, false, error);
}

/* The last snapshot goes on with all its data. */
static int check_last(struct bench *bench, const struct pause *pause, struct thaw_error *error)
{
    const char *name = pause->names[(pause->taken + 1) % 2];
    const struct thaw_restore_options options = {.mode = THAW_RESTORE_LAZY};
    struct subject clone;
    char answer[128];
    unsigned long sum;
    int r = subject_restore(bench, &pause->recipe, NULL, &options, name, &clone, error);
    if (r < 0)
        return r;
    r = thaw_vm_resume(clone.vm, error);
    if (r == 0)
        r = subject_tell(&clone, "touch 1", answer, sizeof(answer), error);
    if (r == 0 && (sscanf(answer, "touch 1 pages %*u sum %lx", &sum) != 1 ||
                      sum != recipe_sum(bench, (uint64_t)pause->ws_mib * PAGES_PER_MIB)))
        r = bench_fail(error, THAW_EGUEST, "a clone's memory is wrong: '%.80s'", answer);
    subject_free(&clone);
    return r;
}

static int prepare(struct bench *bench, struct pause *pause, struct thaw_error *error)
{
    pause->ws_mib = bench->options.quick ? WS_MIB_QUICK : WS_MIB;
    const struct memtouch_options options = {.mem_mib = MEM_MIB,
        .data_mib = bench->options.quick ? DATA_MIB_QUICK : DATA_MIB,
        .ws_mib = pause->ws_mib};
    struct thaw_snapshot_result result;
    int r = recipe_churn(bench, "pause", &options, &pause->recipe, error);
    if (r == 0)
        r = floor_pause_make(bench, &pause->recipe, &pause->floor, error);
    if (r == 0)
        r = subject_new(bench, &pause->recipe, &pause->subject, error);
    if (r == 0)
        r = subject_warm_up(&pause->subject, error);
    if (r == 0)
        r = take(bench, pause, THAW_SNAPSHOT_FULL, &result, error);
    return r < 0 ? r : thaw_vm_pause(pause->subject.vm, error);
}

int row_pause(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct pause *pause = calloc(1, sizeof(*pause));
    struct table *table = calloc(1, sizeof(*table));
    int r = pause && table ? 0 : bench_fail(error, -ENOMEM, "no memory for row %s", row);
    if (r == 0) {
        table->pause = pause;
        r = prepare(bench, pause, error);
    }
    if (r == 0)
        r = run_all(bench, row, table, error);
    if (r == 0)
        r = check_last(bench, pause, error);
    if (pause) {
        subject_free(&pause->subject);
        floor_pause_free(&pause->floor);
        for (size_t i = 0; i < ARRAY_SIZE(pause->names); i++)
            if (pause->names[i][0])
                thaw_store_delete(bench->store, pause->names[i], NULL);
    }
    free(table);
    free(pause);
    return r;
}
