// SPDX-License-Identifier: Apache-2.0
// Builds the devices of a VM and puts them on its buses: the one list of them. No device logic.

#include "machine.h"

static struct irq_line line(int vm_fd, uint32_t gsi)
{
    return (struct irq_line){.vm_fd = vm_fd, .gsi = gsi};
}

int machine_init(struct machine *machine, int vm_fd, struct mem *mem,
    const struct machine_config *config, struct thaw_error *error)
{
    (void)mem;
    *machine = (struct machine){
        .power = {.ops = config->power_ops, .data = config->power_data},
        .ged_irq = line(vm_fd, MACHINE_GED_GSI),
    };
    serial_init(&machine->serial, line(vm_fd, MACHINE_COM1_GSI), config->console,
        config->console_data, NULL);
    int r = bus_add(&machine->pio, MACHINE_COM1_PORT, MACHINE_COM1_PORT_COUNT, &serial_bus_ops,
        &machine->serial, "serial port", error);
    if (r == 0)
        r = power_attach(&machine->power, &machine->pio, error);
    if (r < 0)
        machine_fini(machine);
    return r;
}

void machine_fini(struct machine *machine)
{
    if (machine->pio.count == 0)
        return;
    serial_fini(&machine->serial);
    *machine = (struct machine){0};
}

void machine_pause(struct machine *machine)
{
    (void)machine;
}

void machine_resume(struct machine *machine)
{
    (void)machine;
}
