/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The q35 board: which chips there are and in which order. The order is that of
 * reset too: interrupt controllers first, since devices that are reset after
 * them drive their lines anew; the HPET directly behind them, since it takes
 * over some of their inputs.
 */
#include <stdio.h>

#include "device/classes.h"
#include "device/rtc.h"
#include "machine/machine.h"

static const char *const chips[] = {
	"mch", "i8259", "ioapic", "hpet", "ich9-lpc", "i8254", "mc146818rtc", "i8257", "i8042", "fw_cfg",
};

static void set_cell16(struct device *rtc, unsigned index, uint32_t value)
{
	if (value > 0xffff)
		value = 0xffff;
	rtc_set_cell(rtc, index, value);
	rtc_set_cell(rtc, index + 1, value >> 8);
}

/* What a PC's set-up program leaves in CMOS; SeaBIOS and old loaders read it. */
static void fill_cmos(struct machine *m)
{
	struct device *rtc = machine_find(m, "mc146818rtc");
	uint64_t low = m->config.memory < Q35_LOW_MAX ? m->config.memory : Q35_LOW_MAX, high = m->config.memory - low;
	uint64_t above_1m = low > 1 << 20 ? low - (1 << 20) : 0, above_16m = low > 16 << 20 ? low - (16 << 20) : 0;

	rtc_set_cell(rtc, 0x14, 0x06);              /* equipment: FPU, mouse */
	set_cell16(rtc, 0x15, 640);                 /* KiB below 1 MiB */
	set_cell16(rtc, 0x17, above_1m >> 10);      /* KiB above it, at most 64 MiB */
	set_cell16(rtc, 0x30, above_1m >> 10);
	set_cell16(rtc, 0x34, above_16m >> 16);     /* units of 64 KiB */
	rtc_set_cell(rtc, 0x5b, high >> 16);        /* above 4 GiB, units of 64 KiB */
	rtc_set_cell(rtc, 0x5c, high >> 24);
	rtc_set_cell(rtc, 0x5d, high >> 32);
	rtc_set_cell(rtc, 0x5f, m->config.cpus - 1);
	rtc_set_cell(rtc, 0x3d, 0x32);              /* boot order: disk, CD, network */
	rtc_set_cell(rtc, 0x38, 0x40);
}

/* `prop` is set to `value` unless that is 0. */
static int add_chardev_device(struct machine *m, const char *cls, const char *id, const char *prop, unsigned value,
			      struct chardev *chardev, struct err *err)
{
	struct device *d = device_new(m, device_class_find(cls), id, err);
	char text[12];
	int ret = 0;

	if (!d)
		return -err->code;
	snprintf(text, sizeof(text), "%u", value);
	if (value)
		ret = device_set(d, prop, text, err);
	if (ret) {
		device_free(d);
		return ret;
	}
	device_set_ptr(d, "chardev", chardev);
	return device_realize(d, err);
}

static int add_optional(struct machine *m, const struct q35_options *o, struct err *err)
{
	int ret = 0;

	for (unsigned i = 0; i < 4 && !ret; i++) {
		char id[16];

		snprintf(id, sizeof(id), "serial%u", i);
		if (o->serial[i])
			ret = add_chardev_device(m, "isa-serial", id, "index", i, o->serial[i], err);
	}
	if (!ret && o->debugcon)
		ret = add_chardev_device(m, "isa-debugcon", "debugcon", "iobase", o->debug_port, o->debug_out, err);
	if (!ret && o->debug_exit && !device_add(m, "isa-debug-exit", NULL, err, NULL))
		ret = -err->code;
	if (!ret && o->pvpanic && !device_add(m, "pvpanic", NULL, err, NULL))
		ret = -err->code;
	for (unsigned i = 0; i < o->root_ports && !ret; i++) {
		char id[16];

		snprintf(id, sizeof(id), "rp%u", i);
		if (!device_add(m, "pcie-root-port", id, err, NULL))
			ret = -err->code;
	}
	return ret;
}

int q35_init(struct machine *m, const struct q35_options *o, struct err *err)
{
	struct err local = ERR_INIT;

	if (!err)
		err = &local;
	for (unsigned i = 0; i < sizeof(chips) / sizeof(chips[0]); i++)
		if (!device_add(m, chips[i], NULL, err, NULL))
			return -err->code;
	fill_cmos(m);
	return add_optional(m, o, err);
}
