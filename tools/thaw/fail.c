/* SPDX-License-Identifier: Apache-2.0 */
/* Role: error values inside the command.
 * Not here: telling the user, which is cli.c's. */
#include "fail.h"
#include <stdarg.h>
#include <string.h>

int fail_set(struct thaw_error *error, int code, const char *format, ...)
{
    if (error) {
        va_list args;

        va_start(args, format);
        vsnprintf(error->message, sizeof(error->message), format, args);
        va_end(args);
        error->code = code;
    }
    return code;
}

int fail_errno(struct thaw_error *error, int err, const char *format, ...)
{
    if (error) {
        va_list args;
        size_t used;

        va_start(args, format);
        vsnprintf(error->message, sizeof(error->message), format, args);
        va_end(args);
        used = strlen(error->message);
        snprintf(error->message + used, sizeof(error->message) - used, ": %s", strerror(err));
        error->code = -err;
    }
    return -err;
}
