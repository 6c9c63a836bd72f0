/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of guests: found by name and by UUID without a search through all. */
#include "daemon/guest.h"
#include "daemon/guest_agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a */
static unsigned hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t n = 0; n < len; n++)
		h = (h ^ p[n]) * 0x100000001b3u;
	return (unsigned)(h ^ h >> 32);
}

static struct guest **name_chain(const struct guest_table *t, const char *name)
{
	return &t->by_name[hash(name, strlen(name)) & (t->buckets - 1)];
}

static struct guest **uuid_chain(const struct guest_table *t, const uint8_t *uuid)
{
	return &t->by_uuid[hash(uuid, 16) & (t->buckets - 1)];
}

struct guest *guest_new(struct daemon *d, const char *name, const uint8_t uuid[16])
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->daemon = d;
	g->refs = 1;
	g->id = -1;
	g->state = STATE_SHUTOFF;
	g->agent_timeout = AGENT_BLOCK;
	g->restore_fd = -1;
	g->waiting_end = &g->waiting;
	memcpy(g->uuid, uuid, sizeof(g->uuid));
	g->name = strdup(name);
	if (!g->name) {
		free(g);
		return NULL;
	}
	return g;
}

struct guest *guest_get(struct guest *g)
{
	g->refs++;
	return g;
}

void guest_put(struct guest *g)
{
	if (!g || --g->refs)
		return;
	guest_agent_free(g);
	guest_run_free(g->run);
	guest_set_config(g, NULL);
	domain_free(g->live);
	free(g->name);
	free(g);
}

static void link_in(struct guest_table *t, struct guest *g)
{
	struct guest **name = name_chain(t, g->name), **uuid = uuid_chain(t, g->uuid);

	g->next_name = *name;
	*name = g;
	g->next_uuid = *uuid;
	*uuid = g;
}

static int grow(struct guest_table *t)
{
	struct guest_table bigger = *t;

	bigger.buckets = t->buckets ? 2 * t->buckets : 64;
	bigger.by_name = calloc(bigger.buckets, sizeof(*bigger.by_name));
	bigger.by_uuid = calloc(bigger.buckets, sizeof(*bigger.by_uuid));
	if (!bigger.by_name || !bigger.by_uuid) {
		free(bigger.by_name);
		free(bigger.by_uuid);
		return -ENOMEM;
	}
	for (unsigned n = 0; n < t->buckets; n++) {
		for (struct guest *g = t->by_name[n], *next; g; g = next) {
			next = g->next_name;
			link_in(&bigger, g);
		}
	}
	free(t->by_name);
	free(t->by_uuid);
	*t = bigger;
	return 0;
}

int guest_add(struct guest *g)
{
	struct guest_table *t = &g->daemon->guests;

	if (t->count >= t->buckets && grow(t) && !t->buckets)
		return -ENOMEM;
	link_in(t, guest_get(g));
	g->listed = true;
	t->count++;
	return 0;
}

static void unlink_name(struct guest_table *t, struct guest *g)
{
	struct guest **p = name_chain(t, g->name);

	while (*p != g)
		p = &(*p)->next_name;
	*p = g->next_name;
}

void guest_remove(struct guest *g)
{
	struct guest_table *t = &g->daemon->guests;
	struct guest **p = uuid_chain(t, g->uuid);

	if (!g->listed)
		return;
	unlink_name(t, g);
	while (*p != g)
		p = &(*p)->next_uuid;
	*p = g->next_uuid;
	t->count--;
	g->listed = false;
	guest_forget_recent(g);
	guest_put(g);
}

int guest_set_name(struct guest *g, const char *name)
{
	struct guest_table *t = &g->daemon->guests;
	struct guest **chain;
	char *copy = strdup(name);

	if (!copy)
		return -ENOMEM;
	unlink_name(t, g);
	free(g->name);
	g->name = copy;
	chain = name_chain(t, copy);
	g->next_name = *chain;
	*chain = g;
	return 0;
}

struct guest *guest_by_name(const struct daemon *d, const char *name)
{
	struct guest *g = d->guests.buckets ? *name_chain(&d->guests, name) : NULL;

	while (g && strcmp(g->name, name))
		g = g->next_name;
	return g;
}

struct guest *guest_by_uuid(const struct daemon *d, const uint8_t uuid[16])
{
	struct guest *g = d->guests.buckets ? *uuid_chain(&d->guests, uuid) : NULL;

	while (g && memcmp(g->uuid, uuid, 16))
		g = g->next_uuid;
	return g;
}

struct guest *guest_by_id(const struct daemon *d, int id)
{
	for (unsigned n = 0; id >= 0 && n < d->guests.buckets; n++)
		for (struct guest *g = d->guests.by_name[n]; g; g = g->next_name)
			if (g->id == id)
				return g;
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct guest *const *)a)->name, (*(struct guest *const *)b)->name);
}

int guest_each(const struct daemon *d, int (*fn)(struct guest *g, void *opaque), void *opaque)
{
	struct guest **all = calloc(d->guests.count + 1, sizeof(*all));
	unsigned n = 0;
	int ret = 0;

	if (!all)
		return -ENOMEM;
	for (unsigned b = 0; b < d->guests.buckets; b++)
		for (struct guest *g = d->guests.by_name[b]; g; g = g->next_name)
			all[n++] = g;
	qsort(all, n, sizeof(*all), by_name);
	for (unsigned i = 0; i < n && !ret; i++)
		ret = fn(all[i], opaque);
	free(all);
	return ret;
}

void guest_table_free(struct daemon *d)
{
	struct guest_table *t = &d->guests;

	for (unsigned n = 0; n < t->buckets; n++) {
		while (t->by_name[n]) {
			struct guest *g = guest_get(t->by_name[n]);

			guest_abandon(g);
			guest_remove(g);
			guest_put(g);
		}
	}
	free(t->by_name);
	free(t->by_uuid);
	*t = (struct guest_table){ 0 };
}

void uuid_text(const uint8_t u[16], char text[37])
{
	snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
		 u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

struct remote_domain guest_wire(const struct guest *g)
{
	struct remote_domain dom = { .name = g->name, .id = g->id };

	memcpy(dom.uuid, g->uuid, sizeof(dom.uuid));
	return dom;
}
