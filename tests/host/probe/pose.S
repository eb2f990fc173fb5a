/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define EFER 0xc0000080
#define EFER_LME (1 << 8)
#define CR4_PAE (1 << 5)
#define CR0_PG (1 << 31)
#define CODE64 8

#define HYPERVISOR_SCHED_OP 29
#define SCHEDOP_SHUTDOWN 2
#define SHUTDOWN_CRASH 3

    .text
    .code32
    .globl leave
/* leave(u64 last, u32 tables, u32 cr3) */
leave:
    movl 4(%esp), %edi
    movl 8(%esp), %esi
    movl 12(%esp), %eax
    movl 16(%esp), %ebx
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    lgdt descriptors_at
    ljmp $CODE64, $1f
    .code64
1:  shlq $32, %rsi
    movl %edi, %edi
    orq %rdi, %rsi
    jmp *%rsi

    .globl last_code, last_code_end
last_code:
    movl %ebx, %ebx
    movq %rbx, %cr3
    movl $HYPERVISOR_SCHED_OP, %eax
    movl $SCHEDOP_SHUTDOWN, %edi
    leaq reason(%rip), %rsi
    vmmcall
2:  jmp 2b
reason:
    .long SHUTDOWN_CRASH
last_code_end:

    .section .rodata
    .balign 8
descriptors:
    .quad 0
    .quad 0x00af9b000000ffff /* 64-bit code */
descriptors_end:
descriptors_at:
    .word descriptors_end - descriptors - 1
    .long descriptors
    .section .note.GNU-stack, "", @progbits
