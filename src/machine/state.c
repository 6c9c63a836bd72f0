/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/clock.h"

/* A section: this header, the body, little-endian throughout. */
struct section {
	uint32_t magic;
	uint16_t version, pad;
	uint32_t len; /* of the body */
	char id[64], name[64];
};
#define SECTION_MAGIC 0x4b53454bu /* "KESK" */

void state_buf_free(struct state_buf *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

void state_buf_put(struct state_buf *b, const void *data, size_t len)
{
	if (b->failed)
		return;
	if (b->room - b->len < len) {
		size_t room = b->room ? b->room : 4096;
		uint8_t *p;

		while (room - b->len < len)
			room *= 2;
		p = realloc(b->data, room);
		if (!p) {
			b->failed = true;
			return;
		}
		b->data = p;
		b->room = room;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static unsigned int_size(enum state_type type)
{
	switch (type) {
	case STATE_U8:
	case STATE_BOOL:
		return 1;
	case STATE_U16:
		return 2;
	case STATE_U32:
		return 4;
	default:
		return 8;
	}
}

static void save_fields(struct state_buf *b, const struct state_desc *desc, void *obj, unsigned depth)
{
	assert(depth < STATE_MAX_DEPTH);
	if (desc->pre_save)
		desc->pre_save(obj);
	for (const struct state_field *f = desc->fields; f->name; f++) {
		uint8_t *p = (uint8_t *)obj + f->offset;

		switch (f->type) {
		case STATE_BYTES:
			state_buf_put(b, p, f->size);
			break;
		case STATE_STRUCT:
			for (uint32_t i = 0; i < f->count; i++)
				save_fields(b, f->sub, p + (size_t)i * f->size, depth + 1);
			break;
		case STATE_TIMER: {
			struct vtimer *t = *(struct vtimer **)p;
			uint64_t deadline = t ? vtimer_deadline(t) : VTIMER_NEVER;

			state_buf_put(b, &deadline, sizeof(deadline));
			break;
		}
		case STATE_VAR_U8: {
			uint32_t len = *(uint32_t *)((uint8_t *)obj + f->len_offset);

			assert(len <= f->size);
			state_buf_put(b, &len, sizeof(len));
			state_buf_put(b, *(uint8_t **)p, len);
			break;
		}
		default:
			state_buf_put(b, p, (size_t)int_size(f->type) * f->count);
		}
	}
}

int state_save(struct state_buf *b, const char *id, const struct state_desc *desc, void *obj, struct err *err)
{
	struct section h = { .magic = SECTION_MAGIC, .version = desc->version };
	size_t start = b->len;

	assert(strlen(id) < sizeof(h.id) && strlen(desc->name) < sizeof(h.name));
	strcpy(h.id, id);
	strcpy(h.name, desc->name);
	state_buf_put(b, &h, sizeof(h));
	save_fields(b, desc, obj, 0);
	if (b->failed)
		return err_set(err, ENOMEM, "no memory to save the state of %s", id);
	h.len = b->len - start - sizeof(h);
	memcpy(b->data + start, &h, sizeof(h));
	return 0;
}

int state_next(struct state_reader *r, struct err *err)
{
	struct section h;

	if (r->pos == r->len)
		return 0;
	if (r->len - r->pos < sizeof(h))
		return err_set(err, EINVAL, "the state ends inside the header of a section");
	memcpy(&h, r->data + r->pos, sizeof(h));
	if (h.magic != SECTION_MAGIC || !memchr(h.id, 0, sizeof(h.id)) || !memchr(h.name, 0, sizeof(h.name)))
		return err_set(err, EINVAL, "no section of a state begins at byte %zu", r->pos);
	if (h.len > r->len - r->pos - sizeof(h))
		return err_set(err, EINVAL, "the state ends inside section %s", h.id);
	memcpy(r->id, h.id, sizeof(r->id));
	memcpy(r->name, h.name, sizeof(r->name));
	r->version = h.version;
	r->body = r->data + r->pos + sizeof(h);
	r->body_len = h.len;
	r->pos += sizeof(h) + h.len;
	return 1;
}

struct body {
	const char *id;
	const uint8_t *p;
	size_t left;
};

static int take(struct body *b, const struct state_field *f, void *to, size_t n, struct err *err)
{
	if (b->left < n)
		return err_set(err, EINVAL, "state of %s ends inside field %s", b->id, f->name);
	memcpy(to, b->p, n);
	b->p += n;
	b->left -= n;
	return 0;
}

static int load_ints(struct body *b, const struct state_field *f, uint8_t *p, struct err *err)
{
	unsigned size = int_size(f->type);

	for (uint32_t i = 0; i < f->count; i++, p += size) {
		uint64_t value = 0;
		int ret = take(b, f, &value, size, err);

		if (ret)
			return ret;
		if ((f->max && value > f->max) || (f->type == STATE_BOOL && value > 1))
			return err_set(err, EINVAL, "state of %s: field %s has the impossible value %llu", b->id,
				       f->name, (unsigned long long)value);
		memcpy(p, &value, size);
	}
	return 0;
}

static int load_fields(struct body *b, uint16_t version, const struct state_desc *desc, void *obj, unsigned depth,
		       struct err *err)
{
	int ret = 0;

	assert(depth < STATE_MAX_DEPTH);
	for (const struct state_field *f = desc->fields; f->name && !ret; f++) {
		uint8_t *p = (uint8_t *)obj + f->offset;
		uint64_t deadline = 0;
		uint32_t len = 0;

		if (f->since > version)
			continue;
		switch (f->type) {
		case STATE_BYTES:
			ret = take(b, f, p, f->size, err);
			break;
		case STATE_STRUCT:
			for (uint32_t i = 0; i < f->count && !ret; i++)
				ret = load_fields(b, f->sub->version, f->sub, p + (size_t)i * f->size, depth + 1, err);
			break;
		case STATE_TIMER:
			ret = take(b, f, &deadline, sizeof(deadline), err);
			if (!ret && *(struct vtimer **)p)
				vtimer_arm(*(struct vtimer **)p, deadline);
			break;
		case STATE_VAR_U8:
			ret = take(b, f, &len, sizeof(len), err);
			if (!ret && len > f->size)
				ret = err_set(err, EINVAL, "state of %s: field %s is %u bytes long, at most %u are allowed",
					      b->id, f->name, len, f->size);
			if (!ret)
				ret = take(b, f, *(uint8_t **)p, len, err);
			if (!ret)
				*(uint32_t *)((uint8_t *)obj + f->len_offset) = len;
			break;
		default:
			ret = load_ints(b, f, p, err);
		}
	}
	if (!ret && desc->post_load) {
		ret = desc->post_load(obj, err);
		if (ret)
			err_prefix(err, "state of %s", b->id);
	}
	return ret;
}

int state_load(struct state_reader *r, const struct state_desc *desc, void *obj, struct err *err)
{
	struct body b = { .id = r->id, .p = r->body, .left = r->body_len };
	int ret;

	if (strcmp(r->name, desc->name))
		return err_set(err, EINVAL, "the state of %s is that of a %s, not a %s", r->id, r->name, desc->name);
	if (r->version < 1 || r->version > desc->version)
		return err_set(err, EINVAL, "the state of %s is of version %u; this Keel knows 1 to %u", r->id, r->version,
			       desc->version);
	ret = load_fields(&b, r->version, desc, obj, 0, err);
	if (!ret && b.left)
		ret = err_set(err, EINVAL, "the state of %s has %zu bytes too many", r->id, b.left);
	return ret;
}
