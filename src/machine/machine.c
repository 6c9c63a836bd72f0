/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/log.h"

/* ---- What the engine asks of the machine --------------------------------- */

static uint32_t host_pio_read(void *opaque, uint16_t port, unsigned size)
{
	struct machine *m = opaque;

	return bus_read(m->pio, port, size);
}

static void host_pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	struct machine *m = opaque;

	bus_write(m->pio, port, value, size);
}

static uint64_t host_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct machine *m = opaque;

	return bus_read(m->mmio, gpa, size);
}

static void host_mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size)
{
	struct machine *m = opaque;

	bus_write(m->mmio, gpa, value, size);
}

static int host_pic_ack(void *opaque)
{
	struct machine *m = opaque;

	return m->pic_ack ? m->pic_ack(m->pic_opaque) : -1;
}

static void host_ioapic_eoi(void *opaque, uint8_t vector)
{
	struct machine *m = opaque;

	if (m->ioapic_eoi)
		m->ioapic_eoi(m->ioapic_opaque, vector);
}

/* ---- RAM ----------------------------------------------------------------- */

/* The VGA window has no RAM behind it; firmware's shadow above it has. */
#define VGA_BASE 0xa0000ull
#define VGA_END 0xc0000ull

static void ram_written(void *opaque, uint64_t gpa, uint64_t len)
{
	struct machine *m = opaque;

	engine_written(m->engine, gpa, len);
}

static int map_ram(struct machine *m, uint8_t *base, int fd, uint64_t gpa, uint64_t end, uint64_t offset, struct err *err)
{
	struct guest_region r = { .gpa = gpa, .size = end - gpa, .hva = base + offset, .fd = fd, .offset = offset };
	int ret;

	if (gpa >= end)
		return 0;
	ret = mem_add(&m->mem, &r, err);
	if (!ret)
		ret = engine_map(m->engine, gpa, r.size, r.hva, false, err);
	return ret ? ret : engine_map_file(m->engine, gpa, fd, offset, err);
}

static int make_ram(struct machine *m, struct err *err)
{
	uint64_t size = m->config.memory, low = size < Q35_LOW_MAX ? size : Q35_LOW_MAX;
	int fd = memfd_create("keel-ram", MFD_CLOEXEC), ret;
	uint8_t *base;

	if (fd < 0)
		return err_set_errno(err, errno, "cannot make guest memory");
	if (ftruncate(fd, size)) {
		ret = err_set_errno(err, errno, "cannot make %llu MiB of guest memory", (unsigned long long)(size >> 20));
		close(fd);
		return ret;
	}
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED) {
		ret = err_set_errno(err, errno, "cannot map %llu MiB of guest memory", (unsigned long long)(size >> 20));
		close(fd);
		return ret;
	}
	m->ram = base;
	m->ram_fd = fd;
	m->mem.written = ram_written;
	m->mem.opaque = m;
	ret = map_ram(m, base, fd, 0, VGA_BASE, 0, err);
	if (!ret)
		ret = map_ram(m, base, fd, VGA_END, low, VGA_END, err);
	if (!ret)
		ret = map_ram(m, base, fd, 4ull << 30, (4ull << 30) + size - low, low, err);
	return ret;
}

/* ---- Interrupt lines ----------------------------------------------------- */

static void line_set(void *opaque, unsigned n, bool level)
{
	struct machine *m = opaque;

	if (n < 16)
		irq_set(&m->pic_in[n], level);
	irq_set(&m->ioapic_in[n == 0 ? 2 : n], level);
}

struct irq machine_irq(struct machine *m, unsigned n)
{
	assert(n < Q35_GSIS);
	return (struct irq){ .set = line_set, .opaque = m, .n = n };
}

/* ---- Life ---------------------------------------------------------------- */

struct machine *machine_new(const struct machine_config *config, struct err *err)
{
	struct engine_config ec = { .kind = config->engine, .cpus = config->cpus, .hide_pv = config->hide_pv,
				    .no_translate = config->no_translate, .native = config->native, .native_always = config->native_always,
				    .lockstep = config->lockstep, .cache = config->engine_cache };
	struct machine *m = calloc(1, sizeof(*m));

	assert(!(config->memory & 4095) && config->memory >= 1 << 20 && config->memory <= Q35_RAM_MAX);
	if (!m) {
		err_set(err, ENOMEM, "no memory for a machine");
		return NULL;
	}
	m->config = *config;
	m->loop = config->loop;
	m->devices_end = &m->devices;
	m->ram_fd = -1;
	pthread_mutex_init(&m->run_lock, NULL);
	pthread_cond_init(&m->run_cond, NULL);
	ec.host = (struct engine_host){
		.opaque = m,
		.pio_read = host_pio_read,
		.pio_write = host_pio_write,
		.mmio_read = host_mmio_read,
		.mmio_write = host_mmio_write,
		.pic_ack = host_pic_ack,
		.ioapic_eoi = host_ioapic_eoi,
	};
	m->clock = vclock_new(m->loop);
	m->pio = bus_new("I/O ports");
	m->mmio = bus_new("device memory");
	m->vcpus = calloc(config->cpus, sizeof(*m->vcpus));
	if (!m->clock || !m->pio || !m->mmio || !m->vcpus) {
		err_set(err, ENOMEM, "no memory for a machine");
		goto fail;
	}
	m->engine = engine_new(&ec, err);
	if (!m->engine || make_ram(m, err))
		goto fail;
	for (unsigned i = 0; i < config->cpus; i++) {
		m->vcpus[i].machine = m;
		m->vcpus[i].index = i;
		m->vcpus[i].vcpu = vcpu_new(m->engine, i, err);
		if (!m->vcpus[i].vcpu)
			goto fail;
	}
	engine_clock(m->engine, false);
	return m;
fail:
	machine_free(m);
	return NULL;
}

/* Devices go in reverse order of realization. */
static void free_devices(struct machine *m)
{
	while (m->devices) {
		struct device *d = m->devices;

		while (d->next)
			d = d->next;
		device_free(d);
	}
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	if (m->vcpus && m->engine) {
		machine_pause(m);
		vcpus_destroy(m);
	}
	free_devices(m);
	if (m->vcpus)
		for (unsigned i = 0; i < m->config.cpus; i++)
			vcpu_free(m->vcpus[i].vcpu);
	engine_free(m->engine);
	if (m->boot.free)
		m->boot.free(m->boot.opaque);
	if (m->ram)
		munmap(m->ram, m->config.memory);
	if (m->ram_fd >= 0)
		close(m->ram_fd);
	free(m->vcpus);
	bus_free(m->pio);
	bus_free(m->mmio);
	vclock_free(m->clock);
	pthread_cond_destroy(&m->run_cond);
	pthread_mutex_destroy(&m->run_lock);
	free(m);
}

int machine_reset(struct machine *m, struct err *err)
{
	struct cpu_state *s = cpu_state_new();
	int ret = 0;

	assert(!m->go);
	if (!s)
		return err_set(err, ENOMEM, "no memory to reset the vCPUs");
	for (struct device *d = m->devices; d; d = d->next)
		device_reset(d);
	if (m->boot.load)
		ret = m->boot.load(m->boot.opaque, m, err);
	for (unsigned i = 0; i < m->config.cpus && !ret; i++) {
		if (i == 0 && m->boot.set)
			*s = m->boot.cpu;
		else
			cpu_state_reset(s, i);
		ret = vcpu_set_state(m->vcpus[i].vcpu, s, err);
		m->vcpus[i].ended = false;
	}
	if (!ret && m->state == MACHINE_ENDED)
		m->state = MACHINE_PAUSED;
	free(s);
	return ret;
}

static void tell_devices(struct machine *m, bool stopped)
{
	for (struct device *d = m->devices; d; d = d->next)
		if (d->cls->stopped)
			d->cls->stopped(d, stopped);
}

int machine_start(struct machine *m, struct err *err)
{
	int ret = vcpus_create(m, err);

	if (!ret)
		machine_resume(m);
	return ret;
}

void machine_pause(struct machine *m)
{
	if (m->state != MACHINE_RUNNING)
		return;
	vcpus_halt(m);
	engine_clock(m->engine, false);
	vclock_stop(m->clock);
	m->state = MACHINE_PAUSED;
	tell_devices(m, true);
}

void machine_resume(struct machine *m)
{
	if (m->state != MACHINE_PRELAUNCH && m->state != MACHINE_PAUSED)
		return;
	m->state = MACHINE_RUNNING;
	tell_devices(m, false);
	vclock_start(m->clock);
	engine_clock(m->engine, true);
	vcpus_go(m);
}

void machine_hold(struct machine *m)
{
	if (m->state == MACHINE_RUNNING)
		vcpus_halt(m);
}

void machine_release(struct machine *m)
{
	if (m->state == MACHINE_RUNNING)
		vcpus_go(m);
}

/* ---- Signals from the guest ---------------------------------------------- */

struct signal {
	struct machine *machine;
	enum machine_stop what;
	uint32_t arg;
};

static void signal_arrived(void *arg)
{
	struct signal *s = arg;
	struct machine *m = s->machine;

	if (s->what != MACHINE_PANICKED && s->what != MACHINE_POWERDOWN) {
		/* Two vCPUs may say it at once, and one may still say it while the owner stops: only a running machine ends. */
		if (m->state != MACHINE_RUNNING) {
			free(s);
			return;
		}
		machine_pause(m);
		m->state = MACHINE_ENDED;
	}
	m->config.owner.event(m->config.owner.opaque, s->what, s->arg, NULL);
	free(s);
}

void machine_signal(struct machine *m, enum machine_stop what, uint32_t arg)
{
	struct signal *s = malloc(sizeof(*s));

	if (s)
		*s = (struct signal){ .machine = m, .what = what, .arg = arg };
	if (!s || loop_post(m->loop, signal_arrived, s)) {
		log_line(LOG_ERROR, "no memory to tell that the guest stopped");
		abort();
	}
}

/* ---- State --------------------------------------------------------------- */

int machine_get_cpu(struct machine *m, unsigned index, struct cpu_state *s, struct err *err)
{
	assert(m->state != MACHINE_RUNNING && index < m->config.cpus);
	return vcpu_get_state(m->vcpus[index].vcpu, s, err);
}

int machine_set_cpu(struct machine *m, unsigned index, const struct cpu_state *s, struct err *err)
{
	assert(m->state != MACHINE_RUNNING && index < m->config.cpus);
	return vcpu_set_state(m->vcpus[index].vcpu, s, err);
}

int machine_cpu_tid(struct machine *m, unsigned index)
{
	return m->vcpus[index].tid;
}

struct device *machine_find(struct machine *m, const char *id)
{
	for (struct device *d = m->devices; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

/* The machine's own section. */
struct board_state {
	uint64_t clock, memory;
	uint32_t cpus;
};
static const struct state_field board_fields[] = {
	STATE_FIELD_U64(struct board_state, clock),
	STATE_FIELD_U64(struct board_state, memory),
	STATE_FIELD_U32(struct board_state, cpus),
	STATE_END,
};
static const struct state_desc board_desc = { .name = "q35", .version = 1, .fields = board_fields };

int machine_save(struct machine *m, struct state_buf *b, struct err *err)
{
	struct board_state board = { vclock_now(m->clock), m->config.memory, m->config.cpus };
	struct cpu_state *s = cpu_state_new();
	int ret = s ? state_save(b, "machine", &board_desc, &board, err) : err_set(err, ENOMEM, "no memory to save vCPUs");

	assert(m->state != MACHINE_RUNNING);
	for (struct device *d = m->devices; d && !ret; d = d->next) {
		if (!d->cls->state)
			continue;
		pthread_mutex_lock(&d->lock);
		ret = state_save(b, d->id, d->cls->state, d, err);
		pthread_mutex_unlock(&d->lock);
	}
	for (unsigned i = 0; i < m->config.cpus && !ret; i++) {
		char id[16];

		snprintf(id, sizeof(id), "cpu%u", i);
		ret = machine_get_cpu(m, i, s, err);
		if (!ret)
			ret = state_save(b, id, &cpu_state_desc, s, err);
	}
	free(s);
	return ret;
}

static int load_section(struct machine *m, struct state_reader *r, struct cpu_state *s, struct err *err)
{
	struct device *d;
	unsigned cpu;
	int ret;

	if (!strcmp(r->id, "machine")) {
		struct board_state board = { 0 };

		ret = state_load(r, &board_desc, &board, err);
		if (!ret && (board.memory != m->config.memory || board.cpus != m->config.cpus))
			ret = err_set(err, EINVAL, "the state is of a machine with %llu MiB and %u vCPUs, this one has %llu MiB and %u",
				      (unsigned long long)(board.memory >> 20), board.cpus,
				      (unsigned long long)(m->config.memory >> 20), m->config.cpus);
		if (!ret)
			vclock_set(m->clock, board.clock);
		return ret;
	}
	if (sscanf(r->id, "cpu%u", &cpu) == 1 && !strcmp(r->name, cpu_state_desc.name)) {
		if (cpu >= m->config.cpus)
			return err_set(err, EINVAL, "the state holds vCPU %u, this machine has %u", cpu, m->config.cpus);
		memset(s, 0, sizeof(*s));
		ret = state_load(r, &cpu_state_desc, s, err);
		return ret ? ret : machine_set_cpu(m, cpu, s, err);
	}
	d = machine_find(m, r->id);
	if (!d || !d->cls->state)
		return err_set(err, EINVAL, "the state holds device %s (%s), which this machine lacks", r->id, r->name);
	pthread_mutex_lock(&d->lock);
	ret = state_load(r, d->cls->state, d, err);
	pthread_mutex_unlock(&d->lock);
	return ret;
}

int machine_load(struct machine *m, const uint8_t *data, size_t len, struct err *err)
{
	struct state_reader r = { .data = data, .len = len };
	struct cpu_state *s = cpu_state_new();
	int ret;

	assert(m->state != MACHINE_RUNNING);
	if (!s)
		return err_set(err, ENOMEM, "no memory to load vCPUs");
	while ((ret = state_next(&r, err)) > 0) {
		ret = load_section(m, &r, s, err);
		if (ret)
			break;
	}
	free(s);
	return ret;
}
