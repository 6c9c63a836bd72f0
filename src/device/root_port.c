/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PCI Express root port with a hot-plug slot (PCIe 4.0 §7.5.3.9 ff., §6.7).
 * Presence, indicators, power control and command completion are here; who
 * asks for an unplug presses the attention button with root_port_attention() and
 * is told when the guest has cut the power.
 */
#include "device/root_port.h"

#include <errno.h>

#include "machine/pci.h"
#include "util/log.h"

/* Offsets in the PCI Express capability. */
enum {
	EXP_FLAGS = 2,
	EXP_LNKSTA = 18,
	EXP_SLTCAP = 20,
	EXP_SLTCTL = 24,
	EXP_SLTSTA = 26,
	EXP_RTCTL = 28,
	EXP_RTSTA = 32
};
#define FLAGS_SLOT 0x0100
#define LNKSTA_ACTIVE 0x2000
/* Attention button, power controller, both indicators, hot-plug capable, electromechanical interlock absent. */
#define SLTCAP_BITS 0x0000005bu
#define SLTCTL_HPIE 0x0020
#define SLTCTL_CCIE 0x0010
#define SLTCTL_ATTN_OFF 0x00c0
#define SLTCTL_PWR_LED 0x0300
#define SLTCTL_PWR_LED_ON 0x0100
#define SLTCTL_PWR_LED_BLINK 0x0200
#define SLTCTL_PWR_OFF 0x0400
#define SLTCTL_WRITABLE 0x17fb
#define SLTSTA_BUTTON 0x0001
#define SLTSTA_PRESENCE_CHANGED 0x0008
#define SLTSTA_COMPLETE 0x0010
#define SLTSTA_PRESENT 0x0040
#define SLTSTA_LINK_CHANGED 0x0100
#define SLTSTA_EVENTS 0x011f

struct root_port {
	struct pci_device pdev;
	struct pci_bus *bus;
	uint32_t number; /* physical slot number, property "slot" */
	unsigned exp;
	bool irq;        /* some enabled event is set */

	uint16_t control; /* Slot Control as it was before the guest's write */
	unsigned news;    /* for the owner, ROOT_PORT_*; the call is under way while it is not 0 */
	void (*told)(void *opaque, struct device *port, unsigned news);
	void *told_opaque;
};

/* Lock held. One interrupt for the rise of the OR of all enabled events (§6.7.3.1). */
static void update_irq(struct root_port *s)
{
	const uint8_t *c = s->pdev.config + s->exp;
	uint16_t ctl = pci_get16(c + EXP_SLTCTL), sta = pci_get16(c + EXP_SLTSTA);
	/* Enable bits 0..3 and 4 match status bits, link state is bit 12 against 8. */
	uint16_t on = (ctl & 0x1f) | (ctl & 0x1000 ? SLTSTA_LINK_CHANGED : 0);
	bool irq = (ctl & SLTCTL_HPIE) && (sta & on & SLTSTA_EVENTS);

	if (irq && !s->irq && pci_msix_enabled(&s->pdev))
		pci_msix_notify(&s->pdev, 0);
	s->irq = irq;
	pci_set_intx(&s->pdev, irq && !pci_msix_enabled(&s->pdev));
}

static void raise_event(struct root_port *s, uint16_t events)
{
	uint8_t *sta = s->pdev.config + s->exp + EXP_SLTSTA;

	pci_set16(sta, pci_get16(sta) | events);
	update_irq(s);
}

static void show_presence(struct root_port *s, uint8_t *config, bool present)
{
	uint8_t *c = config + s->exp;

	pci_set16(c + EXP_SLTSTA, (pci_get16(c + EXP_SLTSTA) & ~SLTSTA_PRESENT) | (present ? SLTSTA_PRESENT : 0));
	pci_set16(c + EXP_LNKSTA, (pci_get16(c + EXP_LNKSTA) & ~LNKSTA_ACTIVE) | (present ? LNKSTA_ACTIVE : 0));
}

static void port_hotplug(struct pci_device *port, struct pci_device *child, bool present)
{
	struct root_port *s = (struct root_port *)port;
	bool cold = port->dev.machine->state == MACHINE_PRELAUNCH;

	if (child->devfn != 0)
		return;
	pthread_mutex_lock(&port->dev.lock);
	show_presence(s, port->config, present);
	show_presence(s, port->config_reset, present);
	pci_set16(port->config_reset + s->exp + EXP_SLTCTL,
		  SLTCTL_ATTN_OFF | (present ? SLTCTL_PWR_LED_ON : SLTCTL_PWR_LED | SLTCTL_PWR_OFF));
	if (cold) {
		s->control = pci_get16(port->config_reset + s->exp + EXP_SLTCTL);
		pci_set16(port->config + s->exp + EXP_SLTCTL, s->control);
	} else {
		raise_event(s, SLTSTA_PRESENCE_CHANGED | SLTSTA_LINK_CHANGED);
	}
	pthread_mutex_unlock(&port->dev.lock);
}

static void tell_owner(void *arg)
{
	struct root_port *s = arg;
	unsigned news;

	pthread_mutex_lock(&s->pdev.dev.lock);
	news = s->news;
	s->news = 0;
	pthread_mutex_unlock(&s->pdev.dev.lock);
	if (s->told)
		s->told(s->told_opaque, &s->pdev.dev, news);
}

/*
 * Power and its indicator are both off. Linux cuts the power a second before it
 * puts the light out, and forgets what the slot says in between: a device that
 * came then would never be found.
 */
static bool is_off(uint16_t control)
{
	return control & SLTCTL_PWR_OFF && (control & SLTCTL_PWR_LED) == SLTCTL_PWR_LED;
}

/* The guest wrote Slot Control. */
static void controlled(struct root_port *s)
{
	uint16_t was = s->control, now = pci_get16(s->pdev.config + s->exp + EXP_SLTCTL);
	unsigned news = 0;

	s->control = now;
	if (is_off(now) && !is_off(was))
		news |= ROOT_PORT_OFF;
	if ((was & SLTCTL_PWR_LED) == SLTCTL_PWR_LED_BLINK && (now & SLTCTL_PWR_LED) == SLTCTL_PWR_LED_ON)
		news |= ROOT_PORT_KEPT;
	if (!news)
		return;
	if (!s->news && loop_post(s->pdev.dev.machine->loop, tell_owner, s)) {
		log_line(LOG_ERROR, "%s: no memory to tell what the guest did to its slot", s->pdev.dev.id);
		return;
	}
	s->news |= news;
}

static void port_config_written(struct pci_device *pdev, unsigned offset, unsigned size)
{
	struct root_port *s = (struct root_port *)pdev;
	unsigned ctl = s->exp + EXP_SLTCTL;

	/* Commands complete at once, but they complete: software waits for it. */
	if (offset < ctl + 2 && offset + size > ctl) {
		controlled(s);
		raise_event(s, SLTSTA_COMPLETE);
	} else {
		update_irq(s);
	}
}

void root_port_attention(struct device *d)
{
	struct root_port *s = (struct root_port *)d;

	pthread_mutex_lock(&d->lock);
	raise_event(s, SLTSTA_BUTTON);
	pthread_mutex_unlock(&d->lock);
}

void root_port_set_owner(struct device *d, void (*told)(void *opaque, struct device *port, unsigned news), void *opaque)
{
	struct root_port *s = (struct root_port *)d;

	s->told = told;
	s->told_opaque = opaque;
}

bool root_port_powered(struct device *d)
{
	struct root_port *s = (struct root_port *)d;
	bool on;

	pthread_mutex_lock(&d->lock);
	on = !is_off(pci_get16(s->pdev.config + s->exp + EXP_SLTCTL));
	pthread_mutex_unlock(&d->lock);
	return on;
}

struct device *root_port_child(struct device *d)
{
	struct pci_device *child = pci_bus_child(((struct root_port *)d)->bus, 0);

	return child ? &child->dev : NULL;
}

static void init_bridge_header(struct pci_device *pdev)
{
	uint8_t *c = pdev->config, *w = pdev->wmask;

	c[0x0e] = 1;
	w[0x18] = w[0x19] = w[0x1a] = 0xff;         /* bus numbers */
	c[0x1c] = 0xf0;                             /* windows: closed */
	w[0x1c] = w[0x1d] = 0xf0;
	pci_set16(pdev->w1c + 0x1e, 0xf900);        /* secondary status */
	pci_set32(c + 0x20, 0x0000fff0);
	pci_set32(w + 0x20, 0xfff0fff0);
	pci_set32(c + 0x24, 0x0001fff1);            /* prefetchable, 64 bits */
	pci_set32(w + 0x24, 0xfff0fff0);
	pci_set32(w + 0x28, UINT32_MAX);
	pci_set32(w + 0x2c, UINT32_MAX);
	w[0x3e] = 0x03;                             /* parity, SERR */
}

static int port_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { .vendor = 0x1b36, .device = 0x000c, .class_rev = 0x06040000 };
	struct root_port *s = (struct root_port *)d;
	uint8_t *c;
	int ret;

	init_bridge_header(&s->pdev);
	ret = pci_device_init(&s->pdev, &ids, err);
	if (ret)
		return ret;
	s->exp = pci_add_express(&s->pdev, 4);
	c = s->pdev.config + s->exp;
	pci_set16(c + EXP_FLAGS, pci_get16(c + EXP_FLAGS) | FLAGS_SLOT);
	if (!s->number)
		s->number = s->pdev.devfn + 1;
	pci_set32(c + EXP_SLTCAP, SLTCAP_BITS | s->number << 19);
	pci_set16(c + EXP_SLTCTL, SLTCTL_ATTN_OFF | SLTCTL_PWR_LED | SLTCTL_PWR_OFF);
	pci_set16(s->pdev.wmask + s->exp + EXP_SLTCTL, SLTCTL_WRITABLE);
	pci_set16(s->pdev.w1c + s->exp + EXP_SLTSTA, SLTSTA_EVENTS);
	pci_set16(s->pdev.wmask + s->exp + EXP_RTCTL, 0x000f);
	s->pdev.w1c[s->exp + EXP_RTSTA + 2] = 0x01; /* PME status */
	s->pdev.config[0x3d] = 1;
	s->pdev.config_written = port_config_written;
	ret = pci_msix_init(&s->pdev, 1, 0, err);
	s->bus = ret ? NULL : pci_bus_new(&s->pdev, err);
	if (!s->bus) {
		pci_device_exit(&s->pdev);
		return ret ? ret : -ENOMEM;
	}
	pci_bus_set_hotplug(s->bus, port_hotplug);
	pci_device_ready(&s->pdev);
	return 0;
}

static void port_unrealize(struct device *d)
{
	struct root_port *s = (struct root_port *)d;

	pci_bus_free(s->bus);
	pci_device_exit(&s->pdev);
}

static void port_reset(struct device *d)
{
	struct root_port *s = (struct root_port *)d;

	pci_device_reset(&s->pdev);
	s->irq = false;
	s->control = pci_get16(s->pdev.config + s->exp + EXP_SLTCTL);
}

/* What is plugged in is the board's business, not the stream's. */
static int port_loaded(void *obj, struct err *err)
{
	struct root_port *s = obj;

	show_presence(s, s->pdev.config, pci_bus_child(s->bus, 0));
	s->control = pci_get16(s->pdev.config + s->exp + EXP_SLTCTL);
	return 0;
}

static const struct property port_props[] = {
	PCI_PROPS(struct root_port, pdev),
	PROP_DEF_U32(struct root_port, number, "slot", "0", 0, 8191,
		     "physical slot number that guests show; 0: from addr"),
	{ 0 },
};

static const struct state_field port_fields[] = {
	STATE_FIELD_STRUCT(struct root_port, pdev, &pci_device_state),
	STATE_FIELD_BOOL(struct root_port, irq),
	STATE_END,
};
static const struct state_desc port_state = {
	.name = "pcie-root-port", .version = 1, .fields = port_fields, .post_load = port_loaded,
};

const struct device_class root_port_class = {
	.name = "pcie-root-port",
	.description = "PCI Express root port with a hot-plug slot",
	.size = sizeof(struct root_port),
	.props = port_props,
	.realize = port_realize,
	.unrealize = port_unrealize,
	.reset = port_reset,
	.state = &port_state,
};
