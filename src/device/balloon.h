/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory balloon's other side: what the owner of the machine asks and learns. Main loop's thread,
 * "virtio-balloon-pci" devices only. */
#pragma once
#include <stdint.h>

#include "machine/device.h"

/* Ask the guest to live with `bytes` of memory (of the machine's, rounded to pages; more than it has: all of it). It
 * does what it likes. */
void virtio_balloon_set(struct device *d, uint64_t bytes);
/* Memory the guest has left itself: machine's memory less the balloon. */
uint64_t virtio_balloon_actual(struct device *d);
/* Called in the main loop's thread after the guest changed it. */
void virtio_balloon_set_callback(struct device *d, void (*fn)(void *opaque, uint64_t actual), void *opaque);

/* What the guest reported last, UINT64_MAX where it does not say (Virtio 1.2 §5.5.6.4). Bytes, counts. */
struct balloon_stats {
	uint64_t swap_in, swap_out, major_faults, minor_faults, free, total, available, caches, hugetlb_alloc,
		hugetlb_fail;
	uint64_t when; /* vclock time of the report, 0: there is none */
};
void virtio_balloon_get_stats(struct device *d, struct balloon_stats *s);
/* Ask for a report every `seconds`; 0: never (the default). */
void virtio_balloon_poll(struct device *d, unsigned seconds);
/* Bytes given back to the host through inflation and free-page reporting since the start. */
uint64_t virtio_balloon_returned(struct device *d);
