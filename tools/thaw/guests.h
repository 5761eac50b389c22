/* SPDX-License-Identifier: Apache-2.0 */
/* Where the small guests are: $THAW_GUESTS, or beside the command, or where they are installed. */
#ifndef TOOLS_GUESTS_H
#define TOOLS_GUESTS_H

#include <thaw/error.h>

/* The absolute path of a guest's image, which the caller frees. -ENOENT: the message lists the
 * guests that there are. */
int guests_find(const char *name, char **ret_path, struct thaw_error *error);

#endif
