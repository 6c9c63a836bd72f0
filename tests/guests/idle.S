/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sleeps for ever, with interrupts off. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	out	%al, $PORT_MARKER
1:	hlt
	jmp	1b
	.section .note.GNU-stack, "", @progbits
