/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-console (Virtio 1.2 §5.3): a console and up to seven more byte
 * streams with names. Everything is under the device's lock; output goes to
 * the back end in the vCPU's thread, input comes in the main loop's.
 */
#include <errno.h>
#include <string.h>

#include "device/virtio_console.h"
#include "device/virtio_pci.h"
#include "machine/backend.h"

#define PORTS VIRTIO_CONSOLE_PORTS
#define QUEUES (2 * (PORTS + 1))
#define CONSOLE_QUEUE_SIZE 128
#define NAME_MAX_BYTES 63

#define F_MULTIPORT (1ull << 1)
#define F_EMERG_WRITE (1ull << 2)

enum { Q_CTRL_IN = 2, Q_CTRL_OUT = 3 };

struct console_config {
	uint16_t cols, rows;
	uint32_t max_ports, emergency;
};

/* Control messages (§5.3.6.2). */
struct console_control {
	uint32_t id;
	uint16_t event, value;
};
enum {
	EV_DEVICE_READY,
	EV_PORT_ADD,
	EV_PORT_REMOVE,
	EV_PORT_READY,
	EV_CONSOLE_PORT,
	EV_RESIZE,
	EV_PORT_OPEN,
	EV_PORT_NAME
};

/* What the driver must still be told of a port, in this order. Bits instead of a queue of messages: nothing grows. */
enum { TELL_ADD = 1, TELL_CONSOLE = 2, TELL_NAME = 4, TELL_OPEN = 8 };

struct virtio_console;

struct console_port {
	struct virtio_console *console;
	unsigned nr;
	struct chardev *chardev; /* NULL: no such port (port 0: output is dropped) */
	char *name;
	uint8_t tell;
	bool guest_open;
	bool blocked;      /* the back end was full: writable() follows */
	uint32_t tx_done;  /* bytes of the first buffer in the output queue that it has taken */
};

struct virtio_console {
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct console_config config;
	struct console_port port[PORTS];
	unsigned nports;
	struct virtq_elem elem;
	bool is_console; /* property: port 0 is a console */
	bool ready;      /* the driver takes control messages */

	unsigned told;   /* ports that the owner knows to be open */
	bool telling;    /* a call to it is under way */
	void (*changed)(void *opaque, unsigned port, bool open);
	void *changed_opaque;
};

struct virtio_console_pci {
	struct virtio_pci proxy;
	struct virtio_console console;
};

static struct virtio_console *console_of(struct virtio_device *v)
{
	return (struct virtio_console *)v;
}

static unsigned in_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static bool exists(const struct console_port *p)
{
	return p->chardev || p->nr == 0;
}

static struct virtqueue *queue(struct virtio_console *s, unsigned n)
{
	return &s->vq[n];
}

/* Bytes may flow. Without the control queue there is nothing to open. */
static bool is_open(const struct console_port *p)
{
	return p->guest_open || !virtio_has(&p->console->v, F_MULTIPORT);
}

/* ---- The owner -------------------------------------------------------------- */

static void tell_owner(void *arg)
{
	struct virtio_console *s = arg;
	unsigned open = 0, changed;

	pthread_mutex_lock(&s->v.dev->lock);
	s->telling = false;
	for (unsigned i = 0; i < PORTS; i++)
		open |= s->port[i].guest_open << i;
	changed = open ^ s->told;
	s->told = open;
	pthread_mutex_unlock(&s->v.dev->lock);
	for (unsigned i = 0; i < PORTS && s->changed; i++)
		if (changed >> i & 1)
			s->changed(s->changed_opaque, i, open >> i & 1);
}

/* Some port may be open now, or no longer. Lock held, any thread. Without memory the news comes with the next one. */
static void opens_changed(struct virtio_console *s)
{
	if (s->changed && !s->telling)
		s->telling = !loop_post(s->v.dev->machine->loop, tell_owner, s);
}

void virtio_console_set_callback(struct device *d, void (*fn)(void *opaque, unsigned port, bool open), void *opaque)
{
	struct virtio_console *s = &((struct virtio_console_pci *)d)->console;

	s->changed_opaque = opaque;
	s->changed = fn;
}

/* ---- Output ---------------------------------------------------------------- */

/* Give the buffer's bytes to the back end from tx_done on. True: it took all. */
static bool write_buffer(struct console_port *p, const struct virtq_elem *e)
{
	size_t skip = p->tx_done;

	for (unsigned i = 0; i < e->nout; i++) {
		size_t len = e->iov[i].iov_len, n;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		n = p->chardev->ops->write(p->chardev, (uint8_t *)e->iov[i].iov_base + skip, len - skip);
		p->tx_done += n;
		if (n < len - skip)
			return false;
		skip = 0;
	}
	return true;
}

static void run_output(struct console_port *p)
{
	struct virtio_console *s = p->console;
	struct virtqueue *vq = queue(s, in_queue(p->nr) + 1);
	struct virtq_elem *e = &s->elem;

	if (p->blocked || !vq->enabled || !virtio_may_run(&s->v))
		return;
	do {
		virtq_ignore(vq);
		while (!p->blocked && virtq_pop(vq, e) > 0) {
			if (p->chardev && !write_buffer(p, e)) {
				virtq_unpop(vq, e);
				p->blocked = true;
				break;
			}
			p->tx_done = 0;
			virtq_push(vq, e, 0);
		}
	} while (!p->blocked && virtq_wait(vq));
	virtio_notify(&s->v, vq);
}

/* ---- Input ----------------------------------------------------------------- */

static size_t console_can_receive(void *opaque)
{
	struct console_port *p = opaque;
	struct virtio_console *s = p->console;
	struct virtqueue *vq = queue(s, in_queue(p->nr));
	size_t room = 0;

	pthread_mutex_lock(&s->v.dev->lock);
	if (vq->enabled && virtio_may_run(&s->v) && is_open(p)) {
		int ret;

		ret = virtq_pop_or_wait(vq, &s->elem); /* a kick follows, and with it accept() */
		if (ret > 0) {
			room = s->elem.in_len;
			virtq_unpop(vq, &s->elem);
		}
	}
	pthread_mutex_unlock(&s->v.dev->lock);
	return room;
}

static void console_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct console_port *p = opaque;
	struct virtio_console *s = p->console;
	struct virtqueue *vq = queue(s, in_queue(p->nr));

	pthread_mutex_lock(&s->v.dev->lock);
	while (len && vq->enabled && virtio_may_run(&s->v) && virtq_pop(vq, &s->elem) > 0) {
		size_t n = iov_write(s->elem.iov + s->elem.nout, s->elem.nin, 0, data, len);

		virtq_push(vq, &s->elem, n);
		data += n;
		len -= n;
	}
	virtio_notify(&s->v, vq);
	pthread_mutex_unlock(&s->v.dev->lock);
}

/* ---- Control ---------------------------------------------------------------- */

static void make_message(const struct console_port *p, unsigned what, struct console_control *m)
{
	*m = (struct console_control){ .id = p->nr, .value = 1 };
	switch (what) {
	case TELL_ADD:
		m->event = EV_PORT_ADD;
		break;
	case TELL_CONSOLE:
		m->event = EV_CONSOLE_PORT;
		break;
	case TELL_NAME:
		m->event = EV_PORT_NAME;
		break;
	default:
		m->event = EV_PORT_OPEN;
		m->value = p->chardev && p->chardev->up;
	}
}

/* Send what is to be told while the driver has buffers for it. */
static void run_control_in(struct virtio_console *s)
{
	struct virtqueue *vq = queue(s, Q_CTRL_IN);
	struct virtq_elem *e = &s->elem;

	if (!s->ready || !vq->enabled || !virtio_may_run(&s->v))
		return;
	for (unsigned i = 0; i < s->nports; i++) {
		struct console_port *p = &s->port[i];

		while (p->tell) {
			unsigned what = p->tell & -p->tell;
			struct console_control m;
			size_t n;
			int ret;

			ret = virtq_pop_or_wait(vq, e);
			if (ret <= 0)
				goto out;
			make_message(p, what, &m);
			n = iov_write(e->iov + e->nout, e->nin, 0, &m, sizeof(m));
			if (what == TELL_NAME)
				n += iov_write(e->iov + e->nout, e->nin, n, p->name, strlen(p->name) + 1);
			virtq_push(vq, e, n);
			p->tell &= ~what;
		}
	}
out:
	virtio_notify(&s->v, vq);
}

static void tell(struct console_port *p, unsigned what)
{
	if (!p->console->ready)
		return;
	p->tell |= what;
	run_control_in(p->console);
}

static void control_message(struct virtio_console *s, const struct console_control *m)
{
	struct console_port *p = m->id < s->nports ? &s->port[m->id] : NULL;

	if (m->event == EV_DEVICE_READY) {
		s->ready = m->value;
		for (unsigned i = 0; i < s->nports; i++)
			s->port[i].tell = s->ready && exists(&s->port[i]) ? TELL_ADD : 0;
		return;
	}
	if (!p || !exists(p))
		return;
	if (m->event == EV_PORT_READY && m->value) {
		p->tell |= (p->nr == 0 && s->is_console ? TELL_CONSOLE : 0) | (p->name ? TELL_NAME : 0) |
			   (p->chardev && p->chardev->up ? TELL_OPEN : 0);
	} else if (m->event == EV_PORT_OPEN) {
		p->guest_open = m->value;
		opens_changed(s);
		if (p->guest_open && p->chardev)
			p->chardev->ops->accept(p->chardev);
	}
}

static void run_control_out(struct virtio_console *s)
{
	struct virtqueue *vq = queue(s, Q_CTRL_OUT);
	struct virtq_elem *e = &s->elem;

	do {
		virtq_ignore(vq);
		while (virtq_pop(vq, e) > 0) {
			struct console_control m;
			bool whole = iov_read(e->iov, e->nout, 0, &m, sizeof(m)) == sizeof(m);

			virtq_push(vq, e, 0);
			if (whole)
				control_message(s, &m);
		}
	} while (virtq_wait(vq));
	virtio_notify(&s->v, vq);
	run_control_in(s);
}

/* ---- Back end's events; main loop's thread ----------------------------------- */

static void console_writable(void *opaque)
{
	struct console_port *p = opaque;
	struct device *d = p->console->v.dev;

	pthread_mutex_lock(&d->lock);
	p->blocked = false;
	run_output(p);
	pthread_mutex_unlock(&d->lock);
}

static void console_connected(void *opaque, bool up)
{
	struct console_port *p = opaque;
	struct device *d = p->console->v.dev;

	pthread_mutex_lock(&d->lock);
	tell(p, TELL_OPEN);
	pthread_mutex_unlock(&d->lock);
}

static const struct chardev_front console_front = {
	.can_receive = console_can_receive,
	.receive = console_receive,
	.writable = console_writable,
	.connected = console_connected,
};

/* ---- Device ------------------------------------------------------------------ */

static void console_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_console *s = console_of(v);
	struct console_port *p;

	if (vq->index == Q_CTRL_IN || vq->index == Q_CTRL_OUT) {
		if (!virtio_has(v, F_MULTIPORT))
			return;
		if (vq->index == Q_CTRL_IN)
			run_control_in(s);
		else
			run_control_out(s);
		return;
	}
	p = &s->port[vq->index < 2 ? 0 : vq->index / 2 - 1];
	if (vq->index & 1)
		run_output(p);
	else if (p->chardev && is_open(p))
		p->chardev->ops->accept(p->chardev);
}

static uint64_t console_features(struct virtio_device *v)
{
	return F_MULTIPORT | F_EMERG_WRITE;
}

static void console_config_write(struct virtio_device *v, unsigned offset, uint32_t value, unsigned size)
{
	struct virtio_console *s = console_of(v);
	struct chardev *c = s->port[0].chardev;
	uint8_t byte = value;

	/* At any time, before the driver is set up as well (§5.3.4). */
	if (offset == offsetof(struct console_config, emergency) && c)
		c->ops->write(c, &byte, 1);
}

static void console_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_console *s = console_of(v);

	if (vq->index & 1 && vq->index != Q_CTRL_OUT)
		s->port[vq->index < 2 ? 0 : vq->index / 2 - 1].tx_done = 0;
}

static void console_reset(struct virtio_device *v)
{
	struct virtio_console *s = console_of(v);

	s->ready = false;
	for (unsigned i = 0; i < PORTS; i++) {
		s->port[i].tell = 0;
		s->port[i].guest_open = false;
		s->port[i].tx_done = 0;
	}
	opens_changed(s);
}

static const struct virtio_ops console_ops = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.direct = true, /* write() of a back end never blocks */
	.features = console_features,
	.config_write = console_config_write,
	.kick = console_kick,
	.queue_off = console_queue_off,
	.reset = console_reset,
};

static int check_ports(struct virtio_console *s, struct err *err)
{
	s->nports = 1;
	for (unsigned i = 0; i < PORTS; i++) {
		struct console_port *p = &s->port[i];

		p->console = s;
		p->nr = i;
		if (p->chardev)
			s->nports = i + 1;
		if (p->chardev && p->chardev->front)
			return err_set(err, EBUSY, "the back end of port %u belongs to another device already", i);
		if (p->name && (!*p->name || strlen(p->name) > NAME_MAX_BYTES))
			return err_set(err, EINVAL, "the name of port %u must have 1 to %d characters", i,
				       NAME_MAX_BYTES);
		if (p->name && i && !p->chardev)
			return err_set(err, EINVAL, "port %u ('%s') has a name but no back end (chardev%u)", i, p->name,
				       i);
	}
	return 0;
}

static void console_destroy(struct virtio_console *s)
{
	virtio_exit(&s->v);
	virtq_elem_free(&s->elem);
}

static int console_realize(struct device *d, struct err *err)
{
	struct virtio_console_pci *o = (struct virtio_console_pci *)d;
	struct virtio_console *s = &o->console;
	int ret = check_ports(s, err);

	if (ret)
		return ret;
	s->config.max_ports = s->nports;
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
	for (unsigned i = 0; i < QUEUES; i++)
		s->vq[i].max = CONSOLE_QUEUE_SIZE;
	ret = virtio_init(&s->v, &console_ops, d, s->vq, 2 * (s->nports + 1), d->machine->loop, err);
	if (!ret)
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x078000, err);
	if (ret) {
		console_destroy(s);
		return ret;
	}
	for (unsigned i = 0; i < s->nports; i++) {
		struct console_port *p = &s->port[i];

		if (!p->chardev)
			continue;
		p->chardev->front_opaque = p;
		p->chardev->front = &console_front;
		p->chardev->ops->accept(p->chardev);
	}
	return 0;
}

static void console_unrealize(struct device *d)
{
	struct virtio_console *s = &((struct virtio_console_pci *)d)->console;

	for (unsigned i = 0; i < s->nports; i++)
		if (s->port[i].chardev)
			s->port[i].chardev->front = NULL;
	virtio_pci_unrealize(d);
	loop_unpost(d->machine->loop, tell_owner, s);
	console_destroy(s);
}

static int console_loaded(void *obj, struct err *err)
{
	struct virtio_console *s = &((struct virtio_console_pci *)obj)->console;

	for (unsigned i = 0; i < PORTS; i++) {
		struct console_port *p = &s->port[i];

		p->blocked = false;
		if (i >= s->nports || !exists(p))
			p->tell = 0;
		else if (s->ready)
			p->tell |= TELL_OPEN; /* whether somebody is there is this side's news */
		if (!p->name)
			p->tell &= ~TELL_NAME;
	}
	opens_changed(s);
	return virtio_loaded(&s->v, err);
}

#define PORT_PROPS(n) \
	PROP_DEF_PTR(struct virtio_console_pci, console.port[n].chardev, "chardev" #n, "back end of port " #n), \
	PROP_DEF_STRING(struct virtio_console_pci, console.port[n].name, "name" #n, NULL, "name of port " #n)

static const struct property console_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_console_pci),
	PROP_DEF_PTR(struct virtio_console_pci, console.port[0].chardev, "chardev",
		     "back end (struct chardev) of port 0"),
	PROP_DEF_STRING(struct virtio_console_pci, console.port[0].name, "name", NULL, "name of port 0"),
	PROP_DEF_BOOL(struct virtio_console_pci, console.is_console, "console", "on", "port 0 is a console (hvc0)"),
	PORT_PROPS(1), PORT_PROPS(2), PORT_PROPS(3), PORT_PROPS(4),
	PORT_PROPS(5), PORT_PROPS(6), PORT_PROPS(7),
	{ 0 },
};

static const struct state_field port_fields[] = {
	{ .name = "tell",
	  .type = STATE_U8,
	  .since = 1,
	  .offset = offsetof(struct console_port, tell),
	  .count = 1,
	  .size = 1,
	  .max = TELL_ADD | TELL_CONSOLE | TELL_NAME | TELL_OPEN },
	STATE_FIELD_BOOL(struct console_port, guest_open),
	STATE_FIELD_U32(struct console_port, tx_done),
	STATE_END,
};
static const struct state_desc port_state = { .name = "port", .version = 1, .fields = port_fields };

static const struct state_field console_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_console_pci, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_console_pci, console.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_console_pci, console.vq, &virtq_state),
	STATE_ARRAY_STRUCT(struct virtio_console_pci, console.port, &port_state),
	STATE_FIELD_BOOL(struct virtio_console_pci, console.ready),
	STATE_END,
};
static const struct state_desc console_state = {
	.name = "virtio-serial-pci", .version = 1, .fields = console_fields, .post_load = console_loaded,
};

const struct device_class virtio_console_class = {
	.name = "virtio-serial-pci",
	.description = "console and serial ports (virtio)",
	.size = sizeof(struct virtio_console_pci),
	.props = console_props,
	.realize = console_realize,
	.unrealize = console_unrealize,
	.reset = virtio_pci_reset,
	.state = &console_state,
	.stopped = virtio_pci_stopped,
};
