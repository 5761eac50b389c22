// SPDX-License-Identifier: Apache-2.0
#include "dev_serial.h"
#include <criterion/criterion.h>
#include <string.h>

enum {
    DATA,
    IER,
    IIR,
    LCR,
    MCR,
    LSR,
    MSR,
    SCR
};

static char output[64];
static size_t output_count;

static void collect(void *data, const char *bytes, size_t count)
{
    (void)data;
    for (size_t i = 0; i < count && output_count < sizeof(output); i++)
        output[output_count++] = bytes[i];
}

static struct serial port;

static void power_on(void)
{
    output_count = 0;
    serial_init(&port, (struct irq_line){.vm_fd = -1, .gsi = 4}, collect, NULL, NULL);
}

static void power_off(void)
{
    serial_fini(&port);
}

TestSuite(dev_serial, .init = power_on, .fini = power_off);

static void put(uint64_t reg, uint8_t value)
{
    serial_bus_ops.write(&port, reg, &value, 1);
}

static uint8_t get(uint64_t reg)
{
    uint8_t value;
    serial_bus_ops.read(&port, reg, &value, 1);
    return value;
}

Test(dev_serial, output_arrives_in_order)
{
    for (const char *c = "ok\n"; *c; c++)
        put(DATA, (uint8_t)*c);
    cr_assert_eq(output_count, 3);
    cr_assert_arr_eq(output, "ok\n", 3);
    cr_assert_eq(get(LSR) & 0x60, 0x60);
}

Test(dev_serial, input_is_read_in_order_and_announced)
{
    cr_assert_eq(get(LSR) & 1, 0);
    cr_assert_eq(serial_input(&port, "ab", 2), 2);
    cr_assert_eq(get(LSR) & 1, 1);
    cr_assert_eq(get(DATA), 'a');
    cr_assert_eq(get(DATA), 'b');
    cr_assert_eq(get(LSR) & 1, 0);
    cr_assert_eq(get(DATA), 0);
}

Test(dev_serial, a_full_buffer_takes_no_more_and_loses_nothing)
{
    char many[SERIAL_FIFO_BYTES + 10];
    for (size_t i = 0; i < sizeof(many); i++)
        many[i] = (char)i;
    cr_assert_eq(serial_input(&port, many, sizeof(many)), SERIAL_FIFO_BYTES);
    cr_assert_eq(serial_input(&port, many, 1), 0);
    for (size_t i = 0; i < SERIAL_FIFO_BYTES; i++)
        cr_assert_eq(get(DATA), (uint8_t)many[i]);
}

Test(dev_serial, receive_interrupt_follows_the_buffer)
{
    put(MCR, 8);
    put(IER, 1);
    cr_assert(!port.irq.level);
    serial_input(&port, "x", 1);
    cr_assert(port.irq.level);
    cr_assert_eq(get(IIR) & 0xf, 4);
    get(DATA);
    cr_assert(!port.irq.level);
    cr_assert_eq(get(IIR) & 0xf, 1);
}

Test(dev_serial, transmit_interrupt_comes_on_enable_and_after_each_byte_and_goes_when_read)
{
    put(MCR, 8);
    put(IER, 2);
    cr_assert(port.irq.level);
    cr_assert_eq(get(IIR) & 0xf, 2);
    cr_assert(!port.irq.level);
    put(DATA, 'x');
    cr_assert(port.irq.level);
}

Test(dev_serial, interrupts_stay_inside_without_out2)
{
    put(IER, 3);
    serial_input(&port, "x", 1);
    cr_assert(!port.irq.level);
    put(MCR, 8);
    cr_assert(port.irq.level);
}

Test(dev_serial, the_divisor_hides_behind_dlab)
{
    put(LCR, 0x80);
    put(DATA, 0x34);
    put(IER, 0x12);
    cr_assert_eq(get(DATA), 0x34);
    cr_assert_eq(get(IER), 0x12);
    put(LCR, 3);
    cr_assert_eq(get(IER), 0);
    cr_assert_eq(output_count, 0);
}

Test(dev_serial, loopback_returns_what_is_sent)
{
    put(MCR, 0x10 | 0x0f);
    put(DATA, 0xae);
    cr_assert_eq(output_count, 0);
    cr_assert_eq(get(DATA), 0xae);
    cr_assert_eq(get(MSR) & 0xf0, 0xf0);
    put(MCR, 0x10);
    cr_assert_eq(get(MSR) & 0xf0, 0);
}

Test(dev_serial, wide_accesses_touch_registers_in_turn)
{
    const uint8_t two[2] = {0, 1};
    serial_bus_ops.write(&port, DATA, two, 2);
    cr_assert_eq(get(IER), 1);
    uint8_t all[8];
    serial_bus_ops.read(&port, DATA, all, 8);
    cr_assert_eq(all[IER], 1);
}

Test(dev_serial, saved_state_continues_in_a_new_port)
{
    put(MCR, 8);
    put(IER, 1);
    serial_input(&port, "left", 4);
    get(DATA);
    struct serial_state state = port.state;

    struct serial other;
    serial_init(&other, (struct irq_line){.vm_fd = -1, .gsi = 4}, collect, NULL, &state);
    serial_resume(&other);
    cr_assert(other.irq.level);
    char rest[4] = "";
    for (size_t i = 0; i < 3; i++)
        serial_bus_ops.read(&other, DATA, (uint8_t *)&rest[i], 1);
    cr_assert_str_eq(rest, "eft");
    serial_fini(&other);
}

Test(dev_serial, input_while_the_machine_is_paused_is_kept_and_announced_when_it_goes_on)
{
    put(MCR, 8);
    put(IER, 1);
    serial_pause(&port);
    cr_assert_eq(serial_input(&port, "ab", 2), 2);
    cr_assert_eq(port.state.fifo_count, 2);
    cr_assert(!port.irq.level, "the interrupt controllers are being saved");
    serial_resume(&port);
    cr_assert(port.irq.level);
    cr_assert_eq(get(DATA), 'a');
    cr_assert_eq(get(DATA), 'b');
    cr_assert(!port.irq.level);
    serial_input(&port, "c", 1);
    cr_assert(port.irq.level);
}

Test(dev_serial, a_line_that_was_high_stays_high_while_the_machine_is_paused)
{
    put(MCR, 8);
    put(IER, 1);
    serial_input(&port, "a", 1);
    serial_pause(&port);
    serial_input(&port, "b", 1);
    cr_assert(port.irq.level);
    serial_resume(&port);
    cr_assert(port.irq.level);
}
