/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Local APICs and MSRs under a guest that writes anything anywhere. Input:
 * commands of 10 bytes: vCPU and kind, register or MSR, value. Properties: what
 * is pending is delivered when it is acknowledged and then in service; vectors
 * below 16 never get in; what is saved loads and saves the same; reserved MSR
 * bits never stick.
 */
#include <assert.h>

#include "../engine/soft/apic_stubs.h"
#include "util/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t msr_index(uint32_t raw)
{
	static const uint32_t bases[] = { 0x800, 0, 0x100, 0x200, 0x400, 0x6e0, 0x4b564d00, 0xc0000080, 0xc0000100, 0xc0010000,
					  0xc0011000, 0x170, 0xc0010100, 0x830 };

	return bases[raw % (sizeof(bases) / sizeof(bases[0]))] + (raw >> 8 & 0x7f);
}

static void check(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;

	assert(!(atomic_load(&l->irr[0]) & 0xffff) && !(l->isr[0] & 0xffff));
	assert(!(v->efer & ~0xd01ull));
	for (unsigned n = 0; n < 64; n += 8)
		assert((v->pat >> n & 0xff) < 8);
}

static void acknowledge(struct soft_vcpu *v)
{
	struct lapic *l = v->lapic;
	int pending = lapic_pending(v), vector = lapic_ack(v);

	if (pending < 0)
		assert(vector < 0);
	else if (pending != LAPIC_EXTINT)
		assert(vector == pending && l->isr[vector / 32] >> (vector % 32) & 1);
	if (vector >= 0 && pending != LAPIC_EXTINT)
		assert(lapic_pending(v) < 0 || lapic_pending(v) == LAPIC_EXTINT || lapic_pending(v) >> 4 > vector >> 4);
}

static void save_and_load(struct soft_vcpu *v)
{
	static struct cpu_state a, b;

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	lapic_get(v, &a);
	lapic_set(v, &a);
	lapic_get(v, &b);
	/* The count runs on. */
	memset(a.lapic + 0x390, 0, 4);
	memset(b.lapic + 0x390, 0, 4);
	assert(!memcmp(&a, &b, sizeof(a)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	log_set_level(LOG_ERROR);
	stub_setup(true);
	for (; size >= 10; data += 10, size -= 10) {
		struct soft_vcpu *v = cpus[data[0] % STUB_CPUS];
		uint16_t at = data[1] | data[2] << 8;
		uint64_t value, base = lapic_base_get(v) & ~0xfffull;

		memcpy(&value, data + 2, 8);
		switch (data[0] / STUB_CPUS % 12) {
		case 0: case 1:
			if (lapic_claims(v, base))
				lapic_mmio_write(v, base + (at & 0xff0), value >> 16, 4);
			break;
		case 2:
			if (lapic_claims(v, base))
				lapic_mmio_read(v, base + (at & 0xfff), 1u << (data[9] & 3));
			break;
		case 3: case 4:
			msr_write(v, msr_index(at), value >> (data[9] & 31));
			break;
		case 5:
			msr_read(v, msr_index(at), &value);
			break;
		case 6:
			soft_msi(&engine->engine, 0xfee00000 | (value & 0xff00c), at);
			break;
		case 7:
			soft_set_extint(&engine->engine, at & 1);
			pic_vector = at & 2 ? -1 : (at >> 8) & 0xff;
			break;
		case 8:
			acknowledge(v);
			break;
		case 9:
			lapic_set_cr8(v, at & 15);
			break;
		case 10:
			ram[at % sizeof(ram)] = value;
			if (at & 1)
				lapic_init_signal(v);
			break;
		case 11:
			save_and_load(v);
			break;
		}
		check(v);
	}
	stub_teardown(NULL);
	return 0;
}
