/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * i8042 keyboard controller with a PS/2 keyboard and mouse behind it: ports
 * 0x60 and 0x64, IRQ 1 and 12 (IBM Personal System/2 Hardware Interface
 * Technical Reference, "Keyboard and Auxiliary Device Controller").
 *
 * There is one output buffer. It is filled, in this order, with what a command
 * of the controller answers, what the keyboard and what the mouse has to say.
 */
#include "device/i8042.h"

#include "device/ps2.h"
#include "machine/machine.h"

#define STATUS_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_AUX 0x20

#define CTR_KBD_IRQ 0x01
#define CTR_AUX_IRQ 0x02
#define CTR_SYSTEM 0x04
#define CTR_KBD_OFF 0x10
#define CTR_AUX_OFF 0x20
#define CTR_TRANSLATE 0x40

#define OUT_RUN 0x01 /* output port: 0 holds the CPU in reset */
#define OUT_A20 0x02

enum { PORT_DATA = 0x60, PORT_COMMAND = 0x64 };

struct i8042 {
	struct device dev;
	uint8_t ram[32];   /* ram[0]: the command byte */
	uint8_t out_port;
	uint8_t command;   /* waits for its parameter in port 0x60, 0: none */
	bool last_command; /* status: the last write was a command */
	bool full, aux;    /* output buffer, and whose it is */
	uint8_t data;
	bool answer, answer_aux; /* of the controller, waits for the buffer */
	uint8_t answer_data;
	bool released;     /* the translator saw F0 */
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
	struct irq irq[2];
	struct io_range range[2];
};

static void update_irq(struct i8042 *c)
{
	irq_set(&c->irq[0], c->full && !c->aux && c->ram[0] & CTR_KBD_IRQ);
	irq_set(&c->irq[1], c->full && c->aux && c->ram[0] & CTR_AUX_IRQ);
}

static bool take_keyboard(struct i8042 *c)
{
	if (c->ram[0] & CTR_KBD_OFF)
		return false;
	while (ps2_take(&c->keyboard.q, &c->data))
		if (!(c->ram[0] & CTR_TRANSLATE) || ps2_translate(&c->data, &c->released))
			return true;
	return false;
}

static bool take_mouse(struct i8042 *c)
{
	if (c->ram[0] & CTR_AUX_OFF || !ps2_take(&c->mouse.q, &c->data))
		return false;
	ps2_mouse_flush(&c->mouse);
	return true;
}

static void fill(struct i8042 *c)
{
	if (c->full)
		return;
	if (c->answer) {
		c->answer = false;
		c->data = c->answer_data;
		c->aux = c->answer_aux;
		c->full = true;
	} else if (take_keyboard(c)) {
		c->aux = false;
		c->full = true;
	} else if (take_mouse(c)) {
		c->aux = c->full = true;
	}
	update_irq(c);
}

static void answer(struct i8042 *c, uint8_t value, bool aux)
{
	c->answer = true;
	c->answer_data = value;
	c->answer_aux = aux;
	fill(c);
}

static void set_out_port(struct i8042 *c, uint8_t value)
{
	if (!(value & OUT_RUN))
		machine_signal(c->dev.machine, MACHINE_RESET_GUEST, 0);
	c->out_port = value | OUT_RUN;
}

static void write_command(struct i8042 *c, uint8_t value)
{
	c->command = 0;
	switch (value) {
	case 0x20 ... 0x3f:
		answer(c, c->ram[value & 0x1f], false);
		break;
	case 0x60 ... 0x7f:
	case 0xd1: /* output port */
	case 0xd2: /* as if it came from the keyboard */
	case 0xd3: /* as if it came from the mouse */
	case 0xd4: /* to the mouse */
		c->command = value;
		break;
	case 0xa7:
	case 0xa8:
		c->ram[0] = value & 1 ? c->ram[0] | CTR_AUX_OFF : c->ram[0] & ~CTR_AUX_OFF;
		break;
	case 0xa9: /* tests of the lines to mouse and keyboard: no error */
	case 0xab:
		answer(c, 0x00, false);
		break;
	case 0xaa: /* self-test */
		c->ram[0] |= CTR_SYSTEM;
		answer(c, 0x55, false);
		break;
	case 0xad:
	case 0xae:
		c->ram[0] = value & 1 ? c->ram[0] | CTR_KBD_OFF : c->ram[0] & ~CTR_KBD_OFF;
		break;
	case 0xc0: /* input port: not locked, color */
		answer(c, 0x80, false);
		break;
	case 0xd0:
		answer(c, c->out_port | c->full << 4, false);
		break;
	case 0xdd:
	case 0xdf:
		c->out_port = value & 2 ? c->out_port | OUT_A20 : c->out_port & ~OUT_A20;
		break;
	case 0xf0 ... 0xff: /* pulse the lines whose bit is 0 */
		if (!(value & OUT_RUN))
			machine_signal(c->dev.machine, MACHINE_RESET_GUEST, 0);
		break;
	}
	fill(c);
}

static void write_data(struct i8042 *c, uint8_t value)
{
	uint8_t command = c->command;

	c->command = 0;
	switch (command) {
	case 0x60 ... 0x7f:
		c->ram[command & 0x1f] = value;
		break;
	case 0xd1:
		set_out_port(c, value);
		break;
	case 0xd2:
	case 0xd3:
		answer(c, value, command & 1);
		break;
	case 0xd4:
		c->ram[0] &= ~CTR_AUX_OFF;
		ps2_mouse_write(&c->mouse, value);
		break;
	default:
		c->ram[0] &= ~CTR_KBD_OFF;
		c->released = false;
		ps2_keyboard_write(&c->keyboard, value);
	}
	fill(c);
	update_irq(c);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *c = opaque;
	uint8_t value = c->data;

	if (c->full) {
		c->full = false;
		update_irq(c); /* low before the next byte raises it again: the line is an edge */
		fill(c);
	}
	return value;
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;

	c->last_command = false;
	write_data(c, value);
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *c = opaque;

	return STATUS_UNLOCKED | (c->full ? STATUS_FULL | (c->aux ? STATUS_AUX : 0) : 0) |
	       (c->last_command ? STATUS_COMMAND : 0) | (c->ram[0] & CTR_SYSTEM ? STATUS_SYSTEM : 0);
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;

	c->last_command = true;
	write_command(c, value);
}

/* ---- Input --------------------------------------------------------------- */

void i8042_key(struct device *d, uint8_t code, bool down)
{
	struct i8042 *c = (struct i8042 *)d;

	pthread_mutex_lock(&d->lock);
	ps2_keyboard_key(&c->keyboard, code, down);
	fill(c);
	pthread_mutex_unlock(&d->lock);
}

void i8042_mouse(struct device *d, int dx, int dy, int dz, unsigned buttons)
{
	struct i8042 *c = (struct i8042 *)d;

	pthread_mutex_lock(&d->lock);
	ps2_mouse_move(&c->mouse, dx, dy, dz, buttons);
	fill(c);
	pthread_mutex_unlock(&d->lock);
}

/* ---- Device -------------------------------------------------------------- */

static void i8042_reset(struct device *d)
{
	struct i8042 *c = (struct i8042 *)d;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < sizeof(c->ram); i++)
		c->ram[i] = 0;
	/* What a BIOS leaves behind; a kernel without one expects it. */
	c->ram[0] = CTR_KBD_IRQ | CTR_AUX_IRQ | CTR_SYSTEM | CTR_TRANSLATE;
	c->out_port = OUT_RUN | OUT_A20;
	c->command = c->data = c->answer_data = 0;
	c->last_command = c->full = c->aux = c->answer = c->answer_aux = c->released = false;
	ps2_keyboard_reset(&c->keyboard);
	ps2_mouse_reset(&c->mouse);
	update_irq(c);
	pthread_mutex_unlock(&d->lock);
}

static void i8042_unrealize(struct device *d)
{
	struct i8042 *c = (struct i8042 *)d;

	bus_del(d->machine->pio, &c->range[0]);
	bus_del(d->machine->pio, &c->range[1]);
}

static int i8042_realize(struct device *d, struct err *err)
{
	static const struct io_ops data = { data_read, data_write, 1, 1 };
	static const struct io_ops command = { status_read, command_write, 1, 1 };
	struct i8042 *c = (struct i8042 *)d;
	struct machine *m = d->machine;
	int ret;

	c->irq[0] = machine_irq(m, 1);
	c->irq[1] = machine_irq(m, 12);
	c->range[0] = (struct io_range){ "i8042 data", PORT_DATA, 1, &data, c, &d->lock, 0 };
	c->range[1] = (struct io_range){ "i8042 command", PORT_COMMAND, 1, &command, c, &d->lock, 0 };
	ret = bus_add(m->pio, &c->range[0], err);
	if (!ret)
		ret = bus_add(m->pio, &c->range[1], err);
	if (ret)
		i8042_unrealize(d);
	return ret;
}

static const struct state_field i8042_fields[] = {
	STATE_FIELD_BYTES(struct i8042, ram),
	STATE_FIELD_U8(struct i8042, out_port),
	STATE_FIELD_U8(struct i8042, command),
	STATE_FIELD_BOOL(struct i8042, last_command),
	STATE_FIELD_BOOL(struct i8042, full),
	STATE_FIELD_BOOL(struct i8042, aux),
	STATE_FIELD_U8(struct i8042, data),
	STATE_FIELD_BOOL(struct i8042, answer),
	STATE_FIELD_BOOL(struct i8042, answer_aux),
	STATE_FIELD_U8(struct i8042, answer_data),
	STATE_FIELD_BOOL(struct i8042, released),
	STATE_FIELD_STRUCT(struct i8042, keyboard, &ps2_keyboard_state),
	STATE_FIELD_STRUCT(struct i8042, mouse, &ps2_mouse_state),
	STATE_END,
};
static const struct state_desc i8042_state = { .name = "i8042", .version = 1, .fields = i8042_fields };

const struct device_class i8042_class = {
	.name = "i8042",
	.description = "keyboard controller with PS/2 keyboard and mouse",
	.size = sizeof(struct i8042),
	.realize = i8042_realize,
	.unrealize = i8042_unrealize,
	.reset = i8042_reset,
	.state = &i8042_state,
};
