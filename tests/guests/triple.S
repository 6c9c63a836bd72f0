/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A triple fault. */
#include "payload.h"

	.text
	.code64
	.globl	main64
main64:
	lidt	nothing
	ud2
	.data
nothing: .word	0
	.quad	0
	.section .note.GNU-stack, "", @progbits
