/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: THE list of what a guest finds where. dsdt.asl says the same in ACPI's words and
 * includes this file, so only preprocessor constants stand above the marked line.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

/* Port I/O */
#define MACHINE_MARK_PORT          0xe0 /* test port: 32-bit write, "mark N reached" */
#define MACHINE_MARK_PORT_COUNT    4
#define MACHINE_EXIT_PORT          0xf4 /* test port: 32-bit write ends the guest with that status */
#define MACHINE_EXIT_PORT_COUNT    4
#define MACHINE_KBD_PORT           0x64 /* keyboard controller, of which only "pulse reset" (0xfe) exists */
#define MACHINE_COM1_PORT          0x3f8
#define MACHINE_COM1_PORT_COUNT    8
#define MACHINE_SLEEP_CONTROL_PORT 0x600 /* ACPI 6.4, 4.8.3.7: hardware-reduced sleep registers */
#define MACHINE_SLEEP_STATUS_PORT  0x601
#define MACHINE_RESET_PORT         0x602 /* ACPI 6.4, 4.8.3.6 */
#define MACHINE_RESET_VALUE        0x01
#define MACHINE_S5_TYPE            5 /* SLP_TYP that powers off */

/* MMIO, between 3 GiB and 4 GiB */
#define MACHINE_VIRTIO_GPA       0xd0000000
#define MACHINE_VIRTIO_STRIDE    0x1000
#define MACHINE_VIRTIO_SLOTS     16
#define MACHINE_IOAPIC_GPA       0xfec00000
#define MACHINE_LAPIC_GPA        0xfee00000
#define MACHINE_IDENTITY_MAP_GPA 0xfffbc000 /* KVM's own, one page; used on some Intel hosts */
#define MACHINE_TSS_GPA          0xfffbd000 /* KVM's own, three pages; used on some Intel hosts */

/* Interrupt lines: IOAPIC inputs */
#define MACHINE_PIT_GSI    2 /* ISA interrupt 0 arrives here */
#define MACHINE_COM1_GSI   4
#define MACHINE_GED_GSI    5
#define MACHINE_VIRTIO_GSI 8 /* slot i: 8 + i, level, active high */

/* Low memory: what the loader leaves for the guest */
#define MACHINE_GDT_GPA         0x500
#define MACHINE_BOOT_PARAMS_GPA 0x7000
#define MACHINE_PAGE_TABLES_GPA 0x9000 /* PML4, PDPT, then page directories */
#define MACHINE_CMDLINE_GPA     0x20000
#define MACHINE_CMDLINE_BYTES   2048
#define MACHINE_ACPI_GPA        0xe0000 /* RSDP first: within the area that is searched for it */
#define MACHINE_ACPI_BYTES      0x20000
#define MACHINE_VMGENID_GPA                                                                        \
    0xff000 /* the last page of the ACPI area: generation id at its start                          \
             */
#define MACHINE_KERNEL_GPA 0x100000

#ifndef MACHINE_CONSTANTS_ONLY /* iasl reads no C */

#include "bus.h"
#include "dev_blk.h"
#include "dev_power.h"
#include "dev_rng.h"
#include "dev_serial.h"
#include "irq.h"
#include "mem.h"
#include <thaw/vm.h>

/* What the devices are connected to on the host's side. Borrowed for the call, but for the
 * callbacks' data. */
struct machine_config {
    thaw_console_fn console; /* may be NULL */
    void *console_data;
    const struct power_ops *power_ops;
    void (*disk_full)(void *data, unsigned disk); /* as blk_env's full */
    void *data;                                   /* of power_ops and disk_full */
    unsigned disk_count;                          /* at most THAW_DISKS_MAX */
    /* Makes the disk's layers, on an engine that is started. `data` is disk_data. */
    int (*open_disk)(
        void *data, struct io *io, unsigned index, struct disk **ret, struct thaw_error *error);
    void *disk_data;
};

/* What the guest can observe of all devices: plain data. */
struct machine_state {
    struct serial_state serial;
    struct virtio_mmio_state rng;
    uint32_t disk_count;
    struct blk_state disks[THAW_DISKS_MAX];
};

/* A disk of the machine, and what its callback needs. */
struct machine_disk {
    struct blk *blk;
    struct machine *machine;
};

/* All devices of one VM, and the buses through which vCPUs reach them. */
struct machine {
    struct bus pio, mmio;
    struct serial serial;
    struct power power;
    struct irq_line ged_irq;
    struct io *io;
    struct rng *rng;
    struct machine_disk disks[THAW_DISKS_MAX];
    unsigned disk_count;
    void (*disk_full)(void *data, unsigned disk);
    void *data;
};

/* Makes the devices, as after power-on or as `state` (NULL: none) says. They use *mem and the
 * interrupt controllers of vm_fd, and do nothing by themselves until machine_resume. *machine does
 * not move afterwards. */
int machine_init(struct machine *machine, int vm_fd, struct mem *mem,
    const struct machine_config *config, const struct machine_state *state,
    struct thaw_error *error);

/* The devices' state. The machine is paused, and no vCPU runs. */
void machine_save(struct machine *machine, struct machine_state *ret);

/* Puts the devices back into the state that they were made with. The machine is paused. Their disks
 * are the caller's matter. */
void machine_reset(struct machine *machine, const struct machine_state *state);

/* Frees the devices. No vCPU runs. Zeroes are allowed. */
void machine_fini(struct machine *machine);

/* Stops all work that devices do by themselves, and returns when none is in flight: while no vCPU
 * runs, guest memory, disks and interrupt lines do not change after that. Console input is still
 * taken. Zeroes are allowed. */
void machine_pause(struct machine *machine);

/* Lets devices work (again); each looks for requests that came while it was paused. */
void machine_resume(struct machine *machine);

#endif
#endif
