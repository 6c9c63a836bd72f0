/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real-time clock and 256 bytes of battery-backed memory (Motorola MC146818A
 * data sheet; ICH9 data sheet §5.11, §13.6): ports 0x70-0x73.
 *
 * The time is the host's real time plus an offset, and is looked at, not
 * counted. The three flags of register C are brought up to date when somebody
 * reads them; a timer runs only for an interrupt that is enabled and whose flag
 * is still clear. Second and alarm follow the host's real time, the periodic
 * interrupt the machine's clock.
 */
#include "device/rtc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "machine/machine.h"

#define NS 1000000000u
#define NEVER INT64_MAX

enum { SECONDS = 0, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR,
       REG_A, REG_B, REG_C, REG_D, CENTURY = 0x32 };

#define A_UIP 0x80
#define A_DIVIDER 0x70
#define A_RESET 0x60 /* both bits: the divider chain is held in reset */
#define A_RATE 0x0f
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_SQWE 0x08
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define D_VALID 0x80
#define HOUR_PM 0x80
#define ALARM_ANY 0xc0

#define UIP_NS 244141u        /* UIP comes 244 us before the update */
#define DIVIDER_NS 500000000u /* the first update follows half a second after the divider's release */
#define MIN_WAIT_NS 50000u    /* real time may lag behind the machine's clock: don't spin on the rest */

struct rtc {
	struct device dev;
	uint8_t cmos[256]; /* time registers: only while the clock stands */
	uint8_t index, high_index;
	bool nmi_masked;
	int64_t offset;    /* seconds from real time + phase to the guest's time */
	uint32_t phase;    /* ns added to real time, below a second */
	uint8_t weekday_shift;
	int64_t checked;   /* second up to which UF and AF are up to date */
	uint64_t periods;  /* number of the last period that PF knows of */
	uint64_t second_at, period_at; /* ns for which the timers are armed */
	struct vtimer *second, *period;
	struct irq irq;
	char *base;
	struct io_range range;
};

/* ---- Calendar ------------------------------------------------------------ */

struct date {
	int year, month, day, hour, minute, second;
};

/* Days since 1970-01-01 of a date in the Gregorian calendar; years begin in March, so that leap days come last. */
static int64_t days_of(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year, m = (month + 9) % 12;
	int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static int64_t seconds_of(const struct date *d)
{
	return days_of(d->year, d->month, d->day) * 86400 + d->hour * 3600 + d->minute * 60 + d->second;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static struct date date_of(int64_t seconds)
{
	int64_t days = floor_div(seconds, 86400), rest = seconds - days * 86400;
	int64_t shifted = days + 719468, era = floor_div(shifted, 146097), doe = shifted - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;
	struct date d = { .day = doy - (153 * m + 2) / 5 + 1, .month = m < 10 ? m + 3 : m - 9,
			  .hour = rest / 3600, .minute = rest / 60 % 60, .second = rest % 60 };

	d.year = (yoe + era * 400 + (d.month <= 2)) % 10000;
	if (d.year < 0)
		d.year += 10000;
	return d;
}

/* 0 is Sunday. */
static unsigned weekday_of(int64_t seconds)
{
	int64_t days = floor_div(seconds, 86400) + 4;

	return days - floor_div(days, 7) * 7;
}

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10;
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
	return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, hour);
	return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

/* 24 or more for what is no hour. */
static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
	unsigned hour;

	if (r->cmos[REG_B] & B_24H)
		return decode(r, v);
	hour = decode(r, v & ~HOUR_PM);
	if (hour < 1 || hour > 12)
		return 24;
	return hour % 12 + (v & HOUR_PM ? 12 : 0);
}

/* ---- The time ------------------------------------------------------------ */

static uint64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS + ts.tv_nsec;
}

static bool standing(const struct rtc *r)
{
	return r->cmos[REG_B] & B_SET || (r->cmos[REG_A] & A_RESET) == A_RESET;
}

static int64_t now_seconds(const struct rtc *r, uint32_t *ns)
{
	uint64_t t = real_ns() + r->phase;

	if (ns)
		*ns = t % NS;
	return (int64_t)(t / NS) + r->offset;
}

/* Put the time into the registers. */
static void time_to_cmos(struct rtc *r)
{
	int64_t now = now_seconds(r, NULL);
	struct date d = date_of(now);

	r->cmos[SECONDS] = encode(r, d.second);
	r->cmos[MINUTES] = encode(r, d.minute);
	r->cmos[HOURS] = encode_hour(r, d.hour);
	r->cmos[WEEKDAY] = encode(r, (weekday_of(now) + r->weekday_shift) % 7 + 1);
	r->cmos[DAY] = encode(r, d.day);
	r->cmos[MONTH] = encode(r, d.month);
	r->cmos[YEAR] = encode(r, d.year % 100);
	r->cmos[CENTURY] = encode(r, d.year / 100);
}

static unsigned clamp(unsigned v, unsigned low, unsigned high)
{
	return v < low ? low : v > high ? high : v;
}

/* The clock goes on from what the registers say; nonsense is taken for the nearest time there is. */
static void time_from_cmos(struct rtc *r)
{
	struct date d = {
		.year = clamp(decode(r, r->cmos[CENTURY]), 0, 99) * 100 + clamp(decode(r, r->cmos[YEAR]), 0, 99),
		.month = clamp(decode(r, r->cmos[MONTH]), 1, 12),
		.day = clamp(decode(r, r->cmos[DAY]), 1, 31),
		.hour = clamp(decode_hour(r, r->cmos[HOURS]), 0, 23),
		.minute = clamp(decode(r, r->cmos[MINUTES]), 0, 59),
		.second = clamp(decode(r, r->cmos[SECONDS]), 0, 59),
	};
	int64_t seconds = seconds_of(&d);
	unsigned weekday = clamp(decode(r, r->cmos[WEEKDAY]), 1, 7) - 1;

	r->weekday_shift = (weekday + 7 - weekday_of(seconds)) % 7;
	r->offset += seconds - now_seconds(r, NULL);
	r->checked = seconds;
}

/* ---- Flags and interrupts ------------------------------------------------ */

static bool alarm_part(const struct rtc *r, unsigned reg, unsigned max, int *value)
{
	uint8_t raw = r->cmos[reg];
	unsigned v = reg == HOURS_ALARM ? decode_hour(r, raw) : decode(r, raw);

	*value = raw >= ALARM_ANY ? -1 : (int)v;
	return *value < 0 || v < max;
}

/* The first second after `after` at which the alarm matches, or NEVER. */
static int64_t next_alarm(const struct rtc *r, int64_t after)
{
	int64_t t = after + 1, end = after + 86400;
	int hour, minute, second;

	if (!alarm_part(r, HOURS_ALARM, 24, &hour) || !alarm_part(r, MINUTES_ALARM, 60, &minute) ||
	    !alarm_part(r, SECONDS_ALARM, 60, &second))
		return NEVER;
	while (t <= end) {
		int64_t of_day = t - floor_div(t, 86400) * 86400;

		if (hour >= 0 && of_day / 3600 != hour)
			t += 3600 - of_day % 3600;
		else if (minute >= 0 && of_day / 60 % 60 != minute)
			t += 60 - of_day % 60;
		else if (second >= 0 && of_day % 60 != second)
			t++;
		else
			return t;
	}
	return NEVER;
}

/* Ticks of 32,768 Hz in a period of the periodic interrupt, 0: none (table 5-3 of the MC146818A for a 32 kHz base). */
static unsigned period_ticks(const struct rtc *r)
{
	unsigned rate = r->cmos[REG_A] & A_RATE;

	if (rate == 0 || (r->cmos[REG_A] & A_RESET) == A_RESET)
		return 0;
	return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t periods_now(const struct rtc *r)
{
	unsigned ticks = period_ticks(r);

	return ticks ? muldiv64(vclock_now(r->dev.machine->clock), 32768, NS) / ticks : 0;
}

static void update_flags(struct rtc *r)
{
	uint64_t periods = periods_now(r);
	int64_t now;

	if (periods > r->periods)
		r->cmos[REG_C] |= C_PF;
	r->periods = periods;
	if (standing(r))
		return;
	now = now_seconds(r, NULL);
	if (now > r->checked) {
		r->cmos[REG_C] |= C_UF;
		if (next_alarm(r, r->checked) <= now)
			r->cmos[REG_C] |= C_AF;
	}
	r->checked = now; /* also when the host's clock was set back */
}

static bool wants(const struct rtc *r, uint8_t flag)
{
	return r->cmos[REG_B] & flag && !(r->cmos[REG_C] & flag);
}

/* Arm the timers for the flags that would interrupt. */
static void arm(struct rtc *r)
{
	uint64_t now = vclock_now(r->dev.machine->clock);
	int64_t at = NEVER, seconds, known;
	uint32_t ns;

	r->second_at = r->period_at = VTIMER_NEVER;
	if (wants(r, B_PIE) && period_ticks(r)) {
		uint64_t periods = periods_now(r), tick;

		/* A period that has ended but not been told of is due at once. */
		tick = ((r->periods < periods ? r->periods : periods) + 1) * period_ticks(r);

		r->period_at = ((unsigned __int128)tick * NS + 32767) / 32768;
	}
	seconds = now_seconds(r, &ns);
	known = r->checked < seconds ? r->checked : seconds;
	if (!standing(r) && wants(r, B_AIE))
		at = next_alarm(r, known);
	if (!standing(r) && wants(r, B_UIE))
		at = known + 1;
	if (at != NEVER) {
		uint64_t wait = at > seconds ? (uint64_t)(at - seconds) * NS - ns : 0;

		r->second_at = now + (wait < MIN_WAIT_NS ? MIN_WAIT_NS : wait);
	}
	vtimer_arm(r->second, r->second_at);
	vtimer_arm(r->period, r->period_at);
}

/* After any change: flags to interrupt line and timers. */
static void update_irq(struct rtc *r)
{
	bool level = r->cmos[REG_C] & r->cmos[REG_B] & (B_PIE | B_AIE | B_UIE);

	r->cmos[REG_C] = (r->cmos[REG_C] & ~C_IRQF) | (level ? C_IRQF : 0);
	irq_set(&r->irq, level);
	arm(r);
}

static void timer_fired(struct rtc *r, uint64_t *at)
{
	pthread_mutex_lock(&r->dev.lock);
	if (vclock_now(r->dev.machine->clock) >= *at) {
		update_flags(r);
		update_irq(r);
	}
	pthread_mutex_unlock(&r->dev.lock);
}

static void second_timer(void *opaque)
{
	struct rtc *r = opaque;

	timer_fired(r, &r->second_at);
}

static void period_timer(void *opaque)
{
	struct rtc *r = opaque;

	timer_fired(r, &r->period_at);
}

/* ---- Registers ----------------------------------------------------------- */

static bool is_time(unsigned index)
{
	return index == SECONDS || index == MINUTES || index == HOURS || (index >= WEEKDAY && index <= YEAR) ||
	       index == CENTURY;
}

/* Registers A and B can stop the clock and let it go. */
static void write_control(struct rtc *r, unsigned index, uint8_t value)
{
	bool stood = standing(r), reset = (r->cmos[REG_A] & A_RESET) == A_RESET;

	if (!stood)
		time_to_cmos(r);
	r->cmos[index] = value;
	if (index == REG_A)
		r->periods = periods_now(r);
	if (!stood || standing(r))
		return;
	if (reset)
		r->phase = (DIVIDER_NS + NS - real_ns() % NS) % NS;
	time_from_cmos(r);
}

static void cmos_write(struct rtc *r, unsigned index, uint8_t value)
{
	switch (index) {
	case REG_A:
		update_flags(r);
		write_control(r, REG_A, value & ~A_UIP);
		break;
	case REG_B:
		update_flags(r);
		write_control(r, REG_B, value & B_SET ? value & ~B_UIE : value);
		break;
	case REG_C:
	case REG_D:
		return;
	case SECONDS_ALARM:
	case MINUTES_ALARM:
	case HOURS_ALARM:
		update_flags(r);
		r->cmos[index] = value;
		break;
	default:
		if (!is_time(index) || standing(r)) {
			r->cmos[index] = value;
			return;
		}
		update_flags(r);
		time_to_cmos(r);
		r->cmos[index] = value;
		time_from_cmos(r);
	}
	update_irq(r);
}

static uint8_t cmos_read(struct rtc *r, unsigned index)
{
	uint32_t ns;
	uint8_t value;

	switch (index) {
	case REG_A:
		now_seconds(r, &ns);
		return r->cmos[REG_A] | (!standing(r) && ns >= NS - UIP_NS ? A_UIP : 0);
	case REG_C:
		update_flags(r);
		update_irq(r);
		value = r->cmos[REG_C];
		r->cmos[REG_C] = 0;
		update_irq(r);
		return value;
	case REG_D:
		return D_VALID;
	}
	if (is_time(index) && !standing(r))
		time_to_cmos(r);
	return r->cmos[index];
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct rtc *r = opaque;

	switch (offset) {
	case 1:
		return cmos_read(r, r->index);
	case 2:
		return r->high_index;
	case 3:
		return r->cmos[128 + r->high_index];
	default:
		return 0xff; /* the index register can only be written */
	}
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *r = opaque;

	switch (offset) {
	case 0:
		r->index = value & 0x7f;
		r->nmi_masked = value & 0x80;
		break;
	case 1:
		cmos_write(r, r->index, value);
		break;
	case 2:
		r->high_index = value & 0x7f;
		break;
	case 3:
		r->cmos[128 + r->high_index] = value;
		break;
	}
}

void rtc_set_cell(struct device *d, unsigned index, uint8_t value)
{
	struct rtc *r = (struct rtc *)d;

	pthread_mutex_lock(&d->lock);
	r->cmos[index & 0xff] = value;
	pthread_mutex_unlock(&d->lock);
}

/* ---- Device -------------------------------------------------------------- */

/* Years that a guest can set, and then some. */
#define FAR (20000ll * 366 * 86400)

static bool far_away(const struct rtc *r)
{
	return r->offset < -FAR || r->offset > FAR || r->checked < -FAR || r->checked > FAR;
}

/* The battery keeps time and memory (MC146818A, RESET pin). */
static void rtc_reset(struct device *d)
{
	struct rtc *r = (struct rtc *)d;

	pthread_mutex_lock(&d->lock);
	r->index = r->high_index = 0;
	r->nmi_masked = false;
	r->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	if (far_away(r)) /* left by a state that was refused */
		r->offset = r->checked = 0;
	update_flags(r);
	r->cmos[REG_C] = 0;
	update_irq(r);
	pthread_mutex_unlock(&d->lock);
}

/* A paused machine misses no alarm: the timers stood, the time did not. */
static void rtc_stopped(struct device *d, bool stopped)
{
	struct rtc *r = (struct rtc *)d;

	pthread_mutex_lock(&d->lock);
	if (!stopped) {
		update_flags(r);
		update_irq(r);
	}
	pthread_mutex_unlock(&d->lock);
}

/* Offset of the guest's time from the host's, by the property "base". */
static int set_base(struct rtc *r, struct err *err)
{
	time_t now = real_ns() / NS;
	struct date d;
	struct tm tm;
	char tail;

	if (!strcmp(r->base, "utc"))
		return 0;
	if (!strcmp(r->base, "localtime")) {
		localtime_r(&now, &tm);
		r->offset = tm.tm_gmtoff;
		return 0;
	}
	if (sscanf(r->base, "%4d-%2d-%2dT%2d:%2d:%2d%c", &d.year, &d.month, &d.day, &d.hour, &d.minute, &d.second,
		   &tail) != 6 ||
	    d.year < 0 || d.month < 1 || d.month > 12 || d.day < 1 || d.day > 31 || d.hour < 0 || d.hour > 23 ||
	    d.minute < 0 || d.minute > 59 || d.second < 0 || d.second > 59)
		return err_set(err, EINVAL, "property base must be utc, localtime or YYYY-MM-DDThh:mm:ss, not '%s'",
			       r->base);
	r->offset = seconds_of(&d) - now;
	return 0;
}

static void rtc_unrealize(struct device *d)
{
	struct rtc *r = (struct rtc *)d;

	bus_del(d->machine->pio, &r->range);
	vtimer_free(r->second);
	vtimer_free(r->period);
}

static int rtc_realize(struct device *d, struct err *err)
{
	static const struct io_ops ops = { rtc_read, rtc_write, 1, 1 };
	struct rtc *r = (struct rtc *)d;
	struct machine *m = d->machine;
	int ret = set_base(r, err);

	if (ret)
		return ret;
	r->cmos[REG_A] = 0x26; /* 32,768 Hz, 1,024 Hz: what every firmware sets */
	r->cmos[REG_B] = B_24H;
	r->cmos[REG_D] = D_VALID;
	r->checked = now_seconds(r, NULL);
	r->irq = machine_irq(m, 8);
	r->range = (struct io_range){ "rtc", 0x70, 4, &ops, r, &d->lock, 0 };
	r->second = vtimer_new(m->clock, second_timer, r);
	r->period = vtimer_new(m->clock, period_timer, r);
	ret = r->second && r->period ? bus_add(m->pio, &r->range, err) : err_set(err, ENOMEM, "no memory for timers");
	if (ret)
		rtc_unrealize(d);
	return ret;
}

static int rtc_post_load(void *obj, struct err *err)
{
	struct rtc *r = obj;

	if (far_away(r))
		return err_set(err, EINVAL, "the time is out of bounds");
	r->cmos[REG_A] &= ~A_UIP;
	r->cmos[REG_D] = D_VALID;
	arm(r);
	return 0;
}

static const struct state_field rtc_fields[] = {
	STATE_FIELD_BYTES(struct rtc, cmos),
	STATE_FIELD_LIMITED(STATE_U8, struct rtc, index, 127),
	STATE_FIELD_LIMITED(STATE_U8, struct rtc, high_index, 127),
	STATE_FIELD_BOOL(struct rtc, nmi_masked),
	STATE_FIELD_LIMITED(STATE_U64, struct rtc, offset, 0), /* signed */
	STATE_FIELD_LIMITED(STATE_U32, struct rtc, phase, NS - 1),
	STATE_FIELD_LIMITED(STATE_U8, struct rtc, weekday_shift, 6),
	STATE_FIELD_LIMITED(STATE_U64, struct rtc, checked, 0), /* signed */
	STATE_FIELD_U64(struct rtc, periods),
	STATE_END,
};
static const struct state_desc rtc_state = {
	.name = "mc146818rtc", .version = 1, .fields = rtc_fields, .post_load = rtc_post_load
};

static const struct property rtc_props[] = {
	PROP_DEF_STRING(struct rtc, base, "base", "utc", "time at start: utc, localtime or YYYY-MM-DDThh:mm:ss"),
	{ 0 }
};

const struct device_class rtc_class = {
	.name = "mc146818rtc",
	.description = "real-time clock and CMOS memory",
	.size = sizeof(struct rtc),
	.props = rtc_props,
	.realize = rtc_realize,
	.unrealize = rtc_unrealize,
	.reset = rtc_reset,
	.stopped = rtc_stopped,
	.state = &rtc_state,
};
