/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the public option structs, whose size tells which version of the header made them. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "error.h"

/* Copies a caller's struct (which begins with size_t size) into dst, a zeroed struct of this
 * library's version, and sets dst's size. NULL stands for all defaults. -EINVAL if the caller's has
 * fields that this library does not know and that are not zero. `what` names the struct. */
int options_read(
    void *dst, size_t dst_bytes, const void *src, const char *what, struct thaw_error *error);

#endif
