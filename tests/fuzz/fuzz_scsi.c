/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SCSI commands: pairs of a descriptor block and its data, to a disk and to a CD-ROM drive. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/scsi.h"

#define DISK (1u << 20)

static struct block *image(bool readonly)
{
	struct block_options o = { .path = "fuzz", .format = "raw", .readonly = readonly };

	o.fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (o.fd < 0 || ftruncate(o.fd, DISK))
		abort();
	return block_open(&o, NULL);
}

/* What every answer must be, whatever was asked. */
static void check(const struct scsi_lun *l, const struct scsi_result *r)
{
	if (r->len > SCSI_DATA_MAX || r->nranges > SCSI_RANGES || (r->status == SCSI_CHECK_CONDITION) != (r->sense != 0) ||
	    (r->io && (!r->nranges || r->status)) || l->attention > 0xffffff)
		__builtin_trap();
	for (unsigned i = 0; r->io && i < r->nranges; i++)
		if (r->range[i].offset > DISK || r->range[i].len > DISK - r->range[i].offset || r->range[i].len % 512 ||
		    (!r->range[i].len && r->op != BLOCK_FLUSH))
			__builtin_trap();
	if (l->cd && r->io && (r->op != BLOCK_READ && r->op != BLOCK_FLUSH))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct block *rw, *ro;
	static struct scsi_result r;
	static const uint16_t luns[3] = { 0, 1, 300 };
	struct scsi_lun l = { .block_size = 512, .serial = "S", .product = "P", .discard = true };

	if (!rw)
		rw = image(false);
	if (!ro)
		ro = image(true);
	if (!len)
		return 0;
	l.cd = data[0] & 1;
	l.block_size = l.cd ? 2048 : 512;
	l.block = data[0] & 2 && l.cd ? NULL : l.cd ? ro : rw;
	l.discard = data[0] & 4;
	scsi_lun_reset(&l);
	l.attention = 0;
	data++;
	for (len--; len >= 17;) {
		uint8_t cdb[SCSI_CDB_MAX] = { 0 };
		size_t n = data[16] < len - 17 ? data[16] : len - 17;
		uint8_t *copy = malloc(n + 1); /* of its own, so that a look past it is seen */
		struct iovec iov[2] = { { copy, n / 2 }, { copy + n / 2, n - n / 2 } };

		memcpy(cdb, data, 16);
		memcpy(copy, data + 17, n);
		scsi_command(&l, cdb, iov, 2, n, luns, 3, &r);
		check(&l, &r);
		scsi_command_no_lun(cdb, luns, 3, &r);
		check(&l, &r);
		free(copy);
		data += 17 + n;
		len -= 17 + n;
	}
	return 0;
}
