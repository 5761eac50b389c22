// SPDX-License-Identifier: Apache-2.0
// The two entry points: the kernel's 64-bit boot protocol and PVH, with the tables both switch to.
// The tables are finished at build time and have every accessed and dirty bit set already, so that
// neither this code nor the processor spends time on writing them.
#include "start.h"

#define CR0_PE   0x1
#define CR0_PG   0x80000000
#define CR4_PAE  0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

        .section .note.pvh, "a", @note
        .balign 4
        .long   4, 8, 18                /* name bytes, value bytes, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .quad   start_pvh

        .text

/* 64-bit mode, identity mapped, %rsi = boot_params. */
        .code64
        .globl  start_linux
start_linux:
        cli
        cld
        mov     $boot_stack_top, %esp
        mov     $page_tables, %eax
        mov     %rax, %cr3
        lgdt    gdt_pointer
        push    $SEL_CODE64
        push    $1f
        lretq
1:      call    load_data_segments
        mov     %rsi, %rdi
        call    boot_linux

/* 32-bit protected mode without paging, %ebx = hvm_start_info. */
        .code32
start_pvh:
        cli
        cld
        mov     $boot_stack_top, %esp
        mov     $page_tables, %eax
        mov     %eax, %cr3
        mov     %cr4, %eax
        or      $CR4_PAE, %eax
        mov     %eax, %cr4
        mov     $MSR_EFER, %ecx
        rdmsr
        or      $EFER_LME, %eax
        wrmsr
        mov     %cr0, %eax
        or      $(CR0_PG | CR0_PE), %eax
        mov     %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $SEL_CODE64, $1f
        .code64
1:      call    load_data_segments
        mov     %ebx, %edi
        call    boot_pvh

load_data_segments:
        mov     $SEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        ret

        .section .rodata
        .balign 8
        .globl  gdt
gdt:    .quad   0, 0
        .quad   0x00af9b000000ffff      /* SEL_CODE64 */
        .quad   0x00cf93000000ffff      /* SEL_DATA */
gdt_end:
        .globl  gdt_pointer
gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt

/* Identity map. The first 4 GiB use 2 MiB pages, uncached from 3 GiB on, where devices are. What is
 * above, 508 GiB, uses 1 GiB pages; a CPU without these faults there and nowhere else. */
#define PTE_TABLE 0x23                  /* present, writable, accessed */
#define PTE_PAGE  0xe3                  /* the same, dirty, large page */
#define PTE_PCD   0x10

        .balign 4096
        .globl  page_tables
page_tables:
        .quad   pdpt + PTE_TABLE
        .fill   511, 8, 0
pdpt:
        .quad   directories + 0x0000 + PTE_TABLE
        .quad   directories + 0x1000 + PTE_TABLE
        .quad   directories + 0x2000 + PTE_TABLE
        .quad   directories + 0x3000 + PTE_TABLE
        .set    gib, 4
        .rept   508
        .quad   (gib << 30) + PTE_PAGE
        .set    gib, gib + 1
        .endr
directories:
        .set    page, 0
        .rept   1536
        .quad   (page << 21) + PTE_PAGE
        .set    page, page + 1
        .endr
        .rept   512
        .quad   (page << 21) + PTE_PAGE + PTE_PCD
        .set    page, page + 1
        .endr

        .bss
        .balign 16
        .skip   8192
boot_stack_top:
        .section .note.GNU-stack, "", @progbits
