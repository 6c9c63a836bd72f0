/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tour through the modes, from the reset state's real mode to ring 3 of
 * long mode and back. Loaded at BASE, entered there with CS 0. Results go to
 * RESULT, one quadword a stop; test_run.c knows what they must be. Page
 * tables (identity, user) are at 0x1000.
 */
#define BASE 0x8000
#define RESULT 0x6000
#define AT(label) (label - tour_start + BASE)

	.section .rodata
	.globl tour_start, tour_end
	.balign 16
	.code16
tour_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7000, %sp
	/* INT through the IVT */
	movw $AT(int21), 0x21*4
	movw $0, 0x21*4+2
	movw $0x1234, %dx
	int $0x21
	movw %dx, RESULT
	/* A segment that is no paragraph 0: 0x600:8 is 0x6008 */
	movw $(RESULT >> 4), %ax
	movw %ax, %fs
	movl $0xfeed, %fs:8
	/* A fault through the IVT: divide error, IP of the instruction itself */
	movw $AT(divide), 0
	movw $0, 2
	xorw %cx, %cx
	movw $7, %ax
	xorw %dx, %dx
	divw %cx
	movw %cx, RESULT + 0x10

	lgdtl AT(gdtr)
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x08, $AT(protected)

int21:
	incw %dx
	iretw
divide:
	movw $3, %cx
	iretw

	.code32
protected:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x7000, %esp
	lidtl AT(idtr32)
	movl $0x11, RESULT + 0x18
	ud2
	movl %ebx, RESULT + 0x18 /* 0x22, from the handler */
	/* Past the limit of FS (one page): #GP(0) */
	movl $0x38, %eax
	movl %eax, %fs
	movl %fs:0xffc, %ecx
	movl %fs:0xffd, %ecx
	movl %ebx, RESULT + 0x20

	/* Long mode */
	movl %cr4, %eax
	orl $0x20, %eax
	movl %eax, %cr4
	movl $0x1000, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x101, %eax /* LME, SCE */
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	/* Compatibility mode now */
	movl %eax, RESULT + 0x28
	ljmpl $0x18, $AT(long)

undefined32:
	movl $0x22, %ebx
	addl $2, (%esp)
	iretl
protection32:
	popl %ebx /* error code */
	addl $0x33, %ebx
	addl $7, (%esp)
	iretl

	.code64
long:
	movl $0x10, %eax
	movl %eax, %ss
	movl $0x7000, %esp
	lidt AT(idtr64)
	movl $0x40, %eax
	ltr %ax
	/* SYSCALL: kernel CS 0x18, SYSRET base 0x20 */
	movl $0xc0000081, %ecx
	xorl %eax, %eax
	movl $0x00200018, %edx
	wrmsr
	movl $0xc0000082, %ecx
	movl $AT(syscall_entry), %eax
	xorl %edx, %edx
	wrmsr
	movl $0xc0000084, %ecx
	movl $0x200, %eax
	wrmsr
	/* Ring 3 */
	pushq $0x2b
	pushq $0x5ff0
	pushq $0x202
	pushq $0x33
	pushq $AT(user)
	iretq

user:
	movw %cs, %ax
	movzwl %ax, %eax
	movq %rax, RESULT + 0x30
	movl $1, %eax
	syscall
	movq %rax, RESULT + 0x38 /* 101 */
	movl $2, %eax
	int $0x80
	movq %rax, RESULT + 0x40 /* 202 */
	/* A supervisor page: #PF, error code 5 (present, user) */
	movq 0x200000, %rax
	movq %rbx, RESULT + 0x48
	movq %rcx, RESULT + 0x50
	/* Privileged */
	cli
	movq %rbx, RESULT + 0x58
	movl $99, %eax
	syscall

syscall_entry:
	cmpl $99, %eax
	je done
	addl $100, %eax
	sysretq
done:
	movq %r11, RESULT + 0x60
	outb %al, $0xf4
1:	hlt
	jmp 1b

int80:
	addl $200, %eax
	iretq
page_fault:
	popq %rbx
	movq %cr2, %rcx
	addq $8, (%rsp)
	iretq
protection64:
	popq %rbx
	addq $0x44, %rbx
	addq $1, (%rsp)
	iretq

	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* 08 code 32 */
	.quad 0x00cf93000000ffff /* 10 data */
	.quad 0x00af9b000000ffff /* 18 code 64 */
	.quad 0x00cffb000000ffff /* 20 user code 32 */
	.quad 0x00cff3000000ffff /* 28 user data */
	.quad 0x00affb000000ffff /* 30 user code 64 */
	.quad 0x0040930000000fff /* 38 data, one page */
	.word 0x67, AT(tss)      /* 40 TSS */
	.byte 0, 0x89, 0, 0
	.quad 0
gdtr:
	.word gdtr - gdt - 1
	.long AT(gdt)
idtr32:
	.word 0x7f
	.long AT(idt32)
	.balign 8
idt32:
	.fill 6, 8, 0
	.word AT(undefined32), 8, 0x8e00, 0
	.fill 6, 8, 0
	.word AT(protection32), 8, 0x8e00, 0
	.fill 2, 8, 0
idtr64:
	.word 0x80 * 16 + 15
	.quad AT(idt64)
	.balign 8
idt64:
	.fill 13 * 2, 8, 0
	.word AT(protection64), 0x18, 0x8e00, 0, 0, 0, 0, 0
	.word AT(page_fault), 0x18, 0x8e00, 0, 0, 0, 0, 0
	.fill (0x80 - 15) * 2, 8, 0
	.word AT(int80), 0x18, 0xee00, 0, 0, 0, 0, 0
	.balign 8
tss:
	.long 0
	.quad 0x7000 /* RSP0 */
	.fill 92, 1, 0
tour_end:
	.section .note.GNU-stack, "", @progbits
