/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For payloads with a main32: exceptions in flat 32-bit mode. */
#pragma once
#include "guest.h"

#define IDT32 0x9000

	.macro CHECK32 line
	je	.Lok\@
	mov	$\line, %eax
	jmp	leave32
.Lok\@:
	.endm
#define CHECK CHECK32 __LINE__

/* Run an instruction that may fault: al = vector (ffh: none), error code in ecx. */
	.macro TRY32 insn:vararg
	mov	$.Lresume\@, %esi
	movb	$0xff, seen
	\insn
.Lresume\@:
	movzbl	seen, %eax
	mov	error, %ecx
	.endm

/* At the start of main32 */
	.macro SETUP32
	/* Gates for vectors 0 to 31, all to the same place; 8 bytes of code each tell which. */
	mov	$IDT32, %edi
	mov	$stubs32, %eax
1:	mov	%ax, (%edi)
	movw	$SEL_CODE32, 2(%edi)
	movw	$0x8e00, 4(%edi)
	movl	%eax, %edx
	shr	$16, %edx
	mov	%dx, 6(%edi)
	add	$16, %eax
	add	$8, %edi
	cmp	$(IDT32 + 32 * 8), %edi
	jne	1b
	lidt	idt32

	.endm

/* At its end: what the runtime wants zeroed. */
	.macro LEAVE32
	mov	$IDT32, %edi
	mov	$0x1800, %ecx
	xor	%eax, %eax
	rep stosl
	ret
	.endm

	.text
	.code32
leave32:
	out	%eax, $PORT_EXIT
1:	hlt
	jmp	1b

	.balign	16
stubs32:
	.set	vector, 0
	.rept	32
	.balign	16
	.if	vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
	.else
	push	$0
	.endif
	movb	$vector, seen
	jmp	common32
	.set	vector, vector + 1
	.endr
common32:
	popl	error
	mov	%esi, (%esp)
	iret

	.data
idt32:	.word	32 * 8 - 1
	.long	IDT32
	.bss
error:	.long	0
seen:	.byte	0
	.text
	.code64
	.globl	main64
main64:
	xor	%eax, %eax
	ret
