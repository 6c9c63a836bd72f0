/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/virtio_pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One memory BAR; a page for each structure, so that a hypervisor in the guest can map them apart. */
#define MODERN_BAR 0
#define MSIX_BAR 1
enum {
	COMMON_AT = 0x0000,
	ISR_AT = 0x1000,
	CONFIG_AT = 0x2000,
	NOTIFY_AT = 0x3000,
	MODERN_SIZE = 0x4000,
	NOTIFY_STEP = 4
};

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* Common configuration structure (§4.1.4.3). */
enum {
	DEVICE_FEATURE_SELECT = 0x00, DEVICE_FEATURE = 0x04, DRIVER_FEATURE_SELECT = 0x08, DRIVER_FEATURE = 0x0c,
	CONFIG_VECTOR = 0x10, NUM_QUEUES = 0x12, DEVICE_STATUS = 0x14, GENERATION = 0x15, QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18, QUEUE_VECTOR = 0x1a, QUEUE_ENABLE = 0x1c, QUEUE_NOTIFY_OFF = 0x1e, QUEUE_DESC = 0x20,
	QUEUE_DRIVER = 0x28, QUEUE_DEVICE = 0x30, QUEUE_NOTIFY_DATA = 0x38, QUEUE_RESET = 0x3a, COMMON_SIZE = 0x3c,
};

static struct virtio_pci *pci_of(struct virtio_device *v)
{
	return (struct virtio_pci *)v->dev;
}

/* ---- Interrupts ---------------------------------------------------------- */

/* ISR status and INTx go together (§4.1.4.5): an interrupt that comes while the driver reads must not be lost. */
static void isr_update(struct virtio_pci *p, uint8_t set, uint8_t clear, uint8_t *old)
{
	pthread_mutex_lock(&p->isr_lock);
	if (old)
		*old = p->isr;
	p->isr = (p->isr | set) & ~clear;
	pci_set_intx(&p->pdev, p->isr && !pci_msix_enabled(&p->pdev));
	pthread_mutex_unlock(&p->isr_lock);
}

static void pci_interrupt(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_pci *p = pci_of(v);
	uint16_t vector = __atomic_load_n(&vq->vector, __ATOMIC_RELAXED);

	if (!pci_msix_enabled(&p->pdev))
		isr_update(p, ISR_QUEUE, 0, NULL);
	else if (vector != VIRTQ_NO_VECTOR)
		pci_msix_notify(&p->pdev, vector);
}

static void pci_config_interrupt(struct virtio_device *v)
{
	struct virtio_pci *p = pci_of(v);
	uint16_t vector = __atomic_load_n(&p->config_vector, __ATOMIC_RELAXED);

	isr_update(p, ISR_CONFIG, 0, NULL);
	if (pci_msix_enabled(&p->pdev) && vector != VIRTQ_NO_VECTOR)
		pci_msix_notify(&p->pdev, vector);
}

static bool pci_may_dma(struct virtio_device *v)
{
	return pci_bus_master(&pci_of(v)->pdev);
}

/* ---- Doorbells ----------------------------------------------------------- */

static void pci_doorbell(struct virtio_device *v, struct virtqueue *vq, bool on)
{
	struct virtio_pci *p = pci_of(v);
	struct engine *e = v->dev->machine->engine;
	const struct pci_bar *bar = &p->pdev.bar[MODERN_BAR];
	uint64_t want = on && bar->mapped ? bar->range.base + NOTIFY_AT + vq->index * NOTIFY_STEP : 0;
	uint64_t *have = &p->bell[vq->index];

	if (*have == want)
		return;
	if (*have)
		engine_ioeventfd(e, *have, 0, v->kick[vq->index].fd, false, NULL);
	*have = 0;
	/* Where the engine has no faster way the write reaches notify() below. */
	if (want && !engine_ioeventfd(e, want, 0, v->kick[vq->index].fd, true, NULL))
		*have = want;
}

static void sync_doorbells(struct virtio_device *v)
{
	for (unsigned i = 0; i < v->nvq; i++)
		pci_doorbell(v, &v->vq[i], v->vq[i].enabled);
}

static void modern_moved(struct pci_device *pdev, unsigned n)
{
	sync_doorbells(((struct virtio_pci *)pdev)->v);
}

static const struct virtio_transport pci_transport = {
	.interrupt = pci_interrupt,
	.config_interrupt = pci_config_interrupt,
	.may_dma = pci_may_dma,
	.doorbell = pci_doorbell,
};

/* ---- Registers; lock held ------------------------------------------------ */

static struct virtqueue *selected(struct virtio_pci *p)
{
	return p->queue_select < p->v->nvq ? &p->v->vq[p->queue_select] : NULL;
}

static uint64_t common_read(struct virtio_pci *p, unsigned at, unsigned size)
{
	struct virtio_device *v = p->v;
	const struct virtqueue *vq = selected(p);
	uint8_t r[COMMON_SIZE + 8] = { 0 };
	uint64_t value;

	pci_set32(r + DEVICE_FEATURE_SELECT, p->feature_select);
	pci_set32(r + DEVICE_FEATURE, p->feature_select < 2 ? v->offered >> (32 * p->feature_select) : 0);
	pci_set32(r + DRIVER_FEATURE_SELECT, p->driver_feature_select);
	pci_set32(r + DRIVER_FEATURE,
		  p->driver_feature_select < 2 ? v->features >> (32 * p->driver_feature_select) : 0);
	pci_set16(r + CONFIG_VECTOR, p->config_vector);
	pci_set16(r + NUM_QUEUES, v->nvq);
	r[DEVICE_STATUS] = __atomic_load_n(&v->status, __ATOMIC_ACQUIRE);
	r[GENERATION] = __atomic_load_n(&v->generation, __ATOMIC_ACQUIRE);
	pci_set16(r + QUEUE_SELECT, p->queue_select);
	if (vq) {
		pci_set16(r + QUEUE_SIZE, vq->size);
		pci_set16(r + QUEUE_VECTOR, vq->vector);
		pci_set16(r + QUEUE_ENABLE, vq->enabled);
		pci_set16(r + QUEUE_NOTIFY_OFF, vq->index);
		memcpy(r + QUEUE_DESC, &vq->desc, 8);
		memcpy(r + QUEUE_DRIVER, &vq->driver, 8);
		memcpy(r + QUEUE_DEVICE, &vq->device, 8);
	} else {
		pci_set16(r + QUEUE_VECTOR, VIRTQ_NO_VECTOR);
	}
	memcpy(&value, r + (at < COMMON_SIZE ? at : COMMON_SIZE), 8);
	return value;
}

static uint16_t check_vector(const struct virtio_pci *p, uint32_t vector)
{
	return vector < p->pdev.msix.n ? vector : VIRTQ_NO_VECTOR;
}

static void set_half(uint64_t *reg, bool high, uint32_t value)
{
	*reg = high ? (*reg & 0xffffffffu) | (uint64_t)value << 32 : (*reg & ~0xffffffffull) | value;
}

/* Registers of the selected queue; the configuration of an enabled one is fixed. */
static void queue_write(struct virtio_pci *p, struct virtqueue *vq, unsigned at, uint32_t value)
{
	if (at == QUEUE_VECTOR) {
		__atomic_store_n(&vq->vector, check_vector(p, value), __ATOMIC_RELAXED);
		return;
	}
	if (at == QUEUE_RESET) {
		if (value == 1 && virtio_has(p->v, VIRTIO_F_RING_RESET))
			virtio_queue_reset(p->v, vq);
		return;
	}
	if (vq->enabled)
		return;
	switch (at) {
	case QUEUE_SIZE:
		virtio_queue_set_size(p->v, vq, value);
		break;
	case QUEUE_ENABLE:
		if (value == 1)
			virtio_queue_enable(p->v, vq);
		break;
	case QUEUE_DESC:
	case QUEUE_DESC + 4:
		set_half(&vq->desc, at & 4, value);
		break;
	case QUEUE_DRIVER:
	case QUEUE_DRIVER + 4:
		set_half(&vq->driver, at & 4, value);
		break;
	case QUEUE_DEVICE:
	case QUEUE_DEVICE + 4:
		set_half(&vq->device, at & 4, value);
		break;
	}
}

/* Fields are written whole (§4.1.3.1), the 64-bit ones as two halves. */
static unsigned field_size(unsigned at)
{
	if (at == DEVICE_STATUS || at == GENERATION)
		return 1;
	return at < CONFIG_VECTOR || (at >= QUEUE_DESC && at < QUEUE_NOTIFY_DATA) ? 4 : 2;
}

static void selectors_reset(struct virtio_pci *p)
{
	p->feature_select = p->driver_feature_select = 0;
	p->queue_select = 0;
	__atomic_store_n(&p->config_vector, VIRTQ_NO_VECTOR, __ATOMIC_RELAXED);
	isr_update(p, 0, 0xff, NULL);
}

static void common_write(struct virtio_pci *p, unsigned at, uint32_t value, unsigned size)
{
	struct virtqueue *vq = selected(p);

	if (size != field_size(at))
		return;
	switch (at) {
	case DEVICE_FEATURE_SELECT:
		p->feature_select = value;
		break;
	case DRIVER_FEATURE_SELECT:
		p->driver_feature_select = value;
		break;
	case DRIVER_FEATURE:
		virtio_set_features(p->v, p->driver_feature_select, value);
		break;
	case CONFIG_VECTOR:
		__atomic_store_n(&p->config_vector, check_vector(p, value), __ATOMIC_RELAXED);
		break;
	case DEVICE_STATUS:
		virtio_set_status(p->v, value);
		if (!value)
			selectors_reset(p);
		break;
	case QUEUE_SELECT:
		p->queue_select = value;
		break;
	default:
		if (vq && at >= QUEUE_SIZE)
			queue_write(p, vq, at, value);
	}
}

static uint64_t region_read(struct virtio_pci *p, uint64_t off, unsigned size)
{
	struct virtio_device *v = p->v;
	uint64_t value = 0;
	uint8_t isr;

	if (off < ISR_AT)
		return common_read(p, off, size);
	if (off == ISR_AT) { /* reading clears */
		isr_update(p, 0, 0xff, &isr);
		return isr;
	}
	if (off >= CONFIG_AT && off < NOTIFY_AT && off - CONFIG_AT < v->config_size) {
		unsigned at = off - CONFIG_AT, n = v->config_size - at;

		memcpy(&value, v->config + at, n < size ? n : size);
	}
	return value;
}

static void region_write(struct virtio_pci *p, uint64_t off, uint32_t value, unsigned size)
{
	struct virtio_device *v = p->v;

	if (off < ISR_AT)
		common_write(p, off, value, size);
	else if (off >= CONFIG_AT && off - CONFIG_AT + size <= v->config_size && v->ops->config_write)
		v->ops->config_write(v, off - CONFIG_AT, value, size);
}

/* ---- BAR; the lock is taken here, so that doorbells do without ----------- */

static struct virtqueue *rung(struct virtio_pci *p, uint64_t off)
{
	unsigned n = (off - NOTIFY_AT) / NOTIFY_STEP;

	return off >= NOTIFY_AT && n < p->v->nvq ? &p->v->vq[n] : NULL;
}

static uint64_t modern_read(void *opaque, uint64_t off, unsigned size)
{
	struct virtio_pci *p = opaque;
	uint64_t value;

	pthread_mutex_lock(&p->pdev.dev.lock);
	value = region_read(p, off, size);
	pthread_mutex_unlock(&p->pdev.dev.lock);
	return value;
}

static void modern_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct virtio_pci *p = opaque;
	struct virtqueue *vq = rung(p, off);

	if (off >= NOTIFY_AT) {
		if (vq && p->v->ops->direct)
			virtio_kick_here(p->v, vq);
		else if (vq)
			virtio_kick(p->v, vq);
		return;
	}
	pthread_mutex_lock(&p->pdev.dev.lock);
	region_write(p, off, value, size);
	pthread_mutex_unlock(&p->pdev.dev.lock);
}

static const struct io_ops modern_ops = { .read = modern_read, .write = modern_write, .max = 4 };

/* ---- Capabilities (§4.1.4) ------------------------------------------------ */

enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_WINDOW };
enum { CAP_LEN = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };

static unsigned add_cap(struct virtio_pci *p, unsigned type, uint32_t offset, uint32_t length, unsigned extra)
{
	unsigned at = pci_add_cap(&p->pdev, 0x09, CAP_EXTRA + extra);
	uint8_t *c = p->pdev.config + at;

	c[CAP_LEN] = CAP_EXTRA + extra;
	c[CAP_TYPE] = type;
	c[CAP_BAR] = MODERN_BAR;
	pci_set32(c + CAP_OFFSET, offset);
	pci_set32(c + CAP_LENGTH, length);
	return at;
}

static void add_caps(struct virtio_pci *p)
{
	unsigned at;
	uint8_t *w;

	add_cap(p, CAP_COMMON, COMMON_AT, COMMON_SIZE, 0);
	add_cap(p, CAP_ISR, ISR_AT, 1, 0);
	if (p->v->config_size)
		add_cap(p, CAP_DEVICE, CONFIG_AT, p->v->config_size, 0);
	at = add_cap(p, CAP_NOTIFY, NOTIFY_AT, p->v->nvq * NOTIFY_STEP, 4);
	pci_set32(p->pdev.config + at + CAP_EXTRA, NOTIFY_STEP);
	p->window = add_cap(p, CAP_WINDOW, 0, 0, 4);
	w = p->pdev.wmask + p->window;
	w[CAP_BAR] = 0xff;
	memset(w + CAP_OFFSET, 0xff, 12);
}

/* The window of §4.1.4.9: where it points to, if that is inside the modern BAR and of a size that exists. */
static bool window_target(struct virtio_pci *p, uint32_t *off, uint32_t *size)
{
	const uint8_t *c = p->pdev.config + p->window;

	*off = pci_get32(c + CAP_OFFSET);
	*size = pci_get32(c + CAP_LENGTH);
	return c[CAP_BAR] == MODERN_BAR && (*size == 1 || *size == 2 || *size == 4) && *off < MODERN_SIZE &&
	       !(*off & (*size - 1));
}

static bool touches_data(const struct virtio_pci *p, unsigned offset, unsigned size)
{
	unsigned data = p->window + CAP_EXTRA;

	return offset < data + 4 && offset + size > data;
}

static void pci_config_reading(struct pci_device *pdev, unsigned offset, unsigned size)
{
	struct virtio_pci *p = (struct virtio_pci *)pdev;
	uint32_t off, len, value;

	if (!touches_data(p, offset, size) || !window_target(p, &off, &len))
		return;
	value = region_read(p, off, len);
	memcpy(pdev->config + p->window + CAP_EXTRA, &value, len);
}

static void pci_config_done(struct pci_device *pdev, unsigned offset, unsigned size)
{
	struct virtio_pci *p = (struct virtio_pci *)pdev;
	uint32_t off, len, value = 0;

	/* MSI-X may have been switched, or DMA allowed. */
	isr_update(p, 0, 0, NULL);
	if (offset <= 4 && offset + size > 4 && pci_bus_master(pdev))
		virtio_kick_all(p->v);
	if (!touches_data(p, offset, size) || !window_target(p, &off, &len))
		return;
	memcpy(&value, pdev->config + p->window + CAP_EXTRA, len);
	if (off >= NOTIFY_AT) {
		struct virtqueue *vq = rung(p, off);

		if (vq)
			virtio_kick(p->v, vq);
		return;
	}
	region_write(p, off, value, len);
}

/* ---- Life ---------------------------------------------------------------- */

int virtio_pci_realize(struct virtio_pci *p, struct virtio_device *v, uint32_t class_code, struct err *err)
{
	struct pci_ids ids = {
		.vendor = 0x1af4, .device = 0x1040 + v->ops->id, .subvendor = 0x1af4, .subdevice = 0x1100,
		.class_rev = class_code << 8 | 1,
	};
	unsigned vectors = p->vectors == PCI_AUTO ? v->nvq + 1 : p->vectors;
	int ret;

	p->v = v;
	v->transport = &pci_transport;
	if (!p->packed)
		v->offered &= ~VIRTIO_F_RING_PACKED;
	if (!p->event_idx)
		v->offered &= ~VIRTIO_F_EVENT_IDX;
	if (!p->indirect)
		v->offered &= ~VIRTIO_F_INDIRECT_DESC;
	p->bell = calloc(v->nvq, sizeof(p->bell[0]));
	if (!p->bell)
		return err_set(err, ENOMEM, "no memory for doorbells");
	ret = pci_device_init(&p->pdev, &ids, err);
	if (ret) {
		free(p->bell);
		return ret;
	}
	pthread_mutex_init(&p->isr_lock, NULL);
	p->config_vector = VIRTQ_NO_VECTOR;
	p->pdev.config[0x3d] = 1;
	p->pdev.bar[MODERN_BAR].moved = modern_moved;
	pci_add_bar(&p->pdev, MODERN_BAR, MODERN_SIZE, false, false, false, &modern_ops, p, NULL);
	pci_add_express(&p->pdev, pci_bus_is_root(p->pdev.bus) ? 9 : 0);
	add_caps(p);
	if (vectors)
		pci_msix_init(&p->pdev, vectors > PCI_MAX_MSIX ? PCI_MAX_MSIX : vectors, MSIX_BAR, NULL);
	p->pdev.config_reading = pci_config_reading;
	p->pdev.config_written = pci_config_done;
	pci_device_ready(&p->pdev);
	return 0;
}

void virtio_pci_unrealize(struct device *d)
{
	struct virtio_pci *p = (struct virtio_pci *)d;

	/* Nothing may run, let alone interrupt, once the guest's side is gone. */
	pthread_mutex_lock(&d->lock);
	virtio_set_stopped(p->v, true);
	pthread_mutex_unlock(&d->lock);
	pci_device_exit(&p->pdev);
	pthread_mutex_lock(&d->lock);
	virtio_reset(p->v);
	pthread_mutex_unlock(&d->lock);
	pthread_mutex_destroy(&p->isr_lock);
	free(p->bell);
}

void virtio_pci_reset(struct device *d)
{
	struct virtio_pci *p = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	virtio_reset(p->v);
	selectors_reset(p);
	p->v->generation = 0;
	pthread_mutex_unlock(&d->lock);
	pci_device_reset(&p->pdev);
}

void virtio_pci_stopped(struct device *d, bool stopped)
{
	struct virtio_pci *p = (struct virtio_pci *)d;

	pthread_mutex_lock(&d->lock);
	virtio_set_stopped(p->v, stopped);
	pthread_mutex_unlock(&d->lock);
}

/* Before the device's own virtio_loaded(): BARs are mapped by now. */
static int virtio_pci_loaded(void *obj, struct err *err)
{
	struct virtio_pci *p = obj;

	p->config_vector = check_vector(p, p->config_vector);
	isr_update(p, 0, 0, NULL);
	return 0;
}

static const struct state_field virtio_pci_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_pci, pdev, &pci_device_state),
	STATE_FIELD_U32(struct virtio_pci, feature_select),
	STATE_FIELD_U32(struct virtio_pci, driver_feature_select),
	STATE_FIELD_U16(struct virtio_pci, queue_select),
	STATE_FIELD_U16(struct virtio_pci, config_vector),
	STATE_FIELD_U8(struct virtio_pci, isr),
	STATE_END,
};
const struct state_desc virtio_pci_state = {
	.name = "virtio-pci", .version = 1, .fields = virtio_pci_fields, .post_load = virtio_pci_loaded,
};
