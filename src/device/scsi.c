/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/scsi.h"

#include <errno.h>
#include <string.h>

#include "device/virtq.h"

enum {
	TEST_UNIT_READY = 0x00, REQUEST_SENSE = 0x03, READ_6 = 0x08, WRITE_6 = 0x0a, INQUIRY = 0x12, MODE_SELECT_6 = 0x15,
	MODE_SENSE_6 = 0x1a, START_STOP = 0x1b, PREVENT_ALLOW = 0x1e, READ_CAPACITY_10 = 0x25, READ_10 = 0x28, WRITE_10 = 0x2a,
	WRITE_VERIFY_10 = 0x2e, VERIFY_10 = 0x2f, SYNCHRONIZE_10 = 0x35, WRITE_SAME_10 = 0x41, UNMAP = 0x42, READ_TOC = 0x43,
	GET_CONFIGURATION = 0x46, GET_EVENT_STATUS = 0x4a, READ_DISC_INFORMATION = 0x51, MODE_SELECT_10 = 0x55,
	MODE_SENSE_10 = 0x5a, READ_16 = 0x88, WRITE_16 = 0x8a, WRITE_VERIFY_16 = 0x8e, VERIFY_16 = 0x8f, SYNCHRONIZE_16 = 0x91,
	WRITE_SAME_16 = 0x93, SERVICE_ACTION_IN = 0x9e, REPORT_LUNS = 0xa0, READ_12 = 0xa8, WRITE_12 = 0xaa,
	WRITE_VERIFY_12 = 0xae, VERIFY_12 = 0xaf,
};

#define UNMAP_BLOCKS (1u << 22)     /* of one UNMAP or WRITE SAME */
#define TRANSFER_BLOCKS (1u << 16)  /* told as the longest transfer */

static uint32_t get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, v >> 32);
	put32(p + 4, v);
}

static void fail(struct scsi_result *r, uint32_t sense)
{
	r->status = SCSI_CHECK_CONDITION;
	r->sense = sense;
	r->len = 0;
	r->io = false;
}

/* An answer of `len` bytes in r->data, of which the command takes at most `room`. */
static void answer(struct scsi_result *r, uint32_t len, uint32_t room)
{
	r->len = len < room ? len : room;
}

void scsi_sense(uint32_t sense, uint8_t out[SCSI_SENSE_LEN])
{
	memset(out, 0, SCSI_SENSE_LEN);
	out[0] = 0x70;
	out[2] = sense >> 16;
	out[7] = SCSI_SENSE_LEN - 8;
	out[12] = sense >> 8;
	out[13] = sense;
}

uint32_t scsi_sense_of_error(int code, bool write)
{
	if (code == ENOSPC)
		return SENSE_SPACE;
	if (code == EIO)
		return write ? SENSE_WRITE_ERROR : SENSE_READ_ERROR;
	return code == EINVAL ? SENSE_RANGE : SENSE_HARDWARE;
}

void scsi_lun_reset(struct scsi_lun *l)
{
	l->wce = true;
	l->prevented = false;
	l->attention = SENSE_POWER_ON;
}

static bool has_medium(const struct scsi_lun *l)
{
	return l->block && !l->tray_open;
}

static uint64_t blocks(const struct scsi_lun *l)
{
	return has_medium(l) ? block_size(l->block) / l->block_size : 0;
}

/* ---- INQUIRY (SPC-4 §6.6, §7.8) ---------------------------------------------- */

static void text_field(uint8_t *p, size_t len, const char *text)
{
	size_t n = strnlen(text, len);

	memset(p, ' ', len);
	memcpy(p, text, n);
}

/* Block limits (SBC-3 §6.6.3). */
static uint32_t page_limits(const struct scsi_lun *l, uint8_t *p)
{
	put16(p + 6, 4096 / l->block_size);   /* optimal granularity */
	put32(p + 8, TRANSFER_BLOCKS);
	if (l->discard) {
		put32(p + 20, UNMAP_BLOCKS);
		put32(p + 24, SCSI_RANGES);
		put32(p + 28, 4096 / l->block_size);
	}
	put64(p + 36, UNMAP_BLOCKS);          /* WRITE SAME */
	return 64;
}

static uint32_t page_identification(const struct scsi_lun *l, uint8_t *p)
{
	uint32_t at = 4, n = strlen(l->serial);

	/* T10 vendor ID based, ASCII */
	p[at] = 2;
	p[at + 1] = 1;
	p[at + 3] = 8 + n;
	text_field(p + at + 4, 8, "KEEL");
	memcpy(p + at + 12, l->serial, n);
	at += 12 + n;
	if (l->wwn) { /* NAA */
		p[at] = 1;
		p[at + 1] = 3;
		p[at + 3] = 8;
		put64(p + at + 4, l->wwn);
		at += 12;
	}
	return at;
}

static void vital_page(struct scsi_lun *l, uint8_t page, uint32_t room, struct scsi_result *r)
{
	static const uint8_t disk_pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 }, cd_pages[] = { 0x00, 0x80, 0x83 };
	uint8_t *p = r->data;
	uint32_t len;

	p[0] = l->cd ? 5 : 0;
	p[1] = page;
	switch (l->cd && page >= 0xb0 ? 0xff : page) {
	case 0x00:
		len = 4 + (l->cd ? sizeof(cd_pages) : sizeof(disk_pages));
		memcpy(p + 4, l->cd ? cd_pages : disk_pages, len - 4);
		break;
	case 0x80:
		len = 4 + strlen(l->serial);
		memcpy(p + 4, l->serial, len - 4);
		break;
	case 0x83:
		len = page_identification(l, p);
		break;
	case 0xb0:
		len = page_limits(l, p);
		break;
	case 0xb1: /* not rotating */
		put16(p + 4, 1);
		len = 64;
		break;
	case 0xb2: /* logical block provisioning: UNMAP and WRITE SAME, thin */
		p[5] = l->discard ? 0xe0 : 0;
		p[6] = l->discard ? 2 : 0;
		len = 8;
		break;
	default:
		fail(r, SENSE_FIELD);
		return;
	}
	put16(p + 2, len - 4);
	answer(r, len, room);
}

static void inquiry(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	uint32_t room = get16(cdb + 3);
	uint8_t *p = r->data;

	if (cdb[1] & 1) {
		vital_page(l, cdb[2], room, r);
		return;
	}
	/* The high bits of byte 1 were the unit's number once, and Linux still sends it before it knows better. */
	if (cdb[2] || cdb[1] & 0x1f) {
		fail(r, SENSE_FIELD);
		return;
	}
	p[0] = l->cd ? 5 : 0;
	p[1] = l->cd ? 0x80 : 0;
	p[2] = 6;       /* SPC-4 */
	p[3] = 0x12;    /* HiSup, format 2 */
	p[4] = 36 - 5;
	p[7] = 0x02;    /* command queuing */
	text_field(p + 8, 8, "KEEL");
	text_field(p + 16, 16, l->product);
	text_field(p + 32, 4, "1.0");
	answer(r, 36, room);
}

/* ---- Mode pages (SPC-4 §7.5, SBC-3 §6.5) -------------------------------------- */

/* Page `page` at p; its length, 0: there is none. Control: 0 current, 1 changeable, 2 default. */
static uint32_t mode_page(const struct scsi_lun *l, uint8_t page, unsigned control, uint8_t *p)
{
	switch (page) {
	case 0x01: /* read-write error recovery: nothing is changeable, automatic reallocation */
		p[0] = page;
		p[1] = 10;
		p[2] = control == 1 ? 0 : l->cd ? 0 : 0xc0;
		return 12;
	case 0x08: /* caching */
		if (l->cd)
			return 0;
		p[0] = page;
		p[1] = 18;
		p[2] = control || l->wce ? 4 : 0;
		return 20;
	case 0x0a: /* control */
		p[0] = page;
		p[1] = 10;
		p[3] = control == 1 ? 0 : 0x10; /* unrestricted reordering */
		return 12;
	case 0x2a: /* MM capabilities (MMC-3 §6.3.11): reads, locks, ejects, tray */
		if (!l->cd)
			return 0;
		p[0] = page;
		p[1] = 20;
		if (control == 1)
			return 22;
		p[2] = 0x3b;
		p[4] = 0x70;
		p[6] = 0x29 | (l->prevented ? 2 : 0);
		put16(p + 8, 706 * 50);
		put16(p + 10, 2);
		put16(p + 14, 706 * 50);
		return 22;
	}
	return 0;
}

static void mode_sense(struct scsi_lun *l, const uint8_t *cdb, bool ten, struct scsi_result *r)
{
	uint8_t *p = r->data, page = cdb[2] & 0x3f;
	unsigned control = cdb[2] >> 6, at = ten ? 8 : 4;
	uint32_t room = ten ? get16(cdb + 7) : cdb[4];
	static const uint8_t all[] = { 0x01, 0x08, 0x0a, 0x2a };
	uint64_t n = blocks(l);
	bool found = page == 0x3f;

	if (control == 3 || (cdb[3] && cdb[3] != 0xff)) { /* saved values; subpages */
		fail(r, control == 3 ? 0x053900 : SENSE_FIELD);
		return;
	}
	if (!(cdb[1] & 8) && !l->cd) { /* short block descriptor */
		put32(p + at, n > 0xffffffff ? 0xffffffff : n);
		put32(p + at + 4, l->block_size & 0xffffff);
		at += 8;
		p[ten ? 7 : 3] = 8;
	}
	for (unsigned i = 0; i < sizeof(all); i++) {
		uint32_t len = page == 0x3f || page == all[i] ? mode_page(l, all[i], control, p + at) : 0;

		found |= len;
		at += len;
	}
	if (!found) {
		fail(r, SENSE_FIELD);
		return;
	}
	/* Device-specific: write protection, FUA is known. */
	p[ten ? 3 : 2] = l->cd ? 0 : (l->block && block_readonly(l->block) ? 0x80 : 0) | 0x10;
	if (ten)
		put16(p, at - 2);
	else
		p[0] = at - 1;
	answer(r, at, room);
}

/* Only the write cache can be switched; everything else must be as it is. */
static void mode_select(struct scsi_lun *l, const uint8_t *cdb, bool ten, const struct iovec *out, unsigned nout,
			uint64_t out_len, struct scsi_result *r)
{
	uint32_t len = ten ? get16(cdb + 7) : cdb[4], at = ten ? 8 : 4;
	uint8_t p[256] = { 0 }, now[64], change[64];
	bool wce = l->wce;

	if (!len)
		return;
	if (!(cdb[1] & 0x10) || len > sizeof(p) || len > out_len || len < at) {
		fail(r, !(cdb[1] & 0x10) ? SENSE_FIELD : SENSE_LIST_LENGTH);
		return;
	}
	iov_read(out, nout, 0, p, len);
	at += ten ? get16(p + 6) : p[3]; /* block descriptors: the block size is what it is */
	while (at + 2 <= len) {
		uint32_t n = mode_page(l, p[at] & 0x3f, 0, memset(now, 0, sizeof(now)));

		mode_page(l, p[at] & 0x3f, 1, memset(change, 0, sizeof(change)));
		if (!n || p[at] & 0x40 || p[at + 1] != n - 2 || at + n > len) {
			fail(r, SENSE_PARAMETER);
			return;
		}
		for (uint32_t i = 2; i < n; i++) {
			if ((p[at + i] ^ now[i]) & ~change[i]) {
				fail(r, SENSE_PARAMETER);
				return;
			}
		}
		if ((p[at] & 0x3f) == 0x08)
			wce = p[at + 2] & 4;
		at += n;
	}
	l->wce = wce;
}

/* ---- The medium ------------------------------------------------------------------ */

/* A range of blocks as one of bytes. False: it is not on the medium, and the result says so. */
static bool add_range(const struct scsi_lun *l, uint64_t lba, uint64_t n, struct scsi_result *r)
{
	uint64_t have = blocks(l);

	if (lba > have || n > have - lba) {
		fail(r, SENSE_RANGE);
		return false;
	}
	if (n) {
		r->range[r->nranges].offset = lba * l->block_size;
		r->range[r->nranges++].len = n * l->block_size;
	}
	return true;
}

static bool writable(const struct scsi_lun *l, struct scsi_result *r)
{
	if (!l->cd && !block_readonly(l->block))
		return true;
	fail(r, SENSE_PROTECTED);
	return false;
}

/* Address and length of the usual forms of a command, by its group (SPC-4 §4.2.5.1). */
static void decode(const uint8_t *cdb, uint64_t *lba, uint64_t *n)
{
	switch (cdb[0] >> 5) {
	case 0:
		*lba = get32(cdb) & 0x1fffff;
		*n = cdb[4] ? cdb[4] : 256;
		break;
	case 1:
	case 2:
		*lba = get32(cdb + 2);
		*n = get16(cdb + 7);
		break;
	case 5:
		*lba = get32(cdb + 2);
		*n = get32(cdb + 6);
		break;
	default:
		*lba = get64(cdb + 2);
		*n = get32(cdb + 10);
	}
}

static void transfer(struct scsi_lun *l, const uint8_t *cdb, enum block_op op, struct scsi_result *r)
{
	bool six = cdb[0] == READ_6 || cdb[0] == WRITE_6;
	uint64_t lba, n;

	decode(cdb, &lba, &n);
	if (!six && cdb[1] & 0xe0) { /* protection information: there is none */
		fail(r, SENSE_FIELD);
		return;
	}
	if (op == BLOCK_WRITE && !writable(l, r))
		return;
	if (!add_range(l, lba, n, r))
		return;
	r->io = r->nranges;
	r->op = op;
	r->fua = op == BLOCK_WRITE && (!l->wce || (!six && cdb[1] & 8));
}

/* Without comparing bytes there is nothing to do but to look at the range. */
static void verify(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	uint64_t lba, n;

	decode(cdb, &lba, &n);
	if (cdb[1] & 0xe6)
		fail(r, SENSE_FIELD);
	else
		add_range(l, lba, n, r);
	r->nranges = 0;
}

static void synchronize(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	uint64_t lba, n;

	decode(cdb, &lba, &n);
	if (!add_range(l, lba, n, r))
		return;
	r->nranges = 1;
	r->range[0].offset = r->range[0].len = 0;
	r->io = true;
	r->op = BLOCK_FLUSH;
}

static void unmap(struct scsi_lun *l, const uint8_t *cdb, const struct iovec *out, unsigned nout, uint64_t out_len,
		  struct scsi_result *r)
{
	uint8_t p[8 + 16 * SCSI_RANGES] = { 0 };
	uint32_t len = get16(cdb + 7), bytes;
	uint64_t total = 0;

	if (!l->discard || cdb[1] & 1) {
		fail(r, l->discard ? SENSE_FIELD : SENSE_OPCODE);
		return;
	}
	if (!writable(l, r) || !len)
		return;
	if (len < 8 || len > out_len) {
		fail(r, SENSE_LIST_LENGTH);
		return;
	}
	iov_read(out, nout, 0, p, len < sizeof(p) ? len : sizeof(p));
	bytes = get16(p + 2);
	if (bytes > len - 8)
		bytes = len - 8;
	if (bytes / 16 > SCSI_RANGES) {
		fail(r, SENSE_PARAMETER);
		return;
	}
	for (uint32_t i = 0; i < bytes / 16; i++) {
		uint64_t n = get32(p + 16 + 16 * i);

		total += n;
		if (total > UNMAP_BLOCKS) {
			fail(r, SENSE_PARAMETER);
			return;
		}
		if (!add_range(l, get64(p + 8 + 16 * i), n, r))
			return;
	}
	r->io = r->nranges;
	r->op = BLOCK_DISCARD;
}

static bool all_zero(const struct iovec *out, unsigned nout, uint32_t len)
{
	uint8_t bytes[2048];

	iov_read(out, nout, 0, bytes, len);
	for (uint32_t i = 0; i < len; i++)
		if (bytes[i])
			return false;
	return true;
}

static void write_same(struct scsi_lun *l, const uint8_t *cdb, const struct iovec *out, unsigned nout, uint64_t out_len,
		       struct scsi_result *r)
{
	bool sixteen = cdb[0] == WRITE_SAME_16, no_data = sixteen && cdb[1] & 1;
	uint64_t lba, n;

	decode(cdb, &lba, &n);
	if (!n)
		n = blocks(l) > lba ? blocks(l) - lba : 0;
	/* Protection, anchors, and the obsolete bits that write addresses instead. */
	if (cdb[1] & (sixteen ? 0xf6 : 0xf7) || n > UNMAP_BLOCKS || (cdb[1] & 8 && !l->discard)) {
		fail(r, SENSE_FIELD);
		return;
	}
	if (!writable(l, r) || !add_range(l, lba, n, r))
		return;
	if (!no_data && out_len < l->block_size) {
		fail(r, SENSE_PARAMETER);
		return;
	}
	r->io = r->nranges;
	r->op = BLOCK_WRITE_ZEROES;
	r->unmap = cdb[1] & 8;
	if (!no_data && !all_zero(out, nout, l->block_size)) {
		r->op = BLOCK_WRITE;
		r->fill = true;
		r->unmap = false;
	}
}

static void read_capacity_10(struct scsi_lun *l, struct scsi_result *r)
{
	uint64_t n = blocks(l);

	put32(r->data, n > 0xffffffff ? 0xffffffff : n - 1);
	put32(r->data + 4, l->block_size);
	r->len = 8;
}

static void service_action_in(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	unsigned exponent = l->block_size < 4096 ? __builtin_ctz(4096 / l->block_size) : 0;

	if ((cdb[1] & 0x1f) != 0x10) {
		fail(r, SENSE_FIELD);
		return;
	}
	put64(r->data, blocks(l) - 1);
	put32(r->data + 8, l->block_size);
	r->data[13] = l->cd ? 0 : exponent;
	r->data[14] = l->discard && !l->cd ? 0xc0 : 0; /* thin, and zero after UNMAP */
	answer(r, 32, get32(cdb + 10));
}

/* ---- CD-ROM (MMC-6) ---------------------------------------------------------------- */

static void msf(uint8_t *p, uint32_t lba)
{
	lba += 150;
	p[1] = lba / (60 * 75);
	p[2] = lba / 75 % 60;
	p[3] = lba % 75;
}

static uint32_t toc_entry(uint8_t *p, unsigned track, uint32_t lba, bool as_msf)
{
	p[1] = 0x14; /* a data track */
	p[2] = track;
	if (as_msf)
		msf(p + 4, lba);
	else
		put32(p + 4, lba);
	return 8;
}

static void read_toc(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	unsigned format = cdb[2] & 15 ? cdb[2] & 15 : cdb[9] >> 6;
	uint8_t *p = r->data;
	uint32_t at = 4;

	p[2] = p[3] = 1;
	if (format > 1 || (format == 0 && cdb[6] > 1 && cdb[6] != 0xaa)) {
		fail(r, SENSE_FIELD);
		return;
	}
	if (format == 1 || cdb[6] <= 1)
		at += toc_entry(p + at, 1, 0, cdb[1] & 2);
	if (format == 0)
		at += toc_entry(p + at, 0xaa, blocks(l), cdb[1] & 2);
	put16(p, at - 2);
	answer(r, at, get16(cdb + 7));
}

static void get_configuration(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	/* Media larger than a CD are DVDs. */
	unsigned profile = !has_medium(l) ? 0 : blocks(l) > 1151850 / 2 ? 0x10 : 0x08;
	uint8_t *p = r->data;

	put16(p + 6, profile);
	/* Profile list: DVD-ROM, CD-ROM; core feature */
	p[8 + 2] = 3;
	p[8 + 3] = 8;
	put16(p + 12, 0x10);
	p[14] = profile == 0x10;
	put16(p + 16, 0x08);
	p[18] = profile == 0x08;
	p[20 + 1] = 1;
	p[20 + 2] = 0x0b;
	p[20 + 3] = 8;
	put32(p + 24, 1); /* SCSI */
	p[28] = 1;
	put32(p, 32 - 4);
	answer(r, 32, get16(cdb + 7));
}

static void get_event_status(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	uint8_t *p = r->data;

	if (!(cdb[1] & 1)) { /* only polling */
		fail(r, SENSE_FIELD);
		return;
	}
	p[3] = 0x10; /* media events */
	if (!(cdb[4] & 0x10)) {
		p[1] = 2;
		p[2] = 0x80;
		answer(r, 4, get16(cdb + 7));
		return;
	}
	p[1] = 6;
	p[2] = 4;
	if (l->attention == SENSE_EJECT_REQUEST) {
		p[4] = 1;
		l->attention = 0;
	} else if (l->attention == SENSE_MEDIUM_CHANGED) {
		p[4] = 2; /* new media; the unit attention stays */
	}
	p[5] = (l->tray_open ? 1 : 0) | (l->block ? 2 : 0);
	answer(r, 8, get16(cdb + 7));
}

static void read_disc_information(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	uint8_t *p = r->data;

	if (cdb[1] & 7) {
		fail(r, SENSE_FIELD);
		return;
	}
	put16(p, 32);
	p[2] = 0x0e; /* complete, last session complete */
	p[3] = p[4] = p[5] = p[6] = 1;
	p[7] = 0x20;
	put32(p + 16, UINT32_MAX);
	put32(p + 20, UINT32_MAX);
	answer(r, 34, get16(cdb + 7));
}

static void start_stop(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
	bool load = cdb[4] & 2, start = cdb[4] & 1;

	if (!l->cd || !load || cdb[4] >> 4)
		return;
	if (!start && l->prevented && !l->tray_open) {
		fail(r, SENSE_REMOVAL_PREVENTED);
		return;
	}
	r->ejected = l->tray_open != !start;
	if (l->tray_open && start && l->block)
		l->attention = SENSE_MEDIUM_CHANGED;
	l->tray_open = !start;
}

/* ---- Dispatch ------------------------------------------------------------------------ */

static void report_luns(const uint8_t *cdb, const uint16_t *luns, unsigned n, struct scsi_result *r)
{
	uint32_t room = get32(cdb + 6);
	unsigned most = (SCSI_DATA_MAX - 8) / 8;

	if (cdb[2] > 2 || room < 16) {
		fail(r, SENSE_FIELD);
		return;
	}
	n = cdb[2] == 1 ? 0 : n < most ? n : most; /* 1: well-known ones only */
	put32(r->data, 8 * n);
	for (unsigned i = 0; i < n; i++)
		put16(r->data + 8 + 8 * i, luns[i] < 256 ? luns[i] : 0x4000 | luns[i]);
	answer(r, 8 + 8 * n, room);
}

static void request_sense(const uint8_t *cdb, uint32_t sense, struct scsi_result *r)
{
	if (cdb[1] & 1) { /* descriptor format */
		r->data[0] = 0x72;
		r->data[1] = sense >> 16;
		r->data[2] = sense >> 8;
		r->data[3] = sense;
		answer(r, 8, cdb[4]);
		return;
	}
	scsi_sense(sense, r->data);
	answer(r, SCSI_SENSE_LEN, cdb[4]);
}

void scsi_command_no_lun(const uint8_t *cdb, const uint16_t *luns, unsigned nluns, struct scsi_result *r)
{
	memset(r, 0, sizeof(*r));
	switch (cdb[0]) {
	case INQUIRY:
		r->data[0] = 0x7f; /* nothing can be here */
		r->data[4] = 36 - 5;
		answer(r, 36, get16(cdb + 3));
		break;
	case REPORT_LUNS:
		report_luns(cdb, luns, nluns, r);
		break;
	case REQUEST_SENSE:
		request_sense(cdb, SENSE_LUN, r);
		break;
	default:
		fail(r, SENSE_LUN);
	}
}

/* Commands that need a medium. */
static void medium_command(struct scsi_lun *l, const uint8_t *cdb, const struct iovec *out, unsigned nout, uint64_t out_len,
			   struct scsi_result *r)
{
	switch (cdb[0]) {
	case TEST_UNIT_READY:
		break;
	case READ_6:
	case READ_10:
	case READ_12:
	case READ_16:
		transfer(l, cdb, BLOCK_READ, r);
		break;
	case WRITE_6:
	case WRITE_10:
	case WRITE_12:
	case WRITE_16:
	case WRITE_VERIFY_10:
	case WRITE_VERIFY_12:
	case WRITE_VERIFY_16:
		transfer(l, cdb, BLOCK_WRITE, r);
		break;
	case VERIFY_10:
	case VERIFY_12:
	case VERIFY_16:
		verify(l, cdb, r);
		break;
	case SYNCHRONIZE_10:
	case SYNCHRONIZE_16:
		synchronize(l, cdb, r);
		break;
	case READ_CAPACITY_10:
		read_capacity_10(l, r);
		break;
	case SERVICE_ACTION_IN:
		service_action_in(l, cdb, r);
		break;
	case READ_TOC:
		read_toc(l, cdb, r);
		break;
	case READ_DISC_INFORMATION:
		read_disc_information(l, cdb, r);
		break;
	case UNMAP:
		unmap(l, cdb, out, nout, out_len, r);
		break;
	default:
		write_same(l, cdb, out, nout, out_len, r);
	}
}

enum { KNOWN = 1, NEEDS_MEDIUM = 2, DISK_ONLY = 4, CD_ONLY = 8, ANY_TIME = 16 /* in spite of a unit attention */ };
static const uint8_t commands[256] = {
	[INQUIRY] = KNOWN | ANY_TIME, [REPORT_LUNS] = KNOWN | ANY_TIME, [REQUEST_SENSE] = KNOWN | ANY_TIME,
	[GET_CONFIGURATION] = KNOWN | CD_ONLY | ANY_TIME, [GET_EVENT_STATUS] = KNOWN | CD_ONLY | ANY_TIME,
	[MODE_SENSE_6] = KNOWN, [MODE_SENSE_10] = KNOWN, [MODE_SELECT_6] = KNOWN, [MODE_SELECT_10] = KNOWN,
	[START_STOP] = KNOWN, [PREVENT_ALLOW] = KNOWN | CD_ONLY,
	[TEST_UNIT_READY] = KNOWN | NEEDS_MEDIUM, [READ_6] = KNOWN | NEEDS_MEDIUM, [READ_10] = KNOWN | NEEDS_MEDIUM,
	[READ_12] = KNOWN | NEEDS_MEDIUM, [READ_16] = KNOWN | NEEDS_MEDIUM, [READ_CAPACITY_10] = KNOWN | NEEDS_MEDIUM,
	[SERVICE_ACTION_IN] = KNOWN | NEEDS_MEDIUM, [SYNCHRONIZE_10] = KNOWN | NEEDS_MEDIUM,
	[SYNCHRONIZE_16] = KNOWN | NEEDS_MEDIUM, [VERIFY_10] = KNOWN | NEEDS_MEDIUM, [VERIFY_12] = KNOWN | NEEDS_MEDIUM,
	[VERIFY_16] = KNOWN | NEEDS_MEDIUM, [READ_TOC] = KNOWN | NEEDS_MEDIUM | CD_ONLY,
	[READ_DISC_INFORMATION] = KNOWN | NEEDS_MEDIUM | CD_ONLY,
	[WRITE_6] = KNOWN | NEEDS_MEDIUM | DISK_ONLY, [WRITE_10] = KNOWN | NEEDS_MEDIUM | DISK_ONLY,
	[WRITE_12] = KNOWN | NEEDS_MEDIUM | DISK_ONLY, [WRITE_16] = KNOWN | NEEDS_MEDIUM | DISK_ONLY,
	[WRITE_VERIFY_10] = KNOWN | NEEDS_MEDIUM | DISK_ONLY, [WRITE_VERIFY_12] = KNOWN | NEEDS_MEDIUM | DISK_ONLY,
	[WRITE_VERIFY_16] = KNOWN | NEEDS_MEDIUM | DISK_ONLY, [UNMAP] = KNOWN | NEEDS_MEDIUM | DISK_ONLY,
	[WRITE_SAME_10] = KNOWN | NEEDS_MEDIUM | DISK_ONLY, [WRITE_SAME_16] = KNOWN | NEEDS_MEDIUM | DISK_ONLY,
};

void scsi_command(struct scsi_lun *l, const uint8_t *cdb, const struct iovec *out, unsigned nout, uint64_t out_len,
		  const uint16_t *luns, unsigned nluns, struct scsi_result *r)
{
	uint8_t kind = commands[cdb[0]];
	uint32_t attention = l->attention;

	memset(r, 0, sizeof(*r));
	if (!(kind & KNOWN) || kind & (l->cd ? DISK_ONLY : CD_ONLY)) {
		/* Reservations among them: who needs them must know that there are none. */
		fail(r, SENSE_OPCODE);
		return;
	}
	if (attention && !(kind & ANY_TIME)) { /* reported once (SAM-5 §5.14) */
		l->attention = 0;
		fail(r, attention);
		return;
	}
	if (kind & NEEDS_MEDIUM && !has_medium(l)) {
		fail(r, l->tray_open ? SENSE_TRAY_OPEN : SENSE_NO_MEDIUM);
		return;
	}
	switch (cdb[0]) {
	case INQUIRY:
		inquiry(l, cdb, r);
		break;
	case REPORT_LUNS:
		report_luns(cdb, luns, nluns, r);
		break;
	case REQUEST_SENSE:
		l->attention = 0;
		request_sense(cdb, attention, r);
		break;
	case MODE_SENSE_6:
	case MODE_SENSE_10:
		mode_sense(l, cdb, cdb[0] == MODE_SENSE_10, r);
		break;
	case MODE_SELECT_6:
	case MODE_SELECT_10:
		mode_select(l, cdb, cdb[0] == MODE_SELECT_10, out, nout, out_len, r);
		break;
	case START_STOP:
		start_stop(l, cdb, r);
		break;
	case PREVENT_ALLOW:
		l->prevented = cdb[4] & 1;
		break;
	case GET_CONFIGURATION:
		get_configuration(l, cdb, r);
		break;
	case GET_EVENT_STATUS:
		get_event_status(l, cdb, r);
		break;
	default:
		medium_command(l, cdb, out, nout, out_len, r);
	}
}

static const struct state_field lun_fields[] = {
	STATE_FIELD_BOOL(struct scsi_lun, wce),
	STATE_FIELD_BOOL(struct scsi_lun, prevented),
	STATE_FIELD_BOOL(struct scsi_lun, tray_open),
	STATE_FIELD_LIMITED(STATE_U32, struct scsi_lun, attention, 0xffffff),
	STATE_END,
};
const struct state_desc scsi_lun_state = { .name = "scsi-lun", .version = 1, .fields = lun_fields };
