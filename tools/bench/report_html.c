// SPDX-License-Identifier: Apache-2.0
// The report for people: one HTML file with its plots in it. Computes nothing but where dots go.

#include "plot.h"
#include "report.h"
#include "terminal.h"
#include <math.h>
#include <string.h>

static const char style[] =
    ":root{--ink:#1d2733;--dim:#667588;--line:#e3e8ee;--thaw:#0b7285;--floor:#adb5bd;--peer:#"
    "e8590c;"
    "--good:#2b8a3e;--bad:#c92a2a}"
    "body{font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;color:var(--ink);margin:0;"
    "background:#f6f8fa}"
    "main{max-width:1020px;margin:0 auto;padding:28px 24px 60px}"
    "h1{font-size:27px;margin:0 0 4px}h2{font-size:19px;margin:0 0 2px}"
    "p.sub{color:var(--dim);margin:0 0 14px}"
    "section{background:#fff;border:1px solid var(--line);border-radius:10px;padding:20px 24px;"
    "margin:18px 0}"
    "table{border-collapse:collapse;width:100%;font-size:14px}"
    "th{text-align:left;color:var(--dim);font-weight:600;border-bottom:2px solid var(--line)}"
    "td{border-bottom:1px solid var(--line)}td,th{padding:5px 10px 5px 0;vertical-align:top}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "td.g{width:128px;padding-top:10px}.tag{display:inline-block;white-space:nowrap;border-radius:"
    "9px;padding:0 9px;font-size:12.5px;font-weight:600;"
    "color:#fff}"
    ".yes{background:var(--good)}.no{background:var(--bad)}.none{background:#868e96}"
    ".env{columns:2;font-size:14px}.env b{color:var(--dim);font-weight:600}"
    ".note{color:var(--dim);font-size:13px}details{margin-top:8px}summary{cursor:pointer;"
    "color:var(--dim)}"
    ".key i{display:inline-block;width:11px;height:11px;border-radius:3px;margin:0 5px 0 14px}"
    "svg{display:block;width:100%;height:auto}";

/* What a row's plot is about: a sentence each. */
static const struct {
    const char *row, *title, *text, *metric;
} sections[] = {
    {"pool", "Restoring an empty guest into a VM that is ready",
        "Request to the guest's first exit, from an image that is open and complete. The floor is "
        "the same by the shortest code that does it; the two alternate.",
        "first exit"},
    {"restore", "Restoring an empty guest into a new VM",
        "Request to the guest's first exit. The floors are the same by the shortest code that does "
        "it.",
        "first exit"},
    {"data", "Restoring a guest with much data",
        "Request until the guest has touched its working set, page by page in random order.",
        "touched"},
    {"capture", "Taking a snapshot", "From the call until the snapshot is durable.",
        "until durable"},
    {"reset", "Putting a clone back to its snapshot",
        "A guest that has written 512 pages, until it could go on from where it was saved.",
        "applied"},
    {"pause", "Standing still for a snapshot", "How long no instruction of the guest's runs.",
        "pause"},
    {"fanout", "Many clones at once",
        "From the first request until all clones have printed something.", "all run"},
    {"density", "Memory per clone",
        "What went from the host for each, after it has written its working set of 4 MiB.",
        "system each"},
    {"process", "From process start", "Exec to the guest's first output.", "first output"},
};

void html_escape(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '&')
            fputs("&amp;", out);
        else
            fputc(*text, out);
    }
}

static void write_number(FILE *out, double value, const char *unit)
{
    char text[48];
    terminal_format(value, unit, text, sizeof(text));
    fprintf(out, "<td class=n>%s</td>", text);
}

/* Where the value is: the limit is the line, each eighth of the width a factor of two, and to the
 * left is better. */
static void write_gauge(FILE *out, const struct target *target)
{
    double ratio = target->value / target->limit;
    double octaves = ratio > 0 ? log2(ratio) : -4;
    double x = 64 + 16 * MIN(MAX(target->at_least ? -octaves : octaves, -3.7), 3.7);
    fprintf(out,
        "<td class=g><svg viewBox='0 0 128 14'><rect y='5' width='128' height='4' rx='2' "
        "fill='var(--line)'/><rect x='63' width='2' height='14' fill='var(--dim)'/><circle "
        "cx='%.1f' cy='7' r='5' fill='var(--%s)'/></svg></td>",
        x, target_is_met(target) ? "good" : "bad");
}

static void write_target(FILE *out, const struct target *target)
{
    bool met = target_is_met(target);
    fputs("<tr><td>", out);
    html_escape(out, target->name);
    fputs("</td><td>", out);
    html_escape(out, target->text);
    if (target->note) {
        fputs("<div class=note>", out);
        html_escape(out, target->note);
        fputs("</div>", out);
    }
    fputs("</td>", out);
    if (target->measured)
        fprintf(out, "<td class=n>%.2f</td>", target->value);
    else
        fputs("<td class=n>–</td><td></td>", out);
    if (target->measured)
        write_gauge(out, target);
    fprintf(out, "<td><span class='tag %s'>%s</span></td></tr>\n",
        !target->measured ? "none"
        : met             ? "yes"
                          : "no",
        !target->measured ? "not measured"
        : met             ? "met"
                          : "missed");
}

static void write_targets(FILE *out, const struct results *results)
{
    size_t met = 0, measured = 0;
    for (size_t i = 0; i < results->target_count; i++) {
        met += target_is_met(&results->targets[i]);
        measured += results->targets[i].measured;
    }
    fprintf(out,
        "<section><h2>Targets: %zu of %zu met</h2><p class=sub>Ratios of figures of this run; "
        "%zu could not be measured. The line is the target, left of it is better, and a dot as far "
        "away as the line is from the edge is off by a factor of "
        "16.</p><table><tr><th>what<th>target"
        "<th class=n>value<th><th></tr>\n",
        met, measured, results->target_count - measured);
    for (size_t i = 0; i < results->target_count; i++)
        write_target(out, &results->targets[i]);
    fputs("</table></section>\n", out);
}

static void write_table(FILE *out, const struct results *results, const char *row)
{
    fputs("<details><summary>all figures</summary><table><tr><th>mode<th>metric<th class=n>n"
          "<th class=n>min<th class=n>p50<th class=n>p90<th class=n>p99<th class=n>max</tr>\n",
        out);
    for (size_t i = 0; i < results->series_count; i++) {
        const struct series *series = &results->series[i];
        if (strcmp(series->row, row) != 0)
            continue;
        struct summary summary = results_summary(series);
        fprintf(
            out, "<tr><td>%s<td>%s<td class=n>%zu", series->mode, series->metric, summary.count);
        write_number(out, summary.min, series->unit);
        write_number(out, summary.p50, series->unit);
        write_number(out, summary.p90, series->unit);
        write_number(out, summary.p99, series->unit);
        write_number(out, summary.max, series->unit);
        fputs("</tr>\n", out);
    }
    fputs("</table></details>\n", out);
}

static bool has_row(const struct results *results, const char *row)
{
    for (size_t i = 0; i < results->series_count; i++)
        if (strcmp(results->series[i].row, row) == 0)
            return true;
    return false;
}

static const unsigned sizes_mib[] = {128, 1024, 4096};
static const unsigned clone_counts[] = {1, 4, 16, 64, 100};
static const unsigned dirty_mib[] = {4, 16, 64, 256, 512};

static const struct curve by_size[] = {
    {"new, lazy, warm", "restore", "new, lazy, warm, %u MiB", "first exit", "2 3"},
    {"new, from an image", "restore", "new, image, %u MiB", "first exit", "7 4"},
    {"pooled, from an image", "pool", "pooled, %u MiB", "first exit", "none"},
    {"rawfile, warm", "restore", "rawfile, warm, %u MiB", "first exit", "2 3"},
    {"floor-new", "restore", "floor-new, %u MiB", "first exit", "7 4"},
    {"floor-shell", "pool", "floor-shell, %u MiB", "first exit", "none"},
};

static const struct curve by_clones[] = {
    {"all run: one snapshot", "fanout", "%u at once", "all run", "none"},
    {"all run: different snapshots", "fanout", "%u at once, different snapshots", "all run", "7 4"},
    {"each, median: one snapshot", "fanout", "%u at once", "each", "2 3"},
};

static const struct curve by_dirty[] = {
    {"live", "pause", "live, %u MiB dirty", "pause", "none"},
    {"live: the guest's gap", "pause", "live, %u MiB dirty", "guest's gap", "2 3"},
    {"stop-and-copy", "pause", "stop-and-copy, %u MiB dirty", "pause", "7 4"},
    {"floor: as many pages copied", "pause", "floor, stop-and-copy, %u MiB dirty", "pause", "7 4"},
};

#define CURVES(row, title, unit, numbers, curves)                                                  \
    {                                                                                              \
        row,                                                                                       \
        {                                                                                          \
            title, unit, numbers, ARRAY_SIZE(numbers), curves, ARRAY_SIZE(curves)                  \
        }                                                                                          \
    }

/* With the row that they come last in. */
static const struct {
    const char *row;
    struct curves curves;
} all_curves[] = {
    CURVES("restore", "Over the size of RAM, medians.", "MiB", sizes_mib, by_size),
    CURVES("fanout", "Over the number of clones, medians.", "", clone_counts, by_clones),
    CURVES("pause", "Over what is dirty, medians.", "MiB", dirty_mib, by_dirty),
};

static void write_row(FILE *out, const struct results *results, const char *row, const char *metric)
{
    plot_distribution(out, results, row, metric);
    if (strcmp(row, "pool") == 0)
        plot_phases(out, results, row, NULL);
    if (strcmp(row, "restore") == 0)
        plot_phases(out, results, row, "1024 MiB");
    for (size_t i = 0; i < ARRAY_SIZE(all_curves); i++)
        if (strcmp(all_curves[i].row, row) == 0)
            plot_curves(out, results, &all_curves[i].curves);
    write_table(out, results, row);
}

static void write_rows(FILE *out, const struct results *results)
{
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        if (!has_row(results, sections[i].row))
            continue;
        fprintf(
            out, "<section><h2>%s</h2><p class=sub>%s</p>", sections[i].title, sections[i].text);
        write_row(out, results, sections[i].row, sections[i].metric);
        fputs("</section>\n", out);
    }
}

static void write_environment(FILE *out, const json_t *environment)
{
    const char *name;
    json_t *value;
    fputs("<section><h2>The machine</h2><div class=env>", out);
    json_object_foreach((json_t *)(uintptr_t)environment, name, value)
    {
        fprintf(out, "<div><b>%s</b> ", name);
        html_escape(out, json_string_value(value));
        fputs("</div>", out);
    }
    fputs("</div></section>\n", out);
}

int report_write_html(
    const struct bench *bench, const json_t *environment, struct thaw_error *error)
{
    FILE *out = fopen(bench->options.html_path, "we");
    if (!out)
        return bench_errno(error, "writing %s", bench->options.html_path);
    fprintf(out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>thaw-bench</title>"
        "<style>%s</style><main><h1>thaw-bench</h1><p class=sub>thaw %s%s. Each dot is one sample, "
        "the bar its median; every restored guest proved that it went on where it was saved.</p>"
        "<p class='note key'><i style='background:var(--thaw)'></i>thaw<i "
        "style='background:var(--floor)'></i>by hand: the floor<i "
        "style='background:var(--peer)'></i>peer</p>\n",
        style, thaw_version(), bench->options.quick ? ", a quick run" : "");
    write_targets(out, &bench->results);
    write_rows(out, &bench->results);
    write_environment(out, environment);
    fputs("</main></html>\n", out);
    bool bad = ferror(out);
    return fclose(out) != 0 || bad ? bench_errno(error, "writing %s", bench->options.html_path) : 0;
}
