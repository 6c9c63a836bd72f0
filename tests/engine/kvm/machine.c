/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/soft/trans.h"

static void kick_all(struct machine *m)
{
	for (unsigned i = 0; i < m->cpus; i++)
		if (m->vcpus[i])
			vcpu_kick(m->vcpus[i]);
}

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
	return UINT32_MAX >> (32 - 8 * size);
}

static void pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	struct machine *m = opaque;

	switch (port) {
	case PORT_EXIT:
		m->exit_code = value;
		m->exited = true;
		kick_all(m);
		break;
	case PORT_SERIAL:
		if (m->serial_len < sizeof(m->serial) - 1)
			m->serial[m->serial_len++] = value;
		break;
	case PORT_INTR:
		m->intr_vector = value & 0xff;
		engine_set_extint(m->engine, true);
		break;
	case PORT_LEVEL:
	case PORT_EDGE:
		/* To APIC 0, fixed; bit 15: level, bit 14: asserted */
		engine_msi(m->engine, 0xfee00000, (value & 0xff) | (port == PORT_LEVEL ? 0xc000 : 0));
		break;
	case PORT_IRQFD:
		if (m->irqfd >= 0)
			eventfd_write(m->irqfd, 1);
		else
			engine_msi(m->engine, 0xfee00000, IRQFD_VECTOR);
		break;
	case PORT_MARKER:
		m->markers++;
		if (m->stop_at_markers)
			vcpu_kick(m->vcpus[0]);
		break;
	}
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct machine *m = opaque;
	unsigned shift = (gpa & 7) * 8;

	if ((gpa & ~7ull) != DEVICE)
		return UINT64_MAX >> (64 - 8 * size);
	return (m->reg >> shift) & (UINT64_MAX >> (64 - 8 * size));
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	struct machine *m = opaque;
	uint64_t mask = UINT64_MAX >> (64 - 8 * size);
	unsigned shift = (gpa & 7) * 8;

	if (gpa == DOORBELL)
		m->doorbells++;
	if (gpa >> 12 == ROM >> 12)
		m->rom_writes++;
	if ((gpa & ~7ull) == DEVICE)
		m->reg = (m->reg & ~(mask << shift)) | (value & mask) << shift;
}

static int pic_ack(void *opaque)
{
	struct machine *m = opaque;
	int vector = atomic_exchange(&m->intr_vector, -1);

	engine_set_extint(m->engine, false);
	return vector;
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
	((struct machine *)opaque)->eois++;
}

bool machine_init(struct machine *m, enum engine_kind kind, unsigned cpus, uint8_t *ram)
{
	struct engine_config config = {
		.kind = kind,
		.cpus = cpus,
		.host = {
			.opaque = m,
			.pio_read = pio_read,
			.pio_write = pio_write,
			.mmio_read = mmio_read,
			.mmio_write = mmio_write,
			.pic_ack = pic_ack,
			.ioapic_eoi = ioapic_eoi,
		},
	};

	memset(m, 0, sizeof(*m));
	m->cpus = cpus;
	m->intr_vector = -1;
	m->irqfd = -1;
	m->own_ram = !ram;
	m->ram = ram ? ram :
		 mmap(NULL, GUEST_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	m->engine = engine_new(&config, &m->err);
#ifdef MACHINE_TRANSLATE /* from the first instruction on */
	if (m->engine && kind == ENGINE_SOFT)
		trans_set_test(soft_engine(m->engine), 0, true);
#endif
	m->rom = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(m->rom, 0x5a, 4096);
	if (!m->engine || engine_map(m->engine, 0, GUEST_RAM, m->ram, false, &m->err) < 0 ||
	    engine_map(m->engine, ROM, 4096, m->rom, true, &m->err) < 0)
		return false;
	for (unsigned i = 0; i < cpus; i++) {
		m->vcpus[i] = vcpu_new(m->engine, i, &m->err);
		if (!m->vcpus[i])
			return false;
	}
	return true;
}

void machine_free(struct machine *m)
{
	for (unsigned i = 0; i < m->cpus; i++)
		vcpu_free(m->vcpus[i]);
	engine_free(m->engine);
	munmap(m->rom, 4096);
	if (m->own_ram)
		munmap(m->ram, GUEST_RAM);
}

const char *machine_payload(const char *name)
{
	static char path[512];
	const char *dir = getenv("GUEST_DIR");

	snprintf(path, sizeof(path), "%s/%s.bin", dir ? dir : ".", name);
	return path;
}

bool machine_load(struct machine *m, const char *payload)
{
	struct cpu_state *s = malloc(sizeof(*s));
	int fd = open(machine_payload(payload), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, m->ram + GUEST_BASE, GUEST_RAM - GUEST_BASE);
	bool ok = false;

	if (fd >= 0)
		close(fd);
	if (n <= 0) {
		err_set_errno(&m->err, errno, "%s", machine_payload(payload));
	} else if (vcpu_get_state(m->vcpus[0], s, &m->err) == 0) {
		s->seg[SEG_CS].selector = GUEST_BASE >> 4;
		s->seg[SEG_CS].base = GUEST_BASE;
		s->rip = 0;
		ok = vcpu_set_state(m->vcpus[0], s, &m->err) == 0;
	}
	free(s);
	return ok;
}

struct runner {
	struct machine *m;
	unsigned index;
};

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	struct machine *m = r->m;
	struct err err = ERR_INIT;

	do
		m->ends[r->index] = vcpu_run(m->vcpus[r->index], &err);
	while (m->ends[r->index] == VCPU_EXIT_KICK && !m->exited);
	if (m->ends[r->index] != VCPU_EXIT_KICK) {
		m->exited = true;
		kick_all(m);
		if (m->ends[r->index] == VCPU_EXIT_ERROR)
			m->err = err;
	}
	return NULL;
}

void machine_run(struct machine *m)
{
	struct runner runners[MACHINE_MAX_CPUS];
	pthread_t threads[MACHINE_MAX_CPUS];

	for (unsigned i = 0; i < m->cpus; i++) {
		runners[i] = (struct runner){ m, i };
		pthread_create(&threads[i], NULL, run_vcpu, &runners[i]);
	}
	for (unsigned i = 0; i < m->cpus; i++)
		pthread_join(threads[i], NULL);
}
