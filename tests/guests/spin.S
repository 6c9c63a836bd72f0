/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts in a register and in memory for ever. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	xor	%ebx, %ebx
	out	%al, $PORT_MARKER
1:	inc	%rbx
	mov	%rbx, SCRATCH
	jmp	1b
	.section .note.GNU-stack, "", @progbits
