/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/net_csum.h"

#include <arpa/inet.h>
#include <string.h>

#include "device/virtq.h"

static uint32_t fold64(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

static uint32_t fold16(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Sum of `len` bytes in the host's byte order: ones' complement addition doesn't care (RFC 1071 §2). */
static uint32_t sum_bytes(const uint8_t *p, size_t len)
{
	uint64_t a = 0, b = 0;
	uint64_t tail = 0;

	/* 32-bit words into 64-bit sums: no carry is lost below 2^32 words, and the compiler vectorizes it. */
	for (; len >= 16; p += 16, len -= 16) {
		uint32_t w[4];

		memcpy(w, p, sizeof(w));
		a += (uint64_t)w[0] + w[2];
		b += (uint64_t)w[1] + w[3];
	}
	for (; len >= 4; p += 4, len -= 4) {
		uint32_t w;

		memcpy(&w, p, sizeof(w));
		a += w;
	}
	memcpy(&tail, p, len);
	return fold64(a + b + tail);
}

uint32_t csum_iov(const struct iovec *iov, unsigned n, size_t at, size_t len)
{
	uint64_t sum = 0;
	bool odd = false;

	for (unsigned i = 0; i < n && len; i++) {
		size_t part;
		uint32_t s;

		if (at >= iov[i].iov_len) {
			at -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - at < len ? iov[i].iov_len - at : len;
		s = fold16(sum_bytes((const uint8_t *)iov[i].iov_base + at, part));
		/* A piece that begins at an odd byte has its halves swapped. */
		sum += odd ? (uint16_t)(s << 8 | s >> 8) : s;
		odd ^= part & 1;
		len -= part;
		at = 0;
	}
	return ntohs(fold16(fold64(sum)));
}

uint16_t csum_finish(uint32_t sum)
{
	return ~fold16(sum);
}

static uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

enum { ETH_IP4 = 0x0800, ETH_IP6 = 0x86dd, ETH_VLAN = 0x8100, PROTO_TCP = 6, PROTO_UDP = 17 };

bool csum_frame_valid(const struct iovec *iov, unsigned n, size_t len)
{
	uint8_t h[18 + 60];
	size_t have = iov_read(iov, n, 0, h, sizeof(h)), ip = 14, l4, l4_len;
	uint16_t type = have >= 14 ? get16(h + 12) : 0;
	uint8_t proto;
	uint32_t sum;

	if (type == ETH_VLAN && have >= 18) {
		type = get16(h + 16);
		ip = 18;
	}
	if (type == ETH_IP4 && have >= ip + 20 && len >= ip + 20 && h[ip] >> 4 == 4) {
		size_t header = (h[ip] & 15) * 4, total = get16(h + ip + 2);

		if (header < 20 || total < header || total > len - ip || get16(h + ip + 6) & 0x3fff)
			return false;
		proto = h[ip + 9];
		l4 = ip + header;
		l4_len = total - header;
		sum = csum_iov(iov, n, ip + 12, 8);
	} else if (type == ETH_IP6 && have >= ip + 40 && len >= ip + 40 && h[ip] >> 4 == 6) {
		proto = h[ip + 6];
		l4 = ip + 40;
		l4_len = get16(h + ip + 4);
		if (l4_len > len - l4)
			return false;
		sum = csum_iov(iov, n, ip + 8, 32);
	} else {
		return false;
	}
	if ((proto != PROTO_TCP || l4_len < 20) && (proto != PROTO_UDP || l4_len < 8))
		return false;
	if (proto == PROTO_UDP) {
		uint8_t check[2] = { 0 };

		iov_read(iov, n, l4 + 6, check, 2);
		if (!get16(check))
			return false; /* there is none */
	}
	sum += proto + (l4_len & 0xffff) + (l4_len >> 16);
	sum += csum_iov(iov, n, l4, l4_len);
	return csum_finish(sum) == 0;
}
