/* SPDX-License-Identifier: Apache-2.0 */
/* The signals that ask a command to end: SIGINT, SIGTERM, SIGHUP and SIGQUIT. They are taken as
 * events, so that what is under way can be ended in order. */
#ifndef TOOLS_SIGNALS_H
#define TOOLS_SIGNALS_H

#include <stdbool.h>
#include <thaw/error.h>

/* Blocks them in this process and in what it starts, and ignores SIGPIPE. */
void signals_block(void);

/* A descriptor, which does not block, that is readable when one of them has arrived. They must be
 * blocked. */
int signals_open(struct thaw_error *error);

/* Takes one signal; false if none has arrived. */
bool signals_take(int fd);

#endif
