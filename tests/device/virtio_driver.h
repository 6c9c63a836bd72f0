/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The driver's side of virtio for tests, written from the specification alone
 * (Virtio 1.2): rings over a piece of guest memory, and the PCI transport
 * through a fake machine's configuration space and BARs.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "fake_machine.h"

/* ---- Rings ----------------------------------------------------------------- */

#define DRV_QUEUE_MAX 1024

struct drv_buf {
	uint64_t gpa;
	uint32_t len;
	bool write; /* the device writes it */
};

struct drv_queue {
	uint8_t *ram;      /* host address of guest address 0 */
	uint16_t size;
	bool packed, event_idx, indirect;
	uint64_t desc, avail, used; /* guest addresses: descriptors, driver area, device area */
	uint64_t tables;   /* room for indirect tables: size * DRV_TABLE bytes */
	/* Split */
	uint16_t free_head, nfree, avail_idx, last_used;
	uint16_t next[DRV_QUEUE_MAX];
	/* Packed */
	uint16_t next_avail, next_used;
	bool avail_wrap, used_wrap;
	uint16_t id_stack[DRV_QUEUE_MAX], nids;
	uint16_t count[DRV_QUEUE_MAX]; /* descriptors of a buffer */
	void *token[DRV_QUEUE_MAX];
	uint16_t added;    /* since the last look at whether to notify */
};
#define DRV_TABLE (64 * 16)

/* Bytes that a queue of this size takes from `at` on (page-aligned). */
uint64_t drv_queue_bytes(uint16_t size);
void drv_queue_init(struct drv_queue *q, uint8_t *ram, uint64_t at, uint16_t size, bool packed, bool event_idx,
		    bool indirect);
/* False: no room. */
bool drv_add(struct drv_queue *q, const struct drv_buf *bufs, unsigned n, void *token);
/* Does the device want to be notified of what was added since the last call? */
bool drv_must_notify(struct drv_queue *q);
/* Next used buffer: its token, or NULL. */
void *drv_get(struct drv_queue *q, uint32_t *len);
/* Interrupts off, or on. True: something is used already. */
bool drv_interrupts(struct drv_queue *q, bool on);

/* ---- PCI -------------------------------------------------------------------- */

struct drv {
	struct fake_machine *f;
	unsigned devfn;
	uint8_t *ram;
	uint64_t common, isr, config, notify; /* guest addresses of the structures */
	uint32_t config_len, notify_step, window;
	uint64_t msix;       /* address of the table */
	unsigned msix_cap;
	uint64_t features;   /* negotiated */
	uint64_t heap;       /* next free byte of RAM */
	bool use_msix;
};
/* MSI-X message of vector n as drv_start() programs it. */
#define DRV_MSI_ADDRESS 0xfee00000ull
#define DRV_MSI_DATA(n) (0x40u + (n))

void drv_init(struct drv *d, struct fake_machine *f,
	      struct device *dev); /* finds capabilities; resources are assigned */
uint64_t drv_alloc(struct drv *d, uint64_t bytes, uint64_t align);
uint32_t drv_read(struct drv *d, unsigned reg, unsigned size); /* common structure */
void drv_write(struct drv *d, unsigned reg, uint32_t value, unsigned size);
uint64_t drv_offered(struct drv *d);
/* Reset, ACKNOWLEDGE, DRIVER, features (offered and wanted), FEATURES_OK. False: refused. Vectors: configuration 0,
 * queue n: n + 1. */
bool drv_negotiate(struct drv *d, uint64_t wanted, bool msix);
void drv_queue(struct drv *d, unsigned n, struct drv_queue *q, uint16_t size); /* 0: the largest */
void drv_ok(struct drv *d);
void drv_notify(struct drv *d, unsigned n);
uint8_t drv_status(struct drv *d);
/* Messages that came for a vector since the last call (and forgets the others). */
unsigned drv_messages(struct drv *d, unsigned vector);

enum {
	DRV_DEVICE_FEATURE_SELECT = 0,
	DRV_DEVICE_FEATURE = 4,
	DRV_DRIVER_FEATURE_SELECT = 8,
	DRV_DRIVER_FEATURE = 12,
	DRV_CONFIG_VECTOR = 16,
	DRV_NUM_QUEUES = 18,
	DRV_STATUS = 20,
	DRV_GENERATION = 21,
	DRV_QUEUE_SELECT = 22,
	DRV_QUEUE_SIZE = 24,
	DRV_QUEUE_VECTOR = 26,
	DRV_QUEUE_ENABLE = 28,
	DRV_QUEUE_NOTIFY_OFF = 30,
	DRV_QUEUE_DESC = 32,
	DRV_QUEUE_DRIVER = 40,
	DRV_QUEUE_DEVICE = 48,
	DRV_QUEUE_RESET = 58
};
#define DRV_F_INDIRECT (1ull << 28)
#define DRV_F_EVENT_IDX (1ull << 29)
#define DRV_F_VERSION_1 (1ull << 32)
#define DRV_F_PACKED (1ull << 34)
#define DRV_F_RESET (1ull << 40)
/* The eight kinds of ring: bit 0 packed, 1 event indices, 2 indirect. */
#define DRV_KINDS 8
static inline uint64_t drv_kind_features(unsigned kind)
{
	return DRV_F_VERSION_1 | (kind & 1 ? DRV_F_PACKED : 0) | (kind & 2 ? DRV_F_EVENT_IDX : 0) |
	       (kind & 4 ? DRV_F_INDIRECT : 0);
}

/* One request and its answer: adds, notifies, waits (real time, at most 10 s) until it is used; the length written. */
uint32_t drv_request(struct drv *d, unsigned n, struct drv_queue *q, const struct drv_buf *bufs, unsigned count);
/* Wait until a buffer of q is used: its token. The fake machine's loop runs meanwhile. */
void *drv_wait(struct drv *d, struct drv_queue *q, uint32_t *len);
