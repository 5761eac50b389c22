// SPDX-License-Identifier: Apache-2.0
// What thaw is to reach, as ratios of what one run measured. Measures nothing.

#include "rows.h"
#include <stdarg.h>
#include <string.h>

struct term {
    const char *row, *mode, *metric;
};

/* A figure that belongs to a target and does not decide. */
struct beside {
    const char *text;
    struct term term;
};

#define BESIDE_MAX 2

struct goal {
    const char *name, *text;
    double limit;
    bool at_least, below;
    struct term value, floor;
    struct term plus;   /* added to the floor; row NULL: nothing */
    struct term larger; /* in the value's place where it is; row NULL: nothing */
    bool p99;           /* that counts; else the median */
    bool less_in_quick; /* a quick run has less data than the target is about */
    struct beside beside[BESIDE_MAX];
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
        .floor = {"pause", "floor, live, guest dirties " rate " MiB/s", "pause"},                  \
        .less_in_quick = true,                                                                     \
        .beside = {{"the guest sees a gap of",                                                     \
                       {"pause", "live, guest dirties " rate " MiB/s", "guest's gap"}},            \
            {"dirtied", {"pause", "live, guest dirties " rate " MiB/s", "dirtied"}}}},             \
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
        .below = true,
        .less_in_quick = true,
        .value = {"data", "new, image", "touched"},
        .floor = {"data", "rawfile, cold", "touched"}},
    {.name = "cold lazy restore to working set touched",
        .text = "at most 1.2 x (floor-read hot + floor-touch)",
        .limit = 1.2,
        .value = {"data", "new, working set, cold", "touched"},
        .floor = {"data", "floor-read, hot, cold", "until read"},
        .plus = {"data", "floor-touch", "touched"},
        .less_in_quick = true,
        .beside = {{"first KVM_RUN after", {"data", "new, working set, cold", "first run"}},
            {"of which it waited for nothing but the working set",
                {"data", "new, working set, cold", "waited for working set"}}}},
    {.name = "working-set pages by demand fault",
        .text = "under 1 %",
        .limit = 1,
        .below = true,
        .less_in_quick = true,
        .value = {"data", "new, working set, cold", "by demand"}},
    {.name = "cold eager restore",
        .text = "at most 1.3 x floor-read of all bytes",
        .limit = 1.3,
        .value = {"data", "new, eager, cold", "applied"},
        .floor = {"data", "floor-read, all, cold", "until read"},
        .less_in_quick = true},
    PAUSE("0"),
    PAUSE("10"),
    PAUSE("100"),
    {.name = "capture throughput",
        .text = "at least 0.8 x zstd, same level and threads",
        .limit = 0.8,
        .at_least = true,
        .value = {"capture", "full", "throughput"},
        .floor = {"capture", "zstd, same threads", "throughput"},
        .less_in_quick = true,
        .beside = {{"zstd with thaw's table", {"capture", "zstd, same table", "throughput"}},
            {"thaw", {"capture", "full", "throughput"}}}},
    {.name = "stored size",
        .text = "at most 1.15 x one zstd stream",
        .limit = 1.15,
        .value = {"capture", "full", "stored"},
        .floor = {"capture", "zstd, one stream", "stored"},
        .larger = {"capture", "full, of a guest that runs", "stored"},
        .less_in_quick = true,
        .beside = {{"stale pages in it", {"capture", "full, of a guest that runs", "stale pages"}},
            {"apart from it, a working set's hot pack", {"data", "recording", "hot pack"}}}},
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

/* Appends to a note. */
static void append(char *note, size_t bytes, const char *format, ...) _printf_(3, 4);
static void append(char *note, size_t bytes, const char *format, ...)
{
    size_t used = strlen(note);
    va_list args;
    va_start(args, format);
    if (used > 0)
        used += (size_t)snprintf(note + used, bytes - used, "; ");
    vsnprintf(note + MIN(used, bytes - 1), bytes - MIN(used, bytes - 1), format, args);
    va_end(args);
}

static void append_beside(
    const struct results *results, const struct beside *beside, char *note, size_t bytes)
{
    double value = summary(results, &beside->term).p50;
    const char *unit;
    if (!beside->text ||
        !results_find(results, beside->term.row, beside->term.mode, beside->term.metric))
        return;
    unit = unit_of(results, &beside->term);
    if (strcmp(unit, "us") == 0)
        append(note, bytes, "%s %.2f ms", beside->text, value / 1e3);
    else if (strcmp(unit, "bytes") == 0)
        append(note, bytes, "%s %.1f MiB", beside->text, value / MIB);
    else
        append(note, bytes, "%s %.1f%s%s", beside->text, value, *unit ? " " : "", unit);
}

/* The least says more than the median where the host is busy with other things. */
static char *note_of(const struct bench *bench, const struct goal *goal,
    const struct summary *value, const struct summary *floor, const struct summary *plus)
{
    char note[320] = "";
    if (goal->floor.row && !goal->at_least && !goal->p99)
        append(
            note, sizeof(note), "%.2f by the least of each", value->min / (floor->min + plus->min));
    append(note, sizeof(note), "%zu samples", value->count);
    for (size_t i = 0; i < BESIDE_MAX; i++)
        append_beside(&bench->results, &goal->beside[i], note, sizeof(note));
    if (goal->less_in_quick && bench->options.quick)
        append(note, sizeof(note), "a quick run: of less data");
    return strdup(note);
}

static void add_goal(struct bench *bench, const struct goal *goal)
{
    struct results *results = &bench->results;
    struct target *target = results_target(results, goal->name, goal->text, goal->limit);
    struct summary value = summary(results, &goal->value), floor = summary(results, &goal->floor),
                   plus = summary(results, &goal->plus), larger = summary(results, &goal->larger);
    if (!target)
        return;
    if (larger.p50 > value.p50)
        value = larger;
    target->at_least = goal->at_least;
    target->below = goal->below;
    target->measured = value.count > 0 && (floor.p50 > 0 || !goal->floor.row);
    if (!target->measured) {
        target->note = strdup("its row did not run");
        return;
    }
    target->note = note_of(bench, goal, &value, &floor, &plus);
    if (!goal->floor.row)
        target->value =
            strcmp(unit_of(results, &goal->value), "us") == 0 ? value.p50 / 1e3 : value.p50;
    else if (goal->p99)
        target->value = value.p99 / (floor.p99 + plus.p99);
    else
        target->value = value.p50 / (floor.p50 + plus.p50);
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
    double pss = results_median(results, "density", "clones", "PSS each");
    char note[128];
    if (!target)
        return;
    target->measured = clone > 0 && bare > 0;
    if (target->measured)
        target->value = clone / bare;
    snprintf(note, sizeof(note), "%.2f by what the process holds; PSS %.2f MiB%s",
        clone_held / bare_held, pss,
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
    snprintf(name, sizeof(name), "rawfile, %s", guest);
    char note[128] = "";
    if (!target->measured)
        append(note, sizeof(note), "run with --peer qemu");
    if (ours > 0)
        append(note, sizeof(note), "%.2f x a rawfile process",
            ours / results_median(results, "process", name, "first output"));
    if (!command)
        append(note, sizeof(note), "a program of libthaw's: there is no thaw restore");
    target->note = strdup(note);
}

void targets_add(struct bench *bench)
{
    struct results *results = &bench->results;
    for (size_t i = 0; i < ARRAY_SIZE(goals); i++)
        add_goal(bench, &goals[i]);
    add_density(results);
    add_fanout(results, bench->cpus);
    add_peer(results, "empty guest");
    add_peer(results, "much data");
}
