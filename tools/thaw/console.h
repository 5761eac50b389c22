/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest wrote to its serial port: the last CONSOLE_BYTES in memory, and a bounded log in
 * the VM's runtime directory.
 *
 * The guest waits while its output is taken, so console_write only copies. Any number of readers
 * follow at their own pace, each with a position of its own: the number of bytes that the guest had
 * written before. A reader that falls behind by more than the ring holds skips, and is told so.
 */
#ifndef TOOLS_CONSOLE_H
#define TOOLS_CONSOLE_H

#include "util.h"
#include <thaw/error.h>

#define CONSOLE_BYTES     (256u << 10)
#define CONSOLE_LOG_BYTES (512u << 10) /* of each of the two log files */

struct console;

/* The log is made in dir_fd, which is borrowed until console_close. */
int console_open(int dir_fd, struct console **ret, struct thaw_error *error);
void console_close(struct console *console); /* NULL is allowed */

/* A thaw_console_fn; data is the console. On vCPU threads. All else here: one thread only. */
void console_write(void *data, const char *bytes, size_t count);

/* An eventfd that becomes readable when there is new output. */
int console_event_fd(const struct console *console);

/* Re-arms the event. To be called before reading; what is written afterwards signals again. */
void console_rearm(struct console *console);

/* How many bytes the guest has written. */
uint64_t console_end(struct console *console);

/* Copies what follows *pos, at most `count` bytes, and advances *pos. Returns the number of bytes
 * copied. *ret_skipped is how many were lost in front of them. */
size_t console_read(
    struct console *console, uint64_t *pos, char *buf, size_t count, uint64_t *ret_skipped);

/* Puts new output into the log. */
void console_flush_log(struct console *console);

/* Writes the notice that stands for skipped bytes into buf; returns its length. */
size_t console_skip_notice(uint64_t skipped, char buf[80]);

#endif
