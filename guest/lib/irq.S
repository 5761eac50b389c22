// SPDX-License-Identifier: Apache-2.0
// Interrupt and fault entry points. An interrupt is left without IRET, which KVM's instruction
// emulator lacks in long mode: flags by POPF, then RET, which is right on real processors too.

        .text

/* On entry: RIP, CS, RFLAGS, RSP, SS at (%rsp). All code runs at ring 0 with the same segments, so
 * only RIP, RFLAGS and RSP have to be put back. They are moved to just below the interrupted RSP
 * (the guests are built without a red zone). That place overlaps the frame, but only parts that
 * were read before. Interrupts stay off until POPF; one that comes between POPF and RET is fine. */
        .macro  return_from_interrupt
        mov     16(%rsp), %rdx          /* the three pushed registers, then the frame */
        push    %rdx                    /* keep the interrupted %rdx at hand */
        mov     32(%rsp), %rax          /* RIP */
        mov     48(%rsp), %rcx          /* RFLAGS */
        mov     56(%rsp), %rdx          /* RSP */
        mov     %rax, -8(%rdx)
        mov     %rcx, -16(%rdx)
        pop     %rax
        mov     %rax, -24(%rdx)
        pop     %rax
        pop     %rcx
        lea     -24(%rdx), %rsp
        pop     %rdx
        popf
        ret
        .endm

        .globl  irq_entry
irq_entry:
        push    %rdx
        push    %rcx
        push    %rax
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %rbp
        mov     %rsp, %rbp
        and     $-16, %rsp
        cld
        call    *irq_handler
        mov     %rbp, %rsp
        pop     %rbp
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        return_from_interrupt

        .globl  irq_entry_spurious
irq_entry_spurious:
        push    %rdx
        push    %rcx
        push    %rax
        return_from_interrupt

/* Faults don't return: push vector and error code, report. */
        .globl  fault_entry_de, fault_entry_ud, fault_entry_gp, fault_entry_pf
fault_entry_de:
        push    $0
        push    $0
        jmp     fault_common
fault_entry_ud:
        push    $0
        push    $6
        jmp     fault_common
fault_entry_gp:
        push    $13
        jmp     fault_common
fault_entry_pf:
        push    $14
fault_common:
        mov     %rsp, %rdi
        mov     %cr2, %rsi
        and     $-16, %rsp
        cld
        call    fault_report
        .section .note.GNU-stack, "", @progbits
