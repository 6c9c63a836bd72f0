/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For payloads: how to try instructions and to check what came of it. */
#pragma once
#include "guest.h"

/* Leave with the line's number unless the flags say "equal". */
#define CHECK_EQUAL check_equal __LINE__
	.macro check_equal line
	je	.Lok\@
	mov	$\line, %eax
	jmp	guest_exit
.Lok\@:
	.endm

/* Run an instruction that may fault; EXPECT() looks at what happened. */
	.macro TRY insn:vararg
	movl	$VECTOR_NONE, last_vector
	movq	$.Lresume\@, resume_rip
	movq	$.Linsn\@, tried_rip
	mov	%rsp, resume_rsp
.Linsn\@:
	\insn
.Lresume\@:
	.endm

/* A fault: RIP is the instruction's. EXPECT_AT_ANY: a trap, or somewhere behind (ring 3). */
#define EXPECT(vector, error) expect vector, error, 1, __LINE__
#define EXPECT_AT_ANY(vector, error) expect vector, error, 0, __LINE__
	.macro expect vector, error, fault, line
	cmpl	$\vector, last_vector
	jne	.Lbad\@
	cmpl	$\error, last_error
	jne	.Lbad\@
	.if	\fault
	mov	tried_rip, %r15
	cmp	%r15, last_rip
	jne	.Lbad\@
	.endif
	jmp	.Lok\@
.Lbad\@:
	mov	$\line, %eax
	jmp	guest_exit
.Lok\@:
	movl	$0, last_error
	.endm

#define EXPECT_CR2(address) expect_cr2 address, __LINE__
	.macro expect_cr2 address, line
	mov	$\address, %r15
	cmp	%r15, last_cr2
	check_equal \line
	.endm

#define EXPECT_NOTHING expect VECTOR_NONE, 0, 0, __LINE__

/* Leave as "not offered" unless the bit of this CPUID leaf is set. */
	.macro NEED leaf, reg, bit
	mov	$\leaf, %eax
	xor	%ecx, %ecx
	cpuid
	bt	$\bit, %\reg
	jc	.Lhas\@
	mov	$EXIT_SKIP, %eax
	jmp	guest_exit
.Lhas\@:
	.endm

/*
 * Let interrupts in until the counter has this value. Engines may deliver a
 * few instructions late, as hardware may after a store to the APIC.
 */
#define AWAIT(counter, value) await counter, value, __LINE__
	.macro await counter, value, line
	mov	$1000, %r15d
	sti
.Lagain\@:
	cmpl	$\value, \counter
	je	.Ldone\@
	dec	%r15d
	jnz	.Lagain\@
.Ldone\@:
	cli
	xor	%r15d, %r15d
	cmpl	$\value, \counter
	check_equal \line
	.endm

	.macro PASS
	xor	%eax, %eax
	jmp	guest_exit
	.endm

/* Permissions of the 4 KiB page at an address below 2 MiB: P 1, W 2, U 4. */
	.macro MAP address, bits
	movq	$(\address | \bits), PT + (\address >> 12) * 8
	invlpg	\address
	.endm

/*
 * Ring 3: run a snippet (SNIPPET, or code between NAME and NAME_end) at USER
 * until it faults or enters the kernel. Map the page with user permission
 * first; user_rflags is what it starts with.
 */
#define USER (SCRATCH+0x5000)
#define USER_STACK (USER+0x1000)
	.macro USER_TRY snippet
	mov	$\snippet, %esi
	mov	$(\snippet\()_end - \snippet), %ecx
	call	user_run
	.endm

	.macro SNIPPET name, insn:vararg
\name:	\insn
\name\()_end:
	.endm
