/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions and interrupts: raising, the choice of what comes before the next
 * instruction, delivery through IVT and IDT. SDM vol. 3 chapter 6, §17.3;
 * vol. 2, INT n.
 */
#include "engine/soft/sys.h"

/* ---- Raising ------------------------------------------------------------- */

static bool has_error_code(unsigned vector)
{
	const uint32_t with = 1u << EXC_DF | 1u << EXC_TS | 1u << EXC_NP | 1u << EXC_SS | 1u << EXC_GP | 1u << EXC_PF |
			      1u << EXC_AC | 1u << EXC_CP;

	return vector < 32 && with >> vector & 1;
}

static _Noreturn void raise_event(struct soft_vcpu *v, unsigned kind, unsigned vector, uint32_t error, uint64_t payload)
{
	if (v->borrowed)
		soft_update_mode(v);
	v->event.active = 1;
	v->event.kind = kind;
	v->event.vector = vector;
	v->event.has_error = kind == EVENT_EXCEPTION && has_error_code(vector);
	v->event.error = v->event.has_error ? error : 0;
	v->event.payload = payload;
	v->event.insn_len = 0;
	__builtin_longjmp(v->fault_jmp, 1);
}

/* Data breakpoints that an instruction met before it faulted come again when it is restarted. */
static void forget_traps(struct soft_vcpu *v)
{
	if (unlikely(v->dr6_pending) && !v->fault_depth)
		v->dr6_pending = 0;
}

_Noreturn void soft_raise(struct soft_vcpu *v, int vector, uint32_t error)
{
	forget_traps(v);
	raise_event(v, EVENT_EXCEPTION, vector, error, 0);
}

_Noreturn void soft_raise_pf(struct soft_vcpu *v, uint64_t linear, uint32_t error)
{
	forget_traps(v);
	raise_event(v, EVENT_EXCEPTION, EXC_PF, error, linear);
}

_Noreturn void soft_raise_db(struct soft_vcpu *v, uint64_t dr6)
{
	raise_event(v, EVENT_EXCEPTION, EXC_DB, 0, dr6);
}

_Noreturn void soft_raise_int(struct soft_vcpu *v, unsigned kind, int vector)
{
	v->event.active = 1;
	v->event.kind = kind;
	v->event.vector = vector;
	v->event.has_error = 0;
	v->event.error = 0;
	v->event.payload = 0;
	v->event.insn_len = (uint32_t)(v->next_rip - v->rip) & 15;
	__builtin_longjmp(v->fault_jmp, 1);
}

/* ---- RFLAGS -------------------------------------------------------------- */

void soft_set_rflags(struct soft_vcpu *v, uint64_t value, uint64_t mask)
{
	uint64_t old = v->rflags, now = (old & ~mask) | (value & mask) | 2, diff = old ^ now;

	v->rflags = now;
	if (!(diff & (FL_TF | FL_IF | FL_AC | FL_VM)))
		return;
	if (diff & now & FL_IF && v->irq_held)
		soft_request(v, REQ_IRQ);
	if (diff & now & FL_TF)
		soft_request(v, REQ_TRAP);
	if (diff & (FL_AC | FL_VM))
		soft_update_mode(v);
}

/* ---- What comes next ----------------------------------------------------- */

static void clear_request(struct soft_vcpu *v, uint32_t bits)
{
	atomic_fetch_and_explicit(&v->request, ~bits, memory_order_seq_cst);
}

static void set_event(struct soft_vcpu *v, unsigned kind, unsigned vector, uint64_t payload)
{
	memset(&v->event, 0, sizeof(v->event));
	v->event.active = 1;
	v->event.kind = kind;
	v->event.vector = vector;
	v->event.payload = payload;
}

/* Out of HLT. */
static void wake_up(struct soft_vcpu *v)
{
	v->mp_state = CPU_MP_RUNNABLE;
	if (unlikely(v->dr[7] & 0xff || v->rflags & FL_TF))
		soft_request(v, REQ_TRAP);
}

static void poll_reset(struct soft_vcpu *v, uint32_t req)
{
	clear_request(v, req & (REQ_INIT | REQ_SIPI));
	if (req & REQ_INIT) {
		soft_cpu_init(v);
		v->step = 0;
		v->dr6_pending = 0;
	}
	if (req & REQ_SIPI && v->mp_state == CPU_MP_WAIT_SIPI)
		soft_cpu_sipi(v, atomic_load(&v->sipi_vector));
}

/* Traps of the instruction that just ended. MOV SS holds them back for one instruction (SDM vol. 3 §6.8.3). */
static bool poll_traps(struct soft_vcpu *v)
{
	uint64_t dr6;

	if (v->shadow == 2)
		return false;
	dr6 = v->dr6_pending | (v->step ? DR6_BS : 0);
	v->step = 0;
	v->dr6_pending = 0;
	if (dr6) {
		set_event(v, EVENT_EXCEPTION, EXC_DB, dr6);
		return true;
	}
	return false;
}

/*
 * The instruction at v->rip is about to run while instructions are stepped
 * singly. RF protects it from code breakpoints once; it is cleared here rather
 * than after the instruction, which cannot see it.
 */
static bool poll_fetch(struct soft_vcpu *v)
{
	if (unlikely(dr7_has_code(v)) && !(v->rflags & FL_RF)) {
		uint64_t at = v->mode == MODE_64 ? v->rip : (uint32_t)(v->seg[SEG_CS].base + v->rip), dr6 = 0;

		for (unsigned n = 0; n < 4; n++)
			if (v->dr[7] >> (2 * n) & 3 && !(v->dr[7] >> (16 + 4 * n) & 3) && v->dr[n] == at)
				dr6 |= 1u << n;
		if (dr6) {
			set_event(v, EVENT_EXCEPTION, EXC_DB, dr6);
			return true;
		}
	}
	v->rflags &= ~(uint64_t)FL_RF;
	v->step = !!(v->rflags & FL_TF);
	/* Breakpoints on data trap right after the instruction, too: none may follow unlooked at. */
	if (!v->step && !(v->dr[7] & 0xff) && !v->dr6_pending)
		clear_request(v, REQ_TRAP);
	return false;
}

static bool poll_nmi(struct soft_vcpu *v, uint32_t req)
{
	if (v->nmi_masked) {
		/* IRET asks again. */
		if (req & REQ_NMI) {
			clear_request(v, REQ_NMI);
			v->nmi_pending = 1;
		}
		return false;
	}
	if (v->shadow) {
		soft_request(v, REQ_NMI);
		return false;
	}
	if (req & REQ_NMI)
		clear_request(v, REQ_NMI);
	v->nmi_pending = 0;
	set_event(v, EVENT_NMI, EXC_NMI, 0);
	return true;
}

static bool poll_interrupt(struct soft_vcpu *v)
{
	int vector;

	if (!(v->rflags & FL_IF)) {
		clear_request(v, REQ_IRQ);
		v->irq_held = 1;
		return false;
	}
	if (v->shadow)
		return false; /* REQ_IRQ stays: looked at again after the next instruction */
	clear_request(v, REQ_IRQ);
	v->irq_held = 0;
	vector = lapic_pending(v);
	if (vector < 0)
		return false;
	if (unlikely(vector > 255))
		vec_sync(v); /* the PIC's: its acknowledge cycle calls the host */
	vector = lapic_ack(v);
	if (vector < 0)
		return false;
	v->irq_held = 1; /* there may be more behind this one */
	if (v->native)
		native_tick(v);
	set_event(v, EVENT_EXTERNAL, vector, 0);
	return true;
}

bool excp_poll(struct soft_vcpu *v)
{
	uint32_t req = atomic_load_explicit(&v->request, memory_order_acquire);

	if (unlikely(v->event.active))
		return true;
	if (unlikely(req & (REQ_INIT | REQ_SIPI)))
		poll_reset(v, req);
	if (unlikely(v->mp_state != CPU_MP_RUNNABLE)) {
		if (v->mp_state != CPU_MP_HALTED)
			return false;
		if (atomic_load(&v->unhalted) && atomic_exchange(&v->unhalted, 0))
			wake_up(v);
	}
	if (unlikely(req & REQ_TRAP) && poll_traps(v))
		return true;
	if (unlikely(req & REQ_NMI || v->nmi_pending) && poll_nmi(v, req))
		return true;
	if (req & REQ_IRQ && poll_interrupt(v))
		return true;
	if (unlikely(req & REQ_TRAP)) {
		if (v->mp_state == CPU_MP_RUNNABLE)
			return poll_fetch(v);
		clear_request(v, REQ_TRAP); /* it would end the sleep; waking up asks again */
	}
	return false;
}

/* ---- Delivery ------------------------------------------------------------ */

/* SDM vol. 3 table 6-4 */
enum { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT };
/* In fault_depth while an event is being delivered. */
#define DELIVERING 0x100
#define DELIVERING_EXT 0x200 /* faults get EXT in their error code */

static unsigned event_class(const struct soft_vcpu *v)
{
	if (v->event.kind != EVENT_EXCEPTION)
		return CLASS_BENIGN;
	switch (v->event.vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
	case EXC_CP:
		return CLASS_CONTRIBUTORY;
	case EXC_PF:
		return CLASS_PAGE_FAULT;
	case EXC_DF:
		return CLASS_DOUBLE_FAULT;
	default:
		return CLASS_BENIGN;
	}
}

/* INT n, INT3 and INTO: the gate's DPL is checked, and faults have no EXT (SDM vol. 3 §6.12.1.2, §6.13). */
static bool event_is_soft(const struct soft_vcpu *v)
{
	return v->event.kind == EVENT_INT || v->event.kind == EVENT_INT3;
}

/* The instruction is complete: the return address is behind it. */
static uint64_t event_return(const struct soft_vcpu *v)
{
	uint64_t rip = v->rip;

	if (v->event.kind >= EVENT_INT) {
		rip += v->event.insn_len;
		if (v->mode != MODE_64)
			rip = v->mode == MODE_32 ? (uint32_t)rip : (uint16_t)rip;
	}
	return rip;
}

/* RFLAGS as pushed: RF tells a handler's IRET to get past a code breakpoint on the restarted instruction (§17.3.1.1). */
static uint64_t event_rflags(const struct soft_vcpu *v)
{
	uint64_t flags = v->rflags;

	switch (v->event.kind) {
	case EVENT_EXCEPTION:
		if (v->event.vector == EXC_DB)
			return v->event.payload & DR6_BD ? flags | FL_RF : flags & ~(uint64_t)FL_RF;
		if (v->event.vector == EXC_DF || v->event.vector == EXC_MC)
			return flags;
		return flags | FL_RF;
	case EVENT_INT:
	case EVENT_INT1:
	case EVENT_INT3:
		return flags & ~(uint64_t)FL_RF;
	default:
		return flags;
	}
}

static void clear_flags(struct soft_vcpu *v, uint64_t bits)
{
	v->rflags &= ~bits;
}

static void deliver_real(struct soft_vcpu *v)
{
	unsigned vector = v->event.vector;
	struct sys_stack stack = sys_stack_current(v);
	uint16_t ip, cs;

	if (vector * 4 + 3 > v->idtr.limit)
		soft_raise(v, EXC_GP, vector << 3 | 2);
	ip = sys_ld(v, (uint32_t)(v->idtr.base + vector * 4), 2);
	cs = sys_ld(v, (uint32_t)(v->idtr.base + vector * 4 + 2), 2);
	sys_push(v, &stack, (uint16_t)event_rflags(v), 2);
	sys_push(v, &stack, v->seg[SEG_CS].selector, 2);
	sys_push(v, &stack, (uint16_t)event_return(v), 2);
	if (ip > v->seg[SEG_CS].limit)
		soft_raise(v, EXC_GP, 0);
	v->gpr[R_SP] = stack.sp;
	seg_load_paragraph(v, SEG_CS, cs);
	v->rip = v->next_rip = ip;
	clear_flags(v, FL_IF | FL_TF | FL_AC | FL_RF);
	soft_update_mode(v);
}

/* The code segment of a gate. Its privilege checks that do not depend on the stack. */
static uint64_t gate_code(struct soft_vcpu *v, uint16_t selector, uint64_t *linear)
{
	uint32_t error = selector_error(selector);
	uint64_t d;

	if (selector_null(selector))
		soft_raise(v, EXC_GP, 0);
	d = desc_load(v, selector, EXC_GP, linear);
	if (unlikely(!desc_is_code(d) || desc_dpl(d) > v->cpl))
		soft_raise(v, EXC_GP, error);
	if (unlikely(v->long_mode && (!desc_l(d) || desc_db(d))))
		soft_raise(v, EXC_GP, error);
	if (unlikely(!desc_p(d)))
		soft_raise(v, EXC_NP, error);
	return d;
}

/* 16- and 32-bit gates (SDM vol. 3 §6.12, §20.3 for virtual-8086 mode) */
static void deliver_protected(struct soft_vcpu *v)
{
	static const uint8_t data_segs[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	unsigned vector = v->event.vector, error = vector << 3 | 2, size, cpl;
	uint64_t gate, code, code_at, stack_at = 0, stack_desc = 0, flags = event_rflags(v), ret = event_return(v);
	bool vm86 = in_vm86(v), inner;
	struct cpu_segment ss = v->seg[SEG_SS];
	struct sys_stack stack;
	uint16_t selector;
	uint32_t eip;

	if (vector * 8 + 7 > v->idtr.limit)
		soft_raise(v, EXC_GP, error);
	gate = sys_ld(v, (uint32_t)(v->idtr.base + vector * 8), 8);
	switch (desc_s(gate) ? 0 : desc_type(gate)) {
	case SYS_TASK:
	case SYS_INT16:
	case SYS_TRAP16:
	case SYS_INT:
	case SYS_TRAP:
		break;
	default:
		soft_raise(v, EXC_GP, error);
	}
	if (event_is_soft(v) && desc_dpl(gate) < v->cpl)
		soft_raise(v, EXC_GP, error);
	if (!desc_p(gate))
		soft_raise(v, EXC_NP, error);
	selector = gate_selector(gate);
	if (desc_type(gate) == SYS_TASK)
		sys_refuse_task(v, selector, "a task gate in the IDT");

	size = desc_type(gate) & 8 ? 4 : 2;
	eip = size == 4 ? gate_offset(gate) : (uint16_t)gate;
	code = gate_code(v, selector, &code_at);
	inner = !desc_is_conforming(code) && desc_dpl(code) < v->cpl;
	cpl = inner ? desc_dpl(code) : v->cpl;
	if (vm86 && cpl)
		soft_raise(v, EXC_GP, selector_error(selector));
	if (inner) {
		uint16_t ss_selector;
		uint64_t sp;

		tss_stack(v, cpl, &ss_selector, &sp);
		stack_desc = seg_check_stack(v, ss_selector, cpl, EXC_TS, &stack_at);
		ss = desc_segment(stack_desc | DESC_ACCESSED, ss_selector);
		stack = (struct sys_stack){ &ss, sp, selector_error(ss_selector), segment_width(&ss) };
	} else {
		stack = sys_stack_current(v);
	}
	if (eip > desc_limit(code))
		soft_raise(v, EXC_GP, 0);

	soft_borrow_cpl(v, cpl);
	if (vm86)
		for (unsigned n = 0; n < 4; n++)
			sys_push(v, &stack, v->seg[data_segs[n]].selector, size);
	if (inner) {
		sys_push(v, &stack, v->seg[SEG_SS].selector, size);
		sys_push(v, &stack, v->gpr[R_SP], size);
	}
	sys_push(v, &stack, flags, size);
	sys_push(v, &stack, v->seg[SEG_CS].selector, size);
	sys_push(v, &stack, ret, size);
	if (v->event.has_error)
		sys_push(v, &stack, v->event.error, size);
	desc_set_accessed(v, code_at, code);
	if (inner)
		desc_set_accessed(v, stack_at, stack_desc);

	clear_flags(v, FL_TF | FL_NT | FL_RF | FL_VM | (desc_type(gate) & 1 ? 0 : FL_IF));
	if (vm86)
		for (unsigned n = 0; n < 4; n++)
			v->seg[data_segs[n]] = segment_null(0, 0);
	v->seg[SEG_CS] = desc_segment(code | DESC_ACCESSED, (selector & ~3) | cpl);
	v->seg[SEG_SS] = ss;
	v->gpr[R_SP] = stack.sp;
	v->rip = v->next_rip = eip;
	soft_update_mode(v);
}

/* 64-bit gates (SDM vol. 3 §6.14) */
static void deliver_long(struct soft_vcpu *v)
{
	unsigned vector = v->event.vector, error = vector << 3 | 2, cpl, ist, n = 0;
	uint64_t at = v->idtr.base + vector * 16, lo, hi, code, code_at, rip, rsp;
	any_u64 frame[6];
	volatile any_u64 *p;
	struct tlb_entry *t;
	bool hit;
	uint16_t selector;

	if (unlikely(vector * 16 + 15 > v->idtr.limit))
		soft_raise(v, EXC_GP, error);
	lo = sys_ld(v, at, 8);
	hi = sys_ld(v, at + 8, 8);
	if (unlikely(desc_s(lo) || desc_type(lo) < SYS_INT))
		soft_raise(v, EXC_GP, error);
	if (event_is_soft(v) && desc_dpl(lo) < v->cpl)
		soft_raise(v, EXC_GP, error);
	if (unlikely(!desc_p(lo)))
		soft_raise(v, EXC_NP, error);
	selector = gate_selector(lo);
	code = gate_code(v, selector, &code_at);
	cpl = desc_is_conforming(code) ? v->cpl : desc_dpl(code);
	rip = gate_offset(lo) | hi << 32;
	if (unlikely(!canonical(rip)))
		soft_raise(v, EXC_GP, 0);
	ist = lo >> 32 & 7;
	if (ist)
		rsp = tss_stack64(v, TSS64_IST(ist));
	else
		rsp = cpl != v->cpl ? tss_stack64(v, cpl) : v->gpr[R_SP];
	rsp &= ~0xfull;

	/* The frame is built in place where the TLB knows the page: copying it would stall on its own stores. */
	rsp -= v->event.has_error ? 48 : 40;
	desc_set_accessed(v, code_at, code);
	soft_borrow_cpl(v, cpl);
	t = tlb_at(v, rsp);
	hit = t->wtag == ((rsp + 47) & ~0xfffull);
	p = hit ? (volatile any_u64 *)(rsp + t->addend) : frame;
	if (v->event.has_error)
		p[n++] = v->event.error;
	p[n++] = event_return(v);
	p[n++] = v->seg[SEG_CS].selector;
	p[n++] = event_rflags(v);
	p[n++] = v->gpr[R_SP];
	p[n++] = v->seg[SEG_SS].selector;
	if (likely(hit))
		mmu_written(v, (t->gpa & ~0xfffull) | (rsp & 0xfff), n * 8);
	else
		mmu_write(v, rsp, frame, n * 8, true);

	clear_flags(v, FL_TF | FL_NT | FL_RF | (desc_type(lo) == SYS_INT ? FL_IF : 0));
	segment_load(&v->seg[SEG_CS], code | DESC_ACCESSED, (selector & ~3) | cpl);
	if (v->borrowed)
		segment_set_null(&v->seg[SEG_SS], cpl, cpl);
	v->gpr[R_SP] = rsp;
	v->rip = v->next_rip = rip;
	if (likely(v->mode == MODE_64))
		soft_set_cpl64(v, cpl);
	else
		soft_update_mode(v);
}

static void deliver(struct soft_vcpu *v)
{
	v->fault_depth = DELIVERING | event_class(v) | (event_is_soft(v) ? 0 : DELIVERING_EXT);
	if (v->event.kind == EVENT_EXCEPTION && v->event.vector == EXC_PF)
		v->cr2 = v->event.payload;
	if (v->event.vector == EXC_DB && (v->event.kind == EVENT_EXCEPTION || v->event.kind == EVENT_INT1)) {
		if (v->event.kind == EVENT_EXCEPTION)
			v->dr[6] = (v->dr[6] & ~0xfull) | (v->event.payload & DR6_WRITABLE) | DR6_FIXED;
		v->dr[7] &= ~(uint64_t)DR7_GD;
	}
	if (v->event.kind == EVENT_NMI)
		v->nmi_masked = 1;
	if (!in_protected(v))
		deliver_real(v);
	else if (v->long_mode)
		deliver_long(v);
	else
		deliver_protected(v);
}

/* v->event is a fault met while an event was being delivered (SDM vol. 3 table 6-5). False: shutdown. */
static bool combine(struct soft_vcpu *v)
{
	unsigned first = v->fault_depth & 0xff, second = event_class(v);

	if (first == CLASS_DOUBLE_FAULT && second != CLASS_BENIGN)
		return false;
	if ((first == CLASS_CONTRIBUTORY && second == CLASS_CONTRIBUTORY) ||
	    (first == CLASS_PAGE_FAULT && second != CLASS_BENIGN)) {
		if (second == CLASS_PAGE_FAULT)
			v->cr2 = v->event.payload;
		v->event.vector = EXC_DF;
		v->event.has_error = 1;
		v->event.error = 0;
		v->event.payload = 0;
		return true;
	}
	if (v->fault_depth & DELIVERING_EXT && second == CLASS_CONTRIBUTORY && v->event.has_error)
		v->event.error |= 1;
	return true;
}

/* The landing of faults during delivery. In a function of its own, as __builtin_setjmp() wants no live registers. */
static __attribute__((noinline)) bool deliver_combining(struct soft_vcpu *v)
{
	if (__builtin_setjmp(v->fault_jmp)) {
		if (!combine(v))
			return false;
	}
	deliver(v);
	return true;
}

bool excp_deliver(struct soft_vcpu *v)
{
	void *outer[5];
	bool ok;

	memcpy(outer, v->fault_jmp, sizeof(outer));
	ok = deliver_combining(v);
	memcpy(v->fault_jmp, outer, sizeof(outer));
	v->fault_depth = 0;
	v->event.active = 0;
	if (!ok)
		return false;
	v->step = 0;
	v->shadow = 0;
	if (v->mp_state != CPU_MP_RUNNABLE)
		wake_up(v);
	if (unlikely(v->irq_held) && v->rflags & FL_IF)
		soft_request(v, REQ_IRQ);
	return true;
}
