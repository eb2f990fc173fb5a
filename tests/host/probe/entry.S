/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a PVH guest begins: 32 bits, no paging, EBX is the address of what Xen says of
 * the guest (xen/arch-x86/hvm/start_info.h).
 */
#include <xen/elfnote.h>

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry

    .text
    .code32
    .globl entry
entry:
    cld
    movl $stack_end, %esp
    pushl %ebx
    call probe
1:  hlt
    jmp 1b

    .bss
    .balign 16
    .skip 16384
stack_end:
    .section .note.GNU-stack, "", @progbits
