// SPDX-License-Identifier: Apache-2.0
// What thaw is to reach, as ratios of what one run measured. Measures nothing.

#include "rows.h"
#include <string.h>

/* A series, of which the median counts. */
struct term {
    const char *row, *mode, *metric;
};

struct goal {
    const char *name, *text;
    double limit;
    bool at_least;
    struct term value, floor;
    struct term plus; /* added to the floor; row NULL: nothing */
};

#define RESTORE(size)                                                                              \
    {"new-VM restore, " size, "p50 at most 1.2 x floor-new", 1.2, false,                           \
        {"restore", "new, lazy, warm, " size, "first output"},                                     \
        {"restore", "floor-new, " size, "first output"}, {0}},                                     \
    {                                                                                              \
        "new-VM restore against a raw file, " size, "p50 at most 1.1 x warm rawfile", 1.1, false,  \
            {"restore", "new, lazy, warm, " size, "first output"},                                 \
            {"restore", "rawfile, warm, " size, "first output"},                                   \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

#define PAUSE(rate)                                                                                \
    {                                                                                              \
        "pause, guest dirties " rate " MiB/s", "at most 2 x floor-pause", 2, false,                \
            {"pause", "diff, " rate " MiB/s", "pause"},                                            \
            {"pause", "floor-pause, " rate " MiB/s", "pause"},                                     \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

static const struct goal goals[] = {
    RESTORE("128 MiB"),
    RESTORE("1024 MiB"),
    RESTORE("4096 MiB"),
    {"new-VM restore to working set touched", "faster than cold rawfile", 1, false,
        {"data", "new, lazy, cold", "first output"}, {"data", "rawfile, cold", "first output"},
        {0}},
    {"cold lazy restore to working set touched", "at most 1.2 x (floor-read hot + floor-touch)",
        1.2, false, {"data", "new, lazy, cold", "first output"},
        {"data", "floor-read, hot, cold", "first output"}, {"data", "floor-touch", "first output"}},
    {"cold eager restore", "at most 1.3 x floor-read of all bytes", 1.3, false,
        {"data", "new, eager, cold", "applied"}, {"data", "floor-read, all, cold", "first output"},
        {0}},
    PAUSE("0"),
    PAUSE("10"),
    PAUSE("100"),
    {"capture throughput", "at least 0.8 x zstd, same level and threads", 0.8, true,
        {"capture", "full", "throughput"}, {"capture", "zstd, same threads", "throughput"}, {0}},
    {"stored size", "at most 1.15 x one zstd stream", 1.15, false, {"capture", "full", "stored"},
        {"capture", "zstd, one stream", "stored"}, {0}},
    {"memory per clone", "at most 1.2 x a bare VM", 1.2, false, {"density", "clones", "held each"},
        {"density", "bare VMs", "held each"}, {0}},
};

/* Of what is not there yet, or is measured in a way of its own. */
static const struct {
    const char *name, *text;
    double limit;
    const char *why;
} later[] = {
    {"pooled restore, p50", "at most 1.3 x floor-shell", 1.3, "there is no pool yet"},
    {"pooled restore, p99", "at most 1.5 x floor-shell's", 1.5, "there is no pool yet"},
    {"working-set pages by demand fault", "under 1 %", 0.01, "working sets are not recorded yet"},
    {"reset in place, 500 dirty pages", "at most 1.2 x floor-reset", 1.2,
        "there is no reset in place yet"},
};

static double median(const struct results *results, const struct term *term)
{
    return term->row ? results_median(results, term->row, term->mode, term->metric) : 0;
}

/* Says more than the median where the host is busy with other things. */
static double least_of(const struct results *results, const struct term *term)
{
    if (!term->row)
        return 0;
    return results_summary(results_find(results, term->row, term->mode, term->metric)).min;
}

static void add_goal(struct results *results, const struct goal *goal)
{
    struct target *target = results_target(results, goal->name, goal->text, goal->limit);
    double value = median(results, &goal->value), floor = median(results, &goal->floor);
    if (!target)
        return;
    target->at_least = goal->at_least;
    target->measured = value > 0 && floor > 0;
    if (target->measured)
        target->value = value / (floor + median(results, &goal->plus));
    else
        target->note = strdup("its row did not run");
    double least = least_of(results, &goal->value), floor_least = least_of(results, &goal->floor);
    char note[64];
    snprintf(note, sizeof(note), "%.2f by the least of each",
        least / (floor_least + least_of(results, &goal->plus)));
    if (target->measured && least > 0 && floor_least > 0 && !goal->at_least)
        target->note = strdup(note);
}

/* A hundred clones against a hundred restores one after the other, shared by all CPUs. */
static void add_fanout(struct results *results, unsigned cpus)
{
    struct target *target = results_target(
        results, "100 clones until all run", "at most 1.3 x 100 restores / CPUs", 1.3);
    double all = results_median(results, "fanout", "100 at once", "all run");
    double one = results_median(results, "fanout", "1 at once", "all run");
    if (!target)
        return;
    target->measured = all > 0 && one > 0;
    if (target->measured)
        target->value = all / (100 * one / cpus);
    target->note = strdup(target->measured ? "against restores into new VMs; there is no pool yet"
                                           : "its row did not run");
}

/* The command where there is one, else a program of the library's. */
static void add_peer(struct results *results, const char *guest)
{
    char name[64], mode[64], peer[64];
    snprintf(name, sizeof(name), "process against QEMU, %s", guest);
    snprintf(peer, sizeof(peer), "QEMU, %s", guest);
    snprintf(mode, sizeof(mode), "thaw restore, %s", guest);
    bool command = results_find(results, "process", mode, "first output") != NULL;
    if (!command)
        snprintf(mode, sizeof(mode), "libthaw program, %s", guest);
    struct target *target = results_target(results, name, "at least 10 x faster", 10);
    double ours = results_median(results, "process", mode, "first output");
    double theirs = results_median(results, "process", peer, "first output");
    if (!target)
        return;
    target->at_least = true;
    target->measured = ours > 0 && theirs > 0;
    if (target->measured)
        target->value = theirs / ours;
    target->note = !target->measured ? strdup("run with --peer qemu")
                   : command         ? NULL
                                     : strdup("a program of libthaw's: there is no thaw restore");
}

void targets_add(struct bench *bench)
{
    struct results *results = &bench->results;
    for (size_t i = 0; i < ARRAY_SIZE(goals); i++)
        add_goal(results, &goals[i]);
    add_fanout(results, bench->cpus);
    add_peer(results, "empty guest");
    add_peer(results, "much data");
    for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
        struct target *target =
            results_target(results, later[i].name, later[i].text, later[i].limit);
        if (target)
            target->note = strdup(later[i].why);
    }
}
