/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image info, check, map, measure: nothing here writes, but for check -r. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/image.h"

struct show_args {
	const char *format, *output_format, *repair;
	char *options;
	uint64_t size;
	bool json, quiet, chain, have_size;
	unsigned flags;
	const char *file; /* or NULL */
};

/* The options that these verbs share; `accept` lists those of this one. */
static int parse(int argc, char **argv, const char *accept, struct show_args *a)
{
	static const struct option longs[] = {
		{ "output", required_argument, NULL, 'J' },
		{ "force-share", no_argument, NULL, 'U' },
		{ "backing-chain", no_argument, NULL, 'C' },
		{ "repair", required_argument, NULL, 'r' },
		{ "size", required_argument, NULL, 'S' },
		{ "format", required_argument, NULL, 'f' },
		{ 0 },
	};
	int opt;

	*a = (struct show_args){ 0 };
	optind = 1;
	while ((opt = getopt_long(argc, argv, accept, longs, NULL)) != -1) {
		switch (opt) {
		case 'f':
			a->format = optarg;
			break;
		case 'U':
			a->flags |= IMAGE_NO_LOCK;
			break;
		case 'q':
			a->quiet = true;
			break;
		case 'r':
			a->repair = optarg;
			break;
		case 'C':
			a->chain = true;
			break;
		case 'o':
			a->options = optarg;
			break;
		case 'O':
			a->output_format = optarg;
			break;
		case 'S':
			a->have_size = true;
			if (!image_parse_size(optarg, &a->size))
				return image_fail(1, "'%s' is no size", optarg);
			break;
		case 'J':
			a->json = !strcmp(optarg, "json");
			if (!a->json && strcmp(optarg, "human"))
				return image_fail(1, "--output must be human or json, not '%s'", optarg);
			break;
		default:
			return 1;
		}
	}
	if (optind < argc)
		a->file = argv[optind++];
	if (optind < argc || (!a->file && !a->have_size))
		return image_fail(1, "%s needs one file", argv[0]);
	return 0;
}

static int print_json(json_t *j)
{
	int ret = j && !json_dumpf(j, stdout, JSON_INDENT(4)) ? 0 : 1;

	putchar('\n');
	json_decref(j);
	return ret;
}

/* ---- info ---------------------------------------------------------------------- */

static json_t *snapshot_json(const struct qcow2_snapshot *s)
{
	json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", s->id, "name", s->name, "vm-state-size",
			      (json_int_t)s->vm_state_size, "date-sec", (json_int_t)s->date_sec, "date-nsec",
			      (json_int_t)s->date_nsec, "vm-clock-sec", (json_int_t)(s->vm_clock_ns / 1000000000),
			      "vm-clock-nsec", (json_int_t)(s->vm_clock_ns % 1000000000));

	if (s->icount != UINT64_MAX)
		json_object_set_new(j, "icount", json_integer(s->icount));
	return j;
}

static uint64_t disk_size(const struct image *img)
{
	struct stat st;

	return stat(image_path(img), &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static json_t *bitmaps_json(struct qcow2 *q)
{
	json_t *list = json_array();

	for (unsigned n = 0; n < qcow2_bitmap_count(q); n++) {
		struct qcow2_bitmap_info b;
		json_t *flags = json_array();

		qcow2_bitmap_get(q, n, &b);
		if (b.in_use)
			json_array_append_new(flags, json_string("in-use"));
		if (b.enabled)
			json_array_append_new(flags, json_string("auto"));
		json_array_append_new(list, json_pack("{s:o,s:s,s:I}", "flags", flags, "name", b.name, "granularity",
						      (json_int_t)b.granularity));
	}
	return list;
}

static json_t *info_json(struct image *img)
{
	struct qcow2 *q = image_qcow2(img);
	json_t *j = json_pack("{s:I,s:s,s:s,s:I,s:b}", "virtual-size", (json_int_t)image_size(img), "filename",
			      image_path(img), "format", image_format(img), "actual-size", (json_int_t)disk_size(img),
			      "dirty-flag", 0);
	struct qcow2_info i;

	if (image_luks(img))
		json_object_set_new(j, "encrypted", json_true());
	if (!q && image_luks(img))
		json_object_set_new(j, "format-specific",
				    json_pack("{s:s,s:o}", "type", "luks", "data", image_luks_json(image_luks(img))));
	if (!q)
		return j;
	qcow2_get_info(q, &i);
	json_object_set_new(j, "dirty-flag", json_boolean(i.dirty));
	json_object_set_new(j, "cluster-size", json_integer(i.cluster_size));
	if (i.backing) {
		char *full = image_backing_path(image_path(img), i.backing, NULL);

		json_object_set_new(j, "backing-filename", json_string(i.backing));
		json_object_set_new(j, "full-backing-filename", json_string(full ? full : i.backing));
		free(full);
	}
	if (i.backing && i.backing_format)
		json_object_set_new(j, "backing-filename-format", json_string(i.backing_format));
	if (i.snapshots) {
		json_t *list = json_array();

		for (unsigned n = 0; n < i.snapshots; n++)
			json_array_append_new(list, snapshot_json(qcow2_get_snapshot(q, n)));
		json_object_set_new(j, "snapshots", list);
	}
	if (i.version < 3)
		json_object_set_new(j, "format-specific",
				    json_pack("{s:s,s:{s:s,s:s,s:i}}", "type", "qcow2", "data", "compat", "0.10",
					      "compression-type", "zlib", "refcount-bits", (int)i.refcount_bits));
	else
		json_object_set_new(j, "format-specific",
				    json_pack("{s:s,s:{s:s,s:s,s:b,s:i,s:b,s:b}}", "type", "qcow2", "data", "compat",
					      "1.1", "compression-type", i.compression ? "zstd" : "zlib",
					      "lazy-refcounts", i.lazy_refcounts, "refcount-bits", (int)i.refcount_bits,
					      "corrupt", i.corrupt, "extended-l2", i.extended_l2));
	if (i.data_file)
		json_object_update_new(json_object_get(json_object_get(j, "format-specific"), "data"),
				       json_pack("{s:s,s:b}", "data-file", i.data_file, "data-file-raw",
						 i.data_file_raw));
	if (image_luks(img)) {
		json_t *encrypt = image_luks_json(image_luks(img));

		json_object_set_new(encrypt, "format", json_string("luks"));
		json_object_set_new(json_object_get(json_object_get(j, "format-specific"), "data"), "encrypt", encrypt);
	}
	if (qcow2_bitmap_count(q))
		json_object_set_new(json_object_get(json_object_get(j, "format-specific"), "data"), "bitmaps", bitmaps_json(q));
	return j;
}

void image_list_snapshots(struct qcow2 *q)
{
	struct qcow2_info i;

	qcow2_get_info(q, &i);
	if (!i.snapshots)
		return;
	printf("Snapshot list:\n%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
	for (unsigned n = 0; n < i.snapshots; n++) {
		const struct qcow2_snapshot *s = qcow2_get_snapshot(q, n);
		uint64_t sec = s->vm_clock_ns / 1000000000, ms = s->vm_clock_ns / 1000000 % 1000;
		char date[64] = "", clock[64], icount[32] = "", size[32];
		time_t t = s->date_sec;
		struct tm tm;

		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
		snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", sec / 3600, (unsigned)(sec / 60 % 60),
			 (unsigned)(sec % 60), (unsigned)ms);
		if (s->icount != UINT64_MAX)
			snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
		printf("%-9s %-16s %8s %19s%13s%11s\n", s->id, s->name,
		       image_human_size(s->vm_state_size, size, sizeof(size)), date, clock, icount);
	}
}

static void info_text(struct image *img)
{
	struct qcow2 *q = image_qcow2(img);
	char text[32];
	struct qcow2_info i;

	printf("image: %s\nfile format: %s\n", image_path(img), image_format(img));
	printf("virtual size: %s (%" PRIu64 " bytes)\n", image_human_size(image_size(img), text, sizeof(text)),
	       image_size(img));
	printf("disk size: %s\n", image_human_size(disk_size(img), text, sizeof(text)));
	if (image_luks(img))
		printf("encrypted: yes\n");
	if (!q && image_luks(img)) {
		printf("Format specific information:\n");
		image_luks_text(image_luks(img), "    ");
	}
	if (!q)
		return;
	qcow2_get_info(q, &i);
	if (i.dirty)
		printf("cleanly shut down: no\n");
	printf("cluster_size: %u\n", i.cluster_size);
	if (i.backing) {
		char *full = image_backing_path(image_path(img), i.backing, NULL);

		printf("backing file: %s", i.backing);
		if (full && strcmp(full, i.backing))
			printf(" (actual path: %s)", full);
		printf("\n");
		free(full);
	}
	if (i.backing && i.backing_format)
		printf("backing file format: %s\n", i.backing_format);
	image_list_snapshots(q);
	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
	       i.version < 3 ? "0.10" : "1.1", i.compression ? "zstd" : "zlib");
	if (i.version >= 3)
		printf("    lazy refcounts: %s\n", i.lazy_refcounts ? "true" : "false");
	if (qcow2_bitmap_count(q))
		printf("    bitmaps:\n");
	for (unsigned n = 0; n < qcow2_bitmap_count(q); n++) {
		struct qcow2_bitmap_info b;
		unsigned flag = 0;

		qcow2_bitmap_get(q, n, &b);
		printf("        [%u]:\n            flags:\n", n);
		if (b.in_use)
			printf("                [%u]: in-use\n", flag++);
		if (b.enabled)
			printf("                [%u]: auto\n", flag++);
		printf("            name: %s\n            granularity: %" PRIu32 "\n", b.name, b.granularity);
	}
	printf("    refcount bits: %u\n", i.refcount_bits);
	if (image_luks(img)) {
		printf("    encrypt:\n        format: luks\n");
		image_luks_text(image_luks(img), "        ");
	}
	if (i.data_file)
		printf("    data file: %s\n    data file raw: %s\n", i.data_file, i.data_file_raw ? "true" : "false");
	if (i.version >= 3)
		printf("    corrupt: %s\n    extended l2: %s\n", i.corrupt ? "true" : "false",
		       i.extended_l2 ? "true" : "false");
}

int image_cmd_info(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct show_args a;
	struct image *img;
	json_t *list = NULL;

	if (parse(argc, argv, "f:U", &a))
		return 1;
	/* With the chain, the whole of it must be there; without, a missing backing file is no hindrance. */
	img = image_open_named(a.file, a.format, a.flags | IMAGE_LOCKED | IMAGE_CHECK | (a.chain ? 0 : IMAGE_NO_BACKING), &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	if (a.json && a.chain)
		list = json_array();
	for (struct image *at = img; at; at = image_qcow2(at) ? qcow2_backing(image_qcow2(at)) : NULL) {
		if (list)
			json_array_append_new(list, info_json(at));
		else if (a.json)
			print_json(info_json(at));
		else
			info_text(at);
		if (!a.json && image_qcow2(at) && qcow2_backing(image_qcow2(at)))
			putchar('\n');
	}
	image_close(img, NULL);
	return list ? print_json(list) : 0;
}

/* ---- check ---------------------------------------------------------------------- */

static void say_finding(void *opaque, bool corruption, const char *text)
{
	fprintf(corruption ? stderr : stdout, "%s\n", text);
}

static int print_check(const struct show_args *a, const struct qcow2_check *c)
{
	json_t *j;

	if (!a->json) {
		if (a->quiet)
			return 0;
		if (c->leaks_fixed || c->corruptions_fixed)
			printf("The following inconsistencies were found and repaired:\n\n    %" PRIu64
			       " leaked clusters\n    %" PRIu64 " corruptions\n\n",
			       c->leaks_fixed, c->corruptions_fixed);
		if (!c->corruptions && !c->leaks)
			printf("No errors were found on the image.\n");
		if (c->corruptions)
			printf("\n%" PRIu64 " errors were found on the image.\nData may be corrupted, or further "
					    "writes to the image may corrupt it.\n",
			       c->corruptions);
		if (c->leaks)
			printf("\n%" PRIu64 " leaked clusters were found on the image.\nThis means waste of disk "
					    "space, but no harm to data.\n",
			       c->leaks);
		if (c->total)
			printf("%" PRIu64 "/%" PRIu64
			       " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
			       c->allocated, c->total, c->allocated * 100.0 / c->total,
			       c->fragmented * 100.0 / (c->allocated ? c->allocated : 1),
			       c->compressed * 100.0 / (c->allocated ? c->allocated : 1));
		printf("Image end offset: %" PRIu64 "\n", c->end);
		return 0;
	}
	j = json_pack("{s:I,s:I,s:I,s:I,s:s,s:s}", "image-end-offset", (json_int_t)c->end, "total-clusters",
		      (json_int_t)c->total, "check-errors", (json_int_t)c->errors, "allocated-clusters",
		      (json_int_t)c->allocated, "filename", a->file, "format", "qcow2");
	const struct {
		const char *name;
		uint64_t n;
	} optional[] = {
		{ "leaks", c->leaks },
		{ "corruptions", c->corruptions },
		{ "leaks-fixed", c->leaks_fixed },
		{ "corruptions-fixed", c->corruptions_fixed },
		{ "fragmented-clusters", c->fragmented },
		{ "compressed-clusters", c->compressed },
	};
	for (unsigned i = 0; i < sizeof(optional) / sizeof(optional[0]); i++)
		if (optional[i].n)
			json_object_set_new(j, optional[i].name, json_integer(optional[i].n));
	return print_json(j);
}

int image_cmd_check(int argc, char **argv)
{
	struct qcow2_check c = { 0 };
	enum qcow2_fix fix = QCOW2_FIX_NONE;
	struct err err = ERR_INIT;
	struct show_args a;
	struct image *img;
	int ret;

	if (parse(argc, argv, "f:Uqr:", &a))
		return 1;
	if (a.repair && strcmp(a.repair, "leaks") && strcmp(a.repair, "all"))
		return image_fail(1, "-r takes leaks or all, not '%s'", a.repair);
	if (a.repair)
		fix = !strcmp(a.repair, "all") ? QCOW2_FIX_ALL : QCOW2_FIX_LEAKS;
	img = image_open_named(a.file, a.format, a.flags | IMAGE_CHECK | IMAGE_NO_BACKING | (fix ? IMAGE_RDWR : 0), &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	if (!image_qcow2(img)) {
		image_close(img, NULL);
		return image_fail(63, "%s: images of this format have nothing to check", a.file);
	}
	if (!a.json && !a.quiet)
		c.report = say_finding;
	ret = qcow2_check(image_qcow2(img), fix, &c, &err);
	image_close(img, NULL);
	if (ret)
		return image_fail(err.code == ENOTSUP ? 63 : 1, "%s", err_msg(&err));
	if (print_check(&a, &c))
		return 1;
	return c.corruptions ? 2 : c.leaks ? 3 : 0;
}

/* ---- map --------------------------------------------------------------------------- */

static bool same(const struct image_extent *a, const struct image_extent *b)
{
	return a->data == b->data && a->zero == b->zero && a->present == b->present && a->depth == b->depth &&
	       a->path == b->path && a->compressed == b->compressed && a->has_offset == b->has_offset &&
	       (!a->has_offset || a->offset + a->len == b->offset);
}

static void print_extent(uint64_t start, const struct image_extent *e, bool json, bool first)
{
	if (json) {
		printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
		       ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
		       first ? "[" : ",\n", start, e->len, e->depth, e->present ? "true" : "false",
		       e->zero ? "true" : "false", e->data ? "true" : "false");
		if (e->has_offset)
			printf(", \"offset\": %" PRIu64, e->offset);
		printf("}");
	} else if (e->data && e->has_offset) {
		char hex[3][24];

		snprintf(hex[0], sizeof(hex[0]), "%s%" PRIx64, start ? "0x" : "", start);
		snprintf(hex[1], sizeof(hex[1]), "%s%" PRIx64, e->len ? "0x" : "", e->len);
		snprintf(hex[2], sizeof(hex[2]), "%s%" PRIx64, e->offset ? "0x" : "", e->offset);
		printf("%-16s%-16s%-16s%s\n", hex[0], hex[1], hex[2], e->path);
	}
}

static int map_image(struct image *img, bool json, struct err *err)
{
	uint64_t size = image_size(img), start = 0;
	struct image_extent e = { 0 }, next;
	bool first = true;

	if (!json)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	for (uint64_t at = 0; at < size; at += next.len) {
		int ret = image_map(img, at, size - at, &next, err);

		if (ret)
			return ret;
		if (!json && next.compressed)
			return err_set(err, ENOTSUP,
				       "%s has compressed clusters, which can't be shown as text: use --output=json",
				       image_path(img));
		if (e.len && same(&e, &next)) {
			e.len += next.len;
			continue;
		}
		if (e.len) {
			print_extent(start, &e, json, first);
			first = false;
		}
		start = at;
		e = next;
	}
	if (e.len)
		print_extent(start, &e, json, first);
	if (json)
		printf("%s]\n", e.len ? "" : "[");
	return 0;
}

int image_cmd_map(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct show_args a;
	struct image *img;
	int ret;

	if (parse(argc, argv, "f:U", &a))
		return 1;
	img = image_open_named(a.file, a.format, a.flags, &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	ret = map_image(img, a.json, &err);
	image_close(img, NULL);
	return ret ? image_fail(1, "%s", err_msg(&err)) : 0;
}

/* ---- measure ------------------------------------------------------------------------- */

/* Bytes in clusters of the new image that have data. */
static int count_data(struct image *img, uint64_t cluster, uint64_t *data, struct err *err)
{
	uint64_t size = image_size(img), counted = 0; /* all below is counted */
	struct image_extent e;

	*data = 0;
	for (uint64_t at = 0; at < size; at += e.len) {
		uint64_t from, to;
		int ret = image_map(img, at, size - at, &e, err);

		if (ret)
			return ret;
		if (!e.data)
			continue;
		from = at / cluster * cluster;
		to = (at + e.len + cluster - 1) / cluster * cluster;
		from = from < counted ? counted : from;
		*data += to > from ? to - from : 0;
		counted = to;
	}
	return 0;
}

int image_cmd_measure(int argc, char **argv)
{
	struct image_target t = { .format = "raw" };
	struct err err = ERR_INIT;
	struct show_args a;
	struct image *img;
	uint64_t data = 0, required, full;
	int ret = 0;

	if (parse(argc, argv, "f:UO:o:", &a))
		return 1;
	t.format = a.output_format ? a.output_format : "raw";
	if (strcmp(t.format, "raw") && strcmp(t.format, "qcow2") && strcmp(t.format, "luks"))
		return image_fail(1, "format '%s' is not supported, only raw, qcow2 and luks are", t.format);
	if (a.options && image_parse_options(&t, a.options))
		return 1;
	t.qcow2.size = a.size;
	if (a.file) {
		img = image_open_named(a.file, a.format, a.flags, &err);
		if (!img)
			return image_fail(1, "%s", err_msg(&err));
		t.qcow2.size = image_size(img);
		ret = count_data(img, 1ull << (t.qcow2.cluster_bits ? t.qcow2.cluster_bits : 16), &data, &err);
		image_close(img, NULL);
	}
	if (ret)
		return image_fail(1, "%s", err_msg(&err));
	required = full = t.qcow2.size;
	if (!strcmp(t.format, "luks")) {
		uint64_t header;

		if (luks_measure(&t.luks, &header, "the image", &err))
			return image_fail(1, "%s", err_msg(&err));
		required = full = t.qcow2.size + header;
	}
	if (!strcmp(t.format, "qcow2")) {
		required = qcow2_measure(&t.qcow2, data);
		full = qcow2_measure(&t.qcow2, t.qcow2.size);
		if (!full)
			return image_fail(1, "an image of that size cannot have these options");
	}
	if (a.json)
		return print_json(
			json_pack("{s:I,s:I}", "required", (json_int_t)required, "fully-allocated", (json_int_t)full));
	printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", required, full);
	return 0;
}
