// SPDX-License-Identifier: Apache-2.0
// Draws samples as SVG. Knows how to place them and nothing of what they mean.

#include "plot.h"
#include "terminal.h"
#include <math.h>
#include <string.h>

#define WIDTH       960
#define LABEL_WIDTH 250
#define VALUE_WIDTH 96
#define LINE_HEIGHT 23
#define AXIS_HEIGHT 26
#define DOTS_MAX    400 /* a mode; of more, every nth is drawn */
#define MODES_MAX   32

static const char *colour_of(const char *mode)
{
    if (strncmp(mode, "QEMU", 4) == 0)
        return "var(--peer)";
    if (strncmp(mode, "floor", 5) == 0 || strncmp(mode, "rawfile", 7) == 0 ||
        strncmp(mode, "zstd", 4) == 0 || strncmp(mode, "bare", 4) == 0)
        return "var(--floor)";
    return "var(--thaw)";
}

static void open_svg(FILE *out, int height)
{
    fprintf(out,
        "<svg viewBox='0 0 %d %d' font-size='12.5' font-family=\"system-ui,'DejaVu Sans',"
        "sans-serif\">",
        WIDTH, height);
}

static void write_text(
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
        write_text(out, x, height - 6, "middle", "var(--dim)", text);
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
    const char *colour = colour_of(series->mode);
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
    open_svg(out, height);
    write_axis(out, &axis, series[0]->unit, height);
    for (size_t i = 0; i < count; i++) {
        char text[48];
        double middle = (double)i * LINE_HEIGHT + LINE_HEIGHT / 2.0;
        write_text(out, LABEL_WIDTH - 14, middle + 4, "end", "var(--ink)", series[i]->mode);
        write_dots(out, &axis, series[i], middle);
        terminal_format(results_summary(series[i]).p50, series[i]->unit, text, sizeof(text));
        write_text(out, WIDTH - 4, middle + 4, "end", "var(--ink)", text);
    }
    fputs("</svg>\n", out);
}

/* --- Phases ----------------------------------------------------------------------------------- */

static void write_bar(FILE *out, double x, double y, double width, const char *colour)
{
    fprintf(out, "<rect x='%.1f' y='%.1f' width='%.1f' height='14' fill='%s'/>", x, y,
        MAX(width, 0.5), colour);
}

void plot_phases(FILE *out, const struct results *results, const char *row)
{
    const struct series *series[MODES_MAX];
    size_t count = find_series(results, row, "first output", series);
    double most = 0, width = WIDTH - LABEL_WIDTH - VALUE_WIDTH - 20;
    for (size_t i = 0; i < count; i++)
        most = MAX(most, results_summary(series[i]).p50);
    if (most <= 0)
        return;
    fputs("<p class=sub style='margin:16px 0 4px'>Phases, medians: <b "
          "style='color:var(--thaw)'>until all state is applied</b>, then <b "
          "style='color:#66b2c0'>until the guest's first output</b>.</p>",
        out);
    open_svg(out, (int)count * LINE_HEIGHT + 6);
    for (size_t i = 0; i < count; i++) {
        char text[48];
        double y = (double)i * LINE_HEIGHT + 4;
        double all = results_summary(series[i]).p50;
        double applied = results_median(results, row, series[i]->mode, "applied");
        bool ours = strcmp(colour_of(series[i]->mode), "var(--thaw)") == 0;
        write_text(out, LABEL_WIDTH - 14, y + 12, "end", "var(--ink)", series[i]->mode);
        write_bar(out, LABEL_WIDTH, y, width * all / most, ours ? "#66b2c0" : "#dee2e6");
        write_bar(
            out, LABEL_WIDTH, y, width * MIN(applied, all) / most, colour_of(series[i]->mode));
        terminal_format(all, series[i]->unit, text, sizeof(text));
        write_text(out, LABEL_WIDTH + width * all / most + 8, y + 12, "start", "var(--dim)", text);
    }
    fputs("</svg>\n", out);
}

/* --- Scaling ---------------------------------------------------------------------------------- */

#define SCALE_HEIGHT 230
#define SCALE_LEFT   70
#define SCALE_WIDTH  560

static const unsigned sizes_mib[] = {128, 1024, 4096};

static double scale_y(double value, double most)
{
    return 12 + (SCALE_HEIGHT - 46) * (1 - value / most);
}

static double scale_x(size_t i)
{
    return SCALE_LEFT + 30 +
           (SCALE_WIDTH - 60) * log2((double)sizes_mib[i] / sizes_mib[0]) /
               log2((double)sizes_mib[ARRAY_SIZE(sizes_mib) - 1] / sizes_mib[0]);
}

static double median_of(const struct results *results, const char *mode, size_t size)
{
    char name[64];
    snprintf(name, sizeof(name), "%s, %u MiB", mode, sizes_mib[size]);
    return results_median(results, "restore", name, "first output");
}

static void write_curve(FILE *out, const struct results *results, const char *mode, double most,
    const char *dash, double label_y)
{
    const char *colour = colour_of(mode);
    fprintf(out,
        "<polyline fill='none' stroke='%s' stroke-width='2.2' stroke-dasharray='%s' points='",
        colour, dash);
    for (size_t i = 0; i < ARRAY_SIZE(sizes_mib); i++)
        fprintf(out, "%.1f,%.1f ", scale_x(i), scale_y(median_of(results, mode, i), most));
    fputs("'/>", out);
    fprintf(out,
        "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='%s' stroke-width='2.2' "
        "stroke-dasharray='%s'/>",
        SCALE_LEFT + SCALE_WIDTH + 20, SCALE_LEFT + SCALE_WIDTH + 52, label_y - 4, label_y - 4,
        colour, dash);
    write_text(out, SCALE_LEFT + SCALE_WIDTH + 62, label_y, "start", "var(--ink)", mode);
}

static void write_frame(FILE *out, double most)
{
    for (unsigned i = 0; i <= 4; i++) {
        char text[48];
        double value = most * i / 4, y = scale_y(value, most);
        terminal_format(value, "us", text, sizeof(text));
        fprintf(out, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='var(--line)'/>", SCALE_LEFT,
            SCALE_LEFT + SCALE_WIDTH, y, y);
        write_text(out, SCALE_LEFT - 6, y + 4, "end", "var(--dim)", text);
    }
    for (size_t i = 0; i < ARRAY_SIZE(sizes_mib); i++) {
        char text[48];
        snprintf(text, sizeof(text), "%u MiB", sizes_mib[i]);
        write_text(out, scale_x(i), SCALE_HEIGHT - 8, "middle", "var(--dim)", text);
    }
}

void plot_scaling(FILE *out, const struct results *results)
{
    static const struct {
        const char *mode, *dash;
    } curves[] = {{"new, eager, warm", "none"}, {"new, lazy, warm", "7 4"},
        {"rawfile, warm", "none"}, {"floor-new", "7 4"}, {"floor-shell", "2 3"}};
    double most = 0;
    for (size_t m = 0; m < ARRAY_SIZE(curves); m++)
        for (size_t i = 0; i < ARRAY_SIZE(sizes_mib); i++)
            most = MAX(most, median_of(results, curves[m].mode, i));
    if (most <= 0)
        return;
    fputs("<p class=sub style='margin:16px 0 4px'>Over the size of RAM, medians.</p>", out);
    open_svg(out, SCALE_HEIGHT);
    write_frame(out, most);
    for (size_t m = 0; m < ARRAY_SIZE(curves); m++)
        write_curve(out, results, curves[m].mode, most, curves[m].dash, 30 + 20 * (double)m);
    fputs("</svg>\n", out);
}
