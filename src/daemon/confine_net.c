/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks of a guest, made on its behalf. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/vmm_process.h"

#define SOCKET_ROOM (4 << 20) /* of frames */

/* It ends when the guest's end of the socket is closed. */
static _Noreturn void run_passt(int theirs, int log)
{
	const char *program = getenv("KEEL_PASST");
	char *argv[] = { (char *)(program ? program : "passt"), "--quiet", "--stderr", "--one-off", "--foreground", "--fd", "3", NULL };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (dup2(log, 2) < 0 || dup2(log, 1) < 0 || dup2(theirs, 3) < 0)
		_exit(126);
	close_range(4, ~0u, 0);
	execvp(argv[0], argv);
	dprintf(2, "cannot run %s (%s): install the package passt\n", argv[0], strerror(errno));
	_exit(127);
}

int confine_passt_start(const struct guest *g, struct err *err)
{
	int fds[2], room = SOCKET_ROOM, log, status = 0;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return err_set_errno(err, errno, "cannot make a socket for passt");
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	log = vmm_open_log(g, err);
	pid = log < 0 ? -1 : fork();
	if (!pid) {
		/* Nobody waits for it: it is init's. */
		pid = fork();
		if (!pid)
			run_passt(fds[1], log);
		_exit(pid < 0);
	}
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	close(fds[1]);
	if (log >= 0)
		close(log);
	if (pid > 0 && !status)
		return fds[0];
	close(fds[0]);
	return err_set(err, EAGAIN, "cannot start passt");
}
