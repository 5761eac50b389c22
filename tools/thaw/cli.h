/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: option tables, from which both parsing and --help come, and what is said to the
 * user. Every command ends with one of the three statuses below.
 */
#ifndef TOOLS_CLI_H
#define TOOLS_CLI_H

#include "util.h"
#include <thaw/error.h>

enum {
    CLI_OK = 0,
    CLI_FAILED = 1, /* the reason is on stderr, in one line */
    CLI_USAGE = 2,
};

/* What cli_next returns besides an option's id, which is above 0. */
enum {
    CLI_END = 0,      /* nothing is left */
    CLI_OPERAND = -1, /* cli->value is not an option */
    CLI_STOP = -2,    /* help was given or a mistake reported: return cli->status */
};

struct cli_option {
    int id;           /* above 0; 0 ends the table */
    const char *name; /* without the dashes */
    const char *arg;  /* what the argument is called in the help; NULL: a flag */
    const char *help;
};

struct cli;

struct cli_command {
    const char *name;
    const char *operands;             /* for the usage line */
    const char *summary;              /* one line */
    const char *notes;                /* further text under the options; NULL: none */
    const struct cli_option *options; /* NULL: only the common ones */
    int (*run)(struct cli *cli);
};

/* One parse of one command's arguments. Strings are borrowed from argv. */
struct cli {
    const struct cli_command *command;
    char **args; /* NULL-terminated, without the command's name */
    bool operands_only;
    bool json;         /* --json was given */
    const char *store; /* --store, else $THAW_STORE, else NULL */
    const char *value; /* of the option or operand that cli_next returned */
    int status;
};

/* The next option or operand. The common options are handled inside. */
int cli_next(struct cli *cli);

/* For commands that take no operand. Returns 0 or CLI_STOP. */
int cli_no_operand(struct cli *cli);

/* All operands of commands that have only the common options, at least one: their number, or
 * CLI_STOP. They are read first, so that options may follow them. *ret is borrowed from argv. */
int cli_operands(struct cli *cli, const char *what, char ***ret);

/* Takes cli->value as a name into *ret; `what` says of what. Returns 0 or CLI_STOP. */
int cli_take_name(struct cli *cli, const char *what, const char **ret);

/* All operands of commands that take exactly one and have only the common options. Returns 0 or
 * CLI_STOP. */
int cli_one_operand(struct cli *cli, const char *what, const char **ret);

/* Handles --store and --json, which may also stand before the command's name. Returns how many
 * arguments it took, 0 if it is neither, negative if its argument is missing. */
int cli_take_common(struct cli *cli, char **args);

void cli_help(const struct cli_command *command);

/* "thaw: <message>" on stderr as one line, control characters replaced. Returns CLI_FAILED. */
int cli_error(const char *format, ...) _printf_(1, 2);

/* The same for a message out of a struct thaw_error. */
int cli_report(const struct thaw_error *error);

/* "thaw: <message>; see 'thaw X --help'" on stderr. Sets cli->status to CLI_USAGE and returns
 * CLI_STOP. */
int cli_usage(struct cli *cli, const char *format, ...) _printf_(2, 3);

/* One JSON value as one line on stdout; takes the reference. */
void cli_print_json(json_t *value);

/* What a command has worked on, with --json; else nothing. Takes the reference; NULL is allowed. */
void cli_print_result(const struct cli *cli, json_t *value);

/* What a command has made: the same, but without --json its name. */
void cli_print_made(const struct cli *cli, json_t *value);

/* Fails with a message unless `dir` is absent or a directory that can be read. */
int cli_check_store(const char *dir, struct thaw_error *error);

#endif
