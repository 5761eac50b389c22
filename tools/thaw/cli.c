/* SPDX-License-Identifier: Apache-2.0 */
/* Role: parse arguments by a command's option table, print help and errors.
 * Not here: what any option means (cmd_*.c) and the syntax of values (text.c). */
#include "cli.h"
#include "fail.h"
#include "text.h"
#include "vm_json.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum {
    OPTION_HELP = 1000,
    OPTION_JSON,
    OPTION_STORE,
};

static const struct cli_option common_options[] = {
    {OPTION_JSON, "json", NULL, "print JSON instead of text"},
    {OPTION_STORE, "store", "DIR", "where snapshots are kept (default: $THAW_STORE)"},
    {OPTION_HELP, "help", NULL, "print this help"},
    {0},
};

static void error_line(const char *message, const char *suffix)
{
    char line[1024];
    size_t used = (size_t)snprintf(line, sizeof(line), "thaw: %s", message);

    if (used >= sizeof(line))
        used = sizeof(line) - 1;
    for (size_t i = 0; i < used; i++) {
        if (iscntrl((unsigned char)line[i]))
            line[i] = '?';
    }
    fprintf(stderr, "%s%s\n", line, suffix);
}

int cli_error(const char *format, ...)
{
    char message[1000];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    error_line(message, "");
    return CLI_FAILED;
}

int cli_report(const struct thaw_error *error)
{
    return cli_error("%s", error->message[0] ? error->message : thaw_strerror(error->code));
}

int cli_usage(struct cli *cli, const char *format, ...)
{
    char message[1000], hint[80];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (cli->command)
        snprintf(hint, sizeof(hint), "; see 'thaw %s --help'", cli->command->name);
    else
        snprintf(hint, sizeof(hint), "; see 'thaw --help'");
    error_line(message, hint);
    cli->status = CLI_USAGE;
    return CLI_STOP;
}

void cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT);
    fputc('\n', stdout);
    json_decref(value);
}

void cli_print_result(const struct cli *cli, json_t *value)
{
    if (cli->json && value)
        cli_print_json(value);
    else
        json_decref(value);
}

void cli_print_made(const struct cli *cli, json_t *value)
{
    if (!cli->json)
        printf("%s\n", vm_json_get(value, "name"));
    cli_print_result(cli, value);
}

static void print_options(const struct cli_option *options)
{
    for (; options && options->id; options++) {
        char left[40];

        snprintf(left, sizeof(left), "--%s%s%s", options->name, options->arg ? " " : "",
            options->arg ? options->arg : "");
        printf("  %-18s %s\n", left, options->help);
    }
}

void cli_help(const struct cli_command *command)
{
    printf("usage: thaw %s%s%s\n\n%s.\n\n", command->name, *command->operands ? " " : "",
        command->operands, command->summary);
    print_options(command->options);
    print_options(common_options);
    if (command->notes)
        printf("\n%s\n", command->notes);
}

/* Finds --name or --name=value; *ret_inline is the value after '=', or NULL. */
static const struct cli_option *find_option(
    const struct cli_option *options, const char *text, const char **ret_inline)
{
    size_t count = strcspn(text, "=");

    for (; options && options->id; options++) {
        if (strlen(options->name) == count && memcmp(options->name, text, count) == 0) {
            *ret_inline = text[count] ? text + count + 1 : NULL;
            return options;
        }
    }
    return NULL;
}

/* Consumes the option at args[0] and sets cli->value. Returns how many arguments it took, or
 * CLI_STOP. */
static int take_value(
    struct cli *cli, const struct cli_option *option, char **args, const char *inline_value)
{
    cli->value = inline_value;
    if (!option->arg)
        return inline_value ? cli_usage(cli, "option '--%s' takes no argument", option->name) : 1;
    if (inline_value)
        return 1;
    if (!args[1])
        return cli_usage(cli, "option '--%s' needs an argument (%s)", option->name, option->arg);
    cli->value = args[1];
    return 2;
}

int cli_take_common(struct cli *cli, char **args)
{
    const char *inline_value;
    const struct cli_option *option;
    int taken;

    if (strncmp(args[0], "--", 2) != 0)
        return 0;
    option = find_option(common_options, args[0] + 2, &inline_value);
    if (!option || option->id == OPTION_HELP)
        return 0;
    taken = take_value(cli, option, args, inline_value);
    if (taken < 0)
        return taken;
    if (option->id == OPTION_JSON)
        cli->json = true;
    else if (*cli->value)
        cli->store = cli->value;
    else
        return cli_usage(cli, "option '--store' needs an argument (DIR)");
    return taken;
}

static int take_option(struct cli *cli)
{
    const char *text = *cli->args, *inline_value;
    const struct cli_option *option;
    int taken;

    if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
        cli_help(cli->command);
        cli->status = CLI_OK;
        return CLI_STOP;
    }
    taken = cli_take_common(cli, cli->args);
    if (taken != 0) {
        cli->args += MAX(taken, 0);
        return taken < 0 ? CLI_STOP : cli_next(cli);
    }
    if (text[1] != '-' || !(option = find_option(cli->command->options, text + 2, &inline_value)))
        return cli_usage(cli, "unknown option '%s'", text);
    taken = take_value(cli, option, cli->args, inline_value);
    if (taken < 0)
        return CLI_STOP;
    cli->args += taken;
    return option->id;
}

int cli_next(struct cli *cli)
{
    const char *text = *cli->args;

    if (!text)
        return CLI_END;
    if (!cli->operands_only && strcmp(text, "--") == 0) {
        cli->operands_only = true;
        cli->args++;
        return cli_next(cli);
    }
    if (!cli->operands_only && text[0] == '-' && text[1])
        return take_option(cli);
    cli->value = text;
    cli->args++;
    return CLI_OPERAND;
}

int cli_no_operand(struct cli *cli)
{
    int next = cli_next(cli);

    return next == CLI_OPERAND ? cli_usage(cli, "unexpected argument '%s'", cli->value) : next;
}

int cli_operands(struct cli *cli, const char *what, char ***ret)
{
    char **first = cli->args, **end = first;
    int next;

    while ((next = cli_next(cli)) != CLI_END) {
        if (next == CLI_STOP)
            return CLI_STOP;
        *end++ = cli->args[-1]; /* never overtakes what is still to be read */
    }
    if (end == first)
        return cli_usage(cli, "%s is missing", what);
    *ret = first;
    return (int)(end - first);
}

int cli_one_operand(struct cli *cli, const char *what, const char **ret)
{
    char **operands;
    int count = cli_operands(cli, what, &operands);

    if (count > 1)
        return cli_usage(cli, "unexpected argument '%s'", operands[1]);
    if (count == 1)
        *ret = operands[0];
    return count == 1 ? 0 : CLI_STOP;
}

int cli_take_name(struct cli *cli, const char *what, const char **ret)
{
    if (!text_is_name(cli->value))
        return cli_usage(cli,
            "'%s' is no %s: it takes 1 to 64 letters, digits, '.', '_' and '-', and begins with a "
            "letter or digit",
            cli->value, what);
    *ret = cli->value;
    return 0;
}

int cli_check_store(const char *dir, struct thaw_error *error)
{
    DIR *opened = opendir(dir);

    if (!opened)
        return errno == ENOENT ? 0 : fail_errno(error, errno, "cannot read the store '%s'", dir);
    closedir(opened);
    if (access(dir, R_OK | X_OK) != 0)
        return fail_errno(error, errno, "cannot read the store '%s'", dir);
    return 0;
}
