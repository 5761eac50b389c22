/* SPDX-License-Identifier: Apache-2.0 */
/* Plots of the HTML report, as SVG. A plot that has nothing to show writes nothing. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include "results.h"
#include <stdio.h>

#define PLOT_WIDTH 960

void html_escape(FILE *out, const char *text);

/* One line for each mode of a row: all samples of one metric as dots, the median as a bar, on a
 * logarithmic axis. */
void plot_distribution(
    FILE *out, const struct results *results, const char *row, const char *metric);

/* One bar for each mode whose phases are known and whose name has `only` in it (NULL: all). */
void plot_phases(FILE *out, const struct results *results, const char *row, const char *only);

/* --- Curves (plot_curves.c) ------------------------------------------------------------------- */

/* The medians of one metric over a number that is part of the modes' names. */
struct curve {
    const char *label;
    const char *row;
    const char *mode; /* with one %u */
    const char *metric;
    const char *dash; /* as SVG has it: "none", "7 4" */
};

struct curves {
    const char *title;
    const char *unit; /* of the number, for its axis */
    const unsigned *numbers;
    size_t number_count;
    const struct curve *curves;
    size_t curve_count;
};

/* On logarithmic axes; points that were not measured are left out. */
void plot_curves(FILE *out, const struct results *results, const struct curves *curves);

/* --- What plots are made of ------------------------------------------------------------------- */

const char *plot_colour(const char *mode);
void plot_open(FILE *out, int height);
void plot_text(
    FILE *out, double x, double y, const char *anchor, const char *colour, const char *text);

#endif
