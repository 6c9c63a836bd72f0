/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run one instruction on the host CPU in ring 3: load every register and the
 * flags, execute, store them again. A fault comes back as its vector.
 */
#pragma once
#include <assert.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { UCONTEXT_RIP = 16 }; /* REG_RIP of <sys/ucontext.h>, a name that soft.h has taken */

struct native_regs {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	int vector; /* -1: none */
	uint64_t error, cr2;
};

/* One page of code, one of data right after it, so that everything is RIP-relative. */
struct native {
	uint8_t *code;
	struct native_data {
		struct native_regs in, out;
		uint64_t host_rsp;
	} *data;
	unsigned at;
	uint8_t *insn, *leave;
	bool running;
};

static struct native native;

static void native_byte(uint8_t b)
{
	native.code[native.at++] = b;
}

static void native_bytes(const void *p, unsigned n)
{
	memcpy(native.code + native.at, p, n);
	native.at += n;
}

/* `op` (with REX and ModRM's reg field given) on the RIP-relative address of `target`. */
static void native_rip(uint8_t rex, uint8_t op, uint8_t reg, const void *target)
{
	int32_t disp;

	if (rex)
		native_byte(rex);
	native_byte(op);
	native_byte((reg & 7) << 3 | 5);
	disp = (int32_t)((const uint8_t *)target - (native.code + native.at + 4));
	native_bytes(&disp, 4);
}

static void native_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				      REG_R8,  REG_R9,	REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
	struct native_regs *out = &native.data->out;

	if (!native.running || g[UCONTEXT_RIP] != (greg_t)native.insn) {
		/* Not the instruction: a bug in the test or the code under test. */
		signal(sig, SIG_DFL);
		return;
	}
	for (int k = 0; k < 16; k++)
		out->gpr[k] = g[order[k]];
	out->rip = g[UCONTEXT_RIP];
	out->rflags = g[REG_EFL];
	out->vector = g[REG_TRAPNO];
	out->error = g[REG_ERR];
	out->cr2 = g[REG_CR2];
	g[UCONTEXT_RIP] = (greg_t)native.leave;
	g[REG_RSP] = native.data->host_rsp;
	g[REG_EFL] &= ~0x400ul;
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffl) | 0x33;
	(void)si;
}

/* In each test: cmocka puts handlers of its own before it. */
static void native_catch(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction sa = {.sa_sigaction = native_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	for (unsigned k = 0; k < sizeof(signals) / sizeof(*signals); k++)
		sigaction(signals[k], &sa, NULL);
}

static void native_init(void)
{
	stack_t ss = {.ss_size = 65536};

	if (native.code)
		return;
	native.code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	assert(native.code != MAP_FAILED);
	native.data = (struct native_data *)(native.code + 4096);
	ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(ss.ss_sp != MAP_FAILED && !sigaltstack(&ss, NULL));
	native_catch();
}

/* Place `n` bytes of code; native.insn is where they lie. */
static void native_build(const uint8_t *insn, unsigned n)
{
	static const uint8_t save[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
	static const uint8_t restore[] = {0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
	struct native_data *d = native.data;

	native.at = 0;
	native_bytes(save, sizeof(save));
	native_rip(0x48, 0x89, 4, &d->host_rsp);
	native_rip(0, 0xff, 6, &d->in.rflags);
	native_byte(0x9d);
	for (int k = 0; k < 16; k++)
		native_rip(k & 8 ? 0x4c : 0x48, 0x8b, k, &d->in.gpr[k]);
	native.insn = native.code + native.at;
	native_bytes(insn, n);
	for (int k = 0; k < 16; k++)
		native_rip(k & 8 ? 0x4c : 0x48, 0x89, k, &d->out.gpr[k]);
	native_rip(0x48, 0x8b, 4, &d->host_rsp);
	native_byte(0x9c);
	native_rip(0, 0x8f, 0, &d->out.rflags);
	native.leave = native.code + native.at;
	native_bytes(restore, sizeof(restore));
}

/* Absolute-address MOV of 32-bit code: `op` 8b or 89. */
static void native_abs32(uint8_t op, uint8_t reg, const void *target)
{
	uint32_t at = (uint32_t)(uintptr_t)target;

	native_byte(op);
	native_byte(reg << 3 | 5);
	native_bytes(&at, 4);
}

static void native_far32(uint16_t cs, unsigned *where)
{
	uint32_t at = 0;

	native_byte(0xea);
	*where = native.at;
	native_bytes(&at, 4);
	native_bytes(&cs, 2);
}

/*
 * The same in compatibility mode: a far return into the 32-bit code segment
 * that Linux has at selector 0x23, and a far jump back. Data segments are null
 * in 64-bit processes and must be loaded.
 */
static void native_build32(const uint8_t *insn, unsigned n)
{
	static const uint8_t save[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
	static const uint8_t restore[] = {0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
	static const uint8_t segments[] = {0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0};
	struct native_data *d = native.data;
	unsigned far, entry;
	uint32_t at;

	native.at = 0;
	native_bytes(save, sizeof(save));
	native_rip(0x48, 0x89, 4, &d->host_rsp);
	native_rip(0, 0xff, 6, &d->in.rflags);
	native_byte(0x9d);
	native_bytes((const uint8_t[]){0x6a, 0x23, 0x68}, 3); /* push 0x23; push entry; lretq */
	entry = native.at;
	native_bytes(&(uint32_t){0}, 4);
	native_bytes((const uint8_t[]){0x48, 0xcb}, 2);
	at = (uint32_t)(uintptr_t)(native.code + native.at);
	memcpy(native.code + entry, &at, 4);
	native_bytes(segments, sizeof(segments));
	for (int k = 0; k < 8; k++)
		native_abs32(0x8b, k, &d->in.gpr[k]);
	native.insn = native.code + native.at;
	native_bytes(insn, n);
	for (int k = 0; k < 8; k++)
		native_abs32(0x89, k, &d->out.gpr[k]);
	native_far32(0x33, &far);
	at = (uint32_t)(uintptr_t)(native.code + native.at);
	memcpy(native.code + far, &at, 4);
	native_rip(0x48, 0x8b, 4, &d->host_rsp);
	native_byte(0x9c);
	native_rip(0, 0x8f, 0, &d->out.rflags);
	native.leave = native.code + native.at;
	native_bytes(restore, sizeof(restore));
}

/* Run what native_build() placed: state in native.data->in, result in native.data->out. */
static void native_run(void)
{
	native.data->out.vector = -1;
	native.running = true;
	((void (*)(void))native.code)();
	native.running = false;
}
