// SPDX-License-Identifier: Apache-2.0
// The field tables of a VM's state. Reads and writes no bytes.

#include "state_records.h"

#define ONE(type, member)                                                                          \
    {                                                                                              \
#member, STATE_UINT, sizeof(((type *)0)->member), 1, offsetof(type, member)                \
    }
#define MANY(type, member, element_width)                                                          \
    {                                                                                              \
#member, STATE_UINT, element_width, sizeof(((type *)0)->member) / (element_width),         \
            offsetof(type, member)                                                                 \
    }
#define FLAG(type, member)                                                                         \
    {                                                                                              \
#member, STATE_BOOL, 1, 1, offsetof(type, member)                                          \
    }

static const struct state_field machine_fields[] = {
    ONE(struct vm_state, vcpu_count),
    ONE(struct vm_state, machine.disk_count),
};

static const struct state_field clock_fields[] = {
    ONE(struct vm_clock, kvmclock_ns),
    ONE(struct vm_clock, realtime_ns),
    ONE(struct vm_clock, host_tsc),
};

#define PIT_CHANNEL(n)                                                                             \
    ONE(struct kvm_pit_state2, channels[n].count),                                                 \
        ONE(struct kvm_pit_state2, channels[n].latched_count),                                     \
        ONE(struct kvm_pit_state2, channels[n].count_latched),                                     \
        ONE(struct kvm_pit_state2, channels[n].status_latched),                                    \
        ONE(struct kvm_pit_state2, channels[n].status),                                            \
        ONE(struct kvm_pit_state2, channels[n].read_state),                                        \
        ONE(struct kvm_pit_state2, channels[n].write_state),                                       \
        ONE(struct kvm_pit_state2, channels[n].write_latch),                                       \
        ONE(struct kvm_pit_state2, channels[n].rw_mode),                                           \
        ONE(struct kvm_pit_state2, channels[n].mode), ONE(struct kvm_pit_state2, channels[n].bcd), \
        ONE(struct kvm_pit_state2, channels[n].gate),                                              \
        ONE(struct kvm_pit_state2, channels[n].count_load_time)

static const struct state_field pit_fields[] = {
    PIT_CHANNEL(0),
    PIT_CHANNEL(1),
    PIT_CHANNEL(2),
    ONE(struct kvm_pit_state2, flags),
};

static const struct state_field pic_fields[] = {
    ONE(struct kvm_irqchip, chip.pic.last_irr),
    ONE(struct kvm_irqchip, chip.pic.irr),
    ONE(struct kvm_irqchip, chip.pic.imr),
    ONE(struct kvm_irqchip, chip.pic.isr),
    ONE(struct kvm_irqchip, chip.pic.priority_add),
    ONE(struct kvm_irqchip, chip.pic.irq_base),
    ONE(struct kvm_irqchip, chip.pic.read_reg_select),
    ONE(struct kvm_irqchip, chip.pic.poll),
    ONE(struct kvm_irqchip, chip.pic.special_mask),
    ONE(struct kvm_irqchip, chip.pic.init_state),
    ONE(struct kvm_irqchip, chip.pic.auto_eoi),
    ONE(struct kvm_irqchip, chip.pic.rotate_on_auto_eoi),
    ONE(struct kvm_irqchip, chip.pic.special_fully_nested_mode),
    ONE(struct kvm_irqchip, chip.pic.init4),
    ONE(struct kvm_irqchip, chip.pic.elcr),
    ONE(struct kvm_irqchip, chip.pic.elcr_mask),
};

static const struct state_field ioapic_fields[] = {
    ONE(struct kvm_irqchip, chip.ioapic.base_address),
    ONE(struct kvm_irqchip, chip.ioapic.ioregsel),
    ONE(struct kvm_irqchip, chip.ioapic.id),
    ONE(struct kvm_irqchip, chip.ioapic.irr),
    MANY(struct kvm_irqchip, chip.ioapic.redirtbl, 8),
};

static const struct state_field serial_fields[] = {
    ONE(struct serial_state, ier),
    ONE(struct serial_state, fcr),
    ONE(struct serial_state, lcr),
    ONE(struct serial_state, mcr),
    ONE(struct serial_state, scr),
    ONE(struct serial_state, dll),
    ONE(struct serial_state, dlm),
    ONE(struct serial_state, thr_empty_pending),
    ONE(struct serial_state, fifo_head),
    ONE(struct serial_state, fifo_count),
    MANY(struct serial_state, fifo, 1),
};

static const struct state_field vcpu_fields[] = {
    ONE(struct vcpu_state, mp_state.mp_state),
    ONE(struct vcpu_state, tsc_khz),
    ONE(struct vcpu_state, tsc),
};

static const struct state_field regs_fields[] = {
    ONE(struct vcpu_state, regs.rax),
    ONE(struct vcpu_state, regs.rbx),
    ONE(struct vcpu_state, regs.rcx),
    ONE(struct vcpu_state, regs.rdx),
    ONE(struct vcpu_state, regs.rsi),
    ONE(struct vcpu_state, regs.rdi),
    ONE(struct vcpu_state, regs.rsp),
    ONE(struct vcpu_state, regs.rbp),
    ONE(struct vcpu_state, regs.r8),
    ONE(struct vcpu_state, regs.r9),
    ONE(struct vcpu_state, regs.r10),
    ONE(struct vcpu_state, regs.r11),
    ONE(struct vcpu_state, regs.r12),
    ONE(struct vcpu_state, regs.r13),
    ONE(struct vcpu_state, regs.r14),
    ONE(struct vcpu_state, regs.r15),
    ONE(struct vcpu_state, regs.rip),
    ONE(struct vcpu_state, regs.rflags),
};

#define SEGMENT(reg)                                                                               \
    ONE(struct vcpu_state, sregs.reg.base), ONE(struct vcpu_state, sregs.reg.limit),               \
        ONE(struct vcpu_state, sregs.reg.selector), ONE(struct vcpu_state, sregs.reg.type),        \
        ONE(struct vcpu_state, sregs.reg.present), ONE(struct vcpu_state, sregs.reg.dpl),          \
        ONE(struct vcpu_state, sregs.reg.db), ONE(struct vcpu_state, sregs.reg.s),                 \
        ONE(struct vcpu_state, sregs.reg.l), ONE(struct vcpu_state, sregs.reg.g),                  \
        ONE(struct vcpu_state, sregs.reg.avl), ONE(struct vcpu_state, sregs.reg.unusable)

static const struct state_field sregs_fields[] = {
    SEGMENT(cs),
    SEGMENT(ds),
    SEGMENT(es),
    SEGMENT(fs),
    SEGMENT(gs),
    SEGMENT(ss),
    SEGMENT(tr),
    SEGMENT(ldt),
    ONE(struct vcpu_state, sregs.gdt.base),
    ONE(struct vcpu_state, sregs.gdt.limit),
    ONE(struct vcpu_state, sregs.idt.base),
    ONE(struct vcpu_state, sregs.idt.limit),
    ONE(struct vcpu_state, sregs.cr0),
    ONE(struct vcpu_state, sregs.cr2),
    ONE(struct vcpu_state, sregs.cr3),
    ONE(struct vcpu_state, sregs.cr4),
    ONE(struct vcpu_state, sregs.cr8),
    ONE(struct vcpu_state, sregs.efer),
    ONE(struct vcpu_state, sregs.apic_base),
    ONE(struct vcpu_state, sregs.flags),
    MANY(struct vcpu_state, sregs.pdptrs, 8),
};

static const struct state_field xcrs_fields[] = {
    ONE(struct vcpu_state, xcrs.nr_xcrs),
    ONE(struct vcpu_state, xcrs.flags),
    ONE(struct vcpu_state, xcrs.xcrs[0].xcr),
    ONE(struct vcpu_state, xcrs.xcrs[0].value),
};

static const struct state_field debugregs_fields[] = {
    MANY(struct vcpu_state, debugregs.db, 8),
    ONE(struct vcpu_state, debugregs.dr6),
    ONE(struct vcpu_state, debugregs.dr7),
    ONE(struct vcpu_state, debugregs.flags),
};

static const struct state_field lapic_fields[] = {
    MANY(struct vcpu_state, lapic.regs, 1),
};

static const struct state_field events_fields[] = {
    ONE(struct vcpu_state, events.exception.injected),
    ONE(struct vcpu_state, events.exception.nr),
    ONE(struct vcpu_state, events.exception.has_error_code),
    ONE(struct vcpu_state, events.exception.pending),
    ONE(struct vcpu_state, events.exception.error_code),
    ONE(struct vcpu_state, events.interrupt.injected),
    ONE(struct vcpu_state, events.interrupt.nr),
    ONE(struct vcpu_state, events.interrupt.soft),
    ONE(struct vcpu_state, events.interrupt.shadow),
    ONE(struct vcpu_state, events.nmi.injected),
    ONE(struct vcpu_state, events.nmi.pending),
    ONE(struct vcpu_state, events.nmi.masked),
    ONE(struct vcpu_state, events.sipi_vector),
    ONE(struct vcpu_state, events.flags),
    ONE(struct vcpu_state, events.smi.smm),
    ONE(struct vcpu_state, events.smi.pending),
    ONE(struct vcpu_state, events.smi.smm_inside_nmi),
    ONE(struct vcpu_state, events.smi.latched_init),
    ONE(struct vcpu_state, events.triple_fault.pending),
    ONE(struct vcpu_state, events.exception_has_payload),
    ONE(struct vcpu_state, events.exception_payload),
};

static const struct state_field cpuid_fields[] = {
    ONE(struct kvm_cpuid_entry2, function),
    ONE(struct kvm_cpuid_entry2, index),
    ONE(struct kvm_cpuid_entry2, flags),
    ONE(struct kvm_cpuid_entry2, eax),
    ONE(struct kvm_cpuid_entry2, ebx),
    ONE(struct kvm_cpuid_entry2, ecx),
    ONE(struct kvm_cpuid_entry2, edx),
};

static const struct state_field msrs_fields[] = {
    ONE(struct kvm_msr_entry, index),
    ONE(struct kvm_msr_entry, data),
};

static const struct state_field byte_fields[] = {{"byte", STATE_UINT, 1, 1, 0}};
static const struct state_field head_fields[] = {{"head", STATE_UINT, 2, 1, 0}};

static const struct state_field virtio_fields[] = {
    ONE(struct virtio_mmio_state, status),
    ONE(struct virtio_mmio_state, interrupt_status),
    ONE(struct virtio_mmio_state, device_features_sel),
    ONE(struct virtio_mmio_state, driver_features_sel),
    ONE(struct virtio_mmio_state, queue_sel),
    ONE(struct virtio_mmio_state, driver_features),
};

static const struct state_field queues_fields[] = {
    FLAG(struct virtqueue, ready),
    ONE(struct virtqueue, size),
    ONE(struct virtqueue, next_avail),
    ONE(struct virtqueue, next_used),
    ONE(struct virtqueue, desc_gpa),
    ONE(struct virtqueue, avail_gpa),
    ONE(struct virtqueue, used_gpa),
};

#define RECORD(type, name)                                                                         \
    {                                                                                              \
        type, #name, name##_fields, ARRAY_SIZE(name##_fields), false, 0, 0, 0, 0                   \
    }
#define ARRAY(type, name, fields, object, array, count)                                            \
    {                                                                                              \
        type, #name, fields, ARRAY_SIZE(fields), true, sizeof(((object *)0)->array[0]),            \
            offsetof(object, array), offsetof(object, count), ARRAY_SIZE(((object *)0)->array)     \
    }

const struct state_record state_records[] = {
    RECORD(STATE_MACHINE, machine),
    RECORD(STATE_CLOCK, clock),
    RECORD(STATE_PIT, pit),
    RECORD(STATE_PIC, pic),
    RECORD(STATE_IOAPIC, ioapic),
    RECORD(STATE_SERIAL, serial),
    RECORD(STATE_VCPU, vcpu),
    RECORD(STATE_REGS, regs),
    RECORD(STATE_SREGS, sregs),
    RECORD(STATE_XCRS, xcrs),
    RECORD(STATE_DEBUGREGS, debugregs),
    RECORD(STATE_LAPIC, lapic),
    RECORD(STATE_EVENTS, events),
    ARRAY(STATE_CPUID, cpuid, cpuid_fields, struct vcpu_state, cpuid, cpuid_count),
    ARRAY(STATE_MSRS, msrs, msrs_fields, struct vcpu_state, msrs, msr_count),
    ARRAY(STATE_XSAVE, xsave, byte_fields, struct vcpu_state, xsave, xsave_bytes),
    RECORD(STATE_VIRTIO, virtio),
    ARRAY(STATE_QUEUES, queues, queues_fields, struct virtio_mmio_state, queues, queue_count),
    ARRAY(STATE_PARKED, parked, head_fields, struct blk_state, parked, parked_count),
};
const size_t state_record_count = ARRAY_SIZE(state_records);

const struct state_record *state_record_find(uint32_t type)
{
    for (size_t i = 0; i < state_record_count; i++)
        if (state_records[i].type == type)
            return &state_records[i];
    return NULL;
}

uint32_t state_record_instances(
    const struct state_record *record, uint32_t vcpu_count, uint32_t disk_count)
{
    switch (record->type) {
    case STATE_PIC:
        return 2;
    case STATE_VCPU:
    case STATE_REGS:
    case STATE_SREGS:
    case STATE_XCRS:
    case STATE_DEBUGREGS:
    case STATE_LAPIC:
    case STATE_EVENTS:
    case STATE_CPUID:
    case STATE_MSRS:
    case STATE_XSAVE:
        return vcpu_count;
    case STATE_VIRTIO:
    case STATE_QUEUES:
        return 1 + disk_count;
    case STATE_PARKED:
        return disk_count;
    default:
        return 1;
    }
}

void *state_record_object(
    const struct state_record *record, struct vm_state *state, uint32_t instance)
{
    switch (record->type) {
    case STATE_MACHINE:
        return state;
    case STATE_CLOCK:
        return &state->clock;
    case STATE_PIT:
        return &state->chips.pit;
    case STATE_PIC:
        return instance == 0 ? &state->chips.pic_master : &state->chips.pic_slave;
    case STATE_IOAPIC:
        return &state->chips.ioapic;
    case STATE_SERIAL:
        return &state->machine.serial;
    case STATE_VIRTIO:
    case STATE_QUEUES:
        return instance == 0 ? &state->machine.rng : &state->machine.disks[instance - 1].virtio;
    case STATE_PARKED:
        return &state->machine.disks[instance];
    default:
        return &state->vcpus[instance];
    }
}
