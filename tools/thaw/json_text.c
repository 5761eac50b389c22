/* SPDX-License-Identifier: Apache-2.0 */
/* Role: tell a lack of memory from bad JSON, which the parser's plain results don't.
 * Not here: what JSON means. */
#include "json_text.h"
#include <errno.h>

bool json_text_is_wrong(const json_error_t *problem)
{
    enum json_error_code code = json_error_code(problem);

    return code != json_error_out_of_memory && code != json_error_unknown;
}

/* Returns NULL and whether it is for the text, as far as the parser knows. */
static json_t *parse_once(const char *text, size_t count, bool *ret_wrong)
{
    json_error_t problem = {0};
    json_t *json = json_loadb(text, count, JSON_REJECT_DUPLICATES, &problem);

    *ret_wrong = !json && json_text_is_wrong(&problem);
    return json;
}

/* Twice: where jansson lacks the memory for a token, or for a part of one, it goes on with
 * another. */
int json_text_parse(const char *text, size_t count, json_t **ret)
{
    bool wrong, still_wrong;
    _cleanup_json_ json_t *json = parse_once(text, count, &wrong);
    _cleanup_json_ json_t *again = parse_once(text, count, &still_wrong);

    if (wrong && still_wrong)
        return -EINVAL;
    if (!json_equal(json, again))
        return -ENOMEM;
    *ret = take_ptr(json);
    return 0;
}

/* json_dumps leaves out keys that it lacks memory for. */
char *json_text_make(const json_t *json, size_t *ret_count)
{
    size_t count = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
    _cleanup_free_ char *text = count > 0 ? malloc(count + 1) : NULL;

    if (!text || json_dumpb(json, text, count, JSON_COMPACT) != count)
        return NULL;
    text[count] = '\0';
    *ret_count = count;
    return take_ptr(text);
}
