/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/net_rss.h"

#include <string.h>

uint32_t rss_toeplitz(const uint8_t key[RSS_KEY], const uint8_t *data, size_t len)
{
	uint32_t hash = 0, window = (uint32_t)key[0] << 24 | key[1] << 16 | key[2] << 8 | key[3];

	for (size_t i = 0; i < len && i + 4 < RSS_KEY; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (data[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (key[i + 4] >> bit & 1);
		}
	}
	return hash;
}

/* Addresses, and ports where there are some, in the order that the hash wants: source, destination, ports. */
struct flow {
	uint8_t bytes[36];
	size_t addresses;
	const uint8_t *ports; /* or NULL */
	uint8_t protocol;
	bool v6;
};

static bool parse_ipv4(const uint8_t *p, size_t len, struct flow *f)
{
	size_t head = len >= 20 ? (p[0] & 15) * 4u : 0;

	if (head < 20 || p[0] >> 4 != 4)
		return false;
	memcpy(f->bytes, p + 12, 8);
	f->addresses = 8;
	f->protocol = p[9];
	/* Fragments, the first one too, go by their addresses. */
	if (!((p[6] << 8 | p[7]) & 0x3fff) && len >= head + 4)
		f->ports = p + head;
	return true;
}

static bool parse_ipv6(const uint8_t *p, size_t len, struct flow *f)
{
	if (len < 40 || p[0] >> 4 != 6)
		return false;
	memcpy(f->bytes, p + 8, 32);
	f->addresses = 32;
	f->v6 = true;
	f->protocol = p[6];
	if (len >= 44)
		f->ports = p + 40;
	return true;
}

bool rss_hash(const uint8_t key[RSS_KEY], uint32_t types, const uint8_t *frame, size_t len, uint32_t *hash)
{
	size_t at = len >= 18 && frame[12] == 0x81 && frame[13] == 0 ? 18 : 14;
	struct flow f = { 0 };
	unsigned kind;
	uint32_t with_ports;

	if (len < at)
		return false;
	kind = frame[at - 2] << 8 | frame[at - 1];
	if (!(kind == 0x0800 && parse_ipv4(frame + at, len - at, &f)) &&
	    !(kind == 0x86dd && parse_ipv6(frame + at, len - at, &f)))
		return false;
	with_ports = f.protocol == 6 ? RSS_TCPV4 : f.protocol == 17 ? RSS_UDPV4 : 0;
	if (f.v6)
		with_ports <<= 3;
	if (f.ports && types & with_ports) {
		memcpy(f.bytes + f.addresses, f.ports, 4);
		*hash = rss_toeplitz(key, f.bytes, f.addresses + 4);
		return true;
	}
	if (!(types & (f.v6 ? RSS_IPV6 : RSS_IPV4)))
		return false;
	*hash = rss_toeplitz(key, f.bytes, f.addresses);
	return true;
}
