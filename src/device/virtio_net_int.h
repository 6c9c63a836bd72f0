/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two files of the network card share: virtio_net.c (frames, the device) and virtio_net_ctrl.c (filters, control queue). */
#pragma once
#include "device/net_rss.h"
#include "device/virtio_pci.h"
#include "machine/backend.h"

#define NET_QUEUE_SIZE 256
#define NET_FRAME_MAX 65550u
#define NET_RX_BUFFERS 64   /* one frame is merged from at most this many */
#define NET_TX_BATCH 128    /* frames sent before the loop gets its turn */
#define NET_MACS 64
#define NET_CTRL_MAX 4096   /* longest control command */

#define NET_PAIRS 16

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_CTRL_GUEST_OFFLOADS (1ull << 2)
#define F_MTU (1ull << 3)
#define F_MAC (1ull << 5)
#define F_GUEST_TSO4 (1ull << 7)
#define F_GUEST_TSO6 (1ull << 8)
#define F_GUEST_ECN (1ull << 9)
#define F_GUEST_UFO (1ull << 10)
#define F_HOST_TSO4 (1ull << 11)
#define F_HOST_TSO6 (1ull << 12)
#define F_HOST_ECN (1ull << 13)
#define F_HOST_UFO (1ull << 14)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_RX (1ull << 18)
#define F_CTRL_VLAN (1ull << 19)
#define F_CTRL_RX_EXTRA (1ull << 20)
#define F_GUEST_ANNOUNCE (1ull << 21)
#define F_MQ (1ull << 22)
#define F_CTRL_MAC_ADDR (1ull << 23)
#define F_RSS (1ull << 60)
/* What the control queue may switch while the driver runs. */
#define F_SWITCHABLE (F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_GUEST_UFO)

/* Queues of pair n: 2n receives, 2n + 1 sends. The control queue comes after all pairs there are (§5.1.2). */
#define QUEUES (2 * NET_PAIRS + 1)
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };

/* §5.1.6; num_buffers is always there with VERSION_1. */
struct net_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_hdr) == 12, "layout of Virtio 1.2 §5.1.6");
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2 };

struct __attribute__((packed)) net_config {
	uint8_t mac[6];
	uint16_t status, max_pairs, mtu;
	uint32_t speed;
	uint8_t duplex, rss_key_size;
	uint16_t rss_table_size;
	uint32_t rss_types;
};
_Static_assert(sizeof(struct net_config) == 24, "layout of Virtio 1.2 §5.1.4");

struct virtio_net;
/* One queue of the back end and the pair that sends to it. */
struct net_pair {
	struct virtio_net *net;
	struct netdev *netdev;
	int rx_waiting;  /* it holds a frame for this receive queue and waits for rx_ready(); -1: no */
	bool tx_waiting; /* it is busy: writable() follows */
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
	bool csum, mq;

	uint8_t mac_given[6];
	bool announce_due; /* a state was loaded: the network must learn where the guest is now */
	bool unplugged;    /* the owner pulled the cable; atomic */
	unsigned npairs;   /* of the back end that are used at all */
	struct loop *own_loop; /* of a back end that goes along, or NULL */
	pthread_t thread;
	bool has_thread;

	pthread_mutex_t lock; /* the rest, and vq[] */
	struct net_pair pair[NET_PAIRS];
	struct virtq_elem rx[NET_RX_BUFFERS], tx, ctrl; /* empty between two callbacks */
	bool queues_due;       /* a call that tells the back end how many pairs are in use is under way */

	uint16_t pairs;        /* in use */
	uint64_t offloads;     /* of F_SWITCHABLE */
	bool rss;
	uint8_t rss_key[RSS_KEY];
	uint32_t rss_types;
	uint16_t rss_table[RSS_TABLE], rss_mask, rss_other; /* receive queues by hash; mask + 1 of them; for what has none */

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

static inline struct virtio_net *virtio_net_of(struct virtio_device *v)
{
	return (struct virtio_net *)v;
}

static inline struct virtqueue *net_rx_queue(struct virtio_net *s, unsigned pair)
{
	return &s->vq[2 * pair];
}

static inline struct virtqueue *net_tx_queue(struct virtio_net *s, unsigned pair)
{
	return &s->vq[2 * pair + 1];
}

static inline unsigned net_ctrl_index(const struct virtio_net *s)
{
	return virtio_has(&s->v, F_MQ | F_RSS) ? 2 * s->npairs : 2;
}

/* virtio_net_ctrl.c; the card's lock is held. */
/* Is the frame for the guest? `h` are its first bytes. */
bool net_wanted(const struct virtio_net *s, const uint8_t *h, size_t len);
void net_filters_reset(struct virtio_net *s);
/* Tell the back end which offloads the guest takes; and how many pairs are in use, with the next call of the loop. */
void net_set_offload(struct virtio_net *s);
void net_set_pairs(struct virtio_net *s, unsigned pairs);
void net_forget_calls(struct virtio_net *s); /* before the card goes; without the lock */
void net_run_ctrl(struct virtio_net *s);
