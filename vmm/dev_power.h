/* SPDX-License-Identifier: Apache-2.0 */
/* The ports by which a guest ends: ACPI power-off and reset, the keyboard controller's reset pulse,
 * and the test port with which small guests report an exit status or a mark. None has state. */
#ifndef VMM_DEV_POWER_H
#define VMM_DEV_POWER_H

#include "bus.h"

/* Who is told. Called on the vCPU thread that wrote to the port. */
struct power_ops {
    void (*poweroff)(void *data);
    void (*reset)(void *data);
    void (*exit)(void *data, uint32_t status);
    void (*mark)(void *data, uint32_t value);
};

struct power {
    const struct power_ops *ops;
    void *data;
};

/* Claims the ports on the bus; *power must outlive it. */
int power_attach(struct power *power, struct bus *pio, struct thaw_error *error);

#endif
