/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image serve: an image for NBD clients, in qemu-nbd's habits. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/image.h"
#include "image/block.h"
#include "image/nbd_server.h"
#include "util/loop.h"
#include "util/sockets.h"

#define MAX_BITMAPS 64
#define NBD_PORT "10809"

struct serve {
	struct block_options image;
	struct nbd_server_options server;
	struct nbd_export_options export;
	const char *bitmaps[MAX_BITMAPS];
	const char *socket, *bind, *port, *pid_file;
	bool persistent;
	struct loop *loop;
	struct block *block;
	struct nbd_server *s;
};

static bool parse_cache(const char *text, enum block_cache *cache)
{
	static const char *const modes[] = {
		[BLOCK_CACHE_WRITEBACK] = "writeback",
		[BLOCK_CACHE_NONE] = "none",
		[BLOCK_CACHE_WRITETHROUGH] = "writethrough",
		[BLOCK_CACHE_DIRECTSYNC] = "directsync",
		[BLOCK_CACHE_UNSAFE] = "unsafe",
	};

	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (!strcmp(modes[i], text)) {
			*cache = i;
			return true;
		}
	}
	return false;
}

static int parse(struct serve *v, int argc, char **argv)
{
	enum { CACHE = 256, PID_FILE, TLS, TLS_VERIFY };
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 'k' },
		{ "port", required_argument, NULL, 'p' },
		{ "bind", required_argument, NULL, 'b' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "persistent", no_argument, NULL, 't' },
		{ "shared", required_argument, NULL, 'e' },
		{ "export-name", required_argument, NULL, 'x' },
		{ "description", required_argument, NULL, 'D' },
		{ "bitmap", required_argument, NULL, 'B' },
		{ "format", required_argument, NULL, 'f' },
		{ "cache", required_argument, NULL, CACHE },
		{ "pid-file", required_argument, NULL, PID_FILE },
		{ "tls-certificates", required_argument, NULL, TLS },
		{ "tls-verify", no_argument, NULL, TLS_VERIFY },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t n;
	int opt;

	while ((opt = getopt_long(argc, argv, "k:p:b:rte:x:D:B:f:", options, NULL)) != -1) {
		switch (opt) {
		case 'k':
			v->socket = optarg;
			break;
		case 'p':
			v->port = optarg;
			break;
		case 'b':
			v->bind = optarg;
			break;
		case 'r':
			v->image.readonly = true;
			break;
		case 't':
			v->persistent = true;
			break;
		case 'e':
			if (!image_parse_size(optarg, &n) || n > 1024)
				return image_fail(1, "'%s' is no number of clients from 0 (any) to 1024", optarg);
			v->server.max_clients = n;
			break;
		case 'x':
			v->export.name = optarg;
			break;
		case 'D':
			v->export.description = optarg;
			break;
		case 'B':
			if (v->export.nbitmaps == MAX_BITMAPS)
				return image_fail(1, "at most %d bitmaps can be served", MAX_BITMAPS);
			v->bitmaps[v->export.nbitmaps++] = optarg;
			break;
		case 'f':
			v->image.format = optarg;
			break;
		case CACHE:
			if (!parse_cache(optarg, &v->image.cache))
				return image_fail(1,
						  "there is no cache mode '%s'; use writeback, none, writethrough, "
						  "directsync or unsafe",
						  optarg);
			break;
		case PID_FILE:
			v->pid_file = optarg;
			break;
		case TLS:
			v->server.tls = optarg;
			break;
		case TLS_VERIFY:
			v->server.tls_verify = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return image_fail(1, "serve needs a file");
	if (v->socket && (v->port || v->bind))
		return image_fail(1, "a Unix socket has neither port nor address: give --socket or --port");
	if (v->server.tls_verify && !v->server.tls)
		return image_fail(1, "--tls-verify needs --tls-certificates");
	v->image.path = argv[optind];
	return 0;
}

/* What the image is, where nobody said: by looking, as all verbs do. */
static int find_format(struct serve *v, struct err *err)
{
	struct image *img;

	if (v->image.format)
		return 0;
	img = image_open(v->image.path, NULL, IMAGE_NO_LOCK | IMAGE_NO_BACKING, err);
	if (!img)
		return -EIO;
	v->image.format = image_qcow2(img) ? "qcow2" : "raw";
	return image_close(img, err);
}

static void left(void *opaque, unsigned n)
{
	struct serve *v = opaque;

	if (!n && !v->persistent)
		loop_quit(v->loop, 0);
}

static void told_to_stop(void *opaque, uint32_t events)
{
	loop_quit(((struct serve *)opaque)->loop, 0);
}

static int listen_on(struct serve *v, struct err *err)
{
	int fd = v->socket ? unix_listen(v->socket, "--socket", err)
			   : nbd_listen_inet(v->bind, v->port ? v->port : NBD_PORT, err);

	return fd < 0 ? fd : nbd_server_listen(v->s, fd, err);
}

static int write_pid(const struct serve *v, struct err *err)
{
	FILE *f = v->pid_file ? fopen(v->pid_file, "we") : NULL;

	if (!v->pid_file)
		return 0;
	if (f)
		fprintf(f, "%d\n", getpid());
	if (!f || fclose(f))
		return err_set_errno(err, errno, "cannot write %s", v->pid_file);
	return 0;
}

static int serve(struct serve *v, struct err *err)
{
	struct loop_fd *watch = NULL;
	sigset_t signals;
	int ret, fd = -1;

	v->loop = loop_new(err);
	ret = v->loop ? find_format(v, err) : -ENOMEM;
	if (!ret)
		v->block = block_open(&v->image, err);
	v->server.loop = v->loop;
	if (v->block)
		v->s = nbd_server_new(&v->server, err);
	v->export.block = v->block;
	v->export.writable = !v->image.readonly;
	ret = v->s ? nbd_export_add(v->s, &v->export, err) : -EIO;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (!ret) {
		fd = signalfd(-1, &signals, SFD_CLOEXEC);
		watch = fd >= 0 ? loop_fd_add(v->loop, fd, EPOLLIN, told_to_stop, v, err) : NULL;
		ret = watch ? 0 : err_set(err, ENOMEM, "no memory to wait for signals");
	}
	if (!ret)
		ret = listen_on(v, err);
	if (!ret)
		ret = write_pid(v, err);
	if (!ret)
		ret = loop_run(v->loop);
	nbd_server_free(v->s);
	if (v->socket && v->s)
		unlink(v->socket);
	if (v->pid_file && v->s)
		unlink(v->pid_file);
	block_close(v->block);
	if (watch)
		loop_fd_del(watch);
	if (fd >= 0)
		close(fd);
	loop_free(v->loop);
	return ret;
}

int image_cmd_serve(int argc, char **argv)
{
	struct serve v = { .image.fd = -1, .export.name = "", .server.max_clients = 1 };
	struct err err = ERR_INIT;
	int ret = parse(&v, argc, argv);

	if (ret)
		return ret;
	v.export.bitmaps = v.bitmaps;
	v.server.left = left;
	v.server.opaque = &v;
	return serve(&v, &err) ? image_fail(1, "%s", err_msg(&err)) : 0;
}
