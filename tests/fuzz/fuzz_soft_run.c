/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Any code in any mode on the whole soft engine, twice from the same state: one
 * instruction at a time, and by blocks, links and jump cache. Both must end in
 * the same registers and memory. Memory around the code is full of
 * OUT to port 0xe6 (e6 e6), which is also every exception's handler: it ends
 * the run.
 *
 * Half of the inputs run by blocks on translated code.
 *
 * Input: a mode byte, 16 register bytes, then code.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/trans.h"
#include "util/log.h"

#define RAM 0x80000u
#define CODE 0x10ff0u /* 16 bytes before the end of a page */
#define DATA 0x20000u
#define GDT 0x4000u
#define IDT 0x5000u
#define TABLES 0x8000u
#define MAX_STEPS 400u

static struct engine *engine;
static struct vcpu *vcpu;
static uint8_t *ram;
static bool out_seen;
static unsigned device_accesses;

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
	return 0x5a5a5a5a >> (32 - 8 * size);
}

static void pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	if (port == 0xe6) {
		out_seen = true;
		vcpu_kick(vcpu);
	}
}

/* String instructions over device memory would take for ever. */
static void count_access(void)
{
	if (++device_accesses % 4096 == 0)
		vcpu_kick(vcpu);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	count_access();
	return 0xe6e6e6e6e6e6e6e6ull >> (64 - 8 * size);
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	count_access();
}

static int pic_ack(void *opaque)
{
	return -1;
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
}

static void unmake(void)
{
	vcpu_free(vcpu);
	engine_free(engine);
}

static void make(void)
{
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = 1,
		.host = { NULL, pio_read, pio_write, mmio_read, mmio_write, pic_ack, ioapic_eoi },
	};
	struct err err = ERR_INIT;

	log_set_level(LOG_ERROR);
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	engine = engine_new(&config, &err);
	if (!engine || engine_map(engine, 0, RAM, ram, false, &err) < 0 || !(vcpu = vcpu_new(engine, 0, &err))) {
		fprintf(stderr, "%s\n", err_msg(&err));
		abort();
	}
	trans_set_test(soft_engine(engine), 0, true);
	atexit(unmake);
}

static void put64(unsigned at, uint64_t value)
{
	memcpy(ram + at, &value, 8);
}

/* The same RAM for every run: tables, then the code. */
static void fill_ram(const uint8_t *code, size_t len)
{
	static const uint64_t gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff,
		0x00affb000000ffff, 0x000f9b000000ffff, 0x000089000000ffff | 0x60000000, 0,
	};

	memset(ram, 0xe6, RAM);
	memcpy(ram + GDT, gdt, sizeof(gdt));
	memset(ram + 0x6000, 0, 0x1000); /* TSS: RSP0 and ESP0 below */
	put64(0x6004, 0x3f000);
	for (unsigned i = 0; i < 7; i++)
		put64(0x6024 + 8 * i, 0x3e000);
	/* 64-bit gates, and in the IVT's place the same target */
	for (unsigned v = 0; v < 256; v++) {
		put64(IDT + 16 * v, 0x0000ee0000080000ull | 0x18000 % 0x10000 | 0x1ull << 48);
		put64(IDT + 16 * v + 8, 0);
	}
	memset(ram + TABLES, 0, 0x4000);
	put64(TABLES, (TABLES + 0x1000) | 7);
	put64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
	put64(TABLES + 0x2000, (TABLES + 0x3000) | 7);
	for (unsigned i = 0; i < RAM / 4096; i++)
		put64(TABLES + 0x3000 + 8 * i, i << 12 | (i == 0x23 ? 0 : i == 0x25 ? 1 : i == 0x27 ? 3 : 7));
	memcpy(ram + CODE, code, len);
	engine_written(engine, 0, RAM);
}

static void make_state(struct cpu_state *s, const uint8_t *in)
{
	unsigned mode = in[0] & 3;

	soft_vcpu(vcpu)->xl.threshold = in[0] & 32 ? 0 : UINT16_MAX;
	bool user = in[0] & 4;

	cpu_state_reset(s, 0);
	for (unsigned i = 0; i < 16; i++) {
		uint8_t b = in[1 + i];

		s->gpr[i] = b < 0x40 ? b : b < 0xc0 ? DATA + (b - 0x40) * 0x111 % 0x8000 : (uint64_t)(int8_t)b * 0x1234567;
	}
	s->gpr[R_SP] = 0x2f000 + (in[1] & 0xf8);
	s->rip = CODE;
	s->rflags = 0x2 | (in[0] & 8 ? FL_DF : 0) | (in[0] & 16 ? FL_TF : 0);
	s->gdtr = (struct cpu_table){ .base = GDT, .limit = 79 };
	s->idtr = (struct cpu_table){ .base = IDT, .limit = 0xfff };
	s->tr = (struct cpu_segment){ .base = 0x6000, .limit = 0xfff, .attr = 0x8b, .selector = 0x40 };
	s->cr0 = 0x80050033;
	s->cr4 = 0x406a0 & ~0x40000u;
	s->cr4 |= 0x40000;
	s->efer = 0xd01;
	s->cr3 = TABLES;
	s->xcr0 = vec_xcr0_mask();
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc093, .selector = 0x10 };
	s->seg[SEG_CS] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa09b, .selector = 8 };
	switch (mode) {
	case 1: /* compatibility */
		s->seg[SEG_CS].attr = 0xc09b;
		s->seg[SEG_CS].selector = 0x18;
		break;
	case 2: /* protected, no paging; no IDT fits: exceptions shut down */
		s->seg[SEG_CS].attr = 0xc09b;
		s->cr0 = 0x11;
		s->efer = 0;
		user = false;
		break;
	case 3: /* real */
		for (unsigned i = 0; i < SEG_COUNT; i++)
			s->seg[i] = (struct cpu_segment){ .limit = 0xffff, .attr = 0x93, .base = 0x10000, .selector = 0x1000 };
		s->seg[SEG_CS].attr = 0x9b;
		s->rip = CODE - 0x10000;
		s->gpr[R_SP] = 0x8000;
		s->idtr = (struct cpu_table){ .limit = 0x3ff };
		s->cr0 = 0x10;
		s->efer = 0;
		user = false;
		break;
	}
	if (user) {
		s->seg[SEG_CS].attr |= 0x60;
		s->seg[SEG_SS].attr |= 0x60;
		s->seg[SEG_CS].selector = mode ? 0x23 : 0x33;
		s->seg[SEG_SS].selector = 0x2b;
	}
	for (unsigned i = 0; i < 256; i++)
		s->xsave[160 + i] = in[1 + i % 16] + i;
}

/* What differs between two runs by its nature: time stamps, random numbers, the APIC's timer; how often was asked. */
static bool has_time(const uint8_t *code, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
		if (code[i] == 0x0f && (code[i + 1] == 0x31 || code[i + 1] == 0xc7 || code[i + 1] == 0x01 || code[i + 1] == 0x32 ||
					code[i + 1] == 0x30))
			return true;
	return false;
}

static void forget_time(struct cpu_state *s)
{
	s->tsc = s->tsc_adjust = s->tsc_deadline = 0;
	memset(s->lapic, 0, sizeof(s->lapic));
}

static void differ(const char *what, unsigned where)
{
	fprintf(stderr, "stepping and running differ in %s at 0x%x\n", what, where);
	abort();
}

static void compare(const struct cpu_state *a, const struct cpu_state *b)
{
	const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;

	for (unsigned i = 0; i < sizeof(*a); i++)
		if (x[i] != y[i])
			differ("the state", i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cpu_state start, stepped, run;
	static uint8_t after[RAM];
	enum vcpu_exit exit = VCPU_EXIT_KICK, exit2;
	size_t code_len;

	if (!vcpu)
		make();
	if (len < 18)
		return 0;
	code_len = len - 17 < 200 ? len - 17 : 200;
	make_state(&start, data);

	fill_ram(data + 17, code_len);
	if (vcpu_set_state(vcpu, &start, NULL) < 0)
		abort();
	out_seen = false;
	device_accesses = 0;
	for (unsigned n = 0; n < MAX_STEPS && !out_seen && exit == VCPU_EXIT_KICK; n++)
		vcpu_step(vcpu, 1, &exit, NULL);
	vcpu_get_state(vcpu, &stepped, NULL);
	/* Endless, or asleep: nothing that could be compared. The kick of the last OUT is still due. */
	if ((!out_seen && exit == VCPU_EXIT_KICK) || device_accesses >= 4096 || has_time(data + 17, code_len))
		goto end;
	/* Code that changed is looked at by the directed tests; it may read the clock now. */
	if (memcmp(ram + CODE, data + 17, code_len))
		goto end;
	memcpy(after, ram, RAM);

	fill_ram(data + 17, code_len);
	soft_vcpu(vcpu)->request = 0;
	device_accesses = 0;
	if (vcpu_set_state(vcpu, &start, NULL) < 0)
		abort();
	exit2 = vcpu_run(vcpu, NULL);
	vcpu_get_state(vcpu, &run, NULL);
	if (exit != exit2)
		differ("how they ended", exit2);
	forget_time(&stepped);
	forget_time(&run);
	compare(&stepped, &run);
	for (unsigned i = 0; i < RAM; i++)
		if (after[i] != ram[i])
			differ("memory", i);
end:
	soft_vcpu(vcpu)->request = 0;
	return 0;
}
