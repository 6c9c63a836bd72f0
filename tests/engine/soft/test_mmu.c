/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The MMU: paging modes, rights against a rule table written from the SDM,
 * error codes, accessed and dirty, flushes, page crossings, device memory.
 */
#include "soft_rig.h"

/* Entry bits, by their SDM names. */
#define P 1ull
#define RW 2ull
#define US 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define XD (1ull << 63)

#define DATA 0x400000ull  /* physical page that tests map */
#define DATA2 0x600000ull
#define LINEAR 0x12345000ull

static int setup(void **state)
{
	*state = rig_new(1);
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

/* Four-level tables at 0x1000: one path for `linear`, entries of all rights. Returns the leaf entry's address. */
static uint64_t path_long(struct rig *r, uint64_t linear, uint64_t leaf)
{
	*rig_q(r, 0x1000 + (linear >> 39 & 511) * 8) = 0x2000 | P | RW | US;
	*rig_q(r, 0x2000 + (linear >> 30 & 511) * 8) = 0x3000 | P | RW | US;
	*rig_q(r, 0x3000 + (linear >> 21 & 511) * 8) = 0x4000 | P | RW | US;
	*rig_q(r, 0x4000 + (linear >> 12 & 511) * 8) = leaf;
	return 0x4000 + (linear >> 12 & 511) * 8;
}

static void expect_mapped(struct rig *r, uint64_t linear, uint64_t gpa)
{
	uint64_t got, where = 0, value = 0x1122334455667788ull ^ gpa;
	struct rig_fault f;

	memcpy(r->ram + gpa, &value, 8);
	assert_true(vcpu_translate(r->vcpu[0], linear, &where));
	assert_int_equal(where, gpa);
	f = rig_access(r->v, ACC_READ, linear, &got, 8);
	assert_int_equal(f.vector, -1);
	assert_int_equal(got, value);
	got = ~value;
	f = rig_access(r->v, ACC_WRITE, linear, &got, 8);
	assert_int_equal(f.vector, -1);
	assert_int_equal(*rig_q(r, gpa), ~value);
	/* Now from the first level. */
	assert_int_equal(rig_ld(r->v, linear, 8), ~value);
}

static void expect_pf(struct rig *r, enum mmu_access acc, uint64_t linear, uint32_t error)
{
	uint8_t data[8] = {0};
	struct rig_fault f = rig_access(r->v, acc, linear, data, 1);

	assert_int_equal(f.vector, EXC_PF);
	assert_int_equal(f.address, linear);
	assert_int_equal(f.error, error);
}

/* ---- Modes --------------------------------------------------------------- */

static void no_paging(void **state)
{
	struct rig *r = *state;

	rig_mode(r->v, RIG_NONE, 0, 0, 0);
	expect_mapped(r, 0x1008, 0x1008);
	expect_mapped(r, DATA + 0x120, DATA + 0x120);
}

static void paging_32(void **state)
{
	struct rig *r = *state;
	uint32_t linear = 0xc0345678;

	*rig_d(r, 0x1000 + (linear >> 22) * 4) = 0x2000 | P | RW;
	*rig_d(r, 0x2000 + (linear >> 12 & 1023) * 4) = DATA | P | RW;
	rig_mode(r->v, RIG_32, 0x1000, 0, 0);
	expect_mapped(r, linear, DATA + 0x678);
	expect_pf(r, ACC_READ, linear ^ 0x1000, 0);
	expect_pf(r, ACC_WRITE, linear ^ 0x10000000, 2);

	/* PS counts only with CR4.PSE. */
	*rig_d(r, 0x1004) = DATA | P | RW | PS;
	*rig_d(r, DATA + 4 * 5) = DATA2 | P | RW;
	mmu_flush_all(r->v);
	expect_mapped(r, 0x405010, DATA2 + 0x10);
	rig_mode(r->v, RIG_32, 0x1000, CR4_PSE, 0);
	expect_mapped(r, 0x5a7010, DATA + 0x1a7010);
}

/* PSE-36: bits 20:13 are address bits 39:32, 21 is reserved with 40 bits. */
static void paging_pse36(void **state)
{
	struct rig *r = *state;
	uint64_t gpa = 0x4400000000ull, where;
	uint8_t *page = mmap(NULL, 0x400000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t got;

	assert_int_equal(engine_map(r->engine, gpa, 0x400000, page, false, NULL), 0);
	memcpy(page + 0x1234, "pse36!!", 8);
	*rig_d(r, 0x1008) = 0x44 << 13 | P | RW | PS;
	rig_mode(r->v, RIG_32, 0x1000, CR4_PSE, 0);
	assert_int_equal(rig_access(r->v, ACC_READ, 0x801234, &got, 8).vector, -1);
	assert_memory_equal(&got, "pse36!!", 8);
	assert_true(vcpu_translate(r->vcpu[0], 0x801234, &where));
	assert_int_equal(where, gpa + 0x1234);
	*rig_d(r, 0x1008) |= 1 << 21;
	mmu_flush_all(r->v);
	expect_pf(r, ACC_READ, 0x801234, PF_P | PF_RSVD);
	assert_int_equal(engine_unmap(r->engine, gpa, 0x400000, NULL), 0);
	munmap(page, 0x400000);
}

static void set_cr3(struct soft_vcpu *v, void *arg)
{
	mmu_set_cr3(v, *(uint64_t *)arg);
}

static void paging_pae(void **state)
{
	struct rig *r = *state;
	uint32_t linear = 0xc0345678;
	uint64_t cr3 = 0x1020;

	*rig_q(r, 0x1020 + 3 * 8) = 0x2000 | P;
	*rig_q(r, 0x2000 + (linear >> 21 & 511) * 8) = 0x3000 | P | RW;
	*rig_q(r, 0x3000 + (linear >> 12 & 511) * 8) = DATA | P | RW;
	*rig_q(r, 0x2000) = DATA2 | P | RW | PS;
	rig_mode(r->v, RIG_PAE, 0x1020, 0, EFER_NXE);
	expect_mapped(r, linear, DATA + 0x678);
	expect_mapped(r, 0xc0123458, DATA2 + 0x123458);
	expect_pf(r, ACC_READ, 0x1000, 0);

	/* The PDPTEs are registers: changing the table does nothing until CR3 is loaded. */
	*rig_q(r, 0x1020) = 0x2000 | P;
	mmu_flush_all(r->v);
	expect_pf(r, ACC_READ, 0x1000, 0);
	assert_int_equal(rig_call(r->v, set_cr3, &cr3).vector, -1);
	expect_mapped(r, 0x1000, DATA2 + 0x1000);
	/* Reserved bits: #GP, and CR3 stays. */
	*rig_q(r, 0x5000) = 0x2000 | P | RW;
	cr3 = 0x5000;
	assert_int_equal(rig_call(r->v, set_cr3, &cr3).vector, EXC_GP);
	assert_int_equal(r->v->cr3, 0x1020);
	expect_mapped(r, 0x1000, DATA2 + 0x1000);
	/* Not present: anything goes. */
	*rig_q(r, 0x5000) = ~1ull;
	assert_int_equal(rig_call(r->v, set_cr3, &cr3).vector, -1);
}

static void paging_long(void **state)
{
	struct rig *r = *state;
	uint64_t high = 0xffff888012345678ull;

	path_long(r, high, DATA | P | RW);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, EFER_NXE);
	expect_mapped(r, high, DATA + 0x678);
	*rig_q(r, 0x3000 + 8 * 7) = DATA2 | P | RW | PS;
	*rig_q(r, 0x2000 + 8 * 9) = 0 | P | RW | PS;
	*rig_q(r, 0x1000) = 0x2000 | P | RW;
	*rig_q(r, 0x2000) = 0x3000 | P | RW;
	mmu_flush_all(r->v);
	expect_mapped(r, 0xe12348, DATA2 + 0x12348);
	expect_mapped(r, 0x240000000ull + DATA + 8, DATA + 8);
	/* A table outside RAM reads as ones: reserved. */
	*rig_q(r, 0x1000) = 0x80000000ull | P | RW;
	mmu_flush_all(r->v);
	expect_pf(r, ACC_READ, 0xe12348, PF_P | PF_RSVD);
	expect_pf(r, ACC_READ, 0x8000000000ull, 0);
}

/* ---- Rights -------------------------------------------------------------- */

struct rights_case {
	uint64_t upper, leaf; /* RW, US, XD of a directory entry and of the page's */
	unsigned cpl;
	bool wp, smep, smap, ac, nxe;
	enum mmu_access acc;
	bool sys;
};

/* SDM vol. 3 §4.6.1, sentence by sentence. */
static bool rule_allows(const struct rights_case *c)
{
	bool user_address = c->upper & US && c->leaf & US;
	bool writable = c->upper & RW && c->leaf & RW;
	bool no_exec = c->nxe && (c->upper | c->leaf) & XD;
	bool user_access = c->cpl == 3 && !c->sys;

	if (user_access) {
		/* "Access rights for user-mode accesses" */
		if (!user_address)
			return false; /* "may not be read / written / fetched" */
		if (c->acc == ACC_READ)
			return true;
		if (c->acc == ACC_FETCH)
			return !no_exec;
		return writable;
	}
	switch (c->acc) {
	case ACC_READ:
		if (!user_address)
			return true; /* "Data may be read from any supervisor-mode address" */
		if (!c->smap)
			return true;
		return c->ac && !c->sys && c->cpl < 3; /* explicit access with EFLAGS.AC */
	case ACC_WRITE:
	case ACC_RMW:
		if (user_address && c->smap && !(c->ac && !c->sys && c->cpl < 3))
			return false;
		return writable || !c->wp;
	case ACC_FETCH:
		if (user_address && c->smep)
			return false;
		return !no_exec;
	}
	return false;
}

static uint32_t rule_error(const struct rights_case *c)
{
	uint32_t error = 1;

	if (c->acc == ACC_WRITE || c->acc == ACC_RMW)
		error |= 2;
	if (c->cpl == 3 && !c->sys)
		error |= 4;
	if (c->acc == ACC_FETCH && (c->smep || c->nxe))
		error |= 16;
	return error;
}

static void check_rights(struct rig *r, const struct rights_case *c, bool warm)
{
	struct soft_vcpu *v = r->v;
	struct rig_access a = { .linear = LINEAR, .size = 1, .acc = c->acc, .sys = c->sys };
	uint8_t byte = 0;
	struct rig_fault f;

	*rig_q(r, 0x3000 + (LINEAR >> 21 & 511) * 8) = 0x4000 | P | c->upper;
	*rig_q(r, 0x4000 + (LINEAR >> 12 & 511) * 8) = DATA | P | c->leaf;
	v->cr0 = (v->cr0 & ~(uint64_t)CR0_WP) | (c->wp ? CR0_WP : 0);
	v->cr4 = CR4_PAE | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0);
	v->efer = EFER_LME | EFER_LMA | (c->nxe ? EFER_NXE : 0);
	v->rflags = 2 | (c->ac ? FL_AC : 0);
	rig_cpl(v, c->cpl);
	mmu_mode_changed(v);
	mmu_flush_all(v);
	a.data = &byte;
	if (warm) {
		/* Something else has filled both levels before: a supervisor's read. */
		struct rig_access first = { .linear = LINEAR, .data = &byte, .size = 1, .acc = ACC_READ, .sys = true };

		rig_call(v, rig_do_access, &first);
	}
	f = rig_call(v, rig_do_access, &a);
	if (rule_allows(c)) {
		if (f.vector != -1)
			fail_msg("refused: upper %llx leaf %llx cpl %u wp %d smep %d smap %d ac %d nxe %d acc %d sys %d",
				 (long long)c->upper, (long long)c->leaf, c->cpl, c->wp, c->smep, c->smap, c->ac, c->nxe,
				 c->acc, c->sys);
		return;
	}
	if (f.vector != EXC_PF || f.error != rule_error(c) || f.address != LINEAR)
		fail_msg("vector %d error %x: upper %llx leaf %llx cpl %u wp %d smep %d smap %d ac %d nxe %d acc %d sys %d",
			 f.vector, f.error, (long long)c->upper, (long long)c->leaf, c->cpl, c->wp, c->smep, c->smap, c->ac,
			 c->nxe, c->acc, c->sys);
}

static void rights(void **state)
{
	struct rig *r = *state;
	unsigned n = 0;

	path_long(r, LINEAR, DATA | P);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, EFER_NXE);
	for (unsigned bits = 0; bits < 1 << 12; bits++) {
		for (unsigned acc = 0; acc < 4; acc++) {
			for (unsigned who = 0; who < 3; who++) {
				struct rights_case c = {
					.upper = (bits & 1 ? RW : 0) | (bits & 2 ? US : 0) | (bits & 4 ? XD : 0),
					.leaf = (bits & 8 ? RW : 0) | (bits & 16 ? US : 0) | (bits & 32 ? XD : 0),
					.wp = bits & 64, .smep = bits & 128, .smap = bits & 256, .ac = bits & 512,
					.nxe = bits & 1024, .acc = acc, .cpl = who == 0 ? 0 : 3, .sys = who == 2,
				};

				if (!c.nxe && (c.upper | c.leaf) & XD)
					continue; /* a reserved bit then */
				if (c.sys && acc > ACC_WRITE)
					continue;
				check_rights(r, &c, bits & 2048);
				n++;
			}
		}
	}
	assert_true(n > 10000);
}

/* The fast path must have what the slow one would give: views are filled for their own privilege only. */
static void views_keep_apart(void **state)
{
	struct rig *r = *state;
	struct soft_vcpu *v = r->v;
	uint8_t byte;

	path_long(r, LINEAR, DATA | P | RW);
	rig_mode(v, RIG_LONG, 0x1000, CR4_SMAP, EFER_NXE);
	rig_access(v, ACC_WRITE, LINEAR, &byte, 1);
	assert_int_equal(tlb_at(v, LINEAR)->wtag, LINEAR);
	rig_cpl(v, 3);
	assert_true(tlb_at(v, LINEAR)->rtag != LINEAR);
	/* A read alone gives no right to write: the dirty bit must be set by a write. */
	path_long(r, LINEAR, DATA | P | RW | US);
	mmu_flush_all(v);
	rig_access(v, ACC_READ, LINEAR, &byte, 1);
	assert_int_equal(tlb_at(v, LINEAR)->rtag, LINEAR);
	assert_true(tlb_at(v, LINEAR)->wtag != LINEAR);
	/* The supervisor with SMAP has its own; with AC again its own. */
	rig_cpl(v, 0);
	assert_true(tlb_at(v, LINEAR)->rtag != LINEAR);
	v->rflags |= FL_AC;
	soft_update_mode(v);
	assert_int_equal(rig_access(v, ACC_READ, LINEAR, &byte, 1).vector, -1);
	v->rflags &= ~(uint64_t)FL_AC;
	soft_update_mode(v);
	assert_int_equal(rig_access(v, ACC_READ, LINEAR, &byte, 1).vector, EXC_PF);
}

static void reserved_bits(void **state)
{
	struct rig *r = *state;
	const uint64_t tables[] = { 0x1000, 0x2000, 0x3000, 0x4000 };
	const unsigned shifts[] = { 39, 30, 21, 12 };

	for (unsigned level = 0; level < 4; level++) {
		uint64_t *entry = rig_q(r, tables[level] + (LINEAR >> shifts[level] & 511) * 8);

		for (unsigned bit = 0; bit < 64; bit++) {
			bool beyond = bit >= 40 && bit < 52, nx = bit == 63, bad_ps = bit == 7 && level == 0;

			path_long(r, LINEAR, DATA | P | RW | US);
			*entry |= 1ull << bit;
			if (level && level < 3 && bit == 7)
				continue;
			rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
			if (beyond || nx || bad_ps)
				expect_pf(r, ACC_WRITE, LINEAR, PF_P | PF_RSVD | PF_W);
			else if (bit < 12 || bit > 51)
				assert_int_equal(rig_access(r->v, ACC_WRITE, LINEAR, &(uint8_t){1}, 1).vector, -1);
		}
	}
	/* Large pages: bits between PAT and the frame. */
	for (unsigned bit = 13; bit < 30; bit++) {
		path_long(r, LINEAR, 0);
		*rig_q(r, 0x2000 + (LINEAR >> 30 & 511) * 8) = P | RW | US | PS | 1ull << bit;
		rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
		expect_pf(r, ACC_READ, LINEAR, PF_P | PF_RSVD);
		path_long(r, LINEAR, 0);
		*rig_q(r, 0x3000 + (LINEAR >> 21 & 511) * 8) = P | RW | US | PS | 1ull << bit;
		rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
		if (bit < 21)
			expect_pf(r, ACC_READ, LINEAR, PF_P | PF_RSVD);
	}
}

/* ---- Accessed and dirty -------------------------------------------------- */

static void accessed_dirty(void **state)
{
	struct rig *r = *state;
	uint64_t leaf = path_long(r, LINEAR, DATA | P | US);
	uint64_t *pml4e = rig_q(r, 0x1000), *pdpte = rig_q(r, 0x2000), *pde = rig_q(r, 0x3000 + (LINEAR >> 21 & 511) * 8);
	uint8_t byte = 0;

	rig_mode(r->v, RIG_LONG, 0x1000, 0, EFER_NXE);
	/* A write that faults leaves the page clean. */
	expect_pf(r, ACC_WRITE, LINEAR, PF_P | PF_W);
	assert_int_equal(*rig_q(r, leaf) & (A | D), 0);
	rig_access(r->v, ACC_READ, LINEAR, &byte, 1);
	assert_int_equal(*rig_q(r, leaf) & (A | D), A);
	assert_int_equal(*pml4e & (A | D), A);
	assert_int_equal(*pdpte & (A | D), A);
	assert_int_equal(*pde & (A | D), A);
	*rig_q(r, leaf) |= RW;
	rig_access(r->v, ACC_WRITE, LINEAR, &byte, 1);
	assert_int_equal(*rig_q(r, leaf) & (A | D), A | D);
	assert_int_equal(*pde & D, 0);
	/* 32-bit entries, a large one. */
	memset(r->ram + 0x1000, 0, 0x4000);
	*rig_d(r, 0x1000 + (LINEAR >> 22) * 4) = DATA | P | RW | PS;
	rig_mode(r->v, RIG_32, 0x1000, CR4_PSE, 0);
	rig_access(r->v, ACC_READ, LINEAR, &byte, 1);
	assert_int_equal(*rig_d(r, 0x1000 + (LINEAR >> 22) * 4), DATA | P | RW | PS | A);
	rig_access(r->v, ACC_RMW, LINEAR, &byte, 1);
	assert_int_equal(*rig_d(r, 0x1000 + (LINEAR >> 22) * 4), DATA | P | RW | PS | A | D);
}

/* ---- Flushes ------------------------------------------------------------- */

/* Which of two frames `linear` reads from; the frames hold their own number. */
static unsigned frame_seen(struct rig *r, uint64_t linear)
{
	return rig_ld(r->v, linear, 1);
}

static void frames(struct rig *r)
{
	memset(r->ram + DATA, 1, 4096);
	memset(r->ram + DATA2, 2, 4096);
}

static void flushes(void **state)
{
	struct rig *r = *state;
	struct soft_vcpu *v = r->v;
	uint64_t cr3 = 0x1000, leaf;

	frames(r);
	leaf = path_long(r, LINEAR, DATA | P | RW);
	rig_mode(v, RIG_LONG, 0x1000, CR4_PGE, EFER_NXE);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	*rig_q(r, leaf) = DATA2 | P | RW;
	assert_int_equal(frame_seen(r, LINEAR), 1); /* a TLB that is none would fail here */
	mmu_flush_page(v, LINEAR + 0x123);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	*rig_q(r, leaf) = DATA | P | RW;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	/* Global pages outlive CR3, not CR4.PGE, INVLPG or INVPCID of everything. */
	*rig_q(r, leaf) = DATA | P | RW | G;
	mmu_flush_page(v, LINEAR);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	*rig_q(r, leaf) = DATA2 | P | RW | G;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	mmu_invpcid(v, 3, 0, 0);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	mmu_invpcid(v, 1, 0, 0);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	v->cr4 &= ~(uint64_t)CR4_PGE;
	mmu_mode_changed(v);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	v->cr4 |= CR4_PGE;
	mmu_mode_changed(v);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	*rig_q(r, leaf) = DATA | P | RW | G;
	mmu_invpcid(v, 2, 0, 0);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	*rig_q(r, leaf) = DATA2 | P | RW | G;
	mmu_flush_page(v, LINEAR);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	/* Without CR4.PGE the bit means nothing. */
	v->cr4 &= ~(uint64_t)CR4_PGE;
	mmu_mode_changed(v);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	*rig_q(r, leaf) = DATA | P | RW | G;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 1);
}

/* INVLPG of any address of a large page drops all of it. */
static void flush_large(void **state)
{
	struct rig *r = *state;
	uint64_t *pde;

	frames(r);
	memset(r->ram + DATA + 0x5000, 3, 4096);
	memset(r->ram + DATA2 + 0x5000, 4, 4096);
	path_long(r, LINEAR, 0);
	pde = rig_q(r, 0x3000 + (LINEAR >> 21 & 511) * 8);
	*pde = DATA | P | RW | PS;
	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	assert_int_equal(frame_seen(r, LINEAR & ~0x1fffffull), 1);
	assert_int_equal(frame_seen(r, (LINEAR & ~0x1fffffull) + 0x5000), 3);
	*pde = DATA2 | P | RW | PS;
	mmu_flush_page(r->v, (LINEAR & ~0x1fffffull) + 0x123456);
	assert_int_equal(frame_seen(r, LINEAR & ~0x1fffffull), 2);
	assert_int_equal(frame_seen(r, (LINEAR & ~0x1fffffull) + 0x5000), 4);
	/* 1 GiB */
	path_long(r, LINEAR, 0);
	*rig_q(r, 0x2000) = 0 | P | RW | PS;
	mmu_flush_all(r->v);
	*rig_q(r, 0) = 5;
	assert_int_equal(frame_seen(r, DATA), 1);
	*rig_q(r, 0x2000) = 0x3000 | P | RW;
	*rig_q(r, 0x3000 + 8 * (DATA >> 21)) = DATA2 | P | RW | PS;
	mmu_flush_page(r->v, 0x3f000000);
	assert_int_equal(frame_seen(r, DATA), 2);
	/* 4 MiB, the other half of it named; then the neighbour that must stay cached */
	*rig_d(r, 0x1004) = DATA | P | RW | PS;
	*rig_d(r, 0x1008) = DATA | P | RW | PS;
	rig_mode(r->v, RIG_32, 0x1000, CR4_PSE, 0);
	assert_int_equal(frame_seen(r, 0x400000), 1);
	assert_int_equal(frame_seen(r, 0x800000), 1);
	*rig_d(r, 0x1004) = 0x1000000 | P | RW | PS;
	*rig_d(r, 0x1008) = 0x1000000 | P | RW | PS;
	mmu_flush_page(r->v, 0x700000);
	assert_int_equal(frame_seen(r, 0x400000), 0);
	assert_int_equal(frame_seen(r, 0x800000), 1);
}

static void pcids(void **state)
{
	struct rig *r = *state;
	struct soft_vcpu *v = r->v;
	const uint64_t no_flush = 1ull << 63;
	uint64_t cr3, leaf, before;

	frames(r);
	leaf = path_long(r, LINEAR, DATA | P | RW);
	rig_mode(v, RIG_LONG, 0x1000, CR4_PCIDE | CR4_PGE, EFER_NXE);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	/* PCID 5 sees the new table; PCID 0, switched back to without a flush, what it saw. */
	*rig_q(r, leaf) = DATA2 | P | RW;
	cr3 = 0x1005;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	cr3 = 0x1000 | no_flush;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(v->cr3, 0x1000);
	before = v->stats.tlb_misses;
	assert_int_equal(frame_seen(r, LINEAR), 1);
	assert_int_equal(v->stats.tlb_misses, before); /* without a walk */
	/* INVPCID of a PCID that is not the current one. */
	*rig_q(r, leaf) = DATA | P | RW;
	cr3 = 0x1005 | no_flush;
	mmu_invpcid(v, 0, 5, LINEAR + 0x10);
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	*rig_q(r, leaf) = DATA2 | P | RW;
	cr3 = 0x1000 | no_flush;
	rig_call(v, set_cr3, &cr3);
	mmu_invpcid(v, 1, 5, 0);
	cr3 = 0x1005 | no_flush;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	/* With a flush. */
	cr3 = 0x1000;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	*rig_q(r, leaf) = DATA | P | RW;
	mmu_invpcid(v, 3, 0, 0);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	cr3 = 0x1005 | no_flush;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 1);
	/* Global: one entry for all PCIDs. */
	*rig_q(r, leaf) = DATA2 | P | RW | G;
	mmu_flush_page(v, LINEAR);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	*rig_q(r, leaf) = DATA | P | RW | G;
	cr3 = 0x1007;
	rig_call(v, set_cr3, &cr3);
	assert_int_equal(frame_seen(r, LINEAR), 2);
	/* Also behind the first level, which another page of the same index takes from it. */
	path_long(r, LINEAR + 0x200000, DATA2 | P | RW);
	cr3 = 0x1009;
	rig_call(v, set_cr3, &cr3);
	frame_seen(r, LINEAR);
	frame_seen(r, LINEAR + 0x200000);
	*rig_q(r, leaf) = DATA | P | RW | G;
	cr3 = 0x100a;
	rig_call(v, set_cr3, &cr3);
	frame_seen(r, LINEAR + 0x200000);
	assert_true(tlb_at(v, LINEAR)->rtag != LINEAR);
	before = v->stats.tlb_misses;
	assert_int_equal(frame_seen(r, LINEAR), 2);
	assert_int_equal(v->stats.tlb_misses, before);
	/* Bit 63 without CR4.PCIDE, and bits past MAXPHYADDR, are #GP. */
	cr3 = 0x1007 | 1ull << 40;
	assert_int_equal(rig_call(v, set_cr3, &cr3).vector, EXC_GP);
	rig_mode(v, RIG_LONG, 0x1000, 0, 0);
	cr3 = 0x1000 | no_flush;
	assert_int_equal(rig_call(v, set_cr3, &cr3).vector, EXC_GP);
}

/* Rights that the tables give since the fill are found; a fault forgets what was cached. */
static void widened(void **state)
{
	struct rig *r = *state;
	uint64_t leaf = path_long(r, LINEAR, DATA | P);
	uint8_t byte = 9;

	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR, &byte, 1).vector, -1);
	*rig_q(r, leaf) |= RW;
	assert_int_equal(rig_access(r->v, ACC_WRITE, LINEAR, &byte, 1).vector, -1);
	*rig_q(r, leaf) = 0;
	mmu_flush_page(r->v, LINEAR);
	expect_pf(r, ACC_READ, LINEAR, 0);
	*rig_q(r, leaf) = DATA | P;
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR, &byte, 1).vector, -1);
}

/* ---- Crossings, devices, checks ------------------------------------------ */

static void crossing(void **state)
{
	struct rig *r = *state;
	uint64_t at = LINEAR + 0xffd, value = 0x0102030405060708ull, got = 0;
	struct rig_fault f;

	path_long(r, LINEAR, DATA | P | RW);
	path_long(r, LINEAR + 0x1000, 0);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	memset(r->ram + DATA, 0xaa, 4096);
	f = rig_access(r->v, ACC_WRITE, at, &value, 8);
	assert_int_equal(f.vector, EXC_PF);
	assert_int_equal(f.address, LINEAR + 0x1000);
	assert_int_equal(r->ram[DATA + 0xffd], 0xaa); /* nothing was written */
	path_long(r, LINEAR + 0x1000, DATA2 | P | RW);
	mmu_flush_all(r->v);
	assert_int_equal(rig_access(r->v, ACC_WRITE, at, &value, 8).vector, -1);
	assert_memory_equal(r->ram + DATA + 0xffd, "\x08\x07\x06", 3);
	assert_memory_equal(r->ram + DATA2, "\x05\x04\x03\x02\x01", 5);
	assert_int_equal(rig_access(r->v, ACC_READ, at, &got, 8).vector, -1);
	assert_int_equal(got, value);
	/* The fast path's tag must not match a crossing access. */
	assert_true(tlb_at(r->v, at)->rtag != ((at + 7) & ~0xfffull));
	/* A host pointer for a crossing access does not exist; its faults do. */
	got = 0x5555;
	assert_int_equal(rig_access(r->v, ACC_RMW, at, &got, 8).vector, -1);
	assert_int_equal(got, 0x5555);
	path_long(r, LINEAR + 0x1000, DATA2 | P);
	mmu_flush_all(r->v);
	f = rig_access(r->v, ACC_RMW, at, &got, 8);
	assert_int_equal(f.vector, EXC_PF);
	assert_int_equal(f.error, PF_P | PF_W);
	/* Outside long mode addresses wrap at 4 GiB. */
	*rig_d(r, 0x1000) = 0x2000 | P | RW;
	*rig_d(r, 0x1ffc) = 0x3000 | P | RW;
	*rig_d(r, 0x2000) = DATA2 | P | RW;
	*rig_d(r, 0x3ffc) = DATA | P | RW;
	rig_mode(r->v, RIG_32, 0x1000, 0, 0);
	assert_int_equal(rig_access(r->v, ACC_WRITE, 0xfffffffe, &value, 4).vector, -1);
	assert_memory_equal(r->ram + DATA + 0xffe, "\x08\x07", 2);
	assert_memory_equal(r->ram + DATA2, "\x06\x05", 2);
}

static void non_canonical(void **state)
{
	struct rig *r = *state;
	struct rig_access a = { .linear = 0x800000000000ull, .size = 8, .acc = ACC_READ, .data = &(uint64_t){0} };

	path_long(r, 0x7fffffffffffull, DATA | P | RW);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	assert_int_equal(rig_call(r->v, rig_do_access, &a).vector, EXC_GP);
	a.stack = true;
	assert_int_equal(rig_call(r->v, rig_do_access, &a).vector, EXC_SS);
	a.linear = 0x7ffffffffff9ull;
	assert_int_equal(rig_call(r->v, rig_do_access, &a).vector, EXC_SS);
	a.linear = 0x7ffffffffff8ull;
	assert_int_equal(rig_call(r->v, rig_do_access, &a).vector, -1);
	a.linear = 0xffff7fffffffffffull;
	a.sys = true;
	assert_int_equal(rig_call(r->v, rig_do_access, &a).vector, EXC_GP);
	assert_false(vcpu_translate(r->vcpu[0], a.linear, &a.linear));
}

static void devices(void **state)
{
	struct rig *r = *state;
	uint64_t value = 0x8877665544332211ull, got = 0;

	path_long(r, LINEAR, DATA | P | RW);
	path_long(r, LINEAR + 0x1000, 0xd0000000 | P | RW);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	assert_int_equal(rig_access(r->v, ACC_WRITE, LINEAR + 0x1010, &value, 4).vector, -1);
	assert_int_equal(r->mmio_gpa, 0xd0000010);
	assert_int_equal(r->mmio_size, 4);
	assert_int_equal(r->mmio_value, 0x44332211);
	r->mmio_answer = 0x1234;
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 0x1020, &got, 2).vector, -1);
	assert_int_equal(got, 0x1234);
	assert_true(tlb_at(r->v, LINEAR + 0x1020)->rtag != LINEAR + 0x1000); /* devices are never filled */
	/* RAM and device in one access: 3 bytes each way. */
	r->mmio_writes = 0;
	assert_int_equal(rig_access(r->v, ACC_WRITE, LINEAR + 0xffb, &value, 8).vector, -1);
	assert_memory_equal(r->ram + DATA + 0xffb, &value, 5);
	assert_int_equal(r->mmio_writes, 2); /* 2 + 1 */
	assert_int_equal(r->mmio_gpa, 0xd0000002);
	assert_int_equal(r->mmio_value, 0x88);
	/* A read-only slot: reads from memory, writes to the device. */
	assert_int_equal(engine_unmap(r->engine, 0, RIG_RAM, NULL), 0);
	assert_int_equal(engine_map(r->engine, 0, DATA, r->ram, false, NULL), 0);
	assert_int_equal(engine_map(r->engine, DATA, 0x1000, r->ram + DATA, true, NULL), 0);
	memcpy(r->ram + DATA + 8, "readonly", 8);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 8, &got, 8).vector, -1);
	assert_memory_equal(&got, "readonly", 8);
	assert_int_equal(rig_access(r->v, ACC_WRITE, LINEAR + 8, &value, 8).vector, -1);
	assert_int_equal(r->mmio_gpa, DATA + 8);
	assert_int_equal(r->mmio_size, 8);
	assert_int_equal(r->mmio_value, value);
	assert_memory_equal(r->ram + DATA + 8, "readonly", 8);
	assert_true(tlb_at(r->v, LINEAR)->wtag != LINEAR);
}

static void alignment(void **state)
{
	struct rig *r = *state;
	uint64_t got;

	path_long(r, LINEAR, DATA | P | RW | US);
	rig_mode(r->v, RIG_LONG, 0x1000, 0, 0);
	r->v->cr0 |= CR0_AM;
	r->v->rflags |= FL_AC;
	rig_cpl(r->v, 3);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 4, &got, 4).vector, -1);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 4, &got, 8).vector, EXC_AC);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 5, &got, 1).vector, -1);
	/* Before the page fault, as measured on hardware. */
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 0x1001, &got, 2).vector, EXC_AC);
	rig_cpl(r->v, 0);
	assert_int_equal(rig_access(r->v, ACC_READ, LINEAR + 5, &got, 4).vector, -1);
}

static void watchpoints(void **state)
{
	struct rig *r = *state;
	struct soft_vcpu *v = r->v;
	uint64_t got = 0;

	path_long(r, LINEAR, DATA | P | RW);
	rig_mode(v, RIG_LONG, 0x1000, 0, 0);
	rig_access(v, ACC_WRITE, LINEAR, &got, 8); /* warm */
	v->dr[0] = LINEAR + 0x10;
	v->dr[1] = LINEAR + 0x20;
	v->dr[7] = 0x400 | 1 | 8 | 1 << 16 | 3 << 18 | 3 << 20 | 2 << 22; /* 0: write, 4 bytes; 1: read or write, 8 bytes */
	soft_update_mode(v);
	rig_access(v, ACC_READ, LINEAR + 0x10, &got, 4);
	assert_int_equal(v->dr6_pending, 0);
	rig_access(v, ACC_WRITE, LINEAR + 0x0c, &got, 4);
	assert_int_equal(v->dr6_pending, 0);
	rig_access(v, ACC_WRITE, LINEAR + 0x0c, &got, 8);
	assert_int_equal(v->dr6_pending, 1);
	assert_true(v->request & REQ_TRAP);
	v->dr6_pending = 0;
	rig_access(v, ACC_WRITE, LINEAR + 0x13, &got, 1);
	assert_int_equal(v->dr6_pending, 1);
	rig_access(v, ACC_READ, LINEAR + 0x27, &got, 1);
	assert_int_equal(v->dr6_pending, 3);
	v->dr6_pending = 0;
	rig_access(v, ACC_READ, LINEAR + 0x28, &got, 1);
	assert_int_equal(v->dr6_pending, 0);
	rig_access(v, ACC_RMW, LINEAR + 0x20, &got, 1);
	assert_int_equal(v->dr6_pending, 2);
}

static void slots(void **state)
{
	struct rig *r = *state;
	struct err err = ERR_INIT;
	uint8_t *page = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(engine_map(r->engine, RIG_RAM - 0x1000, 0x2000, page, false, NULL), -EEXIST);
	assert_int_equal(engine_map(r->engine, 1ull << 40, 0x1000, page, false, &err), -EINVAL);
	assert_int_equal(engine_map(r->engine, (1ull << 40) - 0x1000, 0x2000, page, false, NULL), -EINVAL);
	assert_int_equal(engine_unmap(r->engine, 0, 0x1000, NULL), -ENOENT);
	for (unsigned i = 0; i < SOFT_MAX_SLOTS - 1; i++)
		assert_int_equal(engine_map(r->engine, (1ull << 32) + i * 5 % (SOFT_MAX_SLOTS - 1) * 0x10000, 0x1000, page, false, NULL), 0);
	assert_int_equal(engine_map(r->engine, 1ull << 36, 0x1000, page, false, NULL), -ENOSPC);
	for (unsigned i = 0; i < SOFT_MAX_SLOTS - 1; i++) {
		assert_non_null(soft_slot_find(r->e, (1ull << 32) + i * 0x10000 + 0xfff));
		assert_null(soft_slot_find(r->e, (1ull << 32) + i * 0x10000 + 0x1000));
	}
	for (unsigned i = 0; i < SOFT_MAX_SLOTS - 1; i++)
		assert_int_equal(engine_unmap(r->engine, (1ull << 32) + i * 0x10000, 0x1000, NULL), 0);
	assert_null(soft_slot_find(r->e, 1ull << 32));
	munmap(page, 0x2000);
}

static void dirty_log(void **state)
{
	struct rig *r = *state;
	uint8_t bits[64], byte = 1;

	rig_mode(r->v, RIG_NONE, 0, 0, 0);
	rig_access(r->v, ACC_WRITE, 0x5000, &byte, 1); /* the TLB is warm before the log starts */
	assert_int_equal(engine_dirty_fetch(r->engine, 0, 0x100000, bits, NULL), -ENOENT);
	assert_int_equal(engine_dirty_start(r->engine, NULL), 0);
	rig_access(r->v, ACC_READ, 0x4000, &byte, 1);
	rig_access(r->v, ACC_WRITE, 0x5010, &byte, 1);
	rig_access(r->v, ACC_WRITE, 0x8ffe, &(uint32_t){7}, 4); /* two pages */
	engine_written(r->engine, 0xbfff, 2);
	assert_int_equal(engine_dirty_fetch(r->engine, 0, 0x100000, bits, NULL), 0);
	assert_int_equal(bits[0], 1 << 5);
	assert_int_equal(bits[1], 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4);
	assert_int_equal(bits[2], 0);
	/* Fetching cleared them; a second store to the same page counts again. */
	soft_enter(r->v);
	st(r->v, 0x5020, 1, 8, false);
	soft_leave(r->v);
	assert_int_equal(engine_dirty_fetch(r->engine, 0x5000, 0x3000, bits, NULL), 0);
	assert_int_equal(bits[0], 1);
	assert_int_equal(engine_dirty_fetch(r->engine, 0, RIG_RAM + 0x1000, bits, NULL), -ENOENT);
	assert_int_equal(engine_dirty_stop(r->engine, NULL), 0);
	assert_int_equal(r->e->page_flags[5], 0);
	assert_int_equal(engine_dirty_fetch(r->engine, 0, 0x1000, bits, NULL), -ENOENT);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(no_paging), T(paging_32), T(paging_pse36), T(paging_pae), T(paging_long), T(rights), T(views_keep_apart),
		T(reserved_bits), T(accessed_dirty), T(flushes), T(flush_large), T(pcids), T(widened), T(crossing),
		T(non_canonical), T(devices), T(alignment), T(watchpoints), T(slots), T(dirty_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
