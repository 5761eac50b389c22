/* SPDX-License-Identifier: Apache-2.0 */
/* Filling in a struct thaw_error, by the same rules as the library: one line, no full stop. */
#ifndef TOOLS_FAIL_H
#define TOOLS_FAIL_H

#include "util.h"
#include <thaw/error.h>

/* Writes code and message into *error (NULL allowed) and returns code. */
int fail_set(struct thaw_error *error, int code, const char *format, ...) _printf_(3, 4);

/* The same with ": <text of err>" appended; err is a positive errno. Returns -err. */
int fail_errno(struct thaw_error *error, int err, const char *format, ...) _printf_(3, 4);

#endif
