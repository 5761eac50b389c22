// SPDX-License-Identifier: Apache-2.0
// Interrupts: a few faults that are reported as a failure, and one vector for the guest's own use.
// Runs on the boot CPU only; the other CPUs have no IDT.
#ifndef GUEST_IRQ_H
#define GUEST_IRQ_H

#include <stdint.h>

#define IRQ_VECTOR          0x20 /* the guest's own */
#define IRQ_SPURIOUS_VECTOR 0x2f /* for the local APIC; ignored */

/* Loads the IDT. Done before guest_main(); leaves interrupts off. */
void irq_init(void);

/* Sets what is called, with interrupts off, when IRQ_VECTOR arrives, and masks the two legacy
 * interrupt controllers, whose vectors nobody has programmed. */
void irq_set_handler(void (*handler)(void));

#endif
