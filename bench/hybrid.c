/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What would an engine cost that runs ring 3 on this host's KVM and ring 0 on the
 * translator? At each system call, fault and interrupt the vCPU leaves KVM and
 * comes back. Measured here, in nanoseconds: the way out of ring 3 and back with
 * nothing in between, first by a port access (the cheapest exit there is), then
 * by SYSCALL into two instructions of ring 0 that do one, as it would have to be;
 * and the same for the native tier: a traced process and PTRACE_SYSEMU, with and
 * without its vector state.
 *
 *   gcc -O2 -o /tmp/hybrid bench/hybrid.c && taskset 1 /tmp/hybrid
 */
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 20000u
#define USER 0x2000u
#define KERNEL 0x3000u
#define MEMORY (2u << 20)

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void need(int ret, const char *what)
{
	if (ret < 0) {
		perror(what);
		exit(1);
	}
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, uint8_t dpl, uint8_t l)
{
	return (struct kvm_segment){ .limit = UINT32_MAX, .selector = selector, .type = type, .present = 1, .dpl = dpl, .db = !l, .s = 1, .l = l, .g = 1 };
}

/* One vCPU in ring 3 of 64-bit mode at USER; the first 2 MiB are mapped as they stand. */
static int make_vcpu(int kvm, uint8_t *memory, struct kvm_run **run)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), cpu;
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };
	struct { struct kvm_msrs head; struct kvm_msr_entry entry[3]; } msrs = { .head.nmsrs = 3, .entry = {
		{ .index = 0xc0000081, .data = 0x10ull << 48 | 8ull << 32 }, { .index = 0xc0000082, .data = KERNEL }, { .index = 0xc0000084 } } };
	struct kvm_regs regs = { .rip = USER, .rflags = 0x3002 }; /* IOPL 3 */
	static char room[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)];
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)room;
	uint64_t *table = (uint64_t *)(memory + 0x8000);
	struct kvm_sregs sregs;

	need(vm, "KVM_CREATE_VM");
	need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	need(cpu, "KVM_CREATE_VCPU");
	cpuid->nent = 256;
	need(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	need(ioctl(cpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	*run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	need(*run == MAP_FAILED ? -1 : 0, "mmap");
	table[0] = 0x9007;
	table[512] = 0xa007;
	table[1024] = 0x87; /* 2 MiB, user, writable */
	need(ioctl(cpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cr3 = 0x8000;
	sregs.cr4 = 0x20;
	sregs.cr0 = 0x80000011;
	sregs.efer = 0x501;
	sregs.cs = segment(0x23, 11, 3, 1);
	sregs.ds = sregs.es = sregs.ss = segment(0x1b, 3, 3, 0);
	need(ioctl(cpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	need(ioctl(cpu, KVM_SET_MSRS, &msrs) - 3, "KVM_SET_MSRS");
	need(ioctl(cpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	return cpu;
}

/* Negative: KVM left the guest for that reason instead. */
static double kvm_trip(int kvm, const uint8_t *user, size_t size)
{
	static const uint8_t kernel[] = { 0xe6, 0x80, 0x48, 0x0f, 0x07 }; /* out %al, $0x80; sysretq */
	uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double best = 1e9;
	struct kvm_run *run;
	int cpu;

	memcpy(memory + USER, user, size);
	memcpy(memory + KERNEL, kernel, sizeof(kernel));
	cpu = make_vcpu(kvm, memory, &run);
	for (int n = 0; n < 5; n++) {
		uint64_t start = now();

		for (unsigned i = 0; i < ROUNDS; i++) {
			need(ioctl(cpu, KVM_RUN, 0), "KVM_RUN");
			if (run->exit_reason != KVM_EXIT_IO)
				return -(double)run->exit_reason;
		}
		start = now() - start;
		best = (double)start / ROUNDS < best ? (double)start / ROUNDS : best;
	}
	return best;
}

static double traced_trip(bool vectors)
{
	static uint8_t area[8192];
	struct iovec xstate = { area, sizeof(area) };
	struct user_regs_struct regs;
	double best = 1e9;
	int status;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		for (;;)
			syscall(SYS_getppid);
	}
	waitpid(pid, &status, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	ptrace(PTRACE_SYSEMU, pid, 0, 0);
	waitpid(pid, &status, __WALL);
	for (int n = 0; n < 5; n++) {
		uint64_t start = now();

		for (unsigned i = 0; i < ROUNDS; i++) {
			ptrace(PTRACE_GETREGS, pid, 0, &regs);
			ptrace(PTRACE_SETREGS, pid, 0, &regs);
			if (vectors) {
				xstate.iov_len = sizeof(area);
				ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &xstate);
				ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &xstate);
			}
			ptrace(PTRACE_SYSEMU, pid, 0, 0);
			waitpid(pid, &status, __WALL);
		}
		start = now() - start;
		best = (double)start / ROUNDS < best ? (double)start / ROUNDS : best;
	}
	kill(pid, SIGKILL);
	return best;
}

static void print(const char *what, double ns)
{
	if (ns < 0)
		printf("%s: exit reason %.0f of <linux/kvm.h>\n", what, -ns);
	else
		printf("%s: %.0f ns\n", what, ns);
}

int main(void)
{
	static const uint8_t port[] = { 0xe6, 0x80, 0xeb, 0xfc }, call[] = { 0x0f, 0x05, 0xeb, 0xfc }; /* 1: out or syscall; jmp 1b */
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	print("traced process, registers fetched and set", traced_trip(false));
	print("the same with the vector state", traced_trip(true));
	need(kvm, "/dev/kvm");
	print("KVM, OUT in ring 3", kvm_trip(kvm, port, sizeof(port)));
	print("KVM, SYSCALL, OUT, SYSRET", kvm_trip(kvm, call, sizeof(call)));
	return 0;
}
