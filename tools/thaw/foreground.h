/* SPDX-License-Identifier: Apache-2.0 */
/* The console of a VM on this process's own stdin and stdout. */
#ifndef TOOLS_FOREGROUND_H
#define TOOLS_FOREGROUND_H

#include "owner.h"

struct foreground;

/* Attaches stdin and, if `output`, stdout. owner is borrowed. */
int foreground_open(
    struct owner *owner, bool output, struct foreground **ret, struct thaw_error *error);

/* Restores the terminal. NULL is allowed. */
void foreground_close(struct foreground *foreground);

/* An owner_turn_fn; data is the foreground. */
int foreground_turn(void *data, bool last);

#endif
