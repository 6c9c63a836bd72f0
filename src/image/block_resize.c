/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The size of an open image, seen and virtual, while it is in use. */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/image.h"
#include "image/qcow2.h"
#include "image/remote.h"

static int resize_raw(struct block *b, uint64_t size, struct err *err)
{
	uint64_t device;

	if (b->device) {
		/* Somebody else resized it: the new size is what there is. */
		if (ioctl(b->fd, BLKGETSIZE64, &device))
			return err_set_errno(err, errno, "cannot tell the size of %s", b->path);
		if (size > device)
			return err_set(err, ENOSPC, "%s has %llu bytes: resize the device first", b->path,
				       (unsigned long long)device);
		return 0;
	}
	if (ftruncate(b->fd, size))
		return err_set_errno(err, errno, "cannot resize %s", b->path);
	return 0;
}

/* Its server decides; what can be done is to see what it did. */
static int resize_remote(struct block *b, uint64_t size, struct err *err)
{
	int ret = remote_refresh(b->remote, err);
	uint64_t have = remote_size(b->remote) & ~(uint64_t)(BLOCK_SECTOR - 1);

	if (ret)
		return ret;
	__atomic_store_n(&b->real_size, have, __ATOMIC_RELEASE);
	__atomic_store_n(&b->size, have, __ATOMIC_RELEASE);
	return size == have ? 0
			    : err_set(err, ENOTSUP, "%s has %llu bytes, the size that its server gives it: resize it there",
				      b->path, (unsigned long long)have);
}

int block_resize(struct block *b, uint64_t size, struct err *err)
{
	int ret;

	if (b->readonly)
		return err_set(err, EACCES, "%s is read-only", b->path);
	if (b->remote && !remote_can_resize(b->remote))
		return resize_remote(b, size, err);
	if (!size || size % BLOCK_SECTOR)
		return err_set(err, EINVAL, "%s: a disk's size is a multiple of %u bytes", b->path, BLOCK_SECTOR);
	/* Smaller: requests beyond it end before the space goes. */
	if (size < b->size)
		__atomic_store_n(&b->size, size, __ATOMIC_RELEASE);
	queues_let_go(b);
	ret = b->qcow2	  ? qcow2_resize(b->qcow2, size, err)
	      : b->remote ? remote_resize(b->remote, size, err)
			  : resize_raw(b, size, err);
	if (ret)
		return ret;
	__atomic_store_n(&b->real_size, size, __ATOMIC_RELEASE);
	__atomic_store_n(&b->size, size, __ATOMIC_RELEASE);
	return 0;
}

uint64_t block_allocated(const struct block *b)
{
	struct stat st;
	int fd = b->fd;

	return fd >= 0 && !fstat(fd, &st) ? (uint64_t)st.st_blocks * 512 : !stat(b->path, &st) ? (uint64_t)st.st_blocks * 512 : 0;
}
