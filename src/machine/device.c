/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/device.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine.h"

static void *prop_at(struct device *d, const struct property *p)
{
	return (uint8_t *)d + p->offset;
}

static void destroy(struct device *d)
{
	for (const struct property *p = d->cls->props; p && p->name; p++)
		if (p->type == PROP_STRING)
			free(*(char **)prop_at(d, p));
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static int choose_id(struct machine *m, const struct device_class *cls, const char *id, char out[64], struct err *err)
{
	if (id) {
		if (!*id || strlen(id) >= 64)
			return err_set(err, EINVAL, "device id '%.80s' must have 1 to 63 characters", id);
		if (machine_find(m, id))
			return err_set(err, EEXIST, "there is a device '%s' already", id);
		strcpy(out, id);
		return 0;
	}
	snprintf(out, 64, "%s", cls->name);
	for (unsigned n = 1; machine_find(m, out); n++)
		snprintf(out, 64, "%.50s.%u", cls->name, n);
	return 0;
}

struct device *device_new(struct machine *m, const struct device_class *cls, const char *id, struct err *err)
{
	struct device *d;
	char name[64];

	if (choose_id(m, cls, id, name, err))
		return NULL;
	d = aligned_alloc(64, (cls->size + 63) & ~(size_t)63);
	if (!d) {
		err_set(err, ENOMEM, "no memory for device %s", name);
		return NULL;
	}
	memset(d, 0, cls->size);
	d->cls = cls;
	d->machine = m;
	strcpy(d->id, name);
	pthread_mutex_init(&d->lock, NULL);
	for (const struct property *p = cls->props; p && p->name; p++) {
		if (p->def && device_set(d, p->name, p->def, err)) {
			destroy(d);
			return NULL;
		}
	}
	return d;
}

static const struct property *find_prop(struct device *d, const char *name)
{
	for (const struct property *p = d->cls->props; p && p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

static int no_such_prop(struct device *d, const char *name, struct err *err)
{
	char list[256] = "";

	for (const struct property *p = d->cls->props; p && p->name; p++) {
		size_t n = strlen(list);

		if (p->type != PROP_PTR)
			snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", p->name);
	}
	return err_set(err, ENOENT, "%s has no property '%s'; it has: %s", d->cls->name, name, *list ? list : "none");
}

/* A number with an optional K, M, G or T suffix (powers of 1024). */
static int parse_number(const char *text, uint64_t *value)
{
	static const char suffixes[] = "KMGT";
	unsigned shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 0);
	if (errno)
		return -ERANGE;
	if (*end) {
		const char *s = strchr(suffixes, *end & ~0x20);

		if (!s || end[1])
			return -EINVAL;
		shift = 10 * (s - suffixes + 1);
	}
	if (shift && *value > UINT64_MAX >> shift)
		return -ERANGE;
	*value <<= shift;
	return 0;
}

static int set_number(struct device *d, const struct property *p, const char *value, struct err *err)
{
	uint64_t n, max = p->min || p->max ? p->max : p->type == PROP_U32 ? UINT32_MAX : UINT64_MAX;
	int ret = parse_number(value, &n);

	if (ret == -EINVAL)
		return err_set(err, EINVAL, "%s: property %s wants a number, not '%s'", d->cls->name, p->name, value);
	if (ret || n < p->min || n > max)
		return err_set(err, ERANGE, "%s: property %s must be %llu to %llu, not %s", d->cls->name, p->name,
			       (unsigned long long)p->min, (unsigned long long)max, value);
	if (p->type == PROP_U32)
		*(uint32_t *)prop_at(d, p) = n;
	else
		*(uint64_t *)prop_at(d, p) = n;
	return 0;
}

static int set_bool(struct device *d, const struct property *p, const char *value, struct err *err)
{
	if (!strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true"))
		*(bool *)prop_at(d, p) = true;
	else if (!strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "false"))
		*(bool *)prop_at(d, p) = false;
	else
		return err_set(err, EINVAL, "%s: property %s must be on or off, not '%s'", d->cls->name, p->name, value);
	return 0;
}

int device_set(struct device *d, const char *name, const char *value, struct err *err)
{
	const struct property *p = find_prop(d, name);
	char *copy;

	assert(!d->realized);
	if (!p || p->type == PROP_PTR)
		return no_such_prop(d, name, err);
	switch (p->type) {
	case PROP_U32:
	case PROP_U64:
		return set_number(d, p, value, err);
	case PROP_BOOL:
		return set_bool(d, p, value, err);
	default:
		copy = strdup(value);
		if (!copy)
			return err_set(err, ENOMEM, "no memory for property %s", name);
		free(*(char **)prop_at(d, p));
		*(char **)prop_at(d, p) = copy;
		return 0;
	}
}

void device_set_ptr(struct device *d, const char *name, void *ptr)
{
	const struct property *p = find_prop(d, name);

	assert(p && p->type == PROP_PTR && !d->realized);
	*(void **)prop_at(d, p) = ptr;
}

int device_realize(struct device *d, struct err *err)
{
	int ret = d->cls->realize ? d->cls->realize(d, err) : 0;

	if (ret) {
		err_prefix(err, "device %s", d->id);
		destroy(d);
		return ret;
	}
	d->realized = true;
	*d->machine->devices_end = d;
	d->machine->devices_end = &d->next;
	device_reset(d);
	return 0;
}

void device_free(struct device *d)
{
	if (!d)
		return;
	if (d->realized) {
		struct device **p = &d->machine->devices;

		if (d->cls->unrealize)
			d->cls->unrealize(d);
		while (*p != d)
			p = &(*p)->next;
		*p = d->next;
		if (!*p)
			d->machine->devices_end = p;
	}
	destroy(d);
}

void device_reset(struct device *d)
{
	if (d->cls->reset)
		d->cls->reset(d);
}
