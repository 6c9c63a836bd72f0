/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bare-metal payloads of tests/guests on both engines: each must pass its
 * own checks, and both must leave the same registers and results. Then a vCPU
 * that moves between engines every few instructions.
 *
 * Payloads marked `exact` are about corners which a KVM that interprets ring 0
 * gets wrong; on kvm they run only where the probe finds it usable.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine.h"
#include "util/log.h"

#define TIMEOUT_S 60

static const struct payload {
	const char *name;
	unsigned cpus;
	bool exact;
	bool timed; /* general registers hold times: not compared */
	bool shuts_down;
} payloads[] = {
	{ "exceptions", 1 },
	{ "refused", 1 },
	{ "strings", 1 },
	{ "vector", 1 },
	{ "device", 1 },
	{ "extint", 1 },
	{ "irqs", 1 },
	{ "lapic", 1, .timed = true },
	{ "legacy", 1 },
	{ "handback", 1 },
	{ "smp", 2, .timed = true },
	{ "triple", 1, .shuts_down = true },
	{ "strict", 1, .exact = true },
	{ "avx", 1, .exact = true },
	{ "paging32", 1, .exact = true },
};
#define PAYLOADS (sizeof(payloads) / sizeof(payloads[0]))

static struct engine_probe probe;

struct outcome {
	bool ran, skipped;
	enum vcpu_exit end;
	uint32_t exit_code;
	char serial[256];
	uint64_t handovers;
	struct cpu_state state;
	uint8_t results[4096];
};
static struct outcome outcomes[PAYLOADS][2]; /* soft, kvm */

static const char *why_not(const struct payload *p, enum engine_kind kind)
{
	if (kind == ENGINE_SOFT)
		return NULL;
	if (!probe.present)
		return probe.reason;
	return p->exact && !probe.usable ? probe.reason : NULL;
}

static bool init_or_skip(struct machine *m, enum engine_kind kind, unsigned cpus, uint8_t *ram)
{
	if (machine_init(m, kind, cpus, ram))
		return true;
	fail_msg("%s", err_msg(&m->err));
	return false;
}

static void run_payload(const struct payload *p, enum engine_kind kind, struct outcome *o)
{
	struct machine m;
	struct engine_stats stats;
	struct err err = ERR_INIT;

	init_or_skip(&m, kind, p->cpus, NULL);
	if (!machine_load(&m, p->name))
		fail_msg("%s", err_msg(&m.err));
	alarm(TIMEOUT_S);
	machine_run(&m);
	alarm(0);
	engine_get_stats(m.engine, &stats);
	o->ran = true;
	o->end = m.ends[0];
	o->exit_code = m.exit_code;
	o->handovers = stats.handovers;
	memcpy(o->serial, m.serial, sizeof(o->serial));
	memcpy(o->results, m.ram + RESULTS, sizeof(o->results));
	if (o->end != VCPU_EXIT_SHUTDOWN && vcpu_get_state(m.vcpus[0], &o->state, &err) < 0)
		fail_msg("%s", err_msg(&err));
	if (m.err.code)
		fail_msg("%s", err_msg(&m.err));
	machine_free(&m);
}

static void payload_test(const struct payload *p, enum engine_kind kind)
{
	struct outcome *o = &outcomes[p - payloads][kind == ENGINE_KVM];
	const char *why = why_not(p, kind);

	if (why) {
		print_message("SKIP %s: %s\n", p->name, why);
		skip();
	}
	run_payload(p, kind, o);
	if (p->shuts_down) {
		assert_int_equal(o->end, VCPU_EXIT_SHUTDOWN);
		return;
	}
	assert_int_equal(o->end, VCPU_EXIT_KICK);
	if (o->exit_code == EXIT_SKIP) {
		o->skipped = true;
		print_message("SKIP %s: this CPU does not offer the feature\n", p->name);
		skip();
	}
	if (o->exit_code & EXIT_EXCEPTION)
		fail_msg("%s: exception %u that nobody expected", p->name, o->exit_code & 0xff);
	if (o->exit_code)
		fail_msg("%s.S:%u: check failed", p->name, o->exit_code);
}

static void on_soft(void **state)
{
	payload_test(*state, ENGINE_SOFT);
}

static void on_kvm(void **state)
{
	payload_test(*state, ENGINE_KVM);
}

/* ---- Comparing ------------------------------------------------------------- */

#define SAME(field) \
	do { \
		if (a->field != b->field) \
			fail_msg(#field " differs: 0x%llx and 0x%llx", (unsigned long long)a->field, \
				 (unsigned long long)b->field); \
	} while (0)

static void same_segment(const char *name, const struct cpu_segment *a, const struct cpu_segment *b)
{
	if (a->selector != b->selector)
		fail_msg("selector of %s differs: 0x%x and 0x%x", name, a->selector, b->selector);
	if ((a->attr | b->attr) & SEG_ATTR_UNUSABLE || !(a->selector & ~3))
		return; /* what a null segment caches is nobody's business */
	if (a->base != b->base || a->limit != b->limit || a->attr != b->attr)
		fail_msg("%s differs: base 0x%llx, limit 0x%x, attr 0x%x and base 0x%llx, limit 0x%x, attr 0x%x", name,
			 (unsigned long long)a->base, a->limit, a->attr, (unsigned long long)b->base, b->limit,
			 b->attr);
}

/* The instruction and data pointers of x87 are zeroed by some processors; TOP is part of FSW. */
static void same_vectors(const struct cpu_state *a, const struct cpu_state *b)
{
	enum { FCW = 0, FSW = 2, FTW = 4, MXCSR = 24, ST = 32, XMM = 160, XMM_END = 416 };

	assert_memory_equal(a->xsave + FCW, b->xsave + FCW, 2);
	assert_memory_equal(a->xsave + FSW, b->xsave + FSW, 2);
	assert_memory_equal(a->xsave + FTW, b->xsave + FTW, 1);
	assert_memory_equal(a->xsave + MXCSR, b->xsave + MXCSR, 4);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(a->xsave + ST + 16 * i, b->xsave + ST + 16 * i, 10);
	assert_memory_equal(a->xsave + XMM, b->xsave + XMM, XMM_END - XMM);
}

static void same_state(const struct payload *p, const struct cpu_state *a, const struct cpu_state *b)
{
	static const char *const names[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS" };

	for (unsigned i = 0; i < 16 && !p->timed; i++)
		SAME(gpr[i]);
	SAME(rip);
	SAME(rflags);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		same_segment(names[i], &a->seg[i], &b->seg[i]);
	same_segment("TR", &a->tr, &b->tr);
	SAME(gdtr.base);
	SAME(gdtr.limit);
	SAME(idtr.base);
	SAME(idtr.limit);
	SAME(cr0);
	SAME(cr2);
	SAME(cr3);
	SAME(cr4);
	SAME(cr8);
	SAME(xcr0);
	SAME(efer);
	for (unsigned i = 0; i < 4; i++)
		SAME(dr[i]);
	SAME(dr[6]);
	SAME(dr[7]);
	SAME(star);
	SAME(lstar);
	SAME(sfmask);
	SAME(kernel_gs_base);
	SAME(apic_base);
	SAME(event_pending);
	SAME(nmi_masked);
	same_vectors(a, b);
}

static void alike(void **state)
{
	const struct payload *p = *state;
	const struct outcome *soft = &outcomes[p - payloads][0], *kvm = &outcomes[p - payloads][1];

	if (!soft->ran || !kvm->ran || soft->skipped || kvm->skipped || p->shuts_down) {
		print_message("SKIP %s: not both engines ran it to its end\n", p->name);
		skip();
	}
	assert_string_equal(soft->serial, kvm->serial);
	for (unsigned i = 0; i < sizeof(soft->results); i++)
		if (soft->results[i] != kvm->results[i])
			fail_msg("results differ at 0x%x: soft %02x, kvm %02x", RESULTS + i, soft->results[i],
				 kvm->results[i]);
	same_state(p, &soft->state, &kvm->state);
}

/* The hand-over at work: a KVM that lacks instructions has needed it in "refused". */
static void handovers_counted(void **state)
{
	const struct outcome *o = &outcomes[1][1];

	if (!o->ran || !strstr(probe.refused, "int3")) {
		print_message("SKIP: this host's KVM executes everything itself\n");
		skip();
	}
	assert_true(o->handovers >= 2); /* INT3 and CMPXCHG16B at least */
}

/* ---- A vCPU on the move ----------------------------------------------------- */

static void must(int r, const struct err *err)
{
	if (r < 0)
		fail_msg("%s", err_msg(err));
}

/* Runs on `from` until the next marker, then a few instructions on `by`, and so on, to the end. */
static unsigned move_about(struct machine *from, struct machine *by)
{
	static struct cpu_state s;
	struct err err = ERR_INIT;
	uint32_t random = 12345;
	unsigned moves = 0;

	from->stop_at_markers = true;
	for (;;) {
		enum vcpu_exit exit = vcpu_run(from->vcpus[0], &err);

		assert_int_equal(exit, VCPU_EXIT_KICK);
		if (from->exited)
			break;
		must(vcpu_get_state(from->vcpus[0], &s, &err), &err);
		must(vcpu_set_state(by->vcpus[0], &s, &err), &err);
		/* The code was written by the other side, behind this one's back. */
		if (!moves)
			engine_written(by->engine, 0, GUEST_RAM);
		random = random * 1103515245 + 12345;
		must(vcpu_step(by->vcpus[0], 1 + (random >> 16) % 12, &exit, &err), &err);
		assert_int_equal(exit, VCPU_EXIT_KICK);
		must(vcpu_get_state(by->vcpus[0], &s, &err), &err);
		if (by->exited)
			break;
		must(vcpu_set_state(from->vcpus[0], &s, &err), &err);
		moves++;
	}
	return moves;
}

static void handback(enum engine_kind kind)
{
	const struct payload *p = &payloads[9];
	static struct outcome unmoved;
	static struct cpu_state end;
	struct machine from, by;
	struct err err = ERR_INIT;
	unsigned moves;

	assert_string_equal(p->name, "handback");
	run_payload(p, ENGINE_SOFT, &unmoved);
	init_or_skip(&from, kind, 1, NULL);
	init_or_skip(&by, ENGINE_SOFT, 1, from.ram);
	if (!machine_load(&from, p->name))
		fail_msg("%s", err_msg(&from.err));
	alarm(TIMEOUT_S);
	moves = move_about(&from, &by);
	alarm(0);
	if (from.exit_code || by.exit_code)
		fail_msg("handback.S:%u: check failed", from.exit_code | by.exit_code);
	assert_true(moves > 60);
	assert_memory_equal(from.ram + RESULTS, unmoved.results, sizeof(unmoved.results));
	must(vcpu_get_state(from.exited ? from.vcpus[0] : by.vcpus[0], &end, &err), &err);
	same_state(p, &end, &unmoved.state);
	machine_free(&by);
	machine_free(&from);
}

static void handback_soft(void **state)
{
	handback(ENGINE_SOFT);
}

static void handback_kvm(void **state)
{
	if (!probe.present) {
		print_message("SKIP: %s\n", probe.reason);
		skip();
	}
	handback(ENGINE_KVM);
}

int main(void)
{
	static struct CMUnitTest tests[3 * PAYLOADS + 3];
	static char names[3 * PAYLOADS][40];
	size_t n = 0;

	log_set_level(LOG_ERROR);
	engine_probe_kvm(&probe);
	for (size_t i = 0; i < PAYLOADS; i++) {
		static const struct {
			const char *suffix;
			CMUnitTestFunction fn;
		} kinds[3] = { { "on soft", on_soft }, { "on kvm", on_kvm }, { "alike", alike } };

		for (unsigned k = 0; k < 3; k++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s %s", payloads[i].name, kinds[k].suffix);
			tests[n] = (struct CMUnitTest){ .name = names[n], .test_func = kinds[k].fn,
							.initial_state = (void *)&payloads[i] };
		}
	}
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(handovers_counted);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(handback_soft);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(handback_kvm);
	return cmocka_run_group_tests_name("payloads", tests, NULL, NULL);
}
