/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that VMs' processes share. Who runs a VM that was restored puts a file
 *
 *   .images/SNAPSHOT-ID/VM-NAME
 *
 * into the runtime directory; who is about to restore the same snapshot asks these VMs, over their
 * control sockets, for a descriptor of its memory. The files are hints: a VM may be gone, or not
 * have all of the memory yet. All of this may fail, and then memory is read from the store.
 *
 * Trust: a descriptor is taken from processes of the same user only, who could change the store as
 * well. It must be sealed against any further change, and of the right size; what is in it is not
 * compared with the snapshot.
 */
#ifndef TOOLS_OFFER_H
#define TOOLS_OFFER_H

#include "runtime.h"

void offer_make(const struct runtime_slot *slot, const char *snapshot_id);
void offer_withdraw(const struct runtime_slot *slot, const char *snapshot_id);

/* A descriptor of the snapshot's memory, owned by the caller; -1: nobody has it, or answers soon.
 */
int offer_take(const struct runtime_slot *slot, const char *snapshot_id);

#endif
