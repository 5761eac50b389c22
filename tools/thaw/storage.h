/* SPDX-License-Identifier: Apache-2.0 */
/* Which store a command uses: --store, else $THAW_STORE, else /var/lib/thaw for root and
 * $XDG_DATA_HOME/thaw or ~/.local/share/thaw for others. */
#ifndef TOOLS_STORAGE_H
#define TOOLS_STORAGE_H

#include "cli.h"
#include <thaw/store.h>

/* The absolute path of the store; `given` may be NULL. The caller frees it. It need not exist. */
int storage_path(const char *given, char **ret, struct thaw_error *error);

/* Opens the store. -ENOENT: there is none yet. */
int storage_open(const struct cli *cli, thaw_store **ret, struct thaw_error *error);

/* Opens the store at an absolute path, and makes it if `create`. */
int storage_open_path(const char *path, bool create, thaw_store **ret, struct thaw_error *error);

/* True if nothing is where the store should be, or an empty directory. */
bool storage_is_unused(const struct cli *cli);

#endif
