// SPDX-License-Identifier: Apache-2.0
// What thaw is to reach, as ratios of what one run measured. Measures nothing.

#include "rows.h"
#include <string.h>

struct term {
    const char *row, *mode, *metric;
};

struct goal {
    const char *name, *text;
    double limit;
    bool at_least;
    struct term value, floor;
    struct term plus; /* added to the floor; row NULL: nothing */
    bool p99;         /* that counts; else the median */
};

#define POOLED(size)                                                                               \
    {.name = "pooled restore, " size,                                                              \
        .text = "p50 at most 1.3 x floor-shell",                                                   \
        .limit = 1.3,                                                                              \
        .value = {"pool", "pooled, " size, "first exit"},                                          \
        .floor = {"pool", "floor-shell, " size, "first exit"}},                                    \
    {                                                                                              \
        .name = "pooled restore, p99, " size, .text = "p99 at most 1.5 x floor-shell's",           \
        .limit = 1.5, .value = {"pool", "pooled, " size, "first exit"},                            \
        .floor = {"pool", "floor-shell, " size, "first exit"}, .p99 = true                         \
    }

#define RESTORE(size)                                                                              \
    {.name = "new-VM restore, " size,                                                              \
        .text = "p50 at most 1.2 x floor-new",                                                     \
        .limit = 1.2,                                                                              \
        .value = {"restore", "new, image, " size, "first exit"},                                   \
        .floor = {"restore", "floor-new, " size, "first exit"}},                                   \
    {                                                                                              \
        .name = "new-VM restore against a raw file, " size,                                        \
        .text = "p50 at most 1.1 x warm rawfile", .limit = 1.1,                                    \
        .value = {"restore", "new, image, " size, "first exit"}, .floor = {                        \
            "restore",                                                                             \
            "rawfile, warm, " size,                                                                \
            "first exit"                                                                           \
        }                                                                                          \
    }

/* Without a floor, the value itself; times in milliseconds. */
#define PAUSE(rate)                                                                                \
    {.name = "live pause, guest dirties " rate " MiB/s",                                           \
        .text = "at most 2 x floor-pause",                                                         \
        .limit = 2,                                                                                \
        .value = {"pause", "live, guest dirties " rate " MiB/s", "pause"},                         \
        .floor = {"pause", "floor, live, guest dirties " rate " MiB/s", "pause"}},                 \
    {                                                                                              \
        .name = "live pause in ms, guest dirties " rate " MiB/s", .text = "p50 at most 3 ms",      \
        .limit = 3, .value = {"pause", "live, guest dirties " rate " MiB/s", "pause"},             \
    }

static const struct goal goals[] = {
    POOLED("128 MiB"),
    POOLED("1024 MiB"),
    POOLED("4096 MiB"),
    RESTORE("128 MiB"),
    RESTORE("1024 MiB"),
    RESTORE("4096 MiB"),
    {.name = "new-VM restore to working set touched",
        .text = "faster than cold rawfile",
        .limit = 1,
        .value = {"data", "new, image", "touched"},
        .floor = {"data", "rawfile, cold", "touched"}},
    {.name = "cold lazy restore to working set touched",
        .text = "at most 1.2 x (floor-read hot + floor-touch)",
        .limit = 1.2,
        .value = {"data", "new, working set, cold", "touched"},
        .floor = {"data", "floor-read, hot, cold", "until read"},
        .plus = {"data", "floor-touch", "touched"}},
    {.name = "working-set pages by demand fault",
        .text = "under 1 %",
        .limit = 1,
        .value = {"data", "new, working set, cold", "by demand"}},
    {.name = "cold eager restore",
        .text = "at most 1.3 x floor-read of all bytes",
        .limit = 1.3,
        .value = {"data", "new, eager, cold", "applied"},
        .floor = {"data", "floor-read, all, cold", "until read"}},
    PAUSE("0"),
    PAUSE("10"),
    PAUSE("100"),
    {.name = "capture throughput",
        .text = "at least 0.8 x zstd, same level and threads",
        .limit = 0.8,
        .at_least = true,
        .value = {"capture", "full", "throughput"},
        .floor = {"capture", "zstd, same threads", "throughput"}},
    {.name = "stored size",
        .text = "at most 1.15 x one zstd stream",
        .limit = 1.15,
        .value = {"capture", "full", "stored"},
        .floor = {"capture", "zstd, one stream", "stored"}},
    {.name = "reset in place, 500 dirty pages",
        .text = "at most 1.2 x floor-reset",
        .limit = 1.2,
        .value = {"reset", "reset", "applied"},
        .floor = {"reset", "floor-reset", "applied"}},
};

static struct summary summary(const struct results *results, const struct term *term)
{
    if (!term->row)
        return (struct summary){0};
    return results_summary(results_find(results, term->row, term->mode, term->metric));
}

static const char *unit_of(const struct results *results, const struct term *term)
{
    return results_find(results, term->row, term->mode, term->metric)->unit;
}

/* The least says more than the median where the host is busy with other things. */
static void add_goal(struct results *results, const struct goal *goal)
{
    struct target *target = results_target(results, goal->name, goal->text, goal->limit);
    struct summary value = summary(results, &goal->value), floor = summary(results, &goal->floor),
                   plus = summary(results, &goal->plus);
    if (!target)
        return;
    target->at_least = goal->at_least;
    target->measured = value.count > 0 && (floor.p50 > 0 || !goal->floor.row);
    if (!target->measured) {
        target->note = strdup("its row did not run");
        return;
    }
    if (!goal->floor.row) {
        target->value =
            strcmp(unit_of(results, &goal->value), "us") == 0 ? value.p50 / 1e3 : value.p50;
        return;
    }
    target->value =
        goal->p99 ? value.p99 / (floor.p99 + plus.p99) : value.p50 / (floor.p50 + plus.p50);
    char note[64];
    snprintf(note, sizeof(note), "%.2f by the least of each", value.min / (floor.min + plus.min));
    if (!goal->at_least && !goal->p99)
        target->note = strdup(note);
}

/* What went from the host is what counts, but others may take or give while it is measured; what
 * the process holds does not show the kernel's part. */
static void add_density(struct results *results)
{
    struct target *target =
        results_target(results, "memory per clone", "at most 1.2 x a bare VM", 1.2);
    double clone = results_median(results, "density", "clones", "system each");
    double bare = results_median(results, "density", "bare VMs", "system each");
    double clone_held = results_median(results, "density", "clones", "held each");
    double bare_held = results_median(results, "density", "bare VMs", "held each");
    char note[96];
    if (!target)
        return;
    target->measured = clone > 0 && bare > 0;
    if (target->measured)
        target->value = clone / bare;
    snprintf(note, sizeof(note), "%.2f by what the process holds%s", clone_held / bare_held,
        target->measured ? "" : "; the host's memory was used by others meanwhile");
    target->note = strdup(bare_held > 0 ? note : "its row did not run");
}

/* A hundred clones against a hundred restores one after the other, shared by all CPUs. One restore
 * is best known where it was measured most often. */
static void add_fanout(struct results *results, unsigned cpus)
{
    struct target *target = results_target(
        results, "100 clones until all run", "at most 1.3 x 100 pooled restores / CPUs", 1.3);
    double all = results_median(results, "fanout", "100 at once", "all run");
    double one = results_median(results, "pool", "pooled, 128 MiB", "first output");
    if (!target)
        return;
    if (one <= 0)
        one = results_median(results, "fanout", "1 at once", "all run");
    target->measured = all > 0 && one > 0;
    if (target->measured)
        target->value = all / (100 * one / cpus);
    else
        target->note = strdup("its row did not run");
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
    add_density(results);
    add_fanout(results, bench->cpus);
    add_peer(results, "empty guest");
    add_peer(results, "much data");
}
