/* SPDX-License-Identifier: Apache-2.0 */
/* The user's terminal as the guest's: raw mode, undone on every way out, and the escape key. */
#ifndef TOOLS_TERMINAL_H
#define TOOLS_TERMINAL_H

#include "util.h"
#include <thaw/error.h>

/* True if stdin is a terminal and this process may read it (it is not in the background). */
bool terminal_is_ours(void);

/* Puts stdin's terminal into raw mode. Also undone by exit() and by signals that end the process
 * with a core dump. */
int terminal_raw(struct thaw_error *error);
void terminal_restore(void); /* does nothing if the terminal is not in raw mode */

/* Columns of the terminal behind fd; `otherwise` if it is none. */
size_t terminal_width(int fd, size_t otherwise);

#define TERMINAL_INTERRUPT 0x03 /* Ctrl-C */

/* The escape key is Ctrl-A. Ctrl-A twice sends it, and Ctrl-A Ctrl-C sends a Ctrl-C in any case. */
struct terminal_escape {
    bool interrupts; /* a bare Ctrl-C is a command, too */
    bool armed;
};

/* Copies input to `out` (of at least 2 * count bytes) without the escape sequences; returns how
 * many bytes that are. *ret_command is TERMINAL_INTERRUPT, or the key that followed Ctrl-A if it is
 * one of `commands`, else 0; input after it is dropped. */
size_t terminal_filter(struct terminal_escape *escape, const char *commands, const char *in,
    size_t count, char *out, char *ret_command);

#endif
