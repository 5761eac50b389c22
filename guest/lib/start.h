// SPDX-License-Identifier: Apache-2.0
// Segment selectors of the one GDT, for assembly and C: those of the kernel's boot protocol.
// gdt_pointer and page_tables (start.S) are for code that starts further CPUs.
#ifndef GUEST_START_H
#define GUEST_START_H

#define SEL_CODE64 0x10
#define SEL_DATA   0x18

#endif
