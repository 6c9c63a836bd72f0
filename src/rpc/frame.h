/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packets: a length that counts itself, a header of six words, then a payload.
 *
 * A packet that passes descriptors has their number before its payload; each
 * descriptor then comes with one byte of its own after the packet, which its
 * length does not count.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/xdr.h"

#define RPC_LENGTH_BYTES 4u
#define RPC_HEADER_BYTES 24u
#define RPC_MESSAGE_MAX (32u << 20) /* header and payload */
#define RPC_FDS_MAX 32u

enum rpc_type {
	RPC_CALL,
	RPC_REPLY,
	RPC_MESSAGE, /* unasked: an event */
	RPC_STREAM,
	RPC_CALL_WITH_FDS,
	RPC_REPLY_WITH_FDS,
	RPC_STREAM_HOLE,
};

enum rpc_status { RPC_OK, RPC_ERROR, RPC_CONTINUE };

struct rpc_header {
	uint32_t program, version, procedure, type, serial, status;
};

/* Keepalive, a program of its own without payloads. */
#define KEEPALIVE_PROGRAM 0x6b656570u
#define KEEPALIVE_VERSION 1u
enum keepalive_proc { KEEPALIVE_PING = 1, KEEPALIVE_PONG = 2 };

/* Begin a packet in an empty writer; the payload follows. `nfds` is written only for a type that has it. */
void rpc_frame_begin(struct xdr_writer *w, const struct rpc_header *h, unsigned nfds);
/* Set its length. False if it did not fit. */
bool rpc_frame_end(struct xdr_writer *w);
/* A writer of the size a packet may have. */
struct xdr_writer rpc_frame_writer(void);

/* Bytes to packets. Memory grows with what has come, not with what a length promises. */
struct rpc_frame {
	struct rpc_header header; /* from here on: of a complete packet */
	const uint8_t *payload;
	size_t payload_len;
	unsigned nfds;

	uint8_t *data; /* length word included */
	size_t len, cap;
	uint32_t fd_bytes; /* still to come */
	bool headed;	   /* the header is read and sound */
};

enum rpc_frame_result {
	RPC_FRAME_MORE,
	RPC_FRAME_PACKET, /* rpc_frame_next() before feeding on */
	RPC_FRAME_BAD,	  /* no packet; nothing that follows can be understood */
	RPC_FRAME_NO_MEMORY,
};

/* *used bytes were taken; all unless a packet is complete or bad. */
enum rpc_frame_result rpc_frame_feed(struct rpc_frame *f, const uint8_t *data, size_t len, size_t *used);
void rpc_frame_next(struct rpc_frame *f);
/* True while the bytes of passed descriptors are awaited. */
bool rpc_frame_wants_fds(const struct rpc_frame *f);
void rpc_frame_free(struct rpc_frame *f);
