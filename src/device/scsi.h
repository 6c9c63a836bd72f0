/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SCSI commands of disks and CD-ROMs (SPC-4, SBC-3, MMC-6): from a command
 * descriptor block to an answer, or to what the image has to do for it. It
 * knows no transport and does no I/O. The guest writes every byte it sees.
 *
 * Thread safety: one thread at a time for a logical unit.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "image/block.h"
#include "machine/state.h"

#define SCSI_CDB_MAX 32
#define SCSI_SENSE_LEN 18
#define SCSI_DATA_MAX 4096   /* longest answer that is not a medium's data */
#define SCSI_RANGES 64       /* of one UNMAP */

enum { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02, SCSI_BUSY = 0x08, SCSI_TASK_ABORTED = 0x40 };
/* Sense key << 16 | additional sense code << 8 | qualifier. */
enum scsi_sense {
	SENSE_NONE = 0,
	SENSE_NO_MEDIUM = 0x023a00,
	SENSE_TRAY_OPEN = 0x023a02,
	SENSE_READ_ERROR = 0x031100,
	SENSE_WRITE_ERROR = 0x030c00,
	SENSE_HARDWARE = 0x044400,
	SENSE_OPCODE = 0x052000,
	SENSE_RANGE = 0x052100,
	SENSE_FIELD = 0x052400,
	SENSE_LUN = 0x052500,
	SENSE_PARAMETER = 0x052600,
	SENSE_LIST_LENGTH = 0x051a00,
	SENSE_REMOVAL_PREVENTED = 0x055302,
	SENSE_MEDIUM_CHANGED = 0x062800,
	SENSE_POWER_ON = 0x062900,
	SENSE_CAPACITY_CHANGED = 0x062a09,
	SENSE_EJECT_REQUEST = 0x065a01,
	SENSE_PROTECTED = 0x072700,
	SENSE_SPACE = 0x072707,
};

struct scsi_lun {
	bool cd;
	struct block *block;    /* NULL: an empty drive */
	uint32_t block_size;    /* 512 or 2048 */
	char serial[37], product[17];
	uint64_t wwn;           /* 0: none */
	bool discard;
	/* The guest's doing */
	bool wce, prevented, tray_open;
	uint32_t attention;     /* unit attention condition to report, an enum scsi_sense; 0: none */
};
extern const struct state_desc scsi_lun_state;

/* What the command comes to. */
struct scsi_result {
	uint8_t status;
	uint32_t sense;         /* with CHECK CONDITION */
	/* An answer */
	uint8_t data[SCSI_DATA_MAX];
	uint32_t len;
	/* Or I/O: then status is GOOD until that is done. */
	bool io;
	enum block_op op;
	bool fua, unmap;
	bool fill;              /* WRITE: the data is one block, to be written over and over */
	struct {
		uint64_t offset, len; /* bytes, inside of the image */
	} range[SCSI_RANGES];
	unsigned nranges;
	bool ejected;           /* the tray moved */
};

/* Power-on or reset. */
void scsi_lun_reset(struct scsi_lun *l);
/*
 * Carry out `cdb` (SCSI_CDB_MAX bytes, zero-filled) with `out` as the data that
 * comes with it. `luns`: the numbers that REPORT LUNS gives, ascending.
 */
void scsi_command(struct scsi_lun *l, const uint8_t *cdb, const struct iovec *out, unsigned nout, uint64_t out_len,
		  const uint16_t *luns, unsigned nluns, struct scsi_result *r);
/* For a number where no unit is, on a target that exists: INQUIRY, REPORT LUNS and REQUEST SENSE only. */
void scsi_command_no_lun(const uint8_t *cdb, const uint16_t *luns, unsigned nluns, struct scsi_result *r);
/* Fixed format sense data (SPC-4 §4.5.3). */
void scsi_sense(uint32_t sense, uint8_t out[SCSI_SENSE_LEN]);
/* The sense that stands for an image's error. */
uint32_t scsi_sense_of_error(int code, bool write);
