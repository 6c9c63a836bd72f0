/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process for guest user code. It is forked off the vCPU's thread, throws
 * everything out of its address space but a page of code and a list to read,
 * and is traced by that thread from then on. While guest code runs,
 * PTRACE_SYSEMU turns each system call into a stop. Calls for us are made only
 * while we let it run the code page: it takes them from the list, which it can't
 * write. seccomp allows nothing but those three.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/soft/native.h"

/*
 * r12: the list, r13: how many. Ends in INT3, or in UD2 if one failed.
 */
asm(".pushsection .rodata\n"
    "native_stub_code:\n"
    "1:	xor %eax, %eax\n"
    "	test %r13, %r13\n"
    "	jz 2f\n"
    "	mov (%r12), %rax\n"
    "	mov 8(%r12), %rdi\n"
    "	mov 16(%r12), %rsi\n"
    "	mov 24(%r12), %rdx\n"
    "	mov 32(%r12), %r10\n"
    "	mov 40(%r12), %r8\n"
    "	mov 48(%r12), %r9\n"
    "	syscall\n"
    "	add $56, %r12\n"
    "	dec %r13\n"
    "	cmp $-4096, %rax\n"
    "	jb 1b\n"
    "	ud2\n"
    "2:	int3\n"
    "	.space 1\n"
    "native_stub_code_end:\n"
    ".popsection\n");
extern const uint8_t native_stub_code[], native_stub_code_end[];

/* ---- In the child ---------------------------------------------------------- */

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return ret;
}

/* Exit codes say which step failed. */
static void need(bool ok, int step)
{
	if (!ok)
		raw(SYS_exit_group, step, 0, 0, 0, 0, 0);
}

static void close_others(const int *fds, unsigned n)
{
	unsigned from = 0;

	/* In ascending order. */
	for (;;) {
		unsigned next = UINT32_MAX;

		for (unsigned i = 0; i < n; i++)
			if ((unsigned)fds[i] >= from && (unsigned)fds[i] < next)
				next = fds[i];
		if (next != from)
			raw(SYS_close_range, from, next == UINT32_MAX ? UINT32_MAX : next - 1, 0, 0, 0, 0);
		if (next == UINT32_MAX)
			return;
		from = next + 1;
	}
}

/*
 * What the stub asks for, and nothing for 32-bit or x32 callers. The rest traps
 * instead of killing: the vsyscall page's calls come here, too.
 */
static const struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 3, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_munmap, 2, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 1, 0),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static _Noreturn void child(const int *fds, unsigned n, int list_fd, uint64_t no_signals)
{
	const struct sock_fprog prog = { sizeof(filter) / sizeof(filter[0]), (struct sock_filter *)filter };
	char *rseq = (char *)__builtin_thread_pointer() + __rseq_offset;
	const size_t code = native_stub_code_end - native_stub_code;
	volatile char *page = (char *)NATIVE_STUB_BASE;

	need(!raw(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0, 0, 0), 1);
	raw(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
	raw(SYS_setsid, 0, 0, 0, 0, 0, 0);
	raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&no_signals, 0, 8, 0, 0);
	if (__rseq_size)
		raw(SYS_rseq, (long)rseq, 32, 1, 0x53053053, 0, 0);
	need(raw(SYS_mmap, NATIVE_STUB_BASE, NATIVE_STUB_CODE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == NATIVE_STUB_BASE, 2);
	for (size_t i = 0; i < code; i++)
		page[i] = native_stub_code[i];
	need(!raw(SYS_mprotect, NATIVE_STUB_BASE, NATIVE_STUB_CODE, PROT_READ | PROT_EXEC, 0, 0, 0), 3);
	need(raw(SYS_mmap, NATIVE_STUB_BASE + NATIVE_STUB_CODE, NATIVE_LIST_BYTES, PROT_READ,
		 MAP_SHARED | MAP_FIXED_NOREPLACE, list_fd, 0) == (long)(NATIVE_STUB_BASE + NATIVE_STUB_CODE), 4);
	close_others(fds, n);
	need(!raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0), 5);
	need(!raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&prog, 0, 0, 0), 6);
	asm volatile("int3");
	__builtin_unreachable();
}

/* ---- In the vCPU's thread --------------------------------------------------- */

int native_stub_wait(struct native_stub *s)
{
	int status;

	while (waitpid(s->pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSTOPPED(status) ? status : -1;
}

void native_stub_end(struct native_stub *s)
{
	int status;

	if (s->pid) {
		kill(s->pid, SIGKILL);
		while (waitpid(s->pid, &status, __WALL) < 0 && errno == EINTR)
			;
	}
	if (s->call)
		munmap(s->call, NATIVE_LIST_BYTES);
	memset(s, 0, sizeof(*s));
}

/* Everything but its own pages goes. */
static void empty(struct native_stub *s)
{
	s->call[0] = (struct native_call){ SYS_munmap, { 0, NATIVE_STUB_BASE } };
	s->call[1] = (struct native_call){ SYS_munmap, { NATIVE_STUB_END, NATIVE_USER_END - NATIVE_STUB_END } };
	s->calls = 2;
}

int native_stub_start(struct native_stub *s, const int *fds, unsigned n, struct err *err)
{
	int list_fd = memfd_create("keel-native", MFD_CLOEXEC), status = -1;
	uint8_t probe[8192];
	struct iovec iov = { probe, sizeof(probe) };
	pid_t pid;
	int ret;

	memset(s, 0, sizeof(*s));
	s->cpu = -1;
	if (list_fd < 0 || ftruncate(list_fd, NATIVE_LIST_BYTES) < 0) {
		ret = err_set_errno(err, errno, "cannot make the list of a process for guest code");
		goto out;
	}
	s->call = mmap(NULL, NATIVE_LIST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, list_fd, 0);
	if (s->call == MAP_FAILED) {
		s->call = NULL;
		ret = err_set_errno(err, errno, "cannot map the list of a process for guest code");
		goto out;
	}
	/* Not fork(): its handlers take locks of threads that do not exist in the child. */
	pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (!pid)
		child(fds, n, list_fd, 0);
	if (pid < 0) {
		ret = err_set_errno(err, errno, "cannot fork a process for guest code");
		goto out;
	}
	s->pid = pid;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	if (!WIFSTOPPED(status)) {
		s->pid = 0;
		ret = err_set(err, ENOTSUP, "a process for guest code could not set itself up (step %d)", WEXITSTATUS(status));
		goto out;
	}
	empty(s);
	if (ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) ||
	    ptrace(PTRACE_GETREGSET, pid, NATIVE_NT_XSTATE, &iov) || !native_stub_flush(s)) {
		ret = err_set_errno(err, errno, "cannot trace a process for guest code");
		goto out;
	}
	s->xstate_size = iov.iov_len;
	ret = 0;
out:
	if (list_fd >= 0)
		close(list_fd);
	if (ret)
		native_stub_end(s);
	return ret;
}

/* Registers for the stub's code with `calls` to make. */
static struct native_regs own_regs(unsigned calls)
{
	return (struct native_regs){ .rip = NATIVE_STUB_BASE, .r12 = NATIVE_STUB_BASE + NATIVE_STUB_CODE, .r13 = calls, .orig_rax = -1,
				     .eflags = 0x202, .cs = NATIVE_CS, .ss = NATIVE_SS };
}

bool native_stub_flush(struct native_stub *s)
{
	struct native_regs regs = own_regs(s->calls);
	int status;

	if (!s->calls)
		return true;
	s->calls = 0;
	if (ptrace(PTRACE_SETREGS, s->pid, 0, &regs))
		return false;
	for (;;) {
		if (ptrace(PTRACE_CONT, s->pid, 0, 0))
			return false;
		status = native_stub_wait(s);
		if (status < 0)
			return false;
		if (WSTOPSIG(status) == SIGTRAP)
			return true;
		/* Else a kick that came late, or somebody's signal. */
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGSYS || WSTOPSIG(status) == SIGILL)
			return false;
	}
}

bool native_stub_trip(struct native_stub *s)
{
	struct native_regs regs = own_regs(1);
	int status;

	if (ptrace(PTRACE_SETREGS, s->pid, 0, &regs) || ptrace(PTRACE_SYSEMU, s->pid, 0, 0))
		return false;
	status = native_stub_wait(s);
	if (status < 0 || ptrace(PTRACE_GETREGS, s->pid, 0, &regs))
		return false;
	return status >= 0 && WSTOPSIG(status) == (SIGTRAP | 0x80);
}

struct native_call *native_stub_call(struct native_stub *s)
{
	if (s->calls == NATIVE_CALLS && !native_stub_flush(s))
		return NULL;
	return &s->call[s->calls++];
}
