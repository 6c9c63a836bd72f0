/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 16550A UART on the ISA bus (National Semiconductor PC16550D data sheet).
 *
 * The line is infinitely fast: a byte written is sent, and the transmitter is
 * busy only while the back end takes nothing and the buffer before it is full.
 * What the line brings waits in the back end until the FIFO has room. OUT2 does
 * not cut the interrupt line, as guests that forget it expect.
 */
#include <errno.h>

#include "device/txbuf.h"

#define NS 1000000000u
#define FIFO 16u

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX 0x01
#define IER_TX 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
#define IIR_NONE 0x01
#define IIR_MODEM 0x00
#define IIR_TX 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
#define FCR_KEPT 0xc9
#define LCR_BREAK 0x40
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_OVERRUN 0x02
#define LSR_BREAK 0x10
#define LSR_ERRORS 0x1e
#define LSR_TX_EMPTY 0x60 /* holding register and transmitter */
#define MSR_DELTA 0x0f
#define MSR_RI_ENDS 0x04
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

struct uart {
	struct device dev;
	uint32_t index, iobase, irq_n; /* properties; 0: by index */
	struct chardev *chardev;

	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t errors;    /* LSR bits that reading clears */
	uint8_t msr;
	uint16_t divisor;
	uint8_t rx[FIFO], rx_head, rx_len;
	bool tx_pending;   /* the transmitter became empty: interrupt */
	bool rx_timeout;   /* data lies below the trigger level: interrupt */
	bool irq_level;
	uint64_t timeout_at;
	struct txbuf tx;

	bool starved;      /* the back end was told to wait */
	struct vtimer *timer;
	struct irq irq;
	struct io_range range;
};

/* ---- Interrupts ---------------------------------------------------------- */

static bool fifo_on(const struct uart *u)
{
	return u->fcr & FCR_ENABLE;
}

static unsigned trigger(const struct uart *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return fifo_on(u) ? level[u->fcr >> 6] : 1;
}

static bool tx_empty(const struct uart *u)
{
	/* Empty means that the guest may fill the whole FIFO. */
	return txbuf_free(&u->tx) >= FIFO;
}

static uint8_t interrupt_id(const struct uart *u)
{
	if (u->ier & IER_LINE && u->errors)
		return IIR_LINE;
	if (u->ier & IER_RX && u->rx_len >= trigger(u))
		return IIR_RX;
	if (u->ier & IER_RX && u->rx_timeout)
		return IIR_TIMEOUT;
	if (u->ier & IER_TX && u->tx_pending)
		return IIR_TX;
	if (u->ier & IER_MODEM && u->msr & MSR_DELTA)
		return IIR_MODEM;
	return IIR_NONE;
}

/* Time of four characters: start, data, parity and stop bits at 1.8432 MHz / 16 / divisor. */
static uint64_t timeout_ns(const struct uart *u)
{
	unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr >> 3 & 1) + 1 + (u->lcr >> 2 & 1);

	return muldiv64(4ull * bits * (u->divisor ? u->divisor : 1), NS, 115200);
}

static void update(struct uart *u)
{
	bool level, waits = fifo_on(u) && u->ier & IER_RX && u->rx_len && u->rx_len < trigger(u) && !u->rx_timeout;

	level = interrupt_id(u) != IIR_NONE;
	if (level != u->irq_level) {
		u->irq_level = level;
		irq_set(&u->irq, level);
	}
	if (waits && u->timeout_at == VTIMER_NEVER)
		vtimer_arm(u->timer, u->timeout_at = vclock_now(u->dev.machine->clock) + timeout_ns(u));
	else if (!waits && u->timeout_at != VTIMER_NEVER)
		vtimer_arm(u->timer, u->timeout_at = VTIMER_NEVER);
}

static void rx_timer(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->dev.lock);
	if (vclock_now(u->dev.machine->clock) >= u->timeout_at) {
		u->timeout_at = VTIMER_NEVER;
		u->rx_timeout = true;
		update(u);
	}
	pthread_mutex_unlock(&u->dev.lock);
}

/* ---- The line ------------------------------------------------------------ */

static unsigned rx_room(const struct uart *u)
{
	return (fifo_on(u) ? FIFO : 1) - u->rx_len;
}

/* Every byte that comes or goes starts the timeout anew. */
static void restart_timeout(struct uart *u)
{
	u->rx_timeout = false;
	u->timeout_at = VTIMER_NEVER;
}

static void rx_push(struct uart *u, uint8_t byte)
{
	if (!rx_room(u)) {
		u->errors |= LSR_OVERRUN;
		return;
	}
	u->rx[(u->rx_head + u->rx_len++) % FIFO] = byte;
	restart_timeout(u);
}

static uint8_t rx_pop(struct uart *u)
{
	uint8_t byte;

	if (!u->rx_len)
		return 0;
	byte = u->rx[u->rx_head];
	u->rx_head = (u->rx_head + 1) % FIFO;
	u->rx_len--;
	restart_timeout(u);
	return byte;
}

static void rx_clear(struct uart *u)
{
	u->rx_len = 0;
	restart_timeout(u);
}

static void transmit(struct uart *u, uint8_t byte)
{
	if (u->mcr & MCR_LOOP)
		rx_push(u, byte);
	else
		txbuf_put(&u->tx, byte);
	u->tx_pending = tx_empty(u);
}

/* Modem inputs: a null modem that is always ready, or in loopback the own outputs (PC16550D §8.7). */
static void modem_update(struct uart *u)
{
	uint8_t now = MSR_CTS | MSR_DSR | MSR_DCD, changed;

	if (u->mcr & MCR_LOOP)
		now = (u->mcr & 0x01 ? MSR_DSR : 0) | (u->mcr & 0x02 ? MSR_CTS : 0) | (u->mcr & 0x04 ? MSR_RI : 0) |
		      (u->mcr & 0x08 ? MSR_DCD : 0);
	changed = now ^ (u->msr & 0xf0);
	/* The delta bits lie below the lines; that of RI tells of its end only. */
	u->msr = now | (u->msr & MSR_DELTA) | (changed >> 4 & ~MSR_RI_ENDS) |
		 (changed & MSR_RI && !(now & MSR_RI) ? MSR_RI_ENDS : 0);
}

/* ---- Registers ----------------------------------------------------------- */

static void write_fcr(struct uart *u, uint8_t value)
{
	/* Switching the FIFOs on or off empties them. */
	if ((value ^ u->fcr) & FCR_ENABLE)
		value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	if (value & FCR_CLEAR_RX)
		rx_clear(u);
	if (value & FCR_CLEAR_TX) /* what was written is on the line already */
		u->tx_pending = tx_empty(u);
	u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
}

static void write_reg(struct uart *u, unsigned reg, uint8_t value)
{
	switch (reg) {
	case REG_DATA:
		if (u->lcr & LCR_DLAB)
			u->divisor = (u->divisor & 0xff00) | value;
		else
			transmit(u, value);
		break;
	case REG_IER:
		if (u->lcr & LCR_DLAB) {
			u->divisor = (u->divisor & 0x00ff) | value << 8;
			break;
		}
		/* Enabled while the transmitter is empty, its interrupt comes at once. */
		if (value & ~u->ier & IER_TX)
			u->tx_pending = tx_empty(u);
		u->ier = value & 0x0f;
		break;
	case REG_IIR:
		write_fcr(u, value);
		break;
	case REG_LCR:
		if (value & ~u->lcr & LCR_BREAK && u->mcr & MCR_LOOP) {
			rx_push(u, 0);
			u->errors |= LSR_BREAK;
		}
		u->lcr = value;
		break;
	case REG_MCR:
		u->mcr = value & 0x1f;
		modem_update(u);
		break;
	case REG_SCR:
		u->scr = value;
		break;
	default: /* the status registers are written in factory tests only */
		break;
	}
}

static uint8_t read_reg(struct uart *u, unsigned reg)
{
	uint8_t value;

	switch (reg) {
	case REG_DATA:
		return u->lcr & LCR_DLAB ? u->divisor & 0xff : rx_pop(u);
	case REG_IER:
		return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
	case REG_IIR:
		value = interrupt_id(u);
		if (value == IIR_TX)
			u->tx_pending = false;
		return value | (fifo_on(u) ? IIR_FIFO : 0);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		value = (u->rx_len ? LSR_DATA : 0) | u->errors | (tx_empty(u) ? LSR_TX_EMPTY : 0);
		u->errors = 0;
		return value;
	case REG_MSR:
		value = u->msr;
		u->msr &= ~MSR_DELTA;
		return value;
	default:
		return u->scr;
	}
}

/* The back end was told to wait, and need not any more? It is told without the lock: it may ask at once. */
static bool feed(struct uart *u)
{
	bool now = u->starved && !u->rx_len && !(u->mcr & MCR_LOOP);

	if (now)
		u->starved = false;
	return now;
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
	struct uart *u = opaque;
	uint8_t value;
	bool hungry;

	pthread_mutex_lock(&u->dev.lock);
	value = read_reg(u, offset);
	update(u);
	hungry = feed(u);
	pthread_mutex_unlock(&u->dev.lock);
	if (hungry)
		u->chardev->ops->accept(u->chardev);
	return value;
}

static void uart_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct uart *u = opaque;
	bool hungry;

	pthread_mutex_lock(&u->dev.lock);
	write_reg(u, offset, value);
	update(u);
	hungry = feed(u);
	pthread_mutex_unlock(&u->dev.lock);
	if (hungry)
		u->chardev->ops->accept(u->chardev);
}

/* ---- Back end ------------------------------------------------------------ */

static size_t uart_can_receive(void *opaque)
{
	struct uart *u = opaque;
	size_t room;

	pthread_mutex_lock(&u->dev.lock);
	room = u->mcr & MCR_LOOP ? 0 : rx_room(u);
	if (!room)
		u->starved = true;
	pthread_mutex_unlock(&u->dev.lock);
	return room;
}

static void uart_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->dev.lock);
	for (size_t i = 0; i < len; i++)
		rx_push(u, data[i]);
	update(u);
	pthread_mutex_unlock(&u->dev.lock);
}

static void uart_writable(void *opaque)
{
	struct uart *u = opaque;
	bool was;

	pthread_mutex_lock(&u->dev.lock);
	was = tx_empty(u);
	txbuf_writable(&u->tx);
	if (!was && tx_empty(u))
		u->tx_pending = true;
	update(u);
	pthread_mutex_unlock(&u->dev.lock);
}

/* ---- Device -------------------------------------------------------------- */

static void uart_reset(struct device *d)
{
	struct uart *u = (struct uart *)d;
	bool hungry;

	pthread_mutex_lock(&d->lock);
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->errors = 0;
	u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	u->divisor = 12; /* 9,600 baud */
	u->rx_head = 0;
	rx_clear(u);
	u->tx_pending = false;
	update(u);
	irq_set(&u->irq, false);
	hungry = feed(u);
	pthread_mutex_unlock(&d->lock);
	if (hungry)
		u->chardev->ops->accept(u->chardev);
}

static void uart_stopped(struct device *d, bool stopped)
{
	struct uart *u = (struct uart *)d;
	bool hungry = false;

	pthread_mutex_lock(&d->lock);
	if (stopped)
		txbuf_flush(&u->tx);
	else
		hungry = feed(u);
	pthread_mutex_unlock(&d->lock);
	if (hungry)
		u->chardev->ops->accept(u->chardev);
}

static void uart_unrealize(struct device *d)
{
	struct uart *u = (struct uart *)d;

	bus_del(d->machine->pio, &u->range);
	if (u->chardev && u->chardev->front_opaque == u) {
		u->chardev->front = NULL;
		u->chardev->front_opaque = NULL;
	}
	txbuf_exit(&u->tx);
	vtimer_free(u->timer);
}

static int uart_realize(struct device *d, struct err *err)
{
	static const struct { uint16_t port, irq; } com[4] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };
	static const struct io_ops ops = { uart_read, uart_write, 1, 1 };
	static const struct chardev_front front = { uart_can_receive, uart_receive, uart_writable, NULL };
	struct uart *u = (struct uart *)d;
	int ret = txbuf_init(&u->tx, d, u->chardev, err);

	if (ret)
		return ret;
	u->timeout_at = VTIMER_NEVER;
	u->timer = vtimer_new(d->machine->clock, rx_timer, u);
	u->irq = machine_irq(d->machine, u->irq_n ? u->irq_n : com[u->index].irq);
	u->range = (struct io_range){ d->id, u->iobase ? u->iobase : com[u->index].port, 8, &ops, u, NULL, 0 };
	ret = u->timer ? bus_add(d->machine->pio, &u->range, err) : err_set(err, ENOMEM, "no memory for a timer");
	if (ret) {
		uart_unrealize(d);
		return ret;
	}
	if (u->chardev) {
		u->chardev->front_opaque = u;
		u->chardev->front = &front;
	}
	return 0;
}

static int uart_post_load(void *obj, struct err *err)
{
	struct uart *u = obj;

	if (u->rx_len > (fifo_on(u) ? FIFO : 1))
		return err_set(err, EINVAL, "more bytes wait than the FIFO has room for");
	/* The back end of this host may wait since before the load. */
	u->starved = u->chardev != NULL;
	vtimer_arm(u->timer, u->timeout_at);
	return 0;
}

static const struct state_field uart_fields[] = {
	STATE_FIELD_LIMITED(STATE_U8, struct uart, ier, 0x0f),
	STATE_FIELD_U8(struct uart, fcr),
	STATE_FIELD_U8(struct uart, lcr),
	STATE_FIELD_LIMITED(STATE_U8, struct uart, mcr, 0x1f),
	STATE_FIELD_U8(struct uart, scr),
	STATE_FIELD_LIMITED(STATE_U8, struct uart, errors, LSR_ERRORS),
	STATE_FIELD_U8(struct uart, msr),
	STATE_FIELD_U16(struct uart, divisor),
	STATE_FIELD_BYTES(struct uart, rx),
	STATE_FIELD_LIMITED(STATE_U8, struct uart, rx_head, FIFO - 1),
	STATE_FIELD_LIMITED(STATE_U8, struct uart, rx_len, FIFO),
	STATE_FIELD_BOOL(struct uart, tx_pending),
	STATE_FIELD_BOOL(struct uart, rx_timeout),
	STATE_FIELD_BOOL(struct uart, irq_level),
	STATE_FIELD_U64(struct uart, timeout_at),
	STATE_FIELD_STRUCT(struct uart, tx, &txbuf_state),
	STATE_END,
};
static const struct state_desc uart_state = {
	.name = "16550a", .version = 1, .fields = uart_fields, .post_load = uart_post_load
};

static const struct property uart_props[] = {
	PROP_DEF_U32(struct uart, index, "index", "0", 0, 3, "0 to 3: COM1 to COM4, their ports and interrupts"),
	PROP_DEF_U32(struct uart, iobase, "iobase", "0", 0, 0xfff8, "first of its 8 ports, if not that of index"),
	PROP_DEF_U32(struct uart, irq_n, "irq", "0", 0, 15, "its interrupt, if not that of index"),
	PROP_DEF_PTR(struct uart, chardev, "chardev", "where the line leads"),
	{ 0 }
};

const struct device_class uart_class = {
	.name = "isa-serial",
	.description = "16550A serial port",
	.size = sizeof(struct uart),
	.props = uart_props,
	.realize = uart_realize,
	.unrealize = uart_unrealize,
	.reset = uart_reset,
	.state = &uart_state,
	.stopped = uart_stopped,
};
