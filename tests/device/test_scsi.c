/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands of disks and CD-ROM drives: answers by the fields that SPC-4, SBC-3 and MMC-6 give them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/scsi.h"
#include "util/log.h"

#define DISK (8u << 20)

static struct scsi_lun disk, cd;
static struct scsi_result r;
static const uint16_t luns[3] = { 0, 5, 300 };

static struct block *image(bool readonly)
{
	struct block_options o = { .path = "test", .format = "raw", .readonly = readonly };

	o.fd = memfd_create("test", MFD_CLOEXEC);
	assert_int_equal(ftruncate(o.fd, DISK), 0);
	return block_open(&o, NULL);
}

static int setup(void **state)
{
	log_set_level(LOG_ERROR);
	disk = (struct scsi_lun){ .block = image(false), .block_size = 512, .serial = "SN42", .product = "HARDDISK",
				  .wwn = 0x5000c50015ea71acull, .discard = true, .wce = true };
	cd = (struct scsi_lun){ .cd = true, .block = image(true), .block_size = 2048, .serial = "CD1", .product = "CD-ROM" };
	return 0;
}

static int teardown(void **state)
{
	block_close(disk.block);
	block_close(cd.block);
	return 0;
}

/* A command by its bytes, with `out` as its data. */
static void run(struct scsi_lun *l, const char *bytes, size_t n, const void *out, size_t len)
{
	uint8_t cdb[SCSI_CDB_MAX] = { 0 };
	struct iovec iov = { (void *)out, len };

	memcpy(cdb, bytes, n);
	scsi_command(l, cdb, &iov, 1, len, luns, 3, &r);
}
#define RUN(l, bytes) run(l, bytes, sizeof(bytes) - 1, NULL, 0)
#define RUN_DATA(l, bytes, out) run(l, bytes, sizeof(bytes) - 1, out, sizeof(out))

static void refused(uint32_t sense)
{
	assert_int_equal(r.status, SCSI_CHECK_CONDITION);
	assert_int_equal(r.sense, sense);
	assert_false(r.io);
	assert_int_equal(r.len, 0);
}

static uint64_t be(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static void test_inquiry(void **state)
{
	RUN(&disk, "\x12\0\0\0\x24\0");
	assert_int_equal(r.len, 36);
	assert_int_equal(r.data[0], 0);
	assert_int_equal(r.data[1], 0);
	assert_int_equal(r.data[4], 31);
	assert_memory_equal(r.data + 8, "KEEL    HARDDISK        ", 24);
	RUN(&cd, "\x12\0\0\0\xff\0");
	assert_int_equal(r.data[0], 5);
	assert_int_equal(r.data[1], 0x80);
	RUN(&disk, "\x12\0\0\0\x05\0"); /* cut off */
	assert_int_equal(r.len, 5);
	RUN(&disk, "\x12\0\x80\0\x24\0"); /* a page without EVPD */
	refused(SENSE_FIELD);
	RUN(&disk, "\x12\x01\x80\0\xff\0");
	assert_int_equal(r.len, 8);
	assert_memory_equal(r.data + 4, "SN42", 4);
	RUN(&disk, "\x12\x01\x83\0\xff\0");
	assert_int_equal(r.len, 4 + be(r.data + 2, 2));
	assert_int_equal(be(r.data + r.len - 8, 8), 0x5000c50015ea71acull);
	RUN(&disk, "\x12\x01\xb0\0\xff\0");
	assert_int_equal(r.len, 64);
	assert_true(be(r.data + 20, 4) && be(r.data + 24, 4));
	RUN(&disk, "\x12\x01\xb2\0\xff\0");
	assert_int_equal(r.data[5] & 0xe0, 0xe0); /* UNMAP, WRITE SAME 16 and 10 with it */
	RUN(&cd, "\x12\x01\xb0\0\xff\0");
	refused(SENSE_FIELD);
	/* Every page of the list is there. */
	RUN(&disk, "\x12\x01\0\0\xff\0");
	for (unsigned i = 0, n = be(r.data + 2, 2); i < n; i++) {
		char cdb[6] = { 0x12, 1, 0, 0, (char)0xff };

		RUN(&disk, "\x12\x01\0\0\xff\0");
		cdb[2] = r.data[4 + i];
		run(&disk, cdb, 6, NULL, 0);
		assert_int_equal(r.status, SCSI_GOOD);
		assert_int_equal(r.data[1], (uint8_t)cdb[2]);
	}
}

static void test_capacity(void **state)
{
	RUN(&disk, "\x25\0\0\0\0\0\0\0\0\0");
	assert_int_equal(r.len, 8);
	assert_int_equal(be(r.data, 4), DISK / 512 - 1);
	assert_int_equal(be(r.data + 4, 4), 512);
	RUN(&disk, "\x9e\x10\0\0\0\0\0\0\0\0\0\0\0\x20\0\0");
	assert_int_equal(r.len, 32);
	assert_int_equal(be(r.data, 8), DISK / 512 - 1);
	assert_int_equal(r.data[13], 3); /* 4096 bytes a physical block */
	assert_int_equal(r.data[14], 0xc0);
	RUN(&cd, "\x25\0\0\0\0\0\0\0\0\0");
	assert_int_equal(be(r.data, 4), DISK / 2048 - 1);
	assert_int_equal(be(r.data + 4, 4), 2048);
}

static void expect_io(enum block_op op, uint64_t offset, uint64_t len)
{
	assert_int_equal(r.status, SCSI_GOOD);
	assert_true(r.io);
	assert_int_equal(r.op, op);
	assert_int_equal(r.nranges, 1);
	assert_int_equal(r.range[0].offset, offset);
	assert_int_equal(r.range[0].len, len);
}

static void test_transfers(void **state)
{
	RUN(&disk, "\x08\0\x01\x02\x03\0");
	expect_io(BLOCK_READ, 0x102 * 512, 3 * 512);
	RUN(&disk, "\x08\0\0\0\0\0"); /* 0 is 256 */
	expect_io(BLOCK_READ, 0, 256 * 512);
	RUN(&disk, "\x28\0\0\0\0\x10\0\x01\0\0");
	expect_io(BLOCK_READ, 0x10 * 512, 256 * 512);
	RUN(&disk, "\x2a\0\0\0\0\x10\0\0\x01\0");
	expect_io(BLOCK_WRITE, 0x10 * 512, 512);
	assert_false(r.fua);
	RUN(&disk, "\x2a\x08\0\0\0\x10\0\0\x01\0");
	assert_true(r.fua);
	RUN(&disk, "\xaa\0\0\0\0\x10\0\0\0\x02\0\0");
	expect_io(BLOCK_WRITE, 0x10 * 512, 1024);
	RUN(&disk, "\x88\0\0\0\0\0\0\0\x3f\xff\0\0\0\x01\0\0");
	expect_io(BLOCK_READ, 0x3fff * 512, 512);
	RUN(&disk, "\x28\0\0\0\0\x10\0\0\0\0"); /* nothing */
	assert_false(r.io);
	assert_int_equal(r.status, SCSI_GOOD);
	RUN(&disk, "\x35\0\0\0\0\0\0\0\0\0");
	assert_int_equal(r.op, BLOCK_FLUSH);
	/* Past the end, by one and by everything. */
	RUN(&disk, "\x88\0\0\0\0\0\0\0\x3f\xff\0\0\0\x02\0\0");
	refused(SENSE_RANGE);
	RUN(&disk, "\x88\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
	refused(SENSE_RANGE);
	RUN(&disk, "\x28\x20\0\0\0\x10\0\0\x01\0"); /* protection information */
	refused(SENSE_FIELD);
	RUN(&cd, "\x28\0\0\0\0\x01\0\0\x02\0");
	expect_io(BLOCK_READ, 2048, 4096);
	RUN(&cd, "\x2a\0\0\0\0\x10\0\0\x01\0");
	refused(SENSE_OPCODE);
}

static void test_unmap(void **state)
{
	uint8_t p[8 + 16 * 2] = { 0, 38, 0, 32 };

	p[8 + 7] = 8;       /* 8 blocks at 8 */
	p[8 + 11] = 8;
	p[24 + 7] = 0x40;
	p[24 + 11] = 16;
	RUN_DATA(&disk, "\x42\0\0\0\0\0\0\0\x28\0", p);
	assert_true(r.io);
	assert_int_equal(r.op, BLOCK_DISCARD);
	assert_int_equal(r.nranges, 2);
	assert_int_equal(r.range[1].offset, 0x40 * 512);
	assert_int_equal(r.range[1].len, 16 * 512);
	p[24 + 4] = 1; /* far away */
	RUN_DATA(&disk, "\x42\0\0\0\0\0\0\0\x28\0", p);
	refused(SENSE_RANGE);
	RUN_DATA(&disk, "\x42\0\0\0\0\0\0\0\x04\0", p);
	refused(SENSE_LIST_LENGTH);
	RUN_DATA(&disk, "\x42\0\0\0\0\0\0\xff\xff\0", p);
	refused(SENSE_LIST_LENGTH);
	disk.discard = false;
	RUN_DATA(&disk, "\x42\0\0\0\0\0\0\0\x28\0", p);
	refused(SENSE_OPCODE);
}

static void test_write_same(void **state)
{
	uint8_t zero[512] = { 0 }, other[512] = { 1 };

	RUN_DATA(&disk, "\x93\x08\0\0\0\0\0\0\0\x10\0\0\x01\0\0\0", zero);
	expect_io(BLOCK_WRITE_ZEROES, 0x10 * 512, 256 * 512);
	assert_true(r.unmap && !r.fill);
	RUN(&disk, "\x93\x01\0\0\0\0\0\0\0\x10\0\0\x01\0\0\0"); /* no data */
	expect_io(BLOCK_WRITE_ZEROES, 0x10 * 512, 256 * 512);
	RUN_DATA(&disk, "\x41\0\0\0\0\x10\0\0\x02\0", other);
	expect_io(BLOCK_WRITE, 0x10 * 512, 1024);
	assert_true(r.fill);
	RUN(&disk, "\x41\0\0\0\0\x10\0\0\x02\0"); /* the data is missing */
	refused(SENSE_PARAMETER);
	RUN_DATA(&disk, "\x41\x02\0\0\0\x10\0\0\x02\0", zero); /* addresses as data: obsolete */
	refused(SENSE_FIELD);
}

static void test_modes(void **state)
{
	uint8_t p[24] = { 0 };

	RUN(&disk, "\x1a\x08\x08\0\xff\0");
	assert_int_equal(r.data[0] + 1, r.len);
	assert_int_equal(r.data[3], 0);
	assert_int_equal(r.data[4], 0x08);
	assert_int_equal(r.data[6] & 4, 4); /* write cache */
	RUN(&disk, "\x5a\0\x3f\0\0\0\0\0\xff\0");
	assert_int_equal(be(r.data, 2) + 2, r.len);
	assert_int_equal(be(r.data + 6, 2), 8);
	assert_int_equal(be(r.data + 8, 4), DISK / 512);
	assert_int_equal(be(r.data + 12, 4), 512);
	RUN(&disk, "\x1a\0\x07\0\xff\0");
	refused(SENSE_FIELD);
	RUN(&disk, "\x1a\0\xc8\0\xff\0"); /* saved values */
	refused(0x053900);
	/* The write cache off: every write is stable then. */
	p[4] = 8;
	p[5] = 18;
	RUN_DATA(&disk, "\x15\x10\0\0\x18\0", p);
	assert_int_equal(r.status, SCSI_GOOD);
	assert_false(disk.wce);
	RUN(&disk, "\x2a\0\0\0\0\x10\0\0\x01\0");
	assert_true(r.fua);
	p[10] = 1; /* nothing else changes */
	RUN_DATA(&disk, "\x15\x10\0\0\x18\0", p);
	refused(SENSE_PARAMETER);
	RUN_DATA(&disk, "\x15\x10\0\0\x19\0", p);
	refused(SENSE_LIST_LENGTH);
	RUN_DATA(&disk, "\x15\0\0\0\x18\0", p);
	refused(SENSE_FIELD);
	assert_false(disk.wce);
}

static void test_reservations_are_refused(void **state)
{
	static const uint8_t opcodes[] = { 0x5e, 0x5f, 0x16, 0x17, 0x56, 0x57, 0xa3, 0x04, 0xff };

	for (unsigned i = 0; i < sizeof(opcodes); i++) {
		run(&disk, (const char *)&opcodes[i], 1, NULL, 0);
		refused(SENSE_OPCODE);
	}
}

static void test_attention(void **state)
{
	scsi_lun_reset(&disk);
	RUN(&disk, "\x12\0\0\0\x24\0"); /* INQUIRY goes on */
	assert_int_equal(r.status, SCSI_GOOD);
	RUN(&disk, "\0\0\0\0\0\0");
	refused(SENSE_POWER_ON);
	RUN(&disk, "\0\0\0\0\0\0"); /* once */
	assert_int_equal(r.status, SCSI_GOOD);
	disk.attention = SENSE_CAPACITY_CHANGED;
	RUN(&disk, "\x03\0\0\0\xff\0");
	assert_int_equal(r.len, SCSI_SENSE_LEN);
	assert_int_equal(r.data[0], 0x70);
	assert_int_equal(r.data[2], 6);
	assert_int_equal(r.data[12], 0x2a);
	assert_int_equal(r.data[13], 9);
	RUN(&disk, "\x03\0\0\0\xff\0");
	assert_int_equal(r.data[2], 0);
}

static void test_luns(void **state)
{
	uint8_t cdb[SCSI_CDB_MAX] = { 0xa0, [9] = 0xff };

	RUN(&disk, "\xa0\0\0\0\0\0\0\0\0\xff\0\0");
	assert_int_equal(r.len, 8 + 3 * 8);
	assert_int_equal(be(r.data, 4), 24);
	assert_int_equal(be(r.data + 16, 2), 5);
	assert_int_equal(be(r.data + 24, 2), 0x4000 | 300);
	scsi_command_no_lun(cdb, luns, 3, &r);
	assert_int_equal(r.len, 8 + 3 * 8);
	cdb[0] = 0x12;
	cdb[4] = 36;
	scsi_command_no_lun(cdb, luns, 3, &r);
	assert_int_equal(r.data[0], 0x7f);
	cdb[0] = 0;
	scsi_command_no_lun(cdb, luns, 3, &r);
	refused(SENSE_LUN);
}

static void test_cdrom(void **state)
{
	struct block *medium = cd.block;

	RUN(&cd, "\x43\0\0\0\0\0\0\0\xff\0"); /* one track and the end */
	assert_int_equal(r.len, 20);
	assert_int_equal(be(r.data, 2), 18);
	assert_int_equal(r.data[6], 1);
	assert_int_equal(r.data[14], 0xaa);
	assert_int_equal(be(r.data + 16, 4), DISK / 2048);
	RUN(&cd, "\x43\x02\0\0\0\0\0\0\xff\0"); /* in minutes, seconds and frames: block 4096 is 0:56.46 behind the gap of 2 s */
	assert_int_equal(r.data[17], 0);
	assert_int_equal(r.data[18], 56);
	assert_int_equal(r.data[19], 46);
	RUN(&cd, "\x1e\0\0\0\x01\0"); /* locked: no eject */
	RUN(&cd, "\x1b\0\0\0\x02\0");
	refused(SENSE_REMOVAL_PREVENTED);
	RUN(&cd, "\x1e\0\0\0\0\0");
	RUN(&cd, "\x1b\0\0\0\x02\0");
	assert_true(r.ejected && cd.tray_open);
	RUN(&cd, "\0\0\0\0\0\0");
	refused(SENSE_TRAY_OPEN);
	RUN(&cd, "\x1b\0\0\0\x03\0");
	assert_true(r.ejected && !cd.tray_open);
	RUN(&cd, "\x4a\x01\0\0\x10\0\0\0\x08\0");
	assert_int_equal(r.data[4], 2); /* new medium */
	assert_int_equal(r.data[5], 2);
	RUN(&cd, "\0\0\0\0\0\0");
	refused(SENSE_MEDIUM_CHANGED);
	cd.block = NULL;
	RUN(&cd, "\x28\0\0\0\0\x01\0\0\x02\0");
	refused(SENSE_NO_MEDIUM);
	RUN(&cd, "\x46\0\0\0\0\0\0\0\xff\0");
	assert_int_equal(be(r.data + 6, 2), 0);
	cd.block = medium;
	RUN(&cd, "\x46\0\0\0\0\0\0\0\xff\0");
	assert_int_equal(be(r.data + 6, 2), 8);
	RUN(&disk, "\x43\0\0\0\0\0\0\0\xff\0");
	refused(SENSE_OPCODE);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_inquiry), TEST(test_capacity), TEST(test_transfers), TEST(test_unmap), TEST(test_write_same), TEST(test_modes),
		TEST(test_reservations_are_refused), TEST(test_attention), TEST(test_luns), TEST(test_cdrom),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
