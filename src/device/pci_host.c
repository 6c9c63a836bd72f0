/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The q35's memory controller hub, function 0 of device 0 on bus 0 (Intel 3
 * Series Chipset datasheet §5): it makes the PCI host. Of its registers only
 * PCIEXBAR does anything; PAM and friends keep what is written, as shadow RAM
 * is always RAM here.
 */
#include "machine/pci.h"

enum { MCH_PCIEXBAR = 0x60, MCH_PAM0 = 0x90, MCH_SMRAM = 0x9d };
#define PCIEXBAR_ENABLE 1u

struct mch {
	struct pci_device pdev;
	uint32_t config_address; /* between PCI host and state stream */
};

static void apply_pciexbar(struct mch *s)
{
	const uint8_t *c = s->pdev.config + MCH_PCIEXBAR;
	uint64_t reg = pci_get32(c) | (uint64_t)pci_get32(c + 4) << 32, size = 0;

	switch (reg >> 1 & 3) {
	case 0:
		size = 256ull << 20;
		break;
	case 1:
		size = 128ull << 20;
		break;
	case 2:
		size = 64ull << 20;
		break;
	}
	if (!(reg & PCIEXBAR_ENABLE))
		size = 0;
	pci_host_set_ecam(s->pdev.dev.machine, size ? reg & ~(size - 1) & 0xffc000000ull : 0, size);
}

static void mch_config_written(struct pci_device *pdev, unsigned offset, unsigned size)
{
	if (offset < MCH_PCIEXBAR + 8 && offset + size > MCH_PCIEXBAR)
		apply_pciexbar((struct mch *)pdev);
}

static int mch_realize(struct device *d, struct err *err)
{
	static const struct pci_ids ids = { 0x8086, 0x29c0, 0x1af4, 0x1100, 0x06000000 };
	struct mch *s = (struct mch *)d;
	uint8_t *c = s->pdev.config, *w = s->pdev.wmask;
	int ret = pci_host_init(d->machine, err);

	if (ret)
		return ret;
	s->pdev.slot = 0;
	ret = pci_device_init(&s->pdev, &ids, err);
	if (ret) {
		pci_host_exit(d->machine);
		return ret;
	}
	/* Real hardware comes up with it off; firmware sets it anyway, kernels booted directly want it on. */
	pci_set32(c + MCH_PCIEXBAR, Q35_ECAM_BASE | PCIEXBAR_ENABLE);
	pci_set32(w + MCH_PCIEXBAR, 0xfc000007);
	pci_set32(w + MCH_PCIEXBAR + 4, 0x0000000f);
	w[MCH_PAM0] = 0x30;
	for (unsigned i = 1; i < 7; i++)
		w[MCH_PAM0 + i] = 0x33;
	c[MCH_SMRAM] = 0x02;
	s->pdev.config_written = mch_config_written;
	pci_device_ready(&s->pdev);
	apply_pciexbar(s);
	return 0;
}

static void mch_unrealize(struct device *d)
{
	struct mch *s = (struct mch *)d;

	pci_device_exit(&s->pdev);
	pci_host_exit(d->machine);
}

static void mch_reset(struct device *d)
{
	struct mch *s = (struct mch *)d;

	pci_device_reset(&s->pdev);
	pci_host_set_address(d->machine, 0);
	apply_pciexbar(s);
}

static void mch_saving(void *obj)
{
	struct mch *s = obj;

	s->config_address = pci_host_address(s->pdev.dev.machine);
}

static int mch_loaded(void *obj, struct err *err)
{
	struct mch *s = obj;

	pci_host_set_address(s->pdev.dev.machine, s->config_address);
	apply_pciexbar(s);
	return 0;
}

static const struct state_field mch_fields[] = {
	STATE_FIELD_STRUCT(struct mch, pdev, &pci_device_state),
	STATE_FIELD_U32(struct mch, config_address),
	STATE_END,
};
static const struct state_desc mch_state = {
	.name = "mch", .version = 1, .fields = mch_fields, .pre_save = mch_saving, .post_load = mch_loaded,
};

const struct device_class mch_class = {
	.name = "mch",
	.description = "q35 memory controller hub: the PCI host bridge",
	.size = sizeof(struct mch),
	.realize = mch_realize,
	.unrealize = mch_unrealize,
	.reset = mch_reset,
	.state = &mch_state,
};
