// SPDX-License-Identifier: Apache-2.0
// Progress and tables on the terminal. The JSON and HTML reports are elsewhere.

#include "terminal.h"
#include <math.h>
#include <string.h>

void terminal_progress(const char *row, const char *mode, unsigned done, unsigned total)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%-10s %-40s %4u/%u \033[K", row, mode, done + 1, total);
}

void terminal_progress_end(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* Three digits, whatever the size. */
static void three_digits(double value, char *ret, size_t bytes)
{
    double size = fabs(value);
    int decimals = size >= 100 || size == 0 ? 0 : size >= 10 ? 1 : 2;
    snprintf(ret, bytes, "%.*f", decimals, value);
}

void terminal_format(double value, const char *unit, char *ret, size_t bytes)
{
    char number[32];
    if (strcmp(unit, "us") == 0 && value >= 1e6) {
        value /= 1e6;
        unit = "s";
    } else if (strcmp(unit, "us") == 0 && value >= 1000) {
        value /= 1000;
        unit = "ms";
    } else if (strcmp(unit, "bytes") == 0) {
        value /= MIB;
        unit = "MiB";
    }
    three_digits(value, number, sizeof(number));
    snprintf(ret, bytes, "%s%s%s", number, unit[0] ? " " : "", unit);
}

static void print_cell(double value, const char *unit)
{
    char text[48];
    terminal_format(value, unit, text, sizeof(text));
    printf(" %11s", text);
}

void terminal_print_row(const struct results *results, const char *row)
{
    bool first = true;
    for (size_t i = 0; i < results->series_count; i++) {
        const struct series *series = &results->series[i];
        if (strcmp(series->row, row) != 0 || strncmp(series->metric, "phase: ", 7) == 0)
            continue;
        if (first)
            printf("\n%-34s %-18s %5s %11s %11s %11s %11s %11s\n", row, "", "n", "min", "p50",
                "p90", "p99", "max");
        first = false;
        struct summary summary = results_summary(series);
        printf("  %-32s %-18s %5zu", series->mode, series->metric, summary.count);
        print_cell(summary.min, series->unit);
        print_cell(summary.p50, series->unit);
        print_cell(summary.p90, series->unit);
        print_cell(summary.p99, series->unit);
        print_cell(summary.max, series->unit);
        putchar('\n');
    }
    fflush(stdout);
}

void terminal_print_targets(const struct results *results)
{
    printf("\n%-46s %9s  %9s  %s\n", "target", "limit", "value", "met");
    for (size_t i = 0; i < results->target_count; i++) {
        const struct target *target = &results->targets[i];
        char limit[32], value[32] = "-";
        three_digits(target->limit, limit, sizeof(limit));
        if (target->measured)
            three_digits(target->value, value, sizeof(value));
        printf("%-46s %s%8s  %9s  %s\n", target->name, target->at_least ? ">" : "<", limit, value,
            !target->measured       ? "not measured"
            : target_is_met(target) ? "yes"
                                    : "NO");
        if (target->note)
            printf("    %s\n", target->note);
    }
    for (size_t i = 0; i < results->skip_count; i++)
        printf("skipped: %s: %s\n", results->skips[i].row, results->skips[i].reason);
    fflush(stdout);
}
