/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 8254 programmable interval timer and the port 0x61 that goes with it (Intel
 * 8254 data sheet; ICH9 data sheet §5.7, §13.3, §13.7.1).
 *
 * Nothing counts: a counter is the tick at which its present course began, and
 * what it holds and what its output is are computed when somebody looks. Only
 * counter 0, which interrupts, has a timer, armed for its next rising edge.
 */
#include <errno.h>

#include "machine/machine.h"

#define PIT_HZ 1193182u
#define NS 1000000000u
/* A guest that wants interrupts more often than this gets them merged. */
#define MIN_INTERVAL_NS 10000u
/* Memory refresh toggles its bit about every 15 us; it does on real boards, and delay loops look at it. */
#define REFRESH_NS 15085u

enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };

struct counter {
	uint8_t mode, rw;
	bool bcd, gate;
	bool loaded;     /* a count was written since the mode */
	bool running;    /* else it stands at `held` */
	bool high_next_read, high_next_write; /* RW_BOTH: the low byte has passed */
	uint8_t write_low;
	bool reload;     /* modes 2 and 3: `next_count` takes over at `reload_at` */
	uint32_t count, next_count; /* 1..65536 */
	uint64_t start;  /* tick at which the present course began: the count was `count` */
	uint64_t held;   /* ticks of the course that had passed when it stopped */
	uint64_t reload_at, reload_start;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

struct pit {
	struct device dev;
	struct counter c[3];
	uint8_t port61;       /* bits 0-3: gate 2, speaker, parity and channel check disable */
	uint64_t next_edge;   /* ns at which IRQ 0 rises next, or VTIMER_NEVER */
	struct vtimer *timer;
	struct irq irq;
	bool irq_level;
	struct io_range range[2];
};

static uint64_t ticks_at(uint64_t ns)
{
	return muldiv64(ns, PIT_HZ, NS);
}

/* The first nanosecond of a tick. */
static uint64_t tick_ns(uint64_t tick)
{
	if (tick > UINT64_MAX / NS * PIT_HZ)
		return VTIMER_NEVER;
	return ((unsigned __int128)tick * NS + PIT_HZ - 1) / PIT_HZ;
}

static uint64_t now_ticks(const struct pit *p)
{
	return ticks_at(vclock_now(p->dev.machine->clock));
}

static bool periodic(const struct counter *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Ticks of the present course that have passed. */
static uint64_t elapsed(const struct counter *c, uint64_t t)
{
	if (!c->running)
		return c->held;
	return t > c->start ? t - c->start : 0;
}

/* Length of the part of mode 3 in which the output is high. */
static uint32_t high_part(uint32_t count)
{
	return (count + 1) / 2;
}

/* Let a new count of a periodic mode take over if its time has come. */
static void settle(struct counter *c, uint64_t t)
{
	if (!c->reload || t < c->reload_at)
		return;
	c->reload = false;
	c->count = c->next_count;
	c->start = c->reload_start;
}

static bool output(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t);

	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
		return e >= c->count;
	case 1:
		return !c->running || e >= c->count;
	case 2:
		return !c->running || e % c->count != c->count - 1;
	case 3:
		return !c->running || e % c->count < high_part(c->count);
	default:
		return !c->running || e != c->count;
	}
}

static uint16_t to_bcd(uint32_t v)
{
	v %= 10000;
	return v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
}

static uint32_t from_bcd(uint16_t v)
{
	return (v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}

/* What the counting element holds. */
static uint16_t counter_value(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t);
	uint32_t full = c->bcd ? 10000 : 65536, v;

	if (!c->loaded)
		return 0;
	if (c->mode == 2) {
		v = c->count - e % c->count;
	} else if (c->mode == 3) {
		/* It counts by two, through the even part of the count, once a half. */
		e %= c->count;
		if (e >= high_part(c->count))
			e -= high_part(c->count);
		v = (c->count & ~1u) - 2 * e;
	} else {
		/* After the end it goes on from the top. */
		v = (c->count + full - e % full) % full;
	}
	return c->bcd ? to_bcd(v) : v;
}

/* ---- IRQ 0 --------------------------------------------------------------- */

static void drive(struct pit *p, bool level)
{
	if (level != p->irq_level) {
		p->irq_level = level;
		irq_set(&p->irq, level);
	}
}

/* Tick of the next rising edge of the output after tick t, or UINT64_MAX. */
static uint64_t next_rise(const struct counter *c, uint64_t t)
{
	uint64_t e = elapsed(c, t);

	if (!c->loaded || !c->running)
		return UINT64_MAX;
	if (periodic(c)) {
		uint64_t end = c->start + (e / c->count + 1) * c->count;

		return c->reload && c->reload_at < end ? c->reload_start + c->next_count : end;
	}
	if (c->mode < 2)
		return e < c->count ? c->start + c->count : UINT64_MAX;
	return e <= c->count ? c->start + c->count + 1 : UINT64_MAX;
}

static void arm(struct pit *p)
{
	uint64_t now = vclock_now(p->dev.machine->clock), rise = next_rise(&p->c[0], ticks_at(now));

	p->next_edge = rise == UINT64_MAX ? VTIMER_NEVER : tick_ns(rise);
	if (p->next_edge < now + MIN_INTERVAL_NS)
		p->next_edge = now + MIN_INTERVAL_NS;
	vtimer_arm(p->timer, p->next_edge);
}

/* After a write: the line takes the output's level, and the timer its next edge. */
static void counter0_changed(struct pit *p)
{
	drive(p, output(&p->c[0], now_ticks(p)));
	arm(p);
}

static void pit_timer(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->dev.lock);
	/* Re-programmed on the way here? */
	if (vclock_now(p->dev.machine->clock) >= p->next_edge) {
		settle(&p->c[0], now_ticks(p));
		/* The low part before the edge is shorter than anybody can see, or was passed over. */
		drive(p, false);
		drive(p, true);
		arm(p);
	}
	pthread_mutex_unlock(&p->dev.lock);
}

/* ---- Programming --------------------------------------------------------- */

static void set_gate(struct counter *c, bool gate, uint64_t t)
{
	bool rising = gate && !c->gate, falling = !gate && c->gate;

	c->gate = gate;
	if (!c->loaded)
		return;
	settle(c, t);
	switch (c->mode) {
	case 0:
	case 4: /* the gate stops the count */
		if (falling && c->running) {
			c->held = elapsed(c, t);
			c->running = false;
		} else if (rising && !c->running) {
			c->start = t - c->held;
			c->running = true;
		}
		break;
	case 2:
	case 3: /* the gate restarts it */
		if (falling && c->running) {
			c->held = elapsed(c, t);
			c->running = false;
		}
		/* fall through */
	default: /* the gate triggers it */
		if (rising) {
			if (c->reload)
				c->count = c->next_count;
			c->reload = false;
			c->start = t + 1;
			c->running = true;
		}
	}
}

/* A complete count was written. */
static void load(struct counter *c, uint32_t count, uint64_t t)
{
	settle(c, t);
	count = c->bcd ? from_bcd(count) : count;
	if (!count)
		count = c->bcd ? 10000 : 65536;
	/* The new count of a periodic mode waits for the end of the cycle (mode 3: the half)... */
	if (c->loaded && c->running && periodic(c)) {
		uint64_t cycle = elapsed(c, t) / c->count, end = c->start + (cycle + 1) * c->count;
		uint64_t half = c->start + cycle * c->count + high_part(c->count);

		c->reload = true;
		c->next_count = count;
		c->reload_at = c->reload_start = end;
		if (c->mode == 3 && t < half) {
			c->reload_at = half;
			c->reload_start = half > high_part(count) ? half - high_part(count) : 0;
		}
		return;
	}
	/* ... that of modes 1 and 5 for the trigger. */
	if (c->mode == 1 || c->mode == 5) {
		if (!c->loaded)
			c->count = count;
		c->loaded = c->reload = true;
		c->next_count = count;
		c->reload_at = UINT64_MAX;
		return;
	}
	c->count = count;
	c->loaded = true;
	c->reload = false;
	c->held = 0;
	c->start = t + 1; /* the next clock pulse loads it */
	c->running = c->gate;
}

static void latch_count(struct counter *c, uint64_t t)
{
	if (c->count_latched)
		return;
	c->count_latched = true;
	c->latch = counter_value(c, t);
}

static void latch_status(struct counter *c, uint64_t t)
{
	bool null = !c->loaded || c->reload || (c->running && t < c->start);

	if (c->status_latched)
		return;
	c->status_latched = true;
	c->status = output(c, t) << 7 | null << 6 | c->rw << 4 | c->mode << 1 | c->bcd;
}

static void read_back(struct pit *p, uint8_t value, uint64_t t)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!(value & 2 << i))
			continue;
		settle(&p->c[i], t);
		if (!(value & 0x20))
			latch_count(&p->c[i], t);
		if (!(value & 0x10))
			latch_status(&p->c[i], t);
	}
}

static void control_write(struct pit *p, uint8_t value, uint64_t t)
{
	struct counter *c = &p->c[value >> 6 & 3];

	if (value >> 6 == 3) {
		read_back(p, value, t);
		return;
	}
	settle(c, t);
	if ((value >> 4 & 3) == RW_LATCH) {
		latch_count(c, t);
		return;
	}
	*c = (struct counter){ .gate = c->gate, .rw = value >> 4 & 3, .mode = value >> 1 & 7, .bcd = value & 1,
			       .count = 1, .next_count = 1 };
	if (c->mode > 5)
		c->mode -= 4; /* the highest bit does not count for modes 2 and 3 */
	if (c == &p->c[0])
		counter0_changed(p);
}

static void counter_write(struct pit *p, struct counter *c, uint8_t value, uint64_t t)
{
	switch (c->rw) {
	case RW_LOW:
		load(c, value, t);
		break;
	case RW_HIGH:
		load(c, value << 8, t);
		break;
	default:
		if (!c->high_next_write) {
			c->high_next_write = true;
			c->write_low = value;
			/* The first byte stops mode 0 and takes its output low. */
			if (c->mode == 0) {
				c->loaded = c->running = false;
				break;
			}
			return;
		}
		c->high_next_write = false;
		load(c, value << 8 | c->write_low, t);
	}
	if (c == &p->c[0])
		counter0_changed(p);
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;
	uint64_t t = now_ticks(p);

	if (offset == 3)
		control_write(p, value, t);
	else
		counter_write(p, &p->c[offset], value, t);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	struct counter *c = &p->c[offset];
	uint16_t value;
	bool high;

	if (offset == 3)
		return 0;
	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	settle(c, now_ticks(p));
	value = c->count_latched ? c->latch : counter_value(c, now_ticks(p));
	high = c->rw == RW_HIGH || (c->rw == RW_BOTH && c->high_next_read);
	if (c->rw == RW_BOTH)
		c->high_next_read = !c->high_next_read;
	/* The latch is free again when all that the mode reads was read. */
	if (c->rw != RW_BOTH || high)
		c->count_latched = false;
	return high ? value >> 8 : value & 0xff;
}

static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	uint64_t now = vclock_now(p->dev.machine->clock), t = ticks_at(now);

	settle(&p->c[2], t);
	return p->port61 | (now / REFRESH_NS & 1) << 4 | output(&p->c[2], t) << 5;
}

static void port61_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	p->port61 = value & 0x0f;
	set_gate(&p->c[2], value & 1, now_ticks(p));
}

/* ---- Device -------------------------------------------------------------- */

static void pit_reset(struct device *d)
{
	struct pit *p = (struct pit *)d;

	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < 3; i++)
		p->c[i] = (struct counter){ .rw = RW_BOTH, .gate = i != 2, .count = 1, .next_count = 1 };
	p->port61 = 0;
	p->irq_level = true;
	counter0_changed(p);
	pthread_mutex_unlock(&d->lock);
}

static void pit_unrealize(struct device *d)
{
	struct pit *p = (struct pit *)d;

	for (unsigned i = 0; i < 2; i++)
		bus_del(d->machine->pio, &p->range[i]);
	vtimer_free(p->timer);
}

static int pit_realize(struct device *d, struct err *err)
{
	static const struct io_ops pit = { pit_read, pit_write, 1, 1 }, port61 = { port61_read, port61_write, 1, 1 };
	struct pit *p = (struct pit *)d;
	struct machine *m = d->machine;
	int ret;

	p->timer = vtimer_new(m->clock, pit_timer, p);
	if (!p->timer)
		return err_set(err, ENOMEM, "no memory for a timer");
	p->irq = machine_irq(m, 0);
	p->range[0] = (struct io_range){ "pit", 0x40, 4, &pit, p, &d->lock, 0 };
	p->range[1] = (struct io_range){ "port 0x61", 0x61, 1, &port61, p, &d->lock, 0 };
	ret = bus_add(m->pio, &p->range[0], err);
	if (!ret)
		ret = bus_add(m->pio, &p->range[1], err);
	if (ret)
		pit_unrealize(d);
	return ret;
}

static int counter_post_load(void *obj, struct err *err)
{
	struct counter *c = obj;

	if (!c->count || !c->next_count || c->rw == RW_LATCH)
		return err_set(err, EINVAL, "a counter's count or access mode is impossible");
	return 0;
}

static int pit_post_load(void *obj, struct err *err)
{
	struct pit *p = obj;

	vtimer_arm(p->timer, p->next_edge);
	return 0;
}

static const struct state_field counter_fields[] = {
	STATE_FIELD_LIMITED(STATE_U8, struct counter, mode, 5),
	STATE_FIELD_LIMITED(STATE_U8, struct counter, rw, RW_BOTH),
	STATE_FIELD_BOOL(struct counter, bcd),
	STATE_FIELD_BOOL(struct counter, gate),
	STATE_FIELD_BOOL(struct counter, loaded),
	STATE_FIELD_BOOL(struct counter, running),
	STATE_FIELD_BOOL(struct counter, high_next_read),
	STATE_FIELD_BOOL(struct counter, high_next_write),
	STATE_FIELD_U8(struct counter, write_low),
	STATE_FIELD_BOOL(struct counter, reload),
	STATE_FIELD_LIMITED(STATE_U32, struct counter, count, 65536),
	STATE_FIELD_LIMITED(STATE_U32, struct counter, next_count, 65536),
	STATE_FIELD_U64(struct counter, start),
	STATE_FIELD_U64(struct counter, held),
	STATE_FIELD_U64(struct counter, reload_at),
	STATE_FIELD_U64(struct counter, reload_start),
	STATE_FIELD_BOOL(struct counter, count_latched),
	STATE_FIELD_BOOL(struct counter, status_latched),
	STATE_FIELD_U16(struct counter, latch),
	STATE_FIELD_U8(struct counter, status),
	STATE_END,
};
static const struct state_desc counter_state = {
	.name = "i8254-counter", .version = 1, .fields = counter_fields, .post_load = counter_post_load
};

static const struct state_field pit_fields[] = {
	STATE_ARRAY_STRUCT(struct pit, c, &counter_state),
	STATE_FIELD_LIMITED(STATE_U8, struct pit, port61, 15),
	STATE_FIELD_U64(struct pit, next_edge),
	STATE_FIELD_BOOL(struct pit, irq_level),
	STATE_END,
};
static const struct state_desc pit_state = {
	.name = "i8254", .version = 1, .fields = pit_fields, .post_load = pit_post_load
};

const struct device_class pit_class = {
	.name = "i8254",
	.description = "8254 programmable interval timer, port 0x61",
	.size = sizeof(struct pit),
	.realize = pit_realize,
	.unrealize = pit_unrealize,
	.reset = pit_reset,
	.state = &pit_state,
};
