/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host, and statistics of all its guests at once. */
#include <stdlib.h>
#include <string.h>

#include "lib/conn.h"

int keel_versions(struct keel_conn *c, uint64_t *hypervisor, uint64_t *protocol, struct keel_error *error)
{
	struct remote_connect_get_version_ret hv = { 0 };
	struct remote_connect_get_lib_version_ret lib = { 0 };
	struct arena arena = { 0 };
	int ret = 0;

	if (hypervisor)
		ret = conn_call(c, &remote_program, REMOTE_PROC_CONNECT_GET_VERSION, NULL, &hv, &arena, error);
	if (!ret && protocol)
		ret = conn_call(c, &remote_program, REMOTE_PROC_CONNECT_GET_LIB_VERSION, NULL, &lib, &arena, error);
	arena_free(&arena);
	if (ret)
		return ret;
	if (hypervisor)
		*hypervisor = hv.hv_ver;
	if (protocol)
		*protocol = lib.lib_ver;
	return 0;
}

int keel_node_info(struct keel_conn *c, struct keel_node_info *info, struct keel_error *error)
{
	struct remote_node_get_info_ret ret = { 0 };
	struct arena arena = { 0 };

	if (conn_call(c, &remote_program, REMOTE_PROC_NODE_GET_INFO, NULL, &ret, &arena, error)) {
		arena_free(&arena);
		return -1;
	}
	*info = (struct keel_node_info){
		.memory_kib = ret.memory,
		.cpus = (unsigned)ret.cpus,
		.mhz = (unsigned)ret.mhz,
		.nodes = (unsigned)ret.nodes,
		.sockets = (unsigned)ret.sockets,
		.cores = (unsigned)ret.cores,
		.threads = (unsigned)ret.threads,
	};
	memcpy(info->model, ret.model, sizeof(info->model) - 1);
	arena_free(&arena);
	return 0;
}

/* ---- Statistics ------------------------------------------------------------ */

/* Behind the public array: what its parts live in. */
struct stats_block {
	struct arena arena;
	struct keel_stats records[];
};

static struct stats_block *block_of(struct keel_stats *records)
{
	return (struct stats_block *)((char *)records - offsetof(struct stats_block, records));
}

void keel_stats_free(struct keel_stats *records, int n)
{
	struct stats_block *b;

	if (!records)
		return;
	for (int i = 0; i < n; i++)
		keel_domain_free(records[i].dom);
	b = block_of(records);
	arena_free(&b->arena);
	free(b);
}

static struct keel_stats *copy_records(struct keel_conn *c, const struct remote_connect_get_all_domain_stats_ret *ret)
{
	uint32_t n = ret->retStats_len;
	struct stats_block *b = calloc(1, sizeof(*b) + (n + 1) * sizeof(b->records[0]));

	for (uint32_t i = 0; b && i < n; i++) {
		const struct remote_domain_stats_record *from = &ret->retStats[i];
		struct keel_stats *to = &b->records[i];

		to->dom = domain_new(c, &from->dom);
		to->nparams = from->params_len;
		to->params = params_copy(&b->arena, from->params, from->params_len);
		if (!to->dom || !to->params) {
			keel_stats_free(b->records, (int)n);
			return NULL;
		}
	}
	return b ? b->records : NULL;
}

int keel_stats(struct keel_conn *c, struct keel_domain *dom, unsigned groups, unsigned list_flags,
	       struct keel_stats **records, struct keel_error *error)
{
	struct remote_domain one = dom ? domain_wire(dom) : (struct remote_domain){ 0 };
	struct remote_connect_get_all_domain_stats_args args = { .doms = &one, .doms_len = !!dom, .stats = groups, .flags = list_flags };
	struct remote_connect_get_all_domain_stats_ret ret = { 0 };
	struct arena arena = { 0 };
	int n = -1;

	*records = NULL;
	if (!conn_call(c, &remote_program, REMOTE_PROC_CONNECT_GET_ALL_DOMAIN_STATS, &args, &ret, &arena, error)) {
		*records = copy_records(c, &ret);
		n = *records ? (int)ret.retStats_len : error_no_memory(error);
	}
	arena_free(&arena);
	return n;
}
