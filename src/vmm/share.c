/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --share: a folder of the host behind a virtiofsd of our own. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define SETTINGS 8

struct share {
	const char *dir, *tag, *cache, *queues, *id;
};

static int share_setting(struct share *o, const struct option_pair *p, struct err *err)
{
	const struct {
		const char *key, **value;
	} settings[] = { { "dir", &o->dir }, { "tag", &o->tag }, { "cache", &o->cache }, { "queues", &o->queues }, { "id", &o->id } };

	for (unsigned i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (!strcmp(settings[i].key, p->key)) {
			*settings[i].value = p->value;
			return 0;
		}
	}
	return err_set(err, EINVAL, "there is no setting '%s'; use tag, cache, queues or id", p->key);
}

static const char *find_virtiofsd(void)
{
	/* Debian's QEMU, and where distributions put the one in Rust. */
	static const char *const places[] = { "/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd" };
	const char *own = getenv("KEEL_VIRTIOFSD");

	for (unsigned i = 0; !own && i < sizeof(places) / sizeof(places[0]); i++)
		if (!access(places[i], X_OK))
			own = places[i];
	return own;
}

/*
 * A listening socket with our connection in its queue already: nobody else can
 * be first, whatever its name (one that the kernel chooses). *ours is connected.
 */
static int socket_pair(int *ours, int *theirs, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(a);

	*ours = *theirs = -1;
	*theirs = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*ours = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*theirs >= 0 && *ours >= 0 && !bind(*theirs, (struct sockaddr *)&a, sizeof(a.sun_family)) && !listen(*theirs, 1) &&
	    !getsockname(*theirs, (struct sockaddr *)&a, &len) && !connect(*ours, (struct sockaddr *)&a, len))
		return 0;
	return err_set_errno(err, errno, "cannot make a socket for virtiofsd");
}

static void exec_server(const char *program, const char *source, const char *cache, int theirs)
{
	char *argv[] = { (char *)program, "--fd=3", "-f", "-o", (char *)source, "-o", (char *)cache, "-o", "log_level=warn", NULL };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(theirs, 3) < 0)
		_exit(126);
	close_range(4, ~0u, 0);
	execv(program, argv);
	dprintf(2, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

/* It ends when we close our end of the socket, or die; init takes care of it then. */
static int run_server(const char *program, const char *dir, const char *cache, int theirs, struct err *err)
{
	char source[4200], mode[32];
	int status;
	pid_t pid;

	snprintf(source, sizeof(source), "source=%s", dir);
	snprintf(mode, sizeof(mode), "cache=%s", cache ? cache : "auto");
	pid = fork();
	if (pid == 0) {
		pid = fork();
		if (pid == 0)
			exec_server(program, source, mode, theirs);
		_exit(pid < 0 ? 1 : 0);
	}
	if (pid < 0)
		return err_set_errno(err, errno, "cannot start virtiofsd");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : err_set(err, EAGAIN, "cannot start virtiofsd");
}

static int check_share(const struct share *o, char dir[4096], struct err *err)
{
	static const char *const modes[] = { "auto", "always", "none" };
	struct stat st;

	if (!o->dir || !o->tag)
		return err_set(err, EINVAL, "give a folder and its name for the guest: DIR,tag=NAME");
	if (!realpath(o->dir, dir) || stat(dir, &st))
		return err_set_errno(err, errno, "cannot find the folder %s", o->dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "%s is not a folder", o->dir);
	if (strchr(dir, ','))
		return err_set(err, EINVAL, "%s: virtiofsd cannot share a folder with a comma in its path", dir);
	for (unsigned i = 0; o->cache && strcmp(o->cache, modes[i]);)
		if (++i == sizeof(modes) / sizeof(modes[0]))
			return err_set(err, EINVAL, "cache must be auto, always or none, not '%s'", o->cache);
	return 0;
}

static int add_share(struct vmm *v, const struct share *o, struct err *err)
{
	const char *program = find_virtiofsd();
	char dir[4096], fd[16];
	struct option_pair pairs[4];
	int ours = -1, theirs = -1, n = 0, ret = check_share(o, dir, err);

	if (!ret && !program)
		ret = err_set(err, ENOENT, "cannot find virtiofsd: install the package qemu-system-common");
	if (!ret)
		ret = socket_pair(&ours, &theirs, err);
	if (!ret)
		ret = run_server(program, dir, o->cache, theirs, err);
	if (theirs >= 0)
		close(theirs);
	if (ret) {
		if (ours >= 0)
			close(ours);
		return ret;
	}
	snprintf(fd, sizeof(fd), "%d", ours);
	pairs[n++] = (struct option_pair){ "fd", fd };
	pairs[n++] = (struct option_pair){ "tag", (char *)o->tag };
	if (o->id)
		pairs[n++] = (struct option_pair){ "id", (char *)o->id };
	if (o->queues)
		pairs[n++] = (struct option_pair){ "num-request-queues", (char *)o->queues };
	return vmm_plug(v, "vhost-user-fs-pci", pairs, n, err);
}

int vmm_share_option(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[SETTINGS];
	struct share o = { 0 };
	int n = options_split("--share", text, "dir", pairs, SETTINGS, err), ret = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n && !ret; i++)
		ret = share_setting(&o, &pairs[i], err);
	if (!ret)
		ret = add_share(v, &o, err);
	options_split_free(pairs, n);
	return ret ? err_prefix(err, "--share") : 0;
}
