/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x87, MMX and SSE2: values, flags, MXCSR, FXSAVE. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	fninit
	fldl	three
	fldl	four
	fmul	%st(0), %st(0)		/* 16 */
	fxch
	fmul	%st(0), %st(0)		/* 9 */
	faddp				/* 25 */
	fsqrt
	fistpl	RESULTS + 0x800
	cmpl	$5, RESULTS + 0x800
	CHECK_EQUAL
	fldpi
	fldln2
	fpatan
	fstpt	RESULTS + 0x810
	fld1
	fldz
	fcomip	%st(1), %st
	setb	%al
	cmp	$1, %al
	CHECK_EQUAL
	fstp	%st(0)
	fnstsw	%ax
	mov	%ax, RESULTS + 0x820

	movq	three, %mm0
	movq	four, %mm1
	paddd	%mm1, %mm0
	movq	%mm0, RESULTS + 0x828
	emms

	movsd	three, %xmm0
	movsd	four, %xmm1
	mulsd	%xmm0, %xmm0
	mulsd	%xmm1, %xmm1
	addsd	%xmm1, %xmm0
	sqrtsd	%xmm0, %xmm0
	cvtsd2si %xmm0, %eax
	cmp	$5, %eax
	CHECK_EQUAL
	movups	pattern, %xmm2
	movdqa	%xmm2, %xmm3
	pshufd	$0x1b, %xmm3, %xmm3
	paddq	%xmm2, %xmm3
	punpcklbw %xmm2, %xmm3
	movdqu	%xmm3, RESULTS + 0x831	/* not aligned */
	TRY movdqa %xmm3, RESULTS + 0x831
	EXPECT(13, 0)
	pcmpeqd	%xmm4, %xmm4
	psrlq	$63, %xmm4
	movdqa	%xmm4, RESULTS + 0x850
	movd	%xmm3, %edx
	pmovmskb %xmm2, %ecx
	mov	%ecx, RESULTS + 0x860
	xorps	%xmm5, %xmm5
	divss	%xmm5, %xmm5		/* invalid: a NaN and a flag */
	stmxcsr	RESULTS + 0x864
	testl	$1, RESULTS + 0x864
	setnz	%al
	cmp	$1, %al
	CHECK_EQUAL
	movl	$0x10000, RESULTS + 0x868
	TRY ldmxcsr RESULTS + 0x868	/* reserved */
	EXPECT(13, 0)
	ucomiss	%xmm0, %xmm5
	setp	%al
	cmp	$1, %al
	CHECK_EQUAL
	movl	$0x1f80, RESULTS + 0x868
	ldmxcsr	RESULTS + 0x868

	fldl	three
	fxsave	SCRATCH + 0x8000
	fninit
	pxor	%xmm0, %xmm0
	fxrstor	SCRATCH + 0x8000
	fistpl	RESULTS + 0x86c
	cmpl	$3, RESULTS + 0x86c
	CHECK_EQUAL
	cvtsd2si %xmm0, %eax
	cmp	$5, %eax
	CHECK_EQUAL
	/* Across a page */
	movups	%xmm2, SCRATCH + 0x9ff9
	movups	SCRATCH + 0x9ff9, %xmm6
	pcmpeqb	%xmm2, %xmm6
	pmovmskb %xmm6, %eax
	cmp	$0xffff, %eax
	CHECK_EQUAL
	PASS

	.data
	.balign	16
three:	.double	3
four:	.double	4
pattern: .quad	0x0123456789abcdef, 0xfedcba9876543210
	.section .note.GNU-stack, "", @progbits
