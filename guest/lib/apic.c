// SPDX-License-Identifier: Apache-2.0
// Local APIC registers. xAPIC mode only: every VMM starts the CPU in it.
// Knows nothing of the I/O APIC, since no guest uses device interrupts.
#include "apic.h"

#include "cpu.h"
#include "irq.h"

enum {
    APIC_EOI = 0xfee000b0,
    APIC_SPURIOUS = 0xfee000f0,
    APIC_ICR = 0xfee00300,
    APIC_LVT_TIMER = 0xfee00320,
    APIC_TIMER_COUNT = 0xfee00380,
    APIC_TIMER_DIVIDE = 0xfee003e0,
};

enum {
    SPURIOUS_ENABLE = 0x100,
    DIVIDE_BY_1 = 0xb,
    ICR_INIT = 0x500,
    ICR_STARTUP = 0x600,
    ICR_ASSERT = 0x4000,
    ICR_ALL_BUT_SELF = 0xc0000,
    MSR_TSC_DEADLINE = 0x6e0,
};

void apic_timer_init(enum apic_timer_mode mode)
{
    cpu_write_mmio(APIC_SPURIOUS, SPURIOUS_ENABLE | IRQ_SPURIOUS_VECTOR);
    cpu_write_mmio(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    cpu_write_mmio(APIC_LVT_TIMER, (uint32_t)mode | IRQ_VECTOR);
    /* A TSC-deadline write must not overtake the mode change. */
    __asm__ volatile("mfence" : : : "memory");
}

void apic_timer_start(uint32_t ns)
{
    cpu_write_mmio(APIC_TIMER_COUNT, ns);
}

void apic_timer_deadline(uint64_t tsc)
{
    cpu_wrmsr(MSR_TSC_DEADLINE, tsc);
}

void apic_eoi(void)
{
    cpu_write_mmio(APIC_EOI, 0);
}

void apic_send_init_to_others(void)
{
    cpu_write_mmio(APIC_ICR, ICR_ALL_BUT_SELF | ICR_ASSERT | ICR_INIT);
}

void apic_send_startup_to_others(uint8_t page)
{
    cpu_write_mmio(APIC_ICR, (uint32_t)(ICR_ALL_BUT_SELF | ICR_ASSERT | ICR_STARTUP) | page);
}
