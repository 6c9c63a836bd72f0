/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vec_harness.h"

#include <assert.h>
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

uint8_t *mem;
bool host_avx, host_avx2;
struct soft_vcpu *cpu;
struct soft_engine engine;
unsigned written_calls, written_size;
uint64_t written_gpa;
int mmu_fail_after = -1;

/* ---- Random ---------------------------------------------------------------- */

static uint64_t seed = 0x9e3779b97f4a7c15;

uint64_t rnd64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1d;
}

uint32_t rnd(void)
{
	return (uint32_t)(rnd64() >> 32);
}

void random_bytes(void *p, size_t n)
{
	for (uint8_t *b = p; n--; b++)
		*b = (uint8_t)rnd();
}

static uint32_t random_float(void)
{
	static const uint32_t special[] = { 0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001,
					    0x3f800000, 0x4f000000, 0x4effffff, 0x3f000000, 0x5f000000, 0x33800000 };
	uint32_t sign = rnd() << 31;

	switch (rnd() % 4) {
	case 0: return sign | special[rnd() % 14];
	case 1: return sign | (0x3f800000 + (rnd() % 0x8000000) - 0x4000000);
	case 2: return sign | (rnd() & 1 ? rnd() % 0x1000000 : 0x7f000000 + rnd() % 0xffffff);
	default: return rnd();
	}
}

static uint64_t random_double(void)
{
	static const uint64_t special[] = { 0, 1, 0xfffffffffffff, 0x10000000000000, 0x7fefffffffffffff,
					    0x7ff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
					    0x3ff0000000000000, 0x41e0000000000000, 0x43e0000000000000,
					    0x47efffffe0000000, 0x380fffffc0000000, 0x36a0000000000000 };
	uint64_t sign = rnd64() << 63;

	switch (rnd() % 4) {
	case 0: return sign | special[rnd() % 14];
	case 1: return sign | (0x3ff0000000000000 + (rnd64() % 0x100000000000000) - 0x80000000000000);
	case 2:
		return sign |
		       (rnd() & 1 ? rnd64() % 0x20000000000000 : 0x7fe0000000000000 + rnd64() % 0x1fffffffffffff);
	default: return rnd64();
	}
}

void random_vector(uint8_t *p, unsigned n)
{
	unsigned kind = rnd() % 5;

	for (unsigned k = 0; k < n; k += 8) {
		uint64_t x;

		switch (kind) {
		case 0: x = (uint64_t)random_float() << 32 | random_float(); break;
		case 1: x = random_double(); break;
		case 2: x = rnd64() & 0x000f000f000f000f; break;
		case 3: x = (rnd() & 1 ? 0xffffffffull : 0) | (rnd() & 1 ? 0xffffffffull << 32 : 0); break;
		default: x = rnd64(); break;
		}
		memcpy(p + k, &x, 8);
	}
}

static void random_st(uint8_t *st)
{
	uint64_t mantissa = rnd64() | 1ull << 63;
	uint16_t exponent = 0x3fff, sign = (uint16_t)(rnd() << 15);

	switch (rnd() % 10) {
	case 0: exponent = 0; mantissa = 0; break;
	case 1: exponent = 0x7fff; mantissa = 1ull << 63; break;
	case 2: exponent = 0x7fff; break;
	case 3: exponent = 0; mantissa = rnd64() >> 1; break;
	case 4: exponent = (uint16_t)(rnd() & 0x7fff); break;
	case 5:
		exponent = (uint16_t)(0x3fff - 8 + rnd() % 80);
		mantissa &= ~0ull << rnd() % 64;
		mantissa |= 1ull << 63;
		break;
	case 6: mantissa = rnd64(); exponent = (uint16_t)(rnd() & 0x7fff); break; /* perhaps an unnormal */
	case 7: mantissa = 1ull << 63; exponent = (uint16_t)(0x3fff + rnd() % 4 - 2); break;
	case 8: exponent = rnd() & 1 ? 0x7ffe : 1; break;
	default: exponent = (uint16_t)(0x3fff - 64 + rnd() % 128); break;
	}
	put64(st, mantissa);
	put16(st + 8, sign | exponent);
	memset(st + 10, 0, 6);
}

void random_x87(struct machine *m, bool unmasked)
{
	uint16_t cw = (uint16_t)(0x40 | (rnd() & 0xf00)) | (unmasked ? rnd() & 0x3f : 0x3f);
	uint16_t sw = (uint16_t)((rnd() & 0x4700) | (rnd() % 8) << 11);

	if (rnd() & 1)
		sw |= rnd() & 0x7f;
	if (unmasked && rnd() % 8)
		sw &= cw | ~0x3f; /* usually nothing pending */
	memset(m->fx, 0, FX_FOP);
	put16(m->fx + FX_FCW, cw);
	put16(m->fx + FX_FSW, sw);
	m->fx[FX_FTW] = rnd() & 1 ? 0xff : rnd() & 1 ? (uint8_t)rnd() : (uint8_t)(rnd() | rnd() | rnd());
	for (unsigned n = 0; n < 8; n++)
		random_st(m->fx + FX_ST + 16 * n);
	vec_x87_normalize(m->fx);
}

void machine_random(struct machine *m)
{
	memset(m, 0, sizeof(*m));
	for (unsigned n = 0; n < 16; n++) {
		m->gpr[n] = rnd() & 1 ? rnd64() : (uint64_t)(int64_t)(int8_t)rnd();
		random_vector(m->ymm[n], 32);
		if (!host_avx)
			memset(m->ymm[n] + 16, 0, 16);
	}
	m->rflags = 0x202 | (rnd() & FLAGS_ARITH);
	put16(m->fx + FX_FCW, FCW_RESET);
	put32(m->fx + FX_MXCSR,
	      MXCSR_MASKS | (rnd() & 0xe040 & (rnd() & 1 ? ~0u : 0)) | (rnd() & 1 ? rnd() & 0x3f : 0));
	m->fault = -1;
}

/* ---- Comparing ------------------------------------------------------------- */

static void print_difference(const char *what, unsigned n, uint64_t start, uint64_t native, uint64_t soft)
{
	if (native != soft)
		printf("  %s%u: host %lx, soft %lx, before %lx\n", what, n, native, soft, start);
}

void machine_print(const struct machine *start, const struct machine *native, const struct machine *soft)
{
	printf("  MXCSR %x, FCW %x, FSW %x\n", get32(start->fx + FX_MXCSR), get16(start->fx),
	       get16(start->fx + FX_FSW));
	print_difference("exception", 0, (uint64_t)start->fault, (uint64_t)native->fault, (uint64_t)soft->fault);
	print_difference("flags", 0, start->rflags & FLAGS_ARITH, native->rflags & FLAGS_ARITH,
			 soft->rflags & FLAGS_ARITH);
	print_difference("MXCSR", 0, get32(start->fx + FX_MXCSR), get32(native->fx + FX_MXCSR),
			 get32(soft->fx + FX_MXCSR));
	print_difference("FCW, FSW, FTW", 0, get64(start->fx), get64(native->fx), get64(soft->fx));
	for (unsigned n = 0; n < 16; n++) {
		if (n != R_SP)
			print_difference("r", n, start->gpr[n], native->gpr[n], soft->gpr[n]);
		for (unsigned q = 0; q < 4; q++)
			print_difference("quarter of ymm", n * 10 + q, get64(start->ymm[n] + 8 * q),
					 get64(native->ymm[n] + 8 * q), get64(soft->ymm[n] + 8 * q));
		print_difference("half of st", n, get64(start->fx + FX_ST + 8 * n), get64(native->fx + FX_ST + 8 * n),
				 get64(soft->fx + FX_ST + 8 * n));
	}
}

bool machine_same(const struct machine *a, const struct machine *b, uint32_t mxcsr_ignored)
{
	uint64_t flags = FLAGS_ARITH;

	for (unsigned n = 0; n < 16; n++)
		if (n != R_SP && a->gpr[n] != b->gpr[n])
			return false;
	if (a->fault != b->fault || (a->rflags & flags) != (b->rflags & flags))
		return false;
	if (memcmp(a->ymm, b->ymm, sizeof(a->ymm)))
		return false;
	if ((get32(a->fx + FX_MXCSR) ^ get32(b->fx + FX_MXCSR)) & ~mxcsr_ignored)
		return false;
	return !memcmp(a->fx, b->fx, FX_FOP) && !memcmp(a->fx + FX_ST, b->fx + FX_ST, 128);
}

/* ---- The host as reference -------------------------------------------------- */

/* Machine state as the native stub keeps it, at the start of the mapping. */
struct native_page {
	struct machine m;
	uint64_t host_rsp;
	uint32_t host_mxcsr;
	uint8_t code[2048] __attribute__((aligned(64)));
};
static struct native_page *page;
static sigjmp_buf native_jmp;
static volatile sig_atomic_t native_active;
static unsigned at;

static void emit(const char *b, unsigned n)
{
	assert(at + n < sizeof(page->code));
	memcpy(page->code + at, b, n);
	at += n;
}
#define EMIT(s) emit(s, sizeof(s) - 1)

/* rip-relative operand; `after`: bytes of immediate that follow. */
static void emit_rel(const void *target)
{
	int32_t rel = (int32_t)((const uint8_t *)target - (page->code + at + 4));

	emit((const char *)&rel, 4);
}

static void emit_gprs(bool store)
{
	for (unsigned n = 0; n < 16; n++) {
		if (n == R_SP)
			continue;
		emit(n >= 8 ? "\x4c" : "\x48", 1);
		emit(store ? "\x89" : "\x8b", 1);
		emit((char[]){ (char)((n & 7) << 3 | 5) }, 1);
		emit_rel(&page->m.gpr[n]);
	}
}

static void emit_ymms(bool store)
{
	for (unsigned n = 0; n < 16; n++) {
		if (host_avx) {
			emit("\xc5", 1);
			emit(n >= 8 ? "\x7c" : "\xfc", 1);
			emit(store ? "\x11" : "\x10", 1);
		} else {
			if (n >= 8)
				EMIT("\x44");
			EMIT("\x0f");
			emit(store ? "\x11" : "\x10", 1);
		}
		emit((char[]){ (char)((n & 7) << 3 | 5) }, 1);
		emit_rel(page->m.ymm[n]);
	}
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	static const uint8_t order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
					   REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	uint8_t *image = (uint8_t *)uc->uc_mcontext.fpregs;

	if (!native_active)
		abort();
	for (unsigned n = 0; n < 16; n++)
		page->m.gpr[n] = (uint64_t)uc->uc_mcontext.gregs[order[n]];
	page->m.rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	memcpy(page->m.fx, image, 512);
	for (unsigned n = 0; n < 16; n++) {
		memcpy(page->m.ymm[n], image + FX_XMM + 16 * n, 16);
		if (host_avx) {
			/* XSTATE_BV in the frame's header says whether the upper halves are there. */
			if (get64(image + 512) & 4)
				memcpy(page->m.ymm[n] + 16, image + XSAVE_AVX + 16 * n, 16);
			else
				memset(page->m.ymm[n] + 16, 0, 16);
		}
	}
	page->m.fault = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
	siglongjmp(native_jmp, 1);
}

void native_run(struct machine *m, const uint8_t *code, unsigned len)
{
	uint32_t mxcsr = MXCSR_RESET;

	page->m = *m;
	page->m.fault = -1;
	at = 0;
	EMIT("\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57"); /* push rbx rbp r12..r15 */
	EMIT("\x48\x0f\xae\x0d"); emit_rel(page->m.fx);   /* fxrstor64 */
	emit_ymms(false);
	EMIT("\xff\x35"); emit_rel(&page->m.rflags); EMIT("\x9d"); /* push; popfq */
	emit_gprs(false);
	emit((const char *)code, len);
	emit_gprs(true);
	EMIT("\x9c\x8f\x05"); emit_rel(&page->m.rflags);
	emit_ymms(true);
	EMIT("\x48\x0f\xae\x05"); emit_rel(page->m.fx);
	EMIT("\xdb\xe3");
	if (host_avx)
		EMIT("\xc5\xf8\x77");
	EMIT("\x0f\xae\x15"); emit_rel(&page->host_mxcsr);
	EMIT("\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3");
	page->host_mxcsr = mxcsr;

	if (sigsetjmp(native_jmp, 1) == 0) {
		native_active = 1;
		((void (*)(void))(void *)page->code)();
	} else {
		asm volatile("fnclex; fninit; cld; ldmxcsr %0" : : "m"(mxcsr));
	}
	native_active = 0;
	*m = page->m;
}

/* ---- Stand-ins for the rest of the engine ------------------------------------ */

static jmp_buf raise_jmp;
static int raised;
static uint64_t raised_linear;

void native_vec_home(struct soft_vcpu *v)
{
	abort(); /* nothing runs natively here */
}

void soft_raise(struct soft_vcpu *v, int vector, uint32_t error)
{
	raised = vector;
	longjmp(raise_jmp, 1);
}

void soft_raise_pf(struct soft_vcpu *v, uint64_t linear, uint32_t error)
{
	raised_linear = linear;
	soft_raise(v, EXC_PF, error);
}

static void mmu_check(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
	unsigned align = size == 10 ? 8 : size <= 8 && !(size & (size - 1)) ? size : 1;

	if (v->ac_check && linear & (align - 1))
		soft_raise(v, EXC_AC, 0);
	/* As if device memory had been reached and foreign code run. */
	if (rnd() & 1)
		vec_sync(v);
	if (mmu_fail_after >= 0 && mmu_fail_after-- == 0)
		soft_raise_pf(v, linear, 0);
	if (linear < (uintptr_t)mem)
		soft_raise_pf(v, linear, 0);
	if (linear + size > (uintptr_t)mem + MEM_SIZE)
		soft_raise_pf(v, linear, 0);
}

void mmu_read(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack)
{
	assert(size >= 1 && size <= 64);
	mmu_check(v, linear, size);
	memcpy(data, (const void *)linear, size);
}

void mmu_write(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	assert(size >= 1 && size <= 64);
	mmu_check(v, linear, size);
	memcpy((void *)linear, data, size);
}

void mmu_probe_write(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	mmu_check(v, linear, size);
}

void mmu_probe_read(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	mmu_check(v, linear, size);
}

uint64_t seg_linear_slow(struct soft_vcpu *v, unsigned seg, uint64_t off, unsigned size, enum mmu_access acc)
{
	return (uint32_t)off;
}

void page_written(struct soft_engine *e, uint64_t gpa, unsigned size)
{
	written_calls++;
	written_gpa = gpa;
	written_size = size;
}

void *mmu_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, enum mmu_access acc, bool stack, uint64_t *gpa)
{
	return NULL;
}

/* ---- The vector unit --------------------------------------------------------- */

void tlb_fill(bool on)
{
	for (unsigned n = 0; n < TLB_SIZE; n++)
		cpu->tlb_now[n] = (struct tlb_entry){ TLB_NONE, TLB_NONE, 0, 0 };
	for (uint64_t p = (uintptr_t)mem; on && p < (uintptr_t)mem + MEM_SIZE; p += 4096)
		*tlb_at(cpu, p) = (struct tlb_entry){ p, p, 0, p | 0x123 };
}

void harness_arm(void)
{
	static const int signals[] = { SIGILL, SIGFPE, SIGSEGV, SIGBUS };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	static uint8_t stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };

	sigaltstack(&ss, NULL);
	for (unsigned n = 0; n < 4; n++)
		sigaction(signals[n], &sa, NULL);
}

void harness_init(void)
{
	uint8_t *area;
	struct err err = ERR_INIT;

	host_avx = vec_offers(VEC_AVX);
	host_avx2 = vec_offers(VEC_AVX2);
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(page != MAP_FAILED);
	area = mmap(NULL, MEM_SIZE + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	assert(area != MAP_FAILED);
	mem = area + 4096;
	mprotect(mem, MEM_SIZE, PROT_READ | PROT_WRITE);

	cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~63ull);
	memset(cpu, 0, sizeof(*cpu));
	cpu->engine = &engine;
	cpu->tlb_now = cpu->tlb[0];
	cpu->page_flags = engine.page_flags = malloc(1u << 20);
	memset(cpu->page_flags, PAGE_HAS_CODE, 1u << 20);
	if (vec_engine_init(&engine, &err) < 0) {
		fprintf(stderr, "%s\n", err_msg(&err));
		abort();
	}
	vec_vcpu_init(cpu);
}

void cpu_from_machine(const struct machine *m)
{
	uint8_t area[CPU_XSAVE_SIZE] __attribute__((aligned(64))) = { 0 };

	memcpy(cpu->gpr, m->gpr, sizeof(m->gpr));
	cpu->gpr[REG_ZERO] = 0;
	cpu->rflags = m->rflags;
	cpu->cr0 = CR0_PE | CR0_MP | 0x20;
	cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	cpu->xcr0 = vec_xcr0_mask();
	cpu->seg_flat = 0x3f;
	memcpy(area, m->fx, 160);
	for (unsigned n = 0; n < 16; n++) {
		memcpy(area + FX_XMM + 16 * n, m->ymm[n], 16);
		memcpy(area + XSAVE_AVX + 16 * n, m->ymm[n] + 16, 16);
	}
	area[XSAVE_HEADER] = (uint8_t)vec_xcr0_mask();
	vec_set(cpu, area);
}

void cpu_to_machine(struct machine *m)
{
	uint8_t area[CPU_XSAVE_SIZE] __attribute__((aligned(64)));

	vec_get(cpu, area);
	memcpy(m->gpr, cpu->gpr, sizeof(m->gpr));
	m->rflags = cpu->rflags;
	memcpy(m->fx, area, 160);
	for (unsigned n = 0; n < 16; n++) {
		memcpy(m->ymm[n], area + FX_XMM + 16 * n, 16);
		memcpy(m->ymm[n] + 16, area + XSAVE_AVX + 16 * n, 16);
	}
}

bool bind(struct insn *i, const uint8_t *code, unsigned len, unsigned mode)
{
	if (insn_decode(i, code, len, mode) != DECODE_OK || i->len != len)
		return false;
	return vec_bind(&engine, i);
}

int run_bound(const struct insn *i)
{
	raised = -1;
	cpu->mode = i->mode;
	cpu->rip = 0x1234567;
	cpu->next_rip = cpu->rip + i->len;
	if (setjmp(raise_jmp) == 0)
		i->fn(cpu, i);
	return raised;
}

void soft_run_one(struct machine *m, const uint8_t *code, unsigned len, unsigned mode, bool tlb)
{
	struct insn i;

	cpu_from_machine(m);
	tlb_fill(tlb);
	if (!bind(&i, code, len, mode)) {
		m->fault = EXC_UD;
		return;
	}
	m->fault = run_bound(&i);
	cpu_to_machine(m);
}

/* ---- Encoding ---------------------------------------------------------------- */

unsigned encode(uint8_t *out, const struct encoding *e)
{
	static const uint8_t prefix[4] = { 0, 0x66, 0xf3, 0xf2 };
	unsigned n = 0, r = e->reg >> 3 & 1, b = e->rm >> 3 & 1, x = e->mem && e->index >= 8;

	if (e->vex) {
		if (e->map == MAP_0F && !e->w && !x && !b) {
			out[n++] = 0xc5;
			out[n++] = (uint8_t)(!r << 7 | (~e->vvvv & 15) << 3 | e->l << 2 | e->pp);
		} else {
			out[n++] = 0xc4;
			out[n++] = (uint8_t)(!r << 7 | !x << 6 | !b << 5 | e->map);
			out[n++] = (uint8_t)(e->w << 7 | (~e->vvvv & 15) << 3 | e->l << 2 | e->pp);
		}
	} else {
		uint8_t rex = (uint8_t)(e->w << 3 | r << 2 | x << 1 | b);

		if (e->pp)
			out[n++] = prefix[e->pp];
		if (rex)
			out[n++] = 0x40 | rex;
		if (e->map != MAP_1B)
			out[n++] = 0x0f;
		if (e->map == MAP_0F38)
			out[n++] = 0x38;
		if (e->map == MAP_0F3A)
			out[n++] = 0x3a;
	}
	out[n++] = e->opcode;
	if (!e->mem) {
		out[n++] = (uint8_t)(0xc0 | (e->reg & 7) << 3 | (e->rm & 7));
	} else {
		bool sib = e->index >= 0 || (e->rm & 7) == 4;

		out[n++] = (uint8_t)(0x80 | (e->reg & 7) << 3 | (sib ? 4 : e->rm & 7));
		if (sib)
			out[n++] = (uint8_t)(e->scale << 6 | ((e->index >= 0 ? e->index & 7 : 4) << 3) | (e->rm & 7));
		memcpy(out + n, &e->disp, 4);
		n += 4;
	}
	if (e->imm >= 0)
		out[n++] = (uint8_t)e->imm;
	return n;
}
