// SPDX-License-Identifier: Apache-2.0
// The guest's COM1. Does not know who reads the output.

#include "dev_serial.h"
#include <string.h>

/* Registers and bits: National Semiconductor PC16550D data sheet, section 8. */
enum {
    REG_DATA,
    REG_IER,
    REG_IIR_FCR,
    REG_LCR,
    REG_MCR,
    REG_LSR,
    REG_MSR,
    REG_SCR
};

#define IER_RX        0x01
#define IER_THR_EMPTY 0x02
#define IER_MASK      0x0f
#define IIR_NONE      0x01
#define IIR_THR_EMPTY 0x02
#define IIR_RX        0x04
#define IIR_FIFO      0xc0
#define FCR_ENABLE    0x01
#define FCR_CLEAR_RX  0x02
#define LCR_DLAB      0x80
#define MCR_OUT2      0x08
#define MCR_LOOP      0x10
#define MCR_MASK      0x1f
#define LSR_RX        0x01
#define LSR_TX_EMPTY  0x60 /* holding register and shifter: output takes no time */
#define MSR_CONNECTED 0xb0 /* carrier, data set ready, clear to send */

/* The highest-priority cause that is enabled. */
static uint8_t pending_cause(const struct serial_state *s)
{
    if ((s->ier & IER_RX) && s->fifo_count > 0)
        return IIR_RX;
    if ((s->ier & IER_THR_EMPTY) && s->thr_empty_pending)
        return IIR_THR_EMPTY;
    return IIR_NONE;
}

/* On the PC the interrupt reaches the controller only while the guest asserts OUT2. */
static bool wants_irq(const struct serial_state *s)
{
    return pending_cause(s) != IIR_NONE && (s->mcr & MCR_OUT2);
}

static void update_irq_locked(struct serial *serial)
{
    if (!serial->paused)
        irq_line_set(&serial->irq, wants_irq(&serial->state));
}

static void fifo_put(struct serial_state *s, uint8_t byte)
{
    s->fifo[(s->fifo_head + s->fifo_count) % SERIAL_FIFO_BYTES] = byte;
    s->fifo_count++;
}

static uint8_t fifo_get(struct serial_state *s)
{
    if (s->fifo_count == 0)
        return 0;
    uint8_t byte = s->fifo[s->fifo_head];
    s->fifo_head = (uint16_t)((s->fifo_head + 1) % SERIAL_FIFO_BYTES);
    s->fifo_count--;
    return byte;
}

static uint8_t modem_status(const struct serial_state *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_CONNECTED;
    /* Looped back: RTS->CTS, DTR->DSR, OUT1->RI, OUT2->DCD. */
    return (uint8_t)((s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5 | (s->mcr & 0x04) << 4 |
                     (s->mcr & 0x08) << 4);
}

static uint8_t read_locked(struct serial_state *s, uint64_t reg)
{
    switch (reg) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? s->dll : fifo_get(s);
    case REG_IER:
        return s->lcr & LCR_DLAB ? s->dlm : s->ier;
    case REG_IIR_FCR: {
        uint8_t cause = pending_cause(s);
        if (cause == IIR_THR_EMPTY)
            s->thr_empty_pending = 0;
        return (uint8_t)(cause | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0));
    }
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return (uint8_t)(LSR_TX_EMPTY | (s->fifo_count > 0 ? LSR_RX : 0));
    case REG_MSR:
        return modem_status(s);
    default:
        return s->scr;
    }
}

static void transmit_locked(struct serial *serial, uint8_t byte)
{
    struct serial_state *s = &serial->state;
    if (s->mcr & MCR_LOOP) {
        if (s->fifo_count < SERIAL_FIFO_BYTES)
            fifo_put(s, byte);
    } else if (serial->output) {
        serial->output(serial->output_data, (const char *)&byte, 1);
    }
    s->thr_empty_pending = 1;
}

static void write_locked(struct serial *serial, uint64_t reg, uint8_t value)
{
    struct serial_state *s = &serial->state;
    switch (reg) {
    case REG_DATA:
        if (s->lcr & LCR_DLAB)
            s->dll = value;
        else
            transmit_locked(serial, value);
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB) {
            s->dlm = value;
            break;
        }
        /* Enabling "transmitter empty" while it is empty raises it: drivers rely on that. */
        if (value & ~s->ier & IER_THR_EMPTY)
            s->thr_empty_pending = 1;
        s->ier = value & IER_MASK;
        break;
    case REG_IIR_FCR:
        s->fcr = value & FCR_ENABLE;
        if (value & FCR_CLEAR_RX)
            s->fifo_count = 0;
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        s->mcr = value & MCR_MASK;
        break;
    case REG_SCR:
        s->scr = value;
        break;
    }
}

/* Wider accesses touch neighbouring registers in turn, as on the 8-bit ISA bus. */
static void bus_side_read(void *device, uint64_t offset, uint8_t *data, unsigned bytes)
{
    struct serial *serial = device;
    pthread_mutex_lock(&serial->lock);
    for (unsigned i = 0; i < bytes; i++)
        data[i] = read_locked(&serial->state, offset + i);
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
}

static void bus_side_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    struct serial *serial = device;
    pthread_mutex_lock(&serial->lock);
    for (unsigned i = 0; i < bytes; i++)
        write_locked(serial, offset + i, data[i]);
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
}

const struct bus_ops serial_bus_ops = {.read = bus_side_read, .write = bus_side_write};

static void set_state(struct serial *serial, const struct serial_state *state)
{
    serial->state = *state;
    /* Whatever a snapshot says, the FIFO stays within bounds. */
    serial->state.fifo_head %= SERIAL_FIFO_BYTES;
    serial->state.fifo_count = MIN(serial->state.fifo_count, (uint16_t)SERIAL_FIFO_BYTES);
}

void serial_init(struct serial *serial, struct irq_line irq, thaw_console_fn output,
    void *output_data, const struct serial_state *state)
{
    *serial = (struct serial){.irq = irq, .output = output, .output_data = output_data};
    pthread_mutex_init(&serial->lock, NULL);
    if (state)
        set_state(serial, state);
    else
        serial->state.dll = 1; /* 115200 baud, as firmware leaves it */
}

void serial_fini(struct serial *serial)
{
    pthread_mutex_destroy(&serial->lock);
}

void serial_save(struct serial *serial, struct serial_state *ret)
{
    pthread_mutex_lock(&serial->lock);
    *ret = serial->state;
    pthread_mutex_unlock(&serial->lock);
}

void serial_reset(struct serial *serial, const struct serial_state *state)
{
    pthread_mutex_lock(&serial->lock);
    set_state(serial, state);
    pthread_mutex_unlock(&serial->lock);
}

size_t serial_input(struct serial *serial, const char *bytes, size_t count)
{
    size_t taken = 0;
    pthread_mutex_lock(&serial->lock);
    while (taken < count && serial->state.fifo_count < SERIAL_FIFO_BYTES)
        fifo_put(&serial->state, (uint8_t)bytes[taken++]);
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
    return taken;
}

void serial_pause(struct serial *serial)
{
    pthread_mutex_lock(&serial->lock);
    serial->paused = true;
    pthread_mutex_unlock(&serial->lock);
}

void serial_resume(struct serial *serial)
{
    pthread_mutex_lock(&serial->lock);
    serial->paused = false;
    serial->irq.level = wants_irq(&serial->state);
    irq_line_sync(&serial->irq);
    pthread_mutex_unlock(&serial->lock);
}
