/* SPDX-License-Identifier: Apache-2.0 */
/* Filling in the caller's struct thaw_error. Internal functions follow the public convention. */
#ifndef VMM_ERROR_H
#define VMM_ERROR_H

#include "util.h"
#include <thaw/error.h>

/* Writes code and message into *error (NULL allowed) and returns code, so that a failing function
 * ends in `return error_set(...)`. The message names the action, the object and, where there is
 * one, the remedy; it has no newline and no trailing full stop. */
int error_set(struct thaw_error *error, int code, const char *format, ...) _printf_(3, 4);

/* The same with ": <text of errno>" appended; err is a positive errno. Returns -err. */
int error_errno(struct thaw_error *error, int err, const char *format, ...) _printf_(3, 4);

/* Puts "<format>: " in front of a message that a callee wrote. Returns the code it holds, or
 * `code` where error is NULL. */
int error_prefix(struct thaw_error *error, int code, const char *format, ...) _printf_(3, 4);

#endif
