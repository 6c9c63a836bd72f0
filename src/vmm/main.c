/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel-vmm: one machine, one process. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "util/log.h"
#include "vmm/sandbox.h"
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

static int run(const struct vmm_options *o, const struct sandbox *sandbox)
{
	struct err err = ERR_INIT;
	struct loop *loop = loop_new(&err);
	struct vmm v = { 0 };
	struct signals signals = { .vmm = &v, .fd = -1 };
	struct sandbox_own own;
	struct sandbox_needs needs;
	int status = VMM_FAILED;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sandbox_find_needs(o, &needs, &own);
	if (loop && !sandbox_prepare(sandbox, &needs, &err) && !vmm_init(&v, o, loop, &err)) {
		signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
		if (signals.fd < 0 || !loop_fd_add(loop, signals.fd, EPOLLIN, signal_ready, &signals, &err))
			err_set_errno(&err, errno, "cannot take signals");
		else if (!sandbox_seal(sandbox, &needs, &err))
			status = vmm_run(&v, &err);
	}
	vmm_free(&v);
	loop_free(loop);
	sandbox_own_free(&own);
	if (signals.fd >= 0)
		close(signals.fd);
	if (err.code)
		log_line(LOG_ERROR, "%s", err_msg(&err));
	return status;
}

/* Before anything else is looked at: what whoever started us says of the sandbox comes first. */
static int confine_first(int argc, char **argv, struct err *err)
{
	struct sandbox s;

	if (argc < 3 || strcmp(argv[1], "--sandbox"))
		return 0;
	if (sandbox_parse(&s, argv[2], err))
		return -err->code;
	return s.passed ? sandbox_confine(&s, err) : 0;
}

static int choose_sandbox(const struct vmm_options *o, char **argv, struct sandbox *s, struct err *err)
{
	*s = (struct sandbox){ 0 };
	if (o->sandbox && sandbox_parse(s, o->sandbox, err))
		return -err->code;
	if (s->passed && o->sandbox != argv[2])
		return err_set(err, EINVAL, "--sandbox: with 'passed' it must be the first option");
	if (s->mode == SANDBOX_AUTO) {
		s->mode = SANDBOX_ON;
		for (unsigned i = 0; i < o->qmps; i++)
			if (!strncmp(o->qmp[i], "unix:", 5))
				s->mode = SANDBOX_PATHS;
	}
	if (s->mode == SANDBOX_OFF)
		log_line(LOG_WARN, "--sandbox off: a guest that breaks into keel-vmm has all the rights of the user %u", geteuid());
	return 0;
}

int main(int argc, char **argv)
{
	struct vmm_options o = { 0 };
	struct sandbox sandbox;
	struct err err = ERR_INIT;
	int status;

	log_set_name("keel-vmm");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (confine_first(argc, argv, &err) || options_parse(&o, argc, argv, &err)) {
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
	if (choose_sandbox(&o, argv, &sandbox, &err)) {
		log_line(LOG_ERROR, "%s", err_msg(&err));
		options_free(&o);
		return VMM_USAGE;
	}
	status = run(&o, &sandbox);
	options_free(&o);
	return status;
}
