/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw verify`: read a whole snapshot and say whether it is as it was written.
 * Not here: the checks, which are the library's. */
#include "commands.h"
#include "job.h"
#include "snapshot_json.h"
#include "storage.h"

static int run_verify(struct cli *cli)
{
    struct thaw_error error = {0};
    thaw_store *store = NULL;
    thaw_job *job = NULL;
    json_t *snapshot = NULL;
    const char *ref;
    int rc;

    if (cli_one_operand(cli, "the snapshot", &ref) == CLI_STOP)
        return cli->status;
    rc = storage_open(cli, &store, &error);
    if (rc == 0)
        rc = thaw_snapshot_verify(store, ref, &job, &error);
    if (rc == 0)
        rc = job_follow(job, ref, &error);
    thaw_job_free(job);
    if (rc == 0 && cli->json)
        rc = snapshot_json_find(store, ref, &snapshot, &error);
    thaw_store_close(store);
    if (rc < 0)
        return cli_report(&error);
    if (cli->json) {
        json_object_set_new(snapshot, "ok", json_true());
        cli_print_json(snapshot);
    } else {
        printf("ok\n");
    }
    return CLI_OK;
}

const struct cli_command cmd_verify = {
    .name = "verify",
    .operands = "SNAPSHOT",
    .summary = "Read every byte of a snapshot and check it",
    .notes = "Prints 'ok'; or names the first bad file and the offset in it, with exit status 1.",
    .run = run_verify,
};
