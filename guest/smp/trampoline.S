// SPDX-License-Identifier: Apache-2.0
// Where a started CPU begins: real mode code, copied to TRAMPOLINE, that goes to 64-bit mode.
// Uses the boot CPU's GDT and page tables; every CPU takes a number, and a stack by it.
#include "smp.h"
#include "start.h"

#define AT(label) (TRAMPOLINE + (label) - trampoline)

        .section .rodata
        .code16
        .globl  trampoline, trampoline_end
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   AT(gdt_copy)
        mov     $0x20, %eax             /* CR4.PAE */
        mov     %eax, %cr4
        mov     $page_tables, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       /* EFER.LME */
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000001, %eax       /* CR0.PG and CR0.PE: straight to long mode */
        mov     %eax, %cr0
        ljmpl   $SEL_CODE64, $cpu_start
        .balign 8
gdt_copy:
        .word   0x1f                    /* the four entries of start.S */
        .long   gdt
trampoline_end:

        .text
        .code64
cpu_start:
        mov     $SEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $1, %edi
        lock xadd %rdi, cpus_started    /* the boot CPU is number 0 */
        cmp     $MAX_CPUS, %rdi
        jae     no_room
        mov     %rdi, %rax
        shl     $CPU_STACK_SHIFT, %rax
        lea     cpu_stacks(%rax), %rsp  /* ends where number 1's would begin, and so on */
        xor     %ebp, %ebp
        call    cpu_main
no_room:
        cli
        hlt
        jmp     no_room
        .section .note.GNU-stack, "", @progbits
