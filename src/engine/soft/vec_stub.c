/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stub arena and its emitter. A stub is a leaf function that runs one
 * vector or x87 instruction on the host with fixed registers:
 *
 *   rdi -> reg (loaded into register 1), rdx -> vvvv (2), rcx -> XMM0 (0) or is4 (3),
 *   rsi -> rm, used in place as the memory operand, so that a register and
 *   guest memory need no different stubs; loaded into register 3 where the
 *   instruction has only a register form.
 *
 * Distinct stubs are bounded by the tables (opcode, prefix, L, W, immediate),
 * and all of them fit into the arena; nothing is ever recycled. The arena is
 * one memfd with a writable and an executable mapping: no page is both.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/vec.h"

#define STUB_MAX 96u /* bytes; no stub is longer */
#define HASH_START 256u

struct stub_slot {
	uint32_t key; /* 0: free */
	uint32_t offset;
};

struct vec_engine {
	pthread_mutex_t lock;
	uint8_t *write, *exec;
	size_t used;
	struct stub_slot *hash; /* open addressing */
	unsigned hash_size, hash_used;
};

struct vec_engine *vec_stub_new(struct err *err)
{
	struct vec_engine *ve = calloc(1, sizeof(*ve));
	int fd;

	if (!ve) {
		err_set(err, ENOMEM, "no memory for the vector unit");
		return NULL;
	}
	ve->hash_size = HASH_START;
	ve->hash = calloc(ve->hash_size, sizeof(*ve->hash));
	ve->write = ve->exec = MAP_FAILED;
	pthread_mutex_init(&ve->lock, NULL);
	fd = memfd_create("keel-vector-stubs", MFD_CLOEXEC);
	if (!ve->hash || fd < 0 || ftruncate(fd, VEC_ARENA_SIZE) < 0)
		goto fail;
	ve->write = mmap(NULL, VEC_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ve->exec = mmap(NULL, VEC_ARENA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (ve->write == MAP_FAILED || ve->exec == MAP_FAILED)
		goto fail;
	close(fd);
	return ve;
fail:
	err_set_errno(err, errno, "can't make executable memory for the vector unit");
	if (fd >= 0)
		close(fd);
	vec_stub_free(ve);
	return NULL;
}

void vec_stub_free(struct vec_engine *ve)
{
	if (!ve)
		return;
	if (ve->write != MAP_FAILED)
		munmap(ve->write, VEC_ARENA_SIZE);
	if (ve->exec != MAP_FAILED)
		munmap(ve->exec, VEC_ARENA_SIZE);
	pthread_mutex_destroy(&ve->lock);
	free(ve->hash);
	free(ve);
}

size_t vec_stub_used(struct vec_engine *ve)
{
	return ve->used;
}

/* ---- Emitter -------------------------------------------------------------- */

struct emit {
	uint8_t code[STUB_MAX];
	unsigned n;
};

static void byte(struct emit *e, uint8_t b)
{
	assert(e->n < STUB_MAX);
	e->code[e->n++] = b;
}

static void bytes(struct emit *e, const char *b, unsigned n)
{
	while (n--)
		byte(e, (uint8_t)*b++);
}
#define BYTES(e, s) bytes(e, s, sizeof(s) - 1)

/* Host base registers of the pointers. */
enum { P_SRC2 = 2, P_EXTRA = 1, P_SRC = 6, P_DST = 7 };

/* Load or store register `reg` through pointer `base`. */
enum bank { BANK_X, BANK_VX, BANK_VY, BANK_M };
static void move(struct emit *e, enum bank bank, bool store, unsigned reg, unsigned base)
{
	switch (bank) {
	case BANK_X: BYTES(e, "\x0f"); byte(e, store ? 0x29 : 0x28); break;
	case BANK_VX: BYTES(e, "\xc5\xf8"); byte(e, store ? 0x29 : 0x28); break;
	case BANK_VY: BYTES(e, "\xc5\xfc"); byte(e, store ? 0x29 : 0x28); break;
	case BANK_M: BYTES(e, "\x0f"); byte(e, store ? 0x7f : 0x6f); break;
	}
	byte(e, (uint8_t)(reg << 3 | base));
}

/* The instruction itself. `rm`: a register, or -1 for [rsi]. */
static void operation(struct emit *e, const struct vec_row *r, const struct vec_form *f, unsigned reg, int rm,
		      unsigned vvvv, int imm)
{
	static const uint8_t prefix[4] = { 0, 0x66, 0xf3, 0xf2 };

	if (f->vex) {
		byte(e, 0xc4);
		byte(e, 0xe0 | r->map);
		byte(e, (uint8_t)(f->w << 7 | (~vvvv & 15) << 3 | f->l << 2 | r->pp));
	} else {
		if (r->pp)
			byte(e, prefix[r->pp]);
		if (f->w)
			byte(e, 0x48);
		byte(e, 0x0f);
		if (r->map == MAP_0F38)
			byte(e, 0x38);
		else if (r->map == MAP_0F3A)
			byte(e, 0x3a);
	}
	byte(e, r->opcode);
	byte(e, (uint8_t)(rm < 0 ? reg << 3 | P_SRC : 0xc0u | reg << 3 | (unsigned)rm));
	if (imm >= 0)
		byte(e, (uint8_t)imm);
}

static void vector_stub(struct emit *e, const struct vec_row *r, const struct vec_form *f)
{
	bool mmx = r->flags & ROW_MMX;
	/* Loads must not dirty the upper halves unless the operation does so anyway; stores write zeroes there. */
	enum bank load = f->vex ? f->l ? BANK_VY : BANK_VX : mmx ? BANK_M : BANK_X;
	enum bank store = f->vex ? BANK_VY : load;
	unsigned vvvv = f->vex && r->flags & ROW_NDS ? 2 : 0;
	int imm = r->flags & ROW_IMM ? f->imm : r->flags & ROW_IS4 ? 0x30 : -1;
	int rm = -1;

	if (r->shape == SHAPE_SHIFT) {
		if (f->vex)
			move(e, load, false, 3, P_SRC);
		else
			move(e, load, false, 1, P_DST);
		operation(e, r, f, r->ext - 1u, f->vex ? 3 : 1, f->vex ? 1 : 0, imm);
		move(e, store, true, 1, P_DST);
		goto out;
	}
	if (r->flags & ROW_REG || (r->flags & ROW_REGFORM && !f->mem)) {
		move(e, load, false, 3, P_SRC);
		rm = 3;
	}
	if (r->shape == SHAPE_RM && r->flags & ROW_UNALIGNED) {
		BYTES(e, "\x0f\x10\x1e"); /* movups xmm3, [rsi] */
		rm = 3;
	}
	if (r->flags & ROW_XMM0)
		move(e, load, false, 0, P_EXTRA);
	if (r->flags & ROW_IS4)
		move(e, load, false, 3, P_EXTRA);
	if (vvvv)
		move(e, load, false, 2, P_SRC2);
	switch ((enum vec_shape)r->shape) {
	case SHAPE_RM:
	case SHAPE_CVT_M:
		if (!f->vex || r->flags & ROW_RW)
			move(e, load, false, 1, P_DST);
		operation(e, r, f, 1, rm, vvvv, imm);
		move(e, store, true, 1, P_DST);
		break;
	case SHAPE_CVT_TO_M:
		operation(e, r, f, 1, rm, 0, imm);
		move(e, BANK_M, true, 1, P_DST);
		break;
	case SHAPE_GPR:
		operation(e, r, f, 0, rm, vvvv, imm);
		break;
	case SHAPE_FLAGS:
		move(e, load, false, 1, P_DST);
		operation(e, r, f, 1, rm, 0, imm);
		BYTES(e, "\x0f\x90\xc0\x9f"); /* seto al; lahf */
		break;
	case SHAPE_EXTRACT:
		move(e, load, false, 1, P_DST);
		operation(e, r, f, 1, 0, 0, imm);
		break;
	case SHAPE_HALF:
		move(e, load, false, 1, P_DST);
		operation(e, r, f, 1, 3, 0, imm);
		move(e, store, true, 3, P_SRC);
		break;
	case SHAPE_STRING:
		move(e, load, false, 1, P_DST);
		BYTES(e, "\x49\x89\xd0"); /* mov r8, rdx */
		BYTES(e, "\x49\x8b\x00\x49\x8b\x50\x10"); /* mov rax, [r8 + 8 * R_AX]; mov rdx, [r8 + 8 * R_DX] */
		if (r->opcode & 1) {
			operation(e, r, f, 1, rm, 0, imm);
			BYTES(e, "\x49\x89\x48\x08"); /* mov [r8 + 8 * R_CX], rcx */
		} else {
			operation(e, r, f, 1, rm, 0, imm);
			move(e, store, true, 0, P_EXTRA);
		}
		BYTES(e, "\x0f\x90\xc0\x9f");
		break;
	default:
		assert(!"a shape without a stub");
	}
out:
	if (f->vex && f->l)
		BYTES(e, "\xc5\xf8\x77"); /* vzeroupper */
	byte(e, 0xc3);
}

static bool x87_is_fcmov(uint8_t opcode, uint8_t modrm)
{
	return (opcode == 0xda || opcode == 0xdb) && modrm >= 0xc0 && modrm < 0xe0;
}

static bool x87_is_fcomi(uint8_t opcode, uint8_t modrm)
{
	return (opcode == 0xdb || opcode == 0xdf) && modrm >= 0xe8 && modrm < 0xf8;
}

static void x87_stub(struct emit *e, uint8_t opcode, uint8_t modrm)
{
	if (x87_is_fcmov(opcode, modrm))
		BYTES(e, "\x89\xf0\xc1\xe0\x08\x9e"); /* mov eax, esi; shl eax, 8; sahf */
	if (x87_is_fcomi(opcode, modrm)) {
		/* CPUs differ in whether an unmasked exception leaves EFLAGS alone: start from the guest's. */
		BYTES(e, "\x89\xf0\xc1\xe8\x0b"); /* mov eax, esi; shr eax, 11 */
		BYTES(e, "\x24\x01\x04\x7f"); /* and al, 1; add al, 127: OF */
		BYTES(e, "\x89\xf0\x86\xc4\x9e"); /* mov eax, esi; xchg al, ah; sahf */
	}
	byte(e, opcode);
	byte(e, modrm >= 0xc0 ? modrm : (uint8_t)((modrm & 0x38) | P_DST));
	if (x87_is_fcomi(opcode, modrm))
		BYTES(e, "\x0f\x90\xc0\x9f");
	byte(e, 0xc3);
}

/* ---- Lookup --------------------------------------------------------------- */

static struct stub_slot *slot_find(struct vec_engine *ve, uint32_t key)
{
	unsigned at = (uint32_t)(key * 2654435761u) >> 7;

	for (;; at++) {
		struct stub_slot *s = &ve->hash[at & (ve->hash_size - 1)];

		if (s->key == key || s->key == 0)
			return s;
	}
}

static bool hash_grow(struct vec_engine *ve)
{
	struct stub_slot *old = ve->hash;
	unsigned n = ve->hash_size;

	ve->hash = calloc(2 * n, sizeof(*old));
	if (!ve->hash) {
		ve->hash = old;
		return false;
	}
	ve->hash_size = 2 * n;
	for (unsigned k = 0; k < n; k++)
		if (old[k].key)
			*slot_find(ve, old[k].key) = old[k];
	free(old);
	return true;
}

/* The stub of `key`, or NULL; then *slot is its place. With the lock held. */
static void *lookup(struct vec_engine *ve, uint32_t key, struct stub_slot **slot)
{
	/* Out of memory: go on as long as there is room. */
	if (4 * ve->hash_used >= 3 * ve->hash_size && !hash_grow(ve) && ve->hash_used + 1 >= ve->hash_size)
		abort();
	*slot = slot_find(ve, key);
	return (*slot)->key ? ve->exec + (*slot)->offset : NULL;
}

static void *publish(struct vec_engine *ve, struct stub_slot *slot, uint32_t key, const struct emit *e)
{
	assert(ve->used + e->n <= VEC_ARENA_SIZE);
	memcpy(ve->write + ve->used, e->code, e->n);
	*slot = (struct stub_slot){ .key = key, .offset = (uint32_t)ve->used };
	ve->hash_used++;
	/* 16-byte starts: the front end fetches whole stubs. */
	ve->used += (e->n + 15u) & ~15u;
	return ve->exec + slot->offset;
}

#define KEY_X87 0x80000000u

vec_stub_fn *vec_stub_get(struct vec_engine *ve, const struct vec_row *r, const struct vec_form *form)
{
	struct vec_form f = *form;
	struct emit e = { .n = 0 };
	struct stub_slot *slot;
	uint32_t key;
	void *code;

	/* What the row ignores makes no other stub. */
	if (!(r->flags & ROW_IMM))
		f.imm = 0;
	if (r->flags & ROW_LIG)
		f.l = false;
	if (!(r->flags & ROW_W))
		f.w = r->flags & ROW_W1;
	if (!(r->flags & ROW_REGFORM))
		f.mem = false;
	key = (uint32_t)((r - vec_rows) + 1) << 12 | (uint32_t)f.vex << 11 | (uint32_t)f.l << 10 | (uint32_t)f.w << 9 |
	      (uint32_t)f.mem << 8 | f.imm;
	pthread_mutex_lock(&ve->lock);
	code = lookup(ve, key, &slot);
	if (!code) {
		vector_stub(&e, r, &f);
		code = publish(ve, slot, key, &e);
	}
	pthread_mutex_unlock(&ve->lock);
	return (vec_stub_fn *)code;
}

vec_x87_fn *vec_stub_x87(struct vec_engine *ve, uint8_t opcode, uint8_t modrm)
{
	struct emit e = { .n = 0 };
	struct stub_slot *slot;
	uint32_t key;
	void *code;

	if (modrm < 0xc0)
		modrm &= 0x38;
	key = KEY_X87 | (uint32_t)opcode << 8 | modrm;
	pthread_mutex_lock(&ve->lock);
	code = lookup(ve, key, &slot);
	if (!code) {
		x87_stub(&e, opcode, modrm);
		code = publish(ve, slot, key, &e);
	}
	pthread_mutex_unlock(&ve->lock);
	return (vec_x87_fn *)code;
}
