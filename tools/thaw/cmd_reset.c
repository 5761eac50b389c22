/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw reset`.
 * Not here: how a VM of another process is asked (control.c). */
#include "commands.h"
#include "control.h"
#include "text.h"

enum {
    OPTION_CLOCK = 1,
};

static const struct cli_option options[] = {
    {OPTION_CLOCK, "clock", "CLOCK", "the guest's clocks continue (default), or follow the host"},
    {0},
};

/* The number of names, which are in cli->args' beginning, or CLI_STOP. */
static int parse(struct cli *cli, const char **ret_clock)
{
    char **names = cli->args;
    enum thaw_clock clock;
    int option, count = 0;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP)
            return CLI_STOP;
        if (option == CLI_OPERAND)
            names[count++] = cli->args[-1]; /* never overtakes what is still to be read */
        else if (text_parse_clock(cli->value, &clock) < 0)
            return cli_usage(
                cli, "'%s' is no clock policy: there are continue and host", cli->value);
        else
            *ret_clock = cli->value;
    }
    return count > 0 ? count : cli_usage(cli, "the VM's name is missing");
}

static int run_reset(struct cli *cli)
{
    char **names = cli->args;
    const char *clock = "continue";
    int status = CLI_OK, count = parse(cli, &clock);

    if (count == CLI_STOP)
        return cli->status;
    for (int i = 0; i < count; i++) {
        struct thaw_error error = {0};
        json_t *vm = NULL;

        if (control_reset(names[i], clock, &vm, &error) < 0)
            status = cli_report(&error);
        else
            cli_print_result(cli, vm);
    }
    return status;
}

const struct cli_command cmd_reset = {
    .name = "reset",
    .operands = "NAME...",
    .summary = "Put VMs back to the snapshot that they were restored from",
    .notes = "What they did since is lost. They are paused afterwards, until 'thaw resume'.",
    .options = options,
    .run = run_reset,
};
