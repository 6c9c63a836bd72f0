/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RDMSR and WRMSR, and KVM's clock as a guest computes it. */
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "apic_stubs.h"
#include "util/log.h"

static int setup(void **state)
{
	return stub_setup(true);
}

static uint64_t rd(uint32_t index)
{
	uint64_t value;

	assert_true(msr_read(cpus[0], index, &value));
	return value;
}

static bool reads(uint32_t index)
{
	uint64_t value;

	return msr_read(cpus[0], index, &value);
}

static bool wr(uint32_t index, uint64_t value)
{
	return msr_write(cpus[0], index, value);
}

/* Every index is found or not found, whatever its neighbours: the table is in order. */
static void present(void **state)
{
	static const uint32_t always[] = {
		0x0,	    0x1,	0x10,	    0x1b,	0x3b,	    0x8b,	0xfe,
		0x174,	    0x175,	0x176,	    0x179,	0x17a,	    0x17b,	0x1a0,
		0x1d9,	    0x200,	0x20f,	    0x250,	0x258,	    0x259,	0x268,
		0x26f,	    0x277,	0x2ff,	    0x400,	0x427,	    0x6e0,	0x4b564d00,
		0x4b564d01, 0x4b564d04, 0x11,	    0x12,	0xc0000080, 0xc0000081, 0xc0000082,
		0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103,
	};
	static const uint32_t intel[] = { 0x17,	 0x2a,	0x2c,  0x34,  0x3a,  0xc1,  0xc8,  0xce,  0x140, 0x186, 0x198,
					  0x199, 0x19c, 0x1a2, 0x1fc, 0x309, 0x38d, 0x390, 0x606, 0x611, 0x641 };
	static const uint32_t amd[] = { 0xc0010000, 0xc0010007, 0xc0010010, 0xc0010015, 0xc001001f, 0xc0010055,
					0xc0010058, 0xc0010061, 0xc001006b, 0xc0010112, 0xc0010114, 0xc0010140,
					0xc0010141, 0xc0010200, 0xc001020b, 0xc0011029, 0xc0011022 };
	static const uint32_t absent[] = { 0x2,	       0x13,	   0x210,      0x251,	   0x25a,      0x270,
					   0x428,      0x480,	   0x48,       0x10a,	   0x4b564d02, 0x4b564d03,
					   0x4b564d05, 0x40000000, 0x40000001, 0xc0000104, 0xc0010117, 0xda0,
					   0xd90,      0x801,	   0xffffffff, 0xc001ffff, 0xc1 + 8,   0x77777777 };

	for (int vendor = 0; vendor < 2; vendor++) {
		cpuid_intel = vendor;
		for (unsigned n = 0; n < sizeof(always) / 4; n++)
			assert_true(reads(always[n]));
		for (unsigned n = 0; n < sizeof(intel) / 4; n++)
			assert_int_equal(reads(intel[n]), vendor);
		for (unsigned n = 0; n < sizeof(amd) / 4; n++)
			assert_int_equal(reads(amd[n]), !vendor);
		for (unsigned n = 0; n < sizeof(absent) / 4; n++) {
			assert_false(reads(absent[n]));
			assert_false(wr(absent[n], 0));
		}
	}
	engine->engine.config.hide_pv = true;
	assert_false(reads(0x4b564d01));
	assert_false(wr(0x12, 0));
}

static void fields(void **state)
{
	static const uint32_t addresses[] = {
		0x175, 0x176, 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102
	};

	for (unsigned n = 0; n < sizeof(addresses) / 4; n++) {
		assert_true(wr(addresses[n], 0xffff800000001000 + n));
		assert_int_equal(rd(addresses[n]), 0xffff800000001000 + n);
		assert_false(wr(addresses[n], 0x0000800000000000));
		assert_int_equal(rd(addresses[n]), 0xffff800000001000 + n);
	}
	assert_int_equal(cpus[0]->seg[SEG_FS].base, 0xffff800000001004);
	assert_int_equal(cpus[0]->seg[SEG_GS].base, 0xffff800000001005);
	assert_int_equal(cpus[0]->kernel_gs_base, 0xffff800000001006);
	assert_true(wr(0xc0000081, 0x0023001000000000));
	assert_int_equal(cpus[0]->star, 0x0023001000000000);
	assert_true(wr(0xc0000084, 0x47700));
	assert_int_equal(rd(0xc0000084), 0x47700);
	assert_true(wr(0xc0000103, 0xffffffff));
	assert_false(wr(0xc0000103, 1ull << 32));
	assert_int_equal(rd(0xc0000103), 0xffffffff);
	assert_false(wr(0xfe, 0x508));
	assert_int_equal(rd(0xfe), 0x508);
	assert_int_equal(rd(0xc0010015), 1 << 24);
	assert_true(wr(0xc0010015, 0));
	assert_int_equal(rd(0xc0010015), 1 << 24);
}

static void efer(void **state)
{
	assert_true(wr(0xc0000080, 0x901)); /* SCE, LME, NXE */
	assert_int_equal(mode_changes, 1);
	assert_false(wr(0xc0000080, 0x1901)); /* SVME */
	assert_false(wr(0xc0000080, 0x2));
	cpus[0]->efer |= 0x400;
	cpus[0]->cr0 = 1u << 31;
	assert_false(wr(0xc0000080, 0x801)); /* LME may not change under paging */
	assert_true(wr(0xc0000080, 0x101));  /* LMA is not the guest's to clear */
	assert_int_equal(rd(0xc0000080), 0x501);
}

static void mtrr_pat(void **state)
{
	assert_true(wr(0x200, 0xffc0000006));
	assert_true(wr(0x201, 0xffc0000800));
	assert_int_equal(rd(0x200), 0xffc0000006);
	assert_int_equal(cpus[0]->mtrr_phys[0][1], 0xffc0000800);
	assert_true(wr(0x20f, 0x800));
	assert_int_equal(cpus[0]->mtrr_phys[7][1], 0x800);
	assert_false(wr(0x200, 0x10000000006)); /* above 40 bits */
	assert_false(wr(0x200, 2));
	assert_false(wr(0x200, 0x106));
	assert_false(wr(0x201, 0x801));
	assert_true(wr(0x26f, 0x0606060606060606));
	assert_int_equal(cpus[0]->mtrr_fix[10], 0x0606060606060606);
	assert_false(wr(0x26f, 0x0706060606060606));
	assert_true(wr(0x250, 0x0001040506060606));
	assert_int_equal(cpus[0]->mtrr_fix[0], 0x0001040506060606);
	assert_true(wr(0x259, 0));
	assert_true(wr(0x2ff, 0xc06));
	assert_false(wr(0x2ff, 0xc02));
	assert_false(wr(0x2ff, 0x1006));
	assert_true(wr(0x277, 0x0007040600070406));
	assert_false(wr(0x277, 0x0207040600070406));
	assert_false(wr(0x277, 0x0807040600070406));
}

static void mce(void **state)
{
	assert_int_equal(rd(0x179) & 0xff, 10);
	for (unsigned n = 0; n < 10; n++) {
		assert_true(wr(0x400 + n * 4, UINT64_MAX));
		assert_true(wr(0x401 + n * 4, 0));
		assert_false(wr(0x401 + n * 4, 1));
		assert_int_equal(rd(0x401 + n * 4), 0);
	}
	assert_true(wr(0x17b, UINT64_MAX));
	assert_int_equal(rd(0x17b), UINT64_MAX);
	assert_false(wr(0x17a, 8));
}

static void speculation(void **state)
{
	assert_false(wr(0x48, 0));
	assert_false(wr(0x49, 1));
	cpuid_7_edx = 1u << 26 | 1u << 31;
	assert_true(wr(0x48, 5));
	assert_int_equal(rd(0x48), 5);
	assert_false(wr(0x48, 2));
	assert_true(wr(0x49, 1));
	assert_false(wr(0x49, 2));
	assert_false(reads(0x49));
	cpuid_7_edx = 0;
	cpuid_ext_ebx = 1u << 12 | 1u << 15;
	assert_true(wr(0x48, 2));
	assert_false(wr(0x48, 1));
	assert_true(wr(0x49, 0));
	cpuid_7_edx = 1u << 29;
	assert_int_equal(rd(0x10a) & 3, 3);
	assert_false(wr(0x10a, 0));
}

static void feature_control(void **state)
{
	cpuid_intel = true;
	assert_int_equal(rd(0x3a), 0);
	assert_false(wr(0x3a, 4)); /* no VMX */
	assert_true(wr(0x3a, 1));
	assert_false(wr(0x3a, 1)); /* locked */
}

static void tsc(void **state)
{
	uint64_t before, t;

	assert_true(wr(0x10, 1000000));
	t = rd(0x10);
	assert_true(t >= 1000000 && t < 1000000 + 2000000000ull);
	before = rd(0x3b);
	assert_true(before != 0); /* the write showed in TSC_ADJUST */
	assert_true(wr(0x3b, before + (1ull << 40)));
	t = rd(0x10);
	assert_true(t >= (1ull << 40) + 1000000 && t < (1ull << 40) + 4000000000ull);
	assert_true(wr(0x3b, 0)); /* as if never written */
	t = rd(0x10);
	assert_true(__rdtsc() - t < 1000000000);
}

/* As Linux reads it. */
static uint64_t guest_clock(struct soft_vcpu *v, const uint8_t *page)
{
	uint32_t version, mul;
	uint64_t tsc_timestamp, system_time, delta;
	int8_t shift;

	memcpy(&version, page, 4);
	memcpy(&tsc_timestamp, page + 8, 8);
	memcpy(&system_time, page + 16, 8);
	memcpy(&mul, page + 24, 4);
	shift = (int8_t)page[28];
	assert_false(version & 1);
	delta = soft_tsc(v) - tsc_timestamp;
	delta = shift < 0 ? delta >> -shift : delta << shift;
	return system_time + (uint64_t)(((unsigned __int128)delta * mul) >> 32);
}

static void kvmclock(void **state)
{
	static const uint32_t rates[] = { 1,	   50000,   999999,  1000000, 1000001, 1999999,
					  2000000, 2000001, 2445000, 3800123, 9000000 };
	uint8_t *page = ram + 0x100;
	uint32_t version;
	uint64_t a, b;

	for (unsigned n = 0; n < sizeof(rates) / 4; n++) {
		uint64_t hour = 3600ull * 1000 * rates[n], ns;
		uint32_t mul;
		int8_t shift;

		kvmclock_scale(rates[n], &mul, &shift);
		assert_true(mul >> 31);
		ns = shift < 0 ? hour >> -shift : hour << shift;
		ns = (uint64_t)(((unsigned __int128)ns * mul) >> 32);
		assert_in_range(ns, 3600000000000ull - 3600 * 10, 3600000000000ull); /* 10 ns a second */
	}
	memset(page, 0xff, 32);
	memset(page, 0, 4);
	engine->page_flags[RAM_GPA >> 12] = PAGE_LOG_DIRTY;
	assert_true(wr(0x4b564d01, RAM_GPA + 0x100 + 1));
	assert_true(page_writes > 0);
	memcpy(&version, page, 4);
	assert_int_equal(version, 2);
	assert_int_equal(page[29], 1); /* stable */
	assert_int_equal(page[30] | page[31], 0);
	a = guest_clock(cpus[0], page);
	assert_int_equal(rd(0x12), RAM_GPA + 0x100 + 1);
	/* The guest plays with its TSC: the clock does not notice. */
	assert_true(wr(0x10, 77));
	b = guest_clock(cpus[0], page);
	assert_true(b >= a && b - a < 1000000000);
	assert_true(wr(0x3b, 1ull << 50));
	a = guest_clock(cpus[0], page);
	assert_true(a >= b && a - b < 1000000000);
	assert_false(wr(0x4b564d01, 3));
	/* Off: the page is the guest's. */
	assert_true(wr(0x4b564d01, 0));
	memset(page, 0x55, 32);
	assert_true(wr(0x3b, 0));
	assert_int_equal(page[0], 0x55);
	/* Nowhere, across two pages, and in ROM. */
	assert_true(wr(0x4b564d01, 0x7000000 + 1));
	assert_true(wr(0x4b564d01, RAM_GPA + 4096 - 12 + 1));
	memcpy(&version, ram + 4096 - 12, 4);
	assert_int_equal(version, 2);
	assert_true(guest_clock(cpus[0], ram + 4096 - 12) >= a);
	ram_slot.readonly = true;
	memset(page, 0, 32);
	assert_true(wr(0x4b564d01, RAM_GPA + 0x100 + 1));
	assert_int_equal(page[0], 0);
}

static void wall_clock(void **state)
{
	struct timespec ts;
	uint32_t w[3];
	uint64_t now;

	assert_true(wr(0x4b564d00, RAM_GPA + 0x200));
	memcpy(w, ram + 0x200, 12);
	assert_int_equal(w[0], 2);
	clock_gettime(CLOCK_REALTIME, &ts);
	now = w[1] * 1000000000ull + w[2] + kvmclock_now(cpus[0]);
	assert_true(ts.tv_sec * 1000000000ull + ts.tv_nsec - now + 1000000000 < 2000000000);
	assert_false(wr(0x4b564d00, RAM_GPA + 0x201));
}

/* Stop for a while, load the state: the clock goes on where it was, on all vCPUs alike. */
static void restore_clock(void **state)
{
	uint64_t tsc[STUB_CPUS], clock;

	for (unsigned n = 0; n < STUB_CPUS; n++) {
		cpus[n]->tsc_offset = 5ull << 60;
		tsc[n] = soft_tsc(cpus[n]);
		usleep(1000);
	}
	cpus[0]->kvm_system_time = RAM_GPA + 0x100 + 1;
	tsc[0] = soft_tsc(cpus[0]);
	clock = kvmclock_now(cpus[0]);
	usleep(20000);
	for (unsigned n = 0; n < STUB_CPUS; n++) {
		cpus[n]->tsc_offset = 0;
		usleep(1000 * n);
	}
	for (unsigned n = 0; n < STUB_CPUS; n++)
		soft_tsc_restore(cpus[n], tsc[n]);
	assert_true(guest_clock(cpus[0], ram + 0x100) - clock < 20000000); /* it did not see the stop */
	engine->probing = false;					   /* by itself, each vCPU is set exactly */
	for (unsigned n = 0; n < STUB_CPUS; n++)
		soft_tsc_restore(cpus[n], tsc[n]);
	for (unsigned n = 1; n < STUB_CPUS; n++)
		assert_int_equal(cpus[n]->tsc_offset, cpus[0]->tsc_offset);
	/* Ten seconds are another time, and the others follow. */
	for (unsigned n = 0; n < STUB_CPUS; n++)
		soft_tsc_restore(cpus[n], tsc[n] + 10 * 2000000000ull);
	for (unsigned n = 1; n < STUB_CPUS; n++)
		assert_int_equal(cpus[n]->tsc_offset, cpus[0]->tsc_offset);
	assert_true(soft_tsc(cpus[0]) - tsc[0] >= 10 * 2000000000ull);
	engine->probing = true;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, stub_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(present),	     TEST(fields),	    TEST(efer), TEST(mtrr_pat), TEST(mce),
		TEST(speculation),   TEST(feature_control), TEST(tsc),	TEST(kvmclock), TEST(wall_clock),
		TEST(restore_clock),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
