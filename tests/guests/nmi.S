/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Three NMIs, each while halted with interrupts off; the machine sends one some time after each marker. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	movq	$on_nmi, handlers + 2 * 8
	xor	%ecx, %ecx
1:	inc	%ecx
	out	%al, $PORT_MARKER
2:	hlt
	cmp	%ecx, count
	jb	2b
	cmp	$3, %ecx
	jb	1b
	PASS

on_nmi:
	add	$16, %rsp
	incl	count
	iretq

	.bss
	.balign	4
count:	.long	0
	.section .note.GNU-stack, "", @progbits
