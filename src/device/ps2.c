/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/ps2.h"

#include <errno.h>
#include <string.h>

enum { ACK = 0xfa, RESEND = 0xfe, SELF_TEST_OK = 0xaa, BREAK = 0xf0, EXTENDED = 0xe0 };

/* ---- Queue --------------------------------------------------------------- */

static unsigned room(const struct ps2_queue *q)
{
	return PS2_QUEUE - q->len;
}

/* Answers to commands always fit: a device that gets a command forgets what it wanted to send. */
static void put(struct ps2_queue *q, uint8_t byte)
{
	if (!room(q))
		return;
	q->data[(q->head + q->len) % PS2_QUEUE] = byte;
	q->len++;
}

static void put_all(struct ps2_queue *q, const uint8_t *bytes, unsigned n)
{
	if (room(q) < n)
		return;
	for (unsigned i = 0; i < n; i++)
		put(q, bytes[i]);
}

bool ps2_take(struct ps2_queue *q, uint8_t *byte)
{
	if (!q->len)
		return false;
	*byte = q->last = q->data[q->head];
	q->head = (q->head + 1) % PS2_QUEUE;
	q->len--;
	return true;
}

/* ---- Keyboard ------------------------------------------------------------ */

/* Scan codes of set 2, by those of set 1. */
static const uint8_t set2[0x59] = {
	/* Escape, 1 to =, Backspace, Tab */
	[0x01] = 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
	/* Q to ], Enter, Ctrl */
	[0x10] = 0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14,
	/* A to ', `, Shift, backslash */
	[0x1e] = 0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d,
	/* Z to /, Shift, keypad *, Alt, Space, Caps Lock */
	[0x2c] = 0x1a, 0x22, 0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58,
	/* F1 to F10, Num Lock, Scroll Lock */
	[0x3b] = 0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e,
	/* Keypad: 7 8 9 - 4 5 6 + 1 2 3 0 . */
	[0x47] = 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69, 0x72, 0x7a, 0x70, 0x71,
	/* SysRq; the key left of Z, F11, F12 */
	[0x54] = 0x84, [0x56] = 0x61, 0x78, 0x07,
};

bool ps2_translate(uint8_t *byte, bool *released)
{
	uint8_t bit;

	if (*byte == BREAK) {
		*released = true;
		return false;
	}
	bit = *released ? 0x80 : 0;
	*released = false;
	for (unsigned i = 1; i < sizeof(set2); i++) {
		if (set2[i] == *byte) {
			*byte = i | bit;
			break;
		}
	}
	return true;
}

static void keyboard_defaults(struct ps2_keyboard *k)
{
	k->command = 0;
	k->rate = 0x2b;
	k->set = 2;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	memset(k, 0, sizeof(*k));
	keyboard_defaults(k);
	k->enabled = true;
}

static void keyboard_parameter(struct ps2_keyboard *k, uint8_t byte)
{
	uint8_t command = k->command;

	k->command = 0;
	switch (command) {
	case 0xed:
		k->leds = byte & 7;
		break;
	case 0xf3:
		k->rate = byte & 0x7f;
		break;
	case 0xf0:
		if (byte > 2) { /* set 3 was never common and is not there */
			put(&k->q, RESEND);
			return;
		}
		put(&k->q, ACK);
		if (byte == 0)
			put(&k->q, k->set);
		else
			k->set = byte;
		return;
	}
	put(&k->q, ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
	uint8_t last = k->q.last;

	k->q.len = 0;
	if (k->command && byte < 0x80) {
		keyboard_parameter(k, byte);
		return;
	}
	k->command = 0;
	switch (byte) {
	case 0xed: /* LEDs */
	case 0xf0: /* scan code set */
	case 0xf3: /* repeat rate */
		k->command = byte;
		put(&k->q, ACK);
		break;
	case 0xee: /* echo */
		put(&k->q, 0xee);
		break;
	case 0xf2:
		put_all(&k->q, (const uint8_t[]){ ACK, 0xab, 0x83 }, 3);
		break;
	case 0xf4:
		k->enabled = true;
		put(&k->q, ACK);
		break;
	case 0xf5:
	case 0xf6:
		keyboard_defaults(k);
		k->enabled = byte == 0xf6;
		put(&k->q, ACK);
		break;
	case 0xf7 ... 0xfa: /* key types of set 3: all keys */
		put(&k->q, ACK);
		break;
	case 0xfe:
		put(&k->q, last);
		break;
	case 0xff:
		ps2_keyboard_reset(k);
		put_all(&k->q, (const uint8_t[]){ ACK, SELF_TEST_OK }, 2);
		break;
	default:
		put(&k->q, RESEND);
	}
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t code, bool down)
{
	uint8_t key = code & 0x7f, bytes[3];
	unsigned n = 0;

	if (!k->enabled || key >= sizeof(set2) || !set2[key])
		return;
	if (code & 0x80)
		bytes[n++] = EXTENDED;
	if (k->set == 1) {
		bytes[n++] = down ? key : key | 0x80;
	} else {
		if (!down)
			bytes[n++] = BREAK;
		bytes[n++] = set2[key];
	}
	put_all(&k->q, bytes, n);
}

/* ---- Mouse --------------------------------------------------------------- */

static void mouse_defaults(struct ps2_mouse *m)
{
	m->command = 0;
	m->rate = 100;
	m->resolution = 2;
	m->enabled = m->remote = m->wrap = m->double_scale = false;
	m->dx = m->dy = m->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	memset(m, 0, sizeof(*m));
	mouse_defaults(m);
}

static int take_part(int32_t *v, int low, int high)
{
	int part = *v < low ? low : *v > high ? high : *v;

	*v -= part;
	return part;
}

static void mouse_packet(struct ps2_mouse *m)
{
	int dx = take_part(&m->dx, -256, 255), dy = take_part(&m->dy, -256, 255), dz = 0;
	uint8_t p[4] = { 0x08 | (m->buttons & 7) | (dx < 0) << 4 | (dy < 0) << 5, dx, dy, 0 };

	if (m->id)
		dz = take_part(&m->dz, -8, 7);
	else
		m->dz = 0;
	p[3] = m->id == 4 ? (dz & 15) | (m->buttons & 0x18) << 1 : dz;
	put_all(&m->q, p, m->id ? 4 : 3);
	m->sent_buttons = m->buttons;
}

void ps2_mouse_flush(struct ps2_mouse *m)
{
	if (!m->enabled || m->remote || m->wrap)
		return;
	while (room(&m->q) >= 4 + 4 && (m->dx || m->dy || m->dz || m->buttons != m->sent_buttons))
		mouse_packet(m);
}

static int32_t add_limited(int32_t v, int d)
{
	int64_t sum = (int64_t)v + d;

	return sum > 32767 ? 32767 : sum < -32767 ? -32767 : sum;
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
	m->buttons = buttons & 0x1f;
	m->dx = add_limited(m->dx, dx);
	m->dy = add_limited(m->dy, dy == INT32_MIN ? INT32_MAX : -dy);
	m->dz = add_limited(m->dz, dz);
	ps2_mouse_flush(m);
}

/* Rates 200, 100, 80 knock for the wheel, 200, 200, 80 then for five buttons. */
static void mouse_set_rate(struct ps2_mouse *m, uint8_t rate)
{
	if (m->rates[0] == 200 && m->rates[1] == 100 && rate == 80)
		m->id = 3;
	else if (m->rates[0] == 200 && m->rates[1] == 200 && rate == 80)
		m->id = 4;
	m->rates[0] = m->rates[1];
	m->rates[1] = rate;
	m->rate = rate;
}

static void mouse_status(struct ps2_mouse *m)
{
	uint8_t buttons = (m->buttons & 1) << 2 | (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1;

	put_all(&m->q, (const uint8_t[]){ ACK, m->remote << 6 | m->enabled << 5 | m->double_scale << 4 | buttons,
					  m->resolution, m->rate }, 4);
}

static void mouse_command(struct ps2_mouse *m, uint8_t byte)
{
	uint8_t id = m->id;

	switch (byte) {
	case 0xe6:
	case 0xe7:
		m->double_scale = byte & 1;
		break;
	case 0xe8: /* resolution */
	case 0xf3: /* sample rate */
		m->command = byte;
		break;
	case 0xe9:
		mouse_status(m);
		return;
	case 0xea:
		m->remote = false;
		break;
	case 0xeb:
		put(&m->q, ACK);
		mouse_packet(m);
		return;
	case 0xec:
		m->wrap = false;
		break;
	case 0xee:
		m->wrap = true;
		break;
	case 0xf0:
		m->remote = true;
		break;
	case 0xf2:
		put_all(&m->q, (const uint8_t[]){ ACK, id }, 2);
		return;
	case 0xf4:
	case 0xf5:
		m->enabled = byte == 0xf4;
		m->dx = m->dy = m->dz = 0;
		m->sent_buttons = m->buttons;
		break;
	case 0xf6:
		mouse_defaults(m);
		break;
	case 0xff:
		ps2_mouse_reset(m);
		put_all(&m->q, (const uint8_t[]){ ACK, SELF_TEST_OK, 0 }, 3);
		return;
	default:
		put(&m->q, RESEND);
		return;
	}
	put(&m->q, ACK);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
	uint8_t command = m->command, last = m->q.last;

	m->q.len = 0;
	if (m->wrap && byte != 0xec && byte != 0xff) {
		put(&m->q, byte);
		return;
	}
	m->command = 0;
	if (command == 0xe8) {
		m->resolution = byte & 3;
		put(&m->q, ACK);
	} else if (command == 0xf3) {
		mouse_set_rate(m, byte);
		put(&m->q, ACK);
	} else if (byte == 0xfe) {
		put(&m->q, last);
	} else {
		mouse_command(m, byte);
	}
}

/* ---- State --------------------------------------------------------------- */

static const struct state_field queue_fields[] = {
	STATE_FIELD_BYTES(struct ps2_queue, data),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_queue, head, PS2_QUEUE - 1),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_queue, len, PS2_QUEUE),
	STATE_FIELD_U8(struct ps2_queue, last),
	STATE_END,
};
static const struct state_desc queue_state = { .name = "ps2-queue", .version = 1, .fields = queue_fields };

static const struct state_field keyboard_fields[] = {
	STATE_FIELD_STRUCT(struct ps2_keyboard, q, &queue_state),
	STATE_FIELD_U8(struct ps2_keyboard, command),
	STATE_FIELD_U8(struct ps2_keyboard, leds),
	STATE_FIELD_U8(struct ps2_keyboard, rate),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_keyboard, set, 2),
	STATE_FIELD_BOOL(struct ps2_keyboard, enabled),
	STATE_END,
};
const struct state_desc ps2_keyboard_state = { .name = "ps2-keyboard", .version = 1, .fields = keyboard_fields };

static const struct state_field mouse_fields[] = {
	STATE_FIELD_STRUCT(struct ps2_mouse, q, &queue_state),
	STATE_FIELD_U8(struct ps2_mouse, command),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_mouse, id, 4),
	STATE_FIELD_U8(struct ps2_mouse, rate),
	STATE_FIELD_U8(struct ps2_mouse, resolution),
	STATE_ARRAY_U8(struct ps2_mouse, rates),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_mouse, buttons, 0x1f),
	STATE_FIELD_LIMITED(STATE_U8, struct ps2_mouse, sent_buttons, 0x1f),
	STATE_FIELD_BOOL(struct ps2_mouse, enabled),
	STATE_FIELD_BOOL(struct ps2_mouse, remote),
	STATE_FIELD_BOOL(struct ps2_mouse, wrap),
	STATE_FIELD_BOOL(struct ps2_mouse, double_scale),
	STATE_FIELD_LIMITED(STATE_U32, struct ps2_mouse, dx, 0), /* signed */
	STATE_FIELD_LIMITED(STATE_U32, struct ps2_mouse, dy, 0),
	STATE_FIELD_LIMITED(STATE_U32, struct ps2_mouse, dz, 0),
	STATE_END,
};
static int mouse_post_load(void *obj, struct err *err)
{
	struct ps2_mouse *m = obj;

	if (m->dx > 32767 || m->dx < -32767 || m->dy > 32767 || m->dy < -32767 || m->dz > 32767 || m->dz < -32767)
		return err_set(err, EINVAL, "the mouse moved too far");
	return 0;
}
const struct state_desc ps2_mouse_state = {
	.name = "ps2-mouse", .version = 1, .fields = mouse_fields, .post_load = mouse_post_load
};
