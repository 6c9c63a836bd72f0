/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is this KVM worth using? A throw-away VM with one vCPU, in 64-bit mode and
 * ring 0 at once, runs the snippets of probe_payload.S: a loop against the
 * clock, then one everyday instruction of kernels after the other.
 *
 * There are KVMs, inside cloud VMs without nested virtualization, that open
 * and create VMs like any other, but interpret ring-0 code in the host's
 * kernel: hundreds of times slower, and incompletely. The soft engine is the
 * better one there.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/cpu_leaves.h"
#include "engine/kvm/kvm.h"
#include "engine/kvm/probe_payload.h"

/* Guest-physical, identity-mapped; the whole is one slot. */
#define MEMORY_SIZE 0x10000u
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define TABLES 0x4000u /* GDT; IDT at +0x100 */
#define IDT (TABLES + 0x100u)
#define TSS 0x5000u
#define SCRATCH 0x6000u
#define CODE_SNIPPET 0x8000u
#define CODE_BREAKPOINT 0x9000u
#define CODE_FAULT 0xa000u
#define STACK_TOP 0xf000u

#define SELECTOR_CODE 8u
#define SELECTOR_DATA 16u
#define SELECTOR_TSS 24u

#define LOOP_INSNS 8u
#define LOOP_SHORT 4u
#define LOOP_LONG 68u
#define LOOP_LONGER 1028u
#define SAMPLES 5u
#define HARDWARE_NS 30u /* hardware needs a nanosecond; nested virtualization and a busy host are allowed for */
#define STUCK_MS 100u   /* a snippet that runs longer hangs */

#define SNIPPET(name) extern const char probe_##name[], probe_##name##_end[]
SNIPPET(breakpoint); SNIPPET(fault); SNIPPET(loop);
SNIPPET(int3); SNIPPET(iretq); SNIPPET(stac); SNIPPET(cmpxchg16b); SNIPPET(xsave); SNIPPET(fxsave); SNIPPET(sse);
SNIPPET(avx); SNIPPET(movbe); SNIPPET(popcnt); SNIPPET(invlpg); SNIPPET(cr3); SNIPPET(wrmsr); SNIPPET(swapgs);
SNIPPET(cpuid); SNIPPET(rdtsc); SNIPPET(movs); SNIPPET(lock); SNIPPET(mfence);

#define NEEDS_SMAP 7, CPUID_EBX, 20
#define NEEDS(ecx_bit) 1, CPUID_ECX, ecx_bit
#define TRY(name, ...) { #name, probe_##name, probe_##name##_end, __VA_ARGS__ }
/* What the guest's CPUID does not offer is not tried. */
static const struct snippet {
	const char *name, *code, *end;
	uint32_t leaf, reg, bit; /* leaf 0: always offered */
} snippets[] = {
	TRY(int3),     TRY(iretq),  TRY(stac, NEEDS_SMAP), TRY(cmpxchg16b, NEEDS(13)), TRY(xsave, NEEDS(26)),
	TRY(fxsave),   TRY(sse),    TRY(avx, NEEDS(28)),   TRY(movbe, NEEDS(22)),      TRY(popcnt, NEEDS(23)),
	TRY(invlpg),   TRY(cr3),    TRY(wrmsr),            TRY(swapgs),                TRY(cpuid),
	TRY(rdtsc),    TRY(movs),   TRY(lock),             TRY(mfence),
};

struct probe {
	int sys, vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_size;
	struct kvm_cpuid2 *cpuid;
	struct kvm_sregs sregs;
	timer_t watchdog;
	bool watched;
	sigset_t mask; /* the caller's */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static bool offered(const struct probe *p, uint32_t leaf, uint32_t reg, uint32_t bit)
{
	for (unsigned i = 0; i < p->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *c = &p->cpuid->entries[i];
		const uint32_t regs[4] = { c->eax, c->ebx, c->ecx, c->edx };

		if (c->function == leaf && c->index == 0)
			return regs[reg] >> bit & 1;
	}
	return false;
}

/* ---- The guest ----------------------------------------------------------- */

static void put64(struct probe *p, uint32_t gpa, uint64_t value)
{
	memcpy(p->memory + gpa, &value, sizeof(value));
}

static void put_gate(struct probe *p, unsigned vector, uint32_t handler)
{
	put64(p, IDT + vector * 16,
	      (handler & 0xffff) | SELECTOR_CODE << 16 | 0x8e00ull << 32 | (uint64_t)(handler >> 16) << 48);
	put64(p, IDT + vector * 16 + 8, 0);
}

static void put_code(struct probe *p, uint32_t gpa, const char *code, const char *end)
{
	memcpy(p->memory + gpa, code, end - code);
}

static void build_memory(struct probe *p)
{
	put64(p, PML4, PDPT | 3);
	put64(p, PDPT, PD | 3);
	put64(p, PD, 0x83); /* 2 MiB from 0 */
	put64(p, TABLES + SELECTOR_CODE, 0x00af9b000000ffff);
	put64(p, TABLES + SELECTOR_DATA, 0x00cf93000000ffff);
	for (unsigned vector = 0; vector < 32; vector++)
		put_gate(p, vector, vector == 3 ? CODE_BREAKPOINT : CODE_FAULT);
	put_code(p, CODE_BREAKPOINT, probe_breakpoint, probe_breakpoint_end);
	put_code(p, CODE_FAULT, probe_fault, probe_fault_end);
}

static void build_sregs(struct probe *p)
{
	const struct kvm_segment data = { .limit = UINT32_MAX, .selector = SELECTOR_DATA, .type = 3, .present = 1,
					  .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs *s = &p->sregs;

	s->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
	s->cr3 = PML4;
	s->cr4 = 0x620; /* PAE OSFXSR OSXMMEXCPT */
	if (offered(p, NEEDS(26)))
		s->cr4 |= 1u << 18;
	if (offered(p, NEEDS_SMAP))
		s->cr4 |= 1u << 21;
	s->efer = 0x501; /* SCE LME LMA */
	s->cs = (struct kvm_segment){ .limit = UINT32_MAX, .selector = SELECTOR_CODE, .type = 11, .present = 1, .s = 1,
				      .l = 1, .g = 1 };
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->tr = (struct kvm_segment){ .base = TSS, .limit = 0x67, .selector = SELECTOR_TSS, .type = 11, .present = 1 };
	s->gdt = (struct kvm_dtable){ .base = TABLES, .limit = 0x1f };
	s->idt = (struct kvm_dtable){ .base = IDT, .limit = 32 * 16 - 1 };
}

static int build(struct probe *p, struct err *err)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = offered(p, NEEDS(28)) ? 7 : 3 };
	int r;

	p->vm = kvm_ioctl(p->sys, KVM_CREATE_VM, NULL);
	if (p->vm < 0)
		return err_set_errno(err, -p->vm, "KVM makes no VM");
	p->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED)
		return err_set_errno(err, errno, "no memory for the probe");
	region.userspace_addr = (uintptr_t)p->memory;
	r = kvm_ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (r < 0)
		return err_set_errno(err, -r, "KVM takes no memory");
	p->vcpu = kvm_ioctl(p->vm, KVM_CREATE_VCPU, NULL);
	if (p->vcpu < 0)
		return err_set_errno(err, -p->vcpu, "KVM makes no vCPU");
	r = kvm_ioctl(p->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	p->run_size = r < (int)sizeof(struct kvm_run) ? sizeof(struct kvm_run) : (size_t)r;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED)
		return err_set_errno(err, errno, "KVM's vCPU cannot be mapped");
	build_memory(p);
	r = kvm_ioctl(p->vcpu, KVM_SET_CPUID2, p->cpuid);
	if (!r)
		r = kvm_ioctl(p->vcpu, KVM_GET_SREGS, &p->sregs);
	if (!r) {
		build_sregs(p);
		r = kvm_ioctl(p->vcpu, KVM_SET_SREGS, &p->sregs);
	}
	if (r < 0)
		return err_set_errno(err, -r, "KVM puts no vCPU into 64-bit mode");
	if (offered(p, NEEDS(26)))
		kvm_ioctl(p->vcpu, KVM_SET_XCRS, &xcrs);
	return 0;
}

/* ---- Running ------------------------------------------------------------- */

/* A KVM that never comes back must not take us along: the kick signal ends KVM_RUN. */
static void watch(struct probe *p)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_KICK_SIGNAL };
	struct itimerspec every = { .it_interval.tv_nsec = STUCK_MS * 1000000, .it_value.tv_nsec = STUCK_MS * 1000000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, &p->mask);
	event._sigev_un._tid = syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &p->watchdog) < 0)
		return;
	p->watched = true;
	timer_settime(p->watchdog, 0, &every, NULL);
}

/* True if the snippet ran to its end and was content. */
static bool run_snippet(struct probe *p, const char *code, const char *end, uint64_t rcx, uint64_t *ns)
{
	struct kvm_regs regs = { .rip = CODE_SNIPPET, .rsp = STACK_TOP, .rbx = SCRATCH, .rcx = rcx, .rflags = 2 };
	struct kvm_vcpu_events events = { .flags = KVM_VCPUEVENT_VALID_SHADOW };
	struct kvm_run *run = p->run;
	uint64_t start;
	int r;

	put_code(p, CODE_SNIPPET, code, end);
	memset(p->memory + SCRATCH, 0, KVM_PAGE);
	/* What an earlier snippet left behind; the control registers are set anew as well. */
	if (kvm_ioctl(p->vcpu, KVM_SET_SREGS, &p->sregs) < 0 || kvm_ioctl(p->vcpu, KVM_SET_VCPU_EVENTS, &events) < 0 ||
	    kvm_ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
		return false;
	start = now_ns();
	r = ioctl(p->vcpu, KVM_RUN, 0);
	if (ns)
		*ns = now_ns() - start;
	return !r && run->exit_reason == KVM_EXIT_IO && run->io.port == PROBE_PORT &&
	       ((uint8_t *)run)[run->io.data_offset] == 1;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool time_loop(struct probe *p, uint64_t turns, uint64_t *median)
{
	uint64_t ns[SAMPLES];

	for (unsigned i = 0; i < SAMPLES; i++)
		if (!run_snippet(p, probe_loop, probe_loop_end, turns, &ns[i]))
			return false;
	qsort(ns, SAMPLES, sizeof(ns[0]), compare);
	*median = ns[SAMPLES / 2];
	return true;
}

/* The difference of two lengths: entry and exit drop out. */
static bool measure_loop(struct probe *p, uint64_t turns, unsigned *ring0_ns)
{
	uint64_t brief, lengthy;

	if (!time_loop(p, LOOP_SHORT, &brief) || !time_loop(p, turns, &lengthy))
		return false;
	*ring0_ns = lengthy > brief ? (lengthy - brief) / ((turns - LOOP_SHORT) * LOOP_INSNS) : 0;
	return true;
}

/* A little too slow may be the noise of a busy host: look longer, which an interpreter would not bear. */
static bool measure(struct probe *p, unsigned *ring0_ns)
{
	bool ok = measure_loop(p, LOOP_LONG, ring0_ns);

	if (ok && *ring0_ns >= HARDWARE_NS && *ring0_ns < 8 * HARDWARE_NS)
		ok = measure_loop(p, LOOP_LONGER, ring0_ns);
	return ok;
}

static void try_snippets(struct probe *p, struct engine_probe *out)
{
	size_t used = 0;

	for (unsigned i = 0; i < sizeof(snippets) / sizeof(snippets[0]); i++) {
		const struct snippet *s = &snippets[i];
		size_t len = strlen(s->name);

		if (s->leaf && !offered(p, s->leaf, s->reg, s->bit))
			continue;
		if (run_snippet(p, s->code, s->end, 0, NULL) || used + len + 2 > sizeof(out->refused))
			continue;
		if (used)
			out->refused[used++] = ' ';
		memcpy(out->refused + used, s->name, len + 1);
		used += len;
	}
}

/* ---- The verdict --------------------------------------------------------- */

static void judge(struct engine_probe *out)
{
	const char *refused = out->refused;

	if (out->ring0_ns >= HARDWARE_NS && *refused)
		snprintf(out->reason, sizeof(out->reason),
			 "/dev/kvm interprets kernel code instead of running it on the processor "
			 "(%u ns an instruction) and cannot execute: %s", out->ring0_ns, refused);
	else if (out->ring0_ns >= HARDWARE_NS)
		snprintf(out->reason, sizeof(out->reason),
			 "/dev/kvm interprets kernel code instead of running it on the processor "
			 "(%u ns an instruction)", out->ring0_ns);
	else if (*refused)
		snprintf(out->reason, sizeof(out->reason), "/dev/kvm cannot execute instructions that kernels use: %s",
			 refused);
	else
		snprintf(out->reason, sizeof(out->reason), "kernel code runs at the processor's speed");
	out->usable = out->ring0_ns < HARDWARE_NS && !*refused;
}

static void fail(struct engine_probe *out, const struct err *err)
{
	snprintf(out->reason, sizeof(out->reason), "%.255s", err_msg(err));
}

static void probe_close(struct probe *p)
{
	if (p->watched)
		timer_delete(p->watchdog);
	if (p->run && p->run != MAP_FAILED)
		munmap(p->run, p->run_size);
	if (p->memory && p->memory != MAP_FAILED)
		munmap(p->memory, MEMORY_SIZE);
	if (p->vcpu >= 0)
		close(p->vcpu);
	if (p->vm >= 0)
		close(p->vm);
	if (p->sys >= 0)
		close(p->sys);
	free(p->cpuid);
}

void engine_probe_kvm(struct engine_probe *out)
{
	struct probe p = { .sys = -1, .vm = -1, .vcpu = -1 };
	struct err err = ERR_INIT;
	int vcpus;

	memset(out, 0, sizeof(*out));
	p.sys = kvm_open(&err);
	if (p.sys < 0) {
		fail(out, &err);
		return;
	}
	out->present = true;
	vcpus = ioctl(p.sys, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	out->max_vcpus = vcpus < 1 ? 1 : (unsigned)vcpus < ENGINE_MAX_CPUS ? (unsigned)vcpus : ENGINE_MAX_CPUS;
	p.cpuid = kvm_cpuid_supported(p.sys, &err);
	if (!p.cpuid || kvm_kick_init(&err) < 0 || build(&p, &err) < 0) {
		fail(out, &err);
		probe_close(&p);
		return;
	}
	watch(&p);
	if (measure(&p, &out->ring0_ns)) {
		try_snippets(&p, out);
		judge(out);
	} else {
		snprintf(out->reason, sizeof(out->reason),
			 "/dev/kvm does not run a loop of plain instructions in ring 0");
	}
	pthread_sigmask(SIG_SETMASK, &p.mask, NULL);
	probe_close(&p);
}
