/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A definition that nobody works with is kept as its text: half as long as the
 * structs and ready for who asks for the XML, which is most of what is asked of
 * a guest that is off. The few guests that were worked with last keep theirs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest.h"
#include "util/log.h"

#define UNPACKED_MAX 64

void guest_forget_recent(struct guest *g)
{
	struct guest_table *t = &g->daemon->guests;

	if (!g->recent)
		return;
	*(g->newer ? &g->newer->older : &t->newest) = g->older;
	*(g->older ? &g->older->newer : &t->oldest) = g->newer;
	g->newer = g->older = NULL;
	g->recent = false;
	t->unpacked--;
}

static void link_newest(struct guest *g)
{
	struct guest_table *t = &g->daemon->guests;

	g->older = t->newest;
	*(t->newest ? &t->newest->newer : &t->oldest) = g;
	t->newest = g;
	g->recent = true;
	t->unpacked++;
}

void guest_pack(struct guest *g)
{
	char *text;

	/* Somebody else's reference: its call goes on later. */
	if (!g->config || guest_is_active(g) || g->busy || g->refs > 1)
		return;
	text = domain_format(g->config, DOMAIN_FORMAT_SECURE);
	if (!text)
		return;
	g->packed = realloc(text, strlen(text) + 1); /* without the room that it grew into */
	if (!g->packed)
		g->packed = text;
	domain_free(g->config);
	g->config = NULL;
	guest_forget_recent(g);
}

static void pack_oldest(struct guest_table *t)
{
	struct guest *g = t->oldest;

	guest_pack(g);
	if (!g->config)
		return;
	guest_forget_recent(g);
	if (!guest_is_active(g))
		link_newest(g); /* later, then */
}

int guest_unpack(struct guest *g)
{
	struct err err = ERR_INIT;

	if (g->packed) {
		g->config = domain_parse(g->packed, DOMAIN_PARSE_SKIP_CHECK, &g->daemon->caps, &err);
		if (!g->config) {
			log_line(LOG_ERROR, "the definition of '%s' can't be read: %s", g->name, err_msg(&err));
			return -ENOMEM;
		}
		free(g->packed);
		g->packed = NULL;
	}
	guest_forget_recent(g);
	if (!g->config || !g->listed || guest_is_active(g))
		return 0;
	link_newest(g);
	if (g->daemon->guests.unpacked > UNPACKED_MAX)
		pack_oldest(&g->daemon->guests);
	return 0;
}

void guest_set_config(struct guest *g, struct domain *def)
{
	guest_forget_recent(g);
	free(g->packed);
	g->packed = NULL;
	domain_free(g->config);
	g->config = def;
	guest_unpack(g);
}
