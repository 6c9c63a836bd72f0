/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A keel-vmm that a guest has taken over: the same command line, the same
 * sandbox, then what --append asks for, "THREAD ATTACK [ARGUMENT]", instead of a
 * machine. It says what came of it on its log (tests/e2e/test_sandbox.py).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"
#include "vmm/sandbox.h"
#include "vmm/vmm.h"

/* ---- Attacks: 0 or more is success, else -errno ------------------------------- */

static long result(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* Where the call alone is the offence: it is out of reach only if the kernel did not look at the arguments. */
static long reached(long ret)
{
	return ret >= 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS) ? 0 : -errno;
}

static long open_file(const char *arg)
{
	char byte;
	int fd = open(arg, O_RDONLY);

	return fd < 0 ? -errno : result(read(fd, &byte, 1));
}

static long write_file(const char *arg)
{
	return result(open(arg, O_RDWR));
}

static long create_file(const char *arg)
{
	return result(open(arg, O_WRONLY | O_CREAT, 0600));
}

static long list_files(const char *arg)
{
	return result(open("/", O_RDONLY | O_DIRECTORY));
}

static long stat_file(const char *arg)
{
	struct stat st;

	return result(stat(arg, &st));
}

static long read_memory(const char *arg)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/mem", arg);
	return result(open(path, O_RDWR));
}

static long send_signal(const char *arg)
{
	return result(kill(atoi(arg), 0));
}

static long send_thread_signal(const char *arg)
{
	return result(syscall(SYS_tgkill, atoi(arg), atoi(arg), SIGURG));
}

static long trace(const char *arg)
{
	return result(ptrace(PTRACE_SEIZE, atoi(arg), 0, 0));
}

static long read_process(const char *arg)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)0x1000, 1 };

	return reached(process_vm_readv(atoi(arg), &here, 1, &there, 1, 0));
}

static long open_process(const char *arg)
{
	return result(syscall(SYS_pidfd_open, atoi(arg), 0));
}

static long set_limit(const char *arg)
{
	struct rlimit r;

	return result(prlimit(atoi(arg), RLIMIT_NOFILE, NULL, &r));
}

static long set_priority(const char *arg)
{
	return result(setpriority(PRIO_PROCESS, atoi(arg), 10));
}

static long connect_unix(const char *arg)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(a.sun_path, arg, sizeof(a.sun_path) - 1);
	return fd < 0 ? -errno : result(connect(fd, (struct sockaddr *)&a, sizeof(a)));
}

static long connect_abstract(const char *arg)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(a.sun_path + 1, arg, sizeof(a.sun_path) - 2);
	return fd < 0 ? -errno
		      : result(connect(fd, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(arg)));
}

static long connect_tcp(const char *arg)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(arg)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 ? -errno : result(connect(fd, (struct sockaddr *)&a, sizeof(a)));
}

static long raw_socket(const char *arg)
{
	return result(socket(AF_PACKET, SOCK_RAW, 0));
}

static long netlink(const char *arg)
{
	return result(socket(AF_NETLINK, SOCK_RAW, 0));
}

static long execute(const char *arg)
{
	execl("/bin/echo", "echo", "HOSTILE GOT IN", NULL);
	return -errno;
}

static long execute_memory(const char *arg)
{
	char *argv[] = { "x", NULL };
	int fd = memfd_create("x", 0);

	return reached(syscall(SYS_execveat, fd, "", argv, argv + 1, AT_EMPTY_PATH));
}

static long fork_process(const char *arg)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(0);
	return result(pid);
}

static long fork_clone3(const char *arg)
{
	uint64_t args[8] = { 0 };
	long pid;

	args[4] = SIGCHLD;
	pid = syscall(SYS_clone3, args, sizeof(args));
	if (!pid)
		_exit(0);
	return result(pid);
}

static long new_user_namespace(const char *arg)
{
	return result(unshare(CLONE_NEWUSER));
}

static long mount_something(const char *arg)
{
	/* An attack that succeeds must not harm the host that the test runs on. */
	if (mount(arg, arg, NULL, MS_BIND, NULL))
		return -errno;
	umount2(arg, MNT_DETACH);
	return 0;
}

static long change_root(const char *arg)
{
	return result(chroot("/"));
}

static long load_module(const char *arg)
{
	return reached(syscall(SYS_finit_module, -1, "", 0));
}

static long load_kernel(const char *arg)
{
	return reached(syscall(SYS_kexec_load, 0, 1, NULL, 0x10000));
}

static long keys(const char *arg)
{
	return result(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1));
}

static long bpf_map(const char *arg)
{
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };

	return result(syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)));
}

static long page_faults(const char *arg)
{
	return result(syscall(SYS_userfaultfd, 0));
}

static long perf_event(const char *arg)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_CPU_CLOCK };

	return reached(syscall(SYS_perf_event_open, &a, -1, 0, -1, 0));
}

static long become_root(const char *arg)
{
	return result(syscall(SYS_setresuid, 0, 0, 0));
}

static long take_capabilities(const char *arg)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct all[2] = { { 1u << CAP_CHOWN, 1u << CAP_CHOWN, 0 } };

	return result(syscall(SYS_capset, &head, all));
}

static long shared_memory(const char *arg)
{
	return result(shmget(atoi(arg), 1, 0));
}

static long make_device(const char *arg)
{
	return result(mknod(arg, S_IFCHR | 0600, 0x101));
}

static long other_abi(const char *arg)
{
	long ret;

	/* getpid() as a 32-bit program says it: filters that forget the ABI let anything through there. */
	asm volatile("int $0x80" : "=a"(ret) : "a"(20) : "memory");
	return ret;
}

static long swap_program(const char *arg)
{
	long ret;

	/* x32's numbering of execve */
	asm volatile("syscall" : "=a"(ret) : "a"(0x40000000 + 520), "D"(0), "S"(0), "d"(0) : "rcx", "r11", "memory");
	return ret == -ENOSYS || ret == -EPERM ? ret : 0;
}

/* What goes through io_uring passes no filter of system calls. */
static long ring(void (*prepare)(struct io_uring_sqe *sqe, const char *arg), const char *arg)
{
	struct io_uring_cqe *cqe;
	struct io_uring r;
	int ret = io_uring_queue_init(4, &r, 0);

	if (ret < 0)
		return ret;
	prepare(io_uring_get_sqe(&r), arg);
	io_uring_submit_and_wait(&r, 1);
	ret = io_uring_peek_cqe(&r, &cqe);
	return ret ? ret : cqe->res;
}

static void prepare_open(struct io_uring_sqe *sqe, const char *arg)
{
	io_uring_prep_openat(sqe, AT_FDCWD, arg, O_RDONLY, 0);
}

static long ring_open(const char *arg)
{
	return ring(prepare_open, arg);
}

static int ring_fd;
static struct sockaddr_in ring_address;
static void prepare_connect(struct io_uring_sqe *sqe, const char *arg)
{
	io_uring_prep_connect(sqe, ring_fd, (struct sockaddr *)&ring_address, sizeof(ring_address));
}

static void prepare_socket(struct io_uring_sqe *sqe, const char *arg)
{
	io_uring_prep_rw(45 /* IORING_OP_SOCKET */, sqe, AF_INET, NULL, 0, SOCK_STREAM);
}

static long ring_connect(const char *arg)
{
	ring_fd = (int)ring(prepare_socket, arg);
	if (ring_fd < 0)
		return ring_fd;
	ring_address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(atoi(arg)),
					     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return ring(prepare_connect, arg);
}

static const struct {
	const char *name;
	long (*run)(const char *arg);
} attacks[] = {
	{ "open", open_file },		 { "write", write_file },	{ "create", create_file },
	{ "list", list_files },		 { "stat", stat_file },		{ "memory", read_memory },
	{ "signal", send_signal },	 { "tgkill", send_thread_signal }, { "ptrace", trace },
	{ "vm-read", read_process },	 { "pidfd", open_process },	{ "prlimit", set_limit },
	{ "priority", set_priority },	 { "unix", connect_unix },	{ "abstract", connect_abstract },
	{ "tcp", connect_tcp },		 { "packet", raw_socket },	{ "netlink", netlink },
	{ "exec", execute },		 { "exec-memory", execute_memory }, { "fork", fork_process },
	{ "fork3", fork_clone3 },	 { "userns", new_user_namespace }, { "mount", mount_something },
	{ "chroot", change_root },	 { "module", load_module },	{ "kexec", load_kernel },
	{ "keyctl", keys },		 { "bpf", bpf_map },		{ "userfaultfd", page_faults },
	{ "perf", perf_event },		 { "setuid", become_root },	{ "capset", take_capabilities },
	{ "shm", shared_memory },	 { "mknod", make_device },	{ "int80", other_abi },
	{ "x32", swap_program },	 { "uring-open", ring_open },	{ "uring-tcp", ring_connect },
};

/* ---- In keel-vmm's place ---------------------------------------------------------- */

struct order {
	char thread[16], attack[32], arg[256];
};

/* dprintf() asks where the file ends, which not every thread may. */
static void say(const char *what, const char *more)
{
	char line[128];
	int len = snprintf(line, sizeof(line), "HOSTILE %s%s\n", what, more);

	if (write(2, line, (size_t)len) != len)
		abort();
}

static void attack(const struct order *o)
{
	for (unsigned n = 0; n < sizeof(attacks) / sizeof(attacks[0]); n++) {
		long ret;

		if (strcmp(attacks[n].name, o->attack))
			continue;
		say("tries ", o->attack);
		ret = attacks[n].run(o->arg);
		if (ret >= 0)
			say("GOT IN", "");
		else
			say("refused: ", strerror((int)-ret));
		return;
	}
	say("knows no attack ", o->attack);
}

static void *thread(void *opaque)
{
	const struct order *o = opaque;

	thread_begin(!strcmp(o->thread, "vcpu") ? THREAD_VCPU : !strcmp(o->thread, "io") ? THREAD_IO : THREAD_TIMER);
	attack(o);
	return NULL;
}

static int fail(const struct err *err)
{
	log_line(LOG_ERROR, "%s", err_msg(err));
	return 1;
}

int main(int argc, char **argv)
{
	struct vmm_options o = { 0 };
	struct sandbox s = { .mode = SANDBOX_ON };
	struct sandbox_needs needs;
	struct sandbox_own own;
	struct err err = ERR_INIT;
	struct order order;
	pthread_t t;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (argc > 2 && !strcmp(argv[1], "--sandbox") &&
	    (sandbox_parse(&s, argv[2], &err) || (s.passed && sandbox_confine(&s, &err))))
		return fail(&err);
	if (options_parse(&o, argc, argv, &err))
		return fail(&err);
	sandbox_find_needs(&o, &needs, &own);
	if (sandbox_prepare(&s, &needs, &err) || sandbox_seal(&s, &needs, &err))
		return fail(&err);
	if (!o.append || sscanf(o.append, "%15s %31s %255s", order.thread, order.attack, order.arg) < 2)
		return 2;
	if (!strcmp(order.thread, "main"))
		attack(&order);
	else if (!pthread_create(&t, NULL, thread, &order))
		pthread_join(t, NULL);
	return 0;
}
