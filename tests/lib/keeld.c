/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keeld.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

static void run(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_int_equal(system(command), 0);
}

/* The read-only socket is the last thing that a keeld makes. */
static void await_socket(const char *dir)
{
	char path[128], name[] = "libvirt-sock-ro";
	union {
		struct inotify_event event;
		char space[4096];
	} buf;
	int fd = inotify_init1(IN_CLOEXEC);

	snprintf(path, sizeof(path), "%s/root/run", dir);
	assert_true(inotify_add_watch(fd, path, IN_CREATE | IN_MOVED_TO) >= 0);
	strcat(strcat(path, "/"), name);
	alarm(30);
	while (access(path, F_OK))
		assert_true(read(fd, &buf, sizeof(buf)) > 0);
	alarm(0);
	close(fd);
	usleep(50000); /* bound, then listening */
}

void test_keeld_start(struct test_keeld *k, const char *keeld, const char *vmm)
{
	char path[96], root[96];

	strcpy(k->dir, "/tmp/keel-lib-XXXXXX");
	assert_non_null(mkdtemp(k->dir));
	run("mkdir -p %s/bin %s/root/run && for f in %s %s; do ln -f $f %s/bin/ 2>/dev/null || cp $f %s/bin/; done", k->dir, k->dir,
	    keeld, vmm, k->dir, k->dir);
	snprintf(path, sizeof(path), "%s/bin/keeld", k->dir);
	snprintf(root, sizeof(root), "%s/root", k->dir);
	snprintf(k->uri, sizeof(k->uri), "qemu:///%s?socket=%s/run/libvirt-sock", geteuid() ? "session" : "system", root);
	snprintf(k->uri_ro, sizeof(k->uri_ro), "%s-ro", k->uri);
	k->pid = fork();
	if (!k->pid) {
		execl(path, "keeld", "--root", root, NULL);
		_exit(127);
	}
	assert_true(k->pid > 0);
	await_socket(k->dir);
}

/* Guests outlive their keeld: those of a test that failed are found by the program that they run. */
static void kill_guests(const char *dir)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;

	while (proc && (e = readdir(proc))) {
		char link[300], exe[256] = "";
		int pid = atoi(e->d_name);

		snprintf(link, sizeof(link), "/proc/%s/exe", e->d_name);
		if (pid > 0 && readlink(link, exe, sizeof(exe) - 1) > 0 && !strncmp(exe, dir, strlen(dir)) && exe[strlen(dir)] == '/')
			kill(pid, SIGKILL);
	}
	if (proc)
		closedir(proc);
}

void test_keeld_stop(struct test_keeld *k)
{
	kill(k->pid, SIGTERM);
	waitpid(k->pid, NULL, 0);
	kill_guests(k->dir);
	run("rm -rf %s", k->dir);
}
