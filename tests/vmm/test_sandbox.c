/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters of system calls, each tried in a process of its own: what is refused, what ends the process, what is left. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/sandbox.h"

#define DIED 1000 /* by SIGSYS */

static struct sandbox_filter filters[SANDBOX_KINDS];

static int make(void **state)
{
	struct err err = ERR_INIT;

	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++)
		if (sandbox_filter_make(&filters[kind], kind, 0, &err))
			return -1;
	return 0;
}

static int clear(void **state)
{
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++)
		sandbox_filter_free(&filters[kind]);
	return 0;
}

/* The errno of a call behind a filter, 0 for success, or DIED. */
static int try_with(const struct sandbox_filter *f, long nr, long a, long b, long c, long d)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		long ret;

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || sandbox_filter_load(f))
			_exit(255);
		ret = syscall(nr, a, b, c, d, 0, 0);
		syscall(SYS_exit_group, ret == -1 ? errno : 0);
	}
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGSYS);
		return DIED;
	}
	assert_int_not_equal(WEXITSTATUS(status), 255);
	return WEXITSTATUS(status);
}

static int try(enum sandbox_kind kind, long nr, long a, long b)
{
	return try_with(&filters[kind], nr, a, b, 0, 0);
}

static void deadly_calls_end_the_process(void **state)
{
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++)
		for (const int *nr = sandbox_deadly; *nr >= 0; nr++)
			if (try(kind, *nr, -1, -1) != DIED)
				fail_msg("call %d of kind %u does not end the process", *nr, kind);
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++)
		assert_int_equal(try(kind, SYS_ptrace, 0, 0), DIED);
}

static bool is_listed(int nr, unsigned kind)
{
	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0; c++)
		if (c->nr == nr && c->who & 1u << kind)
			return true;
	for (const int *d = sandbox_deadly; *d >= 0; d++)
		if (*d == nr)
			return true;
	return nr == SYS_ptrace || nr == SYS_clone3;
}

static void what_is_not_listed_is_refused(void **state)
{
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++) {
		unsigned refused = 0;

		for (int nr = 0; nr <= SYS_faccessat2; nr++) {
			if (nr == 335)
				nr = 424; /* the numbers between are nobody's */
			if (is_listed(nr, kind))
				continue;
			refused++;
			if (try(kind, nr, -1, -1) != EPERM)
				fail_msg("call %d of kind %u is not refused", nr, kind);
		}
		assert_true(refused > 150);
	}
	assert_int_equal(try(KIND_MAIN, SYS_openat, AT_FDCWD, (long)"/"), EPERM);
	assert_int_equal(try(KIND_MAIN, SYS_socket, AF_UNIX, SOCK_STREAM), EPERM);
}

static void arguments_count(void **state)
{
	/* Threads, but no processes and no namespaces; clone3()'s flags cannot be seen, so there is none. */
	assert_int_equal(try(KIND_MAIN, SYS_clone, SIGCHLD, 0), EPERM);
	assert_int_equal(try(KIND_MAIN, SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0), EPERM);
	assert_int_equal(try(KIND_MAIN, SYS_clone, CLONE_NEWUSER | CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0),
			 EPERM);
	assert_int_equal(try(KIND_MAIN, SYS_clone3, 0, 0), ENOSYS);
	assert_int_equal(try(KIND_VCPU, SYS_prctl, PR_SET_NAME, (long)"x"), 0);
	assert_int_equal(try(KIND_VCPU, SYS_prctl, PR_SET_DUMPABLE, 1), EPERM);
	assert_int_equal(try(KIND_VCPU, SYS_prctl, PR_SET_SECCOMP, 1), EPERM);
	assert_int_equal(try(KIND_VCPU, SYS_ioctl, -1, 0xae80), EBADF); /* KVM_RUN */
	assert_int_equal(try(KIND_MAIN, SYS_ioctl, -1, 0x5412), EPERM); /* TIOCSTI: types for somebody else */
	assert_int_equal(try(KIND_TIMER, SYS_ioctl, -1, 0xae80), EPERM);
	/* The upper half of a descriptor's register is not looked at by the kernel, nor by us. */
	assert_int_equal(try(KIND_VCPU, SYS_prctl, (long)(0xffffffff00000000 | PR_SET_DUMPABLE), 1), EPERM);
}

static void what_is_needed_works(void **state)
{
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++) {
		assert_int_equal(try(kind, SYS_gettid, 0, 0), 0);
		assert_int_equal(try(kind, SYS_getpid, 0, 0), 0);
		assert_int_equal(try(kind, SYS_munmap, 1, 4096), EINVAL);
		assert_int_equal(try(kind, SYS_read, -1, 0), EBADF);
	}
	assert_int_equal(try(KIND_MAIN, SYS_accept4, -1, 0), EBADF);
	assert_int_equal(try(KIND_VCPU, SYS_accept4, -1, 0), EPERM);
	assert_int_equal(try(KIND_IO, SYS_io_uring_setup, 0, 0), EPERM);
}

static void needs_add_calls(void **state)
{
	struct sandbox_filter f;
	struct err err = ERR_INIT;

	assert_int_equal(sandbox_filter_make(&f, KIND_VCPU, IF_NATIVE, &err), 0);
	assert_int_equal(try_with(&f, SYS_ptrace, -1, 1, 0, 0), ESRCH);
	assert_int_equal(try_with(&f, SYS_execve, 0, 0, 0, 0), DIED);
	sandbox_filter_free(&f);
	assert_int_equal(sandbox_filter_make(&f, KIND_VCPU, IF_CONNECT, &err), 0);
	assert_int_equal(try_with(&f, SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0), 0);
	assert_int_equal(try_with(&f, SYS_socket, AF_INET, SOCK_STREAM, 0, 0), EPERM);
	sandbox_filter_free(&f);
	assert_true(sandbox_count(KIND_VCPU, IF_NATIVE) > sandbox_count(KIND_VCPU, 0));
	/* A thread has the filters of whoever made it, too: what it may, that one has to be allowed as well. */
	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0; c++)
		if (c->who & (FOR_VCPU | FOR_IO | FOR_TIMER)) {
			bool main = false;

			for (const struct sandbox_call *m = sandbox_calls; m->nr >= 0; m++)
				main |= m->nr == c->nr && m->who & FOR_MAIN;
			if (!main)
				fail_msg("call %d is a thread's and not the main thread's", c->nr);
			assert_true(c->why && *c->why);
		}
}

static void the_option(void **state)
{
	struct sandbox s;
	struct err err = ERR_INIT;

	assert_int_equal(sandbox_parse(&s, "on,passed,root,uid=77", &err), 0);
	assert_true(s.mode == SANDBOX_ON && s.passed && s.root && s.has_uid && s.uid == 77 && !s.native);
	assert_int_equal(sandbox_parse(&s, "off", &err), 0);
	assert_int_equal(s.mode, SANDBOX_OFF);
	static const char *const bad[] = { "", "maybe", "on,uid=0", "on,passed,uid=-1", "on,passed,uid=1x", "on,root", "off,passed",
					   "paths,native", "on,passed,what" };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err = ERR_INIT;
		assert_int_equal(sandbox_parse(&s, bad[i], &err), -EINVAL);
		assert_non_null(strstr(err_msg(&err), "--sandbox"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deadly_calls_end_the_process), cmocka_unit_test(what_is_not_listed_is_refused),
		cmocka_unit_test(arguments_count),		cmocka_unit_test(what_is_needed_works),
		cmocka_unit_test(needs_add_calls),		cmocka_unit_test(the_option),
	};

	return cmocka_run_group_tests(tests, make, clear);
}
