/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disks on iSCSI targets, through libiscsi:
 *
 *   iscsi://[USER@]HOST[:PORT]/TARGET[/LUN][?SETTING=VALUE[&...]]
 *
 *   password-secret=ID      CHAP: the secret with USER's password
 *   initiator-name=IQN      who we say that we are
 *   header-digest=none|crc32c|none-crc32c|crc32c-none
 *
 * A session is one thread's at a time. libiscsi logs in again by itself when a
 * connection breaks and sends again what was not answered; when that fails for
 * RETRIES times, requests fail, and each later one tries a new session first.
 */
#include "image/remote_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef HAVE_LIBISCSI
#include <pthread.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "image/iscsi_name.h"
#include "util/secret.h"
#endif

static const char *const schemes[] = { "iscsi://", NULL };

#ifdef HAVE_LIBISCSI

#define MAX_SESSIONS 8u
#define MOST (1u << 20)		/* bytes a transfer, unless the target wants less */
#define MOST_BLOCKS (1u << 22)	/* of one UNMAP or WRITE SAME */
#define ATTEMPTS 8u		/* of a command that the target did not take */
#define RETRIES 4		/* logins after a connection broke; the pauses double from a second on */
#define TIMEOUT 30		/* seconds for an answer */
#define WRITE_PROTECTED 0x80u	/* SPC-4 §7.5.3, device-specific parameter */

struct iscsi_disk {
	struct remote base;
	struct iscsi_name name;
	bool readonly;
	uint32_t block;			/* bytes */
	uint64_t most, most_unmap, most_same; /* blocks */
	bool can_unmap, can_same_unmap, reads_zeroes; /* reads_zeroes: what was unmapped */
	bool no_same;			/* the target said so; atomic */
	unsigned n, next;		/* next: atomic */
	struct session {
		struct iscsi_context *iscsi; /* NULL: broke */
		pthread_mutex_t lock;
	} s[MAX_SESSIONS];
	pthread_mutex_t part; /* who changes a part of a block */
};

static struct iscsi_disk *disk_of(struct remote *r)
{
	return (struct iscsi_disk *)r;
}

/* ---- Sessions ------------------------------------------------------------------- */

static int set_password(struct iscsi_disk *d, struct iscsi_context *iscsi, struct err *err)
{
	size_t len;
	char *password;
	int ret;

	if (!d->name.user)
		return 0;
	if (!d->name.secret)
		return err_set(err, EINVAL, "%s: the user's password is missing: name a secret with ?password-secret=ID",
			       d->base.uri);
	password = secret_get(d->name.secret, &len, err);
	if (!password)
		return -ENOENT;
	ret = iscsi_set_initiator_username_pwd(iscsi, d->name.user, password);
	secret_wipe(password, len);
	return ret ? err_set(err, EINVAL, "%s: %s", d->base.uri, iscsi_get_error(iscsi)) : 0;
}

static int set_digest(struct iscsi_disk *d, struct iscsi_context *iscsi)
{
	static const struct {
		const char *name;
		enum iscsi_header_digest digest;
	} digests[] = {
		{ "none", ISCSI_HEADER_DIGEST_NONE },		    { "crc32c", ISCSI_HEADER_DIGEST_CRC32C },
		{ "none-crc32c", ISCSI_HEADER_DIGEST_NONE_CRC32C }, { "crc32c-none", ISCSI_HEADER_DIGEST_CRC32C_NONE },
	};

	for (unsigned i = 0; d->name.digest && i < 4; i++)
		if (!strcmp(d->name.digest, digests[i].name))
			return iscsi_set_header_digest(iscsi, digests[i].digest);
	return iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
}

static int log_in(struct iscsi_disk *d, struct session *s, struct err *err)
{
	struct iscsi_context *iscsi = iscsi_create_context(d->name.initiator);
	int ret;

	if (!iscsi)
		return err_set(err, ENOMEM, "%s: no memory for a session", d->base.uri);
	ret = set_password(d, iscsi, err);
	if (!ret && (iscsi_set_targetname(iscsi, d->name.target) || iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL) ||
		     set_digest(d, iscsi) || iscsi_set_timeout(iscsi, TIMEOUT)))
		ret = err_set(err, EINVAL, "%s: %s", d->base.uri, iscsi_get_error(iscsi));
	iscsi_set_reconnect_max_retries(iscsi, RETRIES);
	if (!ret && iscsi_full_connect_sync(iscsi, d->name.portal, d->name.lun))
		ret = err_set(err, ECONNREFUSED, "cannot log in to %s: %s", d->base.uri, iscsi_get_error(iscsi));
	if (ret)
		iscsi_destroy_context(iscsi);
	else
		s->iscsi = iscsi;
	return ret;
}

static struct session *take(struct iscsi_disk *d)
{
	unsigned first = __atomic_fetch_add(&d->next, 1, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < d->n; i++)
		if (!pthread_mutex_trylock(&d->s[(first + i) % d->n].lock))
			return &d->s[(first + i) % d->n];
	pthread_mutex_lock(&d->s[first % d->n].lock);
	return &d->s[first % d->n];
}

static void give(struct session *s)
{
	pthread_mutex_unlock(&s->lock);
}

static void drop(struct session *s)
{
	iscsi_destroy_context(s->iscsi);
	s->iscsi = NULL;
}

/* ---- Commands ------------------------------------------------------------------- */

enum command { READ, WRITE, SYNC, UNMAP, SAME, CAPACITY, LIMITS, PROVISIONING, MODE };

struct call {
	enum command command;
	const char *what;
	uint64_t lba, blocks;
	void *buf; /* READ, WRITE: blocks; SAME: one block */
	bool fua, unmap;
	void *result; /* CAPACITY and those after it: what libiscsi made of the data */
};

static struct scsi_task *send(const struct iscsi_disk *d, struct iscsi_context *iscsi, const struct call *c)
{
	struct scsi_iovec iov = { .iov_base = c->buf, .iov_len = c->blocks * d->block };
	struct unmap_list list = { .lba = c->lba, .num = c->blocks };
	int lun = d->name.lun;

	switch (c->command) {
	case READ:
		return iscsi_read16_iov_sync(iscsi, lun, c->lba, iov.iov_len, d->block, 0, 0, 0, 0, 0, &iov, 1);
	case WRITE:
		return iscsi_write16_iov_sync(iscsi, lun, c->lba, NULL, iov.iov_len, d->block, 0, 0, c->fua, 0, 0, &iov, 1);
	case SYNC:
		return iscsi_synchronizecache16_sync(iscsi, lun, 0, 0, 0, 0);
	case UNMAP:
		return iscsi_unmap_sync(iscsi, lun, 0, 0, &list, 1);
	case SAME:
		return iscsi_writesame16_sync(iscsi, lun, c->lba, c->buf, d->block, c->blocks, 0, c->unmap, 0, 0);
	case CAPACITY:
		return iscsi_readcapacity16_sync(iscsi, lun);
	case LIMITS:
		return iscsi_inquiry_sync(iscsi, lun, 1, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, 64);
	case PROVISIONING:
		return iscsi_inquiry_sync(iscsi, lun, 1, SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING, 64);
	case MODE:
		return iscsi_modesense6_sync(iscsi, lun, 1, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, 255);
	}
	return NULL;
}

static bool copy_result(struct scsi_task *task, const struct call *c)
{
	static const size_t sizes[] = {
		[CAPACITY] = sizeof(struct scsi_readcapacity16),
		[LIMITS] = sizeof(struct scsi_inquiry_block_limits),
		[PROVISIONING] = sizeof(struct scsi_inquiry_logical_block_provisioning),
		[MODE] = sizeof(struct scsi_mode_sense),
	};
	void *data = scsi_datain_unmarshall(task);

	if (data)
		memcpy(c->result, data, sizes[c->command]);
	return data;
}

/* SPC-4 §4.5.6: what the sense data means to somebody who waits for an errno. */
static int code_of(const struct scsi_sense *s)
{
	switch (s->key) {
	case SCSI_SENSE_DATA_PROTECTION:
		return s->ascq == 0x2707 ? ENOSPC : EROFS; /* 27h/07h: space allocation failed write protect */
	case SCSI_SENSE_ILLEGAL_REQUEST:
		return s->ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED ? ENODEV
		       : s->ascq == SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE ||
				       s->ascq == SCSI_SENSE_ASCQ_INVALID_FIELD_IN_CDB
			       ? EOPNOTSUPP
		       : s->ascq == SCSI_SENSE_ASCQ_LBA_OUT_OF_RANGE ? EINVAL
								      : EIO;
	case SCSI_SENSE_NOT_READY:
		return s->ascq >> 8 == 0x3a ? ENOMEDIUM : EIO;
	default:
		return EIO;
	}
}

/* 0 done; 1 to be sent again; or -errno. */
static int judge(struct iscsi_disk *d, struct session *s, struct scsi_task *task, const struct call *c, unsigned attempt,
		 struct err *err)
{
	unsigned long long at = c->lba * d->block;

	if (task && task->status == SCSI_STATUS_GOOD) {
		if (c->command == READ && task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
			return err_set(err, EIO, "%s: %s at byte %llu: the target sent less than was asked for", d->base.uri,
				       c->what, at);
		if (c->command >= CAPACITY && !copy_result(task, c))
			return err_set(err, EIO, "%s: %s: the answer makes no sense", d->base.uri, c->what);
		return 0;
	}
	if (task && task->status == SCSI_STATUS_CHECK_CONDITION) {
		/* News, not an error: a reset, another size. */
		if (task->sense.key == SCSI_SENSE_UNIT_ATTENTION && attempt < ATTEMPTS)
			return 1;
		return err_set(err, code_of(&task->sense), "%s: %s at byte %llu: %s (sense key %#x, code %#x)", d->base.uri,
			       c->what, at, scsi_sense_ascq_str(task->sense.ascq), task->sense.key, task->sense.ascq);
	}
	if (task && task->status == SCSI_STATUS_RESERVATION_CONFLICT)
		return err_set(err, EBUSY, "%s: %s: somebody else has it reserved", d->base.uri, c->what);
	if (task && (task->status == SCSI_STATUS_BUSY || task->status == SCSI_STATUS_TASK_SET_FULL) && attempt < ATTEMPTS) {
		/* SAM-5 §5.3.1: later. */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000l << attempt }, NULL);
		return 1;
	}
	err_set(err, ENOTCONN, "%s: %s at byte %llu: %s", d->base.uri, c->what, at, iscsi_get_error(s->iscsi));
	drop(s);
	return -ENOTCONN;
}

static int perform_on(struct iscsi_disk *d, struct session *s, const struct call *c, struct err *err)
{
	int ret = s->iscsi ? 0 : log_in(d, s, err);

	if (ret)
		return ret;
	for (unsigned attempt = 0; !attempt || ret > 0; attempt++) {
		struct scsi_task *task = send(d, s->iscsi, c);

		ret = judge(d, s, task, c, attempt, err);
		if (task)
			scsi_free_scsi_task(task);
	}
	return ret;
}

static int perform(struct iscsi_disk *d, const struct call *c, struct err *err)
{
	struct session *s = take(d);
	int ret = perform_on(d, s, c, err);

	give(s);
	return ret;
}

/* ---- What it is ------------------------------------------------------------------- */

static int ask_size(struct remote *r, uint64_t *size, struct err *err)
{
	struct iscsi_disk *d = disk_of(r);
	struct scsi_readcapacity16 capacity;
	struct call c = { .command = CAPACITY, .what = "asking for its size", .result = &capacity };
	int ret = perform(d, &c, err);

	if (ret)
		return ret;
	if (capacity.block_length < 512 || capacity.block_length > 65536 ||
	    capacity.block_length & (capacity.block_length - 1) ||
	    capacity.returned_lba >= INT64_MAX / capacity.block_length)
		return err_set(err, EINVAL, "%s: the target says that it has %llu blocks of %u bytes, which can't be", r->uri,
			       (unsigned long long)capacity.returned_lba + 1, capacity.block_length);
	if (d->block && d->block != capacity.block_length)
		return err_set(err, EIO, "%s: its blocks changed from %u to %u bytes while it was in use", r->uri, d->block,
			       capacity.block_length);
	d->block = capacity.block_length;
	*size = (capacity.returned_lba + 1) * capacity.block_length;
	if (capacity.lbpme)
		d->reads_zeroes = capacity.lbprz;
	return 0;
}

/* Pages that a target may not have. */
static void ask_limits(struct iscsi_disk *d)
{
	struct scsi_inquiry_logical_block_provisioning p = { 0 };
	struct scsi_inquiry_block_limits l = { 0 };
	struct call limits = { .command = LIMITS, .what = "asking for its limits", .result = &l },
		    provisioning = { .command = PROVISIONING, .what = "asking for its limits", .result = &p };

	(void)perform(d, &limits, NULL);
	(void)perform(d, &provisioning, NULL);
	d->most = MOST / d->block;
	if (l.max_xfer_len && l.max_xfer_len < d->most)
		d->most = l.max_xfer_len;
	d->most_unmap = l.max_unmap && l.max_unmap < MOST_BLOCKS ? l.max_unmap : MOST_BLOCKS;
	d->most_same = l.max_ws_len && l.max_ws_len < MOST_BLOCKS ? l.max_ws_len : 65535;
	d->can_unmap = p.lbpu;
	d->can_same_unmap = p.lbpws;
}

static int look(struct iscsi_disk *d, struct err *err)
{
	struct scsi_mode_sense mode = { 0 };
	struct call c = { .command = MODE, .what = "asking whether it can be written", .result = &mode };
	int ret = ask_size(&d->base, &d->base.size, err);

	if (ret)
		return ret;
	ask_limits(d);
	if (!d->readonly && !perform(d, &c, NULL) && mode.device_specific_parameter & WRITE_PROTECTED)
		return err_set(err, EROFS, "%s is read-only at the target: open it with readonly=on", d->base.uri);
	return 0;
}

static void close_disk(struct remote *r)
{
	struct iscsi_disk *d = disk_of(r);

	for (unsigned i = 0; i < d->n; i++) {
		if (d->s[i].iscsi) {
			/* No waiting for somebody who does not answer. */
			iscsi_set_noautoreconnect(d->s[i].iscsi, 1);
			iscsi_set_timeout(d->s[i].iscsi, 2);
			iscsi_logout_sync(d->s[i].iscsi);
			drop(&d->s[i]);
		}
		pthread_mutex_destroy(&d->s[i].lock);
	}
	iscsi_name_free(&d->name);
	pthread_mutex_destroy(&d->part);
	free(d->base.uri);
	free(d);
}

static struct remote *open_disk(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	struct iscsi_disk *d = calloc(1, sizeof(*d));
	int ret;

	if (!d || !(d->base.uri = strdup(uri))) {
		free(d);
		err_set(err, ENOMEM, "no memory to open %s", uri);
		return NULL;
	}
	d->base.ops = &remote_iscsi;
	d->readonly = readonly;
	pthread_mutex_init(&d->part, NULL);
	ret = iscsi_name_parse(&d->name, uri, err);
	if (!ret) {
		pthread_mutex_init(&d->s[0].lock, NULL);
		d->n = 1;
		ret = log_in(d, &d->s[0], err);
	}
	if (!ret)
		ret = look(d, err);
	if (ret) {
		close_disk(&d->base);
		return NULL;
	}
	for (; d->n < connections && d->n < MAX_SESSIONS; d->n++) {
		pthread_mutex_init(&d->s[d->n].lock, NULL);
		if (log_in(d, &d->s[d->n], NULL)) {
			pthread_mutex_destroy(&d->s[d->n].lock);
			break;
		}
	}
	return &d->base;
}

/* ---- Data ------------------------------------------------------------------------- */

static int transfer(struct iscsi_disk *d, bool write, uint64_t offset, uint8_t *buf, uint64_t len, bool fua,
		    struct err *err)
{
	struct call c = {
		.command = write ? WRITE : READ, .what = write ? "writing" : "reading", .lba = offset / d->block, .buf = buf, .fua = fua,
	};
	int ret = 0;

	for (uint64_t left = len / d->block; left && !ret; left -= c.blocks, c.lba += c.blocks) {
		c.blocks = left < d->most ? left : d->most;
		ret = perform(d, &c, err);
		c.buf = (uint8_t *)c.buf + c.blocks * d->block;
	}
	return ret;
}

/* A part of a block, or what reaches over one's end. */
static int part(struct iscsi_disk *d, bool write, uint64_t offset, uint8_t *buf, uint64_t len, bool fua, struct err *err)
{
	uint64_t in = offset % d->block;
	uint8_t *block = malloc(d->block);
	int ret = block ? 0 : err_set(err, ENOMEM, "%s: no memory for a block", d->base.uri);

	pthread_mutex_lock(&d->part);
	if (!ret)
		ret = transfer(d, false, offset - in, block, d->block, false, err);
	if (!ret && write) {
		memcpy(block + in, buf, len);
		ret = transfer(d, true, offset - in, block, d->block, fua, err);
	} else if (!ret) {
		memcpy(buf, block + in, len);
	}
	pthread_mutex_unlock(&d->part);
	free(block);
	return ret;
}

static int run(struct iscsi_disk *d, bool write, uint64_t offset, uint8_t *buf, uint64_t len, bool fua, struct err *err)
{
	int ret = 0;

	for (uint64_t n; !ret && len; offset += n, buf += n, len -= n) {
		uint64_t in = offset % d->block;

		if (!in && len >= d->block) {
			n = len - len % d->block;
			ret = transfer(d, write, offset, buf, n, fua, err);
			continue;
		}
		n = d->block - in < len ? d->block - in : len;
		ret = part(d, write, offset, buf, n, fua, err);
	}
	return ret;
}

static int read_disk(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return run(disk_of(r), false, offset, buf, len, false, err);
}

static int write_disk(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	return run(disk_of(r), true, offset, (uint8_t *)buf, len, fua, err);
}

static int flush_disk(struct remote *r, struct err *err)
{
	struct iscsi_disk *d = disk_of(r);
	struct call c = { .command = SYNC, .what = "flushing" };
	struct err why = ERR_INIT;
	int ret = d->readonly ? 0 : perform(d, &c, &why);

	/* A target without a cache has no such command. */
	if (ret && ret != -EOPNOTSUPP)
		return err_set(err, -ret, "%s", err_msg(&why));
	return 0;
}

static int write_zeroes(struct iscsi_disk *d, uint64_t offset, uint64_t len, struct err *err)
{
	uint8_t *zeroes = calloc(1, MOST);
	int ret = zeroes ? 0 : err_set(err, ENOMEM, "%s: no memory for zeroes", d->base.uri);

	for (uint64_t n; !ret && len; offset += n, len -= n) {
		n = len < MOST ? len : MOST;
		ret = run(d, true, offset, zeroes, n, false, err);
	}
	free(zeroes);
	return ret;
}

/* Whole blocks, by WRITE SAME. -EOPNOTSUPP: the target has none. */
static int write_same(struct iscsi_disk *d, uint64_t lba, uint64_t blocks, bool unmap, struct err *err)
{
	struct call c = { .command = SAME, .what = "writing zeroes", .lba = lba, .unmap = unmap, .buf = calloc(1, d->block) };
	int ret = c.buf ? 0 : err_set(err, ENOMEM, "%s: no memory for a block", d->base.uri);

	for (; !ret && blocks; blocks -= c.blocks, c.lba += c.blocks) {
		c.blocks = blocks < d->most_same ? blocks : d->most_same;
		ret = perform(d, &c, err);
	}
	free(c.buf);
	return ret;
}

static int zero_disk(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	struct iscsi_disk *d = disk_of(r);
	uint64_t first = (offset + d->block - 1) / d->block, last = (offset + len) / d->block;
	int ret = -EOPNOTSUPP;

	if (first < last && !__atomic_load_n(&d->no_same, __ATOMIC_RELAXED)) {
		struct err why = ERR_INIT;

		ret = write_same(d, first, last - first, unmap && d->can_same_unmap && d->reads_zeroes, &why);
		if (ret == -EOPNOTSUPP)
			__atomic_store_n(&d->no_same, true, __ATOMIC_RELAXED);
		else if (ret)
			return err_set(err, -ret, "%s", err_msg(&why));
	}
	if (ret)
		return write_zeroes(d, offset, len, err);
	ret = write_zeroes(d, offset, first * d->block - offset, err);
	return ret ? ret : write_zeroes(d, last * d->block, offset + len - last * d->block, err);
}

static int discard_disk(struct remote *r, uint64_t offset, uint64_t len, struct err *err)
{
	struct iscsi_disk *d = disk_of(r);
	uint64_t first = (offset + d->block - 1) / d->block, last = (offset + len) / d->block;
	struct call c = { .command = UNMAP, .what = "discarding", .lba = first };
	int ret = 0;

	for (; d->can_unmap && !ret && c.lba < last; c.lba += c.blocks) {
		c.blocks = last - c.lba < d->most_unmap ? last - c.lba : d->most_unmap;
		ret = perform(d, &c, err);
	}
	return ret;
}

const struct remote_ops remote_iscsi = {
	.schemes = schemes, .open = open_disk, .close = close_disk, .read = read_disk, .write = write_disk, .zero = zero_disk,
	.discard = discard_disk, .flush = flush_disk, .refresh = ask_size,
};

#else

static struct remote *open_disk(const char *uri, bool readonly, unsigned connections, struct err *err)
{
	err_set(err, ENOTSUP, "%s: this Keel was built without libiscsi", uri);
	return NULL;
}

const struct remote_ops remote_iscsi = { .schemes = schemes, .open = open_disk };

#endif
