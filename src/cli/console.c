/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/console.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE 0x1d /* Ctrl-] */

static int write_all(int fd, const char *p, ssize_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, p, (size_t)n);

		if (done < 0 && errno != EINTR)
			return -1;
		if (done > 0) {
			p += done;
			n -= done;
		}
	}
	return 0;
}

/* What the guest says, as far as it has come. 0: go on; 1: the end; -1. */
static int from_guest(struct cmd *c, struct keel_stream *st)
{
	char buf[16384];
	ssize_t n;

	while ((n = keel_stream_recv(st, buf, sizeof(buf), KEEL_STREAM_NONBLOCK, &c->error)) > 0)
		if (write_all(STDOUT_FILENO, buf, n))
			return 1;
	return n == -2 ? 0 : n ? -1 : 1;
}

/* What is typed. 0: go on; 1: the escape key; 2: no more input; -1. */
static int to_guest(struct cmd *c, struct keel_stream *st, bool tty)
{
	char buf[1024], *escape;
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : 2;
	escape = tty ? memchr(buf, ESCAPE, (size_t)n) : NULL;
	if (escape)
		n = escape - buf;
	if (n && keel_stream_send(st, buf, (size_t)n, &c->error))
		return -1;
	return escape ? 1 : 0;
}

static int talk(struct cmd *c, struct keel_stream *st, bool tty)
{
	struct pollfd fds[2] = { { .fd = keel_fd(c->conn), .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
	int ret = 0;

	/* A reader that can't be waited for, such as a file, is read at once; input's end leaves us listening. */
	while (!ret) {
		ret = keel_dispatch(c->conn, &c->error) ? -1 : from_guest(c, st);
		if (ret)
			break;
		if (poll(fds, 2, keel_timeout(c->conn)) < 0 && errno != EINTR)
			return -1;
		if (fds[1].revents) {
			ret = to_guest(c, st, tty);
			if (ret == 2) {
				fds[1].fd = -1;
				fds[1].revents = 0;
				ret = 0;
			}
		}
	}
	return ret < 0 ? -1 : 0;
}

int console_attach(struct cmd *c, struct keel_domain *dom, const char *device, unsigned flags)
{
	bool tty = isatty(STDIN_FILENO);
	struct termios old, raw;
	struct keel_stream *st;
	int ret;

	if (keel_domain_state(dom, NULL, &c->error) == KEEL_STATE_SHUTOFF)
		return cmd_fail(c, "The domain is not running");
	st = keel_domain_console(dom, device, flags, &c->error);
	if (!st)
		return cmd_fail(c, NULL);
	printf("Connected to domain '%s'\n", keel_domain_name(dom));
	printf("Escape character is ^] (Ctrl + ])\n");
	fflush(stdout);
	if (tty) {
		tcgetattr(STDIN_FILENO, &old);
		raw = old;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	}
	ret = talk(c, st, tty);
	if (tty)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
	keel_stream_free(st);
	return ret ? cmd_fail(c, NULL) : 0;
}

static int run_console(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	unsigned flags = (cmd_has(c, "force") ? KEEL_CONSOLE_FORCE : 0u) | (cmd_has(c, "safe") ? KEEL_CONSOLE_SAFE : 0u);
	int status = 1;

	if (!dom)
		return 1;
	if (cmd_has(c, "resume") && keel_domain_resume(dom, &c->error))
		cmd_fail(c, "Failed to resume domain '%s'", keel_domain_name(dom));
	else
		status = console_attach(c, dom, cmd_text(c, "devname"), flags);
	keel_domain_free(dom);
	return status;
}

static const struct opt console_opts[] = {
	OPT_THE_DOMAIN,
	{ "devname", OPT_TEXT, 0, "character device, as serial0" },
	{ "force", OPT_FLAG, 0, "take it from whoever is connected" },
	{ "safe", OPT_FLAG, 0, "only if nobody else can be on it" },
	{ "resume", OPT_FLAG, 0, "let the guest go on once connected" },
	{ 0 },
};

const struct verb console_verbs[] = {
	{ "console", "connect to a guest's console; Ctrl-] leaves", console_opts, run_console },
	{ 0 },
};
