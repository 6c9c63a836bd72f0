/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From real mode to 64-bit mode, and the exception handler that payloads share. */
#include "payload.h"

#define ABS16(x) ((x) - GUEST_BASE)

	.section .start, "ax"
	.code16
	.globl	_start
_start:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	ABS16(gdt_pointer)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $start32

	.code32
start32:
	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$STACK_TOP, %esp
	fninit
	.weak	main32
	mov	$main32, %eax
	test	%eax, %eax
	jz	1f
	call	*%eax
1:
	/* Page tables; RAM is zeroed. */
	movl	$(PDPT | 7), PML4
	movl	$(PD | 7), PDPT
	movl	$(PD_HIGH | 3), PDPT + 3 * 8
	movl	$(PT | 7), PD
	movl	$0x200083, PD + 8
	movl	$0xfee0009b, PD_HIGH + 503 * 8	/* 0xfee00000 >> 21 & 511 == 503, uncached */
	mov	$3, %eax
	mov	$PT, %edi
2:	mov	%eax, (%edi)
	add	$0x1000, %eax
	add	$8, %edi
	cmp	$(PT + 0x1000), %edi
	jne	2b

	.globl	enter_long_mode	/* application processors come here with a stack */
enter_long_mode:
	mov	%cr4, %eax
	or	$0x620, %eax		/* PAE OSFXSR OSXMMEXCPT */
	mov	%eax, %cr4
	mov	$PML4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax		/* SCE LME NXE */
	wrmsr
	mov	%cr0, %eax
	and	$0x9fffffff, %eax	/* caches on */
	or	$0x80010022, %eax	/* PG WP NE MP */
	mov	%eax, %cr0
	ljmp	$SEL_CODE64, $start64

	.code64
start64:
	lidt	idt_pointer
	cmpl	$0, started
	jne	ap_main_entry
	movl	$1, started

	/* 256 gates to stubs of 16 bytes each. */
	mov	$IDT, %edi
	mov	$stubs, %esi
3:	mov	%esi, %eax
	movw	%ax, (%rdi)
	movw	$SEL_CODE64, 2(%rdi)
	movw	$0x8e00, 4(%rdi)
	shr	$16, %eax
	movw	%ax, 6(%rdi)
	add	$16, %esi
	add	$16, %edi
	cmp	$(IDT + 0x1000), %edi
	jne	3b
	movb	$0xee, IDT + 3 * 16 + 5	/* INT3, INTO and INT 80h from ring 3 */
	movb	$0xee, IDT + 4 * 16 + 5
	movb	$0xee, IDT + 0x80 * 16 + 5
	movb	$1, IDT + 8 * 16 + 4	/* #DF on a stack of its own */

	mov	$tss, %eax
	movw	%ax, gdt + SEL_TSS + 2
	shr	$16, %eax
	movb	%al, gdt + SEL_TSS + 4
	mov	$SEL_TSS, %eax
	ltr	%ax
	.weak	call_gate_entry
	mov	$call_gate_entry, %eax
	movw	%ax, gdt + SEL_CALL_GATE
	shr	$16, %eax
	movw	%ax, gdt + SEL_CALL_GATE + 6
	xor	%eax, %eax
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%esi, %esi
	xor	%edi, %edi
	xor	%ebp, %ebp
	call	main64
	xor	%eax, %eax

	.globl	guest_exit
guest_exit:
	cli
	out	%eax, $PORT_EXIT
4:	hlt
	jmp	4b

	.weak	ap_main
ap_main_entry:
	mov	$ap_main, %eax
	jmp	*%rax

/* Copied to TRAMPOLINE by who starts a second processor. */
	.code16
	.globl	ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	mov	$(GUEST_BASE >> 4), %ax
	mov	%ax, %ds
	lgdtl	ABS16(gdt_pointer)
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $ap_start32
ap_trampoline_end:
	.code32
ap_start32:
	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$AP_STACK_TOP, %esp
	jmp	enter_long_mode

	.code64
/* ---- Exceptions ----------------------------------------------------------- */

	.balign	16
stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
	.else
	push	$0
	.endif
	push	$vector
	jmp	common
	.set	vector, vector + 1
	.endr

/*
 * Frame: rax, vector, error, rip, cs, rflags, rsp, ss. An interrupt whose
 * vector has a handler in handlers[] goes there (it ends in IRETQ by itself,
 * after "add $16, %rsp"); an exception inside TRY resumes behind it, in ring 0.
 */
common:
	push	%rax
	mov	8(%rsp), %eax
	cmpq	$0, handlers(, %rax, 8)
	jne	1f
	cmpq	$0, resume_rip
	je	unexpected
	mov	%eax, last_vector
	mov	16(%rsp), %rax
	mov	%eax, last_error
	mov	24(%rsp), %rax
	mov	%rax, last_rip
	mov	40(%rsp), %rax
	mov	%rax, last_rflags
	mov	%cr2, %rax
	mov	%rax, last_cr2
	call	log_event
	mov	resume_rip, %rax
	mov	%rax, 24(%rsp)
	movq	$0, resume_rip
	movq	$SEL_CODE64, 32(%rsp)
	mov	resume_rsp, %rax
	mov	%rax, 48(%rsp)
	movq	$SEL_DATA, 56(%rsp)
	andq	$~0x10100, 40(%rsp)	/* RF, TF */
	pop	%rax
	add	$16, %rsp
	iretq
1:	mov	handlers(, %rax, 8), %rax
	xchg	%rax, (%rsp)
	ret

/* One line a fault in RESULTS: what every CPU must agree on. */
log_event:
	push	%rdi
	mov	log_next, %edi
	cmp	$(RESULTS + 0x1000), %edi
	jae	1f
	mov	last_vector, %eax
	mov	%eax, (%rdi)
	mov	last_error, %eax
	mov	%eax, 4(%rdi)
	mov	last_rip, %rax
	mov	%eax, 8(%rdi)
	mov	last_rflags, %eax
	and	$0x67700, %eax		/* AC NT IOPL DF IF TF */
	mov	%eax, 12(%rdi)
	addl	$16, log_next
1:	pop	%rdi
	ret

/* Behind USER_TRY: snippet at rsi, rcx bytes. "Returns" by its fault. */
	.globl	user_run
user_run:
	mov	$USER, %edi
	cld
	rep movsb
	pop	%rax			/* the return address: where the fault resumes */
	movl	$VECTOR_NONE, last_vector
	mov	%rax, resume_rip
	movq	$USER, tried_rip
	mov	%rsp, resume_rsp
	push	$SEL_USER_DATA
	push	$(USER_STACK)
	push	user_rflags
	push	$SEL_USER64
	push	$USER
	mov	$0x11111111, %eax
	xor	%ebx, %ebx
	iretq

unexpected:
	or	$EXIT_EXCEPTION, %eax
	jmp	guest_exit

/* ---- Data ------------------------------------------------------------------ */

	.data
	.balign	16
	.globl	gdt
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* SEL_CODE64 */
	.quad	0x00cf93000000ffff	/* SEL_DATA */
	.quad	0x00cf9b000000ffff	/* SEL_CODE32 */
	.quad	0x00cffb000000ffff	/* SEL_USER32 */
	.quad	0x00cff3000000ffff	/* SEL_USER_DATA */
	.quad	0x00affb000000ffff	/* SEL_USER64 */
	.quad	0x0000890000000067, 0	/* SEL_TSS */
	.quad	0x00cf13000000ffff	/* SEL_ABSENT */
	.quad	0x0040931000000fff	/* SEL_SMALL */
	.quad	0x00009b010000ffff	/* SEL_CODE16 */
	.quad	0x0000ec0000080000, 0	/* SEL_CALL_GATE */
	.quad	0x000093000000ffff	/* SEL_DATA16 */
gdt_end:
	.globl	gdt_pointer
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.globl	idt_pointer
idt_pointer:
	.word	0xfff
	.quad	IDT
	.balign	16
	.globl	tss
tss:
	.long	0
	.quad	STACK_TOP - 0x4000, 0, 0, 0	/* RSP0..2 */
	.quad	STACK_TOP - 0x6000		/* IST1 */
	.quad	0, 0, 0, 0, 0, 0, 0
	.word	0, 104

log_next:
	.long	RESULTS

	.bss
	.balign	16
	.globl	handlers, resume_rip, resume_rsp, tried_rip, user_rflags, started
	.globl	last_vector, last_error, last_rip, last_rflags, last_cr2
handlers:	.skip	256 * 8
resume_rip:	.quad	0
resume_rsp:	.quad	0
last_rip:	.quad	0
tried_rip:	.quad	0
user_rflags:	.quad	0
last_rflags:	.quad	0
last_cr2:	.quad	0
last_vector:	.long	0
last_error:	.long	0
started:	.long	0
	.section .note.GNU-stack, "", @progbits
