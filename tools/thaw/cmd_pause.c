/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw pause` and `thaw resume`.
 * Not here: how a VM of another process is asked (control.c). */
#include "commands.h"
#include "control.h"

static int set_states(struct cli *cli, enum thaw_vm_state state)
{
    char **names;
    int status = CLI_OK, count = cli_operands(cli, "the VM's name", &names);

    if (count == CLI_STOP)
        return cli->status;
    for (int i = 0; i < count; i++) {
        struct thaw_error error = {0};
        json_t *vm = NULL;

        if (control_set_state(names[i], state, &vm, &error) < 0)
            status = cli_report(&error);
        else
            cli_print_result(cli, vm);
    }
    return status;
}

static int run_pause(struct cli *cli)
{
    return set_states(cli, THAW_VM_PAUSED);
}

static int run_resume(struct cli *cli)
{
    return set_states(cli, THAW_VM_RUNNING);
}

const struct cli_command cmd_pause = {
    .name = "pause",
    .operands = "NAME...",
    .summary = "Pause running VMs, and wait until they are paused",
    .notes = "A VM that is paused already is fine.",
    .run = run_pause,
};

const struct cli_command cmd_resume = {
    .name = "resume",
    .operands = "NAME...",
    .summary = "Let paused VMs run again",
    .notes = "A VM that is running already is fine.",
    .run = run_resume,
};
