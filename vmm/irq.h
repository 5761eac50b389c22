/* SPDX-License-Identifier: Apache-2.0 */
/* The in-kernel interrupt controllers and timer, and the lines that lead from devices to them. */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "error.h"

/* Creates PICs and IOAPIC in the kernel. After the memslots, before the vCPUs. */
int irq_create_chips(int vm_fd, struct thaw_error *error);

/* Creates the PIT, with a thread of the kernel's. After the chips, before the first KVM_RUN. */
int irq_create_timer(int vm_fd, struct thaw_error *error);

/* One interrupt line of a device, active high. The device's lock guards it. */
struct irq_line {
    int vm_fd; /* -1: the level is only remembered (unit tests) */
    uint32_t gsi;
    bool level;
    bool told; /* what KVM was told last; of a new VM all lines are low */
};

/* Drives the line; does nothing if it has that level already. */
void irq_line_set(struct irq_line *line, bool level);

/* Tells KVM the level, after the controllers were restored. A line that is low as it always was is
 * in their state. */
void irq_line_sync(struct irq_line *line);

#endif
