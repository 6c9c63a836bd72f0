/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that the kernel's emulator refuses, executed by the soft engine.
 *
 * A soft engine of the same shape lies behind the kvm engine from the first
 * such instruction on: same memory, same devices, no threads of its own. It
 * gets the vCPU's state, executes one instruction, and gives the state back.
 *
 * Only those parts travel that the instruction can touch. The local APIC, its
 * timer, the clocks and kvmclock's page never do: they stay the kernel's, so
 * that nothing which arrives meanwhile is overwritten by an older copy. To the
 * soft vCPU its APIC is disabled; should an instruction reach into the APIC's
 * page all the same, the access comes here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm.h"
#include "engine/soft/soft.h"
#include "util/log.h"

#define APIC_BASE_ENABLE 0x800ull
#define APIC_BASE_EXTD 0x400ull
#define APIC_TPR 0x80u
#define SYNC_ALL (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
/* Exits without a hand-over after which the kernel need not bring the registers along any more. */
#define SYNC_IDLE_EXITS 64u

/* What must travel besides general, segment and control registers and pending events. */
enum {
	PART_FPU = 1,   /* x87, vectors, XCR0 */
	PART_MSRS = 2,  /* those that instructions other than RDMSR use: SYSCALL, SWAPGS, RDTSC … */
	PART_DEBUG = 4,
	PART_ALL = 7,
};

struct kvm_handover {
	struct vcpu *soft;
	struct cpu_state state, before;
	struct kvm_sregs sregs; /* as they came, for what the state does not hold */
	uint64_t sync_until;    /* count of exits */
};

/* The hand-over at work in this thread. */
static __thread struct kvm_vcpu *current;

/* ---- What the instruction needs ------------------------------------------ */

struct range {
	uint8_t first, last;
};

static bool in_ranges(uint8_t opcode, const struct range *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (opcode >= r[i].first && opcode <= r[i].last)
			return true;
	return false;
}
#define IN(opcode, ...) \
	in_ranges(opcode, (const struct range[]){ __VA_ARGS__ }, sizeof((const struct range[]){ __VA_ARGS__ }) / 2)

static unsigned parts_of_0f(const struct insn *i)
{
	bool is_register = i->modrm >= 0xc0;

	switch (i->opcode) {
	case 0x01: /* XGETBV, XSETBV; SWAPGS, RDTSCP */
		if (i->modrm == 0xd0 || i->modrm == 0xd1)
			return PART_FPU;
		return i->modrm == 0xf8 || i->modrm == 0xf9 ? PART_MSRS : 0;
	case 0x21: case 0x23:
		return PART_DEBUG;
	case 0x05: case 0x07: case 0x30: case 0x31: case 0x32: case 0x34: case 0x35:
		return PART_MSRS;
	case 0xae: /* FS and GS base, fences, cache lines; else FXSAVE and XSAVE family, MXCSR */
		return is_register ? 0 : PART_FPU;
	case 0xc7: /* CMPXCHG8B/16B, RDRAND; RDPID; XSAVEC, XSAVES, XRSTORS */
		if (is_register)
			return (i->modrm >> 3 & 7) == 7 && i->prefixes & PFX_F3 ? PART_MSRS : 0;
		return (i->modrm >> 3 & 7) == 1 ? 0 : PART_FPU;
	}
	return IN(i->opcode, { 0x10, 0x17 }, { 0x28, 0x2f }, { 0x50, 0x7f }, { 0xc2, 0xc2 }, { 0xc4, 0xc6 },
		  { 0xd0, 0xff }) ? PART_FPU : 0;
}

static unsigned parts_of(const struct insn *i)
{
	switch (i->map) {
	case MAP_1B:
		return IN(i->opcode, { 0x9b, 0x9b }, { 0xd8, 0xdf }) ? PART_FPU : 0;
	case MAP_0F:
		return parts_of_0f(i);
	case MAP_0F38: /* INVPCID; MOVBE, CRC32, BMI, ADX */
		return IN(i->opcode, { 0x82, 0x82 }, { 0xf0, 0xf7 }) ? 0 : PART_FPU;
	default: /* RORX */
		return i->opcode == 0xf0 ? 0 : PART_FPU;
	}
}

/* Decode what the kernel says it could not. Without its help: everything travels. */
static unsigned parts_needed(const struct kvm_run *run, const struct cpu_state *s)
{
	const uint32_t cs = s->seg[SEG_CS].attr;
	unsigned mode = s->efer >> 10 & 1 && cs & SEG_ATTR_L ? MODE_64 : cs & SEG_ATTR_DB ? MODE_32 : MODE_16;
	unsigned size = run->emulation_failure.insn_size;
	struct insn insn;
	unsigned parts;

	if (run->emulation_failure.ndata < 1 ||
	    !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) || size > 15 ||
	    insn_decode(&insn, run->emulation_failure.insn_bytes, size, mode | insn_decode_flags()) != DECODE_OK)
		return PART_ALL;
	parts = parts_of(&insn);
	/* Breakpoints in force: the soft engine must know of them. */
	return s->dr[7] & 0xff ? parts | PART_DEBUG : parts;
}

/* ---- Devices, as the soft engine sees them ------------------------------- */

static const struct engine_host *machine(void *opaque)
{
	return &((struct kvm_engine *)opaque)->engine.config.host;
}

static bool is_apic_page(uint64_t gpa)
{
	uint64_t base = current->handover->sregs.apic_base;

	return (base & (APIC_BASE_ENABLE | APIC_BASE_EXTD)) == APIC_BASE_ENABLE &&
	       gpa >> 12 == (base & ~0xfffull) >> 12;
}

static uint32_t host_pio_read(void *opaque, uint16_t port, unsigned size)
{
	return machine(opaque)->pio_read(machine(opaque)->opaque, port, size);
}

static void host_pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	machine(opaque)->pio_write(machine(opaque)->opaque, port, value, size);
}

static uint64_t host_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct kvm_lapic_state lapic;
	uint64_t value = 0;

	if (!is_apic_page(gpa))
		return machine(opaque)->mmio_read(machine(opaque)->opaque, gpa, size);
	if ((gpa & 0xfff) + size <= sizeof(lapic.regs) && kvm_ioctl(current->fd, KVM_GET_LAPIC, &lapic) == 0)
		memcpy(&value, lapic.regs + (gpa & 0xfff), size);
	return value;
}

static void host_mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	if (!is_apic_page(gpa)) {
		machine(opaque)->mmio_write(machine(opaque)->opaque, gpa, value, size);
		return;
	}
	/* Only plain 32-bit stores are defined there (SDM vol. 3 §10.4.1), and those the kernel emulates. */
	log_guest("cpu", "vCPU %u writes the local APIC's register 0x%x with an unusual instruction: ignored",
		  current->vcpu.index, (unsigned)(gpa & 0xfff));
}

static int host_pic_ack(void *opaque)
{
	return -1;
}

static void host_ioapic_eoi(void *opaque, uint8_t vector)
{
}

/* ---- Making the soft engine ---------------------------------------------- */

static struct engine *make_soft(struct kvm_engine *e, struct err *err)
{
	struct engine_config config = {
		.kind = ENGINE_SOFT,
		.cpus = e->engine.config.cpus,
		.host = {
			.opaque = e,
			.pio_read = host_pio_read,
			.pio_write = host_pio_write,
			.mmio_read = host_mmio_read,
			.mmio_write = host_mmio_write,
			.pic_ack = host_pic_ack,
			.ioapic_eoi = host_ioapic_eoi,
		},
	};
	struct engine *soft = engine_new(&config, err);
	int r = 0;

	if (!soft)
		return NULL;
	soft_engine(soft)->probing = true; /* no threads, and no memory of code that the guest may change unseen */
	for (unsigned i = 0; !r && i < e->nslots; i++) {
		const struct kvm_slot *slot = &e->slots[i];

		if (slot->size)
			r = engine_map(soft, slot->gpa, slot->size, slot->hva, slot->readonly, err);
	}
	if (!r && e->logging)
		r = engine_dirty_start(soft, err);
	if (r < 0) {
		engine_free(soft);
		return NULL;
	}
	return soft;
}

static struct engine *get_soft(struct kvm_engine *e, struct err *err)
{
	struct engine *soft = e->soft;

	if (soft)
		return soft;
	pthread_rwlock_rdlock(&e->slots_lock);
	pthread_mutex_lock(&e->soft_lock);
	soft = e->soft;
	if (!soft)
		e->soft = soft = make_soft(e, err);
	pthread_mutex_unlock(&e->soft_lock);
	pthread_rwlock_unlock(&e->slots_lock);
	return soft;
}

static struct kvm_handover *get_handover(struct kvm_vcpu *v, struct err *err)
{
	struct engine *soft = get_soft(kvm_vcpu_engine(v), err);
	struct kvm_handover *h = v->handover;

	if (h || !soft)
		return soft ? h : NULL;
	h = aligned_alloc(64, (sizeof(*h) + 63) & ~63ul);
	if (!h) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	memset(h, 0, sizeof(*h));
	cpu_state_reset(&h->state, v->vcpu.index);
	h->soft = vcpu_new(soft, v->vcpu.index, err);
	if (!h->soft) {
		free(h);
		return NULL;
	}
	v->handover = h;
	return h;
}

void kvm_handover_vcpu_free(struct kvm_vcpu *v)
{
	if (!v->handover)
		return;
	vcpu_free(v->handover->soft);
	free(v->handover);
	v->handover = NULL;
}

void kvm_handover_free(struct kvm_engine *e)
{
	engine_free(e->soft);
	e->soft = NULL;
}

void kvm_handover_map(struct kvm_engine *e, uint64_t gpa, uint64_t size, void *hva, bool readonly, bool add)
{
	struct engine *soft = e->soft;
	struct err err = ERR_INIT;
	int r;

	if (!soft)
		return;
	r = add ? engine_map(soft, gpa, size, hva, readonly, &err) : engine_unmap(soft, gpa, size, &err);
	if (r < 0)
		log_line(LOG_WARN, "memory at 0x%llx is out of reach for instructions that KVM cannot emulate: %s",
			 (unsigned long long)gpa, err_msg(&err));
}

/* ---- State to and fro ---------------------------------------------------- */

static int load(struct kvm_vcpu *v, struct kvm_handover *h, unsigned *parts, struct err *err)
{
	struct cpu_state *s = &h->state;
	struct kvm_run *run = v->run;
	struct kvm_regs regs;
	struct kvm_vcpu_events events;
	int r = 0;

	if (run->kvm_valid_regs) {
		regs = run->s.regs.regs;
		h->sregs = run->s.regs.sregs;
		events = run->s.regs.events;
	} else {
		r = kvm_ioctl(v->fd, KVM_GET_REGS, &regs);
		if (!r)
			r = kvm_ioctl(v->fd, KVM_GET_SREGS, &h->sregs);
		if (!r)
			r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events);
		if (r < 0)
			return err_set_errno(err, -r, "vCPU %u: KVM does not give its registers", v->vcpu.index);
	}
	r = kvm_debug_get(v, s, err);
	if (r < 0)
		return r;
	kvm_regs_to_state(&regs, s);
	kvm_sregs_to_state(&h->sregs, s);
	kvm_events_to_state(&events, s);
	*parts = parts_needed(run, s);
	if (*parts & PART_FPU)
		r = kvm_fpu_get(v, s, err);
	if (!r && *parts & PART_MSRS)
		r = kvm_msr_get(v, s, err);
	/* All that stays with the kernel. */
	s->apic_base &= ~(APIC_BASE_ENABLE | APIC_BASE_EXTD);
	s->lapic[APIC_TPR] = s->cr8 << 4;
	s->nmi_pending = 0;
	s->mp_state = CPU_MP_RUNNABLE;
	s->tsc_deadline = s->kvm_clock = s->kvm_system_time = s->kvm_wall_clock = s->kvm_pv_eoi = s->kvm_steal_time = 0;
	return r;
}

/* Control registers cost the kernel most (it drops its shadow of the page tables): only if they changed. */
static int store_control(struct kvm_vcpu *v, struct kvm_handover *h, struct err *err)
{
	struct kvm_sregs sregs;
	int r;

	kvm_sregs_from_state(&sregs, &h->state);
	sregs.apic_base = h->sregs.apic_base;
	/* A pending interrupt goes back with the events. */
	memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
	memset(h->sregs.interrupt_bitmap, 0, sizeof(h->sregs.interrupt_bitmap));
	if (!memcmp(&sregs, &h->sregs, sizeof(sregs)))
		return 0;
	if (kvm_vcpu_engine(v)->caps.sync_regs) {
		v->run->s.regs.sregs = sregs;
		v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
		return 0;
	}
	r = kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
	return r < 0 ? err_set_errno(err, -r, "vCPU %u: KVM refuses the control registers", v->vcpu.index) : 0;
}

static int store_registers(struct kvm_vcpu *v, struct kvm_handover *h, struct err *err)
{
	struct kvm_run *run = v->run;
	struct kvm_regs regs;
	struct kvm_vcpu_events events;
	int r;

	kvm_regs_from_state(&regs, &h->state);
	kvm_events_from_state(&events, &h->state);
	events.flags &= ~(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR);
	if (kvm_vcpu_engine(v)->caps.sync_regs) {
		run->s.regs.regs = regs;
		run->s.regs.events = events;
		run->kvm_dirty_regs |= KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS;
		return 0;
	}
	r = kvm_ioctl(v->fd, KVM_SET_REGS, &regs);
	if (!r)
		r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &events);
	return r < 0 ? err_set_errno(err, -r, "vCPU %u: KVM does not take its registers", v->vcpu.index) : 0;
}

static int store(struct kvm_vcpu *v, struct kvm_handover *h, unsigned parts, struct err *err)
{
	struct cpu_state *s = &h->state;
	int r = 0;

	if (parts & PART_FPU && (s->xcr0 != h->before.xcr0 || memcmp(s->xsave, h->before.xsave, sizeof(s->xsave))))
		r = kvm_fpu_set(v, s, err);
	if (!r && memcmp(s->dr, h->before.dr, sizeof(s->dr)))
		r = kvm_debug_set(v, s, err);
	if (!r && parts & PART_MSRS)
		r = kvm_msr_set_changed(v, &h->before, s, err);
	if (!r)
		r = store_control(v, h, err);
	if (!r)
		r = store_registers(v, h, err);
	if (!r && s->mp_state == CPU_MP_HALTED) {
		struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_HALTED };

		r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
	}
	v->run->ready_for_interrupt_injection = 0;
	return r;
}

static bool refused(struct kvm_vcpu *v, enum vcpu_exit *exit, struct err *err)
{
	const struct kvm_run *run = v->run;
	char bytes[3 * 15 + 1] = "";

	if (run->emulation_failure.ndata >= 3)
		for (unsigned i = 0; i < run->emulation_failure.insn_size && i < 15; i++)
			snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
	err_set(err, EIO, "the soft engine could not take over");
	err_prefix(err, "vCPU %u: KVM cannot emulate an instruction%s%s", v->vcpu.index, *bytes ? ":" : "", bytes);
	*exit = VCPU_EXIT_ERROR;
	return false;
}

bool kvm_handover(struct kvm_vcpu *v, enum vcpu_exit *exit, struct err *err)
{
	struct kvm_handover *h = get_handover(v, err);
	unsigned parts;
	int r;

	if (!h)
		return refused(v, exit, err);
	current = v;
	*exit = VCPU_EXIT_KICK;
	r = load(v, h, &parts, err);
	if (!r) {
		h->before = h->state;
		r = vcpu_set_state(h->soft, &h->state, err);
	}
	if (!r)
		r = vcpu_step(h->soft, 1, exit, err);
	if (!r && *exit != VCPU_EXIT_ERROR)
		r = vcpu_get_state(h->soft, &h->state, err);
	if (!r && *exit != VCPU_EXIT_ERROR)
		r = store(v, h, parts, err);
	current = NULL;
	if (r < 0 || *exit == VCPU_EXIT_ERROR)
		return refused(v, exit, err);
	atomic_store_explicit(&v->handovers, v->handovers + 1, memory_order_relaxed);
	if (kvm_vcpu_engine(v)->caps.sync_regs)
		v->run->kvm_valid_regs = SYNC_ALL;
	h->sync_until = v->exits + SYNC_IDLE_EXITS;
	return *exit == VCPU_EXIT_KICK;
}

void kvm_handover_idle(struct kvm_vcpu *v)
{
	if (v->run->kvm_valid_regs && v->exits > v->handover->sync_until)
		v->run->kvm_valid_regs = 0;
}
