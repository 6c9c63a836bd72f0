/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every verb of keel image understands: --object, and images by their options instead of by name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"
#include "vmm/objects.h"
#include "vmm/options.h"

#define SETTINGS 16

static bool by_options[2]; /* images that are read, and the target of convert */

/* 1: taken; 0: it is none of them; -1: failed, which was said. *more: it has its value in the next argument. */
static int take(const char *arg, const char *next, bool *more)
{
	struct err err = ERR_INIT;
	const char *value = next;

	*more = false;
	if (!strcmp(arg, "--image-opts") || !strcmp(arg, "--target-image-opts")) {
		by_options[arg[2] == 't'] = true;
		return 1;
	}
	if (!strncmp(arg, "--object=", 9))
		value = arg + 9;
	else if (strcmp(arg, "--object"))
		return 0;
	else
		*more = true;
	if (!value) {
		image_fail(1, "--object needs a value: secret,id=ID,file=FILE");
		return -1;
	}
	if (object_secret_option(value, &err)) {
		image_fail(1, "%s", err_msg(&err));
		return -1;
	}
	return 1;
}

int image_take_common(int argc, char **argv)
{
	int n = 1;

	for (int i = 1; i < argc; i++) {
		bool more;
		int taken = take(argv[i], i + 1 < argc ? argv[i + 1] : NULL, &more);

		if (taken < 0)
			return -1;
		if (!taken)
			argv[n++] = argv[i];
		i += taken && more;
	}
	argv[n] = NULL;
	return n;
}

static int set(struct image_name *n, const struct option_pair *p, struct err *err)
{
	const char *key = p->key;

	if (!strcmp(key, "driver"))
		n->format = p->value;
	else if (!strcmp(key, "file.filename") || !strcmp(key, "filename"))
		n->path = p->value;
	else if (!strcmp(key, "key-secret") || !strcmp(key, "encrypt.key-secret"))
		n->key_secret = p->value;
	else if (!strcmp(key, "encrypt.format") && strcmp(p->value, "luks"))
		return err_set(err, ENOTSUP, "encrypt.format '%s' is not supported, only luks is", p->value);
	else if (strcmp(key, "encrypt.format") && strcmp(key, "file.driver"))
		return err_set(err, EINVAL,
			       "--image-opts: there is no option '%s'; use driver, file.filename, key-secret and encrypt.key-secret",
			       key);
	return 0;
}

static int name_parse(struct image_name *n, const char *text, const char *format, bool target, struct err *err)
{
	struct option_pair *pairs;
	int ret = 0;

	*n = (struct image_name){ .path = text, .format = format };
	if (!by_options[target])
		return 0;
	if (format)
		return err_set(err, EINVAL, "--image-opts and -f exclude each other: give driver=%s", format);
	pairs = calloc(SETTINGS, sizeof(*pairs));
	if (!pairs)
		return err_set(err, ENOMEM, "no memory");
	n->path = NULL;
	n->pairs = pairs;
	n->npairs = options_split("--image-opts", text, NULL, pairs, SETTINGS, err);
	if (n->npairs < 0) {
		n->npairs = 0;
		ret = -EINVAL;
	}
	for (int i = 0; !ret && i < n->npairs; i++)
		ret = set(n, &pairs[i], err);
	if (!ret && !n->path)
		ret = err_set(err, EINVAL, "--image-opts: file.filename is missing in '%s'", text);
	if (ret)
		image_name_free(n);
	return ret;
}

int image_name_parse(struct image_name *n, const char *text, const char *format, struct err *err)
{
	return name_parse(n, text, format, false, err);
}

void image_name_free(struct image_name *n)
{
	options_split_free(n->pairs, n->npairs);
	free(n->pairs);
	*n = (struct image_name){ 0 };
}

static struct image *open_named(const char *text, const char *format, unsigned flags, bool target, struct err *err)
{
	struct image_name n;
	struct image *img;

	if (name_parse(&n, text, format, target, err))
		return NULL;
	img = image_open_keyed(n.path, n.format, flags, n.key_secret, err);
	image_name_free(&n);
	return img;
}

struct image *image_open_named(const char *text, const char *format, unsigned flags, struct err *err)
{
	return open_named(text, format, flags, false, err);
}

struct image *image_open_target(const char *text, const char *format, unsigned flags, struct err *err)
{
	return open_named(text, by_options[1] ? NULL : format, flags, true, err);
}

/* ---- Encryption's options of new images ---------------------------------------------- */

static const char *const modes[] = { "xts", "cbc" };
static const char *const ivgens[] = { "plain64", "plain", "essiv" };

static int index_of(const char *text, const char *const *names, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -1;
}

static bool parse_hash(const char *text, enum luks_hash *hash)
{
	static const char *const names[] = {
		[LUKS_SHA256] = "sha256", [LUKS_SHA1] = "sha1", [LUKS_SHA224] = "sha224", [LUKS_SHA384] = "sha384",
		[LUKS_SHA512] = "sha512",
	};
	int i = index_of(text, names, sizeof(names) / sizeof(names[0]));

	*hash = i < 0 ? LUKS_SHA256 : (enum luks_hash)i;
	return i >= 0;
}

int image_luks_option(struct image_target *t, const char *key, const char *value)
{
	struct luks_options *o = &t->luks;
	uint64_t n;
	int i;

	if (!strncmp(key, "encrypt.", 8))
		key += 8;
	else if (t->format && !strcmp(t->format, "qcow2"))
		return -1;
	if (!strcmp(key, "format")) {
		if (strcmp(value, "luks"))
			return 0;
		t->qcow2.luks = o;
	} else if (!strcmp(key, "key-secret")) {
		o->key_secret = value;
	} else if (!strcmp(key, "cipher-alg")) {
		o->bits = !strcmp(value, "aes-128") ? 128 : !strcmp(value, "aes-192") ? 192 : !strcmp(value, "aes-256") ? 256 : 0;
		return o->bits != 0;
	} else if (!strcmp(key, "cipher-mode")) {
		i = index_of(value, modes, 2);
		t->luks_cbc = i == 1;
		return i >= 0;
	} else if (!strcmp(key, "ivgen-alg")) {
		i = index_of(value, ivgens, 3);
		t->luks_ivgen = i < 0 ? 0 : i;
		return i >= 0;
	} else if (!strcmp(key, "ivgen-hash-alg")) {
		return parse_hash(value, &o->essiv_hash);
	} else if (!strcmp(key, "hash-alg")) {
		return parse_hash(value, &o->hash);
	} else if (!strcmp(key, "iter-time")) {
		if (!image_parse_size(value, &n) || !n || n > 600000)
			return 0;
		o->iter_ms = n;
	} else {
		return -1;
	}
	return 1;
}

/* The parts of the mode, together. */
int image_luks_finish(struct image_target *t)
{
	static const enum luks_mode xts[] = { LUKS_XTS_PLAIN64, LUKS_XTS_PLAIN },
				    cbc[] = { LUKS_CBC_PLAIN64, LUKS_CBC_PLAIN, LUKS_CBC_ESSIV };

	if (!t->luks_cbc && t->luks_ivgen == 2)
		return image_fail(1, "ivgen-alg essiv is for cipher-mode cbc only");
	t->luks.mode = t->luks_cbc ? cbc[t->luks_ivgen] : xts[t->luks_ivgen];
	return 0;
}

/* ---- Their part of info --------------------------------------------------------------- */

json_t *image_luks_json(struct luks *l)
{
	struct luks_info i;
	json_t *j, *slots = json_array();

	luks_get_info(l, &i);
	for (unsigned n = 0; n < LUKS_SLOTS; n++) {
		json_t *s = json_pack("{s:b,s:I}", "active", i.slot[n].active, "key-offset", (json_int_t)i.slot[n].offset);

		if (i.slot[n].active)
			json_object_update_new(s, json_pack("{s:I,s:I}", "iters", (json_int_t)i.slot[n].iterations, "stripes",
							    (json_int_t)i.slot[n].stripes));
		json_array_append_new(slots, s);
	}
	j = json_pack("{s:s,s:s,s:s,s:s,s:I,s:s,s:I,s:o}", "ivgen-alg", i.ivgen, "hash-alg", i.hash, "cipher-alg", i.cipher,
		      "uuid", i.uuid, "payload-offset", (json_int_t)i.payload, "cipher-mode", i.mode, "master-key-iters",
		      (json_int_t)i.master_iterations, "slots", slots);
	if (i.ivgen_hash)
		json_object_set_new(j, "ivgen-hash-alg", json_string(i.ivgen_hash));
	return j;
}

void image_luks_text(struct luks *l, const char *indent)
{
	struct luks_info i;

	luks_get_info(l, &i);
	printf("%sivgen alg: %s\n", indent, i.ivgen);
	if (i.ivgen_hash)
		printf("%sivgen hash alg: %s\n", indent, i.ivgen_hash);
	printf("%shash alg: %s\n%scipher alg: %s\n%suuid: %s\n%scipher mode: %s\n%sslots:\n", indent, i.hash, indent, i.cipher,
	       indent, i.uuid, indent, i.mode, indent);
	for (unsigned n = 0; n < LUKS_SLOTS; n++) {
		printf("%s    [%u]:\n%s        active: %s\n", indent, n, indent, i.slot[n].active ? "true" : "false");
		if (i.slot[n].active)
			printf("%s        iters: %u\n", indent, i.slot[n].iterations);
		printf("%s        key offset: %llu\n", indent, (unsigned long long)i.slot[n].offset);
		if (i.slot[n].active)
			printf("%s        stripes: %u\n", indent, i.slot[n].stripes);
	}
	printf("%spayload offset: %llu\n%smaster key iters: %u\n", indent, (unsigned long long)i.payload, indent,
	       i.master_iterations);
}
