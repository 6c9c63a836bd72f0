/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Paging of 32-bit mode: two levels with 4 MiB pages, and PAE. */
#include "payload32.h"

#define PD32 0xa000
#define PDPT32 0xb000
#define PD_PAE 0xc000
#define PT32 0xd000

	.text
	.code32
	.globl	main32
main32:
	SETUP32
	movl	$0x11223344, SCRATCH + 0xffc

	/* Two levels, 4 MiB and 4 KiB pages */
	movl	$0x83, PD32		/* 0..4 MiB */
	movl	$(PT32 | 3), PD32 + 4
	movl	$(SCRATCH | 1), PT32
	mov	$PD32, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x10, %eax		/* PSE */
	mov	%eax, %cr4
	mov	%cr0, %eax
	or	$0x80010000, %eax	/* PG, WP */
	mov	%eax, %cr0
	jmp	1f
1:	cmpl	$0x11223344, 0x400ffc
	CHECK
	TRY32 movl %eax, 0x400ffc
	cmp	$14, %eax
	CHECK
	cmp	$3, %ecx
	CHECK
	mov	%cr2, %eax
	cmp	$0x400ffc, %eax
	CHECK
	TRY32 movl 0x401000, %eax
	cmp	$14, %eax
	CHECK
	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0

	/* PAE */
	movl	$(PD_PAE | 1), PDPT32
	movl	$0x83, PD_PAE
	movl	$0x200083, PD_PAE + 8
	movl	$(PT32 | 3), PD_PAE + 16	/* 4 MiB: the page table of above, read as PAE's */
	movl	$0, PT32 + 4
	mov	$PDPT32, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	cmpl	$0x11223344, 0x400ffc
	CHECK
	TRY32 movl 0x40000000, %eax	/* the second PDPTE */
	cmp	$14, %eax
	CHECK
	test	%ecx, %ecx
	CHECK
	mov	%cr0, %eax
	and	$0x7ffeffff, %eax
	mov	%eax, %cr0
	xor	%eax, %eax
	mov	%eax, %cr4

	LEAVE32
	.section .note.GNU-stack, "", @progbits
