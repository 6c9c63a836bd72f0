/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-net (Virtio 1.2 §5.1) over a network back end (machine/backend.h).
 *
 * All queues run in one thread: that of the back end's loop, or the card's own
 * where the back end goes along. `lock` guards queues and filters; the device's
 * lock guards the configuration space. Frames are copied once, straight between
 * the back end's and the guest's buffers, and nothing stays in flight between
 * two callbacks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/net_csum.h"
#include "device/virtio_net.h"
#include "device/virtio_net_int.h"

/* ---- Back end to guest ---------------------------------------------------- */

/* Buffers for `total` bytes: their number; 0: not enough yet, a notification follows; -1: the frame can't be had. Lock
 * held. */
static int take_buffers(struct virtio_net *s, struct virtqueue *vq, size_t total)
{
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
static void put_frame(struct virtio_net *s, struct virtqueue *vq, int n, const struct net_hdr *hdr, const struct iovec *iov,
		      int niov, size_t skip, size_t len)
{
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

/* The receive queue for a frame that came from queue `from` of the back end. */
static struct virtqueue *steer(struct virtio_net *s, unsigned from, const uint8_t *head, size_t len)
{
	uint32_t hash;

	if (!s->rss)
		return net_rx_queue(s, from < s->pairs ? from : 0);
	if (!rss_hash(s->rss_key, s->rss_types, head, len, &hash))
		return net_rx_queue(s, s->rss_other);
	return net_rx_queue(s, s->rss_table[hash & s->rss_mask]);
}

static bool net_receive(void *opaque, const struct iovec *iov, int niov, size_t len)
{
	struct net_pair *p = opaque;
	struct virtio_net *s = p->net;
	size_t skip = p->netdev->vnet_hdr ? sizeof(struct net_hdr) : 0;
	struct net_hdr hdr = { 0 };
	uint8_t head[64] = { 0 };
	struct virtqueue *vq;
	bool taken = true;
	int n = 0;

	if (len < skip || len - skip > NET_FRAME_MAX || __atomic_load_n(&s->unplugged, __ATOMIC_RELAXED))
		return true;
	len -= skip;
	iov_read(iov, niov, 0, &hdr, skip);
	iov_read(iov, niov, skip, head, sizeof(head));
	pthread_mutex_lock(&s->lock);
	vq = steer(s, p - s->pair, head, len < sizeof(head) ? len : sizeof(head));
	if (__atomic_load_n(&s->v.stopped, __ATOMIC_ACQUIRE)) {
		taken = false; /* the back end keeps it until the guest runs */
	} else if (vq->enabled && virtio_may_run(&s->v) && net_wanted(s, head, len)) {
		n = take_buffers(s, vq, len + sizeof(hdr));
		taken = n;
	}
	p->rx_waiting = taken ? -1 : vq->index;
	if (n > 0) {
		if (!skip && s->offloads & F_GUEST_CSUM && csum_frame_valid(iov, niov, len))
			hdr.flags = HDR_DATA_VALID;
		hdr.num_buffers = n;
		virtq_ignore(vq);
		put_frame(s, vq, n, &hdr, iov, niov, skip, len);
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

/* ---- Guest to back end ---------------------------------------------------- */

/* The driver left the checksum to us (§5.1.6.2): a copy of the headers with it, then the rest. False: it makes no
 * sense. */
static bool send_with_csum(struct netdev *nd, const struct net_hdr *hdr, struct iovec *iov, uint16_t n, size_t len,
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
	*sent = nd->ops->send(nd, all, n + 1, len);
	return true;
}

/* One frame. False: the back end is busy, try it again later. */
static bool send_frame(struct virtio_net *s, struct netdev *nd, struct virtq_elem *e)
{
	struct iovec *iov = e->iov;
	uint16_t n = e->nout;
	size_t len = e->out_len;
	struct net_hdr hdr;
	bool sent = true;

	if (iov_read(iov, n, 0, &hdr, sizeof(hdr)) != sizeof(hdr) || len - sizeof(hdr) > NET_FRAME_MAX ||
	    len == sizeof(hdr))
		return true; /* dropped, as every frame that is too long or too short */
	if (!__atomic_load_n(&nd->up, __ATOMIC_RELAXED) || __atomic_load_n(&s->unplugged, __ATOMIC_RELAXED))
		return true;
	if (nd->vnet_hdr)
		return nd->ops->send(nd, iov, n, len);
	iov_skip(&iov, &n, sizeof(hdr));
	len -= sizeof(hdr);
	if (hdr.flags & HDR_NEEDS_CSUM && virtio_has(&s->v, F_CSUM))
		return !send_with_csum(nd, &hdr, iov, n, len, &sent) || sent;
	return nd->ops->send(nd, iov, n, len);
}

/* Lock held. True: there is more, but others want the thread. */
static bool run_tx(struct virtio_net *s, unsigned pair)
{
	struct net_pair *p = &s->pair[pair];
	struct virtqueue *vq = net_tx_queue(s, pair);
	unsigned n = 0;

	if (!vq->enabled || !virtio_may_run(&s->v) || p->tx_waiting)
		return false;
	do {
		virtq_ignore(vq);
		while (n < NET_TX_BATCH && virtq_pop(vq, &s->tx) > 0) {
			if (!send_frame(s, p->netdev, &s->tx)) {
				virtq_unpop(vq, &s->tx);
				p->tx_waiting = true;
				break;
			}
			virtq_fill(vq, &s->tx, 0);
			n++;
		}
		virtq_flush(vq);
	} while (n < NET_TX_BATCH && !p->tx_waiting && virtq_wait(vq));
	virtio_notify(&s->v, vq);
	return n == NET_TX_BATCH && !p->tx_waiting;
}

static void net_writable(void *opaque)
{
	struct net_pair *p = opaque;
	struct virtio_net *s = p->net;
	bool more;

	pthread_mutex_lock(&s->lock);
	p->tx_waiting = false;
	more = run_tx(s, p - s->pair);
	pthread_mutex_unlock(&s->lock);
	if (more)
		virtio_kick(&s->v, net_tx_queue(s, p - s->pair));
}

/* ---- Device --------------------------------------------------------------- */

static void net_kick(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_net *s = virtio_net_of(v);
	unsigned pair = vq->index / 2, ready = 0;
	bool more = false;

	pthread_mutex_lock(&s->lock);
	if (vq->enabled && virtio_may_run(v)) {
		if (vq->index == net_ctrl_index(s))
			net_run_ctrl(s);
		else if (vq->index & 1)
			more = pair < s->npairs && run_tx(s, pair);
		else
			for (unsigned i = 0; i < s->npairs; i++)
				ready |= (s->pair[i].rx_waiting == vq->index) << i;
	}
	pthread_mutex_unlock(&s->lock);
	/* Calls back into net_receive(). */
	for (unsigned i = 0; ready >> i; i++)
		if (ready >> i & 1)
			s->pair[i].netdev->ops->rx_ready(s->pair[i].netdev);
	if (more)
		virtio_kick(v, vq);
}

/* The device's lock is held. */
static void show_link(struct virtio_net *s)
{
	if (s->netdev->up && !s->unplugged)
		__atomic_or_fetch(&s->config.status, STATUS_LINK_UP, __ATOMIC_RELEASE);
	else
		__atomic_and_fetch(&s->config.status, ~STATUS_LINK_UP, __ATOMIC_RELEASE);
}

static void net_link(void *opaque, bool up)
{
	struct net_pair *p = opaque;
	struct virtio_net *s = p->net;

	pthread_mutex_lock(&s->v.dev->lock);
	show_link(s);
	virtio_config_changed(&s->v);
	pthread_mutex_unlock(&s->v.dev->lock);
	/* A frame that the guest was asked to wait with goes nowhere now. */
	net_writable(p);
}

void virtio_net_set_link(struct device *d, bool up)
{
	struct virtio_net *s = &((struct virtio_net_pci *)d)->net;

	pthread_mutex_lock(&d->lock);
	if (s->unplugged == up) {
		__atomic_store_n(&s->unplugged, !up, __ATOMIC_RELAXED);
		show_link(s);
		virtio_config_changed(&s->v);
	}
	pthread_mutex_unlock(&d->lock);
}

static uint64_t net_features(struct virtio_device *v)
{
	struct virtio_net *s = virtio_net_of(v);
	uint64_t f = F_MAC | F_STATUS | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA |
		     F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR;

	if (s->config.mtu)
		f |= F_MTU;
	if (s->csum)
		f |= F_CSUM | F_GUEST_CSUM;
	if (s->csum && s->netdev->vnet_hdr)
		f |= F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_CTRL_GUEST_OFFLOADS;
	if (s->csum && s->netdev->ufo)
		f |= F_HOST_UFO | F_GUEST_UFO;
	if (s->npairs > 1)
		f |= F_MQ | F_RSS;
	return f;
}

/* Which features need which others (§5.1.3.1). */
static bool net_accept(struct virtio_device *v)
{
	struct virtio_net *s = virtio_net_of(v);
	uint64_t f = v->features;

	if ((f & (F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_UFO) && !(f & F_GUEST_CSUM)) ||
	    (f & (F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_UFO) && !(f & F_CSUM)) ||
	    (f & F_GUEST_ECN && !(f & (F_GUEST_TSO4 | F_GUEST_TSO6))) || (f & F_HOST_ECN && !(f & (F_HOST_TSO4 | F_HOST_TSO6))))
		return false;
	if (f & (F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR | F_CTRL_GUEST_OFFLOADS | F_MQ |
		 F_RSS) &&
	    !(f & F_CTRL_VQ))
		return false;
	pthread_mutex_lock(&s->lock);
	s->offloads = f & F_SWITCHABLE;
	net_set_offload(s);
	pthread_mutex_unlock(&s->lock);
	return true;
}

static void net_queue_off(struct virtio_device *v, struct virtqueue *vq)
{
	struct virtio_net *s = virtio_net_of(v);

	pthread_mutex_lock(&s->lock);
	vq->enabled = false;
	pthread_mutex_unlock(&s->lock);
}

static void net_reset(struct virtio_device *v)
{
	struct virtio_net *s = virtio_net_of(v);

	pthread_mutex_lock(&s->lock);
	net_filters_reset(s);
	s->rss = false;
	if (s->pairs != 1)
		net_set_pairs(s, 1);
	if (s->offloads) {
		s->offloads = 0;
		net_set_offload(s);
	}
	pthread_mutex_unlock(&s->lock);
	__atomic_and_fetch(&s->config.status, ~STATUS_ANNOUNCE, __ATOMIC_RELEASE);
	s->announce_due = false;
	memcpy(s->config.mac, s->mac_given, 6);
}

static void net_stopped(struct virtio_device *v, bool stopped)
{
	struct virtio_net *s = virtio_net_of(v);

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

/* Loop and thread of a back end that goes along. */
static int start_thread(struct virtio_net *s, struct err *err)
{
	int ret = s->own_loop ? virtio_thread_start(&s->v, "net", &s->thread, err) : 0;

	s->has_thread = s->own_loop && !ret;
	return ret;
}

static void set_fronts(struct virtio_net *s, bool on);

static void net_destroy(struct virtio_net *s)
{
	if (s->has_thread)
		virtio_thread_end(&s->v, s->thread);
	set_fronts(s, false);
	net_forget_calls(s);
	if (s->own_loop)
		s->netdev->ops->detach(s->netdev);
	virtio_exit(&s->v);
	loop_free(s->own_loop);
	for (unsigned i = 0; i < NET_RX_BUFFERS; i++)
		virtq_elem_free(&s->rx[i]);
	virtq_elem_free(&s->tx);
	virtq_elem_free(&s->ctrl);
	pthread_mutex_destroy(&s->lock);
}

static int check_props(struct device *d, struct virtio_net *s, struct err *err)
{
	struct netdev *nd = s->netdev;

	if (!nd)
		return err_set(err, EINVAL, "property netdev is missing: a network card needs a network");
	if (nd->front)
		return err_set(err, EBUSY, "its network belongs to another card already");
	if (s->mac_text)
		return parse_mac(s->mac_text, s->mac_given, err);
	make_mac(d, s->mac_given);
	return 0;
}

static void fill_config(struct virtio_net *s)
{
	struct netdev *nd = s->netdev;

	s->npairs = !s->mq || nd->queues < 2 ? 1 : nd->queues < NET_PAIRS ? nd->queues : NET_PAIRS;
	for (unsigned i = 0; i < NET_PAIRS; i++)
		s->pair[i] = (struct net_pair){ .net = s, .netdev = i && i < s->npairs ? nd->queue[i] : nd, .rx_waiting = -1 };
	memcpy(s->config.mac, s->mac_given, 6);
	s->config.status = nd->up ? STATUS_LINK_UP : 0;
	s->config.max_pairs = s->npairs;
	s->config.mtu = s->mtu ? s->mtu : nd->mtu;
	s->config.speed = UINT32_MAX; /* unknown, and the same for duplex */
	s->config.duplex = 0xff;
	s->config.rss_key_size = RSS_KEY;
	s->config.rss_table_size = RSS_TABLE;
	s->config.rss_types = RSS_TYPES;
	s->v.config = (uint8_t *)&s->config;
	s->v.config_size = sizeof(s->config);
}

static void set_fronts(struct virtio_net *s, bool on)
{
	for (unsigned i = 0; i < s->npairs; i++) {
		s->pair[i].netdev->front_opaque = on ? &s->pair[i] : NULL;
		s->pair[i].netdev->front = on ? &net_front : NULL;
	}
}

static int net_realize(struct device *d, struct err *err)
{
	struct virtio_net_pci *o = (struct virtio_net_pci *)d;
	struct virtio_net *s = &o->net;
	struct netdev *nd = s->netdev;
	struct loop *loop;
	int ret = check_props(d, s, err);

	if (ret)
		return ret;
	fill_config(s);
	pthread_mutex_init(&s->lock, NULL);
	s->v.queue_lock = &s->lock;
	net_filters_reset(s);
	for (unsigned i = 0; i < 2 * s->npairs; i++)
		s->vq[i].max = NET_QUEUE_SIZE;
	s->vq[2 * s->npairs].max = 64;
	if (nd->ops->attach) {
		s->own_loop = loop_new(err);
		ret = s->own_loop ? nd->ops->attach(nd, s->own_loop, err) : -err->code;
	}
	loop = s->own_loop ? s->own_loop : nd->loop ? nd->loop : d->machine->loop;
	if (!ret)
		ret = virtio_init(&s->v, &net_ops, d, s->vq, 2 * s->npairs + 1, loop, err);
	if (!ret) {
		net_set_pairs(s, 1);
		ret = virtio_pci_realize(&o->proxy, &s->v, 0x020000, err);
	}
	if (ret) {
		net_destroy(s);
		return ret;
	}
	set_fronts(s, true);
	ret = start_thread(s, err);
	if (ret) {
		virtio_pci_unrealize(d);
		net_destroy(s);
	}
	return ret;
}

static void net_unrealize(struct device *d)
{
	struct virtio_net *s = &((struct virtio_net_pci *)d)->net;

	if (!s->has_thread)
		set_fronts(s, false);
	virtio_pci_unrealize(d);
	net_destroy(s);
}

static int check_rss(struct virtio_net *s, struct err *err)
{
	bool good = s->rss_mask < RSS_TABLE && s->rss_other < s->npairs;

	for (unsigned i = 0; good && i <= s->rss_mask; i++)
		good = s->rss_table[i] < s->npairs;
	if (good || !s->rss)
		return 0;
	s->rss = false;
	return err_set(err, EINVAL, "it spreads frames over queues that this card does not have");
}

static int net_loaded(void *obj, struct err *err)
{
	struct virtio_net *s = &((struct virtio_net_pci *)obj)->net;
	int ret = check_rss(s, err);

	if (s->nuni + s->nmulti > NET_MACS || s->nuni > NET_MACS) {
		s->nuni = s->nmulti = 0;
		ret = err_set(err, EINVAL, "its address tables are too long");
	}
	if (!s->pairs || s->pairs > s->npairs) {
		s->pairs = 1;
		ret = err_set(err, EINVAL, "it has more queues than this card's network");
	}
	/* The link is this side's. */
	show_link(s);
	s->announce_due = true;
	for (unsigned i = 0; i < s->npairs; i++) {
		/* Ask the back end once. */
		s->pair[i].rx_waiting = 2 * i;
		s->pair[i].tx_waiting = false;
	}
	if (!ret)
		ret = virtio_loaded(&s->v, err);
	s->offloads &= s->v.features & F_SWITCHABLE;
	if (!ret) {
		net_set_offload(s);
		net_set_pairs(s, s->pairs);
	}
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
	PROP_DEF_BOOL(struct virtio_net_pci, net.mq, "mq", "on", "offer as many queues as the back end has"),
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
	STATE_FIELD_U16(struct virtio_net_pci, net.pairs),
	STATE_FIELD_U64(struct virtio_net_pci, net.offloads),
	STATE_FIELD_BOOL(struct virtio_net_pci, net.rss),
	STATE_FIELD_BYTES(struct virtio_net_pci, net.rss_key),
	STATE_FIELD_U32(struct virtio_net_pci, net.rss_types),
	STATE_ARRAY_U16(struct virtio_net_pci, net.rss_table),
	STATE_FIELD_U16(struct virtio_net_pci, net.rss_mask),
	STATE_FIELD_U16(struct virtio_net_pci, net.rss_other),
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
