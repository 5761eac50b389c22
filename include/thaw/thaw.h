/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that thaw offers to an embedding program. */
#ifndef THAW_THAW_H
#define THAW_THAW_H

#include <thaw/env.h>
#include <thaw/error.h>
#include <thaw/host.h>
#include <thaw/image.h>
#include <thaw/snapshot.h>
#include <thaw/store.h>
#include <thaw/version.h>
#include <thaw/vm.h>

#endif
