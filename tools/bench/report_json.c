// SPDX-License-Identifier: Apache-2.0
// Writes the results as JSON, every raw sample included. Computes nothing but percentiles.

#include "report.h"

static json_t *describe_series(const struct series *series)
{
    struct summary summary = results_summary(series);
    json_t *samples = json_array();
    for (size_t i = 0; i < series->count; i++)
        json_array_append_new(samples, json_real(series->values[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "row", series->row,
        "mode", series->mode, "metric", series->metric, "unit", series->unit, "count",
        (json_int_t)summary.count, "min", summary.min, "p50", summary.p50, "p90", summary.p90,
        "p99", summary.p99, "max", summary.max, "samples", samples);
}

static json_t *describe_target(const struct target *target)
{
    json_t *object = json_pack("{s:s, s:s, s:f, s:b, s:s?}", "name", target->name, "target",
        target->text, "limit", target->limit, "at_least", target->at_least, "note", target->note);
    json_object_set_new(object, "value", target->measured ? json_real(target->value) : json_null());
    json_object_set_new(
        object, "met", target->measured ? json_boolean(target_is_met(target)) : json_null());
    return object;
}

static json_t *describe(const struct bench *bench, const json_t *environment)
{
    const struct results *results = &bench->results;
    json_t *series = json_array(), *targets = json_array(), *skipped = json_array();
    for (size_t i = 0; i < results->series_count; i++)
        json_array_append_new(series, describe_series(&results->series[i]));
    for (size_t i = 0; i < results->target_count; i++)
        json_array_append_new(targets, describe_target(&results->targets[i]));
    for (size_t i = 0; i < results->skip_count; i++)
        json_array_append_new(skipped, json_pack("{s:s, s:s}", "row", results->skips[i].row,
                                           "reason", results->skips[i].reason));
    return json_pack("{s:s, s:b, s:s, s:O, s:o, s:o, s:o}", "version", thaw_version(), "quick",
        bench->options.quick, "nonce", bench->nonce, "environment",
        (json_t *)(uintptr_t)environment, "targets", targets, "skipped", skipped, "series", series);
}

int report_write_json(
    const struct bench *bench, const json_t *environment, struct thaw_error *error)
{
    json_t *report = describe(bench, environment);
    if (!report)
        return bench_fail(error, -ENOMEM, "no memory for the report");
    int r =
        json_dump_file(report, bench->options.json_path, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(report);
    return r < 0 ? bench_errno(error, "writing %s", bench->options.json_path) : 0;
}
