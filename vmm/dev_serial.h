/* SPDX-License-Identifier: Apache-2.0 */
/* A 16550A serial port. Output goes to a callback at once, input waits in a FIFO. */
#ifndef VMM_DEV_SERIAL_H
#define VMM_DEV_SERIAL_H

#include "bus.h"
#include "irq.h"
#include <pthread.h>
#include <thaw/vm.h>

/* More than the chip's 16 bytes, so that a line pasted at once is not lost. */
#define SERIAL_FIFO_BYTES 256

/* What the guest can observe: plain data, so that saving is a copy. */
struct serial_state {
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t thr_empty_pending; /* the "transmitter empty" interrupt was not acknowledged yet */
    uint16_t fifo_head, fifo_count;
    uint8_t fifo[SERIAL_FIFO_BYTES];
};

struct serial {
    pthread_mutex_t lock; /* guards state, irq and paused; taken last */
    struct serial_state state;
    struct irq_line irq;
    bool paused; /* the line stays as it is: the interrupt controllers may be being saved */
    thaw_console_fn output;
    void *output_data;
};

/* `state` NULL: as after power-on. `output` runs with the lock held. */
void serial_init(struct serial *serial, struct irq_line irq, thaw_console_fn output,
    void *output_data, const struct serial_state *state);
void serial_fini(struct serial *serial);

/* Back into a saved state. The interrupt line follows with serial_resume. */
void serial_reset(struct serial *serial, const struct serial_state *state);

void serial_save(struct serial *serial, struct serial_state *ret);

/* Takes as much input as fits; returns how much. Any thread, paused or not. */
size_t serial_input(struct serial *serial, const char *bytes, size_t count);

/* From here on input waits in the FIFO and leaves the interrupt line alone. No vCPU runs. */
void serial_pause(struct serial *serial);

/* Drives the interrupt line from the state again: after a pause, or after the controllers were
 * restored. */
void serial_resume(struct serial *serial);

extern const struct bus_ops serial_bus_ops;

#endif
