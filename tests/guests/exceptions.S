/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exceptions that 64-bit code can bring about, with their error codes, from rings 0 and 3 (SDM vol. 3 §6.15). */
#include "payload.h"

#define UNMAPPED (SCRATCH+0x1000)
#define READONLY (SCRATCH+0x2000)
#define NOEXEC (SCRATCH+0x3000)
#define RESERVED (SCRATCH+0x4000)
#define USER_READONLY (SCRATCH+0x6000)

	.text
	.code64
	.globl	main64
main64:
	/* ---- Ring 0 ---- */
	xor	%ecx, %ecx
	xor	%edx, %edx
	TRY div	%ecx
	EXPECT(0, 0)
	mov	$1, %eax
	cltd
	TRY ud2
	EXPECT(6, 0)
	TRY .byte 0xf1			/* INT1 */
	EXPECT_AT_ANY(1, 0)
	TRY int	$0x80
	EXPECT_AT_ANY(0x80, 0)
	TRY .byte 0xf0, 0x90		/* LOCK where it may not be */
	EXPECT(6, 0)

	/* #NM */
	mov	%cr0, %rax
	or	$8, %rax
	mov	%rax, %cr0
	TRY fld1
	EXPECT(7, 0)
	TRY movaps %xmm0, %xmm1
	EXPECT(7, 0)
	clts
	TRY fld1
	EXPECT_NOTHING
	fninit

	/* #GP, #SS, #NP */
	mov	$0x8000000000000000, %rbx
	TRY movb (%rbx), %al
	EXPECT(13, 0)
	mov	%rsp, %rdi
	mov	%rbx, %rbp
	TRY movb (%rbp), %al
	EXPECT(12, 0)
	mov	$SEL_ABSENT, %eax
	TRY mov	%eax, %ds
	EXPECT(11, SEL_ABSENT)
	TRY mov	%eax, %ss
	EXPECT(12, SEL_ABSENT)
	mov	$SEL_CODE64, %eax
	TRY mov	%eax, %ss
	EXPECT(13, SEL_CODE64)
	mov	$0xfff8, %eax		/* beyond the GDT */
	TRY mov	%eax, %ds
	EXPECT(13, 0xfff8)
	mov	$SEL_USER_DATA, %eax
	TRY mov	%eax, %ss		/* RPL and DPL are not CPL */
	EXPECT(13, SEL_USER_DATA&~3)
	mov	$0xdeadbeef, %ecx
	TRY rdmsr
	EXPECT(13, 0)
	mov	%cr4, %rax
	bts	$31, %rax		/* reserved */
	TRY mov	%rax, %cr4
	EXPECT(13, 0)
	mov	%cr0, %rax
	btr	$0, %rax		/* PG without PE */
	TRY mov	%rax, %cr0
	EXPECT(13, 0)
	mov	%rbx, %rax
	TRY wrmsr			/* ecx: no such MSR */
	EXPECT(13, 0)

	/* #PF: P 1, W 2, U 4, reserved 8, fetch 16 */
	MAP	UNMAPPED, 0
	MAP	READONLY, 1
	TRY movb UNMAPPED, %al
	EXPECT(14, 0)
	EXPECT_CR2(UNMAPPED)
	TRY movb %al, UNMAPPED + 0x123
	EXPECT(14, 2)
	EXPECT_CR2(UNMAPPED+0x123)
	TRY movq %rax, UNMAPPED - 4	/* the first byte that faults */
	EXPECT(14, 2)
	EXPECT_CR2(UNMAPPED)
	TRY movb READONLY, %al
	EXPECT_NOTHING
	TRY movb %al, READONLY
	EXPECT(14, 3)
	EXPECT_CR2(READONLY)
	TRY lock incl READONLY + 8
	EXPECT(14, 3)
	mov	%cr0, %rax		/* without WP ring 0 writes anywhere */
	btr	$16, %rax
	mov	%rax, %cr0
	TRY movb %al, READONLY
	EXPECT_NOTHING
	mov	%cr0, %rax
	bts	$16, %rax
	mov	%rax, %cr0
	mov	$(NOEXEC | 3), %eax
	bts	$63, %rax
	mov	%rax, PT + (NOEXEC >> 12) * 8
	invlpg	NOEXEC
	movb	$0xc3, NOEXEC		/* RET */
	mov	$NOEXEC, %eax
	TRY call *%rax
	EXPECT_AT_ANY(14, 0x11)
	EXPECT_CR2(NOEXEC)
	mov	$(RESERVED | 3), %eax
	bts	$51, %rax		/* beyond MAXPHYADDR */
	mov	%rax, PT + (RESERVED >> 12) * 8
	TRY movb RESERVED, %al
	EXPECT(14, 9)
	MAP	RESERVED, 3

	/* Accessed and dirty bits */
	MAP	RESERVED, 3
	movb	RESERVED, %al
	mov	PT + (RESERVED >> 12) * 8, %rax
	and	$0x60, %eax
	cmp	$0x20, %eax
	CHECK_EQUAL
	movb	%al, RESERVED
	mov	PT + (RESERVED >> 12) * 8, %rax
	and	$0x60, %eax
	cmp	$0x60, %eax
	CHECK_EQUAL

	/* #MF, #XM: unmasked divide by zero */
	movw	$0x37b, RESULTS + 0xf00
	fldcw	RESULTS + 0xf00
	fld1
	fdivs	RESULTS + 0xf08		/* 1 / 0: pending; reported by the next x87 instruction */
	TRY fwait
	EXPECT(16, 0)
	fninit
	TRY nop
	EXPECT_NOTHING

	/* A fault in the delivery of a fault: #DF */
	movb	$0x0e, IDT + 14 * 16 + 5	/* not present */
	TRY movb UNMAPPED, %al
	EXPECT_AT_ANY(8, 0)
	movb	$0x8e, IDT + 14 * 16 + 5

	/* Single step: a trap behind the instruction that follows POPF */
	pushfq
	orl	$0x100, (%rsp)
	TRY popfq
	nop				/* traps here, resumes in front */
	EXPECT_AT_ANY(1, 0)
	mov	resume_rsp, %rsp
	add	$8, %rsp
	mov	%dr6, %rax
	bt	$14, %rax
	setc	%al
	cmp	$1, %al
	CHECK_EQUAL

	call	ring3

	PASS

/* ---- Ring 3 ---------------------------------------------------------------- */

	SNIPPET	user_cli, cli
	SNIPPET	user_hlt, hlt
	SNIPPET	user_in, in $0x80, %al
	SNIPPET	user_cr0, mov %cr0, %rax
	SNIPPET	user_read, movb READONLY, %al
	SNIPPET	user_absent, movb %al, UNMAPPED
	SNIPPET	user_write, movb %al, USER_READONLY
	SNIPPET	user_int3, int3
	SNIPPET	user_lgdt, lgdt gdt_pointer
	SNIPPET	user_sysret, sysretq
	SNIPPET	user_jump, jmp *%rbx

user_unaligned:
	movl	USER_STACK - 63, %eax
	ud2
user_unaligned_end:
user_wrmsr:
	mov	$0xc0000080, %ecx
	wrmsr
user_wrmsr_end:
user_fpu:
	movl	$0x1f00, -8(%rsp)	/* divide by zero unmasked */
	andl	$~0x200, -8(%rsp)
	ldmxcsr	-8(%rsp)
	pxor	%xmm1, %xmm1
	mov	$1, %eax
	cvtsi2sd %eax, %xmm0
	divsd	%xmm1, %xmm0
user_fpu_end:

ring3:
	MAP	USER, 7
	MAP	USER_READONLY, 5
	movq	$2, user_rflags
	USER_TRY user_cli
	EXPECT(13, 0)
	USER_TRY user_hlt
	EXPECT(13, 0)
	USER_TRY user_in
	EXPECT(13, 0)
	USER_TRY user_cr0
	EXPECT(13, 0)
	USER_TRY user_wrmsr
	EXPECT_AT_ANY(13, 0)
	USER_TRY user_lgdt
	EXPECT(13, 0)
	USER_TRY user_sysret
	EXPECT(13, 0)
	USER_TRY user_read
	EXPECT(14, 5)
	EXPECT_CR2(READONLY)
	USER_TRY user_absent
	EXPECT(14, 6)
	EXPECT_CR2(UNMAPPED)
	USER_TRY user_write
	EXPECT(14, 7)
	USER_TRY user_jump		/* fetch from page 0, a supervisor page */
	EXPECT_AT_ANY(14, 0x15)
	EXPECT_CR2(0)
	USER_TRY user_int3
	EXPECT_AT_ANY(3, 0)
	cmpq	$(USER + 1), last_rip
	CHECK_EQUAL

	/* #AC */
	mov	%cr0, %rax
	bts	$18, %rax
	mov	%rax, %cr0
	movq	$0x40002, user_rflags
	USER_TRY user_unaligned
	EXPECT(17, 0)
	movq	$2, user_rflags
	USER_TRY user_unaligned
	EXPECT_AT_ANY(6, 0)
	mov	%cr0, %rax
	btr	$18, %rax
	mov	%rax, %cr0

	USER_TRY user_fpu
	EXPECT_AT_ANY(19, 0)
	movl	$0x1f80, RESULTS + 0xf00
	ldmxcsr	RESULTS + 0xf00

	/* Returns to ring 3 that must not be: to a code segment of ring 0, to a non-canonical address */
	push	$SEL_DATA
	push	$USER_STACK
	push	$2
	push	$(SEL_CODE64 | 3)
	push	$USER
	TRY iretq
	EXPECT(13, SEL_CODE64)
	mov	resume_rsp, %rsp
	add	$40, %rsp
	mov	$SEL_DATA, %eax		/* nulled on the way to ring 3, but not by every KVM */
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	ret

	.section .note.GNU-stack, "", @progbits
