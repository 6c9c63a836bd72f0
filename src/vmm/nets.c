/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks by name, as QMP's netdev_add makes them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/net_limit.h"
#include "vmm/passt.h"
#include "vmm/tap.h"
#include "vmm/vmm.h"

struct vmm_net *vmm_net_find(struct vmm *v, const char *id)
{
	for (struct vmm_net *n = v->nets; n; n = n->next)
		if (!strcmp(n->id, id))
			return n;
	return NULL;
}

struct vmm_net *vmm_net_new(struct vmm *v, const char *id, const char *type, struct netdev *nd, struct err *err)
{
	struct vmm_net *n = calloc(1, sizeof(*n)), **p = &v->nets;

	if (n)
		n->id = strdup(id);
	if (!n || !n->id) {
		free(n);
		netdev_free(nd);
		err_set(err, ENOMEM, "no memory for a network");
		return NULL;
	}
	n->type = type;
	n->netdev = nd;
	while (*p)
		p = &(*p)->next;
	*p = n;
	return n;
}

static void net_free(struct vmm *v, struct vmm_net *n)
{
	struct vmm_net **p = &v->nets;

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	netdev_free(n->netdev);
	free(n->id);
	free(n);
}

void vmm_nets_free(struct vmm *v)
{
	while (v->nets)
		net_free(v, v->nets);
}

int vmm_net_del(struct vmm *v, const char *id, struct err *err)
{
	struct vmm_net *n = vmm_net_find(v, id);

	if (!n)
		return err_set(err, ENXIO, "Device '%.80s' not found", id);
	if (n->user)
		return err_set(err, EBUSY, "Network '%s' is in use by device '%s'", id, n->user->dev->id);
	net_free(v, n);
	return 0;
}

/* ---- netdev_add -------------------------------------------------------------- */

/* Which arguments a type takes beside "type" and "id". */
static int known_only(json_t *args, const char *const *known, struct err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(args, key, value) {
		const char *const *k = known;

		while (*k && strcmp(*k, key))
			k++;
		if (!*k && strcmp(key, "type") && strcmp(key, "id"))
			return err_set(err, EINVAL, "Parameter '%.80s' is unexpected", key);
	}
	return 0;
}

static struct netdev *add_user(struct vmm *v, json_t *args, struct err *err)
{
	static const char *const known[] = { "hostfwd", NULL };
	json_t *list = json_object_get(args, "hostfwd"), *one;
	struct passt_options o = { 0 };
	size_t i;

	if (known_only(args, known, err))
		return NULL;
	json_array_foreach(list, i, one) {
		/* QMP's form is a list of { "str": ... }. */
		const char *text = json_string_value(json_is_object(one) ? json_object_get(one, "str") : one);

		if (!text || o.forwards == PASST_FORWARDS) {
			err_set(err, EINVAL, "'hostfwd' must be a list of at most %d texts", PASST_FORWARDS);
			return NULL;
		}
		o.forward[o.forwards++] = text;
	}
	return passt_open(v->loop, &o, err);
}

/* passt, or anything else that speaks its protocol, started by somebody else. */
static struct netdev *add_stream(struct vmm *v, json_t *args, struct err *err)
{
	static const char *const known[] = { "addr", "server", NULL };
	json_t *addr = json_object_get(args, "addr");
	const char *type = json_string_value(json_object_get(addr, "type"));
	const char *path = json_string_value(json_object_get(addr, "path"));
	const char *str = json_string_value(json_object_get(addr, "str"));

	if (known_only(args, known, err))
		return NULL;
	if (json_is_true(json_object_get(args, "server"))) {
		err_set(err, ENOTSUP, "Parameter 'server' must be off: Keel connects to a socket that is there");
		return NULL;
	}
	if (type && !strcmp(type, "unix") && path)
		return stream_net_open(v->loop, path, -1, err);
	if (type && !strcmp(type, "fd") && str) {
		int fd = vmm_fd_take(v, str, err);

		return fd < 0 ? NULL : stream_net_open(v->loop, NULL, fd, err);
	}
	err_set(err, EINVAL, "Parameter 'addr' must be {\"type\":\"unix\",\"path\":...} or {\"type\":\"fd\",\"str\":...}");
	return NULL;
}

/* "3" or "a:b:c": descriptors into o->fd. */
static int take_fds(struct vmm *v, const char *text, struct tap_options *o, struct err *err)
{
	char copy[512], *save = NULL;

	if (strlen(text) >= sizeof(copy))
		return err_set(err, EINVAL, "'fds' is too long");
	strcpy(copy, text);
	for (char *name = strtok_r(copy, ":", &save); name; name = strtok_r(NULL, ":", &save)) {
		if (o->fds == TAP_QUEUES)
			return err_set(err, EINVAL, "at most %d queues are possible", TAP_QUEUES);
		o->fd[o->fds] = vmm_fd_take(v, name, err);
		if (o->fd[o->fds] < 0)
			return -err->code;
		o->fds++;
	}
	return 0;
}

static int take_tap(struct vmm *v, json_t *args, struct tap_options *o, struct err *err)
{
	json_t *queues = json_object_get(args, "queues"), *fd = json_object_get(args, "fd");
	const char *fds = json_string_value(fd), *vhost;

	if (!fds)
		fds = json_string_value(json_object_get(args, "fds"));
	o->ifname = json_string_value(json_object_get(args, "ifname"));
	o->bridge = json_string_value(json_object_get(args, "br"));
	if (queues)
		o->queues = json_integer_value(queues);
	vhost = json_string_value(json_object_get(args, "vhost"));
	if (json_is_true(json_object_get(args, "vhost")) || (vhost && !strcmp(vhost, "on")))
		return err_set(err, ENOTSUP, "Parameter 'vhost' must be off: Keel moves the frames itself");
	return fds ? take_fds(v, fds, o, err) : 0;
}

static struct netdev *add_tap(struct vmm *v, json_t *args, struct err *err)
{
	static const char *const known[] = { "ifname", "br", "fd", "fds", "queues", "vhost", NULL };
	struct tap_options o = { .option = NULL };

	if (known_only(args, known, err) || take_tap(v, args, &o, err)) {
		tap_options_close(&o);
		return NULL;
	}
	return tap_open(v->loop, &o, err);
}

static struct netdev *add_bridge(struct vmm *v, json_t *args, struct err *err)
{
	static const char *const known[] = { "br", NULL };
	struct tap_options o = { .bridge = json_string_value(json_object_get(args, "br")) };

	if (known_only(args, known, err))
		return NULL;
	if (!o.bridge)
		o.bridge = "br0";
	return tap_open(v->loop, &o, err);
}

static const struct {
	const char *name;
	struct netdev *(*add)(struct vmm *v, json_t *args, struct err *err);
} types[] = {
	{ "user", add_user },
	{ "stream", add_stream },
	{ "tap", add_tap },
	{ "bridge", add_bridge },
};

/* Keel's own: "inbound" and "outbound" of any type. Taken out of args. */
static int take_limits(json_t *args, struct net_limit limits[2], bool *any, struct err *err)
{
	static const char *const keys[] = { [NET_INBOUND] = "inbound", [NET_OUTBOUND] = "outbound" };
	int ret = 0;

	for (unsigned i = 0; !ret && i < 2; i++) {
		json_t *value = json_object_get(args, keys[i]);

		limits[i] = (struct net_limit){ 0 };
		if (!value)
			continue;
		*any = true;
		ret = json_is_string(value) ? net_limit_parse(json_string_value(value), &limits[i], err)
					    : err_set(err, EINVAL, "Invalid parameter type for '%s', expected: string", keys[i]);
		if (ret)
			err_prefix(err, "%s", keys[i]);
		json_object_del(args, keys[i]);
	}
	return ret;
}

int vmm_net_add(struct vmm *v, json_t *args, struct err *err)
{
	const char *type = json_string_value(json_object_get(args, "type"));
	const char *id = json_string_value(json_object_get(args, "id"));
	struct net_limit limits[2];
	struct netdev *nd;
	bool limited = false;

	if (!type || !id || !*id || strlen(id) > 63)
		return err_set(err, EINVAL, "Parameter '%s' is missing or no name", type ? "id" : "type");
	if (vmm_net_find(v, id))
		return err_set(err, EEXIST, "Duplicate ID '%s' for netdev", id);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i].name, type))
			continue;
		if (take_limits(args, limits, &limited, err))
			return -err->code;
		nd = types[i].add(v, args, err);
		if (nd && limited)
			nd = net_limit_new(nd, v->loop, limits, err);
		return nd && vmm_net_new(v, id, types[i].name, nd, err) ? 0 : -err->code;
	}
	return err_set(err, EINVAL, "Parameter 'type' does not accept value '%.80s': user, stream, tap and bridge are supported", type);
}

/* ---- --net --------------------------------------------------------------------- */

#define NET_PAIRS (PASST_FORWARDS + 12)

/* Which of netdev_add's arguments a setting is; the card's own ones are not here. */
static int net_setting(const struct option_pair *p, json_t *args, json_t *forwards, struct err *err)
{
	static const char *const texts[] = { "ifname", "br", "fd", "fds", "inbound", "outbound", NULL };
	char *end;

	for (unsigned i = 0; texts[i]; i++)
		if (!strcmp(texts[i], p->key))
			return json_object_set_new(args, p->key, json_string(p->value));
	if (!strcmp(p->key, "hostfwd"))
		return json_array_append_new(forwards, json_string(p->value));
	if (!strcmp(p->key, "path"))
		return json_object_set_new(args, "addr", json_pack("{s:s,s:s}", "type", "unix", "path", p->value));
	if (!strcmp(p->key, "queues")) {
		long n = strtol(p->value, &end, 10);

		if (end == p->value || *end || n < 1 || n > TAP_QUEUES)
			return err_set(err, EINVAL, "--net: queues must be 1 to %d, not '%s'", TAP_QUEUES, p->value);
		return json_object_set_new(args, "queues", json_integer(n));
	}
	return err_set(err, EINVAL, "--net: there is no setting '%s'; use id, mac, mtu, hostfwd, ifname, br, fd, fds, queues, inbound, outbound or path",
		       p->key);
}

/* A card on the network `id`, with what the option says of it. */
static int add_card(struct vmm *v, const char *id, const struct option_pair *pairs, int n, struct err *err)
{
	struct option_pair card[NET_PAIRS] = { { "id", (char *)id }, { "netdev", (char *)id } };
	int cards = 2;

	for (int i = 0; i < n; i++)
		if (!strcmp(pairs[i].key, "mac") || !strcmp(pairs[i].key, "mtu"))
			card[cards++] = pairs[i];
	return vmm_plug(v, "virtio-net-pci", card, cards, err);
}

static int add_both(struct vmm *v, const char *kind, const char *name, const struct option_pair *pairs, int n, struct err *err)
{
	json_t *args = json_object(), *forwards = json_array();
	char id[64];
	int ret = 0;

	if (name)
		snprintf(id, sizeof(id), "%s", name);
	else
		snprintf(id, sizeof(id), "net%u", v->cards++);
	for (int i = 0; i < n && !ret; i++)
		if (strcmp(pairs[i].key, "kind") && strcmp(pairs[i].key, "id") && strcmp(pairs[i].key, "mac") &&
		    strcmp(pairs[i].key, "mtu"))
			ret = net_setting(&pairs[i], args, forwards, err);
	json_object_set_new(args, "type", json_string(kind));
	json_object_set_new(args, "id", json_string(id));
	if (json_array_size(forwards))
		json_object_set(args, "hostfwd", forwards);
	if (!ret)
		ret = vmm_net_add(v, args, err);
	json_decref(forwards);
	json_decref(args);
	if (ret)
		return ret;
	vmm_net_find(v, id)->own = true;
	return add_card(v, id, pairs, n, err);
}

int vmm_net_option(struct vmm *v, const char *text, struct err *err)
{
	struct option_pair pairs[NET_PAIRS - 2];
	const char *kind = NULL, *id = NULL;
	int n = options_split("--net", text, "kind", pairs, NET_PAIRS - 2, err), ret = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		if (!strcmp(pairs[i].key, "kind"))
			kind = pairs[i].value;
		else if (!strcmp(pairs[i].key, "id"))
			id = pairs[i].value;
	}
	if (!kind)
		ret = err_set(err, EINVAL, "no kind of network is named in '%s': use none, user, tap, bridge or stream", text);
	else if (strcmp(kind, "none"))
		ret = add_both(v, kind, id, pairs, n, err);
	options_split_free(pairs, n);
	return ret && strncmp(err->msg, "--net", 5) ? err_prefix(err, "--net") : ret;
}
