/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Device memory and ports: every width, read-modify-write, strings, nobody's addresses. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	movl	$((DEVICE & ~0x1fffff) | 0x9b), PD_HIGH + ((DEVICE - 0xc0000000) >> 21) * 8
	mov	$DEVICE, %ebx
	mov	$0x1122334455667788, %rax
	mov	%rax, (%rbx)
	cmp	%rax, (%rbx)
	CHECK_EQUAL
	movb	$0x99, 1(%rbx)
	movw	$0xaabb, 2(%rbx)
	movl	$0xccddeeff, 4(%rbx)
	mov	$0xccddeeffaabb9988, %rax
	cmp	(%rbx), %rax
	CHECK_EQUAL
	movzbl	1(%rbx), %ecx
	cmp	$0x99, %ecx
	CHECK_EQUAL
	movswl	2(%rbx), %ecx
	cmp	$0xffffaabb, %ecx
	CHECK_EQUAL
	orl	$0x10, (%rbx)
	lock addl $1, (%rbx)
	cmpl	$0xaabb9999, (%rbx)
	CHECK_EQUAL
	mov	$7, %ecx
	xchg	%ecx, 4(%rbx)
	cmp	$0xccddeeff, %ecx
	CHECK_EQUAL
	push	(%rbx)
	pop	%rcx
	mov	$0x7aabb9999, %rax
	cmp	%rax, %rcx
	CHECK_EQUAL
	mov	$DEVICE, %esi
	mov	$(RESULTS+0x800), %edi
	mov	$8, %ecx
	rep movsb
	cmp	%rax, RESULTS + 0x800
	CHECK_EQUAL
	mov	$(RESULTS+0x800), %esi
	mov	$DEVICE, %edi
	movsl
	movsl
	cmp	%rax, (%rbx)
	CHECK_EQUAL
	mov	0x800(%rbx), %eax
	cmp	$-1, %eax
	CHECK_EQUAL
	/* A read-only slot: reads are memory, writes are the machine's business */
	movl	$(ROM | 0x83), PD_HIGH + ((ROM - 0xc0000000) >> 21) * 8
	mov	$ROM, %edi
	cmpl	$0x5a5a5a5a, 0x10(%rdi)
	CHECK_EQUAL
	movl	$1, 0x10(%rdi)
	lock incl 0x20(%rdi)
	cmpl	$0x5a5a5a5a, 0x10(%rdi)
	CHECK_EQUAL
	/* Ports */
	mov	$PORT_SERIAL, %edx
	mov	$text, %esi
	mov	$(text_end - text), %ecx
	rep outsb
	in	$0x70, %al
	cmp	$0xff, %al
	CHECK_EQUAL
	mov	$0x70, %edx
	in	%dx, %eax
	cmp	$-1, %eax
	CHECK_EQUAL
	mov	$(RESULTS+0x810), %edi
	mov	$3, %ecx
	rep insl
	cmpq	$-1, RESULTS + 0x810
	CHECK_EQUAL
	PASS
	.data
text:	.ascii	"hello"
text_end:
	.section .note.GNU-stack, "", @progbits
