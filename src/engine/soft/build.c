/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From an address to a decoded block: fetch (page faults, CS limit), decode,
 * bind, publish.
 */
#include "engine/soft/trans.h"

/* ---- Instructions that no byte sequence or no binder stands for ---------- */

void insn_undefined(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise(v, EXC_UD, 0);
}

/* Longer than 15 bytes, or past the end of CS. */
void insn_protection(struct soft_vcpu *v, const struct insn *i)
{
	soft_raise(v, EXC_GP, 0);
}

void soft_bind(struct soft_engine *e, struct insn *i)
{
	if (int_bind(e, i) || sys_bind(e, i) || vec_bind(e, i))
		return;
	i->fn = insn_undefined;
	i->aux |= INSN_ENDS_BLOCK;
}

/* Decode and bind; false if the bytes end inside the instruction. */
static bool insn_make(struct soft_engine *e, struct insn *i, const uint8_t *bytes, unsigned n, unsigned mode)
{
	memset(i, 0, sizeof(*i));
	switch (insn_decode(i, bytes, n, mode | insn_decode_flags())) {
	case DECODE_OK:
		soft_bind(e, i);
		return true;
	case DECODE_MORE:
		return false;
	case DECODE_TOO_LONG:
		i->fn = insn_protection;
		i->len = i->len ? i->len : 15;
		break;
	case DECODE_UD:
		i->fn = insn_undefined;
		i->len = i->len ? i->len : 1;
		break;
	}
	i->mode = mode;
	i->aux |= INSN_ENDS_BLOCK;
	return true;
}

/* A near direct branch: the next address is one of two that depend on nothing but the block's own. */
static bool insn_is_direct(const struct insn *i)
{
	if (i->fn == insn_undefined || i->fn == insn_protection)
		return false;
	if (i->map == MAP_0F)
		return i->opcode >> 4 == 8;
	if (i->map != MAP_1B)
		return false;
	switch (i->opcode) {
	case 0x70 ... 0x7f: /* Jcc */
	case 0xa4 ... 0xa7: /* string instructions come back to themselves */
	case 0xaa ... 0xaf:
	case 0xe0 ... 0xe3: /* LOOP, JCXZ */
	case 0xe8: /* CALL */
	case 0xe9: /* JMP */
	case 0xeb:
		return true;
	}
	return false;
}

static bool is_sti(const struct insn *i)
{
	return i->map == MAP_1B && i->opcode == 0xfb && i->fn != insn_undefined && i->fn != insn_protection;
}

/* ---- Fetch --------------------------------------------------------------- */

/* Bytes of code from `linear` to the end of CS; 15 is as good as more. */
static unsigned room_in_cs(const struct soft_vcpu *v, uint64_t linear)
{
	const struct cpu_segment *cs = &v->seg[SEG_CS];
	uint64_t off;

	if (v->mode == MODE_64)
		return PAGE_BYTES;
	off = (uint32_t)(linear - cs->base);
	if (off > cs->limit)
		return 0;
	return cs->limit - off < PAGE_BYTES ? cs->limit - off + 1 : PAGE_BYTES;
}

static uint64_t linear_page_after(const struct soft_vcpu *v, uint64_t linear)
{
	uint64_t next = (linear & ~PAGE_MASK) + PAGE_BYTES;

	return v->mode == MODE_64 ? next : (uint32_t)next;
}

/* The page after the one of `linear`, which the instruction at `linear` reaches into. */
static uint8_t *fetch_second(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa, uint32_t *rights)
{
	uint64_t next = linear_page_after(v, linear);

	if (v->mode == MODE_64 && !canonical(next))
		soft_raise(v, EXC_GP, 0);
	return mmu_fetch(v, next, gpa, rights);
}

static void check_first(struct soft_vcpu *v, uint64_t linear)
{
	if (v->mode == MODE_64 ? !canonical(linear) : !room_in_cs(v, linear))
		soft_raise(v, EXC_GP, 0);
}

/* ---- Blocks -------------------------------------------------------------- */

static void block_begin(struct block *b, uint64_t gpa, unsigned key)
{
	memset(b, 0, sizeof(*b));
	b->gpa = gpa;
	b->gpa2 = BLOCK_ONE_PAGE;
	b->key = key;
}

static void block_finish(struct block *b)
{
	const struct insn *last = &b->insn[b->count - 1];

	b->n = b->count;
	b->linkable = !insn_ends_block(last) || insn_is_direct(last);
}

/*
 * Decode from the page at `code` what lies whole in it and in CS. Leaves
 * b->count 0 if already the first instruction goes on beyond.
 */
static void build_in_page(struct soft_vcpu *v, struct block *b, struct page_code *p, const uint8_t *code,
			  unsigned off, unsigned room)
{
	unsigned limit = b->key & BLOCK_KEY_SINGLE ? 1 : BLOCK_MAX_INSNS, left = PAGE_BYTES - off;
	struct insn *sti = NULL;

	if (room < left)
		left = room;
	while (b->count < limit && left) {
		struct insn *i = &b->insn[b->count];
		unsigned n = left < 15 ? left : 15;
		uint8_t bytes[15];

		page_code_mark(p, off, n);
		memcpy(bytes, code + off, n);
		if (!insn_make(v->engine, i, bytes, n, b->key & 3))
			return;
		b->count++;
		b->bytes += i->len;
		off += i->len;
		left -= i->len;
		if (!sti && is_sti(i)) {
			/* The instruction in its shadow belongs to the same block, if there is room. */
			limit = b->count + 1u < limit ? b->count + 1u : limit;
			sti = i;
			continue;
		}
		if (sti) {
			sti->aux &= (uint8_t)~INSN_ENDS_BLOCK;
			b->ends_shadow = true;
			return;
		}
		if (insn_ends_block(i))
			return;
	}
}

/* One instruction whose bytes go on in a second page. False if it goes on beyond the end of CS, too. */
static bool build_crossing(struct soft_vcpu *v, struct block *b, struct page_code *p[2], const uint8_t *code,
			   const uint8_t *code2, unsigned off, unsigned room)
{
	unsigned first = PAGE_BYTES - off, n = room < 15 ? room : 15;
	uint8_t bytes[15];

	page_code_mark(p[0], off, first);
	page_code_mark(p[1], 0, n - first);
	memcpy(bytes, code + off, first);
	memcpy(bytes + first, code2, n - first);
	if (!insn_make(v->engine, &b->insn[0], bytes, n, b->key & 3))
		return false;
	b->count = 1;
	b->bytes = b->insn[0].len;
	return true;
}

static void pages_end(struct soft_vcpu *v, struct page_code *p[2])
{
	for (unsigned i = 0; i < 2; i++)
		if (p[i])
			page_code_end(v->engine, p[i]);
}

/*
 * The block at `gpa`, made and published. NULL if it can't be cached. Nothing
 * may be held when a fetch faults, so the second page is translated before any
 * page is announced.
 */
static struct block *block_build(struct soft_vcpu *v, uint64_t linear, uint64_t gpa, const uint8_t *host, unsigned key)
{
	const uint8_t *code = host - (gpa & PAGE_MASK), *code2 = NULL;
	unsigned off = gpa & PAGE_MASK, room = room_in_cs(v, linear);
	struct block *b = v->blocks->build, *out;
	enum block_publish result;
	uint64_t gpa2 = 0;
	struct page_code *p[2];
	uint32_t gen[2], rights;

	for (;;) {
		p[0] = page_code_begin(v->engine, gpa, &gen[0]);
		p[1] = code2 ? page_code_begin(v->engine, gpa2, &gen[1]) : NULL;
		if (!p[0] || (code2 && !p[1])) {
			pages_end(v, p);
			if (!block_renew(v))
				return NULL;
			continue;
		}
		/* Its stores would go unnoticed. */
		if (unlikely(native_may_write(v->engine, gpa) || (code2 && native_may_write(v->engine, gpa2)))) {
			pages_end(v, p);
			return NULL;
		}
		block_begin(b, gpa, key);
		build_in_page(v, b, p[0], code, off, room);
		if (b->count && p[1]) {
			/* Written since: it no longer crosses. */
			page_code_end(v->engine, p[1]);
			p[1] = NULL;
		} else if (!b->count && room <= PAGE_BYTES - off) {
			pages_end(v, p);
			return NULL;
		} else if (!b->count && !code2) {
			pages_end(v, p);
			code2 = fetch_second(v, linear, &gpa2, &rights);
			if (!code2)
				return NULL;
			continue;
		} else if (!b->count) {
			b->gpa2 = gpa2;
			if (!build_crossing(v, b, p, code, code2, off, room)) {
				pages_end(v, p);
				return NULL;
			}
		}
		block_finish(b);
		result = block_publish(v, b, p, gen, &out);
		if (result == PUBLISHED)
			return out;
		if (result == PUBLISH_FULL && !block_renew(v))
			return NULL;
	}
}

/* Do the bytes at the end of the page leave the instruction unfinished? */
static bool crosses(const struct soft_vcpu *v, const uint8_t *host, unsigned left)
{
	uint8_t bytes[15];
	struct insn i;

	if (left >= 15)
		return false;
	memcpy(bytes, host, left);
	memset(&i, 0, sizeof(i));
	return insn_decode(&i, bytes, left, v->mode | insn_decode_flags()) == DECODE_MORE;
}

struct block *block_get(struct soft_vcpu *v, uint64_t linear, unsigned key)
{
	uint64_t gpa, gpa2 = BLOCK_ONE_PAGE;
	struct mmu_state *m = v->mmu;
	uint32_t rights, rights2;
	struct block *b;
	uint8_t *host;

	check_first(v, linear);
	host = mmu_fetch(v, linear, &gpa, &rights);
	if (!host || v->engine->probing)
		return NULL;
	if (unlikely(native_may_write(v->engine, gpa)) && native_code_wanted(v, gpa)) {
		host = mmu_fetch(v, linear, &gpa, &rights);
		if (!host)
			return NULL;
	}
	block_quiesce(v);
	if (unlikely(trans_full(v->engine)))
		block_renew(v);
	b = block_find(v->engine, gpa, BLOCK_ONE_PAGE, key);
	if (!b && crosses(v, host, PAGE_BYTES - (gpa & PAGE_MASK)) &&
	    room_in_cs(v, linear) > PAGE_BYTES - (gpa & PAGE_MASK)) {
		if (!fetch_second(v, linear, &gpa2, &rights2))
			return NULL;
		b = block_find(v->engine, gpa, gpa2, key);
	}
	if (!b)
		b = block_build(v, linear, gpa, host, key);
	if (!b)
		return NULL;
	if (b->gpa2 != BLOCK_ONE_PAGE) {
		fetch_second(v, linear, &gpa2, &rights2);
		rights = (rights & rights2 & XL_GLOBAL) | ((rights | rights2) & (XL_2M | XL_1G));
	}
	if (!(key & BLOCK_KEY_SINGLE))
		block_remember(v, linear, jump_ctx(v, rights & XL_GLOBAL ? m->global_id : m->id), b, rights);
	return b;
}

/* Up to `n` bytes of code that lie in one page; from a device one at a time, no more than asked for. */
static void fetch_bytes(struct soft_vcpu *v, const uint8_t *host, uint64_t gpa, uint8_t *bytes, unsigned n)
{
	const struct engine_host *h = &v->engine->engine.config.host;

	if (host) {
		memcpy(bytes, host, n);
		return;
	}
	for (unsigned k = 0; k < n; k++) {
		soft_leave(v);
		bytes[k] = h->mmio_read(h->opaque, gpa + k, 1);
		soft_enter(v);
	}
}

struct block *block_uncached(struct soft_vcpu *v, uint64_t linear)
{
	struct block *b = v->blocks->build;
	unsigned room, left, have = 0;
	uint8_t bytes[15], *host;
	uint32_t rights;
	uint64_t gpa;

	check_first(v, linear);
	room = room_in_cs(v, linear);
	if (room > 15)
		room = 15;
	host = mmu_fetch(v, linear, &gpa, &rights);
	left = PAGE_BYTES - (gpa & PAGE_MASK);
	block_begin(b, gpa, v->mode | BLOCK_KEY_SINGLE);
	for (;;) {
		unsigned n = !host ? 1 : room - have < left ? room - have : left;

		fetch_bytes(v, host, gpa, bytes + have, n);
		have += n;
		gpa += n;
		if (host)
			host += n;
		left -= left < n ? left : n;
		if (insn_make(v->engine, &b->insn[0], bytes, have, v->mode))
			break;
		if (have >= room) {
			/* Past the end of CS; 15 bytes always make an instruction or none. */
			b->insn[0].fn = insn_protection;
			b->insn[0].len = have;
			b->insn[0].mode = v->mode;
			b->insn[0].aux = INSN_ENDS_BLOCK;
			break;
		}
		if (!left) {
			host = fetch_second(v, linear, &gpa, &rights);
			left = PAGE_BYTES;
		}
	}
	b->count = 1;
	b->bytes = b->insn[0].len;
	block_finish(b);
	return b;
}
