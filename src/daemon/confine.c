/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/confine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/cgroup.h"
#include "daemon/confine_cgroup.h"
#include "util/log.h"

/*
 * Users of guests: 65536 numbers from here on. systemd gives the ones from
 * 0x80000 to 0x6fffffff to containers, and nothing above (UIDS-GIDS.md).
 */
#define FIRST_UID 0x78000000u
#define UIDS 0x10000u
#define NOFILE 8192u
#define SPARE_PROCESSES 256u /* beside the vCPUs' threads: those of I/O */

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)

/* ---- What is possible here ---------------------------------------------------- */

struct clone3_args { /* <linux/sched.h>: struct clone_args, its first version */
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

/* As fork(), into new namespaces. */
static pid_t fork_into(uint64_t flags, int *pidfd)
{
	struct clone3_args a = { .flags = flags | CLONE_PIDFD, .pidfd = (uintptr_t)pidfd, .exit_signal = SIGCHLD };

	return (pid_t)syscall(SYS_clone3, &a, sizeof(a));
}

static bool can_make(uint64_t flags)
{
	int pidfd, status = 1;
	pid_t pid = fork_into(flags, &pidfd);

	if (!pid)
		_exit(0);
	if (pid < 0)
		return false;
	close(pidfd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return !status;
}

/* A session's user has no say in control groups. */
static char *read_mounts(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t room = 0;
	char *text = NULL;

	if (f && getdelim(&text, &room, 0, f) < 0) {
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

void confine_init(struct daemon *d)
{
	struct confine *c = &d->confine;
	char *mounts = d->privileged ? read_mounts() : NULL;

	if (mounts)
		cgroups_find(&d->cgroups, mounts);
	free(mounts);
	c->off = d->options->sandbox_off;
	c->user_namespace = !d->privileged;
	c->namespaces = can_make(NAMESPACES | (c->user_namespace ? CLONE_NEWUSER : 0));
	if (!access("/sys/fs/selinux/enforce", F_OK))
		c->lsm = LSM_SELINUX;
	else if (!access("/sys/kernel/security/apparmor/profiles", F_OK))
		c->lsm = LSM_APPARMOR;
	if (c->off)
		log_line(LOG_WARN, "--sandbox off: a guest that breaks into its keel-vmm has all the rights of the user %u", geteuid());
	else if (!c->namespaces)
		log_line(LOG_WARN, "this host gives us no namespaces: guests are kept apart by Landlock and seccomp alone");
}

/* ---- Users ------------------------------------------------------------------------ */

int confine_reserve_user(const struct daemon *d, int id, uid_t *uid)
{
	int fd;

	if (!d->privileged || d->confine.off)
		return -1;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (unsigned n = 0; fd >= 0 && n < UIDS; n++) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		int len;

		*uid = FIRST_UID + ((unsigned)id + n) % UIDS;
		len = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "keel/uid/%u", *uid);
		/* Each name once on a host, whichever keeld it is. */
		if (!bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)))
			return fd;
		if (errno != EADDRINUSE)
			break;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

void confine_option(const struct daemon *d, uid_t uid, char *text, size_t room)
{
	char user[24] = "";

	if (uid)
		snprintf(user, sizeof(user), ",uid=%u", uid);
	if (d->confine.off)
		snprintf(text, room, "off");
	else
		snprintf(text, room, "on,passed%s%s", d->confine.namespaces ? ",root" : "", user);
}

/* ---- In the child: nothing but system calls --------------------------------------- */

struct child {
	const struct confine_launch *l;
	int joins[CG_CONTROLLERS];
	unsigned njoins;
	const char *label_file;
	char uid_map[48], gid_map[48]; /* "": no user namespace */
	bool own_user;
};

static bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static void set_limits(const struct child *c)
{
	const struct {
		int what;
		rlim_t max;
	} limits[] = {
		{ RLIMIT_CORE, 0 }, /* guest memory on the host's disk */
		{ RLIMIT_MSGQUEUE, 0 },	   { RLIMIT_RTPRIO, 0 }, { RLIMIT_NICE, 0 }, { RLIMIT_NOFILE, NOFILE },
		/* Of one user: threads count. Others of a session's user are none of our business. */
		{ RLIMIT_NPROC, c->own_user ? c->l->vcpus + SPARE_PROCESSES : RLIM_INFINITY },
	};

	for (unsigned n = 0; n < sizeof(limits) / sizeof(limits[0]); n++) {
		struct rlimit r;

		if (getrlimit(limits[n].what, &r) || r.rlim_max < limits[n].max)
			continue;
		r.rlim_cur = r.rlim_max = limits[n].max;
		setrlimit(limits[n].what, &r);
	}
}

static void keep_descriptors(const struct confine_launch *l)
{
	int null = open("/dev/null", O_RDWR);

	if (null < 0 || dup2(null, 0) < 0 || dup2(l->log, 1) < 0 || dup2(l->log, 2) < 0)
		_exit(126);
	/* Whatever keeld has open, and forgot to say so of. */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	for (unsigned n = 0; n < l->nfds; n++)
		if (fcntl(l->fds[n], F_SETFD, 0))
			_exit(126);
}

static _Noreturn void run_child(const struct child *c)
{
	static char *const env[] = { "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	sigset_t none;

	/* Of a session of its own: no signal of keeld's terminal reaches it. It does not end with keeld. */
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (c->uid_map[0] && (!write_to("/proc/self/setgroups", "deny") || !write_to("/proc/self/uid_map", c->uid_map) ||
			      !write_to("/proc/self/gid_map", c->gid_map))) {
		dprintf(c->l->log, "cannot become root of a user namespace\n");
		_exit(126);
	}
	set_limits(c);
	keep_descriptors(c->l);
	for (unsigned n = 0; n < c->njoins; n++) {
		if (write(c->joins[n], "0", 1) != 1) {
			dprintf(2, "cannot join a control group: %s\n", strerror(errno));
			_exit(126);
		}
	}
	if (c->label_file && !write_to(c->label_file, c->l->label)) {
		dprintf(2, "cannot take the security label '%s': %s\n", c->l->label, strerror(errno));
		_exit(126);
	}
	execve(c->l->argv[0], c->l->argv, env);
	dprintf(2, "cannot execute binary %s: %s\n", c->l->argv[0], strerror(errno));
	_exit(127);
}

/* ---- Launching ----------------------------------------------------------------------- */

static const char *label_file(const struct guest *g)
{
	return g->daemon->confine.lsm == LSM_SELINUX  ? "/proc/self/attr/exec"
	       : g->daemon->confine.lsm == LSM_APPARMOR ? "/proc/self/attr/apparmor/exec"
							: NULL;
}

int confine_launch(const struct guest *g, const struct confine_launch *l, pid_t *pid, int *pidfd, struct err *err)
{
	const struct confine *conf = &g->daemon->confine;
	struct child c = { .l = l, .label_file = l->label ? label_file(g) : NULL, .own_user = g->daemon->privileged };
	uint64_t flags = 0;
	int ret = 0;

	if (access(l->argv[0], X_OK))
		return err_set_errno(err, errno, "cannot execute binary %s", l->argv[0]);
	if (!conf->off && conf->namespaces)
		flags = NAMESPACES | (conf->user_namespace ? CLONE_NEWUSER : 0);
	if (flags & CLONE_NEWUSER) {
		snprintf(c.uid_map, sizeof(c.uid_map), "0 %u 1", geteuid());
		snprintf(c.gid_map, sizeof(c.gid_map), "0 %u 1", getegid());
	}
	c.njoins = confine_cgroup_make(g, l->vcpus, c.joins);
	*pid = fork_into(flags, pidfd);
	if (!*pid)
		run_child(&c);
	if (*pid < 0)
		ret = err_set_errno(err, errno, "cannot make a process for '%s'", g->name);
	while (c.njoins)
		close(c.joins[--c.njoins]);
	return ret;
}

/* "NSpid: HOST ... INNER", outermost first (proc(5)). */
static pid_t inner_tid(pid_t pid, const char *tid)
{
	char path[64], line[4096], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : -1;
	if (fd >= 0)
		close(fd);
	line[n > 0 ? n : 0] = 0;
	p = strstr(line, "\nNSpid:");
	if (!p)
		return 0;
	p += 7;
	p[strcspn(p, "\n")] = 0;
	for (char *q; (q = strpbrk(p, "\t ")) != NULL;)
		p = q + 1;
	return atoi(p);
}

pid_t confine_host_tid(pid_t pid, pid_t tid)
{
	char path[32];
	struct dirent *e;
	pid_t found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir)))
		if (e->d_name[0] != '.' && inner_tid(pid, e->d_name) == tid)
			found = atoi(e->d_name);
	if (dir)
		closedir(dir);
	return found;
}

static void remove_sockets(struct dom_chr *const *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct dom_chr_source *s = v[i]->source.n ? v[i]->source.v[0] : NULL;
		struct stat st;

		if (v[i]->type == DOM_CHR_UNIX && s && s->path && (!s->mode || !strcmp(s->mode, "bind")) &&
		    !lstat(s->path, &st) && S_ISSOCK(st.st_mode))
			unlink(s->path);
	}
}

void confine_cleanup(const struct guest *g)
{
	const struct dom_devices *dev = g->live ? g->live->devices : NULL;

	confine_cgroup_remove(g);
	if (!dev)
		return;
	remove_sockets(dev->serial.v, dev->serial.n);
	remove_sockets(dev->console.v, dev->console.n);
	remove_sockets(dev->channel.v, dev->channel.n);
}
