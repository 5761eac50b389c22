/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that a guest cannot find by looking: the machine of machine.h in ACPI's words. Passed
 * through the C preprocessor, so that every address and interrupt comes from there. No processors:
 * the MADT lists those, and there is nothing to say about them here.
 */
#define MACHINE_CONSTANTS_ONLY 1
#include "machine.h"

/* A virtio-mmio slot. All slots are declared, whatever a VM has in them: an empty one reads as all
 * ones like any address without a device, and a placeholder has device id 0 (virtio 1.2, 4.2.2).
 * No _CCA: DMA on x86 is coherent unless told otherwise (ACPI 6.4, 6.2.17). */
#define VIRTIO_MAGIC 0x74726976 /* "virt" */
#define VIRTIO_SLOT(name, slot)                                                                    \
    Device (name)                                                                                  \
    {                                                                                              \
        Name (_HID, "LNRO0005")                                                                    \
        Name (_UID, slot)                                                                          \
        OperationRegion (REGS, SystemMemory,                                                       \
            MACHINE_VIRTIO_GPA + slot * MACHINE_VIRTIO_STRIDE, 0x0c)                               \
        Field (REGS, DWordAcc, NoLock, Preserve)                                                   \
        {                                                                                          \
            MAGC, 32,                                                                              \
            VERS, 32,                                                                              \
            DEVI, 32                                                                               \
        }                                                                                          \
        Method (_STA, 0, NotSerialized)                                                            \
        {                                                                                          \
            If (MAGC != VIRTIO_MAGIC || DEVI == 0)                                                 \
            {                                                                                      \
                Return (0)                                                                         \
            }                                                                                      \
            Return (0x0f)                                                                          \
        }                                                                                          \
        Method (_CRS, 0, Serialized)                                                               \
        {                                                                                          \
            Return (VCRS (slot))                                                                   \
        }                                                                                          \
    }

#if MACHINE_VIRTIO_SLOTS != 16
#error "dsdt.asl declares 16 virtio-mmio slots"
#endif

DefinitionBlock ("", "DSDT", 2, "THAW  ", "THAWVM  ", 1)
{
    /* Power-off: what goes into SLP_TYP of the sleep control register (ACPI 6.4, 7.4.2). */
    Name (\_S5, Package ()
    {
        MACHINE_S5_TYPE, 0, 0, 0
    })

    Scope (\_SB)
    {
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, MACHINE_COM1_PORT, MACHINE_COM1_PORT, 0, MACHINE_COM1_PORT_COUNT)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive)
                {
                    MACHINE_COM1_GSI
                }
            })
        }

        /* The resources of a virtio-mmio slot. Computed here because iasl 20200925 writes wrong
         * lengths where a resource descriptor has an expression for an address. */
        Method (VCRS, 1, Serialized)
        {
            Name (RSRC, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, MACHINE_VIRTIO_GPA, MACHINE_VIRTIO_STRIDE, REGS)
                Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive, , , LINE)
                {
                    MACHINE_VIRTIO_GSI
                }
            })
            CreateDWordField (RSRC, REGS._BAS, BASE)
            CreateDWordField (RSRC, LINE._INT, GSIV)
            BASE = MACHINE_VIRTIO_GPA + Arg0 * MACHINE_VIRTIO_STRIDE
            GSIV = MACHINE_VIRTIO_GSI + Arg0
            Return (RSRC)
        }

        VIRTIO_SLOT (VIO0, 0)
        VIRTIO_SLOT (VIO1, 1)
        VIRTIO_SLOT (VIO2, 2)
        VIRTIO_SLOT (VIO3, 3)
        VIRTIO_SLOT (VIO4, 4)
        VIRTIO_SLOT (VIO5, 5)
        VIRTIO_SLOT (VIO6, 6)
        VIRTIO_SLOT (VIO7, 7)
        VIRTIO_SLOT (VIO8, 8)
        VIRTIO_SLOT (VIO9, 9)
        VIRTIO_SLOT (VIOA, 10)
        VIRTIO_SLOT (VIOB, 11)
        VIRTIO_SLOT (VIOC, 12)
        VIRTIO_SLOT (VIOD, 13)
        VIRTIO_SLOT (VIOE, 14)
        VIRTIO_SLOT (VIOF, 15)

        /* Microsoft, "Virtual Machine Generation ID": the guest finds the device by its _CID, and
         * the 16-byte id at the address that ADDR gives as low and high half. */
        Device (VGEN)
        {
            Name (_HID, "THAW0001")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package ()
            {
                MACHINE_VMGENID_GPA, 0
            })
        }

        /* Generic Event Device (ACPI 6.4, 5.6.9): its one interrupt means that the id has changed.
         * Edge-triggered, so the VMM pulses the line and needs no acknowledgement. */
        Device (GED0)
        {
            Name (_HID, "ACPI0013")
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive)
                {
                    MACHINE_GED_GSI
                }
            })
            Method (_EVT, 1, Serialized)
            {
                If (Arg0 == MACHINE_GED_GSI)
                {
                    Notify (\_SB.VGEN, 0x80)
                }
            }
        }
    }
}
