/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Figures: of disks, cards and CPUs, one by one and, for monitoring, all at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/guest.h"
#include "daemon/guest_devices.h"
#include "daemon/guest_tune.h"
#include "daemon/proc_stat.h"

/* ---- Disks ----------------------------------------------------------------- */

static const char *disk_path(const struct dom_disk *disk)
{
	return disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
}

static const struct dom_disk *find_disk(struct rpc_call *call, const struct domain *def, const char *name)
{
	const struct dom_disk *disk = disk_by_target(def, name);

	if (!disk)
		rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "invalid path: %s", name);
	return disk;
}

/* The device's figures in what query-blockstats brought; NULL if it isn't there. */
static json_t *stats_of(json_t *list, const char *alias)
{
	json_t *one;
	size_t n;

	json_array_foreach(list, n, one) {
		const char *qdev = json_string_value(json_object_get(one, "qdev"));

		if (qdev && alias && !strcmp(qdev, alias))
			return json_object_get(one, "stats");
	}
	return NULL;
}

static int64_t figure(json_t *stats, const char *name)
{
	return json_integer_value(json_object_get(stats, name));
}

static const struct {
	const char *qmp, *param, *bulk;
} block_figures[] = {
	{ "rd_operations", "rd_operations", "rd.reqs" },
	{ "rd_bytes", "rd_bytes", "rd.bytes" },
	{ "rd_total_time_ns", "rd_total_times", "rd.times" },
	{ "wr_operations", "wr_operations", "wr.reqs" },
	{ "wr_bytes", "wr_bytes", "wr.bytes" },
	{ "wr_total_time_ns", "wr_total_times", "wr.times" },
	{ "flush_operations", "flush_operations", "fl.reqs" },
	{ "flush_total_time_ns", "flush_total_times", "fl.times" },
};
#define N_FIGURES (sizeof(block_figures) / sizeof(block_figures[0]))

/* Of one disk, or, for an empty path, the sum over all. */
static void sum_figures(const struct domain *def, json_t *list, const char *path, int64_t sum[N_FIGURES])
{
	const struct dom_disk *only = *path ? disk_by_target(def, path) : NULL;

	memset(sum, 0, N_FIGURES * sizeof(*sum));
	for (unsigned n = 0; n < def->devices->disk.n; n++) {
		const struct dom_disk *disk = def->devices->disk.v[n];
		json_t *stats = only && disk != only ? NULL : stats_of(list, disk->info.alias);

		for (unsigned i = 0; stats && i < N_FIGURES; i++)
			sum[i] += figure(stats, block_figures[i].qmp);
	}
}

static int have_block_stats(struct rpc_call *call, struct guest *g, json_t *list)
{
	const struct remote_domain_block_stats_args *args = call->args;
	struct remote_domain_block_stats_ret *ret = call->ret;
	int64_t sum[N_FIGURES];

	if (!g->live)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	sum_figures(g->live, list, args->path, sum);
	*ret = (struct remote_domain_block_stats_ret){ .rd_req = sum[0], .rd_bytes = sum[1], .wr_req = sum[3], .wr_bytes = sum[4],
						       .errs = -1 };
	return 0;
}

static int block_stats(struct rpc_call *call, struct guest *g)
{
	const char *path = ((struct remote_domain_block_stats_args *)call->args)->path;

	if (*path && !find_disk(call, g->live, path))
		return -1;
	return guest_qmp(call, g, "query-blockstats", NULL, have_block_stats);
}

static int have_block_stats_flags(struct rpc_call *call, struct guest *g, json_t *list)
{
	const struct remote_domain_block_stats_flags_args *args = call->args;
	struct remote_domain_block_stats_flags_ret *ret = call->ret;
	struct params p = { .arena = &call->arena };
	int64_t sum[N_FIGURES];

	if (!g->live)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	sum_figures(g->live, list, args->path, sum);
	for (unsigned n = 0; n < N_FIGURES && (int)n < args->nparams; n++)
		params_llong(&p, block_figures[n].param, sum[n]);
	ret->params = p.list;
	ret->params_len = p.n;
	ret->nparams = (int)N_FIGURES < args->nparams ? (int)N_FIGURES : args->nparams;
	return p.failed ? call_fail_memory(call) : 0;
}

static int block_stats_flags(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_block_stats_flags_args *args = call->args;
	struct remote_domain_block_stats_flags_ret *ret = call->ret;

	if (call_check_flags(call, args->flags, 4)) /* VIR_TYPED_PARAM_STRING_OKAY */
		return -1;
	if (*args->path && !find_disk(call, g->live, args->path))
		return -1;
	if (!args->nparams) {
		ret->nparams = N_FIGURES;
		return 0;
	}
	return guest_qmp(call, g, "query-blockstats", NULL, have_block_stats_flags);
}

/* What the image's file occupies. */
static bool file_sizes(const char *path, uint64_t *allocation, uint64_t *physical)
{
	struct stat st;

	if (!path || stat(path, &st))
		return false;
	*allocation = (uint64_t)st.st_blocks * 512;
	*physical = (uint64_t)st.st_size;
	return true;
}

static int have_block_info(struct rpc_call *call, struct guest *g, json_t *list)
{
	const struct remote_domain_get_block_info_args *args = call->args;
	struct remote_domain_get_block_info_ret *ret = call->ret;
	const struct dom_disk *disk = g->live ? disk_by_target(g->live, args->path) : NULL;
	json_t *one;
	size_t n;

	if (!disk)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_FAILED, "domain is no longer running");
	file_sizes(disk_path(disk), &ret->allocation, &ret->physical);
	ret->capacity = ret->physical;
	json_array_foreach(list, n, one) {
		const char *qdev = json_string_value(json_object_get(one, "qdev"));
		json_t *image = json_object_get(json_object_get(one, "inserted"), "image");

		if (qdev && disk->info.alias && !strcmp(qdev, disk->info.alias) && image)
			ret->capacity = (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));
	}
	return 0;
}

/* Of qcow2 the capacity is at byte 24 of the header, big-endian (QEMU docs/interop/qcow2). */
static void offline_capacity(const char *path, const char *format, uint64_t *capacity)
{
	uint8_t head[32];
	FILE *f = format && !strcmp(format, "qcow2") ? fopen(path, "re") : NULL;

	if (!f)
		return;
	if (fread(head, sizeof(head), 1, f) == 1 && !memcmp(head, "QFI\xfb", 4)) {
		*capacity = 0;
		for (unsigned n = 24; n < 32; n++)
			*capacity = *capacity << 8 | head[n];
	}
	fclose(f);
}

const char *image_sizes(const char *path, uint64_t *capacity, uint64_t *allocation, uint64_t *physical)
{
	uint64_t virtual = UINT64_MAX;

	if (!file_sizes(path, allocation, physical))
		return NULL;
	offline_capacity(path, "qcow2", &virtual);
	*capacity = virtual == UINT64_MAX ? *physical : virtual;
	return virtual == UINT64_MAX ? "raw" : "qcow2";
}

static int get_block_info(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_block_info_args *args = call->args;
	struct remote_domain_get_block_info_ret *ret = call->ret;
	const struct dom_disk *disk;

	if (call_check_flags(call, args->flags, 0))
		return -1;
	disk = find_disk(call, guest_def(g), args->path);
	if (!disk)
		return -1;
	if (guest_is_active(g))
		return guest_qmp(call, g, "query-block", NULL, have_block_info);
	if (!file_sizes(disk_path(disk), &ret->allocation, &ret->physical))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_SYSTEM_ERROR, "cannot stat file '%s': No such file or directory",
				     disk_path(disk) ? disk_path(disk) : args->path);
	ret->capacity = ret->physical;
	offline_capacity(disk_path(disk), disk->driver ? disk->driver->type : NULL, &ret->capacity);
	return 0;
}

/* ---- Cards ----------------------------------------------------------------- */

/* /sys/class/net counts from the host's side: what it sends the guest receives. */
static bool host_figure(const char *dev, const char *name, int64_t *v)
{
	char path[128];
	long long n;
	FILE *f;
	bool ok;

	if (strchr(dev, '/') || snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/%s", dev, name) >= (int)sizeof(path))
		return false;
	f = fopen(path, "re");
	ok = f && fscanf(f, "%lld", &n) == 1;
	if (f)
		fclose(f);
	if (ok)
		*v = n;
	return ok;
}

static const struct {
	const char *host, *bulk;
} card_figures[] = {
	{ "tx_bytes", "rx.bytes" }, { "tx_packets", "rx.pkts" }, { "tx_errors", "rx.errs" }, { "tx_dropped", "rx.drop" },
	{ "rx_bytes", "tx.bytes" }, { "rx_packets", "tx.pkts" }, { "rx_errors", "tx.errs" }, { "rx_dropped", "tx.drop" },
};

static int interface_stats(struct rpc_call *call, struct guest *g)
{
	const char *device = ((struct remote_domain_interface_stats_args *)call->args)->device;
	struct remote_domain_interface_stats_ret *ret = call->ret;
	const struct dom_interface *nic = interface_by_device(g->live, device);
	int64_t *const to[] = { &ret->rx_bytes, &ret->rx_packets, &ret->rx_errs, &ret->rx_drop,
				&ret->tx_bytes, &ret->tx_packets, &ret->tx_errs, &ret->tx_drop };

	if (!nic)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_INVALID_ARG, "'%s' is not a known interface", device);
	if (!nic->target || !nic->target->dev)
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_UNSUPPORTED,
				     "the interface '%s' has no device of the host behind it that counts", device);
	for (unsigned n = 0; n < 8; n++)
		if (!host_figure(nic->target->dev, card_figures[n].host, to[n]))
			return rpc_call_fail(call, VIR_FROM_NONE, VIR_ERR_INTERNAL_ERROR, "/proc/net/dev: Interface not found");
	return 0;
}

/* ---- CPUs ------------------------------------------------------------------ */

static int get_cpu_stats(struct rpc_call *call, struct guest *g)
{
	const struct remote_domain_get_cpu_stats_args *args = call->args;
	struct remote_domain_get_cpu_stats_ret *ret = call->ret;
	struct params p = { .arena = &call->arena };
	struct proc_stat s;

	if (call_check_flags(call, args->flags, 4))
		return -1;
	if (args->start_cpu != -1) /* only a cgroup counts by CPU */
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "cgroup CPUACCT controller is not mounted");
	if (!args->nparams) {
		ret->nparams = 3;
		return 0;
	}
	if (!proc_stat_read(guest_pid(g), 0, &s))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_OPERATION_INVALID, "domain is not running");
	params_ullong(&p, "cpu_time", s.user_ns + s.system_ns);
	if (args->nparams > 1)
		params_ullong(&p, "user_time", s.user_ns);
	if (args->nparams > 2)
		params_ullong(&p, "system_time", s.system_ns);
	ret->params = p.list;
	ret->params_len = p.n;
	ret->nparams = (int)p.n;
	return p.failed ? call_fail_memory(call) : 0;
}

/* ---- All at once ----------------------------------------------------------- */

/* virDomainStatsTypes, virConnectGetAllDomainStatsFlags */
enum {
	STATS_STATE = 1 << 0, STATS_CPU = 1 << 1, STATS_BALLOON = 1 << 2, STATS_VCPU = 1 << 3, STATS_INTERFACE = 1 << 4,
	STATS_BLOCK = 1 << 5, STATS_PERF = 1 << 6, STATS_IOTHREAD = 1 << 7, STATS_MEMORY = 1 << 8, STATS_DIRTYRATE = 1 << 9,
	STATS_VM = 1 << 10,
	STATS_HAVE = STATS_STATE | STATS_CPU | STATS_BALLOON | STATS_VCPU | STATS_INTERFACE | STATS_BLOCK | STATS_PERF | STATS_IOTHREAD,
};
#define STATS_FILTERS 0xffu
#define STATS_NOWAIT (1u << 29)
#define STATS_BACKING (1u << 30)
#define STATS_ENFORCE (1u << 31)

struct gather {
	struct rpc_call *call;
	struct remote_domain_stats_record *records;
	unsigned n, waiting;
	uint32_t stats, flags;
	bool begun; /* all guests are asked */
	bool failed;
};

struct gather_one {
	struct gather *all;
	struct guest *guest;
	struct remote_domain_stats_record *record;
	struct params p;
};

static void stats_state(struct guest *g, struct params *p)
{
	params_int(p, "state.state", g->state);
	params_int(p, "state.reason", g->reason);
}

static void stats_cpu(struct guest *g, struct params *p)
{
	struct proc_stat s;

	if (!guest_is_active(g) || !proc_stat_read(guest_pid(g), 0, &s))
		return;
	params_ullong(p, "cpu.time", s.user_ns + s.system_ns);
	params_ullong(p, "cpu.user", s.user_ns);
	params_ullong(p, "cpu.system", s.system_ns);
}

static void stats_balloon(struct guest *g, struct params *p)
{
	struct proc_stat s;

	params_ullong(p, "balloon.current", domain_memory_current(guest_def(g)));
	params_ullong(p, "balloon.maximum", guest_def(g)->memory->kib);
	if (guest_is_active(g) && proc_stat_read(guest_pid(g), 0, &s))
		params_ullong(p, "balloon.rss", s.rss_kib);
}

static void stats_vcpu(struct guest *g, struct params *p)
{
	char name[32];

	params_uint(p, "vcpu.current", domain_vcpus_current(guest_def(g)));
	params_uint(p, "vcpu.maximum", guest_def(g)->vcpu->max);
	for (unsigned n = 0; guest_is_active(g) && n < domain_vcpus_current(g->live); n++) {
		pid_t tid = guest_vcpu_tid(g, n);
		struct proc_stat s;

		snprintf(name, sizeof(name), "vcpu.%u.state", n);
		params_int(p, name, 1);
		if (!tid || !proc_stat_read(guest_pid(g), tid, &s))
			continue;
		snprintf(name, sizeof(name), "vcpu.%u.time", n);
		params_ullong(p, name, s.user_ns + s.system_ns);
	}
}

static void stats_interface(struct guest *g, struct params *p)
{
	const struct dom_devices *dev = g->live ? g->live->devices : NULL;
	char name[48];
	int64_t v;

	if (!dev)
		return;
	params_uint(p, "net.count", dev->interface.n);
	for (unsigned n = 0; n < dev->interface.n; n++) {
		const struct dom_interface *nic = dev->interface.v[n];

		if (!nic->target || !nic->target->dev)
			continue;
		snprintf(name, sizeof(name), "net.%u.name", n);
		params_string(p, name, nic->target->dev);
		for (unsigned i = 0; i < 8; i++) {
			snprintf(name, sizeof(name), "net.%u.%s", n, card_figures[i].bulk);
			if (host_figure(nic->target->dev, card_figures[i].host, &v))
				params_ullong(p, name, (uint64_t)v);
		}
	}
}

static void stats_block(struct guest *g, struct params *p, json_t *list)
{
	const struct dom_devices *dev = guest_def(g)->devices;
	uint64_t allocation, physical;
	char name[48];

	params_uint(p, "block.count", dev->disk.n);
	for (unsigned n = 0; n < dev->disk.n; n++) {
		const struct dom_disk *disk = dev->disk.v[n];
		json_t *stats = list ? stats_of(list, disk->info.alias) : NULL;

		snprintf(name, sizeof(name), "block.%u.name", n);
		params_string(p, name, disk->target->dev);
		if (disk_path(disk)) {
			snprintf(name, sizeof(name), "block.%u.path", n);
			params_string(p, name, disk_path(disk));
		}
		for (unsigned i = 0; stats && i < N_FIGURES; i++) {
			snprintf(name, sizeof(name), "block.%u.%s", n, block_figures[i].bulk);
			params_ullong(p, name, (uint64_t)figure(stats, block_figures[i].qmp));
		}
		if (!file_sizes(disk_path(disk), &allocation, &physical))
			continue;
		snprintf(name, sizeof(name), "block.%u.allocation", n);
		params_ullong(p, name, allocation);
		snprintf(name, sizeof(name), "block.%u.capacity", n);
		offline_capacity(disk_path(disk), disk->driver ? disk->driver->type : NULL, &physical);
		params_ullong(p, name, physical);
		snprintf(name, sizeof(name), "block.%u.physical", n);
		file_sizes(disk_path(disk), &allocation, &physical);
		params_ullong(p, name, physical);
	}
}

static void gather_end(struct gather *all)
{
	struct rpc_call *call = all->call;
	struct remote_connect_get_all_domain_stats_ret *ret = call->ret;

	ret->retStats = all->records;
	ret->retStats_len = all->n;
	if (all->failed)
		call_fail_memory(call);
	free(all);
	rpc_call_finish(call);
}

static void one_done(struct gather_one *o)
{
	struct gather *all = o->all;

	/* A guest may have gone while the others were asked; its record has a name of its own. */
	o->record->params = o->p.list;
	o->record->params_len = o->p.n;
	if (o->p.failed)
		all->failed = true;
	guest_put(o->guest);
	free(o);
	if (!--all->waiting && all->begun)
		gather_end(all);
}

static void have_stats(void *opaque, json_t *list, const char *error)
{
	struct gather_one *o = opaque;

	if (guest_def(o->guest))
		stats_block(o->guest, &o->p, list);
	one_done(o);
}

static int gather_guest(struct guest *g, void *opaque)
{
	static const struct {
		uint32_t group;
		void (*fn)(struct guest *g, struct params *p);
	} groups[] = {
		{ STATS_STATE, stats_state },	{ STATS_CPU, stats_cpu },	      { STATS_BALLOON, stats_balloon },
		{ STATS_VCPU, stats_vcpu },	{ STATS_INTERFACE, stats_interface },
	};
	struct gather *all = opaque;
	struct gather_one *o;

	if (!list_matches(g, all->flags & STATS_FILTERS) || !rpc_call_shows(all->call, g->name))
		return 0;
	if (guest_unpack(g))
		return 1;
	o = calloc(1, sizeof(*o));
	if (!o)
		return 1;
	*o = (struct gather_one){ .all = all, .guest = guest_get(g), .record = &all->records[all->n++],
				  .p.arena = &all->call->arena };
	all->waiting++;
	o->record->dom = guest_wire(g);
	o->record->dom.name = arena_strdup(&all->call->arena, g->name);
	if (!o->record->dom.name) {
		o->record->dom.name = "";
		all->failed = true;
	}
	for (unsigned n = 0; n < sizeof(groups) / sizeof(groups[0]); n++)
		if (all->stats & groups[n].group)
			groups[n].fn(g, &o->p);
	if (all->stats & STATS_IOTHREAD && guest_is_active(g))
		params_uint(&o->p, "iothread.count", g->live->iothreads);
	if (!(all->stats & STATS_BLOCK)) {
		one_done(o);
	} else if (!guest_monitor(g) || !qmp_send(guest_monitor(g), "query-blockstats", NULL, have_stats, o)) {
		stats_block(g, &o->p, NULL);
		one_done(o);
	}
	return 0;
}

static int get_all_domain_stats(struct rpc_call *call)
{
	const struct remote_connect_get_all_domain_stats_args *args = call->args;
	struct daemon *d = call_daemon(call);
	struct gather *all;
	char uuid[37];

	if (call_check_flags(call, args->flags, STATS_FILTERS | STATS_NOWAIT | STATS_BACKING | STATS_ENFORCE))
		return -1;
	if ((args->flags & STATS_ENFORCE) && (args->stats & ~(uint32_t)STATS_HAVE))
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_ARGUMENT_UNSUPPORTED,
				     "Stats types bits 0x%x are not supported by this daemon or QEMU", args->stats & ~(uint32_t)STATS_HAVE);
	for (unsigned n = 0; n < args->doms_len; n++) {
		if (guest_by_uuid(d, args->doms[n].uuid))
			continue;
		uuid_text(args->doms[n].uuid, uuid);
		return rpc_call_fail(call, VIR_FROM_QEMU, VIR_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", uuid,
				     args->doms[n].name);
	}
	all = calloc(1, sizeof(*all));
	if (!all)
		return call_fail_memory(call);
	all->call = call;
	all->stats = args->stats ? args->stats : STATS_HAVE;
	all->flags = args->flags;
	all->records = arena_alloc(&call->arena, ((args->doms_len ? args->doms_len : d->guests.count) + 1) * sizeof(*all->records));
	if (!all->records) {
		free(all);
		return call_fail_memory(call);
	}
	for (unsigned n = 0; n < args->doms_len; n++)
		gather_guest(guest_by_uuid(d, args->doms[n].uuid), all);
	if (!args->doms_len && guest_each(d, gather_guest, all) < 0)
		all->failed = true;
	all->begun = true;
	if (!all->waiting)
		gather_end(all);
	return RPC_LATER;
}

const struct binding stats_bindings[] = {
	{ REMOTE_PROC_CONNECT_GET_ALL_DOMAIN_STATS, get_all_domain_stats },
	{ 0 },
};

const struct guest_binding stats_guest_bindings[] = {
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_STATS, block_stats, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_BLOCK_STATS_FLAGS, block_stats_flags, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_BLOCK_INFO, get_block_info, 0 },
	{ NULL, REMOTE_PROC_DOMAIN_INTERFACE_STATS, interface_stats, GUEST_ACTIVE },
	{ NULL, REMOTE_PROC_DOMAIN_GET_CPU_STATS, get_cpu_stats, GUEST_ACTIVE },
	{ 0 },
};
