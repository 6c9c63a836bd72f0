/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the NBD server:
 *
 *   nbd_server.c           listening, exports, clients' threads
 *   nbd_server_options.c   negotiation
 *   nbd_server_requests.c  transmission
 *   nbd_server_tls.c       sessions and credentials
 *
 * A client's bytes come through client_read() and client_write() only.
 */
#pragma once
#include <endian.h>
#include <pthread.h>

#include "image/block_graph.h"
#include "image/dirty.h"
#include "image/nbd_server.h"

#define NBD_MAX_NAME 4096u
#define NBD_MAX_OPTION (64u << 10)
#define NBD_MAX_DATA (32u << 20)
#define NBD_MAX_CONTEXTS 16u

/* NBD doc/proto.md, "Values" */
#define NBD_MAGIC 0x4e42444d41474943ull
#define NBD_OPTION_MAGIC 0x49484156454f5054ull
#define NBD_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC 0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

enum {
	NBD_FLAG_HAS_FLAGS = 1,
	NBD_FLAG_READ_ONLY = 2,
	NBD_FLAG_FLUSH = 4,
	NBD_FLAG_FUA = 8,
	NBD_FLAG_TRIM = 32,
	NBD_FLAG_ZEROES = 64,
	NBD_FLAG_DF = 128,
	NBD_FLAG_MULTI = 256
};
enum {
	NBD_CMD_READ,
	NBD_CMD_WRITE,
	NBD_CMD_DISC,
	NBD_CMD_FLUSH,
	NBD_CMD_TRIM,
	NBD_CMD_CACHE,
	NBD_CMD_ZEROES,
	NBD_CMD_STATUS
};
enum { NBD_CMD_FUA = 1, NBD_CMD_NO_HOLE = 2, NBD_CMD_DF = 4, NBD_CMD_ONE = 8 };

struct tls;
struct tls_session;

struct nbd_export {
	char *name, *description;
	struct block *block;
	bool writable;
	unsigned nbitmaps;
	struct bitmap {
		char *context; /* qemu:dirty-bitmap:NAME */
		struct dirty bits;
	} * bitmap;
	pthread_mutex_t edge; /* held while parts of sectors are written */
	unsigned clients;     /* that hold it; under the server's lock, as is … */
	bool removed;	      /* block is nobody's affair any more, but for clients that have chosen it */
	struct nbd_export *next;
};

struct client {
	struct nbd_server *s;
	int fd;
	struct tls_session *session; /* or NULL */
	pthread_t thread;
	bool started, ended; /* ended: under the server's lock; the thread does nothing more */
	struct client *next;
	/* Instead of a socket */
	const uint8_t *data;
	size_t len;

	struct nbd_export *e; /* chosen; counted */
	bool no_zeroes, structured, fixed;
	struct nbd_export *meta_of; /* whose contexts these are */
	unsigned ncontexts;
	unsigned context[NBD_MAX_CONTEXTS]; /* 0: base:allocation, n: the export's n-1st bitmap; the identifier, too */

	struct loop *loop; /* never run */
	struct block_queue *q;
	uint8_t *buf;
	size_t room;
};

struct nbd_server {
	struct nbd_server_options o;
	struct tls *tls;
	struct listener {
		struct nbd_server *s;
		int fd;
		struct loop_fd *watch;
		struct listener *next;
	} * listeners;
	pthread_mutex_t lock; /* all below, and exports' counts */
	struct nbd_export *exports;
	struct client *clients;
	unsigned nclients;
	bool reap_posted;
};

/* All of it, or false: the client is gone or silent for too long. */
bool client_read(struct client *c, void *buf, size_t len);
bool client_write(struct client *c, const void *buf, size_t len);
bool client_write_both(struct client *c, const void *head, size_t nhead, const void *data, size_t ndata); /* in one go */
bool client_skip(struct client *c, uint64_t len);
/* Its buffer, of at least so many bytes; NULL: no memory. */
uint8_t *client_room(struct client *c, size_t len);

/* Until an export is chosen (c->e). False: the client goes. */
bool client_negotiate(struct client *c);
void client_serve(struct client *c);

/* The export of that name, counted for the client; NULL: none. */
struct nbd_export *export_use(struct nbd_server *s, const char *name, size_t len);
void export_drop(struct nbd_server *s, struct nbd_export *e);
/* It becomes the client's. False: it was removed meanwhile; dropped. */
bool export_choose(struct client *c, struct nbd_export *e);
uint64_t export_size(struct nbd_server *s, struct nbd_export *e);

struct tls *tls_new(const char *dir, bool verify, struct err *err);
void tls_free(struct tls *t);
struct tls_session *tls_accept(struct tls *t, int fd); /* NULL: it failed */
void tls_end(struct tls_session *s);
ssize_t tls_read(struct tls_session *s, void *buf, size_t len); /* as read(); 0 at the end */
ssize_t tls_write(struct tls_session *s, const void *buf, size_t len);

static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, v >> 32);
	put32(p + 4, v);
}

static inline uint16_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}
