// SPDX-License-Identifier: Apache-2.0
// The IDT, which has only the gates that matter: a missing one becomes a triple fault, and filling
// 256 of them would be the longest part of starting under an emulating KVM.
#include "irq.h"

#include "cpu.h"
#include "guest.h"
#include "ports.h"
#include "start.h"

struct gate {
    uint16_t offset_low, selector, attributes, offset_mid;
    uint32_t offset_high, reserved;
};

struct fault_frame {
    uint64_t vector, error, rip;
};

enum {
    INTERRUPT_GATE = 0x8e00
};

static struct gate idt[IRQ_SPURIOUS_VECTOR + 1];

/* irq.S */
void irq_entry(void);
void irq_entry_spurious(void);
void fault_entry_de(void);
void fault_entry_ud(void);
void fault_entry_gp(void);
void fault_entry_pf(void);

/* Called by irq.S. */
void (*irq_handler)(void);
__attribute__((noreturn)) void fault_report(const struct fault_frame *frame, uint64_t cr2);

static void set_gate(unsigned int vector, void (*entry)(void))
{
    uint64_t offset = (uint64_t)entry;

    idt[vector] = (struct gate){
        .offset_low = (uint16_t)offset,
        .selector = SEL_CODE64,
        .attributes = INTERRUPT_GATE,
        .offset_mid = (uint16_t)(offset >> 16),
        .offset_high = (uint32_t)(offset >> 32),
    };
}

void irq_init(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};

    set_gate(0, fault_entry_de);
    set_gate(6, fault_entry_ud);
    set_gate(13, fault_entry_gp);
    set_gate(14, fault_entry_pf);
    set_gate(IRQ_VECTOR, irq_entry);
    set_gate(IRQ_SPURIOUS_VECTOR, irq_entry_spurious);
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void irq_set_handler(void (*handler)(void))
{
    irq_handler = handler;
    cpu_outb(PORT_PIC1_MASK, 0xff);
    cpu_outb(PORT_PIC2_MASK, 0xff);
}

void fault_report(const struct fault_frame *frame, uint64_t cr2)
{
    fail("fault %lu error %lx rip %lx cr2 %lx", frame->vector, frame->error, frame->rip, cr2);
}
