// SPDX-License-Identifier: Apache-2.0
// Error messages in the caller's struct. Decides nothing about what is an error.

#include "error.h"
#include <stdarg.h>
#include <string.h>

const char *thaw_strerror(int code)
{
    switch (code) {
    case THAW_EHOST:
        return "the host lacks something that is needed";
    case THAW_EIMAGE:
        return "not a usable kernel, initrd or disk image";
    case THAW_ESTATE:
        return "not possible in the present state";
    case THAW_ECORRUPT:
        return "stored data is damaged";
    case THAW_EGUEST:
        return "the guest ended itself";
    }
    /* strerror may use a buffer that threads share; strerrordesc_np returns constants. */
    const char *text = code < 0 ? strerrordesc_np(-code) : NULL;
    return text ? text : "unknown error";
}

int error_set(struct thaw_error *error, int code, const char *format, ...)
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

int error_errno(struct thaw_error *error, int err, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        int used = vsnprintf(error->message, sizeof(error->message), format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof(error->message))
            snprintf(error->message + used, sizeof(error->message) - (size_t)used, ": %s",
                thaw_strerror(-err));
        error->code = -err;
    }
    return -err;
}

int error_prefix(struct thaw_error *error, int code, const char *format, ...)
{
    if (!error)
        return code;
    char prefix[THAW_ERROR_MESSAGE_BYTES], whole[2 * THAW_ERROR_MESSAGE_BYTES + 2];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof(prefix), format, args);
    va_end(args);
    snprintf(whole, sizeof(whole), "%s: %s", prefix, error->message);
    memcpy(error->message, whole, sizeof(error->message));
    error->message[sizeof(error->message) - 1] = '\0';
    return error->code;
}
