/* SPDX-License-Identifier: Apache-2.0 */
/* The syntax of values that people type, and of values that are shown to them. Pure functions. */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <thaw/snapshot.h>
#include <time.h>

#define NAME_BYTES 65 /* the longest name and its NUL */
#define TEXT_BYTES 24 /* of a formatted size or duration */
#define TIME_BYTES 64 /* of a formatted time */

/* A name is [A-Za-z0-9][A-Za-z0-9._-]{0,63}. */
bool text_is_name(const char *text);

/* Makes a name of any text: what a name may not hold becomes '-'. */
void text_to_name(const char *text, char ret[NAME_BYTES]);

/* A memory size: decimal digits and an optional K, M, G or T (binary units, either case); a plain
 * number counts MiB. Returns 0, -EINVAL (not of that form) or -ERANGE (beyond 64 bits). */
int text_parse_size(const char *text, uint64_t *ret_bytes);

/* Decimal digits only, min to max. Returns 0, -EINVAL or -ERANGE. */
int text_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* What the guest's clocks do: "continue" or "host". Returns 0 or -EINVAL. */
int text_parse_clock(const char *text, enum thaw_clock *ret);

/* "512M", "1.5G": the largest binary unit, one decimal where it is needed. */
void text_format_size(uint64_t bytes, char ret[TEXT_BYTES]);

/* "42s", "3m07s", "5h02m", "12d04h". */
void text_format_duration(uint64_t seconds, char ret[TEXT_BYTES]);

/* RFC 3339 in UTC with milliseconds: "2026-01-31T12:00:00.000Z". */
void text_format_time(const struct timespec *time, char ret[TIME_BYTES]);

/* Finds key=value in an URL's query. Returns the value's first byte and its length, or NULL. */
const char *text_query_value(const char *query, const char *key, size_t *ret_count);

/* The number of bytes of `text` that fit on a line of `width`, broken at a blank where possible;
 * *ret_skip is where the next line starts. */
size_t text_wrap(const char *text, size_t width, size_t *ret_skip);

#endif
