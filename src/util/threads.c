/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/threads.h"

#include <stddef.h>

static void (*on_begin)(enum thread_kind kind);

void threads_on_begin(void (*fn)(enum thread_kind kind))
{
	on_begin = fn;
}

void thread_begin(enum thread_kind kind)
{
	if (on_begin)
		on_begin(kind);
}
