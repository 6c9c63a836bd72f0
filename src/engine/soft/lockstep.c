/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/soft/int.h"
#include "engine/soft/lockstep.h"
#include "util/log.h"

/* A stretch is short: REP MOVS stays within two pages a time, XSAVE and the like touch no more. */
#define PAGES 64u
#define OPENED 1024u
#define ATTEMPTS 4

struct lockstep_page {
	uint64_t gpa;
	uint8_t *host;
	uint8_t before[PAGE_BYTES], translated[PAGE_BYTES];
};

/* The vCPU's registers: two pieces of struct soft_vcpu without what other threads write. */
#define PART1 offsetof(struct soft_vcpu, gpr)
#define PART1_END offsetof(struct soft_vcpu, request)
#define PART2 offsetof(struct soft_vcpu, cpl)
#define PART2_END offsetof(struct soft_vcpu, page_flags)
#define PART3 offsetof(struct soft_vcpu, ymm)
#define PART3_END offsetof(struct soft_vcpu, sipi_vector)
#define PART4 offsetof(struct soft_vcpu, borrowed)
#define PART4_END offsetof(struct soft_vcpu, unhalted)
static const struct {
	size_t from, to;
} parts[] = {{PART1, PART1_END}, {PART2, PART2_END}, {PART3, PART3_END}, {PART4, PART4_END}};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

struct registers {
	uint8_t part[PARTS][2048 + 64] __attribute__((aligned(64)));
	uint64_t dr6_pending;
};
_Static_assert(PART1_END - PART1 <= 2048 && PART2_END - PART2 <= 2048 && PART3_END - PART3 <= 2048, "");

enum outcome { OUT_NEXT, OUT_FAULT };
struct lockstep_state {
	struct registers start, translated;
	enum outcome outcome[2];
	bool died;  /* the stretch ended early: its code was written */
	bool early; /* the interpreter stops where the other did, be it within a block; else it has branched there */
	bool other; /* the second guess */
	uint64_t insns;
	uint32_t site;
	enum trans_kind last; /* the interpreter's last instruction */
};

int lockstep_vcpu_init(struct soft_vcpu *v)
{
	struct lockstep *l;

	if (!v->engine->engine.config.lockstep)
		return 0;
	l = v->lockstep = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->page = calloc(PAGES, sizeof(*l->page));
	l->opened = calloc(OPENED, sizeof(struct tlb_entry *));
	l->state = aligned_alloc(64, sizeof(*l->state));
	if (!l->page || !l->opened || !l->state) {
		lockstep_vcpu_free(v);
		return -ENOMEM;
	}
	/* For good: translated code comes out at the end of each block. */
	soft_request(v, REQ_LOCKSTEP);
	return 0;
}

void lockstep_vcpu_free(struct soft_vcpu *v)
{
	struct lockstep *l = v->lockstep;

	if (!l)
		return;
	if (l->stretches)
		log_line(LOG_WARN, "lock-step: vCPU %u: %" PRIu64 " units of code compared, %" PRIu64 " more that can't be done twice, %s",
			 v->vcpu.index, l->stretches - l->not_compared, l->not_compared, l->differences ? "DIFFERENT" : "no difference");
	free(l->page);
	free(l->opened);
	free(l->state);
	free(l);
	v->lockstep = NULL;
}

/* ---- Registers ------------------------------------------------------------ */

static void registers_get(struct soft_vcpu *v, struct registers *r)
{
	vec_sync(v);
	for (unsigned n = 0; n < PARTS; n++)
		memcpy(r->part[n] + parts[n].from % 64, (uint8_t *)v + parts[n].from, parts[n].to - parts[n].from);
	r->dr6_pending = v->dr6_pending;
}

static void registers_set(struct soft_vcpu *v, const struct registers *r)
{
	bool remapped;
	uint64_t was[4] = {v->cr0, v->cr3, v->cr4, v->efer};

	vec_sync(v);
	for (unsigned n = 0; n < PARTS; n++)
		memcpy((uint8_t *)v + parts[n].from, r->part[n] + parts[n].from % 64, parts[n].to - parts[n].from);
	v->dr6_pending = r->dr6_pending;
	remapped = was[0] != v->cr0 || was[1] != v->cr3 || was[2] != v->cr4 || was[3] != v->efer;
	/* The TLB may hold what the tables say no more. */
	if (remapped || v->lockstep->flushed)
		mmu_state_loaded(v);
	v->lockstep->flushed = false;
}

/* The vCPU that a part is of, for looking at its fields. */
static struct soft_vcpu *vcpu_of(const struct registers *r, unsigned part)
{
	return (struct soft_vcpu *)(r->part[part] + parts[part].from % 64 - parts[part].from);
}

/* ---- Memory --------------------------------------------------------------- */

/* Called from translated code: vector registers must stay. */
static general_regs_only void page_copy(uint8_t *to, const uint8_t *from)
{
	size_t n = PAGE_BYTES;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static general_regs_only struct lockstep_page *page_of(struct lockstep *l, uint64_t gpa)
{
	for (unsigned n = 0; n < l->pages; n++)
		if (l->page[n].gpa == gpa)
			return &l->page[n];
	return NULL;
}

general_regs_only void lockstep_page(struct soft_vcpu *v, uint64_t gpa, uint8_t *host)
{
	struct lockstep *l = v->lockstep;
	struct lockstep_page *p;

	if (!l->active || page_of(l, gpa))
		return;
	if (l->pages == PAGES) {
		v->lockstep_touched = true;
		return;
	}
	p = &l->page[l->pages++];
	p->gpa = gpa;
	p->host = host;
	page_copy(p->before, host);
	page_copy(p->translated, host);
}

general_regs_only bool lockstep_open(struct soft_vcpu *v, struct tlb_entry *t, uint64_t gpa)
{
	struct lockstep *l = v->lockstep;

	if (!l->active || l->nopened == OPENED || !page_of(l, gpa & ~PAGE_MASK))
		return false;
	l->opened[l->nopened++] = t;
	return true;
}

void lockstep_walked(struct soft_vcpu *v, uint64_t gpa)
{
	struct lockstep *l = v->lockstep;

	if (l->active && page_of(l, gpa & ~PAGE_MASK))
		v->lockstep_touched = true;
}

static void close_all(struct lockstep *l, struct soft_vcpu *v)
{
	for (unsigned n = 0; n < l->nopened; n++) {
		struct tlb_entry *t = l->opened[n];

		t->wtag = tlb_none((unsigned)((t - v->tlb[0]) % TLB_SIZE));
	}
	l->nopened = l->pages = 0;
	l->active = false;
}

/* Put back what differs, and nothing beside it: devices may write to the page meanwhile. */
static void page_undo(struct soft_vcpu *v, struct lockstep_page *p)
{
	unsigned first = PAGE_BYTES, last = 0;

	if (!memcmp(p->host, p->before, PAGE_BYTES))
		return;
	for (unsigned n = 0; n < PAGE_BYTES; n++)
		if (p->host[n] != p->before[n]) {
			p->host[n] = p->before[n];
			first = first < n ? first : n;
			last = n;
		}
	mmu_written(v, p->gpa + first, last - first + 1);
}

static void memory_undo(struct soft_vcpu *v, bool keep)
{
	struct lockstep *l = v->lockstep;

	for (unsigned n = 0; n < l->pages; n++) {
		if (keep)
			memcpy(l->page[n].translated, l->page[n].host, PAGE_BYTES);
		page_undo(v, &l->page[n]);
	}
}

/* ---- What can't be done twice --------------------------------------------- */

/* Or gives something else the second time. What has effects outside says so by itself, where a stretch comes to it. */
static bool unrepeatable(const struct insn *i)
{
	unsigned reg = i->modrm >> 3 & 7;

	if (i->prefixes & PFX_VEX)
		return false;
	if (i->map == MAP_1B)
		switch (i->opcode) {
		case 0x6c ... 0x6f: case 0xe4 ... 0xe7: case 0xec ... 0xef: /* ports */
		case 0xf4: case 0xfb: /* HLT, STI */
			return true;
		default:
			return false;
		}
	if (i->map != MAP_0F)
		return false;
	switch (i->opcode) {
	case 0x01: return !i->is_mem && i->modrm != 0xd0 && i->modrm != 0xf8; /* VMCALL, RDTSCP, ... */
	case 0x20: case 0x22: return i->reg == 8; /* the APIC's TPR */
	case 0x30: case 0x31: case 0x32: case 0x33: return true; /* MSRs, TSC, PMCs */
	case 0xc7: return reg >= 6 && !i->is_mem; /* RDRAND, RDSEED, RDPID */
	default: return false;
	}
}

static bool repeatable(const struct block *b)
{
	for (unsigned n = 0; n < b->count; n++)
		if (unrepeatable(&b->insn[n]))
			return false;
	return true;
}

/* ---- The two ways --------------------------------------------------------- */

static void translated(struct soft_vcpu *v, struct block *b)
{
	v->lockstep->state->site = trans_run(v, b);
	v->rip = v->next_rip;
}

/* A repeated string instruction may have stopped after some elements, which is the same address as before it. */
static bool strings_differ(const struct soft_vcpu *v, const struct insn *i)
{
	const uint64_t *was = vcpu_of(&v->lockstep->state->translated, 0)->gpr;

	return trans_is_string(i) && i->prefixes & (PFX_F2 | PFX_F3) &&
	       (was[R_CX] != v->gpr[R_CX] || was[R_SI] != v->gpr[R_SI] || was[R_DI] != v->gpr[R_DI]);
}

static enum trans_kind kind_of(const struct insn *i)
{
	struct trans_form f;

	trans_form(i, &f);
	return f.kind;
}

/* As many instructions as the other way counted: it counts whole blocks, too, but may have left the last one early. */
static void interpreted(struct soft_vcpu *v, struct block *b)
{
	struct lockstep_state *s = v->lockstep->state;
	uint64_t until = v->insns + s->insns, rip = v->rip, stop = vcpu_of(&s->translated, 0)->rip;
	unsigned mode = v->mode;

	do {
		const struct insn *i, *end;

		if (!b || !b->n)
			b = block_get(v, rip, mode);
		if (!b)
			break;
		if (!repeatable(b))
			v->lockstep_touched = true;
		i = b->insn;
		end = i + b->count;
		v->insns += b->count;
		do {
			v->rip = rip;
			rip += i->len;
			v->next_rip = rip;
			__atomic_load_n(&i->fn, __ATOMIC_RELAXED)(v, i);
			if (s->early && rip == stop && v->insns >= until && !(i + 1 != end && strings_differ(v, i + 1))) {
				end = i + 1;
				break;
			}
		} while (++i != end);
		s->last = kind_of(end - 1);
		if (unlikely(v->shadow == 1) && b->ends_shadow)
			v->shadow = 0;
		v->rip = rip = v->mode == MODE_64 ? v->next_rip : (v->next_rip = (uint32_t)v->next_rip);
		b = NULL;
	} while (v->insns < until && v->mode == mode);
}

/* Faults land here instead of in the loop. */
static __attribute__((noinline)) enum outcome guarded(struct soft_vcpu *v, struct block *b,
						      void (*way)(struct soft_vcpu *, struct block *))
{
	struct block_state *s = v->blocks;

	if (__builtin_setjmp(v->fault_jmp)) {
		if (v->park->slow_locked)
			soft_unlock_slow(v);
		if (!s->left)
			return OUT_FAULT;
		s->left = false;
		v->rip = v->next_rip;
		v->lockstep->state->died = true;
		return OUT_NEXT;
	}
	way(v, b);
	return OUT_NEXT;
}

/* ---- Comparing ------------------------------------------------------------ */

/* Flags that the block reads for certain before it overwrites them. */
static uint64_t flags_read(const struct block *b)
{
	uint64_t read = 0, overwritten = 0;

	for (unsigned n = 0; n < b->count; n++) {
		struct trans_form f;

		trans_form(&b->insn[n], &f);
		read |= f.reads & ~overwritten;
		overwritten |= f.kills;
	}
	return read;
}

/*
 * Arithmetic flags that nothing reads any more need not be right
 * (docs/translator.md): those of a fault, those that a linked block, found by
 * no exit, overwrites (such a block may have been written just now), and those
 * that the rest of a unit would have overwritten that was left in its middle.
 */
static uint64_t flags_dead(struct soft_vcpu *v)
{
	const struct lockstep_state *s = v->lockstep->state;
	const struct block *next;
	uint64_t gpa;

	if (s->outcome[0] == OUT_FAULT || s->died)
		return v->engine->trans->exact ? 0 : FLAGS_ARITH;
	if (s->site || !mmu_peek(v, v->rip, &gpa))
		return 0;
	next = block_find(v->engine, gpa, BLOCK_ONE_PAGE, v->mode);
	if (!next || next->trans <= TRANS_NEVER || !next->trans_needs_flags)
		return FLAGS_ARITH;
	if (!v->engine->trans->exact && (s->last < K_JCC || s->last == K_CALL))
		return FLAGS_ARITH & ~flags_read(next);
	return 0;
}

static bool state_differs(struct soft_vcpu *v, const struct registers *t)
{
	struct lockstep *l = v->lockstep;
	const struct soft_vcpu *a = vcpu_of(t, 0), *b = vcpu_of(t, 1), *c = vcpu_of(t, 2);
	uint64_t mask = ~flags_dead(v);
	char *d = l->difference;

	for (unsigned n = 0; n < 16; n++)
		if (a->gpr[n] != v->gpr[n])
			return snprintf(d, sizeof(l->difference), "gpr %u is 0x%" PRIx64 " instead of 0x%" PRIx64, n, a->gpr[n], v->gpr[n]);
	if (l->state->outcome[0] != l->state->outcome[1])
		return snprintf(d, sizeof(l->difference), "%s faults (vector %u)", l->state->outcome[0] ? "it" : "only the interpreter",
				l->state->outcome[0] ? c->event.vector : v->event.vector);
	if (a->rip != v->rip)
		return snprintf(d, sizeof(l->difference), "RIP is 0x%" PRIx64 " instead of 0x%" PRIx64, a->rip, v->rip);
	if ((a->rflags ^ v->rflags) & mask)
		return snprintf(d, sizeof(l->difference), "RFLAGS is 0x%" PRIx64 " instead of 0x%" PRIx64, a->rflags, v->rflags);
	if (memcmp(&c->event, &v->event, sizeof(v->event)) && l->state->outcome[0])
		return snprintf(d, sizeof(l->difference), "it faults with vector %u, error 0x%x, address 0x%" PRIx64
				" instead of %u, 0x%x, 0x%" PRIx64, c->event.vector, c->event.error, c->event.payload,
				v->event.vector, v->event.error, v->event.payload);
	if (b->cpl != v->cpl || b->mode != v->mode || b->tlb_view != v->tlb_view || (b->shadow != v->shadow && !l->state->outcome[0]))
		return snprintf(d, sizeof(l->difference), "CPL %u, mode %u, view %u, shadow %u instead of %u, %u, %u, %u", b->cpl, b->mode,
				b->tlb_view, b->shadow, v->cpl, v->mode, v->tlb_view, v->shadow);
	for (unsigned n = 0; n < SEG_COUNT; n++)
		if (memcmp(&b->seg[n], &v->seg[n], sizeof(v->seg[n])))
			return snprintf(d, sizeof(l->difference), "segment %u differs: base 0x%" PRIx64 " instead of 0x%" PRIx64, n,
					b->seg[n].base, v->seg[n].base);
	if (b->cr0 != v->cr0 || b->cr2 != v->cr2 || b->cr3 != v->cr3 || b->cr4 != v->cr4 || b->efer != v->efer)
		return snprintf(d, sizeof(l->difference), "a control register differs");
	for (unsigned n = 0; n < 16; n++)
		if (memcmp(c->ymm[n], v->ymm[n], 32))
			return snprintf(d, sizeof(l->difference), "ymm%u is %016" PRIx64 "%016" PRIx64 " instead of %016" PRIx64 "%016" PRIx64
					" (low half)", n, *(const uint64_t *)(c->ymm[n] + 8), *(const uint64_t *)c->ymm[n],
					*(const uint64_t *)(v->ymm[n] + 8), *(const uint64_t *)v->ymm[n]);
	for (unsigned n = 0; n < 160; n++)
		if (c->fx[n] != v->fx[n])
			return snprintf(d, sizeof(l->difference), "byte %u of the FXSAVE image is 0x%02x instead of 0x%02x", n, c->fx[n], v->fx[n]);
	if (c->kernel_gs_base != v->kernel_gs_base || c->tsc_aux != v->tsc_aux || c->lstar != v->lstar || c->star != v->star)
		return snprintf(d, sizeof(l->difference), "an MSR differs");
	return false;
}

static bool memory_differs(struct soft_vcpu *v)
{
	struct lockstep *l = v->lockstep;

	for (unsigned n = 0; n < l->pages; n++) {
		const struct lockstep_page *p = &l->page[n];

		if (!memcmp(p->translated, p->host, PAGE_BYTES))
			continue;
		for (unsigned k = 0; k < PAGE_BYTES; k++)
			if (p->translated[k] != p->host[k])
				return snprintf(l->difference, sizeof(l->difference), "memory at 0x%" PRIx64 " is 0x%02x instead of 0x%02x",
						p->gpa + k, p->translated[k], p->host[k]);
	}
	return false;
}

static void report_registers(const char *who, const struct registers *r)
{
	const struct soft_vcpu *v = vcpu_of(r, 0);
	char line[640];
	int n = 0;

	for (unsigned k = 0; k < 16; k++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, " %u=%" PRIx64, k, v->gpr[k]);
	log_line(LOG_ERROR, "lock-step: %s: rip=%" PRIx64 " rflags=%" PRIx64 "%s", who, v->rip, v->rflags, line);
}

static void report(struct soft_vcpu *v, const struct block *b)
{
	struct lockstep *l = v->lockstep;
	uint64_t at = vcpu_of(&l->state->start, 0)->rip;
	static struct registers now;

	registers_get(v, &now);
	log_line(LOG_ERROR, "lock-step: at 0x%" PRIx64 " translated code differs from the interpreter: %s", at, l->difference);
	for (unsigned n = 0; n < b->count; n++) {
		const struct insn *i = &b->insn[n];
		struct trans_form f;
		char hex[64];
		int k = 0;

		for (unsigned m = 0; m < i->len; m++)
			k += snprintf(hex + k, sizeof(hex) - (size_t)k, " %02x", i->bytes[m]);
		trans_form(i, &f);
		log_line(LOG_ERROR, "lock-step: 0x%" PRIx64 "%s%s", at, hex, f.kind == K_HANDLER ? " (interpreted)" : "");
		at += i->len;
	}
	report_registers("before", &l->state->start);
	report_registers("translated", &l->state->translated);
	report_registers("interpreted", &now);
	l->failed = true;
	l->differences++;
	soft_request(v, REQ_KICK);
}

/* ---- A stretch ------------------------------------------------------------ */

static __attribute__((noinline, noreturn)) void land(struct soft_vcpu *v)
{
	__builtin_longjmp(v->fault_jmp, 1);
}

/* The block at v->rip, decoded and translated anew. May fault. */
static struct block *again(struct soft_vcpu *v)
{
	struct block *b = block_get(v, v->rip, v->mode);

	if (b && !b->trans)
		trans_build(v, b);
	return b && b->trans > TRANS_NEVER && b->trans_view == v->tlb_view ? b : NULL;
}

/* A direct call to a non-canonical address faults at the target, after its push (docs/translator.md). */
static bool called_nowhere(const struct soft_vcpu *v)
{
	const struct lockstep_state *s = v->lockstep->state;
	const struct soft_vcpu *t = vcpu_of(&s->translated, 0);

	return s->outcome[0] == OUT_NEXT && s->outcome[1] == OUT_FAULT && v->event.vector == EXC_GP && !canonical(t->rip) &&
	       t->gpr[R_SP] == v->gpr[R_SP] - 8;
}

static bool compared(struct soft_vcpu *v, struct block *b)
{
	struct lockstep *l = v->lockstep;
	struct lockstep_state *s = l->state;
	bool once;

	v->lockstep_touched = false;
	l->active = true;
	s->died = false;
	s->outcome[0] = guarded(v, b, translated);
	registers_get(v, &s->translated);
	s->insns = v->insns - vcpu_of(&s->start, 1)->insns;
	once = v->lockstep_touched || (!s->insns && s->outcome[0] == OUT_NEXT);
	if (once) {
		l->not_compared++;
		s->outcome[1] = s->outcome[0];
		return true;
	}
	memory_undo(v, true);
	registers_set(v, &s->start);
	s->early = s->outcome[0] == OUT_NEXT && !s->other;
	s->outcome[1] = guarded(v, b, interpreted);
	vec_sync(v);
	if (v->lockstep_touched || called_nowhere(v))
		return true;
	return !state_differs(v, &s->translated) && !memory_differs(v);
}

uint32_t lockstep_run(struct soft_vcpu *v, struct block *b)
{
	struct lockstep *l = v->lockstep;
	struct lockstep_state *s = l->state;
	const struct block *first = b;
	void *outer[5];
	bool same = false;

	memcpy(outer, v->fault_jmp, sizeof(outer));
	registers_get(v, &s->start);
	s->site = 0;
	l->stretches++;
	if (!repeatable(b)) {
		l->not_compared++;
		s->outcome[1] = guarded(v, b, translated);
		goto out;
	}
	/* What another thread did meanwhile looks like a difference, but hardly each time. */
	for (unsigned n = 0; n < ATTEMPTS && !same; n++) {
		if (n) {
			memory_undo(v, false);
			close_all(l, v);
			registers_set(v, &s->start);
			/* It may have written itself. */
			memcpy(v->fault_jmp, outer, sizeof(outer));
			if (!b->n && !(b = again(v)))
				break;
		}
		s->other = n & 1;
		same = compared(v, b);
	}
	close_all(l, v);
	if (!same)
		report(v, first);
out:
	memcpy(v->fault_jmp, outer, sizeof(outer));
	if (s->outcome[1] == OUT_FAULT)
		land(v);
	return s->died ? 0 : s->site;
}
