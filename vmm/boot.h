/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading what a fresh guest starts with. A bzImage and an ELF64 executable are both entered by the
 * 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long mode,
 * identity-mapped low memory, RSI = boot_params.
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "mem.h"

struct boot_source {
    const char *kernel_path;
    const char *initrd_path; /* NULL: none */
    const char *cmdline;     /* NULL: empty */
};

/* Where the boot processor starts. Its page tables, GDT and boot_params are in guest memory then.
 */
struct boot_entry {
    uint64_t rip;
    uint64_t rsi; /* boot_params */
    uint64_t cr3; /* identity map, 2 MiB pages: the first 4 GiB, and RAM up to 21 GiB */
    uint64_t gdt_gpa;
    uint16_t gdt_limit; /* bytes - 1; selector 0x10 is 64-bit code, 0x18 data, as the protocol asks.
                           No TSS: the task register that KVM gives a new vCPU satisfies hardware */
};

/* Reads the files into guest memory and writes boot_params, command line, e820 map, ACPI tables
 * (for vcpu_count processors), page tables, GDT and a reset vector. Guest memory must be fresh,
 * that is, all zero. Every header field is checked against the file's real size and against RAM.
 * The initrd ends as high below 3 GiB as RAM and the kernel allow, and begins on a page boundary.
 * Errors: THAW_EIMAGE with what is wrong with which file, -errno from the files, -E2BIG for a
 * command line that is too long; guest memory is then of no use any more. */
int boot_load(struct mem *mem, const struct boot_source *source, uint32_t vcpu_count,
    struct boot_entry *ret, struct thaw_error *error);

#endif
