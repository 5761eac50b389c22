/* SPDX-License-Identifier: Apache-2.0 */
/* The file `vmstate` of a snapshot: a VM's state as checksummed records. Untrusted when read. */
#ifndef SNAPSHOT_STATE_FILE_H
#define SNAPSHOT_STATE_FILE_H

#include "format.h"
#include "vm_state.h"
#include <jansson.h>

/* Makes the file's bytes; *ret_bytes is malloced. `id` is the snapshot's. */
int state_file_encode(const struct vm_state *state, const struct wire_b16 *id, uint8_t **ret_bytes,
    size_t *ret_count, struct thaw_error *error);

/* Checks and reads the bytes of a file; *ret is freed with vm_state_free. Every record that the
 * machine has must be there once. Fields that an older minor version lacks are zero; what a newer
 * one adds is passed over. THAW_ECORRUPT, -EOPNOTSUPP (needs a newer thaw), -ENOMEM. */
int state_file_decode(const uint8_t *bytes, size_t count, const char *name, struct vm_state **ret,
    struct thaw_error *error);

/* The same state for people: every field of every record. NULL: no memory. */
json_t *state_file_describe(const struct vm_state *state);

#endif
