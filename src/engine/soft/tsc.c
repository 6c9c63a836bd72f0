/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The frequency of the host's time-stamp counter. */
#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "engine/soft/core.h"

/* SDM vol. 3 §18.7.3: exact where the crystal's frequency is told. */
static uint32_t khz_from_crystal(void)
{
	uint32_t eax, ebx, ecx, edx;

	if (__get_cpuid_max(0, NULL) < 0x15)
		return 0;
	__cpuid_count(0x15, 0, eax, ebx, ecx, edx);
	return eax && ebx && ecx ? (uint64_t)ecx * ebx / eax / 1000 : 0;
}

/* The timing leaf that hypervisors give their guests. */
static uint32_t khz_from_hypervisor(void)
{
	uint32_t eax, ebx, ecx, edx;

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx >> 31))
		return 0;
	__cpuid(0x40000000, eax, ebx, ecx, edx);
	if (eax < 0x40000010 || eax > 0x400000ff)
		return 0;
	__cpuid(0x40000010, eax, ebx, ecx, edx);
	return eax;
}

struct instant {
	uint64_t tsc, ns;
};

/* Both clocks at once: of several readings the one that the least time passed in. */
static struct instant read_both(void)
{
	struct instant best = {0};
	uint64_t best_width = UINT64_MAX;

	for (int i = 0; i < 10; i++) {
		struct timespec ts;
		uint64_t a, b;
		unsigned aux;

		a = __rdtscp(&aux);
		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		b = __rdtscp(&aux);
		if (b - a < best_width) {
			best_width = b - a;
			best = (struct instant){ a + (b - a) / 2, ts.tv_sec * 1000000000ull + ts.tv_nsec };
		}
	}
	return best;
}

#define MEASURE_NS 5000000

static struct instant first;

static void measure_begin(void)
{
	first = read_both();
}

/* The longer ago soft_tsc_begin() was, the less is left to wait for. */
static uint32_t khz_measured(void)
{
	struct instant now = read_both();

	if (now.ns - first.ns < MEASURE_NS) {
		nanosleep(&(struct timespec){ .tv_nsec = MEASURE_NS - (now.ns - first.ns) }, NULL);
		now = read_both();
	}
	return (unsigned __int128)(now.tsc - first.tsc) * 1000000 / (now.ns - first.ns);
}

static uint32_t khz;

static void khz_find(void)
{
	khz = khz_from_crystal();
	if (!khz)
		khz = khz_from_hypervisor();
	if (!khz)
		khz = khz_measured();
}

void soft_tsc_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, measure_begin);
}

/* Found once in the life of the process. */
uint32_t soft_host_tsc_khz(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	soft_tsc_begin();
	pthread_once(&once, khz_find);
	return khz;
}
