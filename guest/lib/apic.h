// SPDX-License-Identifier: Apache-2.0
// The local APIC of the calling CPU, by memory-mapped registers: its timer, starting other CPUs.
// The timer is taken to run at 1 GHz, which KVM and QEMU both guarantee.
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include <stdint.h>

/* Timer modes, in the place where the timer's vector register has them. */
enum apic_timer_mode {
    APIC_ONE_SHOT = 0 << 17,
    APIC_PERIODIC = 1 << 17,
    APIC_TSC_DEADLINE = 2 << 17,
};

/* Enables the APIC and has the timer raise IRQ_VECTOR in this mode. Doesn't start it. */
void apic_timer_init(enum apic_timer_mode mode);

/* Starts (one-shot, periodic) or stops (0) the timer. At most 4 seconds. */
void apic_timer_start(uint32_t ns);

/* Starts the timer in TSC-deadline mode. */
void apic_timer_deadline(uint64_t tsc);

/* Ends the interrupt that is being handled. */
void apic_eoi(void);

/* Sends INIT, or a start-up interrupt for code at page `page`, to all other CPUs. */
void apic_send_init_to_others(void);
void apic_send_startup_to_others(uint8_t page);

#endif
