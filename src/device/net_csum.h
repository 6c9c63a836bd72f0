/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Internet checksums (RFC 1071) over scattered frames, for the virtio network card. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* Ones' complement sum of bytes [at, at+len) as big-endian words, not folded further than 32 bits. Bytes past the end
 * count as 0. */
uint32_t csum_iov(const struct iovec *iov, unsigned n, size_t at, size_t len);
/* The checksum field for such a sum: folded and inverted, host order. */
uint16_t csum_finish(uint32_t sum);
/*
 * Does the Ethernet frame carry TCP or UDP over IPv4 or IPv6, whole and with
 * a correct checksum? Anything else, fragments included, is false: not known.
 */
bool csum_frame_valid(const struct iovec *iov, unsigned n, size_t len);
