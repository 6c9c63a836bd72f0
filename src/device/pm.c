/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/pm.h"

#include <errno.h>

#include "util/log.h"

#define NS 1000000000u
#define PM_HZ 3579545u

enum { REG_PM1_STS_EN = 0x00, REG_PM1_CNT = 0x04, REG_TIMER = 0x08, REG_GPE_STS = 0x20, REG_GPE_EN = 0x28,
       REG_SMI_EN = 0x30, REG_SMI_STS = 0x34, BLOCK = 0x80 };

#define STS_TIMER 0x0001u
#define STS_GLOBAL 0x0020u
#define STS_BUTTON 0x0100u
#define STS_RTC 0x0400u
#define STS_ALL 0x8f31u
#define EN_ALL (STS_TIMER | STS_GLOBAL | STS_BUTTON | STS_RTC)
#define CNT_SCI_EN 0x0001u
#define CNT_KEPT 0x1c03u /* SCI_EN, BM_RLD, SLP_TYP */
#define CNT_SLP_EN 0x2000u
/* Firmware takes this for a sign that system management mode was set up already, and leaves it alone: there is none. */
#define SMI_EN_APMC 0x20u

/* The timer has 32 bits, as the FADT says. */
static uint64_t pm_count(const struct pm *pm)
{
	return muldiv64(vclock_now(pm->owner->machine->clock), PM_HZ, NS);
}

/* TMR_STS is set whenever the highest bit changes (ACPI 6.4 §4.8.2.1). */
static void count_overflows(struct pm *pm)
{
	uint64_t halves = pm_count(pm) >> 31;

	if (halves != pm->halves)
		pm->pm1_sts |= STS_TIMER;
	pm->halves = halves;
}

static bool sci_level(const struct pm *pm)
{
	bool pending = (pm->pm1_sts & pm->pm1_en & EN_ALL) || (pm->gpe_sts & pm->gpe_en);

	return pending && pm->pm1_cnt & CNT_SCI_EN;
}

static void update(struct pm *pm)
{
	pm->set_sci(pm->owner, sci_level(pm));
	pm->overflow_at = VTIMER_NEVER;
	if (pm->pm1_en & STS_TIMER && !(pm->pm1_sts & STS_TIMER)) {
		uint64_t tick = (pm->halves + 1) << 31;

		pm->overflow_at = ((unsigned __int128)tick * NS + PM_HZ - 1) / PM_HZ;
	}
	vtimer_arm(pm->timer, pm->overflow_at);
}

static void overflow(void *opaque)
{
	struct pm *pm = opaque;

	pthread_mutex_lock(&pm->owner->lock);
	if (vclock_now(pm->owner->machine->clock) >= pm->overflow_at) {
		count_overflows(pm);
		update(pm);
	}
	pthread_mutex_unlock(&pm->owner->lock);
}

static void sleep_enable(struct pm *pm)
{
	unsigned type = pm->pm1_cnt >> 10 & 7;

	/* 0 is what the DSDT calls S5, 7 what the chip does. */
	if (type == 0 || type == 7)
		machine_signal(pm->owner->machine, MACHINE_SHUTDOWN_GUEST, 0);
	else
		log_guest("pm", "sleep type %u does not exist here", type);
}

/* ---- Registers ----------------------------------------------------------- */

static uint32_t read32(struct pm *pm, unsigned reg)
{
	switch (reg) {
	case REG_PM1_STS_EN:
		count_overflows(pm);
		return pm->pm1_sts | (uint32_t)pm->pm1_en << 16;
	case REG_PM1_CNT:
		return pm->pm1_cnt;
	case REG_TIMER:
		return pm_count(pm);
	case REG_GPE_STS:
	case REG_GPE_STS + 4:
		return pm->gpe_sts >> (8 * (reg - REG_GPE_STS));
	case REG_GPE_EN:
	case REG_GPE_EN + 4:
		return pm->gpe_en >> (8 * (reg - REG_GPE_EN));
	case REG_SMI_EN:
		return pm->smi_en;
	case REG_SMI_STS:
		return pm->smi_sts;
	default:
		return 0;
	}
}

/* The bits of `mask` are written. */
static void write32(struct pm *pm, unsigned reg, uint32_t value, uint32_t mask)
{
	uint64_t wide;

	value &= mask;
	switch (reg) {
	case REG_PM1_STS_EN:
		count_overflows(pm);
		pm->pm1_sts &= ~value;
		pm->pm1_en = ((pm->pm1_en & ~(mask >> 16)) | value >> 16) & EN_ALL;
		break;
	case REG_PM1_CNT:
		pm->pm1_cnt = ((pm->pm1_cnt & ~mask) | value) & CNT_KEPT;
		if (value & CNT_SLP_EN)
			sleep_enable(pm);
		break;
	case REG_GPE_STS:
	case REG_GPE_STS + 4:
		pm->gpe_sts &= ~((uint64_t)value << (8 * (reg - REG_GPE_STS)));
		break;
	case REG_GPE_EN:
	case REG_GPE_EN + 4:
		wide = (uint64_t)mask << (8 * (reg - REG_GPE_EN));
		pm->gpe_en = (pm->gpe_en & ~wide) | (uint64_t)value << (8 * (reg - REG_GPE_EN));
		break;
	case REG_SMI_EN:
		pm->smi_en = (pm->smi_en & ~mask) | value | SMI_EN_APMC;
		return;
	case REG_SMI_STS:
		pm->smi_sts &= ~value;
		return;
	default:
		return;
	}
	update(pm);
}

/* An access that is not aligned touches two registers. */
static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pm *pm = opaque;
	unsigned reg = offset & ~3u;
	uint64_t low = read32(pm, reg), high = (offset & 3) + size > 4 ? read32(pm, reg + 4) : 0;

	return (low | high << 32) >> (8 * (offset & 3));
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pm *pm = opaque;
	unsigned reg = offset & ~3u, shift = 8 * (offset & 3);
	uint64_t mask = ((1ull << 8 * size) - 1) << shift;

	value <<= shift;
	write32(pm, reg, value, mask);
	if (mask >> 32)
		write32(pm, reg + 4, value >> 32, mask >> 32);
}

/* ---- What the LPC bridge calls ------------------------------------------- */

void pm_button(struct pm *pm)
{
	pthread_mutex_lock(&pm->owner->lock);
	pm->pm1_sts |= STS_BUTTON;
	update(pm);
	pthread_mutex_unlock(&pm->owner->lock);
	machine_signal(pm->owner->machine, MACHINE_POWERDOWN, 0);
}

void pm_acpi_mode(struct pm *pm, bool on)
{
	pm->pm1_cnt = on ? pm->pm1_cnt | CNT_SCI_EN : pm->pm1_cnt & ~CNT_SCI_EN;
	update(pm);
}

void pm_map(struct pm *pm, uint16_t base, bool enable)
{
	if (pm->mapped == enable && (!enable || pm->range.base == base))
		return;
	bus_del(pm->owner->machine->pio, &pm->range);
	pm->range.base = base;
	pm->mapped = enable;
	/* Over other chips' ports: the guest's doing, they keep them. */
	if (enable && bus_add(pm->owner->machine->pio, &pm->range, NULL))
		log_guest("pm", "the PM registers cannot be at port 0x%x", base);
}

void pm_reset(struct pm *pm)
{
	pm->pm1_sts = pm->pm1_en = 0;
	/* There is no SMM to switch modes in: the chip is in ACPI mode from the start. */
	pm->pm1_cnt = CNT_SCI_EN;
	pm->gpe_sts = pm->gpe_en = 0;
	pm->smi_en = SMI_EN_APMC;
	pm->smi_sts = 0;
	pm->halves = pm_count(pm) >> 31;
	update(pm);
}

bool pm_loaded(struct pm *pm)
{
	vtimer_arm(pm->timer, pm->overflow_at);
	return sci_level(pm);
}

int pm_init(struct pm *pm, struct device *owner, void (*set_sci)(struct device *owner, bool level), struct err *err)
{
	static const struct io_ops ops = { pm_read, pm_write, 1, 4 };

	pm->owner = owner;
	pm->set_sci = set_sci;
	pm->range = (struct io_range){ "acpi-pm", Q35_PM_BASE, BLOCK, &ops, pm, &owner->lock, 0 };
	pm->timer = vtimer_new(owner->machine->clock, overflow, pm);
	return pm->timer ? 0 : err_set(err, ENOMEM, "no memory for the PM timer");
}

void pm_exit(struct pm *pm)
{
	bus_del(pm->owner->machine->pio, &pm->range);
	vtimer_free(pm->timer);
}

static int pm_post_load(void *obj, struct err *err)
{
	struct pm *pm = obj;

	if (pm->pm1_sts & ~STS_ALL || pm->pm1_en & ~EN_ALL || pm->pm1_cnt & ~CNT_KEPT)
		return err_set(err, EINVAL, "PM1 registers have bits that do not exist");
	return 0;
}

static const struct state_field pm_fields[] = {
	STATE_FIELD_U16(struct pm, pm1_sts),
	STATE_FIELD_U16(struct pm, pm1_en),
	STATE_FIELD_U16(struct pm, pm1_cnt),
	STATE_FIELD_U64(struct pm, gpe_sts),
	STATE_FIELD_U64(struct pm, gpe_en),
	STATE_FIELD_U32(struct pm, smi_en),
	STATE_FIELD_U32(struct pm, smi_sts),
	STATE_FIELD_U64(struct pm, halves),
	STATE_FIELD_U64(struct pm, overflow_at),
	STATE_END,
};
const struct state_desc pm_state = { .name = "ich9-pm", .version = 1, .fields = pm_fields, .post_load = pm_post_load };
