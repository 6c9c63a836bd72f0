/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work for a vCPU that moves between engines: integer, x87 and SSE arithmetic,
 * strings, calls, faults and mode-dependent registers, chained so that one lost
 * bit anywhere changes the end. Writes to PORT_MARKER say "here".
 */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	movq	$on_ipi, handlers + 0x40 * 8
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	mov	$0xc0000102, %ecx	/* KERNEL_GS_BASE, FS_BASE: travel too */
	mov	$0x12345000, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0xc0000100, %ecx
	mov	$SCRATCH, %eax
	wrmsr
	mov	$0x9e3779b97f4a7c15, %r8
	mov	$0x243f6a8885a308d3, %r9
	mov	$40, %r14d
	fninit
	fld1
	mov	$3, %eax
	cvtsi2sd %eax, %xmm7
	movq	%r8, %xmm1
round:
	mov	%r8, %rax
	mul	%r9
	xor	%rdx, %rax
	rol	$17, %rax
	mov	%rax, %r8
	out	%al, $PORT_MARKER
	adc	%r9, %r8
	pushfq
	pop	%rcx
	and	$0xcd5, %ecx
	and	$~0x10, %ecx
	add	%rcx, %r9
	call	mix
	fldpi
	faddp
	fsqrt
	out	%al, $PORT_MARKER
	fstl	RESULTS + 0x900
	add	RESULTS + 0x900, %r9
	addsd	%xmm7, %xmm7
	sqrtsd	%xmm7, %xmm7
	addsd	%xmm7, %xmm7
	movq	%xmm7, %rax
	xor	%rax, %r8
	movq	%r8, %xmm2
	paddq	%xmm2, %xmm1
	pshufd	$0x4e, %xmm1, %xmm1
	movdqu	%xmm1, RESULTS + 0x910
	/* A string over a page boundary, the registers in the middle of use */
	mov	$(RESULTS+0x900), %esi
	mov	$(SCRATCH+0x1ff1), %edi
	mov	$0x20, %ecx
	std
	cld
	out	%al, $PORT_MARKER
	rep movsb
	mov	%fs:0x1ff9, %rax
	add	%rax, %r8
	/* A fault and an interrupt */
	TRY ud2
	EXPECT(6, 0)
	movl	$0x40040, 0x300(%rbp)
	sti
	nop
	out	%al, $PORT_MARKER
	cli
	mov	%r8, %rax
	lea	1(%r14), %ecx
	ror	%cl, %rax
	mov	%rax, %r8
	dec	%r14d
	jnz	round
	mov	%r8, RESULTS + 0x800
	mov	%r9, RESULTS + 0x808
	movdqu	%xmm1, RESULTS + 0x810
	fstpl	RESULTS + 0x820
	mov	ipis, %eax
	mov	%eax, RESULTS + 0x828
	cmp	$40, %eax
	CHECK_EQUAL
	mov	$0xc0000102, %ecx
	rdmsr
	cmp	$0x12345000, %eax
	CHECK_EQUAL
	PASS

mix:
	push	%r8
	xorl	$0xa5a5a5a5, (%rsp)
	bsr	%r8, %rax
	bt	%eax, %r9d
	sbb	%rcx, %rcx
	add	%rcx, %r9
	imul	$0x1003f, (%rsp), %rax
	out	%al, $PORT_MARKER
	add	%rax, %r9
	pop	%rax
	bswap	%rax
	xor	%rax, %r8
	ret

on_ipi:
	add	$16, %rsp
	incl	ipis
	push	%rax
	add	%r14d, RESULTS + 0x82c
	out	%al, $PORT_MARKER
	movl	$0, 0xb0(%rbp)
	pop	%rax
	iretq

	.bss
	.balign	4
ipis:	.long	0
	.section .note.GNU-stack, "", @progbits
