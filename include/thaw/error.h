/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. Every function that can fail returns 0 or a count on success and a negative code on
 * failure: either -errno or one of THAW_E* below, which lie outside errno's range. Where a function
 * takes a `struct thaw_error *`, it is the last parameter, may be NULL, is owned by the caller, and
 * is written on failure only.
 */
#ifndef THAW_ERROR_H
#define THAW_ERROR_H

#include <thaw/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Codes that errno has no word for. Stable: never renumbered. */
#define THAW_EHOST               (-5001) /* the host lacks something that is needed; the message names it */
#define THAW_EIMAGE              (-5002) /* a kernel, initrd or disk image is not what it should be */
#define THAW_ESTATE              (-5003) /* the object is not in a state that allows this */
#define THAW_ECORRUPT            (-5004) /* stored data failed its checks */
#define THAW_EGUEST              (-5005) /* the guest did something that ended it */

#define THAW_ERROR_MESSAGE_BYTES 512

/* What went wrong: the code that was returned, and one line without a newline that says what was
 * being done, to what, and what can be done about it. */
struct thaw_error {
    int code;
    char message[THAW_ERROR_MESSAGE_BYTES];
};

/* A short constant description of a negative code. Never NULL. Any thread. */
THAW_API const char *thaw_strerror(int code);

#ifdef __cplusplus
}
#endif
#endif
