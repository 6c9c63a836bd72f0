/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel-vmm: one machine, one process. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "util/log.h"
#include "vmm/vmm.h"

struct signals {
	struct vmm *vmm;
	int fd;
};

static void signal_ready(void *opaque, uint32_t events)
{
	struct signals *s = opaque;
	struct signalfd_siginfo info;

	/* The shell's habit: 128 plus the signal. */
	if (read(s->fd, &info, sizeof(info)) == sizeof(info))
		vmm_quit(s->vmm, 128 + info.ssi_signo, false, "host-signal");
}

static int run(const struct vmm_options *o)
{
	struct err err = ERR_INIT;
	struct loop *loop = loop_new(&err);
	struct vmm v = { 0 };
	struct signals signals = { .vmm = &v, .fd = -1 };
	int status = VMM_FAILED;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (loop && !vmm_init(&v, o, loop, &err)) {
		signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
		if (signals.fd < 0 || !loop_fd_add(loop, signals.fd, EPOLLIN, signal_ready, &signals, &err))
			err_set_errno(&err, errno, "cannot take signals");
		else
			status = vmm_run(&v, &err);
	}
	vmm_free(&v);
	loop_free(loop);
	if (signals.fd >= 0)
		close(signals.fd);
	if (err.code)
		log_line(LOG_ERROR, "%s", err_msg(&err));
	return status;
}

int main(int argc, char **argv)
{
	struct vmm_options o;
	struct err err = ERR_INIT;
	int status;

	log_set_name("keel-vmm");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (options_parse(&o, argc, argv, &err)) {
		log_line(LOG_ERROR, "%s", err_msg(&err));
		options_free(&o);
		return VMM_USAGE;
	}
	if (o.help || o.version) {
		if (o.help)
			options_help(stdout, "keel-vmm");
		else
			printf("keel-vmm %s\n", KEEL_VERSION);
		return 0;
	}
	status = run(&o);
	options_free(&o);
	return status;
}
