/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When guest user code runs natively, the way in and the way out.
 *
 * The guest's timer tick is the probe: an address space that two ticks in a row
 * found in user mode is tried. Where stretches are short (system calls, page
 * faults, instructions that trap) it does not pay, and the address space is left
 * to the translator for a while, twice as long each time.
 *
 * vCPU thread and process take turns, so they are kept on one CPU: waking up
 * another one costs ten times a switch. Every few ticks the thread is let go, so
 * that the scheduler can move the pair.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/soft/native.h"
#include "util/log.h"

/*
 * An account for each space, in ns of CPU time: a nanosecond there saves the
 * translator's longer time for the same code, a way there and back costs.
 */
#define CREDIT_NS 4000000    /* to begin with */
#define CREDIT_MAX_NS 40000000
#define INVEST_NS 20000000   /* and for mappings, which come one by one at first and stay */
#define CAUTION_MAX 3u       /* each time that it did not pay halves what the next one may cost */
#define GAIN 2               /* times what is spent there: for most code the translator takes three times as long or more */
#define ROUNDS 24u           /* to find out what a way there and back costs */
#define COST_WORST_NS 20000
#define COST_LOOP_NS 4000    /* what the engine does around it */
#define ACCOUNT_EXITS 16u
#define BAN_MS 20u
#define BANS_MAX 6u
#define HOME_TICKS 4u
#define TICK_MIN_US 800u     /* interrupts closer than this are no timer's tick */
#define REFUSED_MAX 3u
#define PASS_STEPS 200u      /* instructions */

static uint64_t ticks(uint64_t us)
{
	return us * soft_host_tsc_khz() / 1000;
}

static uint64_t now(void)
{
	return __builtin_ia32_rdtsc();
}

/* ---- One CPU for two ------------------------------------------------------------ */

static void unpin(struct native_vcpu *n)
{
	cpu_set_t set;

	if (!n->pinned)
		return;
	n->pinned = false;
	/* Somebody may have given the thread another place meanwhile. */
	if (!sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) == 1 && CPU_ISSET(n->pinned_cpu, &set))
		sched_setaffinity(0, sizeof(n->home), &n->home);
}

static void pin(struct native_vcpu *n, struct native_stub *s)
{
	cpu_set_t set;

	if (!n->pinned) {
		n->pinned_cpu = sched_getcpu();
		if (n->pinned_cpu < 0 || sched_getaffinity(0, sizeof(n->home), &n->home))
			return;
		CPU_ZERO(&set);
		CPU_SET(n->pinned_cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			return;
		n->pinned = true;
	}
	if (s->cpu != n->pinned_cpu) {
		CPU_ZERO(&set);
		CPU_SET(n->pinned_cpu, &set);
		if (!sched_setaffinity(s->pid, sizeof(set), &set))
			s->cpu = n->pinned_cpu;
	}
}

void native_unpin(struct soft_vcpu *v)
{
	if (v->native)
		unpin(v->native);
}

/* CPU time that the process has had, in ns. Not time by the clock: others may have had the CPU. */
static uint64_t stub_cpu(const struct native_stub *s)
{
	struct timespec t;

	return clock_gettime((clockid_t)(~(unsigned)s->pid << 3 | 2), &t) ? 0 : t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- Choice ---------------------------------------------------------------------- */

static uint64_t root_now(const struct soft_vcpu *v)
{
	return v->cr3 & ~PAGE_MASK;
}

static struct native_space *space_find(struct native_vcpu *n, uint64_t root)
{
	for (unsigned i = 0; i < NATIVE_SPACES; i++)
		if (n->space[i].root == root)
			return &n->space[i];
	return NULL;
}

static void wanted_update(struct soft_vcpu *v)
{
	v->native_wanted = v->engine->engine.config.native_always || v->native->lost;
	for (unsigned i = 0; i < NATIVE_SPACES; i++)
		v->native_wanted |= v->native->space[i].on;
}

static struct native_space *space_take(struct soft_vcpu *v, uint64_t root)
{
	struct native_vcpu *n = v->native;
	struct native_space *s = space_find(n, root);

	if (s)
		return s;
	s = &n->space[0];
	for (unsigned i = 1; i < NATIVE_SPACES; i++)
		if (n->space[i].last < s->last)
			s = &n->space[i];
	native_map_reset(v, s);
	s->root = root;
	s->on = false;
	s->bans = 0;
	s->banned_until = 0;
	return s;
}

static bool context_fits(const struct soft_vcpu *v)
{
	return v->cpl == 3 && v->mode == MODE_64 && v->seg[SEG_CS].selector == NATIVE_CS &&
	       v->seg[SEG_SS].selector == NATIVE_SS && !v->seg[SEG_FS].selector && !v->seg[SEG_GS].selector &&
	       !(v->rflags & (FL_TF | FL_NT | FL_AC | FL_VIF | FL_VIP)) && !(v->dr[7] & 0xff) &&
	       !(v->cr4 & CR4_TSD) && (v->rflags & (FL_IF | FL_IOPL)) == FL_IF && v->cr4 & CR4_FSGSBASE && v->cr4 & CR4_OSXSAVE &&
	       !(v->cr0 & (CR0_TS | CR0_EM)) && v->rip < NATIVE_USER_END && v->seg[SEG_FS].base < NATIVE_USER_END &&
	       v->seg[SEG_GS].base < NATIVE_USER_END;
}

void native_tick(struct soft_vcpu *v)
{
	struct native_vcpu *n = v->native;
	uint64_t root = root_now(v);
	struct native_space *s;

	if (now() - n->last_tick < ticks(TICK_MIN_US))
		return;
	n->last_tick = now();
	if (++n->ticks % HOME_TICKS == 0)
		unpin(n);
	if (!context_fits(v) || v->engine->native->refused >= REFUSED_MAX) {
		n->streak = 0;
		return;
	}
	if (n->candidate != root) {
		n->candidate = root;
		n->streak = 0;
	}
	if (++n->streak < 2)
		return;
	s = space_take(v, root);
	s->last = now();
	if (s->on || s->last < s->banned_until)
		return;
	s->on = true;
	s->tls = v->seg[SEG_FS].base;
	s->credit = CREDIT_NS >> (s->bans < CAUTION_MAX ? s->bans : CAUTION_MAX);
	s->invest = INVEST_NS >> (s->bans < CAUTION_MAX ? s->bans : CAUTION_MAX);
	if (s->stub.pid)
		s->cpu = stub_cpu(&s->stub);
	v->native_wanted = true;
}

static void leave_alone(struct soft_vcpu *v, struct native_space *s)
{
	s->on = false;
	s->banned_until = now() + ticks((uint64_t)BAN_MS * 1000 << s->bans);
	if (s->bans < BANS_MAX)
		s->bans++;
	v->native->streak = 0;
	wanted_update(v);
	unpin(v->native);
}

static void pay(struct native_space *s, int64_t ns, bool mapping)
{
	if (mapping && s->invest > 0)
		s->invest -= ns;
	else
		s->credit -= ns;
}

/* A stretch has ended: what did it bring? */
static void account(struct soft_vcpu *v, struct native_space *s, uint64_t inside)
{
	const struct native_engine *e = v->engine->native;
	uint64_t cpu;

	v->native->stretches++;
	v->native->ticks_inside += inside;
	pay(s, e->round_ns + COST_LOOP_NS, v->native->fault != NATIVE_NO_FAULT);
	if (++s->exits == ACCOUNT_EXITS || s->credit < 0) {
		cpu = stub_cpu(&s->stub);
		/* Its share of the switches is no gain. */
		s->credit += GAIN * ((int64_t)(cpu - s->cpu) - (int64_t)s->exits * e->stub_ns);
		s->cpu = cpu;
		s->exits = 0;
	}
	if (s->credit > CREDIT_MAX_NS) {
		s->credit = CREDIT_MAX_NS;
		s->bans = 0;
	}
	if (s->credit < 0 && !v->engine->engine.config.native_always)
		leave_alone(v, s);
}

/* ---- A process for the space ------------------------------------------------------ */

static bool start(struct soft_vcpu *v, struct native_space *s)
{
	struct soft_engine *e = v->engine;
	struct err err = ERR_INIT;
	int fds[NATIVE_FDS];
	unsigned n = 0;

	fds[n++] = e->native->code_fd;
	for (unsigned i = 0; i < e->nslots; i++) {
		bool known = e->slots[i].fd < 0;

		for (unsigned k = 0; k < n; k++)
			known |= fds[k] == e->slots[i].fd;
		if (!known && n < NATIVE_FDS)
			fds[n++] = e->slots[i].fd;
	}
	s->slots = e->native->slots;
	vec_sync(v);
	if (n < 2 || native_stub_start(&s->stub, fds, n, &err)) {
		e->native->refused++;
		log_line(LOG_WARN, "guest user code will not run natively: %s", n > 1 ? err_msg(&err) : "guest memory has no file");
		return false;
	}
	if (s->stub.xstate_size > sizeof(v->native->xstate)) {
		native_stub_end(&s->stub);
		e->native->refused = REFUSED_MAX;
		return false;
	}
	return true;
}

static uint64_t thread_cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* What a way there and back costs on this host. Once an engine. */
static void calibrate(struct soft_vcpu *v, struct native_space *s)
{
	struct native_engine *e = v->engine->native;
	int64_t thread = COST_WORST_NS, stub = COST_WORST_NS;

	if (e->round_ns)
		return;
	pin(v->native, &s->stub);
	for (unsigned i = 0; i < ROUNDS; i++) {
		int64_t t = thread_cpu(), p = stub_cpu(&s->stub);

		if (!native_stub_trip(&s->stub))
			break;
		p = stub_cpu(&s->stub) - p;
		t = thread_cpu() - t;
		thread = t < thread ? t : thread;
		stub = p < stub ? p : stub;
	}
	e->stub_ns = stub;
	e->round_ns = thread;
}

/* Make the mappings that are due; they are no gain. */
static bool flush(struct soft_vcpu *v, struct native_space *s, uint64_t thread)
{
	uint64_t before = stub_cpu(&s->stub), spent;
	bool ok = native_stub_flush(&s->stub);

	spent = stub_cpu(&s->stub) - before;
	s->cpu += spent;
	pay(s, spent + (thread_cpu() - thread), true);
	return ok;
}

/* The space's mappings are those of the guest's tables now. False: there is none. */
static bool refresh(struct soft_vcpu *v, struct native_space *s)
{
	struct native_vcpu *n = v->native;
	uint32_t scans = atomic_load(&v->engine->native->scans);
	uint64_t thread;

	if (s->stub.pid && (s->failed || s->slots != v->engine->native->slots)) {
		vec_home(v);
		native_map_reset(v, s);
		native_stub_end(&s->stub);
	}
	s->failed = false;
	if (!s->stub.pid) {
		native_map_reset(v, s);
		if (!start(v, s))
			return false;
		calibrate(v, s);
	}
	if (n->scans != scans) {
		for (unsigned i = 0; i < NATIVE_SPACES; i++)
			n->space[i].id = 0;
		n->scans = scans;
	}
	if (s->id == v->mmu->id && n->fault == NATIVE_NO_FAULT && !s->stub.calls)
		return true;
	thread = thread_cpu();
	if (s->id != v->mmu->id) {
		native_map_reset(v, s);
		s->id = v->mmu->id;
		native_map_known(v, s);
	}
	if (n->fault != NATIVE_NO_FAULT) {
		native_map_around(v, s, n->fault, n->fault_exec);
		n->fault = NATIVE_NO_FAULT;
	}
	return flush(v, s, thread) && !s->failed;
}

/* ---- In and out -------------------------------------------------------------------- */

/*
 * Half of a way there and back would be the vector state's, and what the guest's
 * kernel does meanwhile seldom needs it: it stays there until somebody asks.
 */
static bool vec_lend(struct soft_vcpu *v, struct native_stub *s)
{
	struct iovec iov = { v->native->xstate, s->xstate_size };

	if (v->vec_away && v->native->vec_at == s)
		return true;
	vec_home(v);
	vec_get(v, v->native->xstate);
	if (ptrace(PTRACE_SETREGSET, s->pid, NATIVE_NT_XSTATE, &iov))
		return false;
	v->native->vec_at = s;
	v->vec_away = true;
	return true;
}

void native_vec_home(struct soft_vcpu *v)
{
	struct native_vcpu *n = v->native;
	struct iovec iov = { n->xstate, n->vec_at->xstate_size };

	v->vec_away = false;
	if (!ptrace(PTRACE_GETREGSET, n->vec_at->pid, NATIVE_NT_XSTATE, &iov)) {
		vec_set(v, n->xstate);
		return;
	}
	n->lost = true;
	v->native_wanted = true;
}

static bool load(struct soft_vcpu *v, struct native_stub *s)
{
	struct native_regs r = {
		.r15 = v->gpr[15], .r14 = v->gpr[14], .r13 = v->gpr[13], .r12 = v->gpr[12], .rbp = v->gpr[R_BP],
		.rbx = v->gpr[R_BX], .r11 = v->gpr[11], .r10 = v->gpr[10], .r9 = v->gpr[9], .r8 = v->gpr[8],
		.rax = v->gpr[R_AX], .rcx = v->gpr[R_CX], .rdx = v->gpr[R_DX], .rsi = v->gpr[R_SI], .rdi = v->gpr[R_DI],
		.orig_rax = -1, .rip = v->rip, .cs = NATIVE_CS, .eflags = v->rflags & (FLAGS_ARITH | FL_DF | FL_ID | FL_IF | 2),
		.rsp = v->gpr[R_SP], .ss = NATIVE_SS, .fs_base = v->seg[SEG_FS].base, .gs_base = v->seg[SEG_GS].base,
	};

	return vec_lend(v, s) && !ptrace(PTRACE_SETREGS, s->pid, 0, &r);
}

static bool store(struct soft_vcpu *v, struct native_stub *s, struct native_regs *r)
{
	if (ptrace(PTRACE_GETREGS, s->pid, 0, r))
		return false;
	v->gpr[R_AX] = r->rax;
	v->gpr[R_CX] = r->rcx;
	v->gpr[R_DX] = r->rdx;
	v->gpr[R_BX] = r->rbx;
	v->gpr[R_SP] = r->rsp;
	v->gpr[R_BP] = r->rbp;
	v->gpr[R_SI] = r->rsi;
	v->gpr[R_DI] = r->rdi;
	v->gpr[8] = r->r8;
	v->gpr[9] = r->r9;
	v->gpr[10] = r->r10;
	v->gpr[11] = r->r11;
	v->gpr[12] = r->r12;
	v->gpr[13] = r->r13;
	v->gpr[14] = r->r14;
	v->gpr[15] = r->r15;
	v->rip = v->next_rip = r->rip;
	v->seg[SEG_FS].base = r->fs_base;
	v->seg[SEG_GS].base = r->gs_base;
	v->rflags = (v->rflags & ~(uint64_t)(FLAGS_ARITH | FL_DF | FL_ID | FL_AC | FL_TF | FL_RF)) |
		    (r->eflags & (FLAGS_ARITH | FL_DF | FL_ID | FL_AC | FL_TF));
	if (unlikely(v->rflags & (FL_AC | FL_TF)))
		soft_update_mode(v);
	return true;
}

/*
 * Why it stopped. In most cases the interpreter does the instruction at rIP next:
 * it finds the fault, the system call or the page that the process lacks.
 */
static void stopped(struct soft_vcpu *v, struct native_stub *s, int status, const struct native_regs *r)
{
	static const uint16_t vsyscall[] = { 0, 0x400, 0x800 };
	struct native_vcpu *n = v->native;
	siginfo_t info = {0};

	v->blocks->once = true;
	switch (WSTOPSIG(status)) {
	case SIGTRAP | 0x80:
		/* Behind SYSCALL or INT 0x80, both of two bytes. */
		v->rip = v->next_rip = r->rip - 2;
		v->gpr[R_AX] = r->orig_rax;
		return;
	case SIGSEGV:
		if (ptrace(PTRACE_GETSIGINFO, s->pid, 0, &info) || info.si_code == SI_KERNEL || info.si_code <= 0)
			return; /* #GP, or a page that is not canonical */
		n->fault = (uintptr_t)info.si_addr;
		n->fault_exec = n->fault >> 12 == v->rip >> 12 || n->fault >> 12 == (v->rip + 14) >> 12;
		return;
	case SIGTRAP:
		if (ptrace(PTRACE_GETSIGINFO, s->pid, 0, &info))
			return;
		if (info.si_code == SI_KERNEL) {
			v->rip = v->next_rip = r->rip - 1; /* INT3 */
		} else if (v->rflags & FL_TF) {
			/* POPF set TF: the trap after the next instruction has come. */
			v->dr6_pending |= DR6_BS;
			soft_request(v, REQ_TRAP);
			v->blocks->once = false;
		}
		return;
	case SIGSYS:
		/* A call of the vsyscall page, which the host's kernel emulates: undone. */
		if (ptrace(PTRACE_GETSIGINFO, s->pid, 0, &info))
			return;
		v->rip = v->next_rip = 0xffffffffff600000 + vsyscall[info.si_syscall == SYS_time ? 1 : info.si_syscall == SYS_getcpu ? 2 : 0];
		v->gpr[R_SP] = r->rsp - 8;
		v->gpr[R_AX] = r->orig_rax;
		return;
	case SIGILL:
	case SIGFPE:
	case SIGBUS:
		return;
	default:
		v->blocks->once = false; /* a kick, or somebody's signal */
	}
}

/* The process is of no use; the vCPU's state is whole. Another one after a while. */
static void give_up(struct soft_vcpu *v, struct native_space *s)
{
	s->failed = true;
	s->bans = BANS_MAX;
	leave_alone(v, s);
}

static bool is_denied(const struct native_space *s, uint64_t linear)
{
	int flags = native_map_find(s, linear);

	return flags >= 0 && flags & NATIVE_DENIED;
}

/* Often a short function of a page that has a CPUID elsewhere: the interpreter sees it through. */
static enum native_result pass_by(struct soft_vcpu *v)
{
	if (v->native->passed++ < PASS_STEPS) {
		v->blocks->once = true;
		return NATIVE_RAN;
	}
	v->native->passed = 0;
	unpin(v->native);
	return NATIVE_NOT_HERE;
}

enum native_result native_try(struct soft_vcpu *v)
{
	struct native_vcpu *n = v->native;
	struct native_space *s = space_find(n, root_now(v));
	bool always = v->engine->engine.config.native_always;
	struct native_regs r;
	uint64_t begin;
	int status;

	if (unlikely(n->lost))
		return NATIVE_LOST;
	if (unlikely(always) && context_fits(v) && v->engine->native->refused < REFUSED_MAX) {
		s = space_take(v, root_now(v));
		s->on = true;
	}
	if (!s || !s->on || !context_fits(v)) {
		unpin(n);
		return NATIVE_NOT_HERE;
	}
	if (s->id == v->mmu->id) {
		if (is_denied(s, v->rip))
			return pass_by(v);
	} else if (s->tls != v->seg[SEG_FS].base && !always) {
		/* All its translations have gone, and another thread runs: most likely another process has these tables now. */
		s->on = false;
		wanted_update(v);
		unpin(n);
		return NATIVE_NOT_HERE;
	}
	if (!refresh(v, s)) {
		give_up(v, s);
		return NATIVE_NOT_HERE;
	}
	if (is_denied(s, v->rip))
		return pass_by(v);
	if (!load(v, &s->stub)) {
		give_up(v, s);
		return NATIVE_NOT_HERE;
	}
	n->passed = 0;
	pin(n, &s->stub);
	/* Either this sees the request, or soft_request() sees the process. */
	atomic_store(&v->native_pid, s->stub.pid);
	if (atomic_load(&v->request) || v->shadow) {
		atomic_store(&v->native_pid, 0);
		return NATIVE_RAN;
	}
	block_set_quiet(v, true);
	begin = now();
	status = ptrace(PTRACE_SYSEMU, s->stub.pid, 0, 0) ? -1 : native_stub_wait(&s->stub);
	atomic_store(&v->native_pid, 0);
	block_set_quiet(v, false);
	s->last = now();
	if (status < 0 || !store(v, &s->stub, &r))
		goto gone;
	stopped(v, &s->stub, status, &r);
	account(v, s, s->last - begin);
	return NATIVE_RAN;
gone:
	v->vec_away = false;
	/* What it had done since it was entered is half in memory and half lost. */
	log_line(LOG_ERROR, "the process that ran guest code natively has gone");
	native_map_reset(v, s);
	native_stub_end(&s->stub);
	return NATIVE_LOST;
}

/* ---- What others ask for ------------------------------------------------------------ */

void native_page_flushed(struct soft_vcpu *v, uint32_t id, uint64_t linear)
{
	for (unsigned i = 0; i < NATIVE_SPACES; i++)
		if (v->native->space[i].id == id)
			native_map_drop(v, &v->native->space[i], linear);
}

void native_id_flushed(struct soft_vcpu *v, uint32_t id)
{
	for (unsigned i = 0; i < NATIVE_SPACES; i++)
		if (!id || v->native->space[i].id == id)
			v->native->space[i].id = 0;
}

bool native_may_write(struct soft_engine *e, uint64_t gpa)
{
	return e->native && atomic_load(&e->native->writable[gpa >> 12]);
}

void native_slots_changed(struct soft_engine *e)
{
	if (e->native)
		atomic_fetch_add(&e->native->slots, 1);
}

void native_code_written(struct soft_engine *e, uint64_t gpa)
{
	uint8_t flags = __atomic_fetch_and(&e->page_flags[gpa >> 12], (uint8_t)~(PAGE_NATIVE_CODE | PAGE_NATIVE_FIT), __ATOMIC_SEQ_CST);

	if (!(flags & PAGE_NATIVE_CODE))
		return;
	atomic_fetch_add(&e->native->scans, 1);
	/* A copy of it does not follow by itself: whoever runs it comes out. */
	if (!(flags & PAGE_NATIVE_FIT) && native_code_unpatch(e, gpa))
		for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
			struct soft_vcpu *v = __atomic_load_n(&e->vcpus[i], __ATOMIC_ACQUIRE);

			if (v)
				soft_request(v, REQ_STATE);
		}
}

void native_tsc_moved(struct soft_engine *e)
{
	struct native_engine *n = e->native;

	if (!n || atomic_exchange(&n->tsc_moved, true))
		return;
	for (unsigned i = 0; i < e->nslots; i++)
		for (uint64_t off = 0; off < e->slots[i].size; off += PAGE_BYTES)
			if (e->page_flags[(e->slots[i].gpa + off) >> 12] & PAGE_NATIVE_CODE)
				native_code_written(e, e->slots[i].gpa + off);
}

void native_get_stats(struct soft_engine *e, struct engine_stats *stats)
{
	for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
		struct soft_vcpu *v = __atomic_load_n(&e->vcpus[i], __ATOMIC_ACQUIRE);

		if (!v || !v->native)
			continue;
		stats->native_stretches += __atomic_load_n(&v->native->stretches, __ATOMIC_RELAXED);
		stats->native_us += __atomic_load_n(&v->native->ticks_inside, __ATOMIC_RELAXED) * 1000 / soft_host_tsc_khz();
	}
}

/* ---- Making and freeing --------------------------------------------------------------- */

#define WRITABLE_BYTES (sizeof(uint16_t) << (SOFT_PHYS_BITS - 12))

/* The host bounds the mappings of a process; some stay for what has no pages of the guest. */
static unsigned pages_max(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned max = 0;

	if (f) {
		if (fscanf(f, "%u", &max) != 1)
			max = 0;
		fclose(f);
	}
	return max < 4096 ? 2048 : max > 1u << 20 ? 1u << 20 : max - 1024;
}

void native_engine_init(struct soft_engine *e)
{
	struct native_engine *n = calloc(1, sizeof(*n));

	if (!n)
		return;
	n->writable = mmap(NULL, WRITABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (n->writable == MAP_FAILED) {
		free(n);
		return;
	}
	n->code_fd = memfd_create("keel-native-code", MFD_CLOEXEC);
	n->code = n->code_fd < 0 || ftruncate(n->code_fd, NATIVE_CODE_PAGES * PAGE_BYTES) ? MAP_FAILED :
		mmap(NULL, NATIVE_CODE_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, n->code_fd, 0);
	if (n->code == MAP_FAILED) {
		if (n->code_fd >= 0)
			close(n->code_fd);
		munmap((void *)n->writable, WRITABLE_BYTES);
		free(n);
		return;
	}
	pthread_mutex_init(&n->code_lock, NULL);
	n->slots = 1;
	n->pages_max = pages_max();
	e->native = n;
}

void native_engine_free(struct soft_engine *e)
{
	if (!e->native)
		return;
	munmap((void *)e->native->writable, WRITABLE_BYTES);
	munmap(e->native->code, NATIVE_CODE_PAGES * PAGE_BYTES);
	close(e->native->code_fd);
	pthread_mutex_destroy(&e->native->code_lock);
	free(e->native);
	e->native = NULL;
}

int native_vcpu_init(struct soft_vcpu *v)
{
	if (!v->engine->native)
		return 0;
	v->native = aligned_alloc(64, (sizeof(*v->native) + 63) & ~63ul);
	if (!v->native)
		return -ENOMEM;
	memset(v->native, 0, sizeof(*v->native));
	v->native->fault = NATIVE_NO_FAULT;
	wanted_update(v);
	return 0;
}

void native_vcpu_free(struct soft_vcpu *v)
{
	if (!v->native)
		return;
	for (unsigned i = 0; i < NATIVE_SPACES; i++) {
		struct native_space *s = &v->native->space[i];

		native_map_free(v, s);
		native_stub_end(&s->stub);
	}
	free(v->native);
	v->native = NULL;
}
