/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as text where memory may run out: never taken for bad text, and nothing is left out. */
#ifndef TOOLS_JSON_TEXT_H
#define TOOLS_JSON_TEXT_H

#include "util.h"

/* *ret is the caller's. -EINVAL: it is no JSON, or has a key twice. -ENOMEM. */
int json_text_parse(const char *text, size_t count, json_t **ret);

/* On one line; `json` may be NULL. Malloced, with a NUL that *ret_count does not count; NULL: no
 * memory. */
char *json_text_make(const json_t *json, size_t *ret_count);

/* Whether a parser's error, zeroed before, is one of the text: for memory that it lacked, it
 * mostly has no words. */
bool json_text_is_wrong(const json_error_t *problem);

#endif
