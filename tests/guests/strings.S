/* SPDX-License-Identifier: GPL-2.0-or-later */
/* String instructions: every width and direction, across pages, with a fault in the middle and a restart. */
#include "payload.h"

	.text
	.code64
	.globl	main64

#define A (SCRATCH+0x10000)
#define B (SCRATCH+0x14000)
#define HOLE (SCRATCH+0x16000)

main64:
	/* A pattern over two pages, at an odd address that crosses. */
	mov	$(A+0xff1), %edi
	mov	$0x1fd, %ecx
	mov	$1, %eax
1:	stosb
	add	$7, %al
	loop	1b

	.macro COPY insn, bytes, count, from, to
	mov	$(\from), %esi
	mov	$(\to), %edi
	mov	$\count, %ecx
	rep \insn
	cmp	$(\from + \bytes * \count), %rsi
	check_equal \@
	cmp	$(\to + \bytes * \count), %rdi
	check_equal \@
	.endm

	COPY	movsb, 1, 0x1fd, A+0xff1, B+0xf03
	mov	$(A+0xff1), %esi
	mov	$(B+0xf03), %edi
	mov	$0x1fd, %ecx
	repe cmpsb
	CHECK_EQUAL
	test	%ecx, %ecx
	CHECK_EQUAL
	COPY	movsw, 2, 0x80, A+0xff1, B+0x301
	COPY	movsl, 4, 0x40, A+0xff1, B+0x502
	COPY	movsq, 8, 0x20, A+0xff1, B+0x703
	mov	B+0x301, %rax
	cmp	%rax, B+0x502
	CHECK_EQUAL
	cmp	%rax, B+0x703
	CHECK_EQUAL

	/* Backwards, overlapping: a real move */
	std
	mov	$(B+0x301+0xff), %esi
	mov	$(B+0x301+0x107), %edi
	mov	$0x100, %ecx
	rep movsb
	cld
	cmp	%rax, B+0x309
	CHECK_EQUAL
	/* Forwards, overlapping by one: a fill */
	movb	$0x5c, B
	mov	$B, %esi
	mov	$(B+1), %edi
	mov	$0xff, %ecx
	rep movsb
	cmpb	$0x5c, B+0xff
	CHECK_EQUAL

	/* SCAS and CMPS stop where they should, with the flags of the last comparison. */
	movb	$0, B+0x80
	mov	$B, %edi
	mov	$0x100, %ecx
	xor	%eax, %eax
	repne scasb
	CHECK_EQUAL
	cmp	$(B+0x81), %rdi
	CHECK_EQUAL
	cmp	$0x7f, %rcx
	CHECK_EQUAL
	mov	$B, %esi
	mov	$(B+0x40), %edi
	mov	$0x100, %ecx
	repe cmpsb
	seta	%al			/* 5c above 0 */
	cmp	$1, %al
	CHECK_EQUAL
	cmp	$(B+0x41), %rsi
	CHECK_EQUAL

	/* STOS, LODS, zero counts, 32-bit addresses */
	mov	$0x0123456789abcdef, %rax
	mov	$(B+0xffc), %edi
	mov	$3, %ecx
	rep stosq
	cmp	%rax, B+0x100c
	CHECK_EQUAL
	mov	$(B+0x1004), %esi
	lodsq
	cmp	%rax, B+0xffc
	CHECK_EQUAL
	xor	%ecx, %ecx
	mov	$0x8000000000000000, %rdi
	TRY rep stosb			/* touches nothing */
	EXPECT_NOTHING
	mov	$0xffffffff00000001, %rcx
	mov	$(B+0x200), %rdi
	addr32 rep stosb		/* ecx, edi: clears the upper halves */
	test	%rcx, %rcx
	CHECK_EQUAL
	cmp	$(B+0x201), %rdi
	CHECK_EQUAL

	/* A fault in the middle: registers say how far it came; then it goes on. */
	MAP	HOLE, 0
	mov	$(A+0xff1), %esi
	mov	$(HOLE-0x11), %edi
	mov	$0x40, %ecx
	TRY rep movsb
	EXPECT(14, 2)
	EXPECT_CR2(HOLE)
	cmp	$0x2f, %rcx
	CHECK_EQUAL
	cmp	$HOLE, %rdi
	CHECK_EQUAL
	cmp	$(A+0xff1+0x11), %rsi
	CHECK_EQUAL
	MAP	HOLE, 3
	rep movsb
	mov	$(A+0xff1), %esi
	mov	$(HOLE-0x11), %edi
	mov	$0x40, %ecx
	repe cmpsb
	CHECK_EQUAL
	mov	$B, %esi		/* for the comparison between engines */
	mov	$(RESULTS+0x800), %edi
	mov	$0x400, %ecx
	rep movsb
	PASS
	.section .note.GNU-stack, "", @progbits
