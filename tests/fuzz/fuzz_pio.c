// SPDX-License-Identifier: Apache-2.0
// The bus of I/O ports and the devices on it: serial port and power. The input is a list of
// accesses by the guest and of console input.

#include "dev_power.h"
#include "dev_serial.h"
#include "fuzz_input.h"
#include "machine.h"

enum {
    OP_READ,
    OP_WRITE,
    OP_INPUT,
    OP_SAVE,
    OP_COUNT
};

static void on_event(void *data)
{
    (*(unsigned *)data)++;
}

static void on_value(void *data, uint32_t value)
{
    (void)value;
    (*(unsigned *)data)++;
}

static void on_output(void *data, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        *(unsigned *)data += (unsigned char)bytes[i];
}

/* Mostly where there is something. */
static uint16_t port(struct fuzz_input *input)
{
    static const uint16_t ports[] = {MACHINE_COM1_PORT, MACHINE_MARK_PORT, MACHINE_EXIT_PORT,
        MACHINE_KBD_PORT, MACHINE_SLEEP_CONTROL_PORT};
    uint8_t choice = fuzz_u8(input);
    unsigned index = choice >> 4;
    if (index >= ARRAY_SIZE(ports))
        return fuzz_u16(input);
    return (uint16_t)(ports[index] - 4u + (choice & 15));
}

static void step(struct fuzz_input *input, const struct bus *bus, struct serial *serial)
{
    uint8_t op = fuzz_u8(input);
    unsigned bytes = 1u << (op >> 6);
    uint8_t data[8];
    char text[64];
    uint16_t at = 0;
    switch (op % 16 % OP_COUNT) {
    case OP_READ:
        at = port(input);
        bus_read(bus, at, data, bytes);
        break;
    case OP_WRITE:
        at = port(input);
        fuzz_take(input, data, bytes);
        bus_write(bus, at, data, bytes);
        break;
    case OP_INPUT:
        fuzz_take(input, text, sizeof(text));
        FUZZ_ASSERT(serial_input(serial, text, op % sizeof(text)) <= op % sizeof(text));
        break;
    case OP_SAVE:
        FUZZ_ASSERT(serial->state.fifo_head < SERIAL_FIFO_BYTES);
        FUZZ_ASSERT(serial->state.fifo_count <= SERIAL_FIFO_BYTES);
        serial_resume(serial);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    static const struct power_ops ops = {
        .poweroff = on_event, .reset = on_event, .exit = on_value, .mark = on_value};
    unsigned events = 0;
    struct fuzz_input input = {data, count};
    struct bus bus = {0};
    struct serial serial;
    struct power power = {.ops = &ops, .data = &events};
    serial_init(&serial, (struct irq_line){.vm_fd = -1}, on_output, &events, NULL);
    FUZZ_ASSERT(power_attach(&power, &bus, NULL) == 0);
    FUZZ_ASSERT(bus_add(&bus, MACHINE_COM1_PORT, MACHINE_COM1_PORT_COUNT, &serial_bus_ops, &serial,
                    "serial port", NULL) == 0);
    while (input.left > 0)
        step(&input, &bus, &serial);
    serial_fini(&serial);
    return 0;
}
