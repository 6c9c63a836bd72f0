/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's user program that does, in the middle of long computations, all
 * that user code can do to its processor: what runs natively must be what an
 * x86-64 CPU does. Static; prints 'ok NAME' or 'BAD NAME: why' a line and
 * 'done' last. Run by tests/e2e/test_native.py, and on the host by hand.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <fenv.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static const char *name;
static uint32_t cold_cpuid[8][4];
static int bad;

static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("BAD %s: ", name);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	bad++;
}

static uint64_t ms_now(void)
{
	struct timespec t;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Long enough in user mode that a native tier would have taken over. */
static __attribute__((noinline)) uint64_t hot(void)
{
	uint64_t end = ms_now() + 25, x = 88172645463325252ull;

	do {
		for (unsigned i = 0; i < 2000000; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
	} while (ms_now() < end);
	return x;
}

/* ---- Faults ----------------------------------------------------------------- */

static sigjmp_buf landing;
static volatile int got_signal, got_code;
static volatile uintptr_t got_addr, got_rip;

static void on_signal(int sig, siginfo_t *info, void *uc)
{
	got_signal = sig;
	got_code = info->si_code;
	got_addr = (uintptr_t)info->si_addr;
	got_rip = ((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP];
	siglongjmp(landing, 1);
}

static void catch(int sig)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(sig, &sa, NULL);
}

#define FAULTS(sig, code, body)                                                                              \
	do {                                                                                                  \
		got_signal = 0;                                                                               \
		hot();                                                                                        \
		if (!sigsetjmp(landing, 1)) {                                                                 \
			body;                                                                                 \
			fail("%s: no signal", #body);                                                         \
		} else if (got_signal != (sig) || got_code != (code)) {                                       \
			fail("%s: signal %d code %d", #body, got_signal, got_code);                           \
		}                                                                                             \
	} while (0)

static void faults(void)
{
	volatile int zero = 0;
	volatile char *volatile null = (char *)16;
	char *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	catch(SIGFPE);
	catch(SIGILL);
	catch(SIGSEGV);
	catch(SIGTRAP);
	catch(SIGBUS);
	FAULTS(SIGFPE, FPE_INTDIV, asm volatile("xor %%edx, %%edx; idivl %0" : : "r"(zero) : "rax", "rdx"));
	FAULTS(SIGILL, ILL_ILLOPN, asm volatile("ud2"));
	FAULTS(SIGSEGV, SEGV_MAPERR, *null = 1);
	if (got_addr != 16)
		fail("address 0x%lx", got_addr);
	FAULTS(SIGSEGV, SI_KERNEL, asm volatile("hlt"));
	FAULTS(SIGSEGV, SI_KERNEL, asm volatile("cli"));
	FAULTS(SIGSEGV, SI_KERNEL, asm volatile("in $0x80, %%al" : : : "rax"));
	FAULTS(SIGSEGV, SI_KERNEL, asm volatile("mov %0, %%rax; movb $1, (%%rax)" : : "i"(0x8000000000000000ull) : "rax"));
	FAULTS(SIGSEGV, SEGV_MAPERR, asm volatile("mov %0, %%rax; movb $1, (%%rax)" : : "i"(0xffffffff81000000ull) : "rax"));
	FAULTS(SIGTRAP, SI_KERNEL, asm volatile("int3"));
	*(volatile char *)page = 1;
	mprotect(page, PAGE, PROT_READ);
	FAULTS(SIGSEGV, SEGV_ACCERR, *(volatile char *)page = 2);
	if (got_addr != (uintptr_t)page)
		fail("address of the read-only page");
	mprotect(page, PAGE, PROT_NONE);
	FAULTS(SIGSEGV, SEGV_ACCERR, (void)*(volatile char *)page);
	mprotect(page, PAGE, PROT_READ);
	if (*(volatile char *)page != 1)
		fail("what was in the page");
	munmap(page, PAGE);
	FAULTS(SIGSEGV, SEGV_MAPERR, (void)*(volatile char *)page);
	FAULTS(SIGSEGV, SEGV_ACCERR, ((void (*)(void))(page + PAGE))());
	if (got_rip != (uintptr_t)page + PAGE)
		fail("rip of a jump to data");
	FAULTS(SIGSEGV, SEGV_MAPERR, ((void (*)(void))page)());
	/* One byte of an access in the page that is gone. */
	FAULTS(SIGSEGV, SEGV_MAPERR, *(volatile uint64_t *)(page + PAGE - 1) = 5);
	/* Alignment check: AC is the program's to set. */
	FAULTS(SIGBUS, BUS_ADRALN, asm volatile("pushf; orl $0x40000, (%%rsp); popf; movl $1, 1(%0)" : : "r"(page + PAGE) : "memory"));
	asm volatile("pushf; andl $~0x40000, (%%rsp); popf" : : : "memory", "cc");
	/* Unmasked floating-point exceptions. */
	feclearexcept(FE_ALL_EXCEPT);
	feenableexcept(FE_DIVBYZERO);
	FAULTS(SIGFPE, FPE_FLTDIV, { volatile double d = 0; d = 1.0 / d; });
	fedisableexcept(FE_ALL_EXCEPT);
	signal(SIGTRAP, SIG_DFL);
}

static volatile int steps;

static void on_step(int sig, siginfo_t *info, void *uc)
{
	steps++;
	if (info->si_code != TRAP_TRACE)
		steps = -1000;
}

static void self_step(void)
{
	struct sigaction sa = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	sigaction(SIGTRAP, &sa, NULL);
	hot();
	steps = 0;
	asm volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; pushf; andl $~0x100, (%%rsp); popf" : : : "memory", "cc");
	/* After each of nop, nop, nop, pushf, and, popf. */
	if (steps != 6)
		fail("%d traps instead of 6", steps);
	signal(SIGTRAP, SIG_DFL);
}

/* ---- State -------------------------------------------------------------------- */

static void numbers(void)
{
	double first = 0;
	uint64_t ints = 0;

	for (int round = 0; round < 2; round++) {
		double s = 0;
		uint64_t h = 0xcbf29ce484222325ull;
		__m128d v = _mm_set_pd(1.5, 2.5);

		for (unsigned i = 1; i < 30000000; i++) {
			s += (i * 1.7 - 3) / i;
			h = (h ^ i) * 0x100000001b3ull;
			v = _mm_add_pd(_mm_mul_pd(v, _mm_set1_pd(0.999)), _mm_set1_pd(0.25));
		}
		s += v[0] + v[1];
		if (round && (s != first || h != ints))
			fail("two rounds differ: %.17g %.17g", s, first);
		first = s;
		ints = h;
	}
	/* (1.7 i - 3) / i summed: 1.7 n - 3 H(n), n = 29999999, and 500 of the vector's limit */
	if (first < 50999946 + 490 || first > 50999946 + 510)
		fail("sum %.17g", first);
}

static void registers(void)
{
	uint64_t end = ms_now() + 120;
	unsigned long rounds = 0;

	/* Every register over interrupts and system calls. */
	while (ms_now() < end) {
		uint64_t wrong;

		asm volatile(
			"push %%rbp\n"
			"mov $0x1111111111111111, %%rbx; mov $0x2222222222222222, %%rbp\n"
			"mov $0x8888888888888888, %%r8; mov $0x9999999999999999, %%r9; mov $0xaaaaaaaaaaaaaaaa, %%r10\n"
			"mov $0xcccccccccccccccc, %%r12; mov $0xdddddddddddddddd, %%r13\n"
			"mov $0xeeeeeeeeeeeeeeee, %%r14; mov $0xffffffffffffffff, %%r15\n"
			"movq %%rbx, %%xmm7; movq %%r12, %%xmm15; fldpi\n"
			"mov $300000, %%ecx\n"
			"1: dec %%ecx\n"
			"jnz 1b\n"
			"mov $39, %%eax; syscall\n"
			"xor %%edx, %%edx\n"
			"movq %%xmm7, %%rax; cmp %%rbx, %%rax; setne %%dl\n"
			"movq %%xmm15, %%rax; cmp %%r12, %%rax; setne %%al; or %%al, %%dl\n"
			"mov $0x1111111111111111, %%rax; cmp %%rax, %%rbx; setne %%al; or %%al, %%dl\n"
			"mov $0x2222222222222222, %%rax; cmp %%rax, %%rbp; setne %%al; or %%al, %%dl\n"
			"mov $0x8888888888888888, %%rax; cmp %%rax, %%r8; setne %%al; or %%al, %%dl\n"
			"mov $0x9999999999999999, %%rax; cmp %%rax, %%r9; setne %%al; or %%al, %%dl\n"
			"mov $0xaaaaaaaaaaaaaaaa, %%rax; cmp %%rax, %%r10; setne %%al; or %%al, %%dl\n"
			"mov $0xdddddddddddddddd, %%rax; cmp %%rax, %%r13; setne %%al; or %%al, %%dl\n"
			"mov $0xeeeeeeeeeeeeeeee, %%rax; cmp %%rax, %%r14; setne %%al; or %%al, %%dl\n"
			"fldpi; fucomip %%st(1), %%st; setne %%al; or %%al, %%dl; fstp %%st(0)\n"
			"pop %%rbp\n"
			: "=d"(wrong)
			:
			: "rax", "rbx", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
		if (wrong)
			return fail("after %lu rounds", rounds);
		rounds++;
	}
	if (!rounds)
		fail("no round");
}

static void control_words(void)
{
	uint32_t mxcsr = _mm_getcsr();
	unsigned short cw, set = 0x0e7f;

	fesetround(FE_UPWARD);
	asm volatile("fldcw %0" : : "m"(set));
	hot();
	if (_mm_getcsr() != ((mxcsr & ~0x6000u) | 0x4000))
		fail("MXCSR 0x%x", _mm_getcsr());
	asm volatile("fnstcw %0" : "=m"(cw));
	if (cw != set)
		fail("FCW 0x%x", cw);
	fesetround(FE_TONEAREST);
	asm volatile("fninit");
}

/* MXCSR stays also where all vector registers are zero, which the host saves in a shorter form. XSAVE is the engine's. */
static void zero_vectors(void)
{
	static uint8_t area[4096] __attribute__((aligned(64)));
	uint32_t set = 0x9fc0, normal = 0x1f80, got;

	if (!(cold_cpuid[1][2] & bit_AVX))
		return;
	asm volatile("vzeroall; ldmxcsr %1; mov $60000000, %%ecx; 1: dec %%ecx; jnz 1b; mov $7, %%eax; xor %%edx, %%edx; xsave %0; ldmxcsr %2"
		     : "+m"(area) : "m"(set), "m"(normal)
		     : "rax", "rcx", "rdx", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
		       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	memcpy(&got, area + 24, sizeof(got));
	if (got != set)
		fail("MXCSR 0x%x", got);
}

static void wide_vectors(void)
{
	uint64_t in[4] = { 1, 2, 3, 4 }, out[4];

	if (!(cold_cpuid[1][2] & bit_AVX))
		return;
	asm volatile("vmovdqu %0, %%ymm9" : : "m"(in));
	asm volatile("mov $60000000, %%ecx; 1: dec %%ecx; jnz 1b; mov $39, %%eax; syscall; mov $20000000, %%ecx; 1: dec %%ecx; jnz 1b"
		     : : : "rcx", "rax", "r11", "memory");
	asm volatile("vmovdqu %%ymm9, %0; vzeroupper" : "=m"(out));
	if (memcmp(in, out, sizeof(in)))
		fail("upper halves");
}

static void bases(void)
{
	uint64_t at[2] = { 0x1234567890, 0x9876543210 }, got;

	syscall(SYS_arch_prctl, ARCH_SET_GS, at);
	hot();
	asm volatile("mov %%gs:8, %0" : "=r"(got));
	if (got != at[1])
		fail("GS base set by the kernel");
	asm volatile("wrgsbase %0" : : "r"(&at[1]));
	hot();
	asm volatile("mov %%gs:0, %0" : "=r"(got));
	if (got != at[1])
		fail("GS base set by WRGSBASE");
	syscall(SYS_arch_prctl, ARCH_GET_GS, &got);
	if (got != (uintptr_t)&at[1])
		fail("the kernel does not see it");
	syscall(SYS_arch_prctl, ARCH_SET_GS, 0);
}

/* ---- What tells of the processor -------------------------------------------------- */

/*
 * Code that asks what the CPU is lies in pages of its own: a native tier must not run those, and shall run the rest.
 */
#define ASKS __attribute__((noinline, section("asks_of_the_cpu"), aligned(4096)))

static ASKS void cpuid_all(uint32_t to[8][4])
{
	static const uint32_t leaf[8] = { 0, 1, 7, 0xd, 0x80000000, 0x80000001, 0x40000000, 0x80000008 };

	for (int i = 0; i < 8; i++)
		asm volatile("cpuid" : "=a"(to[i][0]), "=b"(to[i][1]), "=c"(to[i][2]), "=d"(to[i][3]) : "a"(leaf[i]), "c"(0));
	to[1][1] &= 0xffffff; /* the APIC's number */
}

static ASKS uint32_t xgetbv(void)
{
	uint32_t lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

static ASKS bool has_xsavec(void)
{
	uint32_t a, b, c, d;

	asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xd), "c"(1));
	return a & 2;
}

static ASKS void asks_end(void)
{
	asm volatile(".balign 4096");
}

static void identity(void)
{
	uint32_t now[8][4], xcr0 = xgetbv();
	uint64_t last = 0;
	unsigned cpu, cpus = sysconf(_SC_NPROCESSORS_ONLN);

	asks_end();
	for (int i = 0; i < 20; i++) {
		hot();
		cpuid_all(now);
		if (memcmp(now, cold_cpuid, sizeof(now)))
			return fail("CPUID is another");
		if (xgetbv() != xcr0)
			return fail("XCR0 is another");
		uint64_t t = __builtin_ia32_rdtsc();

		if (t <= last)
			return fail("TSC runs backwards");
		last = t;
		cpu = sched_getcpu();
		if (cpu >= cpus)
			return fail("CPU %u of %u", cpu, cpus);
	}
}

/*
 * Saved with all parts asked for, as the dynamic linker does around each first call: the layout names parts of this
 * CPU only. A program may save in one place and restore in another.
 */
static void saved_layout(void)
{
	static uint8_t area[8192] __attribute__((aligned(64)));
	uint64_t parts, xcr0 = xgetbv();

	if (!(cold_cpuid[1][2] & bit_OSXSAVE) || !has_xsavec())
		return;
	for (int i = 0; i < 5; i++) {
		hot();
		asm volatile("xsavec %0" : "=m"(area) : "a"(-1), "d"(-1));
		memcpy(&parts, area + 520, sizeof(parts));
		if (parts << 1 >> 1 & ~xcr0)
			return fail("XCOMP_BV 0x%lx, XCR0 0x%lx", (unsigned long)parts, (unsigned long)xcr0);
	}
}

static void time_runs(void)
{
	struct timespec a, b;
	uint64_t x = 0, t0, t1;

	/* The vDSO's clock, the TSC and the kernel's clock agree. */
	clock_gettime(CLOCK_MONOTONIC, &a);
	t0 = ms_now();
	for (int i = 0; i < 20; i++)
		x += hot();
	clock_gettime(CLOCK_MONOTONIC, &b);
	t1 = ms_now();
	int64_t d = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 - (int64_t)(t1 - t0);

	if (d < -20 || d > 20 || !x)
		fail("clocks differ by %ld ms", (long)d);
}

/* ---- System calls -------------------------------------------------------------------- */

static void calls(void)
{
	long pid = getpid(), got;

	for (int i = 0; i < 20000; i++)
		if (syscall(SYS_getpid) != pid)
			return fail("getpid");
	hot();
	for (int i = 0; i < 200; i++) {
		asm volatile("int $0x80" : "=a"(got) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
		if (got != pid)
			return fail("INT 0x80: %ld", got);
	}
	hot();
	if (syscall(100000) != -1 || errno != ENOSYS)
		fail("an unknown call");
}

static volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	alarms++;
}

static void async_signals(void)
{
	struct itimerval every = { { 0, 5000 }, { 0, 5000 } }, off = {0};
	uint64_t first = hot(), x = 0;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int i = 0; i < 300; i++)
		for (unsigned k = 0; k < 1000000; k++)
			x = (x ^ k) * 31;
	setitimer(ITIMER_REAL, &off, NULL);
	if (!alarms || !first)
		fail("no alarm");
	uint64_t y = 0;

	for (int i = 0; i < 300; i++)
		for (unsigned k = 0; k < 1000000; k++)
			y = (y ^ k) * 31;
	if (x != y)
		fail("a handler changed the result");
}

/* ---- Memory ---------------------------------------------------------------------------- */

static void memory(void)
{
	const size_t size = 48u << 20;
	uint8_t *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t sum = 0;

	for (int round = 1; round <= 3; round++) {
		for (size_t i = 0; i < size; i += 64)
			m[i] = (i >> 12) * round;
		for (size_t i = 0; i < size; i += 64)
			if (m[i] != (uint8_t)((i >> 12) * round))
				return fail("byte %zu in round %d", i, round);
	}
	madvise(m + (8 << 20), 8 << 20, MADV_DONTNEED);
	for (size_t i = 8 << 20; i < 16 << 20; i += PAGE)
		sum += m[i];
	if (sum)
		fail("pages given back are not zero");
	uint8_t *moved = mremap(m + (32 << 20), 16 << 20, 16 << 20, MREMAP_MAYMOVE | MREMAP_FIXED, m + (8 << 20));

	for (size_t i = 0; i < 16 << 20; i += PAGE)
		if (moved[i] != (uint8_t)(((i + (32 << 20)) >> 12) * 3))
			return fail("moved pages");
	munmap(m, size);
}

static void copy_on_write(void)
{
	uint8_t *m = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int round = 0; round < 20; round++) {
		int status = 0;
		pid_t pid;

		memset(m, 1, 64 * PAGE);
		if (round < 3)
			hot();
		pid = fork();
		if (!pid) {
			if (round < 3)
				hot();
			memset(m, 2, 64 * PAGE);
			for (unsigned i = 0; i < 64 * PAGE; i++)
				if (m[i] != 2)
					_exit(1);
			_exit(0);
		}
		if (round < 3)
			hot();
		for (unsigned i = 0; i < 64 * PAGE; i++)
			if (m[i] != 1)
				return fail("the child's bytes in the parent");
		waitpid(pid, &status, 0);
		if (status)
			return fail("the child: 0x%x", status);
		memset(m, 3, 64 * PAGE);
	}
	munmap(m, 64 * PAGE);
}

/* Code that is written, called, written again: in one mapping, and through another one of the same page. */
static void new_code(void)
{
	static const uint8_t form[] = { 0xb8, 0, 0, 0, 0, 0xc3 }; /* mov $n, %eax; ret */
	uint8_t *rwx = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = memfd_create("code", 0);

	if (ftruncate(fd, PAGE))
		return fail("ftruncate");
	uint8_t *w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint8_t *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);

	memcpy(rwx, form, sizeof(form));
	memcpy(w, form, sizeof(form));
	for (int i = 0; i < 300; i++) {
		*(volatile int *)(rwx + 1) = i;
		*(volatile int *)(w + 1) = i * 3;
		if (i % 100 == 50)
			hot();
		if (((int (*)(void))rwx)() != i)
			return fail("own mapping, %d", i);
		if (((int (*)(void))x)() != i * 3)
			return fail("other mapping, %d", i);
	}
	/* CPUID in code that was just written. */
	static const uint8_t id[] = { 0x53, 0x31, 0xc0, 0x0f, 0xa2, 0x89, 0xd8, 0x5b, 0xc3 }; /* push rbx; xor eax; cpuid; mov ebx, eax; pop; ret */

	memcpy(w, id, sizeof(id));
	hot();
	for (int i = 0; i < 100; i++)
		if ((uint32_t)((int (*)(void))x)() != cold_cpuid[0][1])
			return fail("CPUID in new code");
	munmap(rwx, PAGE);
	munmap(w, PAGE);
	munmap(x, PAGE);
	close(fd);
}

/* ---- Threads ------------------------------------------------------------------------------ */

static _Atomic int stop_writing;
static _Atomic uint64_t shared_count;
static volatile uint64_t *target;
static _Atomic uint64_t writes;
static _Thread_local sigjmp_buf writer_landing;
static _Atomic int writer_faults;

static void on_writer_fault(int sig)
{
	atomic_fetch_add(&writer_faults, 1);
	siglongjmp(writer_landing, 1);
}

static void *writer(void *arg)
{
	sigsetjmp(writer_landing, 1);
	while (!stop_writing) {
		*target = *target + 1;
		writes++;
	}
	return NULL;
}

/* A page taken away from a thread that writes to it without pause. */
static void shootdown(void)
{
	pthread_t t;

	target = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	signal(SIGSEGV, on_writer_fault);
	stop_writing = 0;
	pthread_create(&t, NULL, writer, NULL);
	hot();
	for (int i = 0; i < 60 || (!writer_faults && i < 3000); i++) {
		uint64_t before, after;

		mprotect((void *)target, PAGE, PROT_READ);
		before = *target;
		for (volatile int k = 0; k < 200000; k++)
			;
		after = *target;
		if (before != after) {
			fail("written after mprotect: %lu", (unsigned long)(after - before));
			break;
		}
		mprotect((void *)target, PAGE, PROT_READ | PROT_WRITE);
		for (volatile int k = 0; k < 400000; k++)
			;
	}
	stop_writing = 1;
	pthread_join(t, NULL);
	if (!writer_faults || !writes)
		fail("the writer never met the protection");
	munmap((void *)target, PAGE);
	signal(SIGSEGV, SIG_DFL);
}

static uint64_t plain_count;
static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;

static void *counter(void *arg)
{
	for (int i = 0; i < 3000000; i++)
		atomic_fetch_add(&shared_count, 1);
	for (int i = 0; i < 30000; i++) {
		pthread_mutex_lock(&count_lock);
		plain_count++;
		pthread_mutex_unlock(&count_lock);
	}
	return NULL;
}

static void counting(void)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, counter, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	if (shared_count != 12000000 || plain_count != 120000)
		fail("%lu and %lu", (unsigned long)shared_count, (unsigned long)plain_count);
}

static void traced(void)
{
	int status, n = 0;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		hot();
		raise(SIGSTOP);
		hot();
		_exit(7);
	}
	waitpid(pid, &status, 0);
	for (; n < 500 && WIFSTOPPED(status); n++) {
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &status, 0);
	}
	if (n != 500 || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		fail("single steps: %d, 0x%x", n, status);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
		fail("exit 0x%x", status);
}

static int deep(int n)
{
	volatile char room[600];

	room[n % 600] = n;
	return n ? deep(n - 1) + room[n % 600] * 0 + 1 : 0;
}

static void stack(void)
{
	hot();
	if (deep(10000) != 10000)
		fail("recursion");
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "numbers", numbers }, { "registers", registers }, { "control_words", control_words },
		{ "zero_vectors", zero_vectors }, { "wide_vectors", wide_vectors }, { "bases", bases }, { "identity", identity },
		{ "saved_layout", saved_layout }, { "time", time_runs },
		{ "calls", calls }, { "signals", async_signals }, { "memory", memory }, { "copy_on_write", copy_on_write },
		{ "new_code", new_code }, { "shootdown", shootdown }, { "counting", counting }, { "traced", traced },
		{ "stack", stack }, { "faults", faults }, { "self_step", self_step },
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	cpuid_all(cold_cpuid);
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		int before = bad;
		uint64_t begin = ms_now();

		name = tests[i].name;
		tests[i].run();
		if (bad == before)
			printf("ok %s %lu ms\n", name, (unsigned long)(ms_now() - begin));
	}
	printf("done %d\n", bad);
	return !!bad;
}
