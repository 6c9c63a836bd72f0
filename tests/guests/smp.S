/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A second processor: INIT, SIPI, atomic instructions against each other, an IPI to a halted one. */
#include "payload.h"

	.text
	.code64
	.globl	main64

#define TURNS 1000

main64:
	mov	$0xfee00000, %ebp
	movq	$on_ipi, handlers + 0x42 * 8
	movl	$0x1ff, 0xf0(%rbp)
	mov	$ap_trampoline, %esi
	mov	$TRAMPOLINE, %edi
	mov	$ap_trampoline_end, %ecx
	sub	%esi, %ecx
	rep movsb
	movl	$0x01000000, 0x310(%rbp)
	movl	$0x4500, 0x300(%rbp)	/* INIT */
	movl	$0x01000000, 0x310(%rbp)
	movl	$0x4608, 0x300(%rbp)	/* SIPI to 8000h */
1:	pause
	cmpl	$1, ap_ready
	jne	1b
	movl	$0x4608, 0x300(%rbp)	/* once is enough: this one is ignored */
	movl	$1, go
	call	work
2:	sti
	hlt				/* until the other is done, too */
	cli
	cmpl	$1, ipis
	jb	2b
	cmpl	$(2 * TURNS), adds
	CHECK_EQUAL
	cmpl	$(2 * TURNS), locked
	CHECK_EQUAL
	cmpq	$(2 * TURNS), wide
	CHECK_EQUAL
	cmpq	$(-2 * TURNS), wide + 8
	CHECK_EQUAL
	mov	bits, %eax
	cmp	$0, %eax
	CHECK_EQUAL
	PASS

	.globl	ap_main
ap_main:
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	mov	0x20(%rbp), %eax
	cmp	$0x01000000, %eax	/* its own APIC */
	CHECK_EQUAL
	mov	$1, %eax
	cpuid
	shr	$24, %ebx
	cmp	$1, %ebx
	CHECK_EQUAL
	movl	$1, ap_ready
3:	pause
	cmpl	$1, go
	jne	3b
	call	work
	movl	$0, 0x310(%rbp)
	movl	$0x4042, 0x300(%rbp)
4:	hlt
	jmp	4b

work:
	mov	$TURNS, %esi
1:	lock incl adds
2:	mov	$1, %eax		/* a spin lock */
	xchg	%eax, lock_word
	test	%eax, %eax
	jz	3f
	pause
	jmp	2b
3:	mov	locked, %eax
	inc	%eax
	mov	%eax, locked
	movl	$0, lock_word
	mov	wide, %rax		/* a 16-byte counter pair */
	mov	wide + 8, %rdx
4:	lea	1(%rax), %rbx
	lea	-1(%rdx), %rcx
	lock cmpxchg16b wide
	jnz	4b
	lock xorl $0x55, bits
	dec	%esi
	jnz	1b
	ret

on_ipi:
	add	$16, %rsp
	incl	ipis
	movl	$0, 0xb0(%rbp)
	iretq

	.bss
	.balign	64
wide:	.quad	0, 0
ap_ready: .long	0
go:	.long	0
	.balign	64
adds:	.long	0
lock_word: .long 0
locked:	.long	0
bits:	.long	0
ipis:	.long	0
	.section .note.GNU-stack, "", @progbits
