/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which system calls which thread may make, and why. What is not here fails
 * with EPERM, so that a forgotten case costs a feature and not a guest; what
 * nothing honest ever does ends the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include "vmm/sandbox.h"

#define ALL_BITS 0xffffffffUL
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define NEW_NAMESPACES (CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static const struct sandbox_rule thread_only[] = { { 0, THREAD_FLAGS | NEW_NAMESPACES, THREAD_FLAGS }, { 0 } };
/* native_stub.c: a copy of the process, without a signal at its end */
static const struct sandbox_rule thread_or_copy[] = { { 0, THREAD_FLAGS | NEW_NAMESPACES, THREAD_FLAGS }, { 0, ALL_BITS, 0 }, { 0 } };

static const struct sandbox_rule prctls[] = {
	{ 0, ALL_BITS, PR_SET_NAME },
	{ 0, ALL_BITS, PR_SET_NO_NEW_PRIVS }, /* set already; the filters' loader asks again */
	{ 0 },
};
static const struct sandbox_rule prctls_native[] = { { 0, ALL_BITS, PR_SET_PDEATHSIG }, { 0 } };
/* SECCOMP_SET_MODE_FILTER: a filter can only take away */
static const struct sandbox_rule add_filter[] = { { 0, ALL_BITS, 1 }, { 0 } };
static const struct sandbox_rule unix_stream[] = { { 0, ALL_BITS, AF_UNIX }, { 0 } };

#define KVM_TYPE 0xae00UL /* <linux/kvm.h>: KVMIO in the second byte */
static const struct sandbox_rule vcpu_ioctls[] = {
	{ 1, 0xff00, KVM_TYPE },
	{ 1, ALL_BITS, TUNSETOFFLOAD }, /* a network card's driver takes its offloads */
	{ 1, ALL_BITS, TUNSETQUEUE },	/* and its queues */
	{ 1, ALL_BITS, TCGETS },	/* isatty() of the standard output's buffer */
	{ 0 },
};
static const struct sandbox_rule io_ioctls[] = {
	{ 1, ALL_BITS, BLKDISCARD },
	{ 1, ALL_BITS, TUNSETOFFLOAD },
	{ 1, ALL_BITS, TUNSETQUEUE },
	{ 1, 0xff00, KVM_TYPE }, /* interrupts without an irqfd */
	{ 0 },
};
static const struct sandbox_rule own_ioctls[] = {
	{ 1, 0xff00, KVM_TYPE },
	{ 1, ALL_BITS, BLKGETSIZE64 }, /* disks that come later */
	{ 1, ALL_BITS, BLKSSZGET },
	{ 1, ALL_BITS, BLKDISCARD },
	{ 1, ALL_BITS, TUNGETIFF }, /* interfaces that come later */
	{ 1, ALL_BITS, TUNSETVNETHDRSZ },
	{ 1, ALL_BITS, TUNSETOFFLOAD },
	{ 1, ALL_BITS, TUNSETQUEUE },
	{ 1, ALL_BITS, TCGETS }, /* the terminal: raw, and as it was; never TIOCSTI */
	{ 1, ALL_BITS, TCSETS },
	{ 1, ALL_BITS, TCSETSW },
	{ 1, ALL_BITS, TCSETSF },
	{ 1, ALL_BITS, FIONBIO },
	{ 1, ALL_BITS, FIONREAD },
	{ 0 },
};

const struct sandbox_call sandbox_calls[] = {
	/* Memory */
	{ SYS_brk, FOR_ALL, NULL, "malloc()" },
	{ SYS_mmap, FOR_ALL, NULL, "malloc(), stacks of threads, the translated code and its second view, memory slots" },
	{ SYS_munmap, FOR_ALL, NULL, "the same, given back" },
	{ SYS_mremap, FOR_WORK, NULL, "realloc() of what is large" },
	{ SYS_mprotect, FOR_ALL, NULL, "malloc()'s arenas and the guard pages of stacks" },
	{ SYS_madvise, FOR_ALL, NULL, "the balloon, free()'s trimming, stacks of threads that have ended" },
	{ SYS_memfd_create, FOR_WORK, NULL, "the translated code's cache, rings for a vhost-user back end" },
	{ SYS_membarrier, FOR_WORK, NULL, "one vCPU makes another one see a page go" },

	/* What is open */
	{ SYS_read, FOR_ALL, NULL, "events, timers, terminals, images" },
	{ SYS_write, FOR_ALL, NULL, "events, terminals, images, the log" },
	{ SYS_readv, FOR_WORK, NULL, "frames of a network" },
	{ SYS_writev, FOR_WORK, NULL, "frames of a network, a line of the log" },
	{ SYS_pread64, FOR_WORK, NULL, "tables of images, kernels" },
	{ SYS_pwrite64, FOR_WORK, NULL, "tables of images" },
	{ SYS_preadv, FOR_WORK, NULL, "guest data of images" },
	{ SYS_pwritev, FOR_WORK, NULL, "guest data of images" },
	{ SYS_preadv2, FOR_WORK, NULL, "guest data of images" },
	{ SYS_pwritev2, FOR_WORK, NULL, "guest data of images" },
	{ SYS_lseek, FOR_WORK, NULL, "holes and the end of images" },
	{ SYS_fsync, FOR_WORK, NULL, "a guest's flush" },
	{ SYS_fdatasync, FOR_WORK, NULL, "a guest's flush" },
	{ SYS_sync_file_range, FOR_WORK, NULL, "writes that shall begin" },
	{ SYS_ftruncate, FOR_WORK, NULL, "qcow2 files grow; memory files get their size" },
	{ SYS_fallocate, FOR_WORK, NULL, "discarded sectors, ballooned pages" },
	{ SYS_fcntl, FOR_WORK, NULL, "images' locks, flags of passed descriptors" },
	{ SYS_newfstatat, FOR_WORK, NULL, "fstat(): the C library asks by an empty path" },
	{ SYS_fstat, FOR_WORK, NULL, "an image's kind and size" },
	{ SYS_statx, FOR_OWN, NULL, "what direct I/O asks of an image that comes later" },
	{ SYS_close, FOR_WORK, NULL, "what goes" },
	{ SYS_dup, FOR_OWN, NULL, "passed descriptors" },
	{ SYS_dup3, FOR_OWN, NULL, "a backing file that a block job is to write" },
	{ SYS_ioctl, FOR_OWN, own_ioctls, "KVM, terminals, block devices, tap interfaces" },
	{ SYS_ioctl, FOR_VCPU, vcpu_ioctls, "KVM_RUN and what belongs to it" },
	{ SYS_ioctl, FOR_IO, io_ioctls, "discards on block devices" },
	{ SYS_unlink, FOR_MAIN | IF_ALONE, NULL, "its own sockets, at the end; Landlock names their directories" },

	/* Waiting */
	{ SYS_epoll_wait, FOR_WORK, NULL, "the loops" },
	{ SYS_epoll_pwait, FOR_WORK, NULL, "the loops" },
	{ SYS_epoll_ctl, FOR_WORK, NULL, "the loops" },
	{ SYS_epoll_create1, FOR_OWN, NULL, "a loop of a disk that comes later" },
	{ SYS_poll, FOR_WORK, NULL, "terminals, the end of a connection" },
	{ SYS_ppoll, FOR_WORK, NULL, "the same" },
	{ SYS_eventfd2, FOR_WORK, NULL, "doorbells of a device that comes later, an image's first request for its threads" },
	{ SYS_timerfd_create, FOR_WORK, NULL, "timers of a loop that comes later" },
	{ SYS_timerfd_settime, FOR_ALL, NULL, "timers" },
	{ SYS_futex, FOR_ALL, NULL, "locks and conditions" },
	{ SYS_clock_nanosleep, FOR_ALL, NULL, "a late KVM vCPU waits for its turn" },
	{ SYS_restart_syscall, FOR_ALL, NULL, "a wait that a stop by a debugger cut in two" },
	{ SYS_io_uring_setup, FOR_OWN, NULL, "a ring for a disk that comes later" },
	{ SYS_io_uring_register, FOR_OWN, NULL, "its eventfd, and what it may do" },
	{ SYS_io_uring_enter, FOR_WORK, NULL, "requests to images" },

	/* Sockets: those that are there */
	{ SYS_accept4, FOR_OWN, NULL, "QMP's clients, terminals' clients" },
	{ SYS_recvmsg, FOR_WORK, NULL, "QMP, descriptors that come with it, frames" },
	{ SYS_sendmsg, FOR_WORK, NULL, "QMP, frames" },
	{ SYS_recvfrom, FOR_WORK, NULL, "frames, vhost-user" },
	{ SYS_sendto, FOR_WORK, NULL, "frames, streams of vsock" },
	{ SYS_getsockopt, FOR_OWN, NULL, "is this passed descriptor a socket that listens?" },
	{ SYS_setsockopt, FOR_OWN, NULL, "room for frames" },
	{ SYS_getsockname, FOR_OWN, NULL, "a passed socket's name" },
	{ SYS_shutdown, FOR_WORK, NULL, "half a stream's end" },
	{ SYS_socket, FOR_WORK | IF_CONNECT, unix_stream, "vsock: a guest's connection to a socket of the host" },
	{ SYS_connect, FOR_WORK | IF_CONNECT, NULL, "vsock: the same" },
	{ SYS_accept4, FOR_IO | IF_CONNECT, NULL, "vsock: a connection of the host's to the guest" },
	{ SYS_socket, FOR_WORK | IF_NETWORK, NULL, "disks on servers" },
	{ SYS_connect, FOR_WORK | IF_NETWORK, NULL, "disks on servers" },
	{ SYS_socketpair, FOR_WORK | IF_NETWORK, NULL, "libnbd wakes its own waiting" },
	{ SYS_pipe2, FOR_WORK | IF_NETWORK, NULL, "the same" },

	/* Threads */
	{ SYS_clone, FOR_WORK, thread_only, "threads; never a process, never a namespace" },
	{ SYS_set_robust_list, FOR_ALL, NULL, "a thread begins" },
	{ SYS_rseq, FOR_ALL, NULL, "a thread begins" },
	{ SYS_set_tid_address, FOR_START, NULL, "a thread begins" },
	{ SYS_sigaltstack, FOR_ALL, NULL, "a thread begins or ends" },
	{ SYS_prctl, FOR_ALL, prctls, "its name" },
	{ SYS_seccomp, FOR_ALL, add_filter, "its narrower filter" },
	{ SYS_rt_sigprocmask, FOR_ALL, NULL, "signals are the main thread's; kicks are a vCPU's" },
	{ SYS_rt_sigaction, FOR_ALL, NULL, "handlers of the engine; abort()" },
	{ SYS_rt_sigreturn, FOR_ALL, NULL, "out of a handler" },
	{ SYS_rt_sigtimedwait, FOR_WORK, NULL, "a kick that came outside of KVM_RUN is taken" },
	{ SYS_signalfd4, FOR_OWN, NULL, "SIGTERM and its kin as events" },
	{ SYS_tgkill, FOR_ALL, NULL, "kicks of vCPUs; abort(). A PID namespace and Landlock keep other processes out of reach" },
	{ SYS_getpid, FOR_ALL, NULL, "for tgkill" },
	{ SYS_gettid, FOR_ALL, NULL, "the same, and QMP's answer which thread a vCPU is" },
	{ SYS_sched_yield, FOR_ALL, NULL, "a guest's PAUSE" },
	{ SYS_sched_getaffinity, FOR_ALL, NULL, "how many CPUs there are" },
	{ SYS_exit, FOR_ALL, NULL, "a thread ends" },
	{ SYS_exit_group, FOR_ALL, NULL, "the process ends" },

	/* Little things */
	{ SYS_getrandom, FOR_ALL, NULL, "virtio-rng, the C library's seeds" },
	{ SYS_clock_gettime, FOR_ALL, NULL, "clocks that the vDSO does not serve" },
	{ SYS_gettimeofday, FOR_ALL, NULL, "the same" },
	{ SYS_time, FOR_ALL, NULL, "the same" },
	{ SYS_clock_getres, FOR_ALL, NULL, "the same" },
	{ SYS_getcpu, FOR_ALL, NULL, "the same" },
	{ SYS_sysinfo, FOR_OWN, NULL, "is there as much memory as the guest is to have?" },
	{ SYS_uname, FOR_OWN, NULL, "what io_uring of this kernel can do" },
	{ SYS_prlimit64, FOR_WORK, NULL, "the size of stacks; limits may only sink" },
	{ SYS_getuid, FOR_OWN, NULL, "libraries ask" },
	{ SYS_geteuid, FOR_OWN, NULL, "libraries ask" },

	/* The KVM probe has a watchdog */
	{ SYS_timer_create, FOR_START, NULL, "the KVM probe's watchdog" },
	{ SYS_timer_settime, FOR_START, NULL, "the same" },
	{ SYS_timer_delete, FOR_START, NULL, "the same" },

	/* native=on: guest user code runs in processes of its own, each with a filter of three calls (native_stub.c) */
	{ SYS_clone, FOR_WORK | IF_NATIVE, thread_or_copy, "such a process" },
	{ SYS_ptrace, FOR_WORK | IF_NATIVE, NULL, "its control; it and nobody else: other processes are out of reach" },
	{ SYS_wait4, FOR_WORK | IF_NATIVE, NULL, "its stops" },
	{ SYS_kill, FOR_WORK | IF_NATIVE, NULL, "its end" },
	{ SYS_setsid, FOR_WORK | IF_NATIVE, NULL, "in it" },
	{ SYS_close_range, FOR_WORK | IF_NATIVE, NULL, "in it: it keeps guest memory and nothing else" },
	{ SYS_prctl, FOR_WORK | IF_NATIVE, prctls_native, "in it: it ends with its vCPU" },
	{ SYS_sched_setaffinity, FOR_WORK | IF_NATIVE, NULL, "it runs where its vCPU does" },
	{ -1 },
};

const int sandbox_deadly[] = {
	SYS_execve, SYS_execveat, SYS_vfork,
	SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, 428 /* open_tree */, 429 /* move_mount */,
	430 /* fsopen */, 431 /* fsconfig */, 432 /* fsmount */, 433 /* fspick */, 442 /* mount_setattr */,
	SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
	SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_syslog, SYS_sethostname, SYS_setdomainname,
	SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
	SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_personality,
	SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key,
	SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_open, 438 /* pidfd_getfd */, SYS_pidfd_send_signal,
	SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_mknod, SYS_mknodat,
	SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid,
	SYS_setfsgid, SYS_capset,
	-1,
};

unsigned sandbox_count(enum sandbox_kind kind, unsigned ifs)
{
	const unsigned conditions = IF_NATIVE | IF_NETWORK | IF_CONNECT | IF_ALONE;
	unsigned n = 0;

	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0; c++) {
		bool seen = false;

		if (!(c->who & 1u << kind) || (c->who & conditions & ~ifs))
			continue;
		for (const struct sandbox_call *b = sandbox_calls; b < c; b++)
			seen |= b->nr == c->nr && b->who & 1u << kind && !(b->who & conditions & ~ifs);
		n += !seen;
	}
	return n;
}
