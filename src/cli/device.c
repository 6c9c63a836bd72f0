/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's devices: lists of its XML, statistics, plugging. */
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verb.h"

/* ---- XML ------------------------------------------------------------------- */

struct doc {
	xmlDoc *xml;
	xmlXPathContext *context;
	xmlXPathObject *nodes;
};

/* The nodes of the guest's XML that an expression finds. -1: the message is printed. */
static int doc_open(struct cmd *c, struct keel_domain *dom, unsigned flags, const char *xpath, struct doc *d)
{
	char *text = keel_domain_xml(dom, flags, &c->error);

	*d = (struct doc){ 0 };
	if (!text)
		return -cmd_fail(c, NULL);
	d->xml = xmlReadMemory(text, (int)strlen(text), NULL, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	keel_free(text);
	d->context = d->xml ? xmlXPathNewContext(d->xml) : NULL;
	d->nodes = d->context ? xmlXPathEval((const xmlChar *)xpath, d->context) : NULL;
	if (d->nodes)
		return 0;
	fprintf(stderr, "error: the guest's XML cannot be read\n");
	return -1;
}

static void doc_close(struct doc *d)
{
	if (d->nodes)
		xmlXPathFreeObject(d->nodes);
	if (d->context)
		xmlXPathFreeContext(d->context);
	xmlFreeDoc(d->xml);
}

static int doc_count(const struct doc *d)
{
	return d->nodes->nodesetval ? d->nodes->nodesetval->nodeNr : 0;
}

/* A string relative to node n; NULL if it is empty. Freed by xmlFree(). */
static char *doc_text(const struct doc *d, int n, const char *xpath)
{
	xmlXPathObject *o;
	char *text = NULL;

	d->context->node = d->nodes->nodesetval->nodeTab[n];
	o = xmlXPathEval((const xmlChar *)xpath, d->context);
	if (o && o->nodesetval && o->nodesetval->nodeNr)
		text = (char *)xmlXPathCastNodeToString(o->nodesetval->nodeTab[0]);
	xmlXPathFreeObject(o);
	if (text && !*text) {
		xmlFree(text);
		text = NULL;
	}
	return text;
}

/* A table of the nodes, a column for each expression. */
static int print_nodes(struct cmd *c, const char *nodes, unsigned columns, const char *const *titles, const char *const *xpaths)
{
	struct keel_domain *dom = cmd_domain(c);
	struct table *t;
	struct doc d;
	int ret;

	if (!dom)
		return 1;
	ret = doc_open(c, dom, cmd_has(c, "inactive") ? KEEL_XML_INACTIVE : 0, nodes, &d);
	keel_domain_free(dom);
	if (ret) {
		doc_close(&d);
		return 1;
	}
	t = table_new(columns, titles);
	for (int n = 0; n < doc_count(&d); n++) {
		char *cells[8];

		for (unsigned i = 0; i < columns; i++)
			cells[i] = doc_text(&d, n, xpaths[i]);
		table_row(t, (const char *const *)cells);
		for (unsigned i = 0; i < columns; i++)
			xmlFree(cells[i]);
	}
	doc_close(&d);
	if (cmd_has(c, "json"))
		return cmd_json(table_json(t));
	table_end(t);
	return 0;
}

#define DISK_SOURCE "./source/@file|./source/@dev|./source/@dir|./source/@name|./source/@volume|./source/@path"

static int run_domblklist(struct cmd *c)
{
	static const char *const titles[] = { "Type", "Device", "Target", "Source" };
	static const char *const xpaths[] = { "./@type", "./@device", "./target/@dev", DISK_SOURCE };
	unsigned skip = cmd_has(c, "details") || cmd_has(c, "json") ? 0 : 2;

	return print_nodes(c, "/domain/devices/disk", 4 - skip, titles + skip, xpaths + skip);
}

static int run_domiflist(struct cmd *c)
{
	static const char *const titles[] = { "Interface", "Type", "Source", "Model", "MAC" };
	static const char *const xpaths[] = { "./target/@dev", "./@type",
					      "./source/@network|./source/@bridge|./source/@dev|./source/@name|./source/@path",
					      "./model/@type", "./mac/@address" };

	return print_nodes(c, "/domain/devices/interface", 5, titles, xpaths);
}

static int run_ttyconsole(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	char *tty = NULL;
	struct doc d;

	if (!dom)
		return 1;
	if (!doc_open(c, dom, 0, "/domain/devices/console[1]", &d) && doc_count(&d))
		tty = doc_text(&d, 0, "./@tty");
	doc_close(&d);
	keel_domain_free(dom);
	if (tty)
		printf("%s\n", tty);
	xmlFree(tty);
	return !tty;
}

/* ---- Disks' sizes and statistics ------------------------------------------- */

/* Three digits behind the point and a unit, or the plain number. */
static void size_text(uint64_t bytes, bool human, char text[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned n = 0;

	if (!human) {
		snprintf(text, 32, "%llu", (unsigned long long)bytes);
		return;
	}
	for (; v >= 1024 && n < 6; n++)
		v /= 1024;
	snprintf(text, 32, "%.3f %s", v, units[n]);
}

static int block_info(struct cmd *c, struct keel_domain *dom, const char *dev, char texts[3][32])
{
	struct remote_domain_get_block_info_args args = { .dom = domain_wire(dom), .path = (char *)dev };
	struct remote_domain_get_block_info_ret ret = { 0 };
	bool human = cmd_has(c, "human");

	if (cmd_call(c, REMOTE_PROC_DOMAIN_GET_BLOCK_INFO, &args, &ret))
		return -1;
	size_text(ret.capacity, human, texts[0]);
	size_text(ret.allocation, human, texts[1]);
	size_text(ret.physical, human, texts[2]);
	return 0;
}

static int all_block_info(struct cmd *c, struct keel_domain *dom)
{
	static const char *const titles[] = { "Target", "Capacity", "Allocation", "Physical" };
	struct table *t;
	struct doc d;
	int status = 0;

	if (doc_open(c, dom, 0, "/domain/devices/disk", &d)) {
		doc_close(&d);
		return 1;
	}
	t = table_new(4, titles);
	for (int n = 0; !status && n < doc_count(&d); n++) {
		char *dev = doc_text(&d, n, "./target/@dev"), *source = doc_text(&d, n, DISK_SOURCE), texts[3][32];

		if (!source)
			table_row(t, (const char *const[]){ dev, NULL, NULL, NULL });
		else if (block_info(c, dom, dev, texts))
			status = cmd_fail(c, NULL);
		else
			table_row(t, (const char *const[]){ dev, texts[0], texts[1], texts[2] });
		xmlFree(dev);
		xmlFree(source);
	}
	doc_close(&d);
	if (cmd_has(c, "json"))
		return cmd_json(table_json(t)) | status;
	table_end(t);
	return status;
}

static int run_domblkinfo(struct cmd *c)
{
	struct keel_domain *dom;
	char texts[3][32];
	int status = 0;

	if (cmd_has(c, "all") && cmd_has(c, "device")) {
		fprintf(stderr, "error: Options --all and --device are mutually exclusive\n");
		return 1;
	}
	if (!cmd_has(c, "all") && !cmd_has(c, "device")) {
		fprintf(stderr, "error: command 'domblkinfo' requires <device> option\n");
		return 1;
	}
	dom = cmd_domain(c);
	if (!dom)
		return 1;
	if (cmd_has(c, "all"))
		status = all_block_info(c, dom);
	else if (block_info(c, dom, cmd_text(c, "device"), texts))
		status = cmd_fail(c, NULL);
	else
		printf("%-15s %s\n%-15s %s\n%-15s %s\n", "Capacity:", texts[0], "Allocation:", texts[1], "Physical:", texts[2]);
	keel_domain_free(dom);
	return status;
}

static long long number_of(const struct remote_typed_param *p)
{
	struct keel_param *copy;
	struct arena arena = { 0 };
	long long v = 0;

	copy = params_copy(&arena, p, 1);
	if (copy)
		v = (long long)keel_param_number(copy, 1, p->field, NULL);
	arena_free(&arena);
	return v;
}

static int run_domblkstat(struct cmd *c)
{
	static const struct {
		const char *field, *name, *human;
	} rows[] = {
		{ "rd_operations", "rd_req", "number of read operations:" },
		{ "rd_bytes", "rd_bytes", "number of bytes read:" },
		{ "wr_operations", "wr_req", "number of write operations:" },
		{ "wr_bytes", "wr_bytes", "number of bytes written:" },
		{ "errs", "errs", "error count:" },
		{ "flush_operations", "flush_operations", "number of flush operations:" },
		{ "rd_total_times", "rd_total_times", "total duration of reads (ns):" },
		{ "wr_total_times", "wr_total_times", "total duration of writes (ns):" },
		{ "flush_total_times", "flush_total_times", "total duration of flushes (ns):" },
	};
	const char *dev = cmd_has(c, "device") ? cmd_text(c, "device") : "";
	struct keel_domain *dom = cmd_domain(c);
	struct remote_domain_block_stats_flags_args args = { .path = (char *)dev };
	struct remote_domain_block_stats_flags_ret ret = { 0 };
	int status = 0;

	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	/* First how many there are, then that many. */
	if (!cmd_call(c, REMOTE_PROC_DOMAIN_BLOCK_STATS_FLAGS, &args, &ret))
		args.nparams = ret.nparams;
	if (c->error.code || cmd_call(c, REMOTE_PROC_DOMAIN_BLOCK_STATS_FLAGS, &args, &ret))
		status = cmd_fail(c, NULL);
	else if (cmd_has(c, "human"))
		printf("Device: %s\n", dev);
	for (unsigned n = 0; !status && n < sizeof(rows) / sizeof(rows[0]); n++)
		for (uint32_t i = 0; i < ret.params_len; i++) {
			if (strcmp(ret.params[i].field, rows[n].field))
				continue;
			if (cmd_has(c, "human"))
				printf(" %-31s %lld\n", rows[n].human, number_of(&ret.params[i]));
			else
				printf("%s %s %lld\n", dev, rows[n].name, number_of(&ret.params[i]));
		}
	keel_domain_free(dom);
	return status;
}

static int run_domifstat(struct cmd *c)
{
	const char *dev = cmd_text(c, "interface");
	struct keel_domain *dom = cmd_domain(c);
	struct remote_domain_interface_stats_args args = { .device = (char *)dev };
	struct remote_domain_interface_stats_ret ret = { 0 };
	int status = 0;

	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	if (cmd_call(c, REMOTE_PROC_DOMAIN_INTERFACE_STATS, &args, &ret)) {
		status = cmd_fail(c, "Failed to get interface stats %s %s", cmd_text(c, "domain"), dev);
	} else {
		const struct {
			const char *name;
			int64_t v;
		} rows[] = { { "rx_bytes", ret.rx_bytes }, { "rx_packets", ret.rx_packets }, { "rx_errs", ret.rx_errs },
			     { "rx_drop", ret.rx_drop },   { "tx_bytes", ret.tx_bytes },     { "tx_packets", ret.tx_packets },
			     { "tx_errs", ret.tx_errs },   { "tx_drop", ret.tx_drop } };

		/* -1: not known. */
		for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++)
			if (rows[n].v >= 0)
				printf("%s %s %lld\n", dev, rows[n].name, (long long)rows[n].v);
	}
	keel_domain_free(dom);
	return status;
}

/* ---- Plugging -------------------------------------------------------------- */

/* `plain` is the old call, without flags, for guests that run; 0: there is none. */
static int change(struct cmd *c, uint32_t plain, uint32_t number, const char *what, const char *done)
{
	struct remote_domain_attach_device_flags_args args; /* all have this layout, or its beginning */
	struct keel_domain *dom;
	char *xml = NULL;
	unsigned flags;
	int status = 1;

	if (cmd_affect(c, &flags))
		return 1;
	dom = cmd_domain(c);
	if (!dom)
		return 1;
	/* --persistent: the configuration, and the guest if it runs. */
	if (cmd_has(c, "persistent"))
		flags |= KEEL_AFFECT_CONFIG | (keel_domain_id(dom) >= 0 ? KEEL_AFFECT_LIVE : 0u);
	xml = cmd_read_file(cmd_text(c, "file"));
	args = (struct remote_domain_attach_device_flags_args){ domain_wire(dom), xml, flags };
	if (xml && cmd_call(c, plain && !flags && !cmd_has(c, "current") ? plain : number, &args, NULL)) {
		cmd_fail(c, "Failed to %s device from %s", what, cmd_text(c, "file"));
	} else if (xml) {
		if (!c->quiet)
			printf("%s\n", done);
		status = 0;
	}
	free(xml);
	keel_domain_free(dom);
	return status;
}

static int run_attach(struct cmd *c)
{
	return change(c, REMOTE_PROC_DOMAIN_ATTACH_DEVICE, REMOTE_PROC_DOMAIN_ATTACH_DEVICE_FLAGS, "attach", "Device attached successfully");
}

static int run_detach(struct cmd *c)
{
	return change(c, REMOTE_PROC_DOMAIN_DETACH_DEVICE, REMOTE_PROC_DOMAIN_DETACH_DEVICE_FLAGS, "detach", "Device detached successfully");
}

static int run_update(struct cmd *c)
{
	return change(c, 0, REMOTE_PROC_DOMAIN_UPDATE_DEVICE_FLAGS, "update", "Device updated successfully");
}

static int run_detach_alias(struct cmd *c)
{
	struct remote_domain_detach_device_alias_args args = { .alias = (char *)cmd_text(c, "alias") };
	struct keel_domain *dom;
	unsigned flags;
	int status = 0;

	if (cmd_affect(c, &flags) || !(dom = cmd_domain(c)))
		return 1;
	args.dom = domain_wire(dom);
	args.flags = flags;
	if (cmd_call(c, REMOTE_PROC_DOMAIN_DETACH_DEVICE_ALIAS, &args, NULL))
		status = cmd_fail(c, "Failed to detach device with alias %s", args.alias);
	else if (!c->quiet)
		printf("Device detach request sent successfully\n");
	keel_domain_free(dom);
	return status;
}

#define AFFECT_OPTS \
	{ "config", OPT_FLAG, 0, "for the next start" }, { "live", OPT_FLAG, 0, "for the guest that runs" }, \
	{ "current", OPT_FLAG, 0, "as it is now" }

static const struct opt blklist_opts[] = {
	OPT_THE_DOMAIN,
	{ "inactive", OPT_FLAG, 0, "of the definition for the next start" },
	{ "details", OPT_FLAG, 0, "with type and device" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

static const struct opt iflist_opts[] = {
	OPT_THE_DOMAIN,
	{ "inactive", OPT_FLAG, 0, "of the definition for the next start" },
	{ "json", OPT_FLAG, 0, "as JSON" },
	{ 0 },
};

static const struct opt blkinfo_opts[] = {
	OPT_THE_DOMAIN,
	{ "device", OPT_TEXT, OPT_DATA, "target, as vda" },
	{ "human", OPT_FLAG, 0, "with units" },
	{ "all", OPT_FLAG, 0, "all disks" },
	{ "json", OPT_FLAG, 0, "as JSON (with --all)" },
	{ 0 },
};

static const struct opt blkstat_opts[] = {
	OPT_THE_DOMAIN,
	{ "device", OPT_TEXT, OPT_DATA, "target, as vda; all together if none is named" },
	{ "human", OPT_FLAG, 0, "in words" },
	{ 0 },
};

static const struct opt ifstat_opts[] = {
	OPT_THE_DOMAIN,
	{ "interface", OPT_TEXT, OPT_DATA | OPT_REQUIRED, "device of the host, or MAC address" },
	{ 0 },
};

static const struct opt domain_only[] = { OPT_THE_DOMAIN, { 0 } };

static const struct opt change_opts[] = {
	OPT_THE_DOMAIN,
	{ "file", OPT_TEXT, OPT_DATA | OPT_REQUIRED | OPT_FILE, "file with the device's XML" },
	{ "persistent", OPT_FLAG, 0, "for the next start, too" },
	AFFECT_OPTS,
	{ 0 },
};

static const struct opt alias_opts[] = {
	OPT_THE_DOMAIN,
	{ "alias", OPT_TEXT, OPT_DATA | OPT_REQUIRED, "the device's alias" },
	AFFECT_OPTS,
	{ 0 },
};

const struct verb device_verbs[] = {
	{ "domblklist", "list a guest's disks", blklist_opts, run_domblklist },
	{ "domiflist", "list a guest's network interfaces", iflist_opts, run_domiflist },
	{ "domblkinfo", "tell the sizes of a guest's disk", blkinfo_opts, run_domblkinfo },
	{ "domblkstat", "print a disk's statistics", blkstat_opts, run_domblkstat },
	{ "domifstat", "print an interface's statistics", ifstat_opts, run_domifstat },
	{ "ttyconsole", "print the terminal of a guest's console", domain_only, run_ttyconsole },
	{ "attach-device", "plug a device", change_opts, run_attach },
	{ "detach-device", "unplug a device", change_opts, run_detach },
	{ "update-device", "change a device", change_opts, run_update },
	{ "detach-device-alias", "unplug a device by its alias", alias_opts, run_detach_alias },
	{ 0 },
};
