/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MOST 1000000000000000ull /* of a limit: what doubles count exactly, with room */
#define SECOND 1e9

struct bucket {
	double level, burst; /* what has not leaked out yet, at the average rate and at that of bursts */
};

struct throttle {
	struct throttle *next;
	char *name; /* or NULL */
	unsigned users;
	pthread_mutex_t lock; /* all below */
	unsigned generation;  /* atomic for readers */
	struct throttle_limits l;
	struct bucket bucket[THROTTLE_KINDS];
	uint64_t leaked; /* when */
};

static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
static struct throttle *groups;

static const char *const names[THROTTLE_KINDS] = { "bps-total",	 "bps-read",  "bps-write",
						   "iops-total", "iops-read", "iops-write" };

int throttle_check(const struct throttle_limits *l, struct err *err)
{
	for (unsigned i = 0; i < THROTTLE_KINDS; i += 3)
		if ((l->kind[i].avg && (l->kind[i + 1].avg || l->kind[i + 2].avg)) ||
		    (l->kind[i].max && (l->kind[i + 1].max || l->kind[i + 2].max)))
			return err_set(err, EINVAL, "%s cannot be limited together with %s or %s", names[i],
				       names[i + 1], names[i + 2]);
	for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
		if (l->kind[i].avg > MOST || l->kind[i].max > MOST)
			return err_set(err, EINVAL, "%s must be at most %llu", names[i], MOST);
		if (l->kind[i].max && !l->kind[i].avg)
			return err_set(err, EINVAL, "%s-max needs %s", names[i], names[i]);
		if (l->kind[i].max && l->kind[i].max < l->kind[i].avg)
			return err_set(err, EINVAL, "%s-max cannot be lower than %s", names[i], names[i]);
		if (l->kind[i].length > 1 && !l->kind[i].max)
			return err_set(err, EINVAL, "%s-max-length needs %s-max", names[i], names[i]);
		if (l->kind[i].length > MOST / (l->kind[i].max ? l->kind[i].max : 1))
			return err_set(err, EINVAL, "%s-max-length is too long", names[i]);
	}
	if (l->iops_size && !l->kind[IOPS_TOTAL].avg && !l->kind[IOPS_READ].avg && !l->kind[IOPS_WRITE].avg)
		return err_set(err, EINVAL, "iops-size needs a limit of requests");
	return 0;
}

static struct throttle *make(const char *name)
{
	struct throttle *t = calloc(1, sizeof(*t));

	if (!t || (name && !(t->name = strdup(name)))) {
		free(t);
		return NULL;
	}
	pthread_mutex_init(&t->lock, NULL);
	t->users = t->generation = 1;
	return t;
}

struct throttle *throttle_get(const char *group)
{
	struct throttle *t;

	if (!group)
		return make(NULL);
	pthread_mutex_lock(&groups_lock);
	for (t = groups; t && strcmp(t->name, group); t = t->next)
		;
	if (t) {
		t->users++;
	} else {
		t = make(group);
		if (t) {
			t->next = groups;
			groups = t;
		}
	}
	pthread_mutex_unlock(&groups_lock);
	return t;
}

void throttle_put(struct throttle *t)
{
	struct throttle **at;
	bool last;

	if (!t)
		return;
	pthread_mutex_lock(&groups_lock);
	last = !--t->users;
	for (at = &groups; last && t->name && *at != t; at = &(*at)->next)
		;
	if (last && t->name)
		*at = t->next;
	pthread_mutex_unlock(&groups_lock);
	if (!last)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t->name);
	free(t);
}

void throttle_set(struct throttle *t, const struct throttle_limits *l)
{
	pthread_mutex_lock(&t->lock);
	t->l = *l;
	memset(t->bucket, 0, sizeof(t->bucket));
	__atomic_store_n(&t->generation, t->generation + 1 ? t->generation + 1 : 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&t->lock);
}

void throttle_limits(struct throttle *t, struct throttle_limits *l)
{
	pthread_mutex_lock(&t->lock);
	*l = t->l;
	pthread_mutex_unlock(&t->lock);
}

const char *throttle_name(const struct throttle *t)
{
	return t->name;
}

unsigned throttle_generation(const struct throttle *t)
{
	return __atomic_load_n(&t->generation, __ATOMIC_ACQUIRE);
}

static double less(double level, double by)
{
	return level > by ? level - by : 0;
}

static void leak(struct throttle *t, uint64_t now)
{
	double seconds = now > t->leaked ? (now - t->leaked) / SECOND : 0;

	for (unsigned i = 0; i < THROTTLE_KINDS; i++) {
		t->bucket[i].level = less(t->bucket[i].level, t->l.kind[i].avg * seconds);
		t->bucket[i].burst = less(t->bucket[i].burst, t->l.kind[i].max * seconds);
	}
	t->leaked = now > t->leaked ? now : t->leaked;
}

/* Seconds until the bucket is no longer too full. Without bursts it holds a tenth of a second's worth. */
static double wait_for(const struct throttle *t, unsigned i)
{
	uint64_t avg = t->l.kind[i].avg, max = t->l.kind[i].max, length = t->l.kind[i].length ? t->l.kind[i].length : 1;
	double wait, burst = 0;

	if (!avg)
		return 0;
	wait = less(t->bucket[i].level, max ? (double)max * length : avg / 10.0) / avg;
	if (max && length > 1)
		burst = less(t->bucket[i].burst, max / 10.0) / max;
	return wait > burst ? wait : burst;
}

uint64_t throttle_reserve(struct throttle *t, bool write, uint64_t bytes, uint64_t now)
{
	static const uint8_t kinds[2][4] = { { BPS_TOTAL, BPS_READ, IOPS_TOTAL, IOPS_READ },
					     { BPS_TOTAL, BPS_WRITE, IOPS_TOTAL, IOPS_WRITE } };
	double wait = 0, requests = 1;

	pthread_mutex_lock(&t->lock);
	leak(t, now);
	if (t->l.iops_size && bytes > t->l.iops_size)
		requests = (double)bytes / t->l.iops_size;
	for (unsigned i = 0; i < 4; i++) {
		struct bucket *b = &t->bucket[kinds[write][i]];
		double w = wait_for(t, kinds[write][i]), units = kinds[write][i] < IOPS_TOTAL ? bytes : requests;

		wait = w > wait ? w : wait;
		b->level += t->l.kind[kinds[write][i]].avg ? units : 0;
		b->burst += t->l.kind[kinds[write][i]].max ? units : 0;
	}
	pthread_mutex_unlock(&t->lock);
	return now + (uint64_t)(wait * SECOND);
}
