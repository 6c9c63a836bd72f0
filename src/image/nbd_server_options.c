/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Negotiation: NBD doc/proto.md, "Fixed newstyle negotiation". */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/nbd_server_int.h"

#define MAX_OPTIONS 256u /* that a client may ask for before it chooses an export */

enum {
	OPT_EXPORT_NAME = 1,
	OPT_ABORT,
	OPT_LIST,
	OPT_STARTTLS = 5,
	OPT_INFO,
	OPT_GO,
	OPT_STRUCTURED,
	OPT_LIST_META,
	OPT_SET_META
};
enum { REP_ACK = 1, REP_SERVER, REP_INFO, REP_META };
#define REP_ERR(n) (1u << 31 | (n))
enum {
	ERR_UNSUP = 1,
	ERR_POLICY,
	ERR_INVALID,
	ERR_PLATFORM,
	ERR_TLS_REQD,
	ERR_UNKNOWN,
	ERR_SHUTDOWN,
	ERR_BLOCK_SIZE,
	ERR_TOO_BIG
};
enum { INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE };

static bool reply(struct client *c, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	uint8_t head[20];

	put64(head, NBD_REPLY_MAGIC);
	put32(head + 8, option);
	put32(head + 12, type);
	put32(head + 16, len);
	return client_write(c, head, sizeof(head)) && (!len || client_write(c, data, len));
}

static bool refuse(struct client *c, uint32_t option, unsigned error, const char *why)
{
	return reply(c, option, REP_ERR(error), why, strlen(why));
}

static uint16_t flags_of(const struct client *c, const struct nbd_export *e)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_FLUSH | NBD_FLAG_FUA | NBD_FLAG_MULTI;

	/* A flush on one connection is one of all: they share the image. */
	if (e->writable)
		flags |= NBD_FLAG_TRIM | NBD_FLAG_ZEROES;
	else
		flags |= NBD_FLAG_READ_ONLY;
	return flags | (c->structured ? NBD_FLAG_DF : 0);
}

/* ---- What an option carries ---------------------------------------------------------- */

struct cursor {
	const uint8_t *p;
	size_t left;
};

static bool take32(struct cursor *at, uint32_t *v)
{
	if (at->left < 4)
		return false;
	*v = get32(at->p);
	at->p += 4;
	at->left -= 4;
	return true;
}

/* A length and so many bytes. */
static bool take_text(struct cursor *at, const uint8_t **text, uint32_t *len)
{
	if (!take32(at, len) || *len > at->left || *len > NBD_MAX_NAME)
		return false;
	*text = at->p;
	at->p += *len;
	at->left -= *len;
	return true;
}

/* ---- Options ---------------------------------------------------------------------------- */

static bool list_exports(struct client *c)
{
	uint8_t *all = NULL;
	size_t len = 0;
	bool good = true;

	/* Nobody waits for a client with the lock held. */
	pthread_mutex_lock(&c->s->lock);
	for (struct nbd_export *e = c->s->exports; good && e; e = e->next) {
		size_t name = strlen(e->name), more = e->description ? strlen(e->description) : 0;
		uint8_t *p = realloc(all, len + 24 + name + more);

		good = p;
		if (!p)
			break;
		all = p;
		p += len;
		put64(p, NBD_REPLY_MAGIC);
		put32(p + 8, OPT_LIST);
		put32(p + 12, REP_SERVER);
		put32(p + 16, 4 + name + more);
		put32(p + 20, name);
		memcpy(p + 24, e->name, name);
		if (more)
			memcpy(p + 24 + name, e->description, more);
		len += 24 + name + more;
	}
	pthread_mutex_unlock(&c->s->lock);
	good = good && client_write(c, all, len) && reply(c, OPT_LIST, REP_ACK, NULL, 0);
	free(all);
	return good;
}

static bool send_infos(struct client *c, uint32_t option, struct nbd_export *e, struct cursor *at, unsigned n)
{
	uint8_t info[14 + NBD_MAX_NAME];
	bool good;

	put16(info, INFO_EXPORT);
	put64(info + 2, export_size(c->s, e));
	put16(info + 10, flags_of(c, e));
	good = reply(c, option, REP_INFO, info, 12);
	for (; good && n; n--, at->p += 2) {
		unsigned what = get16(at->p);
		const char *text = what == INFO_NAME ? e->name : what == INFO_DESCRIPTION ? e->description : NULL;

		put16(info, what);
		if (text) {
			memcpy(info + 2, text, strlen(text));
			good = reply(c, option, REP_INFO, info, 2 + strlen(text));
		} else if (what == INFO_BLOCK_SIZE) {
			put32(info + 2, 1);
			put32(info + 6, 4096);
			put32(info + 10, NBD_MAX_DATA);
			good = reply(c, option, REP_INFO, info, 14);
		}
	}
	return good && reply(c, option, REP_ACK, NULL, 0);
}

static bool info_or_go(struct client *c, uint32_t option, struct cursor at)
{
	struct nbd_export *e;
	const uint8_t *name;
	uint32_t len;
	unsigned n;
	bool good;

	if (!take_text(&at, &name, &len) || at.left < 2 || at.left != 2u + 2 * get16(at.p))
		return refuse(c, option, ERR_INVALID, "the request has another length than it says");
	n = get16(at.p);
	at.p += 2;
	e = export_use(c->s, (const char *)name, len);
	if (!e)
		return refuse(c, option, ERR_UNKNOWN, "there is no export of that name");
	good = send_infos(c, option, e, &at, n);
	if (good && option == OPT_GO)
		return export_choose(c, e);
	export_drop(c->s, e);
	return good;
}

/* The old way in: there is no answer to a wrong name but to hang up. */
static bool export_name(struct client *c, const uint8_t *name, uint32_t len)
{
	uint8_t head[10 + 124] = { 0 };

	struct nbd_export *e = export_use(c->s, (const char *)name, len);

	if (!e || !export_choose(c, e))
		return false;
	put64(head, block_size(c->e->block));
	put16(head + 8, flags_of(c, c->e));
	return client_write(c, head, c->no_zeroes ? 10 : sizeof(head));
}

static bool is(const uint8_t *text, uint32_t len, const char *what)
{
	return len == strlen(what) && !memcmp(text, what, len);
}

static bool begins(const uint8_t *text, uint32_t len, const char *what)
{
	return len <= strlen(what) && !memcmp(text, what, len);
}

static bool give_context(struct client *c, uint32_t option, const struct nbd_export *e, unsigned i)
{
	const char *name = i ? e->bitmap[i - 1].context : "base:allocation";
	uint8_t buf[4 + NBD_MAX_NAME + 64];

	if (option == OPT_SET_META) {
		for (unsigned k = 0; k < c->ncontexts; k++)
			if (c->context[k] == i)
				return true;
		if (c->ncontexts == NBD_MAX_CONTEXTS)
			return true;
		c->context[c->ncontexts++] = i;
	}
	put32(buf, option == OPT_SET_META ? i : 0);
	memcpy(buf + 4, name, strlen(name));
	return reply(c, option, REP_META, buf, 4 + strlen(name));
}

/* A query names a context; where they are listed, the beginning of one, up to a colon, means all of these. */
static bool query_context(struct client *c, uint32_t option, const struct nbd_export *e, const uint8_t *text,
			  uint32_t len)
{
	bool list = option == OPT_LIST_META && len && text[len - 1] == ':', good = true;

	for (unsigned i = 0; good && i <= e->nbitmaps; i++) {
		const char *name = i ? e->bitmap[i - 1].context : "base:allocation";

		if (list ? begins(text, len, name) : is(text, len, name))
			good = give_context(c, option, e, i);
	}
	return good;
}

static bool meta(struct client *c, uint32_t option, struct cursor at)
{
	struct nbd_export *e;
	const uint8_t *text;
	uint32_t len, n;
	bool good = true, right = take_text(&at, &text, &len) && take32(&at, &n);

	if (option == OPT_SET_META) {
		c->ncontexts = 0;
		c->meta_of = NULL;
		if (!c->structured)
			return refuse(c, option, ERR_INVALID, "structured replies were not negotiated");
	}
	if (!right)
		return refuse(c, option, ERR_INVALID, "the request has another length than it says");
	e = export_use(c->s, (const char *)text, len);
	if (!e)
		return refuse(c, option, ERR_UNKNOWN, "there is no export of that name");
	for (unsigned i = 0; option == OPT_LIST_META && !n && good && i <= e->nbitmaps; i++)
		good = give_context(c, option, e, i);
	while (n && good && right) {
		right = take_text(&at, &text, &len);
		if (right)
			good = query_context(c, option, e, text, len);
		n--;
	}
	right &= !at.left;
	if (right && option == OPT_SET_META)
		c->meta_of = e; /* compared, never followed */
	else
		c->ncontexts = option == OPT_SET_META ? 0 : c->ncontexts;
	export_drop(c->s, e);
	if (good && !right)
		return refuse(c, option, ERR_INVALID, "the request has another length than it says");
	return good && reply(c, option, REP_ACK, NULL, 0);
}

static bool start_tls(struct client *c)
{
	if (!c->s->tls)
		return refuse(c, OPT_STARTTLS, ERR_POLICY, "this server has no TLS");
	if (c->session)
		return refuse(c, OPT_STARTTLS, ERR_INVALID, "TLS was started before");
	if (!reply(c, OPT_STARTTLS, REP_ACK, NULL, 0) || c->data)
		return false;
	c->session = tls_accept(c->s->tls, c->fd);
	/* What was said in the clear does not count. */
	c->structured = false;
	c->ncontexts = 0;
	c->meta_of = NULL;
	return c->session;
}

static bool handle(struct client *c, uint32_t option, const uint8_t *data, uint32_t len)
{
	struct cursor at = { data, len };

	if (c->s->tls && !c->session && option != OPT_STARTTLS && option != OPT_ABORT)
		return option != OPT_EXPORT_NAME && refuse(c, option, ERR_TLS_REQD, "start TLS first");
	switch (option) {
	case OPT_EXPORT_NAME:
		return export_name(c, data, len);
	case OPT_ABORT:
		reply(c, option, REP_ACK, NULL, 0);
		return false;
	case OPT_LIST:
		return len ? refuse(c, option, ERR_INVALID, "this option has no data") : list_exports(c);
	case OPT_STARTTLS:
		return len ? refuse(c, option, ERR_INVALID, "this option has no data") : start_tls(c);
	case OPT_INFO:
	case OPT_GO:
		return info_or_go(c, option, at);
	case OPT_STRUCTURED:
		if (len)
			return refuse(c, option, ERR_INVALID, "this option has no data");
		c->structured = true;
		return reply(c, option, REP_ACK, NULL, 0);
	case OPT_LIST_META:
	case OPT_SET_META:
		return meta(c, option, at);
	default:
		return refuse(c, option, ERR_UNSUP, "this option is not known here");
	}
}

bool client_negotiate(struct client *c)
{
	uint8_t head[18];
	uint32_t flags;

	put64(head, NBD_MAGIC);
	put64(head + 8, NBD_OPTION_MAGIC);
	put16(head + 16, 1 | 2); /* fixed newstyle, no zeroes */
	if (!client_write(c, head, 18) || !client_read(c, head, 4))
		return false;
	flags = get32(head);
	if (flags & ~3u)
		return false;
	c->fixed = flags & 1;
	c->no_zeroes = flags & 2;
	for (unsigned i = 0; !c->e && i < MAX_OPTIONS; i++) {
		uint32_t option, len;
		uint8_t *data;

		if (!client_read(c, head, 16) || get64(head) != NBD_OPTION_MAGIC)
			return false;
		option = get32(head + 8);
		len = get32(head + 12);
		if (!c->fixed && option != OPT_EXPORT_NAME)
			return false;
		if (len > NBD_MAX_OPTION) {
			if (option == OPT_EXPORT_NAME || len > NBD_MAX_DATA || !client_skip(c, len) ||
			    !refuse(c, option, ERR_TOO_BIG, "the option is too long"))
				return false;
			continue;
		}
		data = client_room(c, len + 1);
		if (!data || !client_read(c, data, len) || !handle(c, option, data, len))
			return false;
	}
	return c->e;
}
