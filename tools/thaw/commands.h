/* SPDX-License-Identifier: Apache-2.0 */
/* THE list of subcommands, in the order of the help. Each is `cmd_<name>` in cmd_<name>.c, but for
 * cmd_resume, which is in cmd_pause.c. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

#include "cli.h"

#define COMMANDS(X)                                                                                \
    X(doctor)                                                                                      \
    X(run)                                                                                         \
    X(ps)                                                                                          \
    X(pause)                                                                                       \
    X(resume)                                                                                      \
    X(reset)                                                                                       \
    X(stop)                                                                                        \
    X(console)                                                                                     \
    X(snapshot)                                                                                    \
    X(restore)                                                                                     \
    X(ls)                                                                                          \
    X(inspect)                                                                                     \
    X(verify)                                                                                      \
    X(flatten)                                                                                     \
    X(rm)

#define COMMAND_DECLARE(name) extern const struct cli_command cmd_##name;
COMMANDS(COMMAND_DECLARE)
#undef COMMAND_DECLARE

#endif
