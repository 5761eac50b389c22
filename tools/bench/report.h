/* SPDX-License-Identifier: Apache-2.0 */
/* The reports: JSON for programs, HTML for people. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench.h"
#include <jansson.h>

/* {"version", "quick", "nonce", "environment": {...}, "series": [{"row", "mode", "metric",
 * "unit", "count", "min", "p50", "p90", "p99", "max", "samples": [...]}], "targets": [{"name",
 * "target", "limit", "at_least", "value", "met", "note"}], "skipped": [{"row", "reason"}]}. What
 * was not measured has value and met null. */
int report_write_json(
    const struct bench *bench, const json_t *environment, struct thaw_error *error);

int report_write_html(
    const struct bench *bench, const json_t *environment, struct thaw_error *error);

#endif
