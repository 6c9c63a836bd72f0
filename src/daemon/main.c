/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/guest_hooks.h"
#include "util/log.h"

static void usage(FILE *to)
{
	fprintf(to, "usage: keeld [OPTION]...\n"
		    "Serve libvirt's protocol, in the foreground, until SIGTERM or SIGINT; SIGHUP reads the access\n"
		    "rules again.\n\n"
		    "  --root DIR                keep everything under DIR; made if it doesn't exist. Else /var/lib/keel,\n"
		    "                            or for others than root ~/.local/share/keel\n"
		    "                            Sockets: DIR/run/libvirt-sock and DIR/run/libvirt-sock-ro\n"
		    "  --listen-tls [ADDR:]PORT  for clients with certificates; 16514 is libvirt's port\n"
		    "  --pki DIR                 certificates: CA/cacert.pem, CA/cacrl.pem, libvirt/servercert.pem and\n"
		    "                            libvirt/private/serverkey.pem. Else those in etc/pki of the root\n"
		    "  --allow-dn PATTERN        only certificates whose name matches (may be repeated)\n"
		    "  --tls-auth none|sasl      besides the certificate; none by default\n"
		    "  --listen-tcp [ADDR:]PORT  without TLS; 16509 is libvirt's port\n"
		    "  --tcp-auth sasl|none      sasl by default; none lets in everybody who can connect\n"
		    "  --allow-user PATTERN      only SASL names that match (may be repeated)\n"
		    "  --access FILE             rules of who may do what. Else etc/access.conf of the root, if it is there\n"
		    "  --sandbox on|off          off: guests keep all the rights of keeld; to find faults only\n"
		    "  --verbose                 log more\n"
		    "  --help, --version\n\n"
		    "virsh -c 'qemu:///system?socket=DIR/run/libvirt-sock' list\n");
}

struct signals {
	struct daemon *daemon;
	int fd;
};

/* SIGHUP: the access rules anew; whoever wrote nonsense into them reads of it in the log. Else the end. */
static void on_signal(void *opaque, uint32_t events)
{
	const struct signals *s = opaque;
	struct signalfd_siginfo info;
	struct err err = ERR_INIT;

	(void)events;
	while (read(s->fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo != SIGHUP) {
			loop_quit(s->daemon->loop, 0);
			continue;
		}
		hook_daemon(s->daemon, "reload", "begin", "SIGHUP", false);
		if (access_load(s->daemon, &err))
			log_line(LOG_ERROR, "%s; the rules stay as they were", err_msg(&err));
	}
}

/* Where libkeel looks, too. The directory's parents are made. */
static const char *default_root(void)
{
	static char path[PATH_MAX];
	const char *home = getenv("HOME"), *data = getenv("XDG_DATA_HOME");

	if (!geteuid())
		snprintf(path, sizeof(path), "/var/lib/keel");
	else if (data && *data == '/')
		snprintf(path, sizeof(path), "%s/keel", data);
	else if (home && *home == '/')
		snprintf(path, sizeof(path), "%s/.local/share/keel", home);
	else
		return NULL;
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700); /* what is there is good; what fails is told of the root itself */
		*slash = '/';
	}
	return path;
}

static int add_pattern(struct daemon_patterns *p, const char *pattern)
{
	const char **list = realloc(p->list, (p->n + 1) * sizeof(*list));

	if (!list)
		return -ENOMEM;
	p->list = list;
	p->list[p->n++] = pattern;
	return 0;
}

/* One of two words. 0, or -EINVAL and the message is printed. */
static int choose(const char *option, const char *value, const char *yes, const char *no, bool *result)
{
	*result = !strcmp(value, yes);
	if (*result || !strcmp(value, no))
		return 0;
	fprintf(stderr, "keeld: %s %s: give %s or %s\n", option, value, yes, no);
	return -EINVAL;
}

enum { LISTEN_TLS = 256, PKI, ALLOW_DN, TLS_AUTH, LISTEN_TCP, TCP_AUTH, ALLOW_USER, ACCESS, SANDBOX };

/* 0: go on; else the exit status plus 1. */
static int parse(int argc, char **argv, struct daemon_options *o)
{
	static const struct option options[] = {
		{ "root", required_argument, NULL, 'r' },
		{ "listen-tls", required_argument, NULL, LISTEN_TLS },
		{ "pki", required_argument, NULL, PKI },
		{ "allow-dn", required_argument, NULL, ALLOW_DN },
		{ "tls-auth", required_argument, NULL, TLS_AUTH },
		{ "listen-tcp", required_argument, NULL, LISTEN_TCP },
		{ "tcp-auth", required_argument, NULL, TCP_AUTH },
		{ "allow-user", required_argument, NULL, ALLOW_USER },
		{ "access", required_argument, NULL, ACCESS },
		{ "sandbox", required_argument, NULL, SANDBOX },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int opt, ret = 0;

	while (!ret && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			o->root = optarg;
			break;
		case LISTEN_TLS:
			o->listen_tls = optarg;
			break;
		case PKI:
			o->pki = optarg;
			break;
		case ALLOW_DN:
			ret = add_pattern(&o->dns, optarg);
			break;
		case TLS_AUTH:
			ret = choose("--tls-auth", optarg, "sasl", "none", &o->tls_sasl);
			break;
		case LISTEN_TCP:
			o->listen_tcp = optarg;
			break;
		case TCP_AUTH:
			ret = choose("--tcp-auth", optarg, "none", "sasl", &o->tcp_anybody);
			break;
		case ALLOW_USER:
			ret = add_pattern(&o->users, optarg);
			break;
		case ACCESS:
			o->access = optarg;
			break;
		case SANDBOX:
			ret = choose("--sandbox", optarg, "off", "on", &o->sandbox_off);
			break;
		case 'v':
			log_set_level(LOG_INFO);
			break;
		case 'h':
			usage(stdout);
			return 1;
		case 'V':
			printf("keeld %s\n", KEEL_VERSION);
			return 1;
		default:
			usage(stderr);
			return 3;
		}
	}
	if (ret)
		return 3;
	if (optind < argc) {
		usage(stderr);
		return 3;
	}
	if (!o->root)
		o->root = default_root();
	if (!o->root)
		fprintf(stderr, "keeld: HOME is not set, so there is no default for --root\n");
	return o->root ? 0 : 3;
}

int main(int argc, char **argv)
{
	struct daemon_options options = { 0 };
	int ret = parse(argc, argv, &options), status = 1;
	struct err err = ERR_INIT;
	struct daemon d;
	struct signals signals = { .daemon = &d };
	sigset_t set;

	if (ret)
		return ret - 1;
	log_set_name("keeld");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!daemon_start(&d, &options, &err) && loop_fd_add(d.loop, signals.fd, EPOLLIN, on_signal, &signals, &err))
		status = loop_run(d.loop);
	else
		fprintf(stderr, "keeld: %s\n", err_msg(&err));
	daemon_free(&d);
	close(signals.fd);
	free(options.dns.list);
	free(options.users.list);
	return status;
}
