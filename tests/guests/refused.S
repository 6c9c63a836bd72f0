/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The everyday ring-0 instructions that paravirtual KVMs refuse: INT3, CMPXCHG16B, STAC and CLAC, XSAVE and XRSTOR. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	TRY int3
	EXPECT_AT_ANY(3, 0)
	mov	tried_rip, %rax
	inc	%rax
	cmp	%rax, last_rip
	CHECK_EQUAL

	NEED	1, ecx, 13
	movq	$0x1111, RESULTS + 0x800
	movq	$0x2222, RESULTS + 0x808
	mov	$0x1111, %eax
	mov	$0x2222, %edx
	mov	$0x3333, %ebx
	mov	$0x4444, %ecx
	lock cmpxchg16b RESULTS + 0x800
	CHECK_EQUAL
	cmpq	$0x3333, RESULTS + 0x800
	CHECK_EQUAL
	cmpq	$0x4444, RESULTS + 0x808
	CHECK_EQUAL
	lock cmpxchg16b RESULTS + 0x800	/* not equal: loads rdx:rax */
	setnz	%r8b
	cmp	$1, %r8b
	CHECK_EQUAL
	cmp	$0x3333, %rax
	CHECK_EQUAL
	cmp	$0x4444, %rdx
	CHECK_EQUAL
	TRY lock cmpxchg16b RESULTS + 0x808	/* not aligned */
	EXPECT(13, 0)

	/* The same place, another instruction: what was remembered of the first must not come back */
	mov	$(RESULTS+0x800), %edi
	call	changing
	movl	$0xccccc3cc, changing	/* INT3; RET */
	TRY call changing
	EXPECT_AT_ANY(3, 0)

	mov	$7, %eax
	xor	%ecx, %ecx
	cpuid
	bt	$20, %ebx
	jnc	no_smap
	MAP	USER, 7
	mov	%cr4, %rax
	bts	$21, %rax
	mov	%rax, %cr4
	TRY movb USER, %al
	EXPECT(14, 1)
	stac
	TRY movb USER, %al
	EXPECT_NOTHING
	pushfq
	clac
	pushfq
	pop	%rax
	pop	%rdx
	xor	%edx, %eax
	cmp	$0x40000, %eax		/* AC and nothing else */
	CHECK_EQUAL
	TRY movb %al, USER
	EXPECT(14, 3)
	orl	$1, RESULTS + 0x810
no_smap:

	mov	$1, %eax
	cpuid
	bt	$26, %ecx
	jnc	no_xsave
	mov	%cr4, %rax
	bts	$18, %rax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	mov	$3, %eax
	xor	%edx, %edx
	xsetbv
	xgetbv
	cmp	$3, %eax
	CHECK_EQUAL
	mov	$0x123456789abcdef0, %rax
	movq	%rax, %xmm5
	fldpi
	mov	$3, %eax
	xor	%edx, %edx
	xsave	SCRATCH + 0x8000
	pxor	%xmm5, %xmm5
	fninit
	mov	$3, %eax
	xrstor	SCRATCH + 0x8000
	movq	%xmm5, %rcx
	mov	$0x123456789abcdef0, %rax
	cmp	%rax, %rcx
	CHECK_EQUAL
	fstpt	RESULTS + 0x820
	cmpw	$0x4000, RESULTS + 0x828	/* pi is 1.57 * 2^1 */
	CHECK_EQUAL
	movq	$8, SCRATCH + 0x8200	/* XSTATE_BV with a bit that XCR0 lacks */
	mov	$3, %eax
	TRY xrstor SCRATCH + 0x8000
	EXPECT(13, 0)
	xor	%ecx, %ecx
	mov	$2, %eax		/* SSE without x87 */
	TRY xsetbv
	EXPECT(13, 0)
	orl	$2, RESULTS + 0x810
no_xsave:
	PASS

	.balign	16
changing:
	lock cmpxchg16b (%rdi)
	ret
	.section .note.GNU-stack, "", @progbits
