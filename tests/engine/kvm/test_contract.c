/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What engine.h promises, asked of both engines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine.h"
#include "util/log.h"

#define TIMEOUT_S 60

static struct engine_probe probe;
static const enum engine_kind kinds[] = { ENGINE_SOFT, ENGINE_KVM };

static enum engine_kind kind_or_skip(void **state)
{
	enum engine_kind kind = *(const enum engine_kind *)*state;

	if (kind == ENGINE_KVM && !probe.present) {
		print_message("SKIP: %s\n", probe.reason);
		skip();
	}
	return kind;
}

static void start(struct machine *m, enum engine_kind kind, unsigned cpus, const char *payload)
{
	if (!machine_init(m, kind, cpus, NULL) || (payload && !machine_load(m, payload)))
		fail_msg("%s", err_msg(&m->err));
	alarm(TIMEOUT_S);
}

static void end(struct machine *m)
{
	alarm(0);
	machine_free(m);
}

static void get(struct machine *m, unsigned index, struct cpu_state *s)
{
	struct err err = ERR_INIT;

	if (vcpu_get_state(m->vcpus[index], s, &err) < 0)
		fail_msg("%s", err_msg(&err));
}

static void set(struct machine *m, unsigned index, const struct cpu_state *s)
{
	struct err err = ERR_INIT;

	if (vcpu_set_state(m->vcpus[index], s, &err) < 0)
		fail_msg("%s", err_msg(&err));
}

/* ---- State ------------------------------------------------------------------ */

#define SAME(field) \
	do { \
		if (a->field != b->field) \
			fail_msg(#field " differs: 0x%llx and 0x%llx", (unsigned long long)a->field, \
				 (unsigned long long)b->field); \
	} while (0)

/* All that comes back exactly as it was set. Not here: clocks, which run on, and MSRs that not every KVM has. */
static void same_exactly(const struct cpu_state *a, const struct cpu_state *b)
{
	for (unsigned i = 0; i < 16; i++)
		SAME(gpr[i]);
	SAME(rip);
	SAME(rflags);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		SAME(seg[i].base);
		SAME(seg[i].limit);
		SAME(seg[i].selector);
		SAME(seg[i].attr);
	}
	SAME(tr.base);
	SAME(tr.selector);
	SAME(gdtr.base);
	SAME(idtr.limit);
	SAME(cr0);
	SAME(cr2);
	SAME(cr3);
	SAME(cr4);
	SAME(cr8);
	SAME(efer);
	for (unsigned i = 0; i < 4; i++)
		SAME(dr[i]);
	SAME(dr[6]);
	SAME(dr[7]);
	SAME(tsc_adjust);
	SAME(apic_base);
	SAME(pat);
	SAME(misc_enable);
	SAME(sysenter_cs);
	SAME(sysenter_esp);
	SAME(sysenter_eip);
	SAME(star);
	SAME(lstar);
	SAME(cstar);
	SAME(sfmask);
	SAME(kernel_gs_base);
	SAME(mtrr_def_type);
	for (unsigned i = 0; i < CPU_MTRR_VAR; i++) {
		SAME(mtrr_phys[i][0]);
		SAME(mtrr_phys[i][1]);
	}
	for (unsigned i = 0; i < 11; i++)
		SAME(mtrr_fix[i]);
	SAME(kvm_system_time);
	SAME(kvm_wall_clock);
	SAME(mp_state);
	SAME(interrupt_shadow);
	SAME(nmi_masked);
	SAME(nmi_pending);
	SAME(event_pending);
	SAME(event_vector);
	SAME(event_kind);
	SAME(event_has_error);
	SAME(event_error);
	assert_memory_equal(a->lapic + 0x80, b->lapic + 0x80, 4);   /* TPR */
	assert_memory_equal(a->lapic + 0xd0, b->lapic + 0xd0, 4);   /* LDR */
	assert_memory_equal(a->lapic + 0xf0, b->lapic + 0xf0, 4);   /* SVR */
	assert_memory_equal(a->lapic + 0x100, b->lapic + 0x100, 0x180); /* ISR, TMR, IRR */
	assert_memory_equal(a->lapic + 0x320, b->lapic + 0x320, 0x64);  /* LVT and initial count */
	assert_memory_equal(a->xsave, b->xsave, 6);
	assert_memory_equal(a->xsave + 24, b->xsave + 24, 4);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(a->xsave + 32 + 16 * i, b->xsave + 32 + 16 * i, 10);
	assert_memory_equal(a->xsave + 160, b->xsave + 160, 256);
}

static void put32(uint8_t *p, uint32_t value)
{
	memcpy(p, &value, sizeof(value));
}

/* A 64-bit kernel's state, every field different from reset. */
static void make_state(struct cpu_state *s)
{
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = 0x0102030405060708ull * (i + 1);
	s->rip = 0xffffffff81234567;
	s->rflags = 0x246;
	s->seg[SEG_CS] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xa09b, .selector = 0x10 };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i != SEG_CS)
			s->seg[i] = (struct cpu_segment){ .limit = UINT32_MAX, .attr = 0xc093, .selector = 0x18 };
	s->seg[SEG_FS].base = 0x7f0011223000;
	s->seg[SEG_GS].base = 0xffff888000001000;
	s->tr = (struct cpu_segment){ .base = 0xfffffe0000003000, .limit = 0x206f, .attr = 0x8b, .selector = 0x40 };
	s->gdtr = (struct cpu_table){ .base = 0xfffffe0000001000, .limit = 0x7f };
	s->idtr = (struct cpu_table){ .base = 0xfffffe0000000000, .limit = 0xfff };
	s->cr0 = 0x80050033;
	s->cr2 = 0x7fff12345678;
	s->cr3 = 0x2000;
	s->cr4 = 0x6a0; /* PAE PGE OSFXSR OSXMMEXCPT */
	s->cr8 = 3;
	s->efer = 0xd01;
	for (unsigned i = 0; i < 4; i++)
		s->dr[i] = 0x1000 * (i + 1);
	s->dr[6] = 0xffff0ff1;
	s->tsc_adjust = 0x1234567;
	s->pat = 0x0407050600070106;
	s->sysenter_cs = 0x10;
	s->sysenter_esp = 0xfffffe0000002200;
	s->sysenter_eip = 0xffffffff81601000;
	s->star = 0x0023001000000000;
	s->lstar = 0xffffffff81600000;
	s->cstar = 0xffffffff81600800;
	s->sfmask = 0x257fd5;
	s->kernel_gs_base = 0x7f0099887000;
	s->mtrr_phys[2][0] = 0x80000000;
	s->mtrr_phys[2][1] = 0xff80000800;
	s->mtrr_fix[0] = 0x0606060606060606;
	s->mtrr_fix[10] = 0x0505050505050505;
	put32(s->lapic + 0x80, 0x30);
	put32(s->lapic + 0xf0, 0x1ff);
	put32(s->lapic + 0xd0, 0x01000000);
	put32(s->lapic + 0x120, 1u << 3);  /* vector 23h in service */
	put32(s->lapic + 0x230, 1u << 17); /* 71h requested */
	put32(s->lapic + 0x1a0, 1u << 3);  /* 23h is level-triggered */
	put32(s->lapic + 0x320, 0x10031);
	put32(s->lapic + 0x350, 0x10700);
	put32(s->lapic + 0x360, 0x400);
	memset(s->xsave, 0, sizeof(s->xsave));
	put32(s->xsave, 0x0800027f); /* FCW, FSW with TOP 1 */
	s->xsave[4] = 0x80;
	put32(s->xsave + 24, 0x1fa0);
	put32(s->xsave + 28, 0xffff);
	for (unsigned i = 0; i < 10; i++)
		s->xsave[32 + i] = 0x80 + i;
	for (unsigned i = 0; i < 256; i++)
		s->xsave[160 + i] = i * 7;
	s->xsave[512] = 3;
}

static void state_round_trip(void **state)
{
	static struct cpu_state before, after;
	struct machine m;

	start(&m, kind_or_skip(state), 1, NULL);
	get(&m, 0, &before);
	make_state(&before);
	set(&m, 0, &before);
	get(&m, 0, &after);
	same_exactly(&before, &after);

	before.interrupt_shadow = 1;
	before.nmi_masked = 1;
	before.nmi_pending = 1;
	before.mp_state = CPU_MP_HALTED;
	set(&m, 0, &before);
	get(&m, 0, &after);
	same_exactly(&before, &after);

	before.interrupt_shadow = 0;
	before.mp_state = CPU_MP_RUNNABLE;
	before.event_pending = 1;
	before.event_kind = CPU_EVENT_INTERRUPT;
	before.event_vector = 0x55;
	set(&m, 0, &before);
	get(&m, 0, &after);
	same_exactly(&before, &after);

	before.event_kind = CPU_EVENT_EXCEPTION;
	before.event_vector = 14;
	before.event_has_error = 1;
	before.event_error = 6;
	before.event_payload = 0x123456000;
	set(&m, 0, &before);
	get(&m, 0, &after);
	assert_int_equal(after.event_payload, 0x123456000);
	before.cr2 = after.cr2; /* already there, or still to come: both are right */
	same_exactly(&before, &after);
	end(&m);
}

/* What one engine says, the other takes. */
static void state_crosses(void **state)
{
	static struct cpu_state before, after;
	struct machine soft, kvm;

	kind_or_skip(state);
	start(&soft, ENGINE_SOFT, 1, NULL);
	start(&kvm, ENGINE_KVM, 1, NULL);
	get(&soft, 0, &before);
	make_state(&before);
	set(&soft, 0, &before);
	get(&soft, 0, &before);
	set(&kvm, 0, &before);
	get(&kvm, 0, &after);
	same_exactly(&before, &after);
	set(&soft, 0, &after);
	get(&soft, 0, &after);
	same_exactly(&before, &after);
	end(&kvm);
	end(&soft);
}

static void state_reset(void **state)
{
	static struct cpu_state reset, got;
	struct machine m;

	start(&m, kind_or_skip(state), 2, NULL);
	for (unsigned i = 0; i < 2; i++) {
		cpu_state_reset(&reset, i);
		get(&m, i, &got);
		same_exactly(&reset, &got);
		assert_memory_equal(reset.lapic + 0x20, got.lapic + 0x20, 4);
	}
	end(&m);
}

static void refuses(struct machine *m, const struct cpu_state *good, size_t offset, uint64_t value)
{
	static struct cpu_state bad;
	struct err err = ERR_INIT;

	bad = *good;
	memcpy((char *)&bad + offset, &value, sizeof(value));
	assert_int_equal(vcpu_set_state(m->vcpus[0], &bad, &err), -EINVAL);
	assert_true(strlen(err_msg(&err)) > 10);
}
#define REFUSES(field, value) refuses(&m, &good, offsetof(struct cpu_state, field), value)

static void state_refused(void **state)
{
	static struct cpu_state good;
	struct machine m;

	start(&m, kind_or_skip(state), 1, NULL);
	get(&m, 0, &good);
	make_state(&good);
	set(&m, 0, &good);
	REFUSES(cr0, 0x80000010);           /* PG without PE */
	REFUSES(cr0, 0x20050033);           /* NW without CD */
	REFUSES(cr0, 0x180050033);          /* reserved */
	REFUSES(cr4, 0x680);                /* long mode without PAE */
	REFUSES(cr4, 0x800006a0);           /* reserved */
	REFUSES(efer, 0x901);               /* LME and PG, but not LMA */
	REFUSES(efer, 0x10d01);             /* reserved */
	REFUSES(xcr0, 0);
	REFUSES(xcr0, 5);                   /* AVX without SSE */
	REFUSES(seg[SEG_FS].base, 0x800000000000);
	REFUSES(tr.base, 0x8000000000000000);
	REFUSES(gdtr.base, 0xff00000000000000);
	REFUSES(lstar, 0x1000000000000);
	REFUSES(rflags, 0x8002);
	REFUSES(cr3, 1ull << 60);
	set(&m, 0, &good);
	end(&m);
}

/* ---- Running and kicking ----------------------------------------------------- */

static void kick_before_run(void **state)
{
	struct machine m;
	struct err err = ERR_INIT;

	start(&m, kind_or_skip(state), 1, "spin");
	vcpu_kick(m.vcpus[0]);
	assert_int_equal(vcpu_run(m.vcpus[0], &err), VCPU_EXIT_KICK);
	assert_int_equal(m.markers, 0);
	end(&m);
}

struct kicker {
	struct machine *m;
	_Atomic unsigned exits;
	unsigned rounds;
};

/* One kick, one exit: a lost one leaves both sides waiting for ever. */
static void *kick_and_wait(void *arg)
{
	struct kicker *k = arg;

	for (unsigned i = 1; i <= k->rounds; i++) {
		vcpu_kick(k->m->vcpus[0]);
		while (k->exits < i)
			usleep(20);
	}
	return NULL;
}

static void kick_many(enum engine_kind kind, const char *payload)
{
	struct machine m;
	struct kicker k = { .m = &m, .rounds = 300 };
	struct err err = ERR_INIT;
	pthread_t thread;

	start(&m, kind, 1, payload);
	pthread_create(&thread, NULL, kick_and_wait, &k);
	for (unsigned i = 0; i < k.rounds; i++) {
		assert_int_equal(vcpu_run(m.vcpus[0], &err), VCPU_EXIT_KICK);
		k.exits++;
	}
	pthread_join(thread, NULL);
	assert_int_equal(m.markers, 1);
	end(&m);
}

static void kick_running(void **state)
{
	kick_many(kind_or_skip(state), "spin");
}

static void kick_halted(void **state)
{
	kick_many(kind_or_skip(state), "idle");
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void *kick_later(void *arg)
{
	struct machine *m = arg;

	while (!m->markers)
		usleep(100);
	usleep(200000);
	m->exited = true;
	vcpu_kick(m->vcpus[0]);
	return NULL;
}

/* A halted guest costs nothing: far below 2 % of the 200 ms. */
static void idle_is_free(void **state)
{
	struct machine m;
	pthread_t thread;
	uint64_t used;

	start(&m, kind_or_skip(state), 1, "idle");
	m.stop_at_markers = true;
	machine_run(&(struct machine){ 0 }); /* nothing; warms the thread code up */
	{
		struct err err = ERR_INIT;

		assert_int_equal(vcpu_run(m.vcpus[0], &err), VCPU_EXIT_KICK);
	}
	m.stop_at_markers = false;
	used = cpu_ns();
	pthread_create(&thread, NULL, kick_later, &m);
	machine_run(&m);
	pthread_join(thread, NULL);
	used = cpu_ns() - used;
	if (used > 20000000)
		fail_msg("an idle vCPU used %llu us of 200 ms", (unsigned long long)used / 1000);
	end(&m);
}

/* Each marker means that the guest is about to halt. */
static void *send_nmis(void *arg)
{
	struct machine *m = arg;

	for (unsigned i = 1; i <= 3; i++) {
		while (m->markers < i)
			usleep(100);
		usleep(20000);
		vcpu_nmi(m->vcpus[0]);
	}
	return NULL;
}

static void nmi_wakes(void **state)
{
	struct machine m;
	pthread_t thread;

	start(&m, kind_or_skip(state), 1, "nmi");
	pthread_create(&thread, NULL, send_nmis, &m);
	machine_run(&m);
	pthread_join(thread, NULL);
	assert_int_equal(m.exit_code, 0);
	assert_true(m.exited);
	assert_int_equal(m.markers, 3);
	end(&m);
}

/* ---- Memory ------------------------------------------------------------------ */

static void map_errors(void **state)
{
	struct machine m;
	struct err err = ERR_INIT;
	void *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	start(&m, kind_or_skip(state), 1, NULL);
	assert_int_equal(engine_map(m.engine, GUEST_RAM - 4096, 8192, page, false, &err), -EEXIST);
	assert_true(err.code == EEXIST);
	err = ERR_INIT;
	assert_int_equal(engine_unmap(m.engine, GUEST_RAM, 4096, &err), -ENOENT);
	assert_int_equal(engine_map(m.engine, GUEST_RAM, 8192, page, false, NULL), 0);
	assert_int_equal(engine_unmap(m.engine, GUEST_RAM, 8192, NULL), 0);
	assert_int_equal(engine_map(m.engine, GUEST_RAM, 4096, page, false, NULL), 0);
	end(&m);
	munmap(page, 8192);
}

static bool dirty_bit(const uint8_t *bitmap, uint64_t gpa)
{
	return bitmap[gpa / 4096 / 8] >> (gpa / 4096 % 8) & 1;
}

static void dirty_log(void **state)
{
	enum { BYTES = GUEST_RAM / 4096 / 8 };
	uint8_t bitmap[BYTES];
	struct machine m;
	struct err err = ERR_INIT;

	start(&m, kind_or_skip(state), 1, "strings");
	assert_int_equal(engine_dirty_fetch(m.engine, 0, GUEST_RAM, bitmap, &err), -ENOENT);
	err = ERR_INIT;
	assert_int_equal(engine_dirty_start(m.engine, &err), 0);
	assert_int_equal(engine_dirty_fetch(m.engine, 0, GUEST_RAM, bitmap, &err), 0);
	for (unsigned i = 0; i < BYTES; i++)
		assert_int_equal(bitmap[i], 0);
	machine_run(&m);
	assert_int_equal(m.exit_code, 0);
	engine_written(m.engine, 0x300ffe, 4);
	/* A part first: it must not lose the rest. Page 101h to 111h is not aligned to anything. */
	memset(bitmap, 0xee, sizeof(bitmap));
	assert_int_equal(engine_dirty_fetch(m.engine, 0x101000, 0x10000, bitmap, &err), 0);
	assert_true(bitmap[15 / 8] >> (15 % 8) & 1); /* 110000h, where "strings" writes */
	assert_int_equal(bitmap[2], 0);
	assert_int_equal(bitmap[7], 0);
	assert_int_equal(bitmap[8], 0xee); /* one word for 16 pages, not more */
	assert_int_equal(engine_dirty_fetch(m.engine, 0, GUEST_RAM, bitmap, &err), 0);
	assert_false(dirty_bit(bitmap, 0x110000));
	assert_true(dirty_bit(bitmap, RESULTS));
	assert_true(dirty_bit(bitmap, PT)); /* accessed bits, written by the walk or by hand */
	assert_true(dirty_bit(bitmap, STACK_TOP - 8));
	assert_true(dirty_bit(bitmap, 0x114000));
	assert_true(dirty_bit(bitmap, 0x300000));
	assert_true(dirty_bit(bitmap, 0x301000));
	assert_false(dirty_bit(bitmap, 0x302000));
	assert_false(dirty_bit(bitmap, 0x200000));
	assert_int_equal(engine_dirty_fetch(m.engine, 0, GUEST_RAM, bitmap, &err), 0);
	for (unsigned i = 0; i < BYTES; i++)
		assert_int_equal(bitmap[i], 0);
	assert_int_equal(engine_dirty_stop(m.engine, &err), 0);
	end(&m);
}

/* A guest that writes one page again and again while somebody fetches: each fetch sees it anew. */
static void *fetch_often(void *arg)
{
	struct machine *m = arg;
	uint8_t bitmap[8];
	unsigned seen = 0;

	while (seen < 20) {
		struct err err = ERR_INIT;

		if (engine_dirty_fetch(m->engine, SCRATCH, 4096, bitmap, &err) < 0)
			break;
		seen += bitmap[0] & 1;
		usleep(100);
	}
	m->exited = true;
	vcpu_kick(m->vcpus[0]);
	return NULL;
}

static void dirty_log_running(void **state)
{
	struct machine m;
	struct err err = ERR_INIT;
	pthread_t thread;

	start(&m, kind_or_skip(state), 1, "spin");
	assert_int_equal(engine_dirty_start(m.engine, &err), 0);
	pthread_create(&thread, NULL, fetch_often, &m);
	machine_run(&m);
	pthread_join(thread, NULL);
	end(&m);
}

static void translate(void **state)
{
	struct machine m;
	uint64_t gpa;

	start(&m, kind_or_skip(state), 1, "device");
	machine_run(&m);
	assert_int_equal(m.exit_code, 0);
	assert_int_equal(m.rom_writes, 2);
	assert_true(vcpu_translate(m.vcpus[0], 0x123456, &gpa));
	assert_int_equal(gpa, 0x123456);
	assert_true(vcpu_translate(m.vcpus[0], DEVICE + 0x123, &gpa));
	assert_int_equal(gpa, DEVICE + 0x123);
	assert_false(vcpu_translate(m.vcpus[0], 0x50000000, &gpa));
	assert_false(vcpu_translate(m.vcpus[0], 0xffff800000000000, &gpa));
	end(&m);
}

/* ---- Interrupts, doorbells --------------------------------------------------- */

static void irq_paths(void **state)
{
	struct engine_route routes[24] = { [5] = { .address = 0xfee00000, .data = 0xc050 },
					   [6] = { .address = 0xfee00000, .data = 0x0060 } };
	struct machine m;
	struct err err = ERR_INIT;
	int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	eventfd_t rung = 0;
	int r;

	start(&m, kind_or_skip(state), 1, "irqs");
	engine_ioapic_routes(m.engine, routes, 24);
	routes[5] = (struct engine_route){ 0 }; /* masked: the EOI of what is under way still counts */
	engine_ioapic_routes(m.engine, routes, 24);
	r = engine_ioeventfd(m.engine, DOORBELL, 4, bell, true, &err);
	assert_true(r == 0 || r == -ENOTSUP);
	if (engine_irqfd(m.engine, irq, 0xfee00000, 0x77, true, &err) == 0) {
		/* Given again: the message changes. */
		assert_int_equal(engine_irqfd(m.engine, irq, 0xfee00000, IRQFD_VECTOR, true, &err), 0);
		m.irqfd = irq;
	}
	machine_run(&m);
	assert_int_equal(m.exit_code, 0);
	assert_true(m.exited);
	assert_int_equal(m.eois, 1); /* of the level-triggered one only */
	if (r == 0) {
		eventfd_read(bell, &rung);
		assert_int_equal(rung, 2);
		assert_int_equal(m.doorbells, 0);
		assert_int_equal(engine_ioeventfd(m.engine, DOORBELL, 4, bell, false, &err), 0);
	} else {
		assert_int_equal(m.doorbells, 2);
	}
	if (m.irqfd >= 0) {
		assert_int_equal(engine_irqfd(m.engine, irq, 0, 0, false, &err), 0);
		assert_true(engine_irqfd(m.engine, irq, 0, 0, false, &err) < 0);
	}
	end(&m);
	close(bell);
	close(irq);
}

/* ---- CPUID, clocks ------------------------------------------------------------ */

static uint32_t cpuid(struct machine *m, unsigned index, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
	uint32_t regs[4];

	engine_cpuid(m->engine, index, leaf, subleaf, regs);
	return regs[reg];
}

static void cpuid_shape(void **state)
{
	enum { EAX, EBX, ECX, EDX };
	struct machine m;

	start(&m, kind_or_skip(state), 3, NULL);
	assert_true(cpuid(&m, 0, 0, 0, EAX) >= 0x16);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(cpuid(&m, i, 1, 0, EBX) >> 24, i);
		assert_int_equal(cpuid(&m, i, 1, 0, EBX) >> 16 & 0xff, 4);
		assert_int_equal(cpuid(&m, i, 0xb, 0, EDX), i);
		assert_int_equal(cpuid(&m, i, 0xb, 1, EBX), 3);
		assert_int_equal(cpuid(&m, i, 0xb, 1, EAX), 2);
	}
	assert_true(cpuid(&m, 0, 1, 0, EDX) >> 28 & 1);  /* several logical processors */
	assert_true(cpuid(&m, 0, 1, 0, ECX) >> 31 & 1);  /* hypervisor */
	assert_false(cpuid(&m, 0, 1, 0, ECX) >> 5 & 1);  /* VMX */
	assert_false(cpuid(&m, 0, 1, 0, ECX) >> 3 & 1);  /* MONITOR */
	assert_int_equal(cpuid(&m, 0, 7, 0, EBX) & 0xdc230810, 0); /* AVX-512, TSX */
	assert_int_equal(cpuid(&m, 0, 7, 0, ECX) & 0x98, 0);       /* PKU, CET */
	assert_int_equal(cpuid(&m, 0, 0xd, 0, EAX) & ~7u, 0);
	assert_false(cpuid(&m, 0, 0x80000001, 0, ECX) >> 2 & 1);   /* SVM */
	assert_true(cpuid(&m, 0, 0x80000001, 0, EDX) >> 29 & 1);
	assert_int_equal(cpuid(&m, 0, 0x40000000, 0, EBX), 0x4b4d564b);
	assert_true(cpuid(&m, 0, 0x40000001, 0, EAX) >> 3 & 1);    /* kvmclock */
	assert_int_equal(cpuid(&m, 0, 0x40000010, 0, EAX), engine_tsc_khz(m.engine));
	/* Leaf 15h as Linux computes it, in 32 bits, to 10 ppm */
	{
		uint32_t khz = cpuid(&m, 0, 0x15, 0, ECX) / 1000 * cpuid(&m, 0, 0x15, 0, EBX) /
			       cpuid(&m, 0, 0x15, 0, EAX);
		double off = (double)khz / engine_tsc_khz(m.engine) - 1;

		assert_true(off < 1e-5 && off > -1e-5);
	}
	end(&m);
}

/* The guest's TSC stands still while frozen, and goes on from there. */
static void clock_freezes(void **state)
{
	static struct cpu_state s;
	enum engine_kind kind = kind_or_skip(state);
	struct machine m;
	uint64_t first, ms;
	uint32_t count;

	start(&m, kind, 2, NULL);
	ms = engine_tsc_khz(m.engine);
	get(&m, 0, &s);
	s.tsc = 1ull << 50;
	set(&m, 0, &s);
	get(&m, 0, &s);
	if (s.tsc >> 50 != 1) {
		print_message("SKIP: this KVM shows guests the host's TSC as it is\n");
		end(&m);
		skip();
	}
	s.tsc = 1; /* 0 is power-on */
	put32(s.lapic + 0xf0, 0x1ff);
	put32(s.lapic + 0x320, 0x41);        /* once, */
	put32(s.lapic + 0x3e0, 0xb);         /* by 1: */
	put32(s.lapic + 0x380, 1000000000);  /* in a second */
	put32(s.lapic + 0x390, 1000000000);
	set(&m, 0, &s);
	engine_clock(m.engine, false);
	get(&m, 0, &s);
	first = s.tsc;
	memcpy(&count, s.lapic + 0x390, sizeof(count));
	usleep(30000);
	get(&m, 0, &s);
	assert_int_equal(s.tsc, first);
	/* kvm lets this one run on (clock.c says why). */
	if (kind == ENGINE_SOFT)
		assert_memory_equal(&count, s.lapic + 0x390, sizeof(count));
	assert_true(count > 900000000);
	engine_clock(m.engine, false);
	engine_clock(m.engine, true);
	get(&m, 0, &s);
	assert_true(s.tsc >= first);
	assert_true(s.tsc < first + 20 * ms); /* less than the 30 ms that passed */
	if (kind == ENGINE_SOFT) {
		uint32_t left;

		memcpy(&left, s.lapic + 0x390, sizeof(left));
		assert_true(left <= count && left > count - 20000000);
	}
	usleep(10000);
	get(&m, 1, &s);
	assert_true(s.tsc >= first + 10 * ms);
	end(&m);
}

static void probe_speaks(void **state)
{
	struct timespec a, b;
	double ms;

	clock_gettime(CLOCK_MONOTONIC, &a);
	engine_probe_kvm(&probe);
	clock_gettime(CLOCK_MONOTONIC, &b);
	ms = (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6;
	print_message("kvm: %s; usable: %s; %u ns in ring 0; probed in %.1f ms\n", probe.reason,
		      probe.usable ? "yes" : "no", probe.ring0_ns, ms);
	assert_true(strlen(probe.reason) > 10);
	assert_true(probe.present || !probe.usable);
	assert_true(!probe.usable || !*probe.refused);
	/* The paravirtual KVM of this name interprets ring 0. */
	if (access("/sys/module/kvm_pvm", F_OK) == 0 && probe.present)
		assert_false(probe.usable);
}

int main(void)
{
	static const struct {
		const char *name;
		CMUnitTestFunction fn;
		bool kvm_only;
	} asked[] = {
		{ "state round trip", state_round_trip },
		{ "state after reset", state_reset },
		{ "state refused", state_refused },
		{ "state crosses engines", state_crosses, true },
		{ "kick before run", kick_before_run },
		{ "kick running", kick_running },
		{ "kick halted", kick_halted },
		{ "idle is free", idle_is_free },
		{ "NMI wakes", nmi_wakes },
		{ "map errors", map_errors },
		{ "dirty log", dirty_log },
		{ "dirty log while running", dirty_log_running },
		{ "translate, read-only slot", translate },
		{ "interrupts and doorbells", irq_paths },
		{ "CPUID", cpuid_shape },
		{ "clock freezes", clock_freezes },
	};
	enum { N = sizeof(asked) / sizeof(asked[0]) };
	static struct CMUnitTest tests[2 * N + 1];
	static char names[2 * N][48];
	size_t n = 0;

	log_set_level(LOG_ERROR);
	engine_probe_kvm(&probe);
	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < N; i++) {
			if (asked[i].kvm_only && kinds[k] != ENGINE_KVM)
				continue;
			snprintf(names[n], sizeof(names[n]), "%s: %s", k ? "kvm" : "soft", asked[i].name);
			tests[n] = (struct CMUnitTest){ .name = names[n], .test_func = asked[i].fn,
							.initial_state = (void *)&kinds[k] };
			n++;
		}
	tests[n++] = (struct CMUnitTest){ .name = "probe", .test_func = probe_speaks };
	return _cmocka_run_group_tests("contract", tests, n, NULL, NULL);
}
