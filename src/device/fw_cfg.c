/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define ITEMS 192u
#define NAME_ROOM 56u

enum { KEY_SIGNATURE = 0x00, KEY_ID = 0x01, KEY_UUID = 0x02, KEY_RAM_SIZE = 0x03, KEY_NOGRAPHIC = 0x04, KEY_CPUS = 0x05,
       KEY_BOOT_MENU = 0x0e, KEY_MAX_CPUS = 0x0f, KEY_FILE_DIR = 0x19, KEY_FILES = 0x20,
       KEY_WRITE = 0x4000, KEY_IRQ0_OVERRIDE = 0x8002 };
#define ID_TRADITIONAL 1u
#define ID_DMA 2u

enum { PORT_SELECT = 0x510, PORT_DMA = 0x514 };
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */
#define DMA_ERROR 0x01u
#define DMA_READ 0x02u
#define DMA_SKIP 0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE 0x10u

struct item {
	uint16_t key;
	uint32_t len;
	uint8_t *data;
	char name[NAME_ROOM]; /* of a file, else "" */
};

struct fw_cfg {
	struct device dev;
	struct item item[ITEMS];
	unsigned items, files;
	uint16_t selected;
	uint32_t offset;        /* in the selected item, at most its length */
	uint32_t dma_high;      /* upper half of the address, written first */
	struct item *current;   /* the selected item, NULL: none has that key */
	struct io_range range[2];
};

/* ---- Items --------------------------------------------------------------- */

static struct item *find_key(struct fw_cfg *f, uint16_t key)
{
	for (unsigned i = 0; i < f->items; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static const struct item *find_file(const struct fw_cfg *f, const char *name)
{
	for (unsigned i = 0; i < f->items; i++)
		if (*f->item[i].name && !strcmp(f->item[i].name, name))
			return &f->item[i];
	return NULL;
}

/* The directory is an item too: a number of files, then size, key and name of each, big-endian. */
static int rebuild_directory(struct fw_cfg *f, struct err *err)
{
	struct item *dir = find_key(f, KEY_FILE_DIR);
	uint32_t count = __builtin_bswap32(f->files);
	uint8_t *data = calloc(1, sizeof(count) + f->files * (8 + NAME_ROOM)), *p = data + sizeof(count);

	if (!data)
		return err_set(err, ENOMEM, "no memory for the fw_cfg directory");
	memcpy(data, &count, sizeof(count));
	for (unsigned i = 0; i < f->items; i++) {
		const struct item *it = &f->item[i];
		uint32_t size = __builtin_bswap32(it->len);
		uint16_t key = __builtin_bswap16(it->key);

		if (!*it->name)
			continue;
		memcpy(p, &size, 4);
		memcpy(p + 4, &key, 2);
		memcpy(p + 8, it->name, NAME_ROOM);
		p += 8 + NAME_ROOM;
	}
	free(dir->data);
	dir->data = data;
	dir->len = p - data;
	return 0;
}

static int add(struct fw_cfg *f, uint16_t key, const char *name, const void *data, size_t len, struct err *err)
{
	struct item *it = &f->item[f->items];

	if (f->items == ITEMS)
		return err_set(err, ENOSPC, "fw_cfg holds at most %u items", ITEMS);
	if (len > UINT32_MAX)
		return err_set(err, ENOSPC, "a fw_cfg item of %zu bytes is too long", len);
	*it = (struct item){ .key = key, .len = len, .data = malloc(len ? len : 1) };
	if (!it->data)
		return err_set(err, ENOMEM, "no memory for a fw_cfg item of %zu bytes", len);
	memcpy(it->data, data, len);
	strcpy(it->name, name);
	f->items++;
	return 0;
}

int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len, struct err *err)
{
	int ret;

	pthread_mutex_lock(&f->dev.lock);
	if (find_key(f, key))
		ret = err_set(err, EEXIST, "fw_cfg has an item with key 0x%x already", key);
	else
		ret = add(f, key, "", data, len, err);
	pthread_mutex_unlock(&f->dev.lock);
	return ret;
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len, struct err *err)
{
	int ret;

	if (!*name || strlen(name) >= NAME_ROOM)
		return err_set(err, EINVAL, "fw_cfg file name '%.80s' must have 1 to %u characters", name,
			       NAME_ROOM - 1);
	pthread_mutex_lock(&f->dev.lock);
	if (find_file(f, name)) {
		ret = err_set(err, EEXIST, "fw_cfg has a file '%s' already", name);
	} else {
		ret = add(f, KEY_FILES + f->files, name, data, len, err);
		if (!ret) {
			f->files++;
			ret = rebuild_directory(f, err);
			if (ret) {
				f->files--;
				free(f->item[--f->items].data);
			}
		}
	}
	pthread_mutex_unlock(&f->dev.lock);
	return ret;
}

const void *fw_cfg_file(const struct fw_cfg *f, const char *name, size_t *len)
{
	const struct item *it = find_file(f, name);

	if (!it)
		return NULL;
	*len = it->len;
	return it->data;
}

/* ---- Guest side ---------------------------------------------------------- */

static void select_item(struct fw_cfg *f, uint16_t key)
{
	f->selected = key;
	f->offset = 0;
	f->current = find_key(f, key & ~KEY_WRITE);
}

static uint32_t left(const struct fw_cfg *f)
{
	return f->current ? f->current->len - f->offset : 0;
}

/* The data register: one byte after the other, zeros past the end. */
static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = opaque;

	if (offset != 1 || !left(f))
		return 0;
	return f->current->data[f->offset++];
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	if (offset == 0 && size == 2)
		select_item(opaque, value);
}

static int dma_read(struct fw_cfg *f, uint64_t address, uint32_t len)
{
	const struct guest_mem *mem = &f->dev.machine->mem;
	uint32_t n = left(f) < len ? left(f) : len;
	int ret = n ? mem_write(mem, address, f->current->data + f->offset, n) : 0;

	if (!ret)
		ret = mem_set(mem, address + n, 0, len - n);
	if (!ret)
		f->offset += n;
	return ret;
}

/* QEMU docs/specs/fw_cfg, "Guest-side DMA Interface": big-endian control, length and address in guest memory. */
static void dma(struct fw_cfg *f, uint64_t at)
{
	const struct guest_mem *mem = &f->dev.machine->mem;
	uint32_t control, len;
	uint64_t address;
	struct {
		uint32_t control, length;
		uint64_t address;
	} d;

	if (mem_read(mem, at, &d, sizeof(d))) {
		log_guest("fw_cfg", "no memory at 0x%llx to take a request from", (unsigned long long)at);
		return;
	}
	control = __builtin_bswap32(d.control);
	len = __builtin_bswap32(d.length);
	address = __builtin_bswap64(d.address);
	if (control & DMA_SELECT)
		select_item(f, control >> 16);
	d.control = 0;
	/* Nothing here can be written. */
	if (control & DMA_READ) {
		if (dma_read(f, address, len))
			d.control = DMA_ERROR;
	} else if (control & DMA_WRITE) {
		d.control = DMA_ERROR;
	} else if (control & DMA_SKIP) {
		f->offset += left(f) < len ? left(f) : len;
	}
	d.control = __builtin_bswap32(d.control);
	mem_write(mem, at, &d.control, sizeof(d.control));
}

static uint64_t dma_port_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t signature = __builtin_bswap64(DMA_SIGNATURE);

	return signature >> 8 * offset;
}

static void dma_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = opaque;

	if (size != 4)
		return;
	if (offset == 0) {
		f->dma_high = __builtin_bswap32(value);
	} else if (offset == 4) {
		uint64_t at = (uint64_t)f->dma_high << 32 | __builtin_bswap32(value);

		f->dma_high = 0;
		dma(f, at);
	}
}

/* ---- Device -------------------------------------------------------------- */

static void fw_cfg_reset(struct device *d)
{
	struct fw_cfg *f = (struct fw_cfg *)d;

	pthread_mutex_lock(&d->lock);
	f->dma_high = 0;
	select_item(f, KEY_SIGNATURE);
	pthread_mutex_unlock(&d->lock);
}

static void fw_cfg_unrealize(struct device *d)
{
	struct fw_cfg *f = (struct fw_cfg *)d;

	bus_del(d->machine->pio, &f->range[0]);
	bus_del(d->machine->pio, &f->range[1]);
	for (unsigned i = 0; i < f->items; i++)
		free(f->item[i].data);
	f->items = 0;
	if (d->machine->fw_cfg == f)
		d->machine->fw_cfg = NULL;
}

static int add_number(struct fw_cfg *f, uint16_t key, uint64_t value, unsigned size, struct err *err)
{
	return fw_cfg_add(f, key, &value, size, err); /* little-endian */
}

static int add_standard(struct fw_cfg *f, struct err *err)
{
	const struct machine_config *c = &f->dev.machine->config;
	const uint8_t zeros[16] = { 0 };
	int ret = fw_cfg_add(f, KEY_SIGNATURE, "QEMU", 4, err);

	if (!ret)
		ret = add_number(f, KEY_ID, ID_TRADITIONAL | ID_DMA, 4, err);
	if (!ret)
		ret = fw_cfg_add(f, KEY_UUID, zeros, sizeof(zeros), err);
	if (!ret)
		ret = add_number(f, KEY_RAM_SIZE, c->memory, 8, err);
	if (!ret)
		ret = add_number(f, KEY_NOGRAPHIC, 1, 2, err);
	if (!ret)
		ret = add_number(f, KEY_CPUS, c->cpus, 2, err);
	if (!ret)
		ret = add_number(f, KEY_MAX_CPUS, c->cpus, 2, err);
	if (!ret)
		ret = add_number(f, KEY_BOOT_MENU, 0, 2, err);
	if (!ret)
		ret = add_number(f, KEY_IRQ0_OVERRIDE, 1, 4, err);
	if (!ret)
		ret = add_number(f, KEY_FILE_DIR, 0, 4, err);
	return ret;
}

static int fw_cfg_realize(struct device *d, struct err *err)
{
	static const struct io_ops ports = { ports_read, ports_write, 1, 2 };
	static const struct io_ops dma_ports = { dma_port_read, dma_port_write, 1, 4 };
	struct fw_cfg *f = (struct fw_cfg *)d;
	struct machine *m = d->machine;
	int ret;

	if (m->fw_cfg)
		return err_set(err, EEXIST, "the machine has a fw_cfg device already");
	f->range[0] = (struct io_range){ "fw_cfg", PORT_SELECT, 2, &ports, f, &d->lock, 0 };
	f->range[1] = (struct io_range){ "fw_cfg DMA", PORT_DMA, 8, &dma_ports, f, &d->lock, 0 };
	ret = add_standard(f, err);
	if (!ret)
		ret = bus_add(m->pio, &f->range[0], err);
	if (!ret)
		ret = bus_add(m->pio, &f->range[1], err);
	if (ret)
		fw_cfg_unrealize(d);
	else
		m->fw_cfg = f;
	return ret;
}

static int fw_cfg_post_load(void *obj, struct err *err)
{
	struct fw_cfg *f = obj;
	uint32_t offset = f->offset;

	select_item(f, f->selected);
	if (offset > left(f))
		return err_set(err, EINVAL, "the position %u lies behind the end of item 0x%x", offset, f->selected);
	f->offset = offset;
	return 0;
}

static const struct state_field fw_cfg_fields[] = {
	STATE_FIELD_U16(struct fw_cfg, selected),
	STATE_FIELD_U32(struct fw_cfg, offset),
	STATE_FIELD_U32(struct fw_cfg, dma_high),
	STATE_END,
};
static const struct state_desc fw_cfg_state = {
	.name = "fw_cfg", .version = 1, .fields = fw_cfg_fields, .post_load = fw_cfg_post_load
};

const struct device_class fw_cfg_class = {
	.name = "fw_cfg",
	.description = "firmware configuration",
	.size = sizeof(struct fw_cfg),
	.realize = fw_cfg_realize,
	.unrealize = fw_cfg_unrealize,
	.reset = fw_cfg_reset,
	.state = &fw_cfg_state,
};
