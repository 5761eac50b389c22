/* SPDX-License-Identifier: Apache-2.0 */
/* Plots of the HTML report, as SVG. A plot that has nothing to show writes nothing. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include "results.h"
#include <stdio.h>

void html_escape(FILE *out, const char *text);

/* One line for each mode of a row: all samples of one metric as dots, the median as a bar, on a
 * logarithmic axis. */
void plot_distribution(
    FILE *out, const struct results *results, const char *row, const char *metric);

/* One bar for each of thaw's modes: until all state was applied, and from there to first output. */
void plot_phases(FILE *out, const struct results *results, const char *row);

/* Medians of row `restore` over the size of RAM. */
void plot_scaling(FILE *out, const struct results *results);

#endif
