/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices under a guest and a state stream that lie: the first byte chooses the
 * class (or the whole board), the others what happens to it: accesses to its
 * registers, time, what the peers of its back ends do, resets, saving and
 * loading, states with bytes changed. Properties: no sanitizer speaks, and what
 * was saved loads and saves the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../device/harness.h"
#include "util/log.h"

struct input {
	const uint8_t *data;
	size_t len;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next eight bytes; those that are missing are zero. */
static uint64_t take(void *opaque)
{
	struct input *in = opaque;
	size_t n = in->len < 8 ? in->len : 8;
	uint64_t value = 0;

	memcpy(&value, in->data, n);
	in->data += n;
	in->len -= n;
	return value;
}

static uint8_t take8(struct input *in)
{
	if (!in->len)
		return 0;
	in->len--;
	return *in->data++;
}

static const struct device_class *choose(unsigned n)
{
	unsigned classes = 0;

	while (device_class_at(classes))
		classes++;
	n %= classes + 1;
	return n ? device_class_at(n - 1) : &harness_board;
}

static void save(struct fake_machine *f, struct state_buf *b)
{
	memset(b, 0, sizeof(*b));
	machine_pause(f->m);
	if (machine_save(f->m, b, NULL))
		abort();
}

/* The machine goes on as a fresh one that loaded its state. */
static struct fake_machine *reload(struct fake_machine *f, const struct device_class *cls)
{
	struct fake_machine *g = harness_new(cls, NULL);
	struct err err = ERR_INIT;
	struct state_buf a, b;

	save(f, &a);
	memcpy(g->m->ram, f->m->ram, 0x20000);
	machine_pause(g->m);
	if (machine_load(g->m, a.data, a.len, &err)) {
		fprintf(stderr, "what was saved does not load: %s\n", err_msg(&err));
		abort();
	}
	save(g, &b);
	if (a.len != b.len || memcmp(a.data, b.data, a.len)) {
		harness_describe(&a, &b);
		abort();
	}
	state_buf_free(&a);
	state_buf_free(&b);
	fake_machine_free(f);
	return g;
}

static void load_lies(struct fake_machine *f, struct input *in)
{
	struct state_buf b;

	save(f, &b);
	for (unsigned n = take8(in) & 7; n; n--)
		b.data[take(in) % b.len] = take8(in);
	if (take8(in) & 1)
		b.len = take(in) % b.len;
	if (machine_load(f->m, b.data, b.len, NULL) && machine_reset(f->m, NULL))
		abort();
	/* A clock near its end would run over. */
	vclock_set(f->m->clock, vclock_now(f->m->clock) >> 2);
	state_buf_free(&b);
}

static void settle(struct fake_machine *f)
{
	fake_machine_loop(f);
	if (f->m->state == MACHINE_ENDED && machine_reset(f->m, NULL))
		abort();
	machine_resume(f->m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	const struct device_class *cls = choose(take8(&in));
	struct err err = ERR_INIT;
	struct fake_machine *f = harness_new(cls, &err);
	uint64_t time = 0;

	log_set_level(LOG_ERROR);
	if (!f) {
		fprintf(stderr, "%s: %s\n", cls->name, err_msg(&err));
		abort();
	}
	memcpy(f->m->ram, data, size < 0x10000 ? size : 0x10000);
	while (in.len) {
		uint8_t op = take8(&in);

		switch (op >> 4) {
		case 0:
			machine_pause(f->m);
			if (op & 1 && harness_device(f))
				device_reset(harness_device(f));
			else if (machine_reset(f->m, NULL))
				abort();
			harness_firmware(f);
			break;
		case 1:
			f = reload(f, cls);
			break;
		case 2:
			load_lies(f, &in);
			break;
		case 3:
			harness_peers(f, take(&in));
			break;
		case 4:
		case 5:
			/* Fast timers make long times dear: ten seconds an input. */
			if (time < 10000000000ull) {
				uint64_t ns = take(&in) % 1000000000 >> (op & 15);

				fake_machine_advance(f, ns);
				time += ns;
			}
			break;
		default:
			harness_access(f, take, &in);
			continue;
		}
		settle(f);
	}
	fake_machine_free(f);
	return 0;
}
