/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot as JSON: the same object on the control socket and in `--json` output. The fields are
 * documented in docs/api.md. */
#ifndef TOOLS_SNAPSHOT_JSON_H
#define TOOLS_SNAPSHOT_JSON_H

#include "util.h"
#include <thaw/snapshot.h>

/* NULL if memory is short. */
json_t *snapshot_json_new(const struct thaw_snapshot_info *info);

/* Looks the snapshot up and describes it. On success the caller owns *ret. */
int snapshot_json_find(thaw_store *store, const char *ref, json_t **ret, struct thaw_error *error);

/* The snapshot that was taken, and what that cost. NULL if memory is short. */
json_t *snapshot_json_result(thaw_store *store, const struct thaw_snapshot_result *result);

#endif
