/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events: kept as they come, handed out in keel_dispatch(). What an event says
 * is read off the table of its record's fields, so every kind is known at once.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"

#define PARAMS_MAX 64

struct pending_event {
	struct pending_event *next;
	const struct rpc_program *program;
	int number; /* of the daemon's registration */
	struct remote_domain dom; /* its name is in the arena; NULL: none */
	struct arena arena;
	unsigned nparams;
	struct keel_param params[PARAMS_MAX];
};

static void event_free(struct pending_event *e)
{
	arena_free(&e->arena);
	free(e);
}

/* ---- From the wire --------------------------------------------------------- */

static bool add_text(struct pending_event *e, const char *name, const char *s)
{
	struct keel_param *p = &e->params[e->nparams];

	if (!s)
		return true; /* absent */
	if (e->nparams == PARAMS_MAX)
		return true;
	s = arena_strdup(&e->arena, s);
	*p = (struct keel_param){ .name = name, .type = KEEL_PARAM_STRING, .value.s = s };
	e->nparams++;
	return s;
}

static bool add_scalar(struct pending_event *e, const struct wire_field *f, const uint8_t *at)
{
	struct keel_param *p = &e->params[e->nparams];

	if (e->nparams == PARAMS_MAX)
		return true;
	p->name = f->name;
	switch (f->kind) {
	case WIRE_INT:
		p->type = KEEL_PARAM_INT;
		memcpy(&p->value.i, at, sizeof(p->value.i));
		break;
	case WIRE_UINT:
		p->type = KEEL_PARAM_UINT;
		memcpy(&p->value.u, at, sizeof(p->value.u));
		break;
	case WIRE_HYPER:
		p->type = KEEL_PARAM_INT64;
		memcpy(&p->value.l, at, sizeof(p->value.l));
		break;
	case WIRE_UHYPER:
		p->type = KEEL_PARAM_UINT64;
		memcpy(&p->value.ul, at, sizeof(p->value.ul));
		break;
	default:
		return true;
	}
	e->nparams++;
	return true;
}

static bool add_params(struct pending_event *e, const struct wire_field *f, const uint8_t *base)
{
	const struct remote_typed_param *list;
	struct keel_param *copy;
	uint32_t n;

	memcpy(&n, base + f->len_offset, sizeof(n));
	memcpy(&list, base + f->offset, sizeof(list));
	copy = params_copy(&e->arena, list, n);
	for (uint32_t i = 0; copy && i < n && e->nparams < PARAMS_MAX; i++)
		e->params[e->nparams++] = copy[i];
	return copy;
}

static bool flatten(struct pending_event *e, const struct wire_type *t, const uint8_t *base)
{
	bool ok = true;

	for (unsigned n = 0; ok && n < t->nfields; n++) {
		const struct wire_field *f = &t->fields[n];
		const uint8_t *at = base + f->offset;
		const char *s;

		if (f->kind == WIRE_INT && f->shape == WIRE_ONE && !strcmp(f->name, "callbackID")) {
			memcpy(&e->number, at, sizeof(e->number));
		} else if (f->kind == WIRE_STRUCT && f->shape == WIRE_ARRAY && f->type == &wire_remote_typed_param) {
			ok = add_params(e, f, base);
		} else if (f->kind == WIRE_STRUCT && f->shape == WIRE_ONE && f->type == &wire_remote_domain) {
			memcpy(&e->dom, at, sizeof(e->dom));
			e->dom.name = arena_strdup(&e->arena, e->dom.name);
			ok = e->dom.name;
		} else if (f->kind == WIRE_STRUCT && f->shape == WIRE_ONE && !f->type->is_union) {
			ok = flatten(e, f->type, at);
		} else if (f->kind == WIRE_STRING && (f->shape == WIRE_ONE || f->shape == WIRE_OPTIONAL)) {
			memcpy(&s, at, sizeof(s));
			ok = add_text(e, f->name, s);
		} else if (f->shape == WIRE_ONE) {
			ok = add_scalar(e, f, at);
		}
	}
	return ok;
}

void events_queue(struct keel_conn *c, const struct rpc_proc *proc, const void *msg)
{
	struct pending_event *e = proc->args ? calloc(1, sizeof(*e)) : NULL;

	if (!e)
		return;
	e->program = proc->program;
	e->number = -1;
	if (!flatten(e, proc->args, msg) || !e->dom.name) {
		event_free(e);
		return;
	}
	*c->events_end = e;
	c->events_end = &e->next;
}

/* ---- To callbacks ---------------------------------------------------------- */

static const struct subscription *subscription_of(const struct keel_conn *c, const struct pending_event *e)
{
	const struct subscription *s = c->subscriptions;

	while (s && (s->program != e->program || s->number != e->number))
		s = s->next;
	return s;
}

bool events_ready(const struct keel_conn *c)
{
	return c->events && (!c->registering || subscription_of(c, c->events));
}

void events_run(struct keel_conn *c)
{
	while (events_ready(c)) {
		struct pending_event *e = c->events;
		const struct subscription *s = subscription_of(c, e);
		struct keel_event event = { .nparams = e->nparams, .params = e->params };
		keel_event_fn fn = s ? s->fn : NULL;
		void *opaque = s ? s->opaque : NULL;

		event.kind = s ? s->kind : KEEL_EVENT_LIFECYCLE;
		c->events = e->next;
		if (!c->events)
			c->events_end = &c->events;
		pthread_mutex_unlock(&c->lock);
		event.dom = fn ? domain_new(c, &e->dom) : NULL;
		if (event.dom)
			fn(opaque, &event);
		keel_domain_free(event.dom);
		event_free(e);
		pthread_mutex_lock(&c->lock);
	}
}

void events_free(struct keel_conn *c)
{
	while (c->events) {
		struct pending_event *e = c->events;

		c->events = e->next;
		event_free(e);
	}
	while (c->subscriptions) {
		struct subscription *s = c->subscriptions;

		c->subscriptions = s->next;
		free(s);
	}
}

/* ---- Registration ---------------------------------------------------------- */

static int ask_for(struct keel_conn *c, struct keel_domain *dom, struct subscription *s, struct keel_error *error)
{
	struct remote_domain one = dom ? domain_wire(dom) : (struct remote_domain){ 0 };
	struct remote_connect_domain_event_callback_register_any_args args = { .eventID = (int)s->kind, .dom = dom ? &one : NULL };
	struct remote_connect_domain_event_callback_register_any_ret ret = { 0 };
	struct qemu_connect_domain_monitor_event_register_args qargs = { .dom = dom ? &one : NULL };
	struct qemu_connect_domain_monitor_event_register_ret qret = { 0 };
	bool qmp = s->kind == KEEL_EVENT_QMP;
	struct arena arena = { 0 };
	int status;

	s->program = qmp ? &qemu_program : &remote_program;
	if (qmp)
		status = conn_call(c, &qemu_program, QEMU_PROC_CONNECT_DOMAIN_MONITOR_EVENT_REGISTER, &qargs, &qret, &arena, error);
	else
		status = conn_call(c, &remote_program, REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, &args, &ret, &arena, error);
	s->number = qmp ? qret.callbackID : ret.callbackID;
	arena_free(&arena);
	return status;
}

int keel_event_subscribe(struct keel_conn *c, struct keel_domain *dom, enum keel_event_kind kind, keel_event_fn fn,
			 void *opaque, struct keel_error *error)
{
	struct subscription *s = malloc(sizeof(*s));
	int status, id = -1;

	if (!s)
		return error_no_memory(error);
	*s = (struct subscription){ .kind = kind, .fn = fn, .opaque = opaque };
	pthread_mutex_lock(&c->lock);
	c->registering++;
	pthread_mutex_unlock(&c->lock);
	status = ask_for(c, dom, s, error);
	pthread_mutex_lock(&c->lock);
	c->registering--;
	if (!status) {
		id = s->id = ++c->last_id;
		s->next = c->subscriptions;
		c->subscriptions = s;
		s = NULL;
	}
	if (events_ready(c))
		conn_notice(c);
	pthread_mutex_unlock(&c->lock);
	free(s);
	return id;
}

int keel_event_unsubscribe(struct keel_conn *c, int id, struct keel_error *error)
{
	struct remote_connect_domain_event_callback_deregister_any_args args;
	struct subscription *s, **p;
	struct arena arena = { 0 };
	int ret;

	pthread_mutex_lock(&c->lock);
	for (p = &c->subscriptions; *p && (*p)->id != id; p = &(*p)->next)
		;
	s = *p;
	if (s)
		*p = s->next;
	pthread_mutex_unlock(&c->lock);
	if (!s)
		return error_set(error, VIR_FROM_RPC, VIR_ERR_INVALID_ARG, "there is no event subscription %d", id);
	args.callbackID = s->number; /* the two programs' calls have one layout */
	ret = conn_call(c, s->program,
			s->program == &qemu_program ? (uint32_t)QEMU_PROC_CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER :
						      (uint32_t)REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
			&args, NULL, &arena, error);
	arena_free(&arena);
	free(s);
	return ret;
}
