/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a network card's driver asks for: which frames, in which queues, with which offloads (Virtio 1.2 §5.1.6.5). */
#include <string.h>

#include "device/virtio_net_int.h"

/* ---- Filters -------------------------------------------------------------- */

static bool in_table(const struct virtio_net *s, const uint8_t *mac, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		if (!memcmp(s->macs[i], mac, 6))
			return true;
	return false;
}

/* Is the frame for the guest? `h` are its first bytes. */
bool net_wanted(const struct virtio_net *s, const uint8_t *h, size_t len)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (len < 14)
		return false;
	if (virtio_has(&s->v, F_CTRL_VLAN) && len >= 16 && h[12] == 0x81 && h[13] == 0x00) {
		unsigned vlan = (h[14] << 8 | h[15]) & 0xfff;

		if (!(s->vlans[vlan / 8] & 1 << (vlan % 8)))
			return false;
	}
	if (s->mode[MODE_PROMISC])
		return true;
	if (!memcmp(h, broadcast, 6))
		return !s->mode[MODE_NOBCAST];
	if (h[0] & 1)
		return !s->mode[MODE_NOMULTI] && (s->mode[MODE_ALLMULTI] || s->multi_overflow ||
						  in_table(s, h, s->nuni, s->nmulti));
	return !s->mode[MODE_NOUNI] && (s->mode[MODE_ALLUNI] || s->uni_overflow || !memcmp(h, s->mac, 6) ||
					in_table(s, h, 0, s->nuni));
}

void net_filters_reset(struct virtio_net *s)
{
	/* Promiscuous until the driver knows better. */
	memset(s->mode, 0, sizeof(s->mode));
	s->mode[MODE_PROMISC] = true;
	s->nuni = s->nmulti = 0;
	s->uni_overflow = s->multi_overflow = false;
	memset(s->vlans, 0, sizeof(s->vlans));
	memcpy(s->mac, s->mac_given, 6);
}

/* ---- What the back end is told ---------------------------------------------- */

void net_set_offload(struct virtio_net *s)
{
	unsigned flags = 0;

	if (!s->netdev->ops->set_offload)
		return;
	flags |= s->offloads & F_GUEST_CSUM ? NETDEV_CSUM : 0;
	flags |= s->offloads & F_GUEST_TSO4 ? NETDEV_TSO4 : 0;
	flags |= s->offloads & F_GUEST_TSO6 ? NETDEV_TSO6 : 0;
	flags |= s->offloads & F_GUEST_ECN ? NETDEV_ECN : 0;
	flags |= s->offloads & F_GUEST_UFO ? NETDEV_UFO : 0;
	s->netdev->ops->set_offload(s->netdev, flags);
}

static void tell_queues(void *arg)
{
	struct virtio_net *s = arg;

	pthread_mutex_lock(&s->lock);
	s->queues_due = false;
	s->netdev->ops->set_queues(s->netdev, s->pairs);
	pthread_mutex_unlock(&s->lock);
}

/* Lock held, any thread. With the next call of the loop, where the back end's callbacks are. */
void net_set_pairs(struct virtio_net *s, unsigned pairs)
{
	s->pairs = pairs;
	if (s->npairs > 1 && s->netdev->ops->set_queues && !s->queues_due)
		s->queues_due = !loop_post(s->v.loop, tell_queues, s);
}

void net_forget_calls(struct virtio_net *s)
{
	if (s->v.loop)
		loop_unpost(s->v.loop, tell_queues, s);
}

/* ---- Control queue (§5.1.6.5) --------------------------------------------- */

enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_ANNOUNCE = 3, CTRL_MQ = 4, CTRL_OFFLOADS = 5 };

static bool ctrl_rx(struct virtio_net *s, uint8_t cmd, const uint8_t *data, size_t len)
{
	if (!virtio_has(&s->v, cmd <= MODE_ALLMULTI ? F_CTRL_RX : F_CTRL_RX_EXTRA) || cmd >= MODES || len < 1)
		return false;
	s->mode[cmd] = data[0];
	return true;
}

/* One of the two tables: the number of bytes it takes, 0 if it is cut off. */
static size_t mac_table(struct virtio_net *s, const uint8_t *data, size_t len, unsigned at, uint32_t *n, bool *overflow)
{
	uint32_t entries;

	if (len < 4)
		return 0;
	memcpy(&entries, data, 4);
	if (entries > (len - 4) / 6)
		return 0;
	*overflow = entries > NET_MACS - at;
	*n = *overflow ? 0 : entries;
	memcpy(s->macs + at, data + 4, *n * 6);
	return 4 + (size_t)entries * 6;
}

static bool ctrl_mac(struct virtio_net *s, uint8_t cmd, const uint8_t *data, size_t len)
{
	size_t used;

	if (cmd == 1) {
		if (!virtio_has(&s->v, F_CTRL_MAC_ADDR) || len < 6)
			return false;
		memcpy(s->mac, data, 6);
		return true;
	}
	if (cmd != 0 || !virtio_has(&s->v, F_CTRL_RX))
		return false;
	s->nuni = s->nmulti = 0;
	used = mac_table(s, data, len, 0, &s->nuni, &s->uni_overflow);
	return used && mac_table(s, data + used, len - used, s->nuni, &s->nmulti, &s->multi_overflow);
}

static bool ctrl_vlan(struct virtio_net *s, uint8_t cmd, const uint8_t *data, size_t len)
{
	unsigned vlan = len >= 2 ? data[0] | data[1] << 8 : 4096;

	if (!virtio_has(&s->v, F_CTRL_VLAN) || vlan >= 4096 || cmd > 1)
		return false;
	if (cmd == 0)
		s->vlans[vlan / 8] |= 1 << (vlan % 8);
	else
		s->vlans[vlan / 8] &= ~(1 << (vlan % 8));
	return true;
}

static uint16_t le16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

static bool is_receiver(const struct virtio_net *s, unsigned queue)
{
	return !(queue & 1) && queue / 2 < s->npairs;
}

/* struct virtio_net_rss_config (§5.1.6.5.6.4): its two arrays have the lengths that fields before them say. */
static bool ctrl_rss(struct virtio_net *s, const uint8_t *data, size_t len)
{
	uint16_t table[RSS_TABLE], mask, other, pairs;
	uint32_t types;
	size_t n, at;

	if (!virtio_has(&s->v, F_RSS) || len < 8)
		return false;
	memcpy(&types, data, 4);
	mask = le16(data + 4);
	other = le16(data + 6) * 2u; /* receive queues are counted by themselves */
	n = (size_t)mask + 1;
	at = 8 + 2 * n;
	if (types & ~RSS_TYPES || n & mask || n > RSS_TABLE || len < at + 3 || !is_receiver(s, other))
		return false;
	for (size_t i = 0; i < n; i++) {
		table[i] = le16(data + 8 + 2 * i);
		if (!is_receiver(s, table[i] * 2u))
			return false;
	}
	pairs = le16(data + at);
	/* A shorter key than the largest is followed by zeroes. */
	if (!pairs || pairs > s->npairs || data[at + 2] > RSS_KEY || len < at + 3 + data[at + 2])
		return false;
	memset(s->rss_key, 0, RSS_KEY);
	memcpy(s->rss_key, data + at + 3, data[at + 2]);
	memcpy(s->rss_table, table, n * sizeof(table[0]));
	s->rss_types = types;
	s->rss_mask = mask;
	s->rss_other = other / 2;
	s->rss = true;
	net_set_pairs(s, pairs);
	return true;
}

static bool ctrl_mq(struct virtio_net *s, uint8_t cmd, const uint8_t *data, size_t len)
{
	unsigned pairs = len >= 2 ? le16(data) : 0;

	if (cmd == 1)
		return ctrl_rss(s, data, len);
	if (cmd || !virtio_has(&s->v, F_MQ) || !pairs || pairs > s->npairs)
		return false;
	s->rss = false;
	net_set_pairs(s, pairs);
	return true;
}

static bool ctrl_offloads(struct virtio_net *s, uint8_t cmd, const uint8_t *data, size_t len)
{
	uint64_t wanted;

	if (cmd || !virtio_has(&s->v, F_CTRL_GUEST_OFFLOADS) || len < 8)
		return false;
	memcpy(&wanted, data, 8);
	if (wanted & ~(s->v.features & F_SWITCHABLE))
		return false;
	s->offloads = wanted;
	net_set_offload(s);
	return true;
}

static bool command(struct virtio_net *s, const uint8_t *data, size_t len)
{
	if (len < 2)
		return false;
	switch (data[0]) {
	case CTRL_RX:
		return ctrl_rx(s, data[1], data + 2, len - 2);
	case CTRL_MAC:
		return ctrl_mac(s, data[1], data + 2, len - 2);
	case CTRL_VLAN:
		return ctrl_vlan(s, data[1], data + 2, len - 2);
	case CTRL_ANNOUNCE:
		if (data[1] || !virtio_has(&s->v, F_GUEST_ANNOUNCE))
			return false;
		__atomic_and_fetch(&s->config.status, ~STATUS_ANNOUNCE, __ATOMIC_RELEASE);
		return true;
	case CTRL_MQ:
		return ctrl_mq(s, data[1], data + 2, len - 2);
	case CTRL_OFFLOADS:
		return ctrl_offloads(s, data[1], data + 2, len - 2);
	}
	return false;
}

void net_run_ctrl(struct virtio_net *s)
{
	struct virtqueue *vq = &s->vq[net_ctrl_index(s)];
	struct virtq_elem *e = &s->ctrl;

	do {
		virtq_ignore(vq);
		while (virtq_pop(vq, e) > 0) {
			uint8_t data[NET_CTRL_MAX], ack;
			size_t len = iov_read(e->iov, e->nout, 0, data, sizeof(data));

			/* 0 is OK, 1 is not. A command of absurd length is not. */
			ack = e->out_len > sizeof(data) || !command(s, data, len);
			virtq_push(vq, e, iov_write(e->iov + e->nout, e->nin, 0, &ack, 1));
		}
	} while (virtq_wait(vq));
	virtio_notify(&s->v, vq);
}
