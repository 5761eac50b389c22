// SPDX-License-Identifier: Apache-2.0
// Finds key=value words in the command line. Walks the string anew for every option: a guest asks
// for a handful, once. Words that nobody asks for are ignored, a kernel command line has many.
#include "guest.h"

static const char *skip_word(const char *s)
{
    while (*s && *s != ' ')
        s++;
    while (*s == ' ')
        s++;
    return s;
}

const char *option_find(const char *words, const char *key)
{
    for (const char *s = words; *s; s = skip_word(s)) {
        size_t i = 0;

        while (key[i] && s[i] == key[i])
            i++;
        if (!key[i] && s[i] == '=')
            return s + i + 1;
    }
    return NULL;
}

bool option_is(const char *cmdline, const char *key, const char *value)
{
    const char *s = option_find(cmdline, key);

    if (!s)
        return false;
    while (*value && *s == *value) {
        s++;
        value++;
    }
    return !*value && (!*s || *s == ' ');
}

const char *parse_u64(const char *text, uint64_t *ret_value)
{
    bool hex = text[0] == '0' && text[1] == 'x';
    const char *digits = hex ? text + 2 : text, *s = digits;
    uint64_t value = 0;

    for (;; s++) {
        if (*s >= '0' && *s <= '9')
            value = value * (hex ? 16 : 10) + (uint64_t)(*s - '0');
        else if (hex && *s >= 'a' && *s <= 'f')
            value = value * 16 + (uint64_t)(*s - 'a' + 10);
        else
            break;
    }
    if (s == digits)
        return text;
    *ret_value = value;
    return s;
}

uint64_t option_u64(const char *cmdline, const char *key, uint64_t fallback)
{
    const char *s = option_find(cmdline, key), *end;
    uint64_t value = fallback;

    if (!s)
        return fallback;
    end = parse_u64(s, &value);
    if (end == s || (*end && *end != ' '))
        fail("option %s= is not a number", key);
    return value;
}

void option_copy(const char *cmdline, const char *key, char *ret_value, size_t value_size)
{
    const char *s = option_find(cmdline, key);
    size_t n = 0;

    while (s && *s && *s != ' ' && n + 1 < value_size)
        ret_value[n++] = *s++;
    ret_value[n] = '\0';
}
