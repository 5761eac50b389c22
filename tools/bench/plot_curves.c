// SPDX-License-Identifier: Apache-2.0
// Draws how medians grow with a number. Knows how to place them and nothing of what they mean.

#include "bench.h"
#include "plot.h"
#include "terminal.h"
#include <math.h>
#include <string.h>

#define HEIGHT     250
#define TOP        10
#define BOTTOM     34
#define LEFT       76
#define WIDTH      560
#define LABEL_STEP 21

struct frame {
    const struct curves *curves;
    double low, high; /* of the values; powers of ten */
};

static double value_of(
    const struct results *results, const struct curves *curves, size_t curve, size_t number)
{
    char mode[96];
    const struct curve *which = &curves->curves[curve];
    const char *place = strstr(which->mode, "%u");
    snprintf(mode, sizeof(mode), "%.*s%u%s", (int)(place - which->mode), which->mode,
        curves->numbers[number], place + 2);
    return results_median(results, which->row, mode, which->metric);
}

static double frame_x(const struct frame *frame, size_t number)
{
    const unsigned *numbers = frame->curves->numbers;
    double range = log2((double)numbers[frame->curves->number_count - 1] / numbers[0]);
    return LEFT + 24 + (WIDTH - 48) * log2((double)numbers[number] / numbers[0]) / range;
}

static double frame_y(const struct frame *frame, double value)
{
    return TOP + (HEIGHT - TOP - BOTTOM) *
                     (1 - log10(value / frame->low) / log10(frame->high / frame->low));
}

static bool find_frame(
    const struct results *results, const struct curves *curves, struct frame *ret)
{
    double least = INFINITY, most = 0;
    for (size_t c = 0; c < curves->curve_count; c++)
        for (size_t i = 0; i < curves->number_count; i++) {
            double value = value_of(results, curves, c, i);
            if (value > 0) {
                least = MIN(least, value);
                most = MAX(most, value);
            }
        }
    *ret = (struct frame){curves, pow(10, floor(log10(least))), pow(10, ceil(log10(most)))};
    if (ret->high <= ret->low)
        ret->high = 10 * ret->low;
    return most > 0;
}

static void write_frame(FILE *out, const struct frame *frame)
{
    for (double value = frame->low; value <= frame->high * 1.001; value *= 10) {
        char text[48];
        double y = frame_y(frame, value);
        terminal_format(value, "us", text, sizeof(text));
        fprintf(out, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='var(--line)'/>", LEFT,
            LEFT + WIDTH, y, y);
        plot_text(out, LEFT - 8, y + 4, "end", "var(--dim)", text);
    }
    for (size_t i = 0; i < frame->curves->number_count; i++) {
        char text[48];
        snprintf(text, sizeof(text), "%u%s%s", frame->curves->numbers[i],
            frame->curves->unit[0] ? " " : "", frame->curves->unit);
        plot_text(out, frame_x(frame, i), HEIGHT - 10, "middle", "var(--dim)", text);
    }
}

static bool write_curve(
    FILE *out, const struct results *results, const struct frame *frame, size_t curve, double label)
{
    const struct curve *which = &frame->curves->curves[curve];
    const char *colour = plot_colour(which->label);
    char path[512] = "", dots[1536] = "";
    size_t used = 0, dots_used = 0;
    for (size_t i = 0; i < frame->curves->number_count; i++) {
        double value = value_of(results, frame->curves, curve, i);
        if (value <= 0)
            continue;
        double x = frame_x(frame, i), y = frame_y(frame, value);
        used += (size_t)snprintf(path + used, sizeof(path) - used, "%.1f,%.1f ", x, y);
        dots_used += (size_t)snprintf(dots + dots_used, sizeof(dots) - dots_used,
            "<circle cx='%.1f' cy='%.1f' r='3' fill='%s'/>", x, y, colour);
    }
    if (used == 0)
        return false;
    fprintf(out,
        "<polyline fill='none' stroke='%s' stroke-width='2.2' stroke-dasharray='%s' "
        "points='%s'/>%s",
        colour, which->dash, path, dots);
    fprintf(out,
        "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='%s' stroke-width='2.2' "
        "stroke-dasharray='%s'/>",
        LEFT + WIDTH + 20, LEFT + WIDTH + 52, label - 4, label - 4, colour, which->dash);
    plot_text(out, LEFT + WIDTH + 62, label, "start", "var(--ink)", which->label);
    return true;
}

void plot_curves(FILE *out, const struct results *results, const struct curves *curves)
{
    struct frame frame;
    double label = 30;
    if (!find_frame(results, curves, &frame))
        return;
    fputs("<p class=sub style='margin:18px 0 4px'>", out);
    html_escape(out, curves->title);
    fputs("</p>", out);
    plot_open(out, HEIGHT);
    write_frame(out, &frame);
    for (size_t i = 0; i < curves->curve_count; i++)
        if (write_curve(out, results, &frame, i, label))
            label += LABEL_STEP;
    fputs("</svg>\n", out);
}
