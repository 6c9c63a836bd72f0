/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "image/nbd_server_int.h"

#define NEGOTIATION_S 30 /* a client that says nothing for so long before it chose an export goes */
#define CLIENTS 1024u	 /* where nobody set a limit */

/* ---- A client's bytes -------------------------------------------------------------------- */

bool client_read(struct client *c, void *buf, size_t len)
{
	uint8_t *p = buf;

	if (c->data) {
		if (len > c->len)
			return false;
		memcpy(p, c->data, len);
		c->data += len;
		c->len -= len;
		return true;
	}
	while (len) {
		ssize_t n = c->session ? tls_read(c->session, p, len) : recv(c->fd, p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

bool client_write(struct client *c, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len && !c->data) {
		ssize_t n = c->session ? tls_write(c->session, p, len) : send(c->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

bool client_write_both(struct client *c, const void *head, size_t nhead, const void *data, size_t ndata)
{
	struct iovec iov[2] = { { (void *)head, nhead }, { (void *)data, ndata } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t sent;
	ssize_t n;

	if (c->data || c->session || !ndata)
		return client_write(c, head, nhead) && client_write(c, data, ndata);
	do
		n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return false;
	sent = (size_t)n;
	if (sent < nhead)
		return client_write(c, (const uint8_t *)head + sent, nhead - sent) && client_write(c, data, ndata);
	return client_write(c, (const uint8_t *)data + (sent - nhead), ndata - (sent - nhead));
}

bool client_skip(struct client *c, uint64_t len)
{
	uint8_t rest[4096];

	for (size_t n; len; len -= n) {
		n = len < sizeof(rest) ? len : sizeof(rest);
		if (!client_read(c, rest, n))
			return false;
	}
	return true;
}

uint8_t *client_room(struct client *c, size_t len)
{
	void *p;

	if (len <= c->room)
		return c->buf;
	if (posix_memalign(&p, 4096, len))
		return NULL;
	free(c->buf);
	c->buf = p;
	c->room = len;
	return p;
}

/* ---- Exports --------------------------------------------------------------------------------- */

struct nbd_export *export_use(struct nbd_server *s, const char *name, size_t len)
{
	struct nbd_export *e;

	pthread_mutex_lock(&s->lock);
	for (e = s->exports; e; e = e->next)
		if (strlen(e->name) == len && !memcmp(e->name, name, len))
			break;
	if (e)
		e->clients++;
	pthread_mutex_unlock(&s->lock);
	return e;
}

static void export_free(struct nbd_export *e)
{
	for (unsigned i = 0; i < e->nbitmaps; i++) {
		free(e->bitmap[i].context);
		dirty_free(&e->bitmap[i].bits);
	}
	pthread_mutex_destroy(&e->edge);
	free(e->bitmap);
	free(e->name);
	free(e->description);
	free(e);
}

void export_drop(struct nbd_server *s, struct nbd_export *e)
{
	bool last;

	pthread_mutex_lock(&s->lock);
	last = !--e->clients && e->removed;
	pthread_mutex_unlock(&s->lock);
	if (last)
		export_free(e);
}

bool export_choose(struct client *c, struct nbd_export *e)
{
	pthread_mutex_lock(&c->s->lock);
	if (!e->removed)
		c->e = e;
	pthread_mutex_unlock(&c->s->lock);
	if (!c->e)
		export_drop(c->s, e);
	return c->e;
}

uint64_t export_size(struct nbd_server *s, struct nbd_export *e)
{
	uint64_t size;

	pthread_mutex_lock(&s->lock);
	size = e->removed ? 0 : block_size(e->block);
	pthread_mutex_unlock(&s->lock);
	return size;
}

static int add_bitmap(struct nbd_export *e, const char *name, struct err *err)
{
	struct bitmap *m = &e->bitmap[e->nbitmaps];
	int ret = block_bitmap_read(e->block, name, &m->bits, err);

	if (ret)
		return ret;
	e->nbitmaps++;
	if (asprintf(&m->context, "qemu:dirty-bitmap:%s", name) >= 0)
		return 0;
	m->context = NULL;
	return err_set(err, ENOMEM, "no memory for an export");
}

int nbd_export_add(struct nbd_server *s, const struct nbd_export_options *o, struct err *err)
{
	struct nbd_export *e, **at = &s->exports;
	int ret = 0;

	if (strlen(o->name) > NBD_MAX_NAME || (o->description && strlen(o->description) > NBD_MAX_NAME))
		return err_set(err, EINVAL, "an export's name and description have at most %u bytes", NBD_MAX_NAME);
	if (o->writable && block_readonly(o->block))
		return err_set(err, EACCES, "%s is read-only: it cannot be exported writable", block_path(o->block));
	for (; *at; at = &(*at)->next)
		if (!strcmp((*at)->name, o->name))
			return err_set(err, EEXIST, "NBD server already has export named '%.200s'", o->name);
	e = calloc(1, sizeof(*e));
	if (!e)
		return err_set(err, ENOMEM, "no memory for an export");
	pthread_mutex_init(&e->edge, NULL);
	e->block = o->block;
	e->writable = o->writable;
	e->name = strdup(o->name);
	e->description = o->description ? strdup(o->description) : NULL;
	e->bitmap = calloc(o->nbitmaps + 1, sizeof(e->bitmap[0]));
	if (!e->name || (o->description && !e->description) || !e->bitmap)
		ret = err_set(err, ENOMEM, "no memory for an export");
	for (unsigned i = 0; !ret && i < o->nbitmaps; i++)
		ret = add_bitmap(e, o->bitmaps[i], err);
	if (ret) {
		export_free(e);
		return ret;
	}
	pthread_mutex_lock(&s->lock);
	*at = e;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static struct nbd_export *find(struct nbd_server *s, const char *name)
{
	struct nbd_export *e = s->exports;

	while (e && strcmp(e->name, name))
		e = e->next;
	return e;
}

unsigned nbd_export_clients(struct nbd_server *s, const char *name)
{
	struct nbd_export *e;
	unsigned n;

	pthread_mutex_lock(&s->lock);
	e = find(s, name);
	n = e ? e->clients : 0;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* ---- Clients ------------------------------------------------------------------------------------ */

/* Threads that have ended are joined in the loop's thread. */
static void reap(void *opaque)
{
	struct nbd_server *s = opaque;
	struct client **at, *c;
	unsigned left, gone = 0;

	pthread_mutex_lock(&s->lock);
	s->reap_posted = false;
	for (at = &s->clients; (c = *at);) {
		if (!c->ended) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		s->nclients--;
		gone++;
		pthread_join(c->thread, NULL); /* it has nothing to do any more */
		close(c->fd);
		free(c);
	}
	left = s->nclients;
	pthread_mutex_unlock(&s->lock);
	if (gone && s->o.left)
		s->o.left(s->o.opaque, left);
}

static void timeout(struct client *c, unsigned seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	if (c->fd < 0)
		return;
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static void talk(struct client *c)
{
	timeout(c, NEGOTIATION_S);
	if (client_negotiate(c)) {
		timeout(c, 0);
		c->loop = loop_new(NULL);
		/* What a client writes counts for dirty bitmaps and jobs; what it reads is nobody's affair. */
		if (c->loop)
			c->q = c->e->writable ? block_queue_new(c->e->block, c->loop, 4, NULL)
					      : block_queue_new_internal(c->e->block, c->loop, 4, NULL);
		if (c->q)
			client_serve(c);
		block_queue_free(c->q);
		loop_free(c->loop);
	}
	if (c->e)
		export_drop(c->s, c->e);
	tls_end(c->session);
	free(c->buf);
}

static void *client_thread(void *opaque)
{
	struct client *c = opaque;
	struct nbd_server *s = c->s;

	talk(c);
	/* The other end learns it now, the descriptor is closed by whoever joins. */
	shutdown(c->fd, SHUT_RDWR);
	pthread_mutex_lock(&s->lock);
	c->ended = true;
	if (!s->reap_posted)
		s->reap_posted = !loop_post(s->o.loop, reap, s);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void take_in(struct nbd_server *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	int one = 1;

	if (!c) {
		close(fd);
		return;
	}
	c->s = s;
	c->fd = fd;
	/* Fails on sockets that are not TCP's. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	pthread_mutex_lock(&s->lock);
	if (s->nclients >= (s->o.max_clients ? s->o.max_clients : CLIENTS) ||
	    pthread_create(&c->thread, NULL, client_thread, c)) {
		close(fd);
		free(c);
	} else {
		c->next = s->clients;
		s->clients = c;
		s->nclients++;
	}
	pthread_mutex_unlock(&s->lock);
}

static void listener_ready(void *opaque, uint32_t events)
{
	struct listener *l = opaque;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		take_in(l->s, fd);
}

/* Cut off all clients, or those of one export, and wait for their threads. */
static void cut_off(struct nbd_server *s, const struct nbd_export *e)
{
	for (;;) {
		struct client **at, *c;

		pthread_mutex_lock(&s->lock);
		for (at = &s->clients; (c = *at) && e && c->e != e;)
			at = &c->next;
		if (c) {
			*at = c->next;
			s->nclients--;
			shutdown(c->fd, SHUT_RDWR);
		}
		pthread_mutex_unlock(&s->lock);
		if (!c)
			return;
		pthread_join(c->thread, NULL);
		close(c->fd);
		free(c);
	}
}

int nbd_export_del(struct nbd_server *s, const char *name, bool hard, struct err *err)
{
	struct nbd_export *e, **at;

	pthread_mutex_lock(&s->lock);
	e = find(s, name);
	if (e && e->clients && !hard) {
		pthread_mutex_unlock(&s->lock);
		return err_set(err, EBUSY, "export '%.200s' still in use", name);
	}
	for (at = &s->exports; e && *at != e;)
		at = &(*at)->next;
	if (e) {
		*at = e->next;
		e->removed = true;
		e->clients++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!e)
		return err_set(err, ENOENT, "Export '%.200s' is not found", name);
	cut_off(s, e);
	export_drop(s, e);
	return 0;
}

/* ---- The server ------------------------------------------------------------------------------------ */

struct nbd_server *nbd_server_new(const struct nbd_server_options *o, struct err *err)
{
	struct nbd_server *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(err, ENOMEM, "no memory for an NBD server");
		return NULL;
	}
	s->o = *o;
	s->o.tls = NULL;
	pthread_mutex_init(&s->lock, NULL);
	if (o->tls && !(s->tls = tls_new(o->tls, o->tls_verify, err))) {
		nbd_server_free(s);
		return NULL;
	}
	return s;
}

int nbd_server_listen(struct nbd_server *s, int fd, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (l) {
		l->s = s;
		l->fd = fd;
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		l->watch = loop_fd_add(s->o.loop, fd, EPOLLIN, listener_ready, l, err);
	}
	if (!l || !l->watch) {
		free(l);
		close(fd);
		return err_set(err, ENOMEM, "no memory for a listening socket");
	}
	l->next = s->listeners;
	s->listeners = l;
	return 0;
}

void nbd_server_deafen(struct nbd_server *s)
{
	while (s->listeners) {
		struct listener *l = s->listeners;

		s->listeners = l->next;
		loop_fd_del(l->watch);
		close(l->fd);
		free(l);
	}
}

void nbd_server_free(struct nbd_server *s)
{
	if (!s)
		return;
	nbd_server_deafen(s);
	cut_off(s, NULL);
	loop_unpost(s->o.loop, reap, s);
	while (s->exports) {
		struct nbd_export *e = s->exports;

		s->exports = e->next;
		export_free(e);
	}
	tls_free(s->tls);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void nbd_server_feed(struct nbd_server *s, const void *data, size_t len)
{
	struct client c = { .s = s, .fd = -1, .data = data, .len = len };

	talk(&c);
}
