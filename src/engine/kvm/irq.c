/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts from the machine to the kernel's local APICs. Everything is a
 * message: KVM_SIGNAL_MSI, or an eventfd behind a routing entry. The IOAPIC's
 * pins are routing entries too, only so that the kernel knows which vectors'
 * EOIs it must report.
 */
#include "engine/kvm/kvm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MSI_DATA_LEVEL 0x8000u /* SDM vol. 3 §10.11.2: trigger mode */

int kvm_irq_init(struct kvm_engine *e)
{
	pthread_mutex_init(&e->irq_lock, NULL);
	return 0;
}

void kvm_irq_free(struct kvm_engine *e)
{
	pthread_mutex_destroy(&e->irq_lock);
	free(e->routes);
}

void kvm_msi(struct engine *engine, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = address, .address_hi = address >> 32, .data = data };

	/* A message to nobody fails; hardware drops it. */
	kvm_ioctl(kvm_engine(engine)->vm, KVM_SIGNAL_MSI, &msi);
}

static void add_entry(struct kvm_irq_routing *table, unsigned gsi, const struct engine_route *route)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {
			.address_lo = route->address,
			.address_hi = route->address >> 32,
			.data = route->data,
		},
	};
}

/* Give the kernel the whole table anew; there is no smaller operation. With irq_lock. */
static int commit(struct kvm_engine *e)
{
	size_t max = KVM_PINS + e->nroutes;
	struct kvm_irq_routing *table = calloc(1, sizeof(*table) + max * sizeof(table->entries[0]));
	int r;

	if (!table)
		return -ENOMEM;
	for (unsigned i = 0; i < KVM_PINS; i++)
		if (e->pins[i].address)
			add_entry(table, i, &e->pins[i]);
	for (unsigned i = 0; i < e->nroutes; i++)
		if (e->routes[i].fd >= 0)
			add_entry(table, KVM_PINS + i, &e->routes[i].route);
	r = kvm_ioctl(e->vm, KVM_SET_GSI_ROUTING, table);
	free(table);
	return r;
}

/*
 * Edge-triggered pins need no route, since nobody waits for their EOI, and a
 * pin that is masked keeps its route: an interrupt that is in service must
 * still come back. Linux masks and unmasks level pins at each interrupt, so
 * this also spares most of the table's changes, which cost a grace period.
 */
void kvm_ioapic_routes(struct engine *engine, const struct engine_route *routes, unsigned n)
{
	struct kvm_engine *e = kvm_engine(engine);
	bool changed = false;

	assert(n <= KVM_PINS);
	pthread_mutex_lock(&e->irq_lock);
	for (unsigned i = 0; i < n; i++) {
		struct engine_route new = routes[i];

		if (!new.address)
			continue;
		if (!(new.data & MSI_DATA_LEVEL))
			new = (struct engine_route){ 0 };
		if (new.address == e->pins[i].address && new.data == e->pins[i].data)
			continue;
		e->pins[i] = new;
		changed = true;
	}
	if (changed)
		commit(e);
	pthread_mutex_unlock(&e->irq_lock);
}

int kvm_ioeventfd(struct engine *engine, uint64_t gpa, unsigned size, int eventfd, bool add, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	struct kvm_ioeventfd ioeventfd = {
		.addr = gpa,
		.len = size,
		.fd = eventfd,
		.flags = add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};
	int r;

	if (!size && !e->caps.any_length)
		return -ENOTSUP;
	r = kvm_ioctl(e->vm, KVM_IOEVENTFD, &ioeventfd);
	return r < 0 ? err_set_errno(err, -r, "doorbell at 0x%llx", (unsigned long long)gpa) : 0;
}

static struct kvm_route *irqfd_find(struct kvm_engine *e, int fd)
{
	for (unsigned i = 0; i < e->nroutes; i++)
		if (e->routes[i].fd == fd)
			return &e->routes[i];
	return NULL;
}

static struct kvm_route *irqfd_new(struct kvm_engine *e)
{
	struct kvm_route *free_one = irqfd_find(e, -1);
	unsigned n = e->nroutes;

	if (free_one)
		return free_one;
	if (KVM_PINS + n >= e->caps.max_routes)
		return NULL;
	free_one = reallocarray(e->routes, n + 1, sizeof(*free_one));
	if (!free_one)
		return NULL;
	e->routes = free_one;
	e->routes[n].fd = -1;
	e->nroutes++;
	return &e->routes[n];
}

static int irqfd_bind(struct kvm_engine *e, const struct kvm_route *route, int fd, uint32_t flags)
{
	struct kvm_irqfd irqfd = { .fd = fd, .gsi = KVM_PINS + (route - e->routes), .flags = flags };

	return kvm_ioctl(e->vm, KVM_IRQFD, &irqfd);
}

static int irqfd_add(struct kvm_engine *e, int eventfd, struct engine_route route)
{
	struct kvm_route *irqfd = irqfd_find(e, eventfd);
	bool bound = irqfd != NULL;
	int r;

	if (!irqfd)
		irqfd = irqfd_new(e);
	if (!irqfd)
		return -ENOSPC;
	irqfd->fd = eventfd;
	irqfd->route = route;
	r = commit(e);
	if (!r && !bound)
		r = irqfd_bind(e, irqfd, eventfd, 0);
	if (r < 0 && !bound)
		irqfd->fd = -1;
	return r;
}

static int irqfd_remove(struct kvm_engine *e, int eventfd)
{
	struct kvm_route *irqfd = irqfd_find(e, eventfd);

	if (!irqfd)
		return -ENOENT;
	irqfd_bind(e, irqfd, eventfd, KVM_IRQFD_FLAG_DEASSIGN);
	irqfd->fd = -1; /* its route stays in the kernel's table until the next commit, with nothing behind it */
	return 0;
}

/* Adding a descriptor that is there already changes its message. */
int kvm_irqfd(struct engine *engine, int eventfd, uint64_t address, uint32_t data, bool add, struct err *err)
{
	struct kvm_engine *e = kvm_engine(engine);
	int r;

	pthread_mutex_lock(&e->irq_lock);
	if (add)
		r = irqfd_add(e, eventfd, (struct engine_route){ .address = address, .data = data });
	else
		r = irqfd_remove(e, eventfd);
	pthread_mutex_unlock(&e->irq_lock);
	return r < 0 ? err_set_errno(err, -r, "interrupt descriptor %d", eventfd) : 0;
}
