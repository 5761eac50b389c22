/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw rm`: delete snapshots.
 * Not here: what may be deleted, which the library decides. */
#include "commands.h"
#include "snapshot_json.h"
#include "storage.h"

static int remove_one(
    const struct cli *cli, thaw_store *store, const char *ref, struct thaw_error *error)
{
    json_t *snapshot = NULL;
    int rc = cli->json ? snapshot_json_find(store, ref, &snapshot, error) : 0;

    if (rc == 0)
        rc = thaw_store_delete(store, ref, error);
    if (rc == 0 && snapshot) {
        json_object_set_new(snapshot, "state", json_string("deleted"));
        cli_print_json(snapshot);
    } else {
        json_decref(snapshot);
    }
    return rc;
}

static int run_rm(struct cli *cli)
{
    struct thaw_error error = {0};
    thaw_store *store;
    char **refs;
    int status = CLI_OK, count = cli_operands(cli, "the snapshot", &refs);

    if (count == CLI_STOP)
        return cli->status;
    if (storage_open(cli, &store, &error) < 0)
        return cli_report(&error);
    for (int i = 0; i < count; i++) {
        if (remove_one(cli, store, refs[i], &error) < 0)
            status = cli_report(&error);
    }
    thaw_store_close(store);
    return status;
}

const struct cli_command cmd_rm = {
    .name = "rm",
    .operands = "SNAPSHOT...",
    .summary = "Delete snapshots, or the records of failed ones",
    .notes =
        "A snapshot cannot be deleted while a VM uses it. Others that share its data keep it.\n"
        "If one of several cannot be deleted, the others are tried nevertheless.",
    .run = run_rm,
};
