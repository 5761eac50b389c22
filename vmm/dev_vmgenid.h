/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual Machine Generation ID (Microsoft, "Virtual Machine Generation ID", 2012): 16 random bytes
 * in guest memory that change whenever the guest's past may have forked, and an interrupt that says
 * so. The guest finds both through ACPI. */
#ifndef VMM_DEV_VMGENID_H
#define VMM_DEV_VMGENID_H

#include "irq.h"
#include "mem.h"

/* Writes a fresh id to MACHINE_VMGENID_GPA. */
int vmgenid_renew(struct mem *mem, struct thaw_error *error);

/* Pulses the event device's line: the guest's handler notifies its driver. Only after the interrupt
 * controllers' state is final. */
void vmgenid_notify(struct irq_line *line);

#endif
