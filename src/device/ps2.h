/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PS/2 keyboard and a PS/2 mouse as seen from their cable: bytes from the
 * host in, bytes to the host into a queue. The i8042 owns both and their lock.
 * IBM Personal System/2 Hardware Interface Technical Reference, "Keyboards" and
 * "Mouse"; the wheel and five-button protocols are Microsoft's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "machine/state.h"

#define PS2_QUEUE 64u
struct ps2_queue {
	uint8_t data[PS2_QUEUE];
	uint8_t head, len;
	uint8_t last; /* sent last, for "resend" */
};
/* The next byte; false: there is none. */
bool ps2_take(struct ps2_queue *q, uint8_t *byte);

struct ps2_keyboard {
	struct ps2_queue q;
	uint8_t command; /* waits for its parameter, 0: none */
	uint8_t leds, rate, set;
	bool enabled;
};
void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t code, bool down);
/* What an i8042 makes of a byte of set 2; `released` carries an F0 over to the next. False: nothing comes out yet. */
bool ps2_translate(uint8_t *byte, bool *released);
extern const struct state_desc ps2_keyboard_state;

struct ps2_mouse {
	struct ps2_queue q;
	uint8_t command;
	uint8_t id;      /* 0 plain, 3 wheel, 4 wheel and five buttons */
	uint8_t rate, resolution;
	uint8_t rates[2]; /* the two sample rates before, for the knock */
	uint8_t buttons, sent_buttons;
	bool enabled, remote, wrap, double_scale;
	int32_t dx, dy, dz; /* not sent yet; up is positive here */
};
void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
/* The queue has room again: movement that waits goes out. */
void ps2_mouse_flush(struct ps2_mouse *m);
extern const struct state_desc ps2_mouse_state;
