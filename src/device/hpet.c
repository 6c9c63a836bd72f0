/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * High precision event timers (IA-PC HPET Specification 1.0a): a 64-bit
 * counter at 100 MHz and three comparators, each periodic or one-shot, edge or
 * level, routed to the I/O APIC, to a message (FSB) or, the first two, to where
 * the 8254 and the clock interrupt (legacy replacement).
 *
 * The device sits between those lines and the interrupt controllers: it takes
 * the inputs that it can drive for itself and passes on what others drive. So
 * legacy replacement is a switch here and no other device knows of it, and a
 * pin that is shared is the OR of those who share it. The controllers must have
 * been realized before.
 */
#include <errno.h>
#include <string.h>

#include "machine/machine.h"

#define TIMERS 3
#define TICK_NS 10u
#define PERIOD_FS 10000000ull
/* A guest that wants interrupts more often than this gets them merged. */
#define MIN_INTERVAL_NS 10000u
/*
 * A match that the guest's write of the comparator missed by less than 10 ms
 * still counts: its vCPU may have been held up between reading the counter and
 * writing.
 */
#define LATE_TICKS 1000000u
#define NEVER UINT64_MAX

enum { REG_CAP = 0x00, REG_CONFIG = 0x10, REG_STATUS = 0x20, REG_COUNTER = 0xf0, REG_TIMERS = 0x100 };
#define CAP_VALUE (PERIOD_FS << 32 | 0x8086ull << 16 | 1 << 15 /* legacy */ | 1 << 13 /* 64 bits */ | \
		   (TIMERS - 1) << 8 | 0x01)

#define CONFIG_ENABLE 0x1ull
#define CONFIG_LEGACY 0x2ull

#define T_LEVEL 0x2ull
#define T_ENABLE 0x4ull
#define T_PERIODIC 0x8ull
#define T_CAP_PERIODIC 0x10ull
#define T_CAP_64 0x20ull
#define T_SET_VALUE 0x40ull
#define T_32 0x100ull
#define T_ROUTE 0x3e00ull
#define T_FSB 0x4000ull
#define T_CAP_FSB 0x8000ull
#define T_WRITABLE (T_LEVEL | T_ENABLE | T_PERIODIC | T_SET_VALUE | T_32 | T_ROUTE | T_FSB)
#define T_CAPS (T_CAP_PERIODIC | T_CAP_64 | T_CAP_FSB)
/* I/O APIC pins that a comparator may drive: 2, 8 and the PCI ones. */
#define ROUTES 0xff0104u

/* Lines that the device takes over, by what they lead to. */
enum { LINE_PIC0, LINE_PIC8, LINE_APIC, LINES = LINE_APIC + Q35_GSIS };

struct hpet_timer {
	uint64_t config; /* without the capabilities */
	uint64_t compare, period, fsb;
	uint64_t match;  /* value of the whole counter at which the comparator matches next, or NEVER */
};

struct hpet {
	struct device dev;
	uint64_t config, status;
	uint64_t counter; /* while disabled; enabled: the value at `since` */
	uint64_t since;   /* ns */
	struct hpet_timer t[TIMERS];
	uint64_t wake;    /* ns for which `timer` is armed */
	uint32_t driven;  /* by other devices: bit 0, 1: PIC inputs 0 and 8 */
	uint32_t driven_apic;
	struct vtimer *timer;
	bool out[LINES];
	struct irq line[LINES]; /* where they lead */
	struct io_range range;
};

/* ---- Lines --------------------------------------------------------------- */

static bool legacy(const struct hpet *h)
{
	return h->config & CONFIG_LEGACY;
}

static unsigned timer_route(const struct hpet *h, unsigned n)
{
	if (legacy(h) && n < 2)
		return n == 0 ? 2 : 8;
	return (h->t[n].config & T_ROUTE) >> 9;
}

/* Is the timer's level asserted on a line (not a message)? */
static bool timer_level(const struct hpet *h, unsigned n)
{
	uint64_t c = h->t[n].config;

	return h->status >> n & 1 && c & T_LEVEL && c & T_ENABLE && !(c & T_FSB) && h->config & CONFIG_ENABLE;
}

static bool line_wanted(const struct hpet *h, unsigned line, uint32_t pulse)
{
	unsigned pin = line - LINE_APIC;
	bool on;

	if (line < LINE_APIC) {
		on = !legacy(h) && h->driven >> line & 1;
		return on || (legacy(h) && (timer_level(h, line) || pulse >> line & 1));
	}
	on = h->driven_apic >> pin & 1 && !(legacy(h) && (pin == 2 || pin == 8));
	for (unsigned n = 0; n < TIMERS; n++)
		if (timer_route(h, n) == pin)
			on |= timer_level(h, n) || pulse >> n & 1;
	return on;
}

/* Bring the lines to where they must be; timers in `pulse` are high for this once. */
static void drive(struct hpet *h, uint32_t pulse)
{
	for (unsigned i = 0; i < LINES; i++) {
		bool on;

		if (i >= LINE_APIC && !(ROUTES >> (i - LINE_APIC) & 1))
			continue;
		on = line_wanted(h, i, pulse);
		if (on != h->out[i]) {
			h->out[i] = on;
			irq_set(&h->line[i], on);
		}
	}
}

static void hpet_set_pic(void *opaque, unsigned n, bool level)
{
	struct hpet *h = opaque;

	pthread_mutex_lock(&h->dev.lock);
	h->driven = (h->driven & ~(1u << n)) | (uint32_t)level << n;
	drive(h, 0);
	pthread_mutex_unlock(&h->dev.lock);
}

static void hpet_set_apic(void *opaque, unsigned pin, bool level)
{
	struct hpet *h = opaque;

	pthread_mutex_lock(&h->dev.lock);
	h->driven_apic = (h->driven_apic & ~(1u << pin)) | (uint32_t)level << pin;
	drive(h, 0);
	pthread_mutex_unlock(&h->dev.lock);
}

/* ---- Time ---------------------------------------------------------------- */

static uint64_t counter_at(const struct hpet *h, uint64_t ns)
{
	if (!(h->config & CONFIG_ENABLE) || ns < h->since)
		return h->counter;
	return h->counter + (ns - h->since) / TICK_NS;
}

static uint64_t counter_now(const struct hpet *h)
{
	return counter_at(h, vclock_now(h->dev.machine->clock));
}

/* Bits that take part in the comparison. */
static uint64_t width(const struct hpet_timer *t)
{
	return t->config & T_32 ? UINT32_MAX : UINT64_MAX;
}

/* After a change of comparator or counter: when do they meet? Up to `late` ticks ago is now. */
static void find_match(struct hpet_timer *t, uint64_t counter, uint64_t late)
{
	uint64_t ahead = (t->compare - counter) & width(t), behind = (counter - t->compare) & width(t);

	if (behind <= late && behind <= counter)
		t->match = counter - behind;
	else if (ahead == 0)
		t->match = t->config & T_32 ? counter + UINT32_MAX + 1ull : NEVER;
	else
		t->match = ahead > UINT64_MAX - counter ? NEVER : counter + ahead;
}

static void fire(struct hpet *h, unsigned n)
{
	struct hpet_timer *t = &h->t[n];

	if (t->config & T_LEVEL)
		h->status |= 1 << n;
	if (t->config & T_ENABLE && t->config & T_FSB) {
		/* A message is an edge; anything but an interrupt's address would be a write to memory. */
		if (t->fsb >> 52 == 0xfee)
			machine_msi(h->dev.machine, t->fsb >> 32, t->fsb);
	} else if (t->config & T_ENABLE && !(t->config & T_LEVEL)) {
		drive(h, 1 << n);
	}
	drive(h, 0);
}

/* The comparator has matched: where does it match again? Matches that nobody came for are one. */
static void advance(struct hpet_timer *t, uint64_t counter)
{
	uint64_t late = counter - t->match, step;

	if (t->config & T_PERIODIC && t->period)
		step = late - late % t->period + t->period;
	else if (t->config & T_32) /* it matches again when the counter comes round (§2.3.9.2.1) */
		step = ((late >> 32) + 1) << 32;
	else
		step = NEVER;
	t->compare = step == NEVER ? t->compare : (t->compare + step) & width(t);
	t->match = step > UINT64_MAX - t->match ? NEVER : t->match + step;
}

static uint64_t match_ns(const struct hpet *h, const struct hpet_timer *t)
{
	uint64_t ahead = t->match > h->counter ? t->match - h->counter : 0;

	if (ahead > (UINT64_MAX - h->since) / TICK_NS)
		return VTIMER_NEVER;
	return h->since + ahead * TICK_NS;
}

/* Let everything happen that is due, then arm for what comes next. */
static void run(struct hpet *h)
{
	uint64_t now = vclock_now(h->dev.machine->clock), counter = counter_at(h, now);

	h->wake = VTIMER_NEVER;
	for (unsigned n = 0; n < TIMERS && h->config & CONFIG_ENABLE; n++) {
		struct hpet_timer *t = &h->t[n];

		if (t->match <= counter && t->match != NEVER) {
			advance(t, counter);
			fire(h, n);
		}
		/* What a timer does that must not interrupt is found out when somebody looks. */
		if (t->config & T_ENABLE && match_ns(h, t) < h->wake)
			h->wake = match_ns(h, t);
	}
	if (h->wake < now + MIN_INTERVAL_NS)
		h->wake = now + MIN_INTERVAL_NS;
	vtimer_arm(h->timer, h->wake);
}

static void hpet_timer(void *opaque)
{
	struct hpet *h = opaque;

	pthread_mutex_lock(&h->dev.lock);
	/* Re-armed on the way here? */
	if (vclock_now(h->dev.machine->clock) >= h->wake)
		run(h);
	pthread_mutex_unlock(&h->dev.lock);
}

/* ---- Registers ----------------------------------------------------------- */

static uint64_t read_reg(struct hpet *h, unsigned reg)
{
	const struct hpet_timer *t;
	unsigned n = (reg - REG_TIMERS) / 0x20;

	switch (reg) {
	case REG_CAP:
		return CAP_VALUE;
	case REG_CONFIG:
		return h->config;
	case REG_STATUS:
		return h->status;
	case REG_COUNTER:
		return counter_now(h);
	}
	if (reg < REG_TIMERS || n >= TIMERS)
		return 0;
	t = &h->t[n];
	switch (reg & 0x18) {
	case 0x00:
		return t->config | T_CAPS | (uint64_t)ROUTES << 32;
	case 0x08:
		return t->compare;
	case 0x10:
		return t->fsb;
	default:
		return 0;
	}
}

static void write_config(struct hpet *h, uint64_t value)
{
	uint64_t now = vclock_now(h->dev.machine->clock);

	/* Stop or go: the count so far is the new start. */
	h->counter = counter_at(h, now);
	h->since = now;
	h->config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
}

static void write_timer_config(struct hpet *h, struct hpet_timer *t, uint64_t value)
{
	uint64_t old = t->config;

	if (!(ROUTES >> ((value & T_ROUTE) >> 9) & 1))
		value = (value & ~T_ROUTE) | (old & T_ROUTE);
	t->config = value & T_WRITABLE;
	t->compare &= width(t);
	t->period &= width(t);
	if (!(t->config & T_LEVEL))
		h->status &= ~(1ull << (t - h->t));
	if ((t->config ^ old) & T_32)
		find_match(t, counter_now(h), 0);
}

/* `mask` tells which half is written. */
static void write_compare(struct hpet *h, struct hpet_timer *t, uint64_t value, uint64_t mask)
{
	bool periodic = t->config & T_PERIODIC;

	if (periodic)
		t->period = ((t->period & ~mask) | (value & mask)) & width(t);
	/* With VAL_SET the accumulator of a periodic timer is written too (§2.3.9.2.2). */
	if (!periodic || t->config & T_SET_VALUE) {
		t->compare = ((t->compare & ~mask) | (value & mask)) & width(t);
		find_match(t, counter_now(h), h->config & CONFIG_ENABLE ? LATE_TICKS : 0);
	}
	t->config &= ~T_SET_VALUE;
}

static void write_reg(struct hpet *h, unsigned reg, uint64_t value, uint64_t mask)
{
	uint64_t merged = (read_reg(h, reg) & ~mask) | (value & mask);
	unsigned n = (reg - REG_TIMERS) / 0x20;

	switch (reg) {
	case REG_CONFIG:
		write_config(h, merged);
		break;
	case REG_STATUS:
		h->status &= ~(value & mask);
		break;
	case REG_COUNTER:
		/* Only a counter that stands may be set (§2.3.7). */
		if (h->config & CONFIG_ENABLE)
			break;
		h->counter = merged;
		for (unsigned i = 0; i < TIMERS; i++)
			find_match(&h->t[i], merged, 0);
		break;
	}
	if (reg < REG_TIMERS || n >= TIMERS)
		return;
	switch (reg & 0x18) {
	case 0x00:
		write_timer_config(h, &h->t[n], merged);
		break;
	case 0x08:
		write_compare(h, &h->t[n], value, mask);
		break;
	case 0x10:
		h->t[n].fsb = merged;
		break;
	}
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
	struct hpet *h = opaque;

	/* Clock sources read the counter all the time; nothing else may wait for a timer that is due. */
	if ((offset & ~7ull) != REG_COUNTER)
		run(h);
	return read_reg(h, offset & ~7u) >> (offset & 4 ? 32 : 0);
}

static void hpet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct hpet *h = opaque;
	uint64_t mask = size == 8 ? UINT64_MAX : UINT32_MAX;
	unsigned shift = offset & 4 ? 32 : 0;

	run(h);
	write_reg(h, offset & ~7u, value << shift, mask << shift);
	drive(h, 0);
	run(h);
}

/* ---- Device -------------------------------------------------------------- */

static struct irq *machine_line(struct machine *m, unsigned line)
{
	return line >= LINE_APIC ? &m->ioapic_in[line - LINE_APIC] : &m->pic_in[line == LINE_PIC0 ? 0 : 8];
}

static void hpet_reset(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	pthread_mutex_lock(&d->lock);
	h->config = h->status = h->counter = h->since = 0;
	h->driven = h->driven_apic = 0;
	for (unsigned n = 0; n < TIMERS; n++)
		h->t[n] = (struct hpet_timer){ .compare = UINT64_MAX, .match = UINT64_MAX };
	drive(h, 0);
	run(h);
	pthread_mutex_unlock(&d->lock);
}

static void hpet_unrealize(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	bus_del(d->machine->mmio, &h->range);
	for (unsigned i = 0; i < LINES; i++)
		if (i < LINE_APIC || ROUTES >> (i - LINE_APIC) & 1)
			*machine_line(d->machine, i) = h->line[i];
	vtimer_free(h->timer);
}

static int hpet_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { hpet_read, hpet_write, 4, 8 };
	struct hpet *h = (struct hpet *)d;
	struct machine *m = d->machine;
	int ret;

	h->timer = vtimer_new(m->clock, hpet_timer, h);
	if (!h->timer)
		return err_set(err, ENOMEM, "no memory for a timer");
	h->range = (struct io_range){ "hpet", Q35_HPET_BASE, 0x400, &ops, h, &d->lock, 0 };
	ret = bus_add(m->mmio, &h->range, err);
	if (ret) {
		vtimer_free(h->timer);
		return ret;
	}
	for (unsigned i = 0; i < LINES; i++) {
		struct irq *in = machine_line(m, i);

		if (i >= LINE_APIC && !(ROUTES >> (i - LINE_APIC) & 1))
			continue;
		h->line[i] = *in;
		if (i < LINE_APIC)
			*in = (struct irq){ hpet_set_pic, h, i };
		else
			*in = (struct irq){ hpet_set_apic, h, i - LINE_APIC };
	}
	return 0;
}

static int timer_post_load(void *obj, struct err *err)
{
	struct hpet_timer *t = obj;

	if (t->config & ~T_WRITABLE || t->compare & ~width(t) || t->period & ~width(t))
		return err_set(err, EINVAL, "configuration or comparator of a timer is impossible");
	return 0;
}

static int hpet_post_load(void *obj, struct err *err)
{
	struct hpet *h = obj;

	if (h->driven_apic & ~ROUTES)
		return err_set(err, EINVAL, "lines are driven that do not come by the timers");
	/* The controllers' own states say what reached them. */
	for (unsigned i = 0; i < LINES; i++)
		h->out[i] = (i < LINE_APIC || ROUTES >> (i - LINE_APIC) & 1) && line_wanted(h, i, 0);
	vtimer_arm(h->timer, h->wake);
	return 0;
}

static const struct state_field timer_fields[] = {
	STATE_FIELD_U64(struct hpet_timer, config),
	STATE_FIELD_U64(struct hpet_timer, compare),
	STATE_FIELD_U64(struct hpet_timer, period),
	STATE_FIELD_U64(struct hpet_timer, fsb),
	STATE_FIELD_U64(struct hpet_timer, match),
	STATE_END,
};
static const struct state_desc timer_state = {
	.name = "hpet-timer", .version = 1, .fields = timer_fields, .post_load = timer_post_load
};

static const struct state_field hpet_fields[] = {
	STATE_FIELD_LIMITED(STATE_U64, struct hpet, config, CONFIG_ENABLE | CONFIG_LEGACY),
	STATE_FIELD_LIMITED(STATE_U64, struct hpet, status, (1 << TIMERS) - 1),
	STATE_FIELD_U64(struct hpet, counter),
	STATE_FIELD_U64(struct hpet, since),
	STATE_ARRAY_STRUCT(struct hpet, t, &timer_state),
	STATE_FIELD_U64(struct hpet, wake),
	STATE_FIELD_LIMITED(STATE_U32, struct hpet, driven, 3),
	STATE_FIELD_U32(struct hpet, driven_apic),
	STATE_END,
};
static const struct state_desc hpet_state = {
	.name = "hpet", .version = 1, .fields = hpet_fields, .post_load = hpet_post_load
};

const struct device_class hpet_class = {
	.name = "hpet",
	.description = "high precision event timers",
	.size = sizeof(struct hpet),
	.realize = hpet_realize,
	.unrealize = hpet_unrealize,
	.reset = hpet_reset,
	.state = &hpet_state,
};
