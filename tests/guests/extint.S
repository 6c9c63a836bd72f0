/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts of the PIC through LVT0 in ExtINT mode: while halted, while IF is clear, while LVT0 is masked. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	mov	$0xfee00000, %ebp
	movq	$on_intr, handlers + 0x45 * 8
	movq	$on_intr, handlers + 0x46 * 8
	movl	$0x1ff, 0xf0(%rbp)
	movl	$0x700, 0x350(%rbp)	/* LVT0: ExtINT */
	/* Raised while halted is not possible with one vCPU; raised just before HLT is. */
	mov	$0x45, %al
	out	%al, $PORT_INTR
1:	sti
	hlt
	cli
	cmpl	$1, count
	jb	1b
	/* While IF is clear */
	mov	$0x46, %al
	out	%al, $PORT_INTR
	mov	$1000, %ecx
2:	loop	2b
	cmpl	$1, count
	CHECK_EQUAL
	AWAIT(count, 2)
	/* While LVT0 is masked */
	movl	$0x10700, 0x350(%rbp)
	mov	$0x45, %al
	out	%al, $PORT_INTR
	sti
	mov	$1000, %ecx
3:	loop	3b
	cmpl	$2, count
	CHECK_EQUAL
	cli
	movl	$0x700, 0x350(%rbp)
	AWAIT(count, 3)
	/* A second one from inside the handler */
	movb	$1, again
	mov	$0x45, %al
	out	%al, $PORT_INTR
	AWAIT(count, 5)
	PASS

on_intr:
	add	$16, %rsp
	incl	count
	cmpb	$0, again
	je	1f
	movb	$0, again
	push	%rax
	mov	$0x46, %al
	out	%al, $PORT_INTR
	pop	%rax
1:	iretq				/* no EOI: the vector is not the APIC's */

	.bss
	.balign	4
count:	.long	0
again:	.byte	0
	.section .note.GNU-stack, "", @progbits
