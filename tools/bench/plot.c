// SPDX-License-Identifier: Apache-2.0
// Draws samples as SVG. Knows how to place them and nothing of what they mean.

#include "plot.h"
#include "terminal.h"
#include <math.h>
#include <string.h>

#define WIDTH       PLOT_WIDTH
#define LABEL_WIDTH 300
#define VALUE_WIDTH 96
#define LINE_HEIGHT 23
#define AXIS_HEIGHT 26
#define DOTS_MAX    400 /* a mode; of more, every nth is drawn */
#define MODES_MAX   32

const char *plot_colour(const char *mode)
{
    if (strncmp(mode, "QEMU", 4) == 0)
        return "var(--peer)";
    if (strncmp(mode, "floor", 5) == 0 || strncmp(mode, "rawfile", 7) == 0 ||
        strncmp(mode, "zstd", 4) == 0 || strncmp(mode, "bare", 4) == 0)
        return "var(--floor)";
    return "var(--thaw)";
}

void plot_open(FILE *out, int height)
{
    fprintf(out,
        "<svg viewBox='0 0 %d %d' font-size='12.5' font-family=\"system-ui,'DejaVu Sans',"
        "sans-serif\">",
        WIDTH, height);
}

void plot_text(
    FILE *out, double x, double y, const char *anchor, const char *colour, const char *text)
{
    fprintf(out, "<text x='%.1f' y='%.1f' text-anchor='%s' fill='%s'>", x, y, anchor, colour);
    html_escape(out, text);
    fputs("</text>", out);
}

/* --- A logarithmic axis ----------------------------------------------------------------------- */

struct axis {
    double low, high; /* powers of ten */
    double left, width;
};

static double axis_at(const struct axis *axis, double value)
{
    double at = (log10(MAX(value, 1e-9)) - log10(axis->low)) / (log10(axis->high / axis->low));
    return axis->left + axis->width * MIN(MAX(at, 0.0), 1.0);
}

static void write_axis(FILE *out, const struct axis *axis, const char *unit, int height)
{
    for (double tick = axis->low; tick <= axis->high * 1.001; tick *= 10) {
        char text[48];
        double x = axis_at(axis, tick);
        terminal_format(tick, unit, text, sizeof(text));
        fprintf(out, "<line x1='%.1f' y1='0' x2='%.1f' y2='%d' stroke='var(--line)'/>", x, x,
            height - AXIS_HEIGHT + 6);
        plot_text(out, x, height - 6, "middle", "var(--dim)", text);
    }
}

/* --- Distributions ---------------------------------------------------------------------------- */

/* A floor has other words for its end. */
static bool is_metric(const char *name, const char *metric)
{
    static const struct {
        const char *metric, *of_floor;
    } same[] = {{"until durable", "until done"}, {"touched", "until read"}};
    for (size_t i = 0; i < ARRAY_SIZE(same); i++)
        if (strcmp(metric, same[i].metric) == 0 && strcmp(name, same[i].of_floor) == 0)
            return true;
    return strcmp(name, metric) == 0;
}

static size_t find_series(
    const struct results *results, const char *row, const char *metric, const struct series **ret)
{
    size_t count = 0;
    for (size_t i = 0; i < results->series_count && count < MODES_MAX; i++)
        if (strcmp(results->series[i].row, row) == 0 &&
            is_metric(results->series[i].metric, metric))
            ret[count++] = &results->series[i];
    return count;
}

static struct axis find_axis(const struct series *const *series, size_t count)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < count; i++) {
        struct summary summary = results_summary(series[i]);
        low = MIN(low, MAX(summary.min, 1e-3));
        high = MAX(high, summary.max);
    }
    struct axis axis = {.low = pow(10, floor(log10(low))),
        .high = pow(10, ceil(log10(MAX(high, low)))),
        .left = LABEL_WIDTH,
        .width = WIDTH - LABEL_WIDTH - VALUE_WIDTH - 20};
    if (axis.high <= axis.low)
        axis.high = 10 * axis.low;
    return axis;
}

/* Dots are spread over the height of the line by their number, so that equal ones show. */
static void write_dots(
    FILE *out, const struct axis *axis, const struct series *series, double middle)
{
    const char *colour = plot_colour(series->mode);
    struct summary summary = results_summary(series);
    size_t step = series->count / DOTS_MAX + 1;
    for (size_t i = 0; i < series->count; i += step)
        fprintf(out, "<circle cx='%.1f' cy='%.1f' r='2.4' fill='%s' fill-opacity='.45'/>",
            axis_at(axis, series->values[i]), middle - 6 + (double)(i * 7 % 13), colour);
    double x = axis_at(axis, summary.p50);
    fprintf(out,
        "<rect x='%.1f' y='%.1f' width='3.5' height='18' rx='1.5' fill='%s' "
        "stroke='#fff' stroke-width='.6'/>",
        x - 1.7, middle - 9, colour);
}

void plot_distribution(
    FILE *out, const struct results *results, const char *row, const char *metric)
{
    const struct series *series[MODES_MAX];
    size_t count = find_series(results, row, metric, series);
    if (count == 0)
        return;
    int height = (int)count * LINE_HEIGHT + AXIS_HEIGHT;
    struct axis axis = find_axis(series, count);
    plot_open(out, height);
    write_axis(out, &axis, series[0]->unit, height);
    for (size_t i = 0; i < count; i++) {
        char text[48];
        double middle = (double)i * LINE_HEIGHT + LINE_HEIGHT / 2.0;
        plot_text(out, LABEL_WIDTH - 14, middle + 4, "end", "var(--ink)", series[i]->mode);
        write_dots(out, &axis, series[i], middle);
        terminal_format(results_summary(series[i]).p50, series[i]->unit, text, sizeof(text));
        plot_text(out, WIDTH - 4, middle + 4, "end", "var(--ink)", text);
    }
    fputs("</svg>\n", out);
}

/* --- Phases ----------------------------------------------------------------------------------- */

static const struct phase {
    const char *metric, *what, *colour;
} phases[] = {
    {"phase: open", "snapshot opened, in eager mode read", "#5f3dc4"},
    {"phase: VM", "VM there", "#1971c2"},
    {"phase: memory", "memory mapped", "#0b7285"},
    {"phase: state", "state set", "#2f9e44"},
    {"phase: resume", "in the guest", "#f08c00"},
    {"phase: guest", "first output", "#ced4da"},
};

static bool has_phases(const struct results *results, const char *row, const char *mode)
{
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
        if (results_find(results, row, mode, phases[i].metric))
            return true;
    return false;
}

static double sum_of_phases(const struct results *results, const char *row, const char *mode)
{
    double sum = 0;
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
        sum += results_median(results, row, mode, phases[i].metric);
    return sum;
}

static void write_phases(FILE *out, const struct results *results, const char *row,
    const char *mode, double y, double us_width)
{
    char text[48];
    double x = LABEL_WIDTH;
    plot_text(out, LABEL_WIDTH - 14, y + 12, "end", "var(--ink)", mode);
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        double width = us_width * results_median(results, row, mode, phases[i].metric);
        if (width > 0)
            fprintf(out, "<rect x='%.1f' y='%.1f' width='%.1f' height='14' fill='%s'/>", x, y,
                MAX(width, 0.5), phases[i].colour);
        x += width;
    }
    terminal_format(sum_of_phases(results, row, mode), "us", text, sizeof(text));
    plot_text(out, x + 8, y + 12, "start", "var(--dim)", text);
}

static void write_legend(FILE *out)
{
    fputs("<p class='sub key' style='margin:18px 0 4px'>Phases, medians, until", out);
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
        fprintf(out, "<i style='background:%s'></i>%s", phases[i].colour, phases[i].what);
    fputs("</p>", out);
}

void plot_phases(FILE *out, const struct results *results, const char *row, const char *only)
{
    const struct series *series[MODES_MAX], *shown[MODES_MAX];
    size_t count = 0, all = find_series(results, row, "first output", series);
    double most = 0;
    for (size_t i = 0; i < all; i++) {
        const char *mode = series[i]->mode;
        if (!has_phases(results, row, mode) || (only && !strstr(mode, only)))
            continue;
        shown[count++] = series[i];
        most = MAX(most, sum_of_phases(results, row, mode));
    }
    if (most <= 0)
        return;
    write_legend(out);
    plot_open(out, (int)count * LINE_HEIGHT + 6);
    for (size_t i = 0; i < count; i++)
        write_phases(out, results, row, shown[i]->mode, (double)i * LINE_HEIGHT + 4,
            (WIDTH - LABEL_WIDTH - VALUE_WIDTH - 20) / most);
    fputs("</svg>\n", out);
}
