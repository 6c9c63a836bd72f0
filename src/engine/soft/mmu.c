/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slow side of every memory access: page crossings, faults, device memory,
 * alignment checks, data breakpoints.
 */
#include "engine/soft/lockstep.h"

typedef uint16_t any16 __attribute__((may_alias, aligned(1)));
typedef uint32_t any32 __attribute__((may_alias, aligned(1)));
typedef uint64_t any64 __attribute__((may_alias, aligned(1)));
typedef long long any128 __attribute__((vector_size(16), may_alias, aligned(1)));

/*
 * Copy to or from guest memory. The natural sizes are one host access each:
 * aligned ones are then atomic towards other CPUs, as on hardware.
 */
static void copy(void *to, const void *from, unsigned size)
{
	switch (size) {
	case 1: *(volatile uint8_t *)to = *(const volatile uint8_t *)from; return;
	case 2: *(volatile any16 *)to = *(const volatile any16 *)from; return;
	case 4: *(volatile any32 *)to = *(const volatile any32 *)from; return;
	case 8: *(volatile any64 *)to = *(const volatile any64 *)from; return;
	}
	for (; size >= 16; size -= 16, to = (uint8_t *)to + 16, from = (const uint8_t *)from + 16)
		*(volatile any128 *)to = *(const volatile any128 *)from;
	for (; size >= 8; size -= 8, to = (uint8_t *)to + 8, from = (const uint8_t *)from + 8)
		*(volatile any64 *)to = *(const volatile any64 *)from;
	for (; size; size--, to = (uint8_t *)to + 1, from = (const uint8_t *)from + 1)
		*(volatile uint8_t *)to = *(const volatile uint8_t *)from;
}

/* The largest access the bus takes of what is left. */
static unsigned device_chunk(unsigned left)
{
	return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void device_read(struct soft_vcpu *v, uint64_t gpa, void *data, unsigned size)
{
	const struct engine_host *h = &v->engine->engine.config.host;

	v->lockstep_touched = true;
	while (size) {
		unsigned n = device_chunk(size);
		uint64_t value;

		if (lapic_claims(v, gpa)) {
			value = lapic_mmio_read(v, gpa, n);
		} else {
			soft_leave(v);
			value = h->mmio_read(h->opaque, gpa, n);
			soft_enter(v);
		}
		memcpy(data, &value, n);
		data = (uint8_t *)data + n;
		gpa += n;
		size -= n;
	}
}

static void device_write(struct soft_vcpu *v, uint64_t gpa, const void *data, unsigned size)
{
	const struct engine_host *h = &v->engine->engine.config.host;

	v->lockstep_touched = true;
	while (size) {
		unsigned n = device_chunk(size);
		uint64_t value = 0;

		memcpy(&value, data, n);
		if (lapic_claims(v, gpa)) {
			lapic_mmio_write(v, gpa, value, n);
		} else {
			soft_leave(v);
			h->mmio_write(h->opaque, gpa, value, n);
			soft_enter(v);
		}
		data = (const uint8_t *)data + n;
		gpa += n;
		size -= n;
	}
}

/* SDM vol. 3 §17.2.4: does the access touch a data breakpoint? It traps after the instruction. */
static void watch(struct soft_vcpu *v, uint64_t linear, unsigned size, bool write)
{
	static const uint8_t length[4] = {1, 2, 8, 4};
	uint64_t dr7 = v->dr[7];

	for (unsigned n = 0; n < 4; n++) {
		unsigned rw = dr7 >> (16 + 4 * n) & 3, len = length[dr7 >> (18 + 4 * n) & 3];
		uint64_t at = v->dr[n] & ~(uint64_t)(len - 1);

		if (!(dr7 >> (2 * n) & 3) || !(rw == 3 || (rw == 1 && write)))
			continue;
		if (linear < at + len && at < linear + size) {
			v->dr6_pending |= 1u << n;
			soft_request(v, REQ_TRAP);
		}
	}
}

/*
 * What comes before paging: the form of the address, then alignment (as
 * hardware does it: a misaligned access to an absent page is #AC).
 */
static uint64_t check(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	if (!v->long_mode)
		linear = (uint32_t)linear;
	else if (unlikely(!canonical(linear) || !canonical(linear + size - 1)))
		soft_raise(v, stack ? EXC_SS : EXC_GP, 0);
	if (unlikely(v->ac_check)) {
		unsigned align = size == 10 ? 8 : size <= 8 && !(size & (size - 1)) ? size : 1;

		if (linear & (align - 1))
			soft_raise(v, EXC_AC, 0);
	}
	return linear;
}

/* Linear addresses wrap at 4 GiB outside long mode. */
static uint64_t linear_add(const struct soft_vcpu *v, uint64_t linear, unsigned n)
{
	return v->long_mode ? linear + n : (uint32_t)(linear + n);
}

static unsigned bytes_in_page(uint64_t linear, unsigned size)
{
	unsigned room = PAGE_BYTES - (linear & PAGE_MASK);

	return size < room ? size : room;
}

/* Both pages of an access. Returns the bytes in the first. */
static unsigned translate_span(struct soft_vcpu *v, uint64_t linear, unsigned size, enum mmu_access acc,
			       enum mmu_priv priv, struct mmu_xlat x[2])
{
	unsigned n = bytes_in_page(linear, size);

	mmu_translate(v, linear, acc, priv, &x[0]);
	if (n < size)
		mmu_translate(v, linear_add(v, linear, n), acc, priv, &x[1]);
	return n;
}

static void part_read(struct soft_vcpu *v, const struct mmu_xlat *x, void *data, unsigned size)
{
	if (x->host)
		copy(data, x->host, size);
	else
		device_read(v, x->gpa, data, size);
}

static void part_write(struct soft_vcpu *v, const struct mmu_xlat *x, const void *data, unsigned size)
{
	if (x->host) {
		copy(x->host, data, size);
		mmu_written(v, x->gpa, size);
	} else {
		device_write(v, x->gpa, data, size);
	}
}

/*
 * The second part is translated again if the first was a device: slots may
 * have changed in its callback.
 */
static void span_read(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, enum mmu_priv priv,
		      unsigned view)
{
	struct mmu_xlat x[2];
	unsigned n = translate_span(v, linear, size, ACC_READ, priv, x);

	if (view != TLB_SLOW)
		tlb_fill(v, view, linear, &x[0]);
	part_read(v, &x[0], data, n);
	if (n < size) {
		if (!x[0].host)
			mmu_translate(v, linear_add(v, linear, n), ACC_READ, priv, &x[1]);
		part_read(v, &x[1], (uint8_t *)data + n, size - n);
	}
}

static void span_write(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, enum mmu_priv priv,
		       unsigned view)
{
	struct mmu_xlat x[2];
	unsigned n = translate_span(v, linear, size, ACC_WRITE, priv, x);

	if (view != TLB_SLOW)
		tlb_fill(v, view, linear, &x[0]);
	part_write(v, &x[0], data, n);
	if (n < size) {
		if (!x[0].host)
			mmu_translate(v, linear_add(v, linear, n), ACC_WRITE, priv, &x[1]);
		part_write(v, &x[1], (const uint8_t *)data + n, size - n);
	}
}

void mmu_read(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size, bool stack)
{
	linear = check(v, linear, size, stack);
	span_read(v, linear, data, size, mmu_priv_now(v), v->tlb_view);
	if (unlikely(v->dr[7] & 0xff))
		watch(v, linear, size, false);
}

void mmu_write(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size, bool stack)
{
	linear = check(v, linear, size, stack);
	span_write(v, linear, data, size, mmu_priv_now(v), v->tlb_view);
	if (unlikely(v->dr[7] & 0xff))
		watch(v, linear, size, true);
}

/* Descriptor tables and the TSS: supervisor whatever CPL is; SMAP without AC's override. */
static uint64_t check_sys(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
	if (!v->long_mode)
		return (uint32_t)linear;
	if (unlikely(!canonical(linear) || !canonical(linear + size - 1)))
		soft_raise(v, EXC_GP, 0);
	return linear;
}

void mmu_read_sys(struct soft_vcpu *v, uint64_t linear, void *data, unsigned size)
{
	struct tlb_entry *t = &v->tlb[TLB_KERNEL][(linear >> 12) & (TLB_SIZE - 1)];

	if (likely(t->rtag == ((linear + size - 1) & ~PAGE_MASK)))
		copy(data, (const void *)(linear + t->addend), size);
	else
		span_read(v, check_sys(v, linear, size), data, size, PRIV_KERNEL, TLB_KERNEL);
}

void mmu_write_sys(struct soft_vcpu *v, uint64_t linear, const void *data, unsigned size)
{
	struct tlb_entry *t = &v->tlb[TLB_KERNEL][(linear >> 12) & (TLB_SIZE - 1)];

	if (likely(t->wtag == ((linear + size - 1) & ~PAGE_MASK))) {
		copy((void *)(linear + t->addend), data, size);
		mmu_written(v, (t->gpa & ~PAGE_MASK) | (linear & PAGE_MASK), size);
	} else {
		span_write(v, check_sys(v, linear, size), data, size, PRIV_KERNEL, TLB_KERNEL);
	}
}

void mmu_probe_write(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	struct tlb_entry *t = tlb_at(v, linear);
	struct mmu_xlat x[2];

	if (likely(t->wtag == ((linear + size - 1) & ~PAGE_MASK)))
		return;
	linear = check(v, linear, size, stack);
	translate_span(v, linear, size, ACC_WRITE, mmu_priv_now(v), x);
	if (v->tlb_view != TLB_SLOW)
		tlb_fill(v, v->tlb_view, linear, &x[0]);
}

void mmu_probe_read(struct soft_vcpu *v, uint64_t linear, unsigned size, bool stack)
{
	struct tlb_entry *t = tlb_at(v, linear);
	struct mmu_xlat x[2];

	if (likely(t->rtag == ((linear + size - 1) & ~PAGE_MASK)))
		return;
	linear = check(v, linear, size, stack);
	translate_span(v, linear, size, ACC_READ, mmu_priv_now(v), x);
	if (v->tlb_view != TLB_SLOW)
		tlb_fill(v, v->tlb_view, linear, &x[0]);
}

void *mmu_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, enum mmu_access acc, bool stack, uint64_t *gpa)
{
	struct mmu_xlat x[2];

	linear = check(v, linear, size, stack);
	if (translate_span(v, linear, size, acc, mmu_priv_now(v), x) < size || !x[0].host)
		return NULL;
	if (v->tlb_view != TLB_SLOW)
		tlb_fill(v, v->tlb_view, linear, &x[0]);
	if (unlikely(v->dr[7] & 0xff))
		watch(v, linear, size, acc != ACC_READ);
	*gpa = x[0].gpa;
	return x[0].host;
}
