// SPDX-License-Identifier: Apache-2.0
// What thaw is to reach, as ratios of what one run measured. Measures nothing.

#include "rows.h"

void targets_add(struct results *results)
{
    (void)results;
}
