/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw inspect`: what a snapshot says of itself, laid out for people.
 * Not here: what that is; whatever the library tells is shown. */
#include "commands.h"
#include "storage.h"
#include "text.h"
#include <inttypes.h>
#include <string.h>
#include <thaw/snapshot.h>

#define INDENT     2
#define TEXT_SHOWN 72 /* of a long text, such as bytes in hexadecimal */

static bool ends_with(const char *text, const char *end)
{
    size_t count = strlen(text), end_count = strlen(end);

    return count >= end_count && strcmp(text + count - end_count, end) == 0;
}

static bool is_plain(const json_t *value)
{
    return !json_is_object(value) && !json_is_array(value);
}

static bool is_empty(const json_t *value)
{
    return !is_plain(value) && json_array_size(value) == 0 && json_object_size(value) == 0;
}

/* True if all that is in it is plain. */
static bool is_flat(const json_t *value)
{
    json_t *member;
    const char *key;
    size_t i;

    if (json_is_array(value)) {
        json_array_foreach(value, i, member)
        {
            if (!is_plain(member))
                return false;
        }
    }
    json_object_foreach((json_t *)value, key, member)
    {
        if (!is_plain(member))
            return false;
    }
    return true;
}

static void print_number(const char *key, json_int_t number)
{
    uint64_t value = (uint64_t)number;
    struct timespec time = {
        .tv_sec = (time_t)(value / 1000000000), .tv_nsec = (long)(value % 1000000000)};
    char text[TIME_BYTES];

    if (strcmp(key, "created_ns") == 0) {
        text_format_time(&time, text);
        printf("%s", text);
        return;
    }
    printf("%" JSON_INTEGER_FORMAT, number);
    if (ends_with(key, "bytes") && value >= 1024) {
        text_format_size(value, text);
        printf(" (%s)", text);
    }
}

static void print_text(const char *text)
{
    size_t count = strlen(text), shown = count > 2 * TEXT_SHOWN ? TEXT_SHOWN : count;

    for (size_t i = 0; i < shown; i++)
        putchar((unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
    if (shown < count)
        printf("... (%zu characters)", count);
}

static void print_plain(const char *key, const json_t *value)
{
    _cleanup_free_ char *text = NULL;

    if (json_is_string(value)) {
        print_text(json_string_value(value));
    } else if (json_is_integer(value)) {
        print_number(key, json_integer_value(value));
    } else if (json_is_null(value)) {
        putchar('-');
    } else {
        text = json_dumps(value, JSON_ENCODE_ANY);
        fputs(text ? text : "", stdout);
    }
}

/* On one line. */
static void print_flat(const json_t *value)
{
    const char *separator = "", *key;
    json_t *member;
    size_t i;

    json_array_foreach(value, i, member)
    {
        printf("%s", separator);
        print_plain("", member);
        separator = ", ";
    }
    json_object_foreach((json_t *)value, key, member)
    {
        printf("%s%s ", separator, key);
        print_plain(key, member);
        separator = ", ";
    }
}

static void print_members(const json_t *value, int indent);

static void print_item(const json_t *item, int indent)
{
    printf("%*s-%s", indent, "", is_flat(item) ? " " : "\n");
    if (!is_flat(item)) {
        print_members(item, indent + INDENT);
        return;
    }
    if (is_plain(item))
        print_plain("", item);
    else
        print_flat(item);
    putchar('\n');
}

/* The library's text is at most as deep as its own decoder allows. */
static void print_members(const json_t *value, int indent)
{
    const char *key;
    json_t *member;
    size_t i;

    json_array_foreach(value, i, member)
    {
        print_item(member, indent);
    }
    json_object_foreach((json_t *)value, key, member)
    {
        printf("%*s%s:", indent, "", key);
        if (is_plain(member) || is_empty(member) || (json_is_array(member) && is_flat(member))) {
            putchar(' ');
            if (is_empty(member))
                putchar('-');
            else if (is_plain(member))
                print_plain(key, member);
            else
                print_flat(member);
            putchar('\n');
        } else {
            putchar('\n');
            print_members(member, indent + INDENT);
        }
    }
}

static int run_inspect(struct cli *cli)
{
    struct thaw_error error = {0};
    _cleanup_json_ json_t *json = NULL;
    thaw_store *store = NULL;
    const char *ref;
    char *text;
    int rc;

    if (cli_one_operand(cli, "the snapshot", &ref) == CLI_STOP)
        return cli->status;
    rc = storage_open(cli, &store, &error);
    if (rc == 0)
        rc = thaw_snapshot_inspect(store, ref, &text, &error);
    thaw_store_close(store);
    if (rc < 0)
        return cli_report(&error);
    if (!cli->json)
        json = json_loads(text, 0, NULL);
    if (json)
        print_members(json, 0);
    else
        printf("%s\n", text);
    thaw_text_free(text);
    return CLI_OK;
}

const struct cli_command cmd_inspect = {
    .name = "inspect",
    .operands = "SNAPSHOT",
    .summary = "Show all that a snapshot says of itself",
    .notes = "The manifest, every record of the VM's state, and what its memory and disks consist\n"
             "of. --json prints it as the library tells it.",
    .run = run_inspect,
};
