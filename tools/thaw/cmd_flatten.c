/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw flatten`: copy a snapshot into one that shares nothing with others.
 * Not here: doing it, which is the library's. */
#include "commands.h"
#include "job.h"
#include "snapshot_json.h"
#include "storage.h"

enum {
    OPTION_NAME = 1
};

static const struct cli_option options[] = {
    {OPTION_NAME, "name", "NAME", "what the new snapshot is called (default: TEMPLATE-XXXXXX)"},
    {0},
};

static int parse(struct cli *cli, const char **ret_ref, const char **ret_name)
{
    int option;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP)
            return CLI_STOP;
        if (option == OPTION_NAME) {
            if (cli_take_name(cli, "snapshot name", ret_name) == CLI_STOP)
                return CLI_STOP;
        } else if (*ret_ref) {
            return cli_usage(cli, "unexpected argument '%s'", cli->value);
        } else {
            *ret_ref = cli->value;
        }
    }
    return *ret_ref ? 0 : cli_usage(cli, "the snapshot is missing");
}

static int flatten(const struct cli *cli, const char *ref, const char *name, json_t **ret,
    struct thaw_error *error)
{
    struct thaw_snapshot_result result = {.size = sizeof(result)};
    thaw_store *store = NULL;
    thaw_job *job = NULL;
    int rc = storage_open(cli, &store, error);

    if (rc == 0)
        rc = thaw_snapshot_flatten(store, ref, name, &job, error);
    if (rc == 0)
        rc = job_follow(job, ref, error);
    if (rc == 0)
        rc = thaw_job_get_snapshot(job, &result);
    if (rc == 0)
        rc = snapshot_json_find(store, result.id, ret, error);
    thaw_job_free(job);
    thaw_store_close(store);
    return rc;
}

static int run_flatten(struct cli *cli)
{
    const char *ref = NULL, *name = NULL;
    struct thaw_error error = {0};
    json_t *snapshot;

    if (parse(cli, &ref, &name) == CLI_STOP)
        return cli->status;
    if (flatten(cli, ref, name, &snapshot, &error) < 0)
        return cli_report(&error);
    cli_print_made(cli, snapshot);
    return CLI_OK;
}

const struct cli_command cmd_flatten = {
    .name = "flatten",
    .operands = "[--name NAME] SNAPSHOT",
    .summary = "Copy a snapshot into a new one that shares data with no other",
    .notes = "Prints the new snapshot's name. The old one stays as it is. Ctrl-C cancels.",
    .options = options,
    .run = run_flatten,
};
