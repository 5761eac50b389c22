/* SPDX-License-Identifier: Apache-2.0 */
/* Role: parse and format names, sizes, numbers, durations and times.
 * Not here: what is a sensible value for an option (cmd_*.c). */
#include "text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_name_char(char c)
{
    return is_alnum(c) || c == '.' || c == '_' || c == '-';
}

bool text_is_name(const char *text)
{
    size_t count = strlen(text);

    if (count == 0 || count >= NAME_BYTES || !is_alnum(text[0]))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!is_name_char(text[i]))
            return false;
    }
    return true;
}

void text_to_name(const char *text, char ret[NAME_BYTES])
{
    size_t used = 0;

    while (*text && !is_alnum(*text))
        text++;
    for (; *text && used < NAME_BYTES - 1; text++)
        ret[used++] = is_name_char(*text) ? *text : '-';
    if (used == 0)
        ret[used++] = 'x';
    ret[used] = '\0';
}

/* Reads digits; *ret_end is the first byte that is none. */
static int parse_digits(const char *text, const char **ret_end, uint64_t *ret)
{
    uint64_t value = 0;

    if (!is_digit(*text))
        return -EINVAL;
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return -ERANGE;
    }
    *ret_end = text;
    *ret = value;
    return 0;
}

int text_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    const char *end;
    uint64_t value;
    int rc = parse_digits(text, &end, &value);

    if (rc < 0)
        return rc;
    if (*end)
        return -EINVAL;
    if (value < min || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

int text_parse_clock(const char *text, enum thaw_clock *ret)
{
    if (strcmp(text, "continue") == 0)
        *ret = THAW_CLOCK_CONTINUE;
    else if (strcmp(text, "host") == 0)
        *ret = THAW_CLOCK_HOST;
    else
        return -EINVAL;
    return 0;
}

int text_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    const char *end, *unit = units + 1;
    uint64_t value;
    int rc = parse_digits(text, &end, &value);

    if (rc < 0)
        return rc;
    if (*end) {
        char upper = (char)(*end >= 'a' && *end <= 'z' ? *end - 'a' + 'A' : *end);

        unit = strchr(units, upper);
        if (!unit || end[1])
            return -EINVAL;
    }
    if (__builtin_mul_overflow(value, UINT64_C(1) << (10 * (unit - units + 1)), &value))
        return -ERANGE;
    *ret_bytes = value;
    return 0;
}

void text_format_size(uint64_t bytes, char ret[TEXT_BYTES])
{
    static const char units[] = "BKMGTPE";
    unsigned unit = 0;
    uint64_t whole = bytes, tenths = 0;

    while (whole >= 1024) {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit++;
    }
    if (tenths)
        snprintf(ret, TEXT_BYTES, "%" PRIu64 ".%" PRIu64 "%c", whole, tenths, units[unit]);
    else
        snprintf(ret, TEXT_BYTES, "%" PRIu64 "%c", whole, units[unit]);
}

void text_format_duration(uint64_t seconds, char ret[TEXT_BYTES])
{
    uint64_t minutes = seconds / 60, hours = minutes / 60, days = hours / 24;

    if (minutes == 0)
        snprintf(ret, TEXT_BYTES, "%" PRIu64 "s", seconds);
    else if (hours == 0)
        snprintf(ret, TEXT_BYTES, "%" PRIu64 "m%02us", minutes, (unsigned)(seconds % 60));
    else if (days == 0)
        snprintf(ret, TEXT_BYTES, "%" PRIu64 "h%02um", hours, (unsigned)(minutes % 60));
    else
        snprintf(ret, TEXT_BYTES, "%" PRIu64 "d%02uh", days % 1000000, (unsigned)(hours % 24));
}

void text_format_time(const struct timespec *time, char ret[TIME_BYTES])
{
    char date[32] = "";
    struct tm tm;

    if (gmtime_r(&time->tv_sec, &tm))
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret, TIME_BYTES, "%s.%03dZ", date, (int)(time->tv_nsec / 1000000));
}

const char *text_query_value(const char *query, const char *key, size_t *ret_count)
{
    size_t key_count = strlen(key);

    while (*query) {
        size_t count = strcspn(query, "&");

        if (count > key_count && query[key_count] == '=' && memcmp(query, key, key_count) == 0) {
            *ret_count = count - key_count - 1;
            return query + key_count + 1;
        }
        query += count + (query[count] == '&');
    }
    return NULL;
}

size_t text_wrap(const char *text, size_t width, size_t *ret_skip)
{
    size_t count = strlen(text), at;

    if (count <= width) {
        *ret_skip = count;
        return count;
    }
    for (at = width; at > 0 && text[at] != ' '; at--)
        ;
    if (at == 0) {
        *ret_skip = width;
        return width;
    }
    *ret_skip = at + 1;
    return at;
}
