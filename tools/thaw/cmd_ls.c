/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw ls`: snapshots as a table or as JSON.
 * Not here: finding them, which is the library's. */
#include "commands.h"
#include "snapshot_json.h"
#include "storage.h"
#include "table.h"
#include "text.h"
#include "vm_json.h"
#include <errno.h>
#include <string.h>

#define PAGE_SIZE     50 /* where --page is given alone */
#define PAGE_SIZE_MAX 1000000
#define ID_COLUMNS    12 /* of an id, enough to refer to it */

enum {
    OPTION_SOURCE = 1,
    OPTION_TEMPLATE,
    OPTION_STATE,
    OPTION_QUERY,
    OPTION_PAGE,
    OPTION_PAGE_SIZE,
};

static const struct cli_option options[] = {
    {OPTION_SOURCE, "source", "NAME", "only those that were taken of this VM"},
    {OPTION_TEMPLATE, "template", "NAME", "only those whose VM was created from this"},
    {OPTION_STATE, "state", "STATE",
        "only creating, ready, failed, deleting or damaged ones; may be repeated"},
    {OPTION_QUERY, "query", "TEXT", "only those with this in their name, or before their id"},
    {OPTION_PAGE, "page", "N", "show this page, from 1"},
    {OPTION_PAGE_SIZE, "page-size", "N", "how many are on a page (default: all; with --page 50)"},
    {0},
};

static int set_state(struct cli *cli, struct thaw_snapshot_query *query)
{
    for (unsigned i = THAW_SNAPSHOT_CREATING; i <= THAW_SNAPSHOT_DAMAGED; i++) {
        if (strcmp(cli->value, thaw_snapshot_state_name((enum thaw_snapshot_state)i)) == 0) {
            query->states |= 1u << i;
            return 0;
        }
    }
    return cli_usage(cli,
        "'%s' is no state: there are creating, ready, failed, deleting and damaged", cli->value);
}

static int set_number(struct cli *cli, const char *what, uint64_t max, uint32_t *ret)
{
    uint64_t number;

    if (text_parse_number(cli->value, 1, max, &number) < 0)
        return cli_usage(cli, "'%s' is no %s from 1 to %u", cli->value, what, (unsigned)max);
    *ret = (uint32_t)number;
    return 0;
}

static int take_option(struct cli *cli, struct thaw_snapshot_query *query, int option)
{
    switch (option) {
    case OPTION_SOURCE:
        query->source = cli->value;
        return 0;
    case OPTION_TEMPLATE:
        query->template_name = cli->value;
        return 0;
    case OPTION_STATE:
        return set_state(cli, query);
    case OPTION_QUERY:
        query->text = cli->value;
        return 0;
    case OPTION_PAGE:
        return set_number(cli, "page", UINT32_MAX, &query->page);
    case OPTION_PAGE_SIZE:
        return set_number(cli, "page size", PAGE_SIZE_MAX, &query->page_size);
    default:
        return cli_usage(cli, "unexpected argument '%s'", cli->value);
    }
}

static int parse(struct cli *cli, struct thaw_snapshot_query *query)
{
    int option;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP || take_option(cli, query, option) == CLI_STOP)
            return CLI_STOP;
    }
    if (query->page && !query->page_size)
        query->page_size = PAGE_SIZE;
    return 0;
}

/* list NULL: there is no store, and so there are no snapshots. */
static int print_json(const thaw_snapshot_list *list)
{
    json_t *items = json_array();
    size_t count = list ? thaw_snapshot_list_count(list) : 0;

    for (size_t i = 0; i < count; i++)
        json_array_append_new(items, snapshot_json_new(thaw_snapshot_list_get(list, i)));
    cli_print_json(json_pack("{s:o, s:I}", "items", items, "total",
        (json_int_t)(list ? thaw_snapshot_list_total(list) : 0)));
    return CLI_OK;
}

static int add_row(struct table *table, const struct thaw_snapshot_info *info)
{
    struct timespec time = {.tv_sec = (time_t)(info->created_ns / 1000000000)};
    char id[ID_COLUMNS + 1], created[TIME_BYTES], mem[TEXT_BYTES], stored[TEXT_BYTES],
        shared[TEXT_BYTES];
    const char *cells[] = {info->name, id, thaw_snapshot_state_name(info->state), created,
        info->source, info->template_name, mem, stored, shared, info->error};

    snprintf(id, sizeof(id), "%s", info->id);
    text_format_time(&time, created);
    memcpy(created + strlen(created) - strlen(".000Z"), "Z", 2);
    if (info->created_ns == 0)
        *created = '\0';
    text_format_size(info->mem_bytes, mem);
    text_format_size(info->stored_bytes, stored);
    text_format_size(info->shared_bytes, shared);
    return table_add(table, cells);
}

static int print_table(const thaw_snapshot_list *list)
{
    static const char *const head[] = {
        "NAME", "ID", "STATE", "CREATED", "SOURCE", "TEMPLATE", "MEM", "STORED", "SHARED", "ERROR"};
    struct table *table = table_new(head, ARRAY_SIZE(head));
    size_t count = list ? thaw_snapshot_list_count(list) : 0;
    size_t total = list ? thaw_snapshot_list_total(list) : 0;
    int rc = table ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = add_row(table, thaw_snapshot_list_get(list, i));
    if (rc == 0)
        table_print(table);
    table_free(table);
    if (rc == 0 && count < total)
        printf("%zu of %zu\n", count, total);
    return rc < 0 ? cli_error("out of memory") : CLI_OK;
}

static int run_ls(struct cli *cli)
{
    struct thaw_snapshot_query query = {.size = sizeof(query)};
    struct thaw_error error = {0};
    thaw_snapshot_list *list = NULL;
    thaw_store *store = NULL;
    int rc, status;

    if (parse(cli, &query) == CLI_STOP)
        return cli->status;
    rc = storage_open(cli, &store, &error);
    if (rc == 0)
        rc = thaw_store_list(store, &query, &list, &error);
    else if (rc == -ENOENT && storage_is_unused(cli))
        rc = 0;
    if (rc < 0)
        status = cli_report(&error);
    else
        status = cli->json ? print_json(list) : print_table(list);
    thaw_snapshot_list_free(list);
    thaw_store_close(store);
    return status;
}

const struct cli_command cmd_ls = {
    .name = "ls",
    .operands = "[OPTION]...",
    .summary = "List snapshots, the newest first",
    .notes = "STORED is what a snapshot has for itself, SHARED what it shares with its ancestors.\n"
             "A store that has not been made yet is an empty one.",
    .options = options,
    .run = run_ls,
};
