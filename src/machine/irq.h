/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An interrupt line, seen from the device that drives it. Levels, not edges: a sink that is edge-triggered looks for the change. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct irq {
	void (*set)(void *opaque, unsigned n, bool level); /* any thread */
	void *opaque;
	unsigned n;
};

/* Drive the line. A line that is not connected (set == NULL) swallows it. */
static inline void irq_set(const struct irq *irq, bool level)
{
	if (irq->set)
		irq->set(irq->opaque, irq->n, level);
}
