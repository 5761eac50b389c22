// SPDX-License-Identifier: Apache-2.0
// Recognises that the guest wants to end, or says how far it is. What follows is the VM's decision.

#include "dev_power.h"
#include "machine.h"
#include <string.h>

#define SLEEP_ENABLE     0x20 /* ACPI 6.4, table 4.14: SLP_EN */
#define SLEEP_TYPE_SHIFT 2
#define SLEEP_TYPE_MASK  0x7
#define KBD_PULSE_RESET  0xfe

static void read_zero(void *device, uint64_t offset, uint8_t *data, unsigned bytes)
{
    (void)device;
    (void)offset;
    memset(data, 0, bytes);
}

static void sleep_control_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    const struct power *power = device;
    (void)offset;
    (void)bytes;
    unsigned type = data[0] >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    if ((data[0] & SLEEP_ENABLE) && type == MACHINE_S5_TYPE)
        power->ops->poweroff(power->data);
}

static void reset_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    const struct power *power = device;
    (void)offset;
    (void)bytes;
    if (data[0] == MACHINE_RESET_VALUE)
        power->ops->reset(power->data);
}

static void keyboard_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    const struct power *power = device;
    (void)offset;
    (void)bytes;
    if (data[0] == KBD_PULSE_RESET)
        power->ops->reset(power->data);
}

/* The value of an access that starts at the port itself; narrower ones are zero-extended. */
static uint32_t port_value(const uint8_t *data, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < MIN(bytes, 4u); i++)
        value |= (uint32_t)data[i] << 8 * i;
    return value;
}

static void exit_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    const struct power *power = device;
    if (offset == 0)
        power->ops->exit(power->data, port_value(data, bytes));
}

static void mark_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    const struct power *power = device;
    if (offset == 0)
        power->ops->mark(power->data, port_value(data, bytes));
}

static const struct bus_ops sleep_control_ops = {.read = read_zero, .write = sleep_control_write};
static const struct bus_ops sleep_status_ops = {.read = read_zero};
static const struct bus_ops reset_ops = {.read = read_zero, .write = reset_write};
static const struct bus_ops keyboard_ops = {.read = read_zero, .write = keyboard_write};
static const struct bus_ops exit_ops = {.write = exit_write};
static const struct bus_ops mark_ops = {.write = mark_write};

int power_attach(struct power *power, struct bus *pio, struct thaw_error *error)
{
    static const struct {
        uint16_t port, count;
        const struct bus_ops *ops;
        const char *name;
    } ports[] = {
        {MACHINE_SLEEP_CONTROL_PORT, 1, &sleep_control_ops, "sleep control"},
        {MACHINE_SLEEP_STATUS_PORT, 1, &sleep_status_ops, "sleep status"},
        {MACHINE_RESET_PORT, 1, &reset_ops, "reset"},
        {MACHINE_KBD_PORT, 1, &keyboard_ops, "keyboard controller"},
        {MACHINE_EXIT_PORT, MACHINE_EXIT_PORT_COUNT, &exit_ops, "exit port"},
        {MACHINE_MARK_PORT, MACHINE_MARK_PORT_COUNT, &mark_ops, "mark port"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        int r =
            bus_add(pio, ports[i].port, ports[i].count, ports[i].ops, power, ports[i].name, error);
        if (r < 0)
            return r;
    }
    return 0;
}
