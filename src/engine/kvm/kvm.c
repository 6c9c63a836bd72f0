/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engines on KVM: what the kernel must offer, how a VM is set up. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util/files.h"

/*
 * Intel without "unrestricted guest" needs three pages for a TSS and one for
 * an identity map, outside all RAM and devices of the machine: below the
 * firmware's 16 MiB under 4 GiB, above the local APIC and the HPET.
 */
#define IDENTITY_MAP_GPA 0xfeffc000ull
#define TSS_GPA (IDENTITY_MAP_GPA + KVM_PAGE)

#define DIRTY_RING_ENTRIES 4096u

/* Everything here came with Linux 5.10 at the latest. */
static const struct {
	int cap;
	const char *name;
} needed[] = {
	{ KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP" },
	{ KVM_CAP_IRQFD, "IRQFD" },
	{ KVM_CAP_IOEVENTFD, "IOEVENTFD" },
	{ KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI" },
	{ KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT" },
	{ KVM_CAP_READONLY_MEM, "READONLY_MEM" },
	{ KVM_CAP_MP_STATE, "MP_STATE" },
	{ KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS" },
	{ KVM_CAP_EXCEPTION_PAYLOAD, "EXCEPTION_PAYLOAD" },
	{ KVM_CAP_DEBUGREGS, "DEBUGREGS" },
	{ KVM_CAP_XSAVE, "XSAVE" },
	{ KVM_CAP_GET_TSC_KHZ, "GET_TSC_KHZ" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "X86_USER_SPACE_MSR" },
	{ KVM_CAP_X86_MSR_FILTER, "X86_MSR_FILTER" },
};

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do
		r = ioctl(fd, request, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

int kvm_open(struct err *err)
{
	int fd = file_open("/dev/kvm", O_RDWR);
	int version;

	if (fd < 0) {
		switch (errno) {
		case ENOENT:
			return err_set(err, ENOENT,
				       "/dev/kvm does not exist: the host offers no hardware virtualization, "
				       "or the kvm_intel or kvm_amd module is not loaded");
		case EACCES:
			return err_set(err, EACCES, "/dev/kvm may not be opened by this user: add it to the group kvm");
		default:
			return err_set_errno(err, errno, "/dev/kvm does not open");
		}
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		return err_set(err, ENOTSUP, "/dev/kvm speaks API version %d, not %d", version, KVM_API_VERSION);
	}
	return fd;
}

static unsigned cap_value(int fd, int cap)
{
	int r = ioctl(fd, KVM_CHECK_EXTENSION, cap);

	return r > 0 ? r : 0;
}

static int cap_enable(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

	return kvm_ioctl(fd, KVM_ENABLE_CAP, &enable);
}

static int find_caps(struct kvm_engine *e, struct err *err)
{
	struct kvm_caps *c = &e->caps;

	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!cap_value(e->vm, needed[i].cap))
			return err_set(err, ENOTSUP,
				       "this kernel's KVM lacks KVM_CAP_%s; Linux 5.10 or later is needed",
				       needed[i].name);
	c->xsave_size = cap_value(e->vm, KVM_CAP_XSAVE2);
	if (c->xsave_size < sizeof(struct kvm_xsave))
		c->xsave_size = sizeof(struct kvm_xsave);
	c->ring_entries = cap_value(e->vm, KVM_CAP_DIRTY_LOG_RING) / sizeof(struct kvm_dirty_gfn);
	if (c->ring_entries > DIRTY_RING_ENTRIES)
		c->ring_entries = DIRTY_RING_ENTRIES;
	c->max_slots = cap_value(e->vm, KVM_CAP_NR_MEMSLOTS);
	c->max_vcpus = cap_value(e->vm, KVM_CAP_MAX_VCPUS);
	c->max_routes = cap_value(e->vm, KVM_CAP_IRQ_ROUTING);
	c->any_length = cap_value(e->vm, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	c->enforce_pv = cap_value(e->vm, KVM_CAP_ENFORCE_PV_FEATURE_CPUID);
	c->sync_regs = (cap_value(e->vm, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_VALID_FIELDS) == KVM_SYNC_X86_VALID_FIELDS;
	if (e->engine.config.cpus > c->max_vcpus)
		return err_set(err, EINVAL, "%u vCPUs: this host's KVM takes at most %u", e->engine.config.cpus,
			       c->max_vcpus);
	return 0;
}

static int enable_caps(struct kvm_engine *e, struct err *err)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	int r;

	r = kvm_ioctl(e->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (!r)
		r = ioctl(e->vm, KVM_SET_TSS_ADDR, TSS_GPA) < 0 ? -errno : 0;
	if (r < 0)
		return err_set_errno(err, -r, "KVM refuses the place of its TSS");
	r = cap_enable(e->vm, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS);
	if (r < 0)
		return err_set_errno(err, -r, "KVM makes no split interrupt controller");
	r = cap_enable(e->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	if (r < 0)
		return err_set_errno(err, -r, "KVM does not tell exceptions' payloads");
	/* Else programs in ring 3 get #UD for what the kernel cannot emulate, rather than the hand-over. Linux 5.15. */
	cap_enable(e->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	/* No counters: their MSRs are not part of the state. Before Linux 5.18 hiding the CPUID leaf must do. */
	cap_enable(e->vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	/* INIT leaves LVT0 masked, as hardware and the soft engine do. */
	cap_enable(e->vm, KVM_CAP_DISABLE_QUIRKS, KVM_X86_QUIRK_LINT0_REENABLED);
	if (e->caps.ring_entries &&
	    cap_enable(e->vm, KVM_CAP_DIRTY_LOG_RING, e->caps.ring_entries * sizeof(struct kvm_dirty_gfn)) < 0)
		e->caps.ring_entries = 0;
	return kvm_msr_filter(e, err);
}

static void kvm_destroy(struct engine *engine)
{
	struct kvm_engine *e = kvm_engine(engine);

	kvm_handover_free(e);
	kvm_irq_free(e);
	kvm_memory_free(e);
	if (e->boot_fd >= 0)
		close(e->boot_fd);
	if (e->vm >= 0)
		close(e->vm);
	if (e->sys >= 0)
		close(e->sys);
	pthread_mutex_destroy(&e->soft_lock);
	free(e->cpuid);
	free(e->msr_rows);
	free(e);
}

static int kvm_setup(struct kvm_engine *e, struct err *err)
{
	int r;

	e->sys = kvm_open(err);
	if (e->sys < 0)
		return e->sys;
	e->vm = kvm_ioctl(e->sys, KVM_CREATE_VM, NULL);
	if (e->vm < 0)
		return err_set_errno(err, -e->vm, "KVM makes no VM");
	r = find_caps(e, err);
	if (r < 0)
		return r;
	r = kvm_ioctl(e->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run))
		return err_set(err, ENOTSUP, "KVM's vCPU area has %d bytes, fewer than its interface defines", r);
	e->run_size = r;
	r = enable_caps(e, err);
	if (r < 0)
		return r;
	r = kvm_kick_init(err);
	if (r < 0)
		return r;
	e->boot_fd = kvm_ioctl(e->vm, KVM_CREATE_VCPU, NULL);
	if (e->boot_fd < 0)
		return err_set_errno(err, -e->boot_fd, "KVM makes no vCPU");
	r = kvm_ioctl(e->boot_fd, KVM_GET_TSC_KHZ, NULL);
	if (r <= 0)
		return err_set(err, ENOTSUP, "KVM does not know the frequency of the TSC");
	e->tsc_khz = r;
	r = kvm_cpuid_init(e, err);
	if (!r)
		r = kvm_cpuid_apply(e, e->boot_fd, 0, err);
	if (r < 0)
		return r;
	kvm_msr_limit(e->boot_fd);
	r = kvm_msr_init(e, err);
	return r;
}

static struct engine *kvm_create(const struct engine_config *config, struct err *err)
{
	struct kvm_engine *e = calloc(1, sizeof(*e));

	if (!e) {
		err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	e->engine.ops = &engine_kvm_ops;
	e->engine.config = *config;
	e->sys = e->vm = e->boot_fd = -1;
	pthread_mutex_init(&e->soft_lock, NULL);
	if (kvm_memory_init(e) < 0 || kvm_irq_init(e) < 0 || kvm_setup(e, err) < 0) {
		kvm_destroy(&e->engine);
		return NULL;
	}
	return &e->engine;
}

static uint32_t kvm_tsc_khz(struct engine *e)
{
	return kvm_engine(e)->tsc_khz;
}

static void kvm_get_stats(struct engine *engine, struct engine_stats *stats)
{
	struct kvm_engine *e = kvm_engine(engine);

	for (unsigned i = 0; i < e->engine.config.cpus; i++) {
		struct kvm_vcpu *v = e->vcpus[i];

		if (!v)
			continue;
		stats->exits += v->exits;
		stats->handovers += v->handovers;
	}
}

const struct engine_ops engine_kvm_ops = {
	.kind = ENGINE_KVM,
	.name = "kvm",
	.create = kvm_create,
	.destroy = kvm_destroy,
	.map = kvm_map,
	.unmap = kvm_unmap,
	.dirty_start = kvm_dirty_start,
	.dirty_stop = kvm_dirty_stop,
	.dirty_fetch = kvm_dirty_fetch,
	.written = kvm_written,
	.msi = kvm_msi,
	.set_extint = kvm_set_extint,
	.ioapic_routes = kvm_ioapic_routes,
	.ioeventfd = kvm_ioeventfd,
	.irqfd = kvm_irqfd,
	.cpuid = kvm_cpuid,
	.clock = kvm_clock,
	.tsc_khz = kvm_tsc_khz,
	.get_stats = kvm_get_stats,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.run = kvm_run,
	.kick = kvm_kick,
	.nmi = kvm_nmi,
	.get_state = kvm_get_state,
	.set_state = kvm_set_state,
	.translate = kvm_translate,
};
