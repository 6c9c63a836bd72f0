/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every device test includes. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_machine.h"

#define US 1000ull
#define MS 1000000ull
#define SEC 1000000000ull

static inline void set_line(struct fake_machine *f, unsigned n, bool level)
{
	struct irq irq = machine_irq(f->m, n);

	irq_set(&irq, level);
}

static inline int fake_ack(struct fake_machine *f)
{
	return f->m->pic_ack(f->m->pic_opaque);
}

/* Messages that arrived since the last call. */
static inline unsigned fake_msis(struct fake_machine *f)
{
	unsigned n = f->engine->msis - f->engine->taken;

	fake_msi_clear(f);
	return n;
}
