// SPDX-License-Identifier: Apache-2.0
// Keeps what was measured, and sums it up. Measures nothing and prints nothing.

#include "results.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static char *copy(struct results *results, const char *text)
{
    char *copied = strdup(text);
    if (!copied)
        results->out_of_memory = true;
    return copied;
}

/* Room for one more of `count` things. NULL, and noted, if there is none. */
static void *grow(struct results *results, void *array, size_t count, size_t bytes)
{
    void *more = realloc(array, (count + 1) * bytes);
    if (!more)
        results->out_of_memory = true;
    else
        memset((char *)more + count * bytes, 0, bytes);
    return more;
}

static struct series *find(
    const struct results *results, const char *row, const char *mode, const char *metric)
{
    for (size_t i = 0; i < results->series_count; i++) {
        struct series *series = &results->series[i];
        if (strcmp(series->metric, metric) == 0 && strcmp(series->mode, mode) == 0 &&
            strcmp(series->row, row) == 0)
            return series;
    }
    return NULL;
}

static void free_series(struct series *series)
{
    free(series->row);
    free(series->mode);
    free(series->metric);
    free(series->unit);
    free(series->values);
}

static struct series *add_series(struct results *results, const char *row, const char *mode,
    const char *metric, const char *unit)
{
    struct series *more =
        grow(results, results->series, results->series_count, sizeof(*results->series));
    if (!more)
        return NULL;
    results->series = more;
    struct series *series = &more[results->series_count];
    series->row = copy(results, row);
    series->mode = copy(results, mode);
    series->metric = copy(results, metric);
    series->unit = copy(results, unit);
    if (!series->row || !series->mode || !series->metric || !series->unit) {
        free_series(series);
        return NULL;
    }
    results->series_count++;
    return series;
}

void results_add(struct results *results, const char *row, const char *mode, const char *metric,
    const char *unit, double value)
{
    struct series *series = find(results, row, mode, metric);
    if (!series)
        series = add_series(results, row, mode, metric, unit);
    if (!series)
        return;
    if (series->count == series->room) {
        size_t room = series->room ? 2 * series->room : 16;
        double *more = realloc(series->values, room * sizeof(*more));
        if (!more) {
            results->out_of_memory = true;
            return;
        }
        series->values = more;
        series->room = room;
    }
    series->values[series->count++] = value;
}

void results_skip(struct results *results, const char *row, const char *reason)
{
    struct skip *more = grow(results, results->skips, results->skip_count, sizeof(*results->skips));
    if (!more)
        return;
    results->skips = more;
    more[results->skip_count].row = copy(results, row);
    more[results->skip_count].reason = copy(results, reason);
    if (more[results->skip_count].row && more[results->skip_count].reason)
        results->skip_count++;
}

void results_free(struct results *results)
{
    for (size_t i = 0; i < results->series_count; i++)
        free_series(&results->series[i]);
    for (size_t i = 0; i < results->target_count; i++) {
        free(results->targets[i].name);
        free(results->targets[i].text);
        free(results->targets[i].note);
    }
    for (size_t i = 0; i < results->skip_count; i++) {
        free(results->skips[i].row);
        free(results->skips[i].reason);
    }
    free(results->series);
    free(results->targets);
    free(results->skips);
    *results = (struct results){0};
}

const struct series *results_find(
    const struct results *results, const char *row, const char *mode, const char *metric)
{
    return find(results, row, mode, metric);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double rank(const double *sorted, size_t count, double share)
{
    size_t at = (size_t)ceil(share * (double)count);
    return sorted[at > 0 ? at - 1 : 0];
}

struct summary results_summary(const struct series *series)
{
    if (!series || series->count == 0)
        return (struct summary){0};
    double *sorted = malloc(series->count * sizeof(*sorted));
    if (!sorted)
        return (struct summary){0};
    memcpy(sorted, series->values, series->count * sizeof(*sorted));
    qsort(sorted, series->count, sizeof(*sorted), compare);
    struct summary summary = {
        .count = series->count,
        .min = sorted[0],
        .p50 = rank(sorted, series->count, 0.5),
        .p90 = rank(sorted, series->count, 0.9),
        .p99 = rank(sorted, series->count, 0.99),
        .max = sorted[series->count - 1],
    };
    free(sorted);
    return summary;
}

double results_median(
    const struct results *results, const char *row, const char *mode, const char *metric)
{
    return results_summary(find(results, row, mode, metric)).p50;
}

struct target *results_target(
    struct results *results, const char *name, const char *text, double limit)
{
    struct target *more =
        grow(results, results->targets, results->target_count, sizeof(*results->targets));
    if (!more)
        return NULL;
    results->targets = more;
    struct target *target = &more[results->target_count];
    *target =
        (struct target){.name = copy(results, name), .text = copy(results, text), .limit = limit};
    if (!target->name || !target->text) {
        free(target->name);
        free(target->text);
        return NULL;
    }
    results->target_count++;
    return target;
}

bool target_is_met(const struct target *target)
{
    if (!target->measured)
        return false;
    if (target->at_least)
        return target->value >= target->limit;
    return target->below ? target->value < target->limit : target->value <= target->limit;
}
