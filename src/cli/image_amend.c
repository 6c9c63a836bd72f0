/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image amend: the key slots of encrypted images. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/image.h"

struct amend {
	const char *state, *new_secret, *old_secret;
	unsigned iter_ms;
	int slot;
};

static bool set(struct amend *a, const char *key, const char *value)
{
	uint64_t n;

	if (!strncmp(key, "encrypt.", 8))
		key += 8;
	if (!strcmp(key, "format"))
		return !strcmp(value, "luks");
	if (!strcmp(key, "state")) {
		a->state = value;
		return !strcmp(value, "active") || !strcmp(value, "inactive");
	}
	if (!strcmp(key, "new-secret"))
		a->new_secret = value;
	else if (!strcmp(key, "old-secret"))
		a->old_secret = value;
	else if (!strcmp(key, "keyslot") && image_parse_size(value, &n) && n < LUKS_SLOTS)
		a->slot = n;
	else if (!strcmp(key, "iter-time") && image_parse_size(value, &n) && n && n <= 600000)
		a->iter_ms = n;
	else
		return false;
	return true;
}

static int parse(struct amend *a, char *text)
{
	char *save;

	for (char *key = strtok_r(text, ",", &save); key; key = strtok_r(NULL, ",", &save)) {
		char *value = strchr(key, '=');

		if (!value)
			return image_fail(1, "-o %s lacks a value", key);
		*value++ = 0;
		if (!set(a, key, value))
			return image_fail(1,
					  "option '%s' cannot be '%s'; the options are state (active, inactive), new-secret, "
					  "old-secret, keyslot (0 to 7) and iter-time (milliseconds), for qcow2 with 'encrypt.' "
					  "before them",
					  key, value);
	}
	if (!a->state)
		return image_fail(1, "amend: state=active adds a passphrase, state=inactive takes one away: say which");
	if (!strcmp(a->state, "active") ? !a->new_secret || a->old_secret : a->new_secret || (!a->old_secret == (a->slot < 0)))
		return image_fail(1, "amend: state=active needs new-secret; state=inactive needs either old-secret or keyslot");
	return 0;
}

int image_cmd_amend(int argc, char **argv)
{
	static const struct option longs[] = { { "force", no_argument, NULL, 'X' }, { 0 } };
	struct amend a = { .slot = -1 };
	const char *format = NULL;
	char *options = NULL;
	struct err err = ERR_INIT;
	bool force = false;
	struct image *img;
	int opt, ret;

	optind = 1;
	while ((opt = getopt_long(argc, argv, "qpf:t:o:", longs, NULL)) != -1) {
		switch (opt) {
		case 'f':
			format = optarg;
			break;
		case 'o':
			options = optarg;
			break;
		case 'X':
			force = true;
			break;
		case 'q':
		case 'p':
		case 't': /* all is written back before the end anyway */
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1 || !options)
		return image_fail(1, "amend needs -o and one file");
	if (parse(&a, options))
		return 1;
	img = image_open_named(argv[optind], format, IMAGE_RDWR | IMAGE_NO_BACKING, &err);
	if (!img)
		return image_fail(1, "%s", err_msg(&err));
	if (!image_luks(img))
		ret = err_set(&err, ENOTSUP, "%s is not encrypted: its key slots are all that amend changes", image_path(img));
	else if (!strcmp(a.state, "active"))
		ret = luks_slot_add(image_luks(img), a.slot, a.new_secret, a.iter_ms, &err);
	else
		ret = luks_slot_erase(image_luks(img), a.slot, a.old_secret, force, &err);
	if (image_close(img, &err) || ret)
		return image_fail(1, "%s", err_msg(&err));
	return 0;
}
