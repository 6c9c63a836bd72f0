/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random changes to the golden definitions: each is either refused with an
 * error or read, and what is read is printed, read again and printed the same,
 * valid under libvirt's schema.
 *
 *   test_model_mutate [COUNT [SEED]]      (20,000; scripts/check-long runs a million)
 */
#include <dirent.h>
#include <libxml/parser.h>
#include <libxml/relaxng.h>

#include "model_test.h"

#define SCHEMA "/usr/share/libvirt/schemas/domain.rng"
#define TEXT_MAX (1u << 16)
#define SEEDS_MAX 64

static unsigned long count = 20000;
static uint64_t rng_state = 1;
static char *seeds[SEEDS_MAX];
static unsigned n_seeds;

static uint32_t rnd(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (rng_state >> 16) % below;
}

static int is_input(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 4 && (!strcmp(e->d_name + n - 4, ".xml") || !strcmp(e->d_name + n - 4, ".out"));
}

static int load_seeds(void **state)
{
	struct dirent **files;
	int n = scandir(MODEL_DATA "/golden", &files, is_input, alphasort);

	(void)state;
	for (int i = 0; i < n; i++) {
		if (n_seeds < SEEDS_MAX)
			seeds[n_seeds++] = read_text(MODEL_DATA "/golden", files[i]->d_name);
		free(files[i]);
	}
	if (n >= 0)
		free(files);
	return n_seeds ? 0 : -1;
}

static int free_seeds(void **state)
{
	(void)state;
	while (n_seeds)
		free(seeds[--n_seeds]);
	return 0;
}

/* ---- Changes -------------------------------------------------------------- */

struct span {
	char *from;
	size_t len;
};

/* A random piece: an element (without regard to nesting), a tag, an attribute's value, a text, a line. */
static struct span pick(char *s)
{
	size_t n = strlen(s);
	char *p = s + rnd(n ? n : 1), *end;
	const char *open, *close;

	switch (rnd(4)) {
	case 0: /* a value */
		p = strpbrk(p, "'\"");
		if (!p)
			break;
		end = strchr(p + 1, *p);
		return (struct span){ p + 1, end ? (size_t)(end - p - 1) : 0 };
	case 1:
		open = "<", close = ">";
		p = strstr(p, open);
		if (!p)
			break;
		end = strstr(p, close);
		return (struct span){ p, end ? (size_t)(end - p + 1) : 0 };
	case 2: /* a line, or with its indented followers a whole element */
		while (p > s && p[-1] != '\n')
			p--;
		end = strchr(p, '\n');
		if (end && rnd(2)) {
			size_t indent = strspn(p, " ");

			while (end[1] && strspn(end + 1, " ") > indent && strchr(end + 1, '\n'))
				end = strchr(end + 1, '\n');
			if (end[1] == ' ' && end[1 + indent] == '<' && end[2 + indent] == '/' && strchr(end + 1, '\n'))
				end = strchr(end + 1, '\n');
		}
		return (struct span){ p, end ? (size_t)(end - p + 1) : 0 };
	default: /* a few bytes */
		n -= p - s;
		return (struct span){ p, n ? rnd(n < 8 ? n : 8) : 0 };
	}
	return (struct span){ s, 0 };
}

static void splice(char *s, struct span at, const char *text, size_t len)
{
	size_t n = strlen(s);

	if (n - at.len + len >= TEXT_MAX)
		return;
	memmove(at.from + len, at.from + at.len, n - (at.from - s) - at.len + 1);
	memcpy(at.from, text, len);
}

static void mutate(char *s)
{
	static const char *const values[] = {
		"", "0", "1", "-1", "2", "255", "256", "4294967295", "4294967296", "18446744073709551616", "yes", "no", "on",
		"off", "none", "virtio", "pci", "0x1f", "vda", "sdb", "unix", "pty", "file", "qcow2", "raw", "default", " ",
		"&amp;", "&#0;", "&x;", "<![CDATA[x]]>", "<!-- -->", "<?pi?>", "1-4,^2", "KiB", "EiB", "\xff", "\xc3\xa4",
		"q35", "microvm", "host-passthrough", "custom", "scsi", "sata", "usb", "ua-x", "a/b", "../x",
	};
	char other[2048];
	struct span at = pick(s), from;

	switch (rnd(4)) {
	case 0:
		splice(s, at, "", 0);
		break;
	case 1: { /* something from another definition */
		from = pick(seeds[rnd(n_seeds)]);
		if (from.len >= sizeof(other))
			return;
		memcpy(other, from.from, from.len);
		splice(s, rnd(2) ? at : (struct span){ at.from, 0 }, other, from.len);
		break;
	}
	case 2: /* twice */
		if (at.len >= sizeof(other))
			return;
		memcpy(other, at.from, at.len);
		splice(s, (struct span){ at.from, 0 }, other, at.len);
		break;
	default: {
		const char *v = values[rnd(sizeof(values) / sizeof(values[0]))];

		splice(s, at, v, strlen(v));
	}
	}
}

/* ---- What must hold ------------------------------------------------------- */

struct totals {
	unsigned long read, refused, invalid;
};

static xmlRelaxNGValidCtxt *schema_load(xmlRelaxNG **rng)
{
	xmlRelaxNGParserCtxt *parser = xmlRelaxNGNewParserCtxt(SCHEMA);

	*rng = parser ? xmlRelaxNGParse(parser) : NULL;
	xmlRelaxNGFreeParserCtxt(parser);
	return *rng ? xmlRelaxNGNewValidCtxt(*rng) : NULL;
}

static void quiet(void *opaque, const char *fmt, ...)
{
	(void)opaque;
	(void)fmt;
}

static char last_error[512];

static void keep_error(void *opaque, xmlErrorPtr e)
{
	(void)opaque;
	if (!last_error[0])
		snprintf(last_error, sizeof(last_error), "line %d: %s", e->line, e->message);
}

static bool valid(xmlRelaxNGValidCtxt *ctxt, const char *text)
{
	xmlDoc *doc = xmlReadMemory(text, strlen(text), NULL, NULL, XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	int ret;

	if (!doc)
		return false;
	last_error[0] = '\0';
	ret = xmlRelaxNGValidateDoc(ctxt, doc);
	xmlFreeDoc(doc);
	return !ret;
}

static void check(const char *xml, xmlRelaxNGValidCtxt *schema, struct totals *t)
{
	struct domain_caps caps = everything();
	struct err err = ERR_INIT;
	struct domain *def = domain_parse(xml, 0, &caps, &err), *again;
	char *first, *second, *third;

	if (!def) {
		if (!err.code || !err.msg[0])
			fail_msg("refused without an error:\n%s", xml);
		t->refused++;
		return;
	}
	t->read++;
	first = domain_format(def, 0);
	again = domain_parse(first, 0, &caps, &err);
	if (!again)
		fail_msg("%s: cannot read what Keel prints:\n%s\nfor:\n%s", err_msg(&err), first, xml);
	second = domain_format(again, 0);
	domain_free(again);
	/* Reading puts controllers in order, once. */
	again = domain_parse(second, 0, &caps, &err);
	assert_non_null(again);
	third = domain_format(again, 0);
	if (strcmp(second, third))
		fail_msg("not a fixed point:\n%s\nthen:\n%s", second, third);
	if (strlen(first) != strlen(second))
		fail_msg("changed by reading it again:\n%s\nthen:\n%s", first, second);
	if (schema && !valid(schema, third)) {
		if (!t->invalid++ || getenv("MUTATE_SHOW"))
			fprintf(stderr, "invalid under the schema: %s\n%s\n", last_error, third);
	}
	free(first);
	free(second);
	free(third);
	domain_free(again);
	domain_free(def);
}

static void test_mutations(void **state)
{
	xmlRelaxNGValidCtxt *schema = NULL;
	xmlRelaxNG *rng = NULL;
	struct totals t = { 0 };
	char *text = malloc(TEXT_MAX);

	(void)state;
	xmlSetGenericErrorFunc(NULL, quiet);
	if (access(SCHEMA, R_OK))
		print_message("no schemas of libvirt's on this host: validity is not checked\n");
	else
		schema = schema_load(&rng);
	if (schema)
		xmlRelaxNGSetValidStructuredErrors(schema, keep_error, NULL);
	for (unsigned long i = 0; i < count; i++) {
		snprintf(text, TEXT_MAX, "%s", seeds[rnd(n_seeds)]);
		for (unsigned k = 1 + rnd(3) / 2; k; k--)
			mutate(text);
		check(text, schema, &t);
	}
	print_message("%lu mutations: %lu read, %lu refused, %lu printed invalidly\n", count, t.read, t.refused, t.invalid);
	free(text);
	xmlRelaxNGFreeValidCtxt(schema);
	xmlRelaxNGFree(rng);
	xmlCleanupParser();
	assert_true(t.read > count / 50); /* else the mutations are too wild to say anything */
	assert_int_equal(t.invalid, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_mutations) };

	if (argc > 1)
		count = strtoul(argv[1], NULL, 10);
	if (argc > 2)
		rng_state = strtoull(argv[2], NULL, 10) * 2 + 1;
	return cmocka_run_group_tests(tests, load_seeds, free_seeds);
}
