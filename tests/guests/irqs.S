/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages from devices: level-triggered ones, whose EOI must come back to the
 * IOAPIC; edge-triggered ones, whose must not; one by a descriptor, and a
 * doorbell the other way.
 */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	mov	$0xfee00000, %ebp
	movl	$((DEVICE & ~0x1fffff) | 0x9b), PD_HIGH + ((DEVICE - 0xc0000000) >> 21) * 8
	movq	$on_irq, handlers + 0x50 * 8
	movq	$on_irq, handlers + 0x60 * 8
	movq	$on_irq, handlers + IRQFD_VECTOR * 8
	movl	$0x1ff, 0xf0(%rbp)
	mov	$0x50, %al
	out	%al, $PORT_LEVEL
1:	sti
	hlt
	cli
	cmpl	$1, count
	jb	1b
	mov	$0x60, %al
	out	%al, $PORT_EDGE
2:	sti
	hlt
	cli
	cmpl	$2, count
	jb	2b
	mov	$DOORBELL, %ebx
	movl	$1, (%rbx)
	movl	$1, (%rbx)
	out	%al, $PORT_IRQFD
3:	sti
	hlt
	cli
	cmpl	$3, count
	jb	3b
	PASS

on_irq:
	add	$16, %rsp
	incl	count
	movl	$0, 0xb0(%rbp)
	iretq

	.bss
	.balign	4
count:	.long	0
	.section .note.GNU-stack, "", @progbits
