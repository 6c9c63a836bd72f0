/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AVX, and AVX2, FMA, BMI, MOVBE, POPCNT where x86-64-v3 has them all. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	NEED	1, ecx, 28
	NEED	1, ecx, 12
	NEED	7, ebx, 5
	NEED	7, ebx, 8
	TRY vzeroupper			/* not before the OS has said so */
	EXPECT(6, 0)
	mov	%cr4, %rax
	bts	$18, %rax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$7, %eax
	xsetbv
	mov	$1, %eax
	cpuid
	bt	$27, %ecx
	setc	%al
	cmp	$1, %al
	CHECK_EQUAL
	vmovdqu	pattern, %ymm0
	vpaddq	%ymm0, %ymm0, %ymm1
	vperm2i128 $1, %ymm1, %ymm1, %ymm2
	vpshufb	%ymm0, %ymm2, %ymm3
	vmovdqu	%ymm3, RESULTS + 0x805
	TRY vmovdqa %ymm3, RESULTS + 0x805
	EXPECT(13, 0)
	vbroadcastsd three, %ymm4
	vmovapd	%ymm4, %ymm5
	vfmadd213pd %ymm4, %ymm4, %ymm5	/* 3 * 3 + 3 */
	vcvttsd2si %xmm5, %eax
	cmp	$12, %eax
	CHECK_EQUAL
	vpmovmskb %ymm0, %edx
	vmovdqu	%ymm1, SCRATCH + 0x9ff1	/* across a page */
	vmovdqu	SCRATCH + 0x9ff1, %ymm6
	vpcmpeqq %ymm1, %ymm6, %ymm6
	vpmovmskb %ymm6, %eax
	cmp	$-1, %eax
	CHECK_EQUAL
	movq	%xmm0, %xmm1		/* SSE leaves the upper half */
	vextracti128 $1, %ymm1, %xmm7
	vptest	%xmm7, %xmm7
	setnz	%al
	cmp	$1, %al
	CHECK_EQUAL
	vmovq	%xmm0, %xmm1		/* VEX clears it */
	vextracti128 $1, %ymm1, %xmm7
	vptest	%xmm7, %xmm7
	CHECK_EQUAL

	mov	$0x0f0f, %eax
	mov	$0x12345678, %ecx
	pext	%eax, %ecx, %edx
	pdep	%eax, %edx, %ebx
	and	%eax, %ecx
	cmp	%ecx, %ebx
	CHECK_EQUAL
	andn	%ecx, %eax, %edx
	CHECK_EQUAL
	mov	$0x00f0, %eax
	tzcnt	%eax, %ecx
	lzcnt	%eax, %edx
	add	%ecx, %edx
	cmp	$28, %edx
	CHECK_EQUAL
	movl	$0x01000000, RESULTS + 0x840
	movbe	RESULTS + 0x840, %eax
	popcnt	%eax, %eax
	cmp	$1, %eax
	CHECK_EQUAL
	rorx	$4, %rax, %rdx
	shrx	%rax, %rdx, %rdx
	mov	%rdx, RESULTS + 0x848

	mov	$7, %eax		/* the upper halves survive XSAVE and XRSTOR */
	xor	%edx, %edx
	xsave	SCRATCH + 0x8000
	vzeroall
	mov	$7, %eax
	xrstor	SCRATCH + 0x8000
	vpcmpeqq pattern, %ymm0, %ymm6
	vpmovmskb %ymm6, %eax
	cmp	$-1, %eax
	CHECK_EQUAL
	PASS

	.data
	.balign	32
pattern: .quad	0x0102030405060708, 0x090a0b0c0d0e0f00, 0x8070605040302010, 0x0f1e2d3c4b5a6978
three:	.double	3
	.section .note.GNU-stack, "", @progbits
