/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw stop`.
 * Not here: how a VM of another process is stopped (control.c). */
#include "commands.h"
#include "control.h"

static int run_stop(struct cli *cli)
{
    char **names;
    int status = CLI_OK, count = cli_operands(cli, "the VM's name", &names);

    if (count == CLI_STOP)
        return cli->status;
    for (int i = 0; i < count; i++) {
        struct thaw_error error = {0};
        json_t *vm = NULL;

        if (control_stop(names[i], &vm, &error) < 0)
            status = cli_report(&error);
        else
            cli_print_result(cli, vm);
    }
    return status;
}

const struct cli_command cmd_stop = {
    .name = "stop",
    .operands = "NAME...",
    .summary = "Stop VMs, and wait until their processes are gone",
    .notes = "The guest is not asked, and what is only in the VM is lost. Of a VM that has ended\n"
             "already, the record that 'thaw ps' shows is removed.",
    .run = run_stop,
};
