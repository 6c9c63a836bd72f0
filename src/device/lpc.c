/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LPC bridge of the ICH9, function 0 of device 31 (ICH9 data sheet §13): power
 * management (pm.c), routing of PCI interrupts to ISA ones, the ways to reset
 * the machine (port 0xcf9, port 0x92), the software SMI ports, and the chipset
 * configuration registers behind RCBA.
 */
#include <errno.h>

#include "device/pm.h"
#include "machine/pci.h"
#include "util/log.h"

enum { LPC_COMMAND = 0x04, LPC_PMBASE = 0x40, LPC_ACPI_CNTL = 0x44, LPC_PIRQA = 0x60,
       LPC_SIRQ_CNTL = 0x64, LPC_PIRQE = 0x68, LPC_IO_DECODE = 0x80, LPC_ENABLE = 0x82, LPC_GEN_DECODE = 0x84,
       LPC_GEN_PMCON = 0xa0, LPC_BIOS_CNTL = 0xdc, LPC_RCBA = 0xf0 };

#define ACPI_CNTL_ENABLE 0x80
#define PIRQ_OFF 0x80
/* ISA interrupts that PIRQs can be sent to. */
#define ISA_ROUTABLE 0xdef8u

/* RCRB: interrupt routes of devices 31..25 and the general control register. */
#define RCRB_SIZE 0x4000u
#define RCRB_ROUTES 0x3140u
#define RCRB_ROUTE_BYTES 0x14u
#define RCRB_GCS 0x3410u
#define GCS_NO_REBOOT 0x20u

#define RESET_CPU 0x04 /* port 0xcf9: going from 0 to 1 resets */
#define RESET_KEPT 0x0a
#define PORT92_FAST_RESET 0x01
#define PORT92_A20 0x02
enum { APM_ACPI_ENABLE = 2, APM_ACPI_DISABLE = 3 };

struct lpc {
	struct pci_device pdev;
	bool acpi_preset;
	struct pm pm;
	uint8_t reset_control, port92, apm_control, apm_status;
	uint8_t routes[RCRB_ROUTE_BYTES];
	struct io_range apm_range, port92_range, rcrb_range;
	bool rcrb_mapped;

	/*
	 * PIRQs come with the PCI interrupt lock held, which is taken with
	 * pdev.dev.lock held elsewhere: so this part has a lock of its own.
	 */
	pthread_mutex_t irq_lock;
	uint8_t pirq;        /* levels of PIRQA..H */
	uint8_t pirq_to[8];  /* ISA interrupt, or PIRQ_OFF */
	bool sci;
	uint8_t sci_to;
	uint16_t isa;        /* ISA interrupts that are driven */
	bool loading;
	struct irq isa_irq[16];
};

/* ---- Interrupts ---------------------------------------------------------- */

static uint16_t isa_wanted(const struct lpc *l)
{
	uint16_t want = l->sci ? 1 << l->sci_to : 0;

	for (unsigned i = 0; i < 8; i++)
		if (l->pirq >> i & 1 && l->pirq_to[i] != PIRQ_OFF)
			want |= 1 << l->pirq_to[i];
	return want;
}

/* irq_lock held. */
static void drive_isa(struct lpc *l)
{
	uint16_t want = isa_wanted(l), changed = want ^ l->isa;

	l->isa = want;
	for (unsigned n = 0; n < 16; n++)
		if (changed >> n & 1)
			irq_set(&l->isa_irq[n], want >> n & 1);
}

static void lpc_route(void *opaque, unsigned pirq, bool level)
{
	struct lpc *l = opaque;

	pthread_mutex_lock(&l->irq_lock);
	l->pirq = (l->pirq & ~(1u << pirq)) | (unsigned)level << pirq;
	drive_isa(l);
	pthread_mutex_unlock(&l->irq_lock);
}

static void lpc_set_sci(struct device *d, bool level)
{
	struct lpc *l = (struct lpc *)d;

	pthread_mutex_lock(&l->irq_lock);
	l->sci = level;
	drive_isa(l);
	pthread_mutex_unlock(&l->irq_lock);
}

/* PIRQx_ROUT and ACPI_CNTL: the SCI is IRQ 9, 10 or 11; those above are for a bridge without 8259s. */
static void update_routes(struct lpc *l)
{
	const uint8_t *c = l->pdev.config;
	unsigned sci = c[LPC_ACPI_CNTL] & 7;

	pthread_mutex_lock(&l->irq_lock);
	for (unsigned i = 0; i < 8; i++) {
		uint8_t reg = c[i < 4 ? LPC_PIRQA + i : LPC_PIRQE + i - 4];
		bool off = reg & PIRQ_OFF || !(ISA_ROUTABLE >> (reg & 15) & 1);

		l->pirq_to[i] = off ? PIRQ_OFF : reg & 15;
	}
	l->sci_to = 9 + (sci < 3 ? sci : 0);
	/* What was loaded reached the controllers before it was saved: their states say so. */
	if (l->loading)
		l->isa = isa_wanted(l);
	else
		drive_isa(l);
	pthread_mutex_unlock(&l->irq_lock);
}

/* ---- Configuration space ------------------------------------------------- */

static void map_rcrb(struct lpc *l)
{
	uint32_t rcba = pci_get32(l->pdev.config + LPC_RCBA), base = rcba & ~(RCRB_SIZE - 1);
	struct bus *bus = l->pdev.dev.machine->mmio;
	bool enable = rcba & 1;

	if (l->rcrb_mapped == enable && (!enable || l->rcrb_range.base == base))
		return;
	bus_del(bus, &l->rcrb_range);
	l->rcrb_range.base = base;
	l->rcrb_mapped = enable;
	if (enable && bus_add(bus, &l->rcrb_range, NULL))
		log_guest("lpc", "the chipset registers cannot be at 0x%x", base);
}

static void update(struct lpc *l)
{
	const uint8_t *c = l->pdev.config;

	update_routes(l);
	pm_map(&l->pm, pci_get16(c + LPC_PMBASE) & 0xff80, c[LPC_ACPI_CNTL] & ACPI_CNTL_ENABLE);
	map_rcrb(l);
}

static void lpc_config_written(struct pci_device *pdev, unsigned offset, unsigned size)
{
	if (offset >= LPC_PMBASE && offset < 0x100)
		update((struct lpc *)pdev);
}

static void init_config(struct lpc *l)
{
	uint8_t *c = l->pdev.config, *w = l->pdev.wmask;

	/* It always decodes and masters: the command register's bits are fixed. */
	pci_set16(c + LPC_COMMAND, 0x0007);
	pci_set16(w + LPC_COMMAND, 0x0140);
	pci_set16(c + LPC_COMMAND + 2, 0x0200); /* medium DEVSEL */
	w[0x0c] = w[0x3c] = 0;
	pci_set32(c + LPC_PMBASE, l->acpi_preset ? Q35_PM_BASE | 1 : 1);
	pci_set16(w + LPC_PMBASE, 0xff80);
	c[LPC_ACPI_CNTL] = l->acpi_preset ? ACPI_CNTL_ENABLE : 0;
	w[LPC_ACPI_CNTL] = ACPI_CNTL_ENABLE | 7;
	for (unsigned i = 0; i < 4; i++) {
		c[LPC_PIRQA + i] = c[LPC_PIRQE + i] = PIRQ_OFF;
		w[LPC_PIRQA + i] = w[LPC_PIRQE + i] = 0x8f;
	}
	c[LPC_SIRQ_CNTL] = 0x10;
	w[LPC_SIRQ_CNTL] = 0xff;
	pci_set16(w + LPC_IO_DECODE, 0x1377);
	pci_set16(w + LPC_ENABLE, 0x3f0f);
	for (unsigned i = 0; i < 4; i++)
		pci_set32(w + LPC_GEN_DECODE + 4 * i, 0x00fcfffd);
	pci_set32(w + LPC_GEN_PMCON, 0x0000ffcf);
	w[LPC_BIOS_CNTL] = 0x03;
	pci_set32(w + LPC_RCBA, 0xffffc001);
}

/* ---- Chipset configuration registers ------------------------------------- */

static uint64_t rcrb_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lpc *l = opaque;
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		uint64_t at = offset + i;

		if (at >= RCRB_ROUTES && at < RCRB_ROUTES + RCRB_ROUTE_BYTES)
			value |= (uint64_t)l->routes[at - RCRB_ROUTES] << 8 * i;
		else if (at == RCRB_GCS) /* the watchdog that it belongs to is not there */
			value |= (uint64_t)GCS_NO_REBOOT << 8 * i;
	}
	return value;
}

static void rcrb_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct lpc *l = opaque;

	for (unsigned i = 0; i < size; i++) {
		uint64_t at = offset + i;

		if (at >= RCRB_ROUTES && at < RCRB_ROUTES + RCRB_ROUTE_BYTES)
			l->routes[at - RCRB_ROUTES] = value >> 8 * i & 0x77;
	}
}

/* ---- Ports --------------------------------------------------------------- */

static uint64_t cf9_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lpc *l = opaque;

	return l->reset_control;
}

static void cf9_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct lpc *l = opaque;

	if (value & RESET_CPU)
		machine_signal(l->pdev.dev.machine, MACHINE_RESET_GUEST, 0);
	l->reset_control = value & RESET_KEPT;
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lpc *l = opaque;

	return l->port92;
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct lpc *l = opaque;

	if (value & PORT92_FAST_RESET && !(l->port92 & PORT92_FAST_RESET))
		machine_signal(l->pdev.dev.machine, MACHINE_RESET_GUEST, 0);
	l->port92 = value & (PORT92_FAST_RESET | PORT92_A20);
}

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lpc *l = opaque;

	return offset ? l->apm_status : l->apm_control;
}

static void apm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct lpc *l = opaque;

	if (offset) {
		l->apm_status = value;
		return;
	}
	l->apm_control = value;
	if (value == APM_ACPI_ENABLE || value == APM_ACPI_DISABLE)
		pm_acpi_mode(&l->pm, value == APM_ACPI_ENABLE);
}

static void lpc_power_button(void *opaque)
{
	struct lpc *l = opaque;

	pm_button(&l->pm);
}

/* ---- Device -------------------------------------------------------------- */

static void lpc_reset(struct device *d)
{
	struct lpc *l = (struct lpc *)d;

	pci_device_reset(&l->pdev);
	pthread_mutex_lock(&d->lock);
	l->reset_control = 0;
	l->port92 = PORT92_A20;
	l->apm_control = l->apm_status = 0;
	for (unsigned i = 0; i < RCRB_ROUTE_BYTES; i++)
		l->routes[i] = i & 1 ? 0x32 : 0x10;
	pthread_mutex_lock(&l->irq_lock);
	/* The controllers were reset before: they have forgotten what was driven. */
	l->pirq = 0;
	l->sci = false;
	drive_isa(l);
	pthread_mutex_unlock(&l->irq_lock);
	update(l);
	pm_reset(&l->pm);
	pthread_mutex_unlock(&d->lock);
}

static void lpc_unrealize(struct device *d)
{
	struct lpc *l = (struct lpc *)d;
	struct machine *m = d->machine;

	m->power_button = NULL;
	pci_host_set_route(m, NULL, NULL);
	pci_host_set_cf9(m, NULL, NULL, NULL);
	bus_del(m->pio, &l->apm_range);
	bus_del(m->pio, &l->port92_range);
	bus_del(m->mmio, &l->rcrb_range);
	pm_exit(&l->pm);
	pci_device_exit(&l->pdev);
	pthread_mutex_destroy(&l->irq_lock);
}

static int lpc_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { 0x8086, 0x2918, 0x1af4, 0x1100, 0x06010002 };
	static const struct io_ops cf9 = { cf9_read, cf9_write, 1, 1 }, port92 = { port92_read, port92_write, 1, 1 };
	static const struct io_ops apm = { apm_read, apm_write, 1, 1 }, rcrb = { rcrb_read, rcrb_write, 1, 4 };
	struct lpc *l = (struct lpc *)d;
	struct machine *m = d->machine;
	int ret;

	l->pdev.slot = 31 << 3;
	ret = pci_device_init(&l->pdev, &ids, err);
	if (ret)
		return ret;
	ret = pm_init(&l->pm, d, lpc_set_sci, err);
	if (ret) {
		pci_device_exit(&l->pdev);
		return ret;
	}
	pthread_mutex_init(&l->irq_lock, NULL);
	for (unsigned n = 0; n < 16; n++)
		l->isa_irq[n] = machine_irq(m, n);
	l->apm_range = (struct io_range){ "apm", 0xb2, 2, &apm, l, &d->lock, 0 };
	l->port92_range = (struct io_range){ "port 0x92", 0x92, 1, &port92, l, &d->lock, 0 };
	l->rcrb_range = (struct io_range){ "rcrb", 0, RCRB_SIZE, &rcrb, l, &d->lock, 0 };
	init_config(l);
	l->pdev.config_written = lpc_config_written;
	pci_device_ready(&l->pdev);
	ret = bus_add(m->pio, &l->apm_range, err);
	if (!ret)
		ret = bus_add(m->pio, &l->port92_range, err);
	if (ret) {
		lpc_unrealize(d);
		return ret;
	}
	update(l);
	pci_host_set_cf9(m, &cf9, l, &d->lock);
	pci_host_set_route(m, lpc_route, l);
	m->power_opaque = l;
	m->power_button = lpc_power_button;
	return 0;
}

static int lpc_post_load(void *obj, struct err *err)
{
	struct lpc *l = obj;

	l->loading = true;
	l->sci = pm_loaded(&l->pm);
	update(l);
	l->loading = false;
	return 0;
}

static const struct state_field lpc_fields[] = {
	STATE_FIELD_STRUCT(struct lpc, pdev, &pci_device_state),
	STATE_FIELD_STRUCT(struct lpc, pm, &pm_state),
	STATE_FIELD_U8(struct lpc, reset_control),
	STATE_FIELD_U8(struct lpc, port92),
	STATE_FIELD_U8(struct lpc, apm_control),
	STATE_FIELD_U8(struct lpc, apm_status),
	STATE_FIELD_BYTES(struct lpc, routes),
	STATE_FIELD_U8(struct lpc, pirq),
	STATE_END,
};
static const struct state_desc lpc_state = {
	.name = "ich9-lpc", .version = 1, .fields = lpc_fields, .post_load = lpc_post_load
};

static const struct property lpc_props[] = {
	PROP_DEF_BOOL(struct lpc, acpi_preset, "acpi-preset", "on",
		      "the ACPI registers are at 0x600 from the start, as a kernel without firmware wants them"),
	{ 0 }
};

const struct device_class lpc_class = {
	.name = "ich9-lpc",
	.description = "ICH9 LPC bridge: ACPI power management, PCI interrupt routing, resets",
	.size = sizeof(struct lpc),
	.props = lpc_props,
	.realize = lpc_realize,
	.unrealize = lpc_unrealize,
	.reset = lpc_reset,
	.state = &lpc_state,
};
