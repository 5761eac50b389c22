// SPDX-License-Identifier: Apache-2.0
#include "dev_power.h"
#include "machine.h"
#include <criterion/criterion.h>

struct seen {
    int poweroffs, resets, exits, marks;
    uint32_t value;
};

static void on_poweroff(void *data)
{
    ((struct seen *)data)->poweroffs++;
}

static void on_reset(void *data)
{
    ((struct seen *)data)->resets++;
}

static void on_exit_status(void *data, uint32_t status)
{
    ((struct seen *)data)->exits++;
    ((struct seen *)data)->value = status;
}

static void on_mark(void *data, uint32_t value)
{
    ((struct seen *)data)->marks++;
    ((struct seen *)data)->value = value;
}

static const struct power_ops ops = {on_poweroff, on_reset, on_exit_status, on_mark};

static struct seen write_port(uint64_t port, uint32_t value, unsigned bytes)
{
    struct seen seen = {0};
    struct power power = {.ops = &ops, .data = &seen};
    struct bus bus = {0};
    cr_assert_eq(power_attach(&power, &bus, NULL), 0);
    bus_write(&bus, port, (const uint8_t *)&value, bytes);
    return seen;
}

Test(dev_power, s5_with_sleep_enable_powers_off)
{
    uint32_t s5 = MACHINE_S5_TYPE << 2;
    cr_assert_eq(write_port(MACHINE_SLEEP_CONTROL_PORT, s5 | 0x20, 1).poweroffs, 1);
    cr_assert_eq(write_port(MACHINE_SLEEP_CONTROL_PORT, s5, 1).poweroffs, 0);
    cr_assert_eq(write_port(MACHINE_SLEEP_CONTROL_PORT, 3 << 2 | 0x20, 1).poweroffs, 0);
}

Test(dev_power, both_reset_ports_reset_on_their_value_only)
{
    cr_assert_eq(write_port(MACHINE_RESET_PORT, MACHINE_RESET_VALUE, 1).resets, 1);
    cr_assert_eq(write_port(MACHINE_RESET_PORT, 0, 1).resets, 0);
    cr_assert_eq(write_port(MACHINE_KBD_PORT, 0xfe, 1).resets, 1);
    cr_assert_eq(write_port(MACHINE_KBD_PORT, 0xd1, 1).resets, 0);
}

Test(dev_power, exit_and_mark_carry_their_value_at_any_width)
{
    struct seen seen = write_port(MACHINE_EXIT_PORT, 0x12345678, 4);
    cr_assert_eq(seen.exits, 1);
    cr_assert_eq(seen.value, 0x12345678);
    seen = write_port(MACHINE_EXIT_PORT, 0x12345678, 1);
    cr_assert_eq(seen.value, 0x78);
    seen = write_port(MACHINE_MARK_PORT, 7, 4);
    cr_assert_eq(seen.marks, 1);
    cr_assert_eq(seen.value, 7);
    cr_assert_eq(write_port(MACHINE_MARK_PORT + 1, 7, 1).marks, 0);
}

Test(dev_power, reading_the_ports_has_no_effect)
{
    struct seen seen = {0};
    struct power power = {.ops = &ops, .data = &seen};
    struct bus bus = {0};
    cr_assert_eq(power_attach(&power, &bus, NULL), 0);
    uint8_t data = 1;
    bus_read(&bus, MACHINE_KBD_PORT, &data, 1);
    cr_assert_eq(data, 0, "a busy keyboard controller would be waited for");
    bus_read(&bus, MACHINE_EXIT_PORT, &data, 1);
    bus_read(&bus, MACHINE_SLEEP_CONTROL_PORT, &data, 1);
    cr_assert_eq(seen.poweroffs + seen.resets + seen.exits + seen.marks, 0);
}
