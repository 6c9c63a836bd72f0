/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Before 64-bit mode: 32-bit protected mode with segments that have limits,
 * BCD and other instructions that long mode lacks, 16-bit protected mode, real
 * mode with its vector table, and back.
 */
#include "payload32.h"

#define ABS16(x) ((x) - GUEST_BASE)

	.text
	.code32

	.globl	main32
main32:
	SETUP32
	/* Limits */
	mov	$SEL_SMALL, %eax
	mov	%eax, %fs
	movb	$0x44, %fs:0
	movl	$0x11223344, %fs:0xffc
	cmpl	$0x11223344, SCRATCH + 0xffc
	CHECK
	TRY32 movl %fs:0xffd, %eax
	cmp	$13, %eax
	CHECK
	test	%ecx, %ecx
	CHECK
	TRY32 movb %fs:0x1000, %al
	cmp	$13, %eax
	CHECK
	TRY32 movb %cs:leave32, %al
	cmp	$0xff, %eax
	CHECK
	TRY32 movb %al, %cs:leave32	/* code is not writable */
	cmp	$13, %eax
	CHECK
	xor	%eax, %eax
	mov	%eax, %gs
	TRY32 movb %gs:0, %al
	cmp	$13, %eax
	CHECK
	mov	$SEL_DATA, %eax
	mov	%eax, %gs

	/* Instructions of old */
	mov	$0x38, %al
	add	$0x45, %al
	daa
	cmp	$0x83, %al
	CHECK
	mov	$7, %al
	mov	$9, %cl
	mul	%cl
	aam
	cmp	$0x0603, %ax
	CHECK
	aad
	cmp	$63, %al
	CHECK
	mov	$0x12345678, %ebx
	pusha
	xor	%ebx, %ebx
	popa
	cmp	$0x12345678, %ebx
	CHECK
	mov	$0x7f, %al
	add	$1, %al
	TRY32 into
	cmp	$4, %eax
	CHECK
	movl	$10, bounds
	movl	$20, bounds + 4
	mov	$15, %eax
	TRY32 bound %eax, bounds
	cmp	$0xff, %eax
	CHECK
	mov	$21, %eax
	TRY32 bound %eax, bounds
	cmp	$5, %eax
	CHECK
	mov	%esp, %ebx
	enter	$16, $1
	leave
	cmp	%ebx, %esp
	CHECK
	push	%es
	pop	%fs
	lar	seldata, %eax
	CHECK
	cmp	$0x00cf9300, %eax
	CHECK
	lsl	selsmall, %eax
	cmp	$0xfff, %eax
	CHECK
	verw	selcode			/* ZF clear */
	setnz	%al
	cmp	$1, %al
	CHECK
	mov	$0x41, %ecx
	arpl	%cx, selcode3		/* RPL 3 stays */
	setnz	%al
	cmp	$1, %al
	CHECK

	/* 16-bit protected mode, then real mode */
	mov	%esp, saved_esp
	ljmp	$SEL_CODE16, $ABS16(protected16)

	.code16
protected16:
	mov	$SEL_DATA16, %ax	/* real mode keeps limit and size of these */
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%cr0, %eax
	and	$~1, %al
	mov	%eax, %cr0
	ljmp	$(GUEST_BASE >> 4), $ABS16(real)
real:
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ax, %ax
	mov	%ax, %es
	mov	%ax, %ss
	mov	$0xff00, %sp
	lidtl	ABS16(ivt)
	movw	$ABS16(on_int21), %es:0x21 * 4
	movw	%cs, %es:0x21 * 4 + 2
	movw	$ABS16(on_int0), %es:0
	movw	%cs, %es:2
	mov	$0x1234, %ax
	int	$0x21
	cmp	$0x4321, %ax
	jne	real_bad
	xor	%cx, %cx		/* a divide error's vector */
	mov	$2, %ax
	div	%cl
	cmp	$0x7777, %bx
	jne	real_bad
	mov	$0xffff, %bx		/* addresses wrap at 64 KiB, with A20 on */
	movb	$0x5a, %es:0xf000
	mov	$0xf001, %si
	movb	-1(%si), %al
	mov	$0xffff, %ax
	mov	%ax, %fs
	movb	%fs:0x10, %al		/* 100000h: the first byte above 1 MiB */
	cmp	$0x44, %al
	jne	real_bad
	mov	$0x10, %cx
	mov	$0x8000, %di
	mov	$0xaa, %al
	rep stosb
	cmpb	$0xaa, %es:0x800f
	jne	real_bad
	sti
	cli
	pushf
	popl	%eax			/* only to move SP by an odd count of words */
	sub	$4, %sp
	add	$2, %sp
	mov	$0, %ecx
	jmp	back
real_bad:
	mov	$1, %ecx
back:
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$SEL_CODE32, $protected32

on_int21:
	xchg	%al, %ah
	rol	$4, %ah
	rol	$4, %al
	iret
on_int0:
	mov	$0x7777, %bx
	push	%bp
	mov	%sp, %bp
	addw	$2, 2(%bp)		/* behind DIV */
	pop	%bp
	iret

	.code32
protected32:
	mov	$SEL_DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	saved_esp, %esp
	test	%ecx, %ecx
	CHECK
	LEAVE32

	.data
seldata: .word	SEL_DATA
selsmall: .word SEL_SMALL
selcode: .word	SEL_CODE32
selcode3: .word	SEL_CODE32 | 3
ivt:	.word	0x3ff
	.long	0

	.bss
	.balign	8
bounds:	.long	0, 0
saved_esp: .long 0
	.section .note.GNU-stack, "", @progbits
