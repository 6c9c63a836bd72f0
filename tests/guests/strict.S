/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Corners of event delivery that some paravirtual KVMs get wrong: software
 * interrupts and SYSCALL from ring 3, faults in the delivery of others, data
 * breakpoints in ring 0, the exact moment of an interrupt.
 */
#include "payload.h"

#define HOLE (SCRATCH+0x16000)

	.text
	.code64
	.globl	main64
main64:
	MAP	USER, 7
	movq	$2, user_rflags

	/* #UD is benign: a fault of its gate is reported as itself, EXT set (SDM vol. 3 table 6-5, §6.13) */
	movb	$0x0e, IDT + 6 * 16 + 5	/* not present */
	TRY ud2
	EXPECT(11, 6*8+3)
	movb	$0x8e, IDT + 6 * 16 + 5

	USER_TRY user_int80
	EXPECT_AT_ANY(0x80, 0)
	cmpq	$(USER + 2), last_rip
	CHECK_EQUAL
	USER_TRY user_int13		/* DPL 0 */
	EXPECT(13, 13*8+2)

	/* SYSCALL and SYSRET */
	mov	$0xc0000081, %ecx	/* STAR */
	xor	%eax, %eax
	mov	$((SEL_USER32 << 16) | SEL_CODE64), %edx
	wrmsr
	inc	%ecx			/* LSTAR */
	mov	$on_syscall, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0xc0000084, %ecx	/* SFMASK: DF, IF */
	mov	$0x600, %eax
	wrmsr
	movq	$0x402, user_rflags
	USER_TRY user_syscall
	EXPECT_AT_ANY(6, 0)
	cmpq	$(USER + 7), last_rip
	CHECK_EQUAL
	cmpl	$0x402, syscall_r11
	CHECK_EQUAL
	cmpl	$0x2, syscall_rflags
	CHECK_EQUAL
	cmpl	$SEL_CODE64, syscall_cs
	CHECK_EQUAL
	cld
	movq	$2, user_rflags
	/* A data breakpoint */
	mov	$((SCRATCH+0x4000) + 0x10), %eax
	mov	%rax, %dr0
	mov	$0xd0402, %eax		/* G0, write, 4 bytes; LE/GE as reset leaves them */
	xor	%edx, %edx
	mov	%rdx, %dr6
	mov	%rax, %dr7
	TRY movb %al, (SCRATCH+0x4000) + 0x12
	EXPECT_AT_ANY(1, 0)
	mov	$0x400, %eax
	mov	%rax, %dr7
	mov	%dr6, %rax
	and	$0xf, %eax
	cmp	$1, %eax
	CHECK_EQUAL
	/* STI's shadow: the interrupt comes behind the next instruction, even if that is CLI's turn */
	movq	$on_ipi, handlers + 0x40 * 8
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	movl	$0x40040, 0x300(%rbp)
	sti
	cli
	cmpl	$0, ipis
	CHECK_EQUAL
	sti
	nop
	cli
	cmpl	$1, ipis
	CHECK_EQUAL

	/* An element that crosses into a page which is not there is not half written */
	MAP	HOLE, 0
	mov	$(HOLE-0x14), %edi
	mov	$4, %ecx
	mov	$-1, %rax
	movq	$0, HOLE-8
	TRY rep stosq
	EXPECT(14, 2)
	cmp	$2, %rcx
	CHECK_EQUAL
	cmpl	$0, HOLE-4
	CHECK_EQUAL
	PASS

on_ipi:
	add	$16, %rsp
	incl	ipis
	movl	$0, 0xb0(%rbp)
	iretq

on_syscall:
	mov	%r11d, syscall_r11
	mov	%cs, syscall_cs
	mov	%rsp, %rdx
	mov	resume_rsp, %rsp
	pushfq
	pop	%rax
	mov	%eax, syscall_rflags
	mov	%rdx, %rsp
	sysretq

	SNIPPET	user_int80, int $0x80
	SNIPPET	user_int13, int $13

user_syscall:
	mov	$0x5a5a, %ebx
	syscall
	ud2				/* SYSRET comes back here */
user_syscall_end:

	.bss
	.balign	8
ipis:	.long	0
syscall_r11:	.long	0
syscall_cs:	.long	0
syscall_rflags:	.long	0
	.section .note.GNU-stack, "", @progbits
