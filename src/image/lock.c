/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on image files, so that two programs never write one. The bytes are
 * those QEMU locks (permission n held: byte 100 + n; not shared with others:
 * 200 + n), so QEMU, qemu-img and Keel respect each other. Open file
 * description locks: they end with the descriptor, whichever process closes it.
 */
#include <errno.h>
#include <fcntl.h>

#include "image/block_int.h"

enum { HELD = 100, UNSHARED = 200 };
enum { PERM_READ, PERM_WRITE, PERM_WRITE_UNCHANGED, PERM_RESIZE };

static int set_lock(int fd, int byte)
{
	struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &l) ? -errno : 0;
}

/* Does another open file hold this byte? */
static bool is_locked(int fd, int byte)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

int lock_image(int fd, const char *path, bool write, struct err *err)
{
	static const int held_rw[] = { PERM_READ, PERM_WRITE, PERM_RESIZE }, unshared[] = { PERM_WRITE, PERM_RESIZE };
	unsigned held = write ? 3 : 1;
	bool busy = false, writer = false;

	for (unsigned i = 0; i < held; i++) {
		/* A file system without locks: nothing to do about it. */
		if (set_lock(fd, HELD + held_rw[i]) && i == 0)
			return 0;
	}
	for (unsigned i = 0; i < 2; i++)
		set_lock(fd, UNSHARED + unshared[i]);
	/* Own locks first, then the look: of two that start together at least one sees the other. */
	for (unsigned i = 0; i < held; i++)
		busy |= is_locked(fd, UNSHARED + held_rw[i]);
	for (unsigned i = 0; i < 2; i++)
		writer |= is_locked(fd, HELD + unshared[i]);
	if (!busy && !writer)
		return 0;
	if (writer)
		return err_set(err, EBUSY,
			       "%s is being written by another disk or process (a running guest, qemu-img, …): "
			       "stop that first",
			       path);
	return err_set(err, EBUSY,
		       "%s is in use by another disk or process that does not want it written: stop that first, "
		       "or open it with readonly=on",
		       path);
}

void unlock_image(int fd)
{
	struct flock l = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = HELD, .l_len = 200 };

	/* Fails only where locking did. */
	(void)fcntl(fd, F_OFD_SETLK, &l);
}
