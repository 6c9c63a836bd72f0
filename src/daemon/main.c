/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "util/log.h"

static void usage(FILE *to)
{
	fprintf(to, "usage: keeld --root DIR\n"
		    "Serve libvirt's protocol, in the foreground, until SIGTERM or SIGINT.\n\n"
		    "  --root DIR   keep everything under DIR; made if it doesn't exist.\n"
		    "               Sockets: DIR/run/libvirt-sock and DIR/run/libvirt-sock-ro\n"
		    "  --verbose    log more\n"
		    "  --help, --version\n\n"
		    "virsh -c 'qemu:///system?socket=DIR/run/libvirt-sock' list\n");
}

static void on_signal(void *opaque, uint32_t events)
{
	(void)events;
	loop_quit(opaque, 0);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "root", required_argument, NULL, 'r' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	const char *root = NULL;
	struct err err = ERR_INIT;
	struct daemon d;
	int opt, signals, status = 1;
	sigset_t set;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			root = optarg;
			break;
		case 'v':
			log_set_level(LOG_INFO);
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			printf("keeld %s\n", KEEL_VERSION);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (!root || optind < argc) {
		usage(stderr);
		return 2;
	}
	log_set_name("keeld");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!daemon_start(&d, root, &err) && loop_fd_add(d.loop, signals, EPOLLIN, on_signal, d.loop, &err))
		status = loop_run(d.loop);
	else
		fprintf(stderr, "keeld: %s\n", err_msg(&err));
	daemon_free(&d);
	close(signals);
	return status;
}
