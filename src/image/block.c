/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/dirty.h"
#include "image/luks.h"
#include "image/qcow2.h"
#include "image/remote.h"
#include "util/files.h"

#define REMOTE_CONNECTIONS 4u /* one for each thread of a queue */

static int open_file(const struct block_options *o, bool direct, struct err *err)
{
	int flags = (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? O_DIRECT : 0);
	int fd = file_open(o->path, flags);

	if (fd >= 0)
		return fd;
	if (errno == EINVAL && direct)
		return err_set(err, EINVAL, "%s: its file system has no direct I/O: use cache=writeback", o->path);
	if ((errno == EACCES || errno == EROFS || errno == EPERM) && !o->readonly && !access(o->path, R_OK))
		return err_set(err, errno, "%s cannot be written: make it writable or open it with readonly=on",
			       o->path);
	return err_set_errno(err, errno, "cannot open disk image %s", o->path);
}

/* A descriptor that was passed in must be open the way the options want it. */
static int check_passed(const struct block_options *o, bool direct, struct err *err)
{
	int flags = fcntl(o->fd, F_GETFL), mode = flags & O_ACCMODE;

	if (flags < 0)
		return err_set_errno(err, errno, "descriptor %d for disk image %s", o->fd, o->path);
	if (mode == O_WRONLY || (mode == O_RDONLY && !o->readonly))
		return err_set(err, EACCES, "descriptor %d for disk image %s is not open for %s", o->fd, o->path,
			       mode == O_WRONLY ? "reading" : "writing: use readonly=on");
	if (direct && !(flags & O_DIRECT) && fcntl(o->fd, F_SETFL, flags | O_DIRECT))
		return err_set(err, EINVAL, "%s: its file system has no direct I/O: use cache=writeback", o->path);
	return 0;
}

static int find_size(struct block *b, struct err *err)
{
	struct stat st;

	if (fstat(b->fd, &st))
		return err_set_errno(err, errno, "cannot stat disk image %s", b->path);
	if (S_ISBLK(st.st_mode)) {
		b->device = true;
		if (ioctl(b->fd, BLKGETSIZE64, &b->real_size))
			return err_set_errno(err, errno, "cannot tell the size of %s", b->path);
	} else if (S_ISREG(st.st_mode)) {
		b->real_size = st.st_size;
	} else {
		return err_set(err, EINVAL, "%s is a %s: a disk image must be a file or a block device", b->path,
			       S_ISDIR(st.st_mode)   ? "directory"
			       : S_ISCHR(st.st_mode) ? "character device"
						     : "special file");
	}
	if (!b->real_size)
		return err_set(err, EINVAL, "%s is empty: give it a size first, for example with truncate -s 10G",
			       b->path);
	b->size = (b->real_size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	return 0;
}

static bool direct_read_works(struct block *b, int fd, unsigned align)
{
	void *buf = NULL;
	bool works = !posix_memalign(&buf, 4096, 4096) && pread(fd, buf, align, align < b->real_size ? align : 0) >= 0;

	free(buf);
	return works;
}

/* What direct I/O asks of addresses, offsets and lengths. */
static void find_alignment(struct block *b, int fd)
{
	int sector;

	b->mem_align = b->off_align = 1;
	if (!b->direct)
		return;
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (!statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && sx.stx_mask & STATX_DIOALIGN &&
	    sx.stx_dio_offset_align) {
		b->mem_align = sx.stx_dio_mem_align;
		b->off_align = sx.stx_dio_offset_align;
		return;
	}
#endif
	if (b->device && !ioctl(fd, BLKSSZGET, &sector))
		b->off_align = sector;
	else
		b->off_align = direct_read_works(b, fd, 512) ? 512 : 4096;
	b->mem_align = b->off_align;
}

/* Guests write in sectors of 512 bytes; a descriptor without O_DIRECT serves those that direct I/O can't. */
static int open_plain(struct block *b, const struct block_options *o, struct err *err)
{
	char self[64];

	if (b->off_align <= BLOCK_SECTOR)
		return 0;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", b->fd);
	b->plain_fd = file_open(file_passed(b->path) ? b->path : self, b->readonly ? O_RDONLY : O_RDWR);
	if (b->plain_fd < 0)
		return err_set_errno(err, errno,
				     "%s has sectors of %u bytes and cannot be opened once more for smaller requests; "
				     "use cache=writeback",
				     b->path, b->off_align);
	return 0;
}

static int check_format(struct block *b, const struct block_options *o, struct err *err)
{
	const char *found;
	int ret;

	if (o->format && strcmp(o->format, "raw"))
		return err_set(err, ENOTSUP, "%s: format '%s' is not supported, only raw, qcow2 and luks are", b->path,
			       o->format);
	if (o->format)
		return 0;
	ret = probe_format(b->fd, b->real_size, &found);
	if (ret)
		return err_set_errno(err, -ret, "cannot read disk image %s", b->path);
	if (found)
		return err_set(err, ENOTSUP, "%s is a %s image: give %sformat=raw to use it as it is", b->path, found,
			       !strcmp(found, "qcow2")  ? "format=qcow2, or "
			       : !strcmp(found, "luks") ? "format=luks, or "
							 : "");
	return 0;
}

static bool is_qcow2(const struct block_options *o)
{
	return o->format && !strcmp(o->format, "qcow2");
}

static bool is_luks(const struct block_options *o)
{
	return o->format && !strcmp(o->format, "luks");
}

/* Its tables are not aligned to what direct I/O wants. */
static bool has_tables(const struct block_options *o)
{
	return is_qcow2(o) || is_luks(o);
}

/* Guest data once more, past the page cache; tables stay in it. */
static int open_direct(struct block *b, struct err *err)
{
	const char *path;
	char self[64];
	int fd;

	b->data_fd[0] = b->data_fd[1] = qcow2_data_fd(b->qcow2);
	if (!b->direct) {
		find_alignment(b, b->data_fd[0]);
		return 0;
	}
	snprintf(self, sizeof(self), "/proc/self/fd/%d", b->data_fd[1]);
	path = qcow2_data_path(b->qcow2);
	fd = file_open(file_passed(path) ? path : self, (b->readonly ? O_RDONLY : O_RDWR) | O_DIRECT);
	if (fd < 0)
		return err_set_errno(err, errno, "%s cannot be opened for direct I/O: use cache=writeback", b->path);
	b->data_fd[0] = fd;
	find_alignment(b, fd);
	qcow2_set_direct(b->qcow2, fd);
	return 0;
}

static int open_qcow2(struct block *b, const char *key_secret, struct err *err)
{
	unsigned flags = (b->readonly ? 0 : IMAGE_RDWR) | (b->unsafe ? IMAGE_UNSAFE : 0) | (b->no_backing ? IMAGE_NO_BACKING : 0);
	struct image_chain chain = { .path = b->path, .key_secret = key_secret };
	struct stat st;

	if (fstat(b->fd, &st))
		return err_set_errno(err, errno, "cannot stat disk image %s", b->path);
	chain.dev = st.st_dev;
	chain.ino = st.st_ino;
	b->qcow2 = qcow2_open(b->fd, b->path, flags, &chain, err);
	b->fd = -1; /* taken over */
	if (!b->qcow2)
		return -EINVAL;
	b->size = (qcow2_size(b->qcow2) + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	b->real_size = b->size;
	if (open_direct(b, err))
		return -EINVAL;
	return b->size ? 0 : err_set(err, EINVAL, "%s has size 0: give it one with 'keel image resize'", b->path);
}

/* What is ciphered goes through threads, which do the ciphering; below: or NULL, the file. */
static int open_luks(struct block *b, const struct block_options *o, struct remote *below, struct err *err)
{
	char self[64];
	int fd;

	if (!o->key_secret) {
		remote_close(below);
		return err_set(err, EACCES, "%s is encrypted: name the secret with its passphrase, key-secret=ID", b->path);
	}
	b->remote = luks_disk_open(b->fd, b->path, below, o->key_secret, err);
	if (!b->remote)
		return -EACCES;
	b->real_size = remote_size(b->remote);
	b->size = b->real_size & ~(uint64_t)(BLOCK_SECTOR - 1);
	if (b->direct && !below) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", b->fd);
		fd = file_open(file_passed(b->path) ? b->path : self, (b->readonly ? O_RDONLY : O_RDWR) | O_DIRECT);
		if (fd < 0)
			return err_set_errno(err, errno, "%s cannot be opened for direct I/O: use cache=writeback", b->path);
		luks_disk_set_direct(b->remote, fd);
	}
	b->direct = false; /* for the queues: they do no I/O of their own */
	return b->size ? 0 : err_set(err, EINVAL, "%s has no room behind its LUKS header", b->path);
}

/* Caching is the server's affair, but for whether writes wait. */
static int open_remote(struct block *b, const struct block_options *o, struct err *err)
{
	struct remote *below;

	if (is_luks(o)) {
		below = remote_open(o->path, o->readonly, REMOTE_CONNECTIONS, err);
		return below ? open_luks(b, o, below, err) : -EIO;
	}
	if (o->format && strcmp(o->format, "raw"))
		return err_set(err, ENOTSUP, "%s: format '%s' is not supported over a server, only raw and luks are",
			       b->path, o->format);
	b->remote = remote_open(o->path, o->readonly, REMOTE_CONNECTIONS, err);
	if (!b->remote)
		return -EIO;
	b->direct = false;
	b->real_size = remote_size(b->remote);
	b->size = b->real_size & ~(uint64_t)(BLOCK_SECTOR - 1); /* what does not fill a sector cannot be written */
	return b->size ? 0 : err_set(err, EINVAL, "%s is smaller than a sector", b->path);
}

struct block *block_open(const struct block_options *o, struct err *err)
{
	struct block *b = calloc(1, sizeof(*b));
	int ret;

	if (b)
		b->path = strdup(o->path);
	if (!b || !b->path) {
		err_set(err, ENOMEM, "no memory to open %s", o->path);
		free(b);
		if (o->fd >= 0)
			close(o->fd);
		return NULL;
	}
	b->readonly = o->readonly;
	b->no_backing = o->no_backing;
	b->direct = o->cache == BLOCK_CACHE_NONE || o->cache == BLOCK_CACHE_DIRECTSYNC;
	b->dsync = o->cache == BLOCK_CACHE_WRITETHROUGH || o->cache == BLOCK_CACHE_DIRECTSYNC;
	b->unsafe = o->cache == BLOCK_CACHE_UNSAFE;
	b->fd = o->fd;
	b->plain_fd = -1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->woken, NULL);
	if (o->fd < 0 && remote_is_uri(o->path)) {
		if (open_remote(b, o, err)) {
			block_close(b);
			return NULL;
		}
		return b;
	}
	if (o->fd >= 0)
		ret = check_passed(o, b->direct && !has_tables(o), err);
	else
		ret = b->fd = open_file(o, b->direct && !has_tables(o), err);
	if (ret >= 0 && has_tables(o) && fcntl(b->fd, F_GETFL) & O_DIRECT)
		fcntl(b->fd, F_SETFL, fcntl(b->fd, F_GETFL) & ~O_DIRECT);
	if (ret >= 0)
		ret = find_size(b, err);
	if (!ret)
		ret = lock_image(b->fd, b->path, !b->readonly, err);
	if (!ret)
		ret = is_qcow2(o) ? open_qcow2(b, o->key_secret, err)
		      : is_luks(o)	? open_luks(b, o, NULL, err)
					: check_format(b, o, err);
	if (!ret && !b->qcow2 && !b->remote) {
		find_alignment(b, b->fd);
		ret = open_plain(b, o, err);
	}
	if (ret) {
		block_close(b);
		return NULL;
	}
	return b;
}

void block_close(struct block *b)
{
	if (!b)
		return;
	/* An error here was an error of a flush, or nobody waited for one. */
	(void)qcow2_close(b->qcow2, NULL);
	remote_close(b->remote);
	if (b->fd >= 0) {
		unlock_image(b->fd);
		close(b->fd);
	}
	if (b->plain_fd >= 0)
		close(b->plain_fd);
	throttle_put(b->throttle);
	block_bitmaps_free(b);
	pthread_cond_destroy(&b->woken);
	pthread_mutex_destroy(&b->lock);
	free(b->path);
	free(b);
}

int block_adopt_cache(struct block *b, const struct block *like, struct err *err)
{
	const struct block_options o = { .path = b->path, .fd = -1 };
	int ret = 0;

	b->dsync = like->dsync;
	b->unsafe = like->unsafe;
	if (b->remote || !like->direct || b->direct)
		return 0;
	b->direct = true;
	if (b->qcow2)
		return open_direct(b, err);
	if (fcntl(b->fd, F_SETFL, fcntl(b->fd, F_GETFL) | O_DIRECT))
		ret = err_set(err, EINVAL, "%s: its file system has no direct I/O: use cache=writeback", b->path);
	find_alignment(b, b->fd);
	return ret ? ret : open_plain(b, &o, err);
}

uint64_t block_size(const struct block *b)
{
	return b->size;
}

bool block_readonly(const struct block *b)
{
	return b->readonly;
}

const char *block_path(const struct block *b)
{
	return b->path;
}

const char *block_format(const struct block *b)
{
	return b->qcow2 ? "qcow2" : b->remote && luks_disk_luks(b->remote) ? "luks" : "raw";
}

void block_get_stats(struct block *b, struct block_stats *s)
{
	const uint64_t *from = (const uint64_t *)&b->stats;
	uint64_t *to = (uint64_t *)s;

	for (unsigned i = 0; i < sizeof(*s) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
