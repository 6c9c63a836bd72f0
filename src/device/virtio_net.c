/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net (Virtio 1.2 §5.1) over a network back end (machine/backend.h).
 *
 * Both directions and the control queue run in the thread of the back end's
 * loop. `lock` guards queues and filters; the device's lock guards the
 * configuration space. Frames are copied once, straight between the back end's
 * and the guest's buffers, and nothing stays in flight between two callbacks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/net_csum.h"
#include "device/virtio_pci.h"
#include "machine/backend.h"

#define NET_QUEUE_SIZE 256
#define NET_FRAME_MAX 65550u
#define NET_RX_BUFFERS 64   /* one frame is merged from at most this many */
#define NET_TX_BATCH 128    /* frames sent before the loop gets its turn */
#define NET_MACS 64
#define NET_CTRL_MAX 4096   /* longest control command */

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MTU (1ull << 3)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_TSO6 (1ull << 8)
#define F_HOST_TSO4 (1ull << 11)
#define F_HOST_TSO6 (1ull << 12)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_RX (1ull << 18)
#define F_CTRL_VLAN (1ull << 19)
#define F_CTRL_RX_EXTRA (1ull << 20)
#define F_GUEST_ANNOUNCE (1ull << 21)
#define F_CTRL_MAC_ADDR (1ull << 23)

enum { RX, TX, CTRL, QUEUES };
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };

/* §5.1.6; num_buffers is always there with VERSION_1. */
struct net_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_hdr) == 12, "layout of Virtio 1.2 §5.1.6");
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2 };

struct net_config {
	uint8_t mac[6];
	uint16_t status, max_pairs, mtu;
};

/* RX mode, one bit for each command of class RX (§5.1.6.5.1). */
enum { MODE_PROMISC, MODE_ALLMULTI, MODE_ALLUNI, MODE_NOMULTI, MODE_NOUNI, MODE_NOBCAST, MODES };

struct virtio_net {
	struct virtio_device v;
	struct virtqueue vq[QUEUES];
	struct net_config config;

	/* Properties */
	struct netdev *netdev;
	char *mac_text;
	uint32_t mtu;
	bool csum;

	uint8_t mac_given[6];
	bool announce_due; /* a state was loaded: the network must learn where the guest is now */

	pthread_mutex_t lock; /* the rest, and vq[] */
	struct virtq_elem rx[NET_RX_BUFFERS], tx, ctrl;
	bool rx_waiting;      /* the back end holds a frame and waits for rx_ready() */
	bool tx_waiting;      /* the back end is busy: writable() follows */

	/* Filters */
	uint8_t mac[6];
	bool mode[MODES];
	uint8_t macs[NET_MACS][6]; /* unicast first */
	uint32_t nuni, nmulti;
	bool uni_overflow, multi_overflow;
	uint8_t vlans[4096 / 8];
};

struct virtio_net_pci {
	struct virtio_pci proxy;
	struct virtio_net net;
};

static struct virtio_net *net_of(struct virtio_device *v)
{
	return (struct virtio_net *)v;
}

/* ---- Filters -------------------------------------------------------------- */

static bool in_table(const struct virtio_net *s, const uint8_t *mac, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		if (!memcmp(s->macs[i], mac, 6))
			return true;
	return false;
}

/* Is the frame for the guest? `h` are its first bytes. */
static bool wanted(const struct virtio_net *s, const uint8_t *h, size_t len)
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

static void filters_reset(struct virtio_net *s)
{
	/* Promiscuous until the driver knows better. */
	memset(s->mode, 0, sizeof(s->mode));
	s->mode[MODE_PROMISC] = true;
	s->nuni = s->nmulti = 0;
	s->uni_overflow = s->multi_overflow = false;
	memset(s->vlans, 0, sizeof(s->vlans));
	memcpy(s->mac, s->mac_given, 6);
}

/* ---- Back end to guest ---------------------------------------------------- */

/* Buffers for `total` bytes: their number; 0: not enough yet, a notification follows; -1: the frame can't be had. Lock
 * held. */
static int take_buffers(struct virtio_net *s, size_t total)
{
	struct virtqueue *vq = &s->vq[RX];
	bool merge = virtio_has(&s->v, F_MRG_RXBUF);
	uint64_t room = 0;
	int n = 0, ret = 1;

	while (room < total) {
		if (n == NET_RX_BUFFERS || (n && !merge)) {
			ret = -1; /* the driver's buffers are too small for it */
			break;
		}
		ret = virtq_pop(vq, &s->rx[n]);
		if (ret > 0)
			room += s->rx[n++].in_len;
		else if (ret < 0 || !virtq_wait(vq))
			break; /* asked for a notification behind what was popped, before it is given back */
	}
	if (room >= total)
		return n;
	while (n)
		virtq_unpop(vq, &s->rx[--n]);
	return ret < 0 ? -1 : 0;
}

/* Copy header and frame into the first `n` buffers and return them together. */
static void put_frame(struct virtio_net *s, int n, const struct net_hdr *hdr, const struct iovec *iov, int niov,
		      size_t skip, size_t len)
{
	struct virtqueue *vq = &s->vq[RX];
	const struct iovec *src = iov;
	size_t at = skip;

	for (int i = 0; i < n; i++) {
		struct virtq_elem *e = &s->rx[i];
		size_t done = i ? 0 : iov_write(e->iov + e->nout, e->nin, 0, hdr, sizeof(*hdr));

		while (done < e->in_len && len) {
			size_t part;

			if (at >= src->iov_len) {
				at -= src->iov_len;
				src++;
				continue;
			}
			part = src->iov_len - at < len ? src->iov_len - at : len;
			part = iov_write(e->iov + e->nout, e->nin, done, (uint8_t *)src->iov_base + at, part);
			done += part;
			at += part;
			len -= part;
		}
		virtq_fill(vq, e, done);
	}
	virtq_flush(vq);
	virtio_notify(&s->v, vq);
}

static bool net_receive(void *opaque, const struct iovec *iov, int niov, size_t len)
{
	struct virtio_net *s = opaque;
	struct virtqueue *vq = &s->vq[RX];
	size_t skip = s->netdev->vnet_hdr ? sizeof(struct net_hdr) : 0;
	struct net_hdr hdr = { 0 };
	uint8_t head[16] = { 0 };
	bool taken = true;
	int n = 0;

	if (len < skip || len - skip > NET_FRAME_MAX)
		return true;
	len -= skip;
	iov_read(iov, niov, 0, &hdr, skip);
	iov_read(iov, niov, skip, head, sizeof(head));
	pthread_mutex_lock(&s->lock);
	if (__atomic_load_n(&s->v.stopped, __ATOMIC_ACQUIRE)) {
		taken = false; /* the back end keeps it until the guest runs */
	} else if (vq->enabled && virtio_may_run(&s->v) && wanted(s, head, len)) {
		n = take_buffers(s, len + sizeof(hdr));
		taken = n;
	}
	s->rx_waiting = !taken;
	if (n > 0) {
		if (!skip && virtio_has(&s->v, F_GUEST_CSUM) && csum_frame_valid(iov, niov, len))
			hdr.flags = HDR_DATA_VALID;
		hdr.num_buffers = n;
		virtq_ignore(vq);
		put_frame(s, n, &hdr, iov, niov, skip, len);
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

/* ---- Guest to back end ---------------------------------------------------- */

/* The driver left the checksum to us (§5.1.6.2): a copy of the headers with it, then the rest. False: it makes no
 * sense. */
static bool send_with_csum(struct virtio_net *s, const struct net_hdr *hdr, struct iovec *iov, uint16_t n, size_t len,
			   bool *sent)
{
	size_t field = hdr->csum_start + hdr->csum_offset, copied = field + 2;
	uint8_t head[256];
	struct iovec all[VIRTQ_MAX + 1];
	uint16_t sum;

	if (copied > len || copied > sizeof(head))
		return false;
	sum = csum_finish(csum_iov(iov, n, hdr->csum_start, len - hdr->csum_start));
	/* UDP knows "no checksum": its all-zero sum is written as all ones. Equal for TCP. */
	if (!sum)
		sum = 0xffff;
	iov_read(iov, n, 0, head, copied);
	head[field] = sum >> 8;
	head[field + 1] = sum;
	iov_skip(&iov, &n, copied);
	all[0] = (struct iovec){ head, copied };
	memcpy(all + 1, iov, n * sizeof(*iov));
	*sent = s->netdev->ops->send(s->netdev, all, n + 1, len);
	return true;
}

/* One frame. False: the back end is busy, try it again later. */
static bool send_frame(struct virtio_net *s, struct virtq_elem *e)
{
	struct netdev *nd = s->netdev;
	struct iovec *iov = e->iov;
	uint16_t n = e->nout;
	size_t len = e->out_len;
	struct net_hdr hdr;
	bool sent = true;

	if (iov_read(iov, n, 0, &hdr, sizeof(hdr)) != sizeof(hdr) || len - sizeof(hdr) > NET_FRAME_MAX ||
	    len == sizeof(hdr))
		return true; /* dropped, as every frame that is too long or too short */
	if (!__atomic_load_n(&nd->up, __ATOMIC_RELAXED))
		return true;
	if (nd->vnet_hdr)
		return nd->ops->send(nd, iov, n, len);
	iov_skip(&iov, &n, sizeof(hdr));
	len -= sizeof(hdr);
	if (hdr.flags & HDR_NEEDS_CSUM && virtio_has(&s->v, F_CSUM))
		return !send_with_csum(s, &hdr, iov, n, len, &sent) || sent;
	return nd->ops->send(nd, iov, n, len);
}

/* Lock held. True: there is more, but others want the thread. */
static bool run_tx(struct virtio_net *s)
{
	struct virtqueue *vq = &s->vq[TX];
	unsigned n = 0;

	if (!vq->enabled || !virtio_may_run(&s->v) || s->tx_waiting)
		return false;
	do {
		virtq_ignore(vq);
		while (n < NET_TX_BATCH && virtq_pop(vq, &s->tx) > 0) {
			if (!send_frame(s, &s->tx)) {
				virtq_unpop(vq, &s->tx);
				s->tx_waiting = true;
				break;
			}
			virtq_fill(vq, &s->tx, 0);
			n++;
		}
		virtq_flush(vq);
	} while (n < NET_TX_BATCH && !s->tx_waiting && virtq_wait(vq));
	virtio_notify(&s->v, vq);
	return n == NET_TX_BATCH && !s->tx_waiting;
}

static void net_writable(void *opaque)
{
	struct virtio_net *s = opaque;
	bool more;

	pthread_mutex_lock(&s->lock);
	s->tx_waiting = false;
	more = run_tx(s);
	pthread_mutex_unlock(&s->lock);
	if (more)
		virtio_kick(&s->v, &s->vq[TX]);
}

/* ---- Control queue (§5.1.6.5) --------------------------------------------- */

enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_ANNOUNCE = 3 };

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
	}
	return false;
}

static void run_ctrl(struct virtio_net *s)
{
	struct virtqueue *vq = &s->vq[CTRL];
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

/* ---- Device --------------------------------------------------------------- */

static void net_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_net *s = net_of(v);
	bool rx_ready = false, more = false;

	pthread_mutex_lock(&s->lock);
	if (vq->enabled && virtio_may_run(v)) {
		if (vq->index == RX)
			rx_ready = s->rx_waiting;
		else if (vq->index == TX)
			more = run_tx(s);
		else
			run_ctrl(s);
	}
	pthread_mutex_unlock(&s->lock);
	/* Calls back into net_receive(). */
	if (rx_ready)
		s->netdev->ops->rx_ready(s->netdev);
	if (more)
		virtio_kick(v, vq);
}

static void net_link(void *opaque, bool up)
{
	struct virtio_net *s = opaque;

	pthread_mutex_lock(&s->v.dev->lock);
	if (up)
		__atomic_or_fetch(&s->config.status, STATUS_LINK_UP, __ATOMIC_RELEASE);
	else
		__atomic_and_fetch(&s->config.status, ~STATUS_LINK_UP, __ATOMIC_RELEASE);
	virtio_config_changed(&s->v);
	pthread_mutex_unlock(&s->v.dev->lock);
	/* A frame that the guest was asked to wait with goes nowhere now. */
	net_writable(s);
}

static uint64_t net_features(struct virtio_device *v)
{
	struct virtio_net *s = net_of(v);
	uint64_t f = F_MAC | F_STATUS | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA |
		     F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR;

	if (s->config.mtu)
		f |= F_MTU;
	if (s->csum)
		f |= F_CSUM | F_GUEST_CSUM;
	if (s->csum && s->netdev->vnet_hdr)
		f |= F_HOST_TSO4 | F_HOST_TSO6 | F_GUEST_TSO4 | F_GUEST_TSO6;
	return f;
}

static void set_offload(struct virtio_net *s)
{
	unsigned flags = 0;

	if (!s->netdev->ops->set_offload)
		return;
	flags |= virtio_has(&s->v, F_GUEST_CSUM) ? NETDEV_CSUM : 0;
	flags |= virtio_has(&s->v, F_GUEST_TSO4) ? NETDEV_TSO4 : 0;
	flags |= virtio_has(&s->v, F_GUEST_TSO6) ? NETDEV_TSO6 : 0;
	s->netdev->ops->set_offload(s->netdev, flags);
}

/* Which features need which others (§5.1.3.1). */
static bool net_accept(struct virtio_device *v)
{
	uint64_t f = v->features;

	if ((f & (F_GUEST_TSO4 | F_GUEST_TSO6) && !(f & F_GUEST_CSUM)) ||
	    (f & (F_HOST_TSO4 | F_HOST_TSO6) && !(f & F_CSUM)))
		return false;
	if (f & (F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR) && !(f & F_CTRL_VQ))
		return false;
	set_offload(net_of(v));
	return true;
}

static void net_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_net *s = net_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	pthread_mutex_unlock(&s->lock);
}

static void net_reset(struct virtio_device *v)
{
	struct virtio_net *s = net_of(v);
	bool had;

	pthread_mutex_lock(&s->lock);
	filters_reset(s);
	had = s->netdev->vnet_hdr && v->features;
	pthread_mutex_unlock(&s->lock);
	__atomic_and_fetch(&s->config.status, ~STATUS_ANNOUNCE, __ATOMIC_RELEASE);
	s->announce_due = false;
	memcpy(s->config.mac, s->mac_given, 6);
	if (had) {
		v->features = 0;
		set_offload(s);
	}
}

static void net_stopped(struct virtio_device *v, bool stopped)
{
	struct virtio_net *s = net_of(v);

	/* Once around: who was inside is out, and who comes sees v->stopped. */
	pthread_mutex_lock(&s->lock);
	pthread_mutex_unlock(&s->lock);
	if (!stopped && s->announce_due && virtio_has(v, F_GUEST_ANNOUNCE)) {
		__atomic_or_fetch(&s->config.status, STATUS_ANNOUNCE, __ATOMIC_RELEASE);
		virtio_config_changed(v);
	}
	if (!stopped)
		s->announce_due = false;
}

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.own_lock = true,
	.features = net_features,
	.accept = net_accept,
	.kick = net_kick,
	.queue_off = net_queue_off,
	.reset = net_reset,
	.stopped = net_stopped,
};

static const struct netdev_front net_front = {
	.receive = net_receive,
	.writable = net_writable,
	.link = net_link,
};

static int parse_mac(const char *text, uint8_t mac[6], struct err *err)
{
	unsigned b[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || text[end])
		return err_set(err, EINVAL, "mac '%.40s' is not of the form 52:54:00:12:34:56", text);
	if (b[0] & 1)
		return err_set(err, EINVAL, "mac %s is a multicast address: the first byte must be even", text);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = b[i];
	return 0;
}

/* The same guest gets the same address at each start: a hash (FNV-1a) of its and the card's name. */
static void make_mac(const struct device *d, uint8_t mac[6])
{
	const char *names[2] = { d->machine->config.name ? d->machine->config.name : "", d->id };
	uint32_t h = 2166136261u;

	for (unsigned i = 0; i < 2; i++) {
		for (const char *c = names[i]; *c; c++)
			h = (h ^ (uint8_t)*c) * 16777619u;
		h = (h ^ '/') * 16777619u;
	}
	memcpy(mac, (const uint8_t[6]){ 0x52, 0x54, 0x00, h >> 16, h >> 8, h }, 6);
}

static void net_destroy(struct virtio_net *s)
{
	virtio_exit(&s->v);
	for (unsigned i = 0; i < NET_RX_BUFFERS; i++)
		virtq_elem_free(&s->rx[i]);
	virtq_elem_free(&s->tx);
	virtq_elem_free(&s->ctrl);
	pthread_mutex_destroy(&s->lock);
}

static int net_realize(struct device *d, struct err *err)
{
	struct virtio_net_pci *o = (struct virtio_net_pci *)d;
	struct virtio_net *s = &o->net;
	struct netdev *nd = s->netdev;
	int ret;

	if (!nd)
		return err_set(err, EINVAL, "property netdev is missing: a network card needs a network");
	if (nd->front)
		return err_set(err, EBUSY, "its network belongs to another card already");
	if (s->mac_text) {
		ret = parse_mac(s->mac_text, s->mac_given, err);
		if (ret)
			return ret;
	} else {
		make_mac(d, s->mac_given);
	}
	memcpy(s->config.mac, s->mac_given, 6);
	s->config.status = nd->up ? STATUS_LINK_UP : 0;
	s->config.max_pairs = 1;
	s->config.mtu = s->mtu ? s->mtu : nd->mtu;
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
	pthread_mutex_init(&s->lock, NULL);
	s->v.queue_lock = &s->lock;
	filters_reset(s);
	s->vq[RX].max = s->vq[TX].max = NET_QUEUE_SIZE;
	s->vq[CTRL].max = 64;
	ret = virtio_init(&s->v, &net_ops, d, s->vq, QUEUES, nd->loop ? nd->loop : d->machine->loop, err);
	if (!ret)
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x020000, err);
	if (ret) {
		net_destroy(s);
		return ret;
	}
	nd->front_opaque = s;
	nd->front = &net_front;
	return 0;
}

static void net_unrealize(struct device *d)
{
	struct virtio_net *s = &((struct virtio_net_pci *)d)->net;

	s->netdev->front = NULL;
	virtio_pci_unrealize(d);
	net_destroy(s);
}

static int net_loaded(void *obj, struct err *err)
{
	struct virtio_net *s = &((struct virtio_net_pci *)obj)->net;
	int ret = 0;

	if (s->nuni + s->nmulti > NET_MACS || s->nuni > NET_MACS) {
		s->nuni = s->nmulti = 0;
		ret = err_set(err, EINVAL, "its address tables are too long");
	}
	/* The link is this side's. */
	s->config.status = s->netdev->up ? STATUS_LINK_UP : 0;
	s->announce_due = true;
	s->rx_waiting = true; /* ask the back end once */
	s->tx_waiting = false;
	if (!ret)
		ret = virtio_loaded(&s->v, err);
	if (!ret)
		set_offload(s);
	return ret;
}

static const struct property net_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_net_pci),
	PROP_DEF_PTR(struct virtio_net_pci, net.netdev, "netdev", "the back end (struct netdev); stays the owner's"),
	PROP_DEF_STRING(struct virtio_net_pci, net.mac_text, "mac", NULL,
			"address; made from the guest's name unless given"),
	PROP_DEF_U32(struct virtio_net_pci, net.mtu, "mtu", "0", 0, 65535,
		     "MTU to tell the guest; 0: the back end's, if it has one"),
	PROP_DEF_BOOL(struct virtio_net_pci, net.csum, "csum", "on", "take checksums off the guest's hands"),
	{ 0 },
};

static const struct state_field net_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_net_pci, proxy, &virtio_pci_state),
	STATE_FIELD_STRUCT(struct virtio_net_pci, net.v, &virtio_device_state),
	STATE_ARRAY_STRUCT(struct virtio_net_pci, net.vq, &virtq_state),
	STATE_ARRAY_U8(struct virtio_net_pci, net.config.mac),
	STATE_ARRAY_U8(struct virtio_net_pci, net.mac),
	STATE_ARRAY_BOOL(struct virtio_net_pci, net.mode),
	STATE_FIELD_BYTES(struct virtio_net_pci, net.macs),
	STATE_FIELD_U32(struct virtio_net_pci, net.nuni),
	STATE_FIELD_U32(struct virtio_net_pci, net.nmulti),
	STATE_FIELD_BOOL(struct virtio_net_pci, net.uni_overflow),
	STATE_FIELD_BOOL(struct virtio_net_pci, net.multi_overflow),
	STATE_FIELD_BYTES(struct virtio_net_pci, net.vlans),
	STATE_END,
};
static const struct state_desc net_state = {
	.name = "virtio-net-pci", .version = 1, .fields = net_fields, .post_load = net_loaded,
};

const struct device_class virtio_net_class = {
	.name = "virtio-net-pci",
	.description = "network card (virtio)",
	.size = sizeof(struct virtio_net_pci),
	.props = net_props,
	.realize = net_realize,
	.unrealize = net_unrealize,
	.reset = virtio_pci_reset,
	.state = &net_state,
	.stopped = virtio_pci_stopped,
};
