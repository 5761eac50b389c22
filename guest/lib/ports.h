// SPDX-License-Identifier: Apache-2.0
// The I/O ports that the small guests share with the VMM.
// Constants only, so that the VMM and the tests can include it too; access functions are in cpu.h.
#ifndef GUEST_PORTS_H
#define GUEST_PORTS_H

/* 16550 UART. Output goes straight to the transmit register: no VMM makes the guest wait for it. */
#define PORT_COM1     0x3f8
#define PORT_COM1_LSR 0x3fd
#define COM1_LSR_DATA 0x01 /* a received byte is waiting in PORT_COM1 */

/* A 32-bit write ends the guest with that status. This is QEMU's isa-debug-exit, placed by
 * -device isa-debug-exit,iobase=0xf4,iosize=0x04; QEMU then exits with (status << 1) | 1. */
#define PORT_EXIT 0xf4

/* A 32-bit write of N tells the VMM that the guest reached marker N. Ignored by other VMMs. */
#define PORT_MARK 0xe0

/* Keyboard controller: writing KBD_RESET resets the machine, for VMMs without PORT_EXIT. */
#define PORT_KBD  0x64
#define KBD_RESET 0xfe

/* Interrupt mask registers of the two legacy interrupt controllers. */
#define PORT_PIC1_MASK 0x21
#define PORT_PIC2_MASK 0xa1

#endif
