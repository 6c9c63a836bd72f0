/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"

struct keel_domain {
	struct keel_conn *conn;
	int id;
	unsigned char uuid[16];
	char name[];
};

struct keel_domain *domain_new(struct keel_conn *c, const struct remote_domain *dom)
{
	size_t len = strlen(dom->name) + 1;
	struct keel_domain *d = malloc(sizeof(*d) + len);

	if (!d)
		return NULL;
	d->conn = conn_get(c);
	d->id = dom->id;
	memcpy(d->uuid, dom->uuid, sizeof(d->uuid));
	memcpy(d->name, dom->name, len);
	return d;
}

void keel_domain_free(struct keel_domain *dom)
{
	if (!dom)
		return;
	conn_put(dom->conn);
	free(dom);
}

struct remote_domain domain_wire(const struct keel_domain *dom)
{
	struct remote_domain w = { .name = (char *)dom->name, .id = dom->id };

	memcpy(w.uuid, dom->uuid, sizeof(w.uuid));
	return w;
}

struct keel_conn *domain_conn(const struct keel_domain *dom)
{
	return dom->conn;
}

const char *keel_domain_name(const struct keel_domain *dom)
{
	return dom->name;
}

const unsigned char *keel_domain_uuid(const struct keel_domain *dom)
{
	return dom->uuid;
}

int keel_domain_id(const struct keel_domain *dom)
{
	return dom->id;
}

void keel_domain_uuid_text(const struct keel_domain *dom, char text[37])
{
	for (unsigned n = 0; n < 16; n++)
		text += sprintf(text, n == 4 || n == 6 || n == 8 || n == 10 ? "-%02x" : "%02x", dom->uuid[n]);
}

/* ---- Finding and making ---------------------------------------------------- */

/* A call whose result is a domain and nothing else. */
static struct keel_domain *get_one(struct keel_conn *c, uint32_t number, const void *args, struct keel_error *error)
{
	struct remote_domain_lookup_by_name_ret ret = { 0 };
	struct keel_domain *dom = NULL;
	struct arena arena = { 0 };

	if (!conn_call(c, &remote_program, number, args, &ret, &arena, error)) {
		dom = domain_new(c, &ret.dom);
		if (!dom)
			error_no_memory(error);
	}
	arena_free(&arena);
	return dom;
}

struct keel_domain *keel_domain_by_name(struct keel_conn *c, const char *name, struct keel_error *error)
{
	struct remote_domain_lookup_by_name_args args = { .name = (char *)name };

	return get_one(c, REMOTE_PROC_DOMAIN_LOOKUP_BY_NAME, &args, error);
}

struct keel_domain *keel_domain_by_id(struct keel_conn *c, int id, struct keel_error *error)
{
	struct remote_domain_lookup_by_id_args args = { .id = id };

	return get_one(c, REMOTE_PROC_DOMAIN_LOOKUP_BY_ID, &args, error);
}

struct keel_domain *keel_domain_by_uuid(struct keel_conn *c, const unsigned char uuid[16], struct keel_error *error)
{
	struct remote_domain_lookup_by_uuid_args args;

	memcpy(args.uuid, uuid, sizeof(args.uuid));
	return get_one(c, REMOTE_PROC_DOMAIN_LOOKUP_BY_UUID, &args, error);
}

struct keel_domain *keel_domain_define(struct keel_conn *c, const char *xml, struct keel_error *error)
{
	struct remote_domain_define_xml_flags_args args = { .xml = (char *)xml };

	return get_one(c, REMOTE_PROC_DOMAIN_DEFINE_XML_FLAGS, &args, error);
}

/* virDomainCreateFlags: PAUSED is 1, AUTODESTROY 2. */
struct keel_domain *keel_domain_create(struct keel_conn *c, const char *xml, unsigned flags, struct keel_error *error)
{
	struct remote_domain_create_xml_args args = { .xml_desc = (char *)xml, .flags = flags };

	return get_one(c, REMOTE_PROC_DOMAIN_CREATE_XML, &args, error);
}

int keel_domain_list(struct keel_conn *c, unsigned flags, struct keel_domain ***list, struct keel_error *error)
{
	struct remote_connect_list_all_domains_args args = { .need_results = 1, .flags = flags };
	struct remote_connect_list_all_domains_ret ret = { 0 };
	struct arena arena = { 0 };
	int n = -1;

	*list = NULL;
	if (!conn_call(c, &remote_program, REMOTE_PROC_CONNECT_LIST_ALL_DOMAINS, &args, &ret, &arena, error)) {
		*list = calloc(ret.domains_len + 1, sizeof(**list));
		for (n = 0; *list && n < (int)ret.domains_len; n++) {
			(*list)[n] = domain_new(c, &ret.domains[n]);
			if (!(*list)[n])
				break;
		}
		if (!*list || n < (int)ret.domains_len) {
			keel_domain_list_free(*list);
			*list = NULL;
			n = error_no_memory(error);
		}
	}
	arena_free(&arena);
	return n;
}

void keel_domain_list_free(struct keel_domain **list)
{
	for (struct keel_domain **p = list; p && *p; p++)
		keel_domain_free(*p);
	free(list);
}

/* ---- Verbs ----------------------------------------------------------------- */

/* A call of which nothing but success is of interest. */
static int act(struct keel_domain *dom, uint32_t number, const void *args, struct keel_error *error)
{
	struct arena arena = { 0 };
	int ret = conn_call(dom->conn, &remote_program, number, args, NULL, &arena, error);

	arena_free(&arena);
	return ret;
}

/* Those whose arguments are a domain and flags share one layout. */
static int act_flags(struct keel_domain *dom, uint32_t number, unsigned flags, struct keel_error *error)
{
	struct remote_domain_destroy_flags_args args = { .dom = domain_wire(dom), .flags = flags };

	return act(dom, number, &args, error);
}

int keel_domain_undefine(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_UNDEFINE_FLAGS, flags, error);
}

int keel_domain_start(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_CREATE_WITH_FLAGS, flags, error);
}

/* virDomainShutdownFlagValues and virDomainRebootFlagValues: ACPI is 1, the agent 2. */
int keel_domain_shutdown(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_SHUTDOWN_FLAGS, flags, error);
}

int keel_domain_reboot(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_REBOOT, flags, error);
}

int keel_domain_reset(struct keel_domain *dom, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_RESET, 0, error);
}

int keel_domain_destroy(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	return act_flags(dom, REMOTE_PROC_DOMAIN_DESTROY_FLAGS, flags, error);
}

int keel_domain_suspend(struct keel_domain *dom, struct keel_error *error)
{
	struct remote_domain_suspend_args args = { .dom = domain_wire(dom) };

	return act(dom, REMOTE_PROC_DOMAIN_SUSPEND, &args, error);
}

int keel_domain_resume(struct keel_domain *dom, struct keel_error *error)
{
	struct remote_domain_resume_args args = { .dom = domain_wire(dom) };

	return act(dom, REMOTE_PROC_DOMAIN_RESUME, &args, error);
}

int keel_domain_set_autostart(struct keel_domain *dom, int on, struct keel_error *error)
{
	struct remote_domain_set_autostart_args args = { .dom = domain_wire(dom), .autostart = !!on };

	return act(dom, REMOTE_PROC_DOMAIN_SET_AUTOSTART, &args, error);
}

/* Attach, detach and update share one layout. */
static int change_device(struct keel_domain *dom, uint32_t number, const char *xml, unsigned flags, struct keel_error *error)
{
	struct remote_domain_attach_device_flags_args args = { .dom = domain_wire(dom), .xml = (char *)xml, .flags = flags };

	return act(dom, number, &args, error);
}

int keel_domain_attach(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error)
{
	return change_device(dom, REMOTE_PROC_DOMAIN_ATTACH_DEVICE_FLAGS, xml, flags, error);
}

int keel_domain_detach(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error)
{
	return change_device(dom, REMOTE_PROC_DOMAIN_DETACH_DEVICE_FLAGS, xml, flags, error);
}

int keel_domain_update(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error)
{
	return change_device(dom, REMOTE_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, xml, flags, error);
}

/* ---- Questions ------------------------------------------------------------- */

static int ask(struct keel_domain *dom, uint32_t number, const void *args, void *ret, struct keel_error *error)
{
	struct arena arena = { 0 };
	int status = conn_call(dom->conn, &remote_program, number, args, ret, &arena, error);

	arena_free(&arena);
	return status;
}

int keel_domain_state(struct keel_domain *dom, int *reason, struct keel_error *error)
{
	struct remote_domain_get_state_args args = { .dom = domain_wire(dom) };
	struct remote_domain_get_state_ret ret = { 0 };

	if (ask(dom, REMOTE_PROC_DOMAIN_GET_STATE, &args, &ret, error))
		return -1;
	if (reason)
		*reason = ret.reason;
	return ret.state < 0 ? KEEL_STATE_NONE : ret.state;
}

const char *keel_state_name(int state)
{
	static const char *const names[] = { "no state",    "running",  "idle",	   "paused",
					     "in shutdown", "shut off", "crashed", "pmsuspended" };

	return state < 0 || state >= (int)(sizeof(names) / sizeof(names[0])) ? names[0] : names[state];
}

int keel_domain_info(struct keel_domain *dom, struct keel_domain_info *info, struct keel_error *error)
{
	struct remote_domain_get_info_args args = { .dom = domain_wire(dom) };
	struct remote_domain_get_info_ret ret = { 0 };

	if (ask(dom, REMOTE_PROC_DOMAIN_GET_INFO, &args, &ret, error))
		return -1;
	*info = (struct keel_domain_info){
		.state = ret.state,
		.vcpus = ret.nrVirtCpu,
		.max_memory_kib = ret.maxMem,
		.memory_kib = ret.memory,
		.cpu_time_ns = ret.cpuTime,
	};
	return 0;
}

int keel_domain_autostart(struct keel_domain *dom, struct keel_error *error)
{
	struct remote_domain_get_autostart_args args = { .dom = domain_wire(dom) };
	struct remote_domain_get_autostart_ret ret = { 0 };

	return ask(dom, REMOTE_PROC_DOMAIN_GET_AUTOSTART, &args, &ret, error) ? -1 : !!ret.autostart;
}

/* A call whose result is one string. */
static char *get_text(struct keel_conn *c, const struct rpc_program *program, uint32_t number, const void *args,
		      struct keel_error *error)
{
	struct remote_domain_get_xml_desc_ret ret = { 0 };
	struct arena arena = { 0 };
	char *text = NULL;

	if (!conn_call(c, program, number, args, &ret, &arena, error)) {
		text = strdup(ret.xml);
		if (!text)
			error_no_memory(error);
	}
	arena_free(&arena);
	return text;
}

char *keel_domain_xml(struct keel_domain *dom, unsigned flags, struct keel_error *error)
{
	struct remote_domain_get_xml_desc_args args = { .dom = domain_wire(dom), .flags = flags };

	return get_text(dom->conn, &remote_program, REMOTE_PROC_DOMAIN_GET_XML_DESC, &args, error);
}

char *keel_domain_qmp(struct keel_domain *dom, const char *command, struct keel_error *error)
{
	struct qemu_domain_monitor_command_args args = { .dom = domain_wire(dom), .cmd = (char *)command };

	return get_text(dom->conn, &qemu_program, QEMU_PROC_DOMAIN_MONITOR_COMMAND, &args, error);
}

char *keel_uri(struct keel_conn *c, struct keel_error *error)
{
	return get_text(c, &remote_program, REMOTE_PROC_CONNECT_GET_URI, NULL, error);
}

char *keel_hostname(struct keel_conn *c, struct keel_error *error)
{
	return get_text(c, &remote_program, REMOTE_PROC_CONNECT_GET_HOSTNAME, NULL, error);
}

char *keel_capabilities(struct keel_conn *c, struct keel_error *error)
{
	return get_text(c, &remote_program, REMOTE_PROC_CONNECT_GET_CAPABILITIES, NULL, error);
}
