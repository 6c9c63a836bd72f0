/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest code of the KVM probe (probe.c): 64-bit, ring 0, position independent.
 *
 * Each snippet leaves 1 in al if the instruction did what it should and writes
 * it to PROBE_PORT. On entry rbx points to a zeroed, 64-byte aligned scratch
 * page, rsp to a stack; interrupts are off. Vector 3 goes to probe_breakpoint,
 * every other vector to probe_fault, which reports 0xff.
 */
#include "probe_payload.h"

	.section .rodata.probe, "a", @progbits
	.code64

	.macro SNIPPET name
	.balign 16
	.globl	probe_\name, probe_\name\()_end
	.hidden	probe_\name, probe_\name\()_end
probe_\name:
	.endm

	.macro END name
	out	%al, $PROBE_PORT
	hlt
probe_\name\()_end:
	.endm

SNIPPET breakpoint
	movb	$1, (%rbx)
	iretq
END breakpoint

SNIPPET fault
	mov	$0xff, %al
END fault

/* rcx turns of eight instructions, as plain as kernel code gets: the time of this is what counts. */
SNIPPET loop
1:	mov	(%rbx), %rax
	add	$1, %rax
	mov	%rax, (%rbx)
	lea	8(%rax), %rdx
	and	$63, %edx
	xor	%rdx, %rsi
	dec	%rcx
	jnz	1b
	mov	$1, %al
END loop

SNIPPET int3
	int3
	mov	(%rbx), %al
END int3

SNIPPET iretq
	mov	%ss, %eax
	push	%rax
	lea	8(%rsp), %rax
	push	%rax
	pushfq
	mov	%cs, %eax
	push	%rax
	lea	1f(%rip), %rax
	push	%rax
	iretq
1:	mov	$1, %al
END iretq

SNIPPET stac
	stac
	pushfq
	pop	%rax
	clac
	shr	$18, %eax
	and	$1, %eax
END stac

SNIPPET cmpxchg16b
	xor	%eax, %eax
	xor	%edx, %edx
	mov	%rbx, %rsi
	mov	$0x5a, %ebx
	mov	$0xa5, %ecx
	lock cmpxchg16b (%rsi)
	setz	%al
	cmpq	$0x5a, (%rsi)
	sete	%dl
	and	%dl, %al
END cmpxchg16b

SNIPPET xsave
	mov	$3, %eax
	xor	%edx, %edx
	xsave	(%rbx)
	xrstor	(%rbx)
	mov	$1, %al
END xsave

SNIPPET fxsave
	fxsave	(%rbx)
	fxrstor	(%rbx)
	mov	$1, %al
END fxsave

SNIPPET sse
	movq	%rbx, %xmm1
	paddq	%xmm1, %xmm1
	movdqu	%xmm1, 16(%rbx)
	lea	(%rbx,%rbx), %rdx
	cmp	%rdx, 16(%rbx)
	sete	%al
END sse

SNIPPET avx
	vmovq	%rbx, %xmm1
	vpaddq	%ymm1, %ymm1, %ymm1
	vmovdqu	%ymm1, (%rbx)
	vzeroupper
	lea	(%rbx,%rbx), %rdx
	cmp	%rdx, (%rbx)
	sete	%al
END avx

SNIPPET movbe
	movl	$0x01000000, (%rbx)
	movbe	(%rbx), %eax
END movbe

SNIPPET popcnt
	mov	$0x8000, %eax
	popcnt	%eax, %eax
END popcnt

SNIPPET invlpg
	invlpg	(%rbx)
	mov	$1, %al
END invlpg

SNIPPET cr3
	mov	%cr3, %rax
	mov	%rax, %cr3
	mov	$1, %al
END cr3

SNIPPET wrmsr
	mov	$0xc0000102, %ecx	/* KERNEL_GS_BASE */
	mov	$0x1234, %eax
	xor	%edx, %edx
	wrmsr
	xor	%eax, %eax
	rdmsr
	cmp	$0x1234, %eax
	sete	%al
END wrmsr

SNIPPET swapgs
	swapgs
	swapgs
	mov	$1, %al
END swapgs

SNIPPET cpuid
	xor	%eax, %eax
	cpuid
	test	%eax, %eax
	setnz	%al
END cpuid

SNIPPET rdtsc
	rdtsc
	shl	$32, %rdx
	or	%rax, %rdx
	setnz	%al
END rdtsc

SNIPPET movs
	mov	%rbx, %rsi
	lea	256(%rbx), %rdi
	mov	$32, %ecx
	rep movsq
	mov	$1, %al
END movs

SNIPPET lock
	lock incq (%rbx)
	lock btsl $8, (%rbx)
	mov	$0x101, %eax
	mov	$2, %ecx
	lock cmpxchg %ecx, (%rbx)
	setz	%al
END lock

SNIPPET mfence
	mfence
	lfence
	sfence
	mov	$1, %al
END mfence

	.section .note.GNU-stack, "", @progbits
