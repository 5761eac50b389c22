/* SPDX-License-Identifier: Apache-2.0 */
/* Role: find the subcommand and run it.
 * Not here: everything else. */
#include "commands.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <thaw/version.h>

#define COMMAND_POINTER(name) &cmd_##name,
static const struct cli_command *const commands[] = {COMMANDS(COMMAND_POINTER)};
#undef COMMAND_POINTER

static void print_help(void)
{
    printf("usage: thaw [--store DIR] [--json] COMMAND [ARGUMENT]...\n\n"
           "Runs microVMs, freezes them into snapshots, and thaws these.\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n  --help     print this help, as -h and 'help' do; 'thaw COMMAND --help' and\n"
           "             'thaw help COMMAND' explain a command\n"
           "  --version  print the version\n\n"
           "Exit status: 0 success, 1 failure, 2 wrong usage.\n");
}

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static int help(struct cli *cli, const char *name)
{
    if (!name) {
        print_help();
        return CLI_OK;
    }
    if (!find_command(name)) {
        cli_usage(cli, "unknown command '%s'", name);
        return CLI_USAGE;
    }
    cli_help(find_command(name));
    return CLI_OK;
}

static int dispatch(char **args)
{
    const char *store = getenv("THAW_STORE");
    struct cli cli = {.store = store && *store ? store : NULL};

    for (; *args; args++) {
        int taken = cli_take_common(&cli, args);

        if (taken < 0)
            return cli.status;
        if (taken == 0)
            break;
        args += taken - 1;
    }
    if (!*args) {
        cli_usage(&cli, "a command is missing");
        return CLI_USAGE;
    }
    if (strcmp(*args, "--help") == 0 || strcmp(*args, "-h") == 0 || strcmp(*args, "help") == 0)
        return help(&cli, args[1]);
    if (strcmp(*args, "--version") == 0) {
        printf("thaw %s\n", thaw_version());
        return CLI_OK;
    }
    cli.command = find_command(*args);
    if (!cli.command) {
        cli_usage(&cli, "unknown %s '%s'", **args == '-' ? "option" : "command", *args);
        return CLI_USAGE;
    }
    cli.args = args + 1;
    return cli.command->run(&cli);
}

/* A descriptor opened later must not become stdin, stdout or stderr by accident. */
static void fill_standard_fds(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    int status;

    fill_standard_fds();
    status = dispatch(argv + (argc > 0));
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_error("cannot write the output: %s", strerror(errno));
    return status;
}
