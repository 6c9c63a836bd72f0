/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel image: one verb a function; argv starts with the verb, the result is the exit status. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "image/image.h"
#include "image/luks.h"
#include "image/qcow2.h"

int image_cmd_create(int argc, char **argv);
int image_cmd_info(int argc, char **argv);
int image_cmd_check(int argc, char **argv);
int image_cmd_convert(int argc, char **argv);
int image_cmd_resize(int argc, char **argv);
int image_cmd_map(int argc, char **argv);
int image_cmd_compare(int argc, char **argv);
int image_cmd_snapshot(int argc, char **argv);
int image_cmd_bench(int argc, char **argv);
int image_cmd_bitmap(int argc, char **argv);
int image_cmd_build(int argc, char **argv);
int image_cmd_commit(int argc, char **argv);
int image_cmd_rebase(int argc, char **argv);
int image_cmd_measure(int argc, char **argv);
int image_cmd_serve(int argc, char **argv);
int image_cmd_amend(int argc, char **argv);

/* A message for people; the result is `status`. */
int image_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "10G", "512k", "1.5T": bytes. */
bool image_parse_size(const char *text, uint64_t *size);
/* The other way, as qemu-img writes it. */
const char *image_human_size(uint64_t size, char *buf, unsigned room);

struct image_target {
	const char *format; /* raw, qcow2 or luks */
	struct qcow2_create_options qcow2;
	struct luks_options luks; /* of luks, and of qcow2 where qcow2.luks points here */
	bool luks_cbc;
	unsigned luks_ivgen;
	enum { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL } prealloc;
};
/* -o KEY=VALUE[,KEY=VALUE]...; size goes into qcow2.size. Keeps pointers into text, which it cuts up. */
int image_parse_options(struct image_target *t, char *text);
/* off, metadata, falloc, full */
bool image_parse_prealloc(const char *text, struct image_target *t);
/* Give the bytes from `from` on of an image their space, as t->prealloc says. */
int image_preallocate(struct image *img, const struct image_target *t, uint64_t from, struct err *err);
void image_list_snapshots(struct qcow2 *q);
/* "(12.34/100%)", in place; *shown, 0 at first, is what was printed last. */
void image_progress(bool wanted, uint64_t done, uint64_t all, int *shown);
bool image_all_zero(const uint8_t *p, size_t len);

/* ---- image_open.c ---- */
/* Take --object, --image-opts and --target-image-opts out of argv: the new argc, or -1 after a message. */
int image_take_common(int argc, char **argv);
struct option_pair;
struct image_name {
	const char *path, *format, *key_secret; /* the last two: or NULL */
	struct option_pair *pairs;
	int npairs;
};
/* What `text` names, which is options with --image-opts. */
int image_name_parse(struct image_name *n, const char *text, const char *format, struct err *err);
void image_name_free(struct image_name *n);
struct image *image_open_named(const char *text, const char *format, unsigned flags, struct err *err);
struct image *image_open_target(const char *text, const char *format, unsigned flags, struct err *err);
/* An option of encryption: 1 taken, 0 a bad value, -1 none. And what they mean together. */
int image_luks_option(struct image_target *t, const char *key, const char *value);
int image_luks_finish(struct image_target *t);
json_t *image_luks_json(struct luks *l);
void image_luks_text(struct luks *l, const char *indent);
/*
 * A new file beside path, of which nothing shows until image_commit() puts it
 * in path's place. Where that can't be (a device), *temp is NULL and the file is path itself.
 */
int image_make(const char *path, const struct image_target *t, char **temp, struct err *err);
int image_commit(const char *path, char *temp, struct err *err);
void image_abandon(char *temp);
