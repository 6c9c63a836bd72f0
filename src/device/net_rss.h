/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Receive-side scaling: which queue a frame belongs to (Virtio 1.2 §5.1.6.4.3, §5.1.6.5.6.4). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSS_KEY 40
#define RSS_TABLE 128

/* Hash types (§5.1.6.4.3.1). */
enum { RSS_IPV4 = 1, RSS_TCPV4 = 2, RSS_UDPV4 = 4, RSS_IPV6 = 8, RSS_TCPV6 = 16, RSS_UDPV6 = 32, RSS_TYPES = 63 };

/* The Toeplitz hash of `len` bytes, at most RSS_KEY - 4. */
uint32_t rss_toeplitz(const uint8_t key[RSS_KEY], const uint8_t *data, size_t len);
/* Hash of an Ethernet frame's first `len` bytes by the types that are on. False: none of them fits. */
bool rss_hash(const uint8_t key[RSS_KEY], uint32_t types, const uint8_t *frame, size_t len, uint32_t *hash);
