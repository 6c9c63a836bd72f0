/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC: self-IPIs, TPR, timer in three modes, NMI, x2APIC (SDM vol. 3 chapter 10). */
#include "payload.h"

	.text
	.code64
	.globl	main64

/* Registers of the APIC, from rbp */
#define APIC 0xfee00000
#define TPR 0x80(%rbp)
#define EOI 0xb0(%rbp)
#define SVR 0xf0(%rbp)
#define IRR2 0x220(%rbp)
#define ESR 0x280(%rbp)
#define ICR 0x300(%rbp)
#define ICR_HIGH 0x310(%rbp)
#define LVT_TIMER 0x320(%rbp)
#define TIMER_INITIAL 0x380(%rbp)
#define TIMER_CURRENT 0x390(%rbp)
#define TIMER_DIVIDE 0x3e0(%rbp)

main64:
	mov	$APIC, %ebp
	movq	$on_ipi, handlers + 0x40 * 8
	movq	$on_timer, handlers + 0x41 * 8
	movq	$on_nmi, handlers + 2 * 8
	movl	$0x1ff, SVR		/* enabled, spurious vector ffh */

	/* To self, vector 40h */
	movl	$0x40040, ICR
	AWAIT(ipis, 1)

	/* Held back by IF, then by TPR */
	movl	$0x40040, ICR
	nop
	cmpl	$1, ipis
	CHECK_EQUAL
	mov	IRR2, %eax
	cmp	$1, %eax		/* bit 40h - 40h */
	CHECK_EQUAL
	mov	$5, %eax
	mov	%rax, %cr8
	mov	TPR, %eax
	cmp	$0x50, %eax
	CHECK_EQUAL
	sti
	nop
	nop
	cmpl	$1, ipis
	CHECK_EQUAL
	movl	$0, TPR
	AWAIT(ipis, 2)
	mov	IRR2, %eax
	test	%eax, %eax
	CHECK_EQUAL

	/* NMI, by physical destination 0; IF does not matter */
	movl	$0, ICR_HIGH
	movl	$0x4400, ICR
	AWAIT(nmis, 1)

	/* Timer: once */
	movl	$0xb, TIMER_DIVIDE	/* by 1 */
	movl	$0x41, LVT_TIMER
	movl	$500000, TIMER_INITIAL
1:	sti
	hlt
	cli
	cmpl	$1, ticks
	jb	1b
	mov	TIMER_CURRENT, %eax
	test	%eax, %eax
	CHECK_EQUAL
	/* Periodically, three times */
	movl	$0x20041, LVT_TIMER
	movl	$500000, TIMER_INITIAL
2:	sti
	hlt
	cli
	cmpl	$4, ticks
	jb	2b
	movl	$0, TIMER_INITIAL
	sti
	nop
	cli
	/* Masked: no tick */
	movl	$0x10041, LVT_TIMER
	mov	ticks, %r12d
	movl	$1000, TIMER_INITIAL
	mov	$2000, %ecx
3:	loop	3b
	sti
	nop
	cli
	cmp	%r12d, ticks
	CHECK_EQUAL
	/* TSC deadline */
	mov	$1, %eax
	cpuid
	bt	$24, %ecx
	jnc	4f
	movl	$0x40041, LVT_TIMER
	mfence
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	add	$1000000, %rax
	mov	%rax, %r13
	mov	%rax, %rdx
	shr	$32, %rdx
	mov	$0x6e0, %ecx
	wrmsr
5:	sti
	hlt
	cli
	cmp	%r12d, ticks
	je	5b
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	%r13, %rax		/* not too early */
	setae	%al
	cmp	$1, %al
	CHECK_EQUAL
	mov	$0x6e0, %ecx
	rdmsr
	or	%edx, %eax		/* disarmed */
	CHECK_EQUAL
4:
	/* x2APIC */
	mov	$1, %eax
	cpuid
	bt	$21, %ecx
	jnc	6f
	mov	$0x1b, %ecx
	rdmsr
	or	$0x400, %eax
	wrmsr
	movb	$1, x2apic
	mov	$0x802, %ecx
	rdmsr
	test	%eax, %eax		/* ID 0 */
	CHECK_EQUAL
	mov	$0x83f, %ecx		/* SELF_IPI */
	mov	$0x40, %eax
	xor	%edx, %edx
	wrmsr
	AWAIT(ipis, 3)
	mov	$0x830, %ecx		/* ICR: physical destination 0 */
	mov	$0x4040, %eax
	xor	%edx, %edx
	wrmsr
	AWAIT(ipis, 4)
	mov	$0x802, %ecx		/* read-only */
	TRY wrmsr
	EXPECT(13, 0)
	mov	$0x1b, %ecx		/* back to xAPIC mode is not a legal step */
	rdmsr
	and	$~0x400, %eax
	TRY wrmsr
	EXPECT(13, 0)
6:	PASS

on_ipi:
	add	$16, %rsp
	incl	ipis
end_of_interrupt:
	push	%rax
	push	%rcx
	push	%rdx
	cmpb	$0, x2apic
	jne	1f
	movl	$0, EOI
	jmp	2f
1:	mov	$0x80b, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
2:	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq
on_timer:
	add	$16, %rsp
	incl	ticks
	jmp	end_of_interrupt
on_nmi:
	add	$16, %rsp
	incl	nmis
	iretq

	.bss
	.balign	8
ipis:	.long	0
ticks:	.long	0
nmis:	.long	0
x2apic:	.byte	0
	.section .note.GNU-stack, "", @progbits
