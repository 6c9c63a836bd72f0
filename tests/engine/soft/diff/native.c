/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One instruction on the host CPU.
 *
 * IRETQ enters it with every register set. Wherever it goes from there, it
 * meets a signal: the code window holds nothing but INT3 around it, and outside
 * nothing can be fetched. (Single-stepping with TF would be simpler, but costs
 * seven times as much where a hypervisor intercepts #DB; it is used where the
 * end cannot be known.) The signal arrives on an alternate stack with all of
 * the state in its frame, and the handler leaves straight to the caller of
 * native_enter() without sigreturn. FS and GS bases are the instruction's until
 * the handler's first instructions give the C library its own back.
 *
 * A jump onto itself would run for ever; a timer ends it.
 */
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "diff.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

#define USER_CS 0x33
#define USER_DS 0x2b
#define MAP_FIXED_ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE)
#define TIMER_US 50000
#define ENTRY_STACK (0x200000000000ull + (STACK_BASE & 0xffff0000) + 0x8000)

/* Offsets are known to the assembly below. */
struct native_context {
	uint64_t gpr[16];
	uint64_t rip, rflags, cs, ss;     /* 0x80 */
	uint64_t fs_base, gs_base;        /* 0xa0 */
	uint64_t host_rsp;                /* 0xb0 */
	uint64_t host_fs, host_gs;        /* 0xb8 */
	uint64_t running;                 /* 0xc8 */
	uint64_t out_fs, out_gs;          /* 0xd0 */
	uint64_t load_segments;           /* 0xe0: the four below count, and FS and GS bases don't */
	uint16_t ds, es, fs, gs;          /* 0xe8 */
	uint64_t stack;                   /* 0xf0: what IRETQ is executed on */
	uint8_t pad[8];
	uint8_t xsave[832] __attribute__((aligned(64))); /* 0x100 */
};
#define AT(field, offset) _Static_assert(offsetof(struct native_context, field) == (offset), "the assembly knows it")
AT(fs_base, 0xa0);
AT(running, 0xc8);
AT(load_segments, 0xe0);
AT(stack, 0xf0);
AT(xsave, 0x100);

struct native_context native_context __attribute__((visibility("hidden")));
void native_enter(struct native_context *c) __attribute__((visibility("hidden")));
void native_signal(void) __attribute__((visibility("hidden")));
void native_caught(int sig, siginfo_t *info, ucontext_t *uc) __attribute__((visibility("hidden"), used));

uint8_t *native_image, *native_code;
static unsigned ymm_offset;
static struct diff_result *result;
static const struct diff_case *current;

/*
 * CR0.AM is set on Linux: the handler clears EFLAGS.AC before it touches
 * anything that may be misaligned.
 */
__asm__(".text\n"
	".globl native_enter\n"
	"native_enter:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, 0xb0(%rdi)\n"
	"	movq $1, 0xc8(%rdi)\n" /* the way back is known; a signal before that would not find it */
	"	cmpq $0, 0xe0(%rdi)\n"
	"	je 1f\n"
	"	mov 0xe8(%rdi), %ds\n	mov 0xea(%rdi), %es\n	mov 0xec(%rdi), %fs\n	mov 0xee(%rdi), %gs\n"
	"	jmp 2f\n"
	"1:	mov 0xa0(%rdi), %rax\n	wrfsbase %rax\n"
	"	mov 0xa8(%rdi), %rax\n	wrgsbase %rax\n"
	"2:	mov $7, %eax\n	xor %edx, %edx\n	xrstor64 0x100(%rdi)\n"
	"	mov 0xf0(%rdi), %rsp\n"
	"	pushq 0x98(%rdi)\n"  /* SS */
	"	pushq 0x20(%rdi)\n"  /* RSP */
	"	pushq 0x88(%rdi)\n"  /* RFLAGS */
	"	pushq 0x90(%rdi)\n"  /* CS */
	"	pushq 0x80(%rdi)\n"  /* RIP */
	"	mov 0x00(%rdi), %rax\n	mov 0x08(%rdi), %rcx\n	mov 0x10(%rdi), %rdx\n	mov 0x18(%rdi), %rbx\n"
	"	mov 0x28(%rdi), %rbp\n	mov 0x30(%rdi), %rsi\n	mov 0x40(%rdi), %r8\n	mov 0x48(%rdi), %r9\n"
	"	mov 0x50(%rdi), %r10\n	mov 0x58(%rdi), %r11\n	mov 0x60(%rdi), %r12\n	mov 0x68(%rdi), %r13\n"
	"	mov 0x70(%rdi), %r14\n	mov 0x78(%rdi), %r15\n	mov 0x38(%rdi), %rdi\n"
	"	iretq\n"
	".globl native_signal\n"
	"native_signal:\n"
	"	pushq $2\n	popfq\n"
	"	lea native_context(%rip), %rbx\n"
	"	cmpq $0, 0xc8(%rbx)\n"
	"	jne 4f\n"
	"	cmp $14, %edi\n" /* SIGALRM in our own code */
	"	jne 3f\n"
	"	ret\n"
	"4:\n"
	"	rdfsbase %rax\n	mov %rax, 0xd0(%rbx)\n"
	"	rdgsbase %rax\n	mov %rax, 0xd8(%rbx)\n"
	"	cmpq $0, 0xe0(%rbx)\n"
	"	je 1f\n"
	"	mov $0x2b, %eax\n	mov %eax, %ds\n	mov %eax, %es\n"
	"	xor %eax, %eax\n	mov %eax, %fs\n	mov %eax, %gs\n"
	"1:	mov 0xb8(%rbx), %rax\n	wrfsbase %rax\n"
	"	mov 0xc0(%rbx), %rax\n	wrgsbase %rax\n"
	"3:	sub $8, %rsp\n"
	"	call native_caught\n"
	"	mov 0xb0(%rbx), %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
	"	ret\n");

bool native_has_fsgsbase(void)
{
	return getauxval(AT_HWCAP2) & 2;
}

/* XSAVE standard format as the kernel puts it into the frame; what is in its initial state may not be written. */
static void take_xstate(struct diff_state *s, const uint8_t *fx)
{
	uint64_t bv;
	const uint8_t *hi = fx + ymm_offset;

	memcpy(&bv, fx + 512, 8);
	if (bv & 1) {
		memcpy(&s->fcw, fx, 2);
		memcpy(&s->fsw, fx + 2, 2);
		s->ftw = fx[4];
		for (int n = 0; n < 8; n++)
			memcpy(s->st[n], fx + 32 + n * 16, 10);
	} else {
		s->fcw = 0x37f;
		s->fsw = 0;
		s->ftw = 0;
		memset(s->st, 0, sizeof(s->st));
	}
	memcpy(&s->mxcsr, fx + 24, 4);
	for (int n = 0; n < 16; n++) {
		if (bv & 2)
			memcpy(s->ymm[n], fx + 160 + n * 16, 16);
		else
			memset(s->ymm[n], 0, 16);
		if (bv & 4)
			memcpy(s->ymm[n] + 16, hi + n * 16, 16);
		else
			memset(s->ymm[n] + 16, 0, 16);
	}
}

void native_caught(int sig, siginfo_t *info, ucontext_t *uc)
{
	static const uint8_t from[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
					  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	enum { UC_RIP = 16 }; /* ucontext's REG_RIP: soft.h has one of its own */
	const greg_t *g = uc->uc_mcontext.gregs;
	struct diff_result *r = result;

	if (!native_context.running) {
		char line[128];
		int n = snprintf(line, sizeof(line), "signal %d in the test program itself at %#llx, address %p\n", sig,
				 (unsigned long long)g[UC_RIP], info->si_addr);

		if (write(STDERR_FILENO, line, n) < 0 || current)
			fprintf(stderr, "in or after case %llu\n", current ? (unsigned long long)current->number : 0);
		signal(sig, SIG_DFL);
		raise(sig);
		_exit(2);
	}
	native_context.running = 0;
	for (int n = 0; n < 16; n++)
		r->out.gpr[n] = g[from[n]];
	r->out.rip = g[UC_RIP];
	r->out.rflags = g[REG_EFL];
	r->out.fs_base = native_context.out_fs;
	r->out.gs_base = native_context.out_gs;
	take_xstate(&r->out, (const uint8_t *)uc->uc_mcontext.fpregs);
	r->vector = sig == SIGALRM ? NATIVE_BY_TIMER : (int)g[REG_TRAPNO];
	r->error = (uint32_t)g[REG_ERR];
	r->cr2 = r->vector == EXC_PF ? (uint64_t)g[REG_CR2] : 0;
}

/* Is `rip` where one of the instructions starts? */
static bool at_instruction(const struct diff_case *c, uint64_t rip)
{
	uint64_t at = c->in.rip;

	for (unsigned n = 0; n < c->count; at += c->insn[n++].len)
		if (rip == at)
			return true;
	return rip == c->in.rip;
}

/* Is it the end of an INT3 among them? */
static bool behind_int3(const struct diff_case *c, uint64_t rip)
{
	uint64_t at = c->in.rip;

	for (unsigned n = 0; c->valid && n < c->count; n++) {
		at += c->insn[n].len;
		if (c->insn[n].map == MAP_1B && c->insn[n].opcode == 0xcc && rip == at)
			return true;
	}
	return false;
}

void diff_settle(const struct diff_case *c, struct diff_result *r)
{
	if (c->mode != MODE_64)
		r->out.rip = (uint32_t)r->out.rip;
	if (r->vector == EXC_DB && c->single_step) {
		r->vector = -1;
	} else if (r->vector == EXC_BP && !behind_int3(c, r->out.rip)) {
		r->vector = -1;
		r->out.rip--;
	} else if ((r->vector == EXC_PF || r->vector == EXC_GP) && !at_instruction(c, r->out.rip)) {
		r->vector = -1; /* the next fetch */
	}
	if (r->vector != EXC_PF)
		r->cr2 = 0;
	if (r->vector < 0)
		r->error = 0;
}

void native_case_run(const struct diff_case *c, struct diff_result *r)
{
	struct native_context *n = &native_context;
	uint8_t *x = n->xsave;
	uint64_t bv = 7;
	uint8_t *code = native_code + (diff_code_at(c) - CODE_BASE);

	memcpy(code, c->bytes, c->len < c->room ? c->len : c->room);
	memcpy(n->gpr, c->in.gpr, sizeof(n->gpr));
	n->rip = c->in.rip;
	n->rflags = c->in.rflags | (c->single_step ? FL_TF : 0);
	n->cs = USER_CS;
	n->ss = USER_DS;
	if (c->mode != MODE_64) {
		n->cs = diff_segments[c->seg[SEG_CS]].selector;
		n->ss = diff_segments[c->seg[SEG_SS]].selector;
		n->ds = diff_segments[c->seg[SEG_DS]].selector;
		n->es = diff_segments[c->seg[SEG_ES]].selector;
		n->fs = diff_segments[c->seg[SEG_FS]].selector;
		n->gs = diff_segments[c->seg[SEG_GS]].selector;
	}
	n->fs_base = c->in.fs_base;
	n->gs_base = c->in.gs_base;
	n->load_segments = c->mode != MODE_64;
	memset(x, 0, 32);
	memcpy(x, &c->in.fcw, 2);
	memcpy(x + 2, &c->in.fsw, 2);
	x[4] = c->in.ftw;
	memcpy(x + 24, &c->in.mxcsr, 4);
	for (int k = 0; k < 8; k++)
		memcpy(x + 32 + k * 16, c->in.st[k], 10);
	memcpy(x + 512, &bv, 8);
	for (int k = 0; k < 16; k++) {
		memcpy(x + 160 + k * 16, c->in.ymm[k], 16);
		memcpy(x + 576 + k * 16, c->in.ymm[k] + 16, 16);
	}
	result = r;
	current = c;
	native_enter(n);
	memset(code, 0xcc, c->len < c->room ? c->len : c->room);
	diff_settle(c, r);
}

/* A window at its address, backed by `fd`; the page before and the page after stay free. */
static bool map_window(int fd, uint64_t addr, unsigned pages, unsigned page, int prot)
{
	void *want = (void *)(addr - PAGE);
	void *guard = mmap(want, (pages + 2) * PAGE, PROT_NONE, MAP_FIXED_ANONYMOUS, -1, 0);

	if (guard != want)
		return false;
	return mmap((void *)addr, pages * PAGE, prot, MAP_SHARED | MAP_FIXED, fd, page * PAGE) == (void *)addr;
}

bool native_init(const uint8_t *image, const char **why)
{
	static uint8_t stack[256 * 1024] __attribute__((aligned(4096)));
	static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM };
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	struct itimerval tick = { { 0, TIMER_US }, { 0, TIMER_US } };
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	unsigned a, b, cx, d;
	void *entry_stack;
	int fd;

	*why = NULL;
	if (!__get_cpuid(1, &a, &b, &cx, &d) || !(cx >> 27 & 1) || !(cx >> 28 & 1))
		*why = "the host has no AVX or does not enable XSAVE";
	else if (!native_has_fsgsbase())
		*why = "the host does not let programs set FS and GS bases";
	else if ((uintptr_t)&native_context >> 32 == 0)
		*why = "the test program lies below 4 GiB: build it position-independent";
	else if (sanitized)
		*why = "the address sanitizer's shadow lies where instructions must find nothing";
	if (*why)
		return false;
	__cpuid_count(0xd, 2, a, b, cx, d);
	ymm_offset = b;
	fd = memfd_create("diff", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (IMAGE_PAGES + CODE_PAGES) * PAGE)) {
		*why = "no memfd";
		return false;
	}
	native_image = mmap(NULL, (IMAGE_PAGES + CODE_PAGES) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (native_image == MAP_FAILED ||
	    !map_window(fd, DATA_BASE, DATA_RW_PAGES + 1, IMAGE_DATA, PROT_READ | PROT_WRITE) ||
	    mprotect((void *)(uintptr_t)DATA_RO_BASE, PAGE, PROT_READ) ||
	    !map_window(fd, STACK_BASE, 1, IMAGE_STACK, PROT_READ | PROT_WRITE) ||
	    !map_window(fd, CODE_BASE, CODE_PAGES, IMAGE_PAGES, PROT_READ | PROT_EXEC)) {
		*why = "the low addresses are taken";
		return false;
	}
	close(fd);
	native_code = native_image + IMAGE_PAGES * PAGE;
	memcpy(native_image, image, IMAGE_PAGES * PAGE);
	memset(native_code, 0xcc, CODE_PAGES * PAGE);
	/* Touch the windows once, so that no first fault is the kernel's alone to see. */
	for (unsigned n = 0; n < DATA_RW_PAGES; n++)
		*(volatile uint8_t *)(uintptr_t)(DATA_BASE + n * PAGE) = image[n * PAGE];
	*(volatile uint8_t *)(uintptr_t)STACK_BASE = image[IMAGE_STACK * PAGE];
	(void)*(volatile uint8_t *)(uintptr_t)DATA_RO_BASE;
	for (unsigned n = 0; n < CODE_PAGES; n++)
		(void)*(volatile uint8_t *)(uintptr_t)(CODE_BASE + n * PAGE);
	/*
	 * IRETQ to a 16-bit stack leaves bits 16 and up of RSP as they are: they must be the same in every run. Cases
	 * with such a stack have them as this page has.
	 */
	entry_stack = mmap((void *)ENTRY_STACK, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED_ANONYMOUS, -1, 0);
	if (entry_stack != (void *)ENTRY_STACK) {
		*why = "the address of the entry stack is taken";
		return false;
	}
	native_context.stack = ENTRY_STACK + PAGE;
	__asm__ volatile("mov %0, %%ds\n	mov %0, %%es" : : "r"(USER_DS));
	__asm__ volatile("rdfsbase %0" : "=r"(native_context.host_fs));
	__asm__ volatile("rdgsbase %0" : "=r"(native_context.host_gs));
	sigaltstack(&ss, NULL);
	sa.sa_sigaction = (void (*)(int, siginfo_t *, void *))(void (*)(void))native_signal;
	for (unsigned n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
		sigaction(signals[n], &sa, NULL);
	setitimer(ITIMER_REAL, &tick, NULL);
	return true;
}
