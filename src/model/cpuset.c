/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "model/cpuset.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/xbuf.h"

static const char *parse_number(const char *p, unsigned *n)
{
	char *end;
	unsigned long v;

	while (isspace((unsigned char)*p))
		p++;
	if (!isdigit((unsigned char)*p))
		return NULL;
	errno = 0;
	v = strtoul(p, &end, 10);
	if (errno || v >= CPUSET_MAX)
		return NULL;
	*n = v;
	while (isspace((unsigned char)*end))
		end++;
	return end;
}

static const char *parse_item(const char *p, struct cpuset *set)
{
	unsigned from, to;
	bool out;

	while (isspace((unsigned char)*p))
		p++;
	out = *p == '^';
	p = parse_number(p + out, &from);
	to = from;
	if (p && *p == '-' && !out)
		p = parse_number(p + 1, &to);
	if (!p || to < from)
		return NULL;
	for (; from <= to; from++)
		if (out)
			set->bits[from / 64] &= ~(1ull << from % 64);
		else
			set->bits[from / 64] |= 1ull << from % 64;
	return p;
}

static bool is_empty(const struct cpuset *set)
{
	for (unsigned i = 0; i < CPUSET_MAX / 64; i++)
		if (set->bits[i])
			return false;
	return true;
}

int cpuset_parse(const char *text, struct cpuset *set, struct err *err)
{
	const char *p = text;

	memset(set, 0, sizeof(*set));
	do {
		p = parse_item(p, set);
		if (!p || (*p && *p != ','))
			return err_set(err, ENOENT, "Failed to parse bitmap '%.100s'", text);
	} while (*p++);
	if (is_empty(set))
		return err_set(err, EINVAL, "Invalid value of 'cpuset': %.100s", text);
	return 0;
}

char *cpuset_format(const struct cpuset *set)
{
	struct xbuf b = { 0 };

	for (unsigned from = 0; from < CPUSET_MAX; from++) {
		unsigned to = from;

		if (!cpuset_has(set, from))
			continue;
		while (cpuset_has(set, to + 1))
			to++;
		xbuf_printf(&b, b.len ? ",%u" : "%u", from);
		if (to > from)
			xbuf_printf(&b, "-%u", to);
		from = to;
	}
	return xbuf_take(&b);
}

int cpuset_normalize(char **text, struct err *err)
{
	struct cpuset set;
	char *normal;
	int ret;

	if (!*text)
		return 0;
	ret = cpuset_parse(*text, &set, err);
	if (ret)
		return ret;
	normal = cpuset_format(&set);
	if (!normal)
		return err_set(err, ENOMEM, "a set of CPUs");
	free(*text);
	*text = normal;
	return 0;
}
