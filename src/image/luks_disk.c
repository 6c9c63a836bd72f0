/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A LUKS header and the disk behind it. What was never written reads as noise, as it does under dm-crypt. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/luks.h"
#include "image/remote_int.h"

#define CHUNK (256u << 10)
#define ZEROES 65536u

struct luks_disk {
	struct remote base;
	struct remote *below; /* or NULL: the file */
	int fd, direct_fd;
	const char *path;
	struct luks *luks;
	uint64_t payload;
	pthread_mutex_t part; /* who changes a part of a sector */
};

static const struct remote_ops ops;

/* ---- What it lies on ------------------------------------------------------------- */

static int fd_for(const struct luks_disk *d, uint64_t offset, size_t len)
{
	return d->direct_fd >= 0 && !((offset | len) & 4095) ? d->direct_fd : d->fd;
}

static int read_below(struct luks_disk *d, uint64_t offset, void *buf, size_t len, struct err *err)
{
	int fd = fd_for(d, offset, len);

	if (d->below && (offset > remote_size(d->below) || len > remote_size(d->below) - offset))
		return err_set(err, EIO, "%s is too short for what its LUKS header says", d->path);
	if (d->below)
		return remote_read(d->below, offset, buf, len, err);
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (uint8_t *)buf + done, len - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_errno(err, errno, "%s: reading at byte %llu", d->path,
					     (unsigned long long)(offset + done));
		if (!n)
			return err_set(err, EIO, "%s ends at byte %llu, and more of it was to be read", d->path,
				       (unsigned long long)(offset + done));
		done += n;
	}
	return 0;
}

static int write_below(struct luks_disk *d, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	int fd = fd_for(d, offset, len);

	if (d->below)
		return remote_write(d->below, offset, buf, len, false, err);
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const uint8_t *)buf + done, len - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set_errno(err, n ? errno : ENOSPC, "%s: writing at byte %llu", d->path,
					     (unsigned long long)(offset + done));
		done += n;
	}
	return 0;
}

static int flush_below(struct luks_disk *d, struct err *err)
{
	if (d->below)
		return remote_flush(d->below, err);
	return fdatasync(d->fd) ? err_set_errno(err, errno, "%s: waiting for the disk", d->path) : 0;
}

static int size_below(struct luks_disk *d, uint64_t *size, struct err *err)
{
	struct stat st;
	int ret = 0;

	if (d->below) {
		ret = remote_refresh(d->below, err);
		*size = remote_size(d->below);
	} else if (fstat(d->fd, &st) || (S_ISBLK(st.st_mode) && ioctl(d->fd, BLKGETSIZE64, size))) {
		ret = err_set_errno(err, errno, "cannot tell the size of %s", d->path);
	} else if (!S_ISBLK(st.st_mode)) {
		*size = st.st_size;
	}
	return ret;
}

/* ---- The header's place --------------------------------------------------------- */

static int read_header(void *opaque, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return read_below(opaque, offset, buf, len, err);
}

static int write_header(void *opaque, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	int ret = write_below(opaque, offset, buf, len, err);

	return ret ? ret : flush_below(opaque, err);
}

static int refresh(struct remote *r, uint64_t *size, struct err *err)
{
	struct luks_disk *d = (struct luks_disk *)r;
	int ret = size_below(d, size, err);

	if (!ret && (*size < d->payload || !d->payload))
		ret = err_set(err, EINVAL, "%s: payload-offset in the LUKS header is %llu bytes, and there are only %llu", d->path,
			      (unsigned long long)d->payload, (unsigned long long)*size);
	if (!ret)
		*size -= d->payload;
	return ret;
}

static void close_disk(struct remote *r)
{
	struct luks_disk *d = (struct luks_disk *)r;

	luks_close(d->luks);
	remote_close(d->below);
	if (d->direct_fd >= 0)
		close(d->direct_fd);
	pthread_mutex_destroy(&d->part);
	free(d->base.uri);
	free(d);
}

struct remote *luks_disk_open(int fd, const char *path, struct remote *below, const char *key_secret, struct err *err)
{
	struct luks_disk *d = calloc(1, sizeof(*d));
	struct luks_place p = { .opaque = d, .read = read_header, .write = write_header };
	int ret;

	if (!d || !(d->base.uri = strdup(path))) {
		free(d);
		remote_close(below);
		err_set(err, ENOMEM, "%s: no memory", path);
		return NULL;
	}
	d->base.ops = &ops;
	d->below = below;
	d->fd = fd;
	d->direct_fd = -1;
	p.path = d->path = d->base.uri;
	pthread_mutex_init(&d->part, NULL);
	d->luks = luks_open(&p, key_secret, err);
	ret = d->luks ? 0 : -EINVAL;
	if (!ret) {
		d->payload = luks_payload(d->luks);
		ret = refresh(&d->base, &d->base.size, err);
	}
	if (ret) {
		close_disk(&d->base);
		return NULL;
	}
	return &d->base;
}

void luks_disk_set_direct(struct remote *r, int fd)
{
	((struct luks_disk *)r)->direct_fd = fd;
}

struct luks *luks_disk_luks(struct remote *r)
{
	return r->ops == &ops ? ((struct luks_disk *)r)->luks : NULL;
}

int luks_disk_create(int fd, const char *path, const struct luks_options *o, uint64_t size, struct err *err)
{
	struct luks_disk d = { .fd = fd, .direct_fd = -1, .path = path };
	struct luks_place p = { .path = path, .opaque = &d, .read = read_header, .write = write_header };
	struct stat st;
	uint64_t header, have;
	int ret = luks_measure(o, &header, path, err);

	if (!ret && fstat(fd, &st))
		ret = err_set_errno(err, errno, "cannot stat %s", path);
	if (!ret && S_ISBLK(st.st_mode)) {
		ret = size_below(&d, &have, err);
		if (!ret && have < header + size)
			ret = err_set(err, ENOSPC, "%s is smaller than the image and its LUKS header", path);
	} else if (!ret && ftruncate(fd, header + size)) {
		ret = err_set_errno(err, errno, "cannot give %s its size", path);
	}
	return ret ? ret : luks_create(&p, o, err);
}

/* ---- Data ------------------------------------------------------------------------ */

static void *bounce(const struct luks_disk *d, size_t len, struct err *err)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, len < CHUNK ? len + LUKS_SECTOR : CHUNK)) {
		err_set(err, ENOMEM, "%s: no memory for a request", d->path);
		return NULL;
	}
	return p;
}

/* Whole sectors; tmp has room for them. */
static int read_sectors(struct luks_disk *d, uint64_t offset, void *buf, uint8_t *tmp, size_t len, struct err *err)
{
	int ret = read_below(d, d->payload + offset, tmp, len, err);

	return ret ? ret : luks_decrypt(d->luks, offset / LUKS_SECTOR, tmp, buf, len, err);
}

static int write_sectors(struct luks_disk *d, uint64_t offset, const void *buf, uint8_t *tmp, size_t len,
			 struct err *err)
{
	int ret = luks_encrypt(d->luks, offset / LUKS_SECTOR, buf, tmp, len, err);

	return ret ? ret : write_below(d, d->payload + offset, tmp, len, err);
}

/* Whole sectors as many as fit, or a part of one. */
static size_t piece(uint64_t offset, size_t len)
{
	size_t in = offset % LUKS_SECTOR, n = LUKS_SECTOR - in;

	if (in || len < LUKS_SECTOR)
		return n < len ? n : len;
	return len < CHUNK ? len & ~(size_t)(LUKS_SECTOR - 1) : CHUNK;
}

static int read_disk(struct remote *r, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct luks_disk *d = (struct luks_disk *)r;
	uint8_t *tmp = bounce(d, len, err), *to = buf, part[LUKS_SECTOR];
	int ret = tmp ? 0 : -ENOMEM;

	for (size_t n; !ret && len; offset += n, to += n, len -= n) {
		uint64_t in = offset % LUKS_SECTOR;

		n = piece(offset, len);
		if (!in && n >= LUKS_SECTOR) {
			ret = read_sectors(d, offset, to, tmp, n, err);
			continue;
		}
		ret = read_sectors(d, offset - in, part, tmp, LUKS_SECTOR, err);
		if (!ret)
			memcpy(to, part + in, n);
	}
	free(tmp);
	return ret;
}

static int write_part(struct luks_disk *d, uint64_t offset, const void *buf, uint8_t *tmp, size_t len, struct err *err)
{
	uint64_t in = offset % LUKS_SECTOR;
	uint8_t sector[LUKS_SECTOR];
	int ret;

	pthread_mutex_lock(&d->part);
	ret = read_sectors(d, offset - in, sector, tmp, LUKS_SECTOR, err);
	if (!ret) {
		memcpy(sector + in, buf, len);
		ret = write_sectors(d, offset - in, sector, tmp, LUKS_SECTOR, err);
	}
	pthread_mutex_unlock(&d->part);
	return ret;
}

static int write_disk(struct remote *r, uint64_t offset, const void *buf, size_t len, bool fua, struct err *err)
{
	struct luks_disk *d = (struct luks_disk *)r;
	uint8_t *tmp = bounce(d, len, err);
	const uint8_t *from = buf;
	int ret = tmp ? 0 : -ENOMEM;

	for (size_t n; !ret && len; offset += n, from += n, len -= n) {
		n = piece(offset, len);
		ret = offset % LUKS_SECTOR || n < LUKS_SECTOR ? write_part(d, offset, from, tmp, n, err)
							       : write_sectors(d, offset, from, tmp, n, err);
	}
	free(tmp);
	return ret || !fua ? ret : flush_below(d, err);
}

/* Space is not given back: it would tell what is in use, and read as noise. */
static int zero_disk(struct remote *r, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
	int ret = 0;

	for (uint64_t n; !ret && len; offset += n, len -= n) {
		n = len < ZEROES ? len : ZEROES;
		ret = write_disk(r, offset, zeroes, n, false, err);
	}
	return ret;
}

static int flush_disk(struct remote *r, struct err *err)
{
	return flush_below((struct luks_disk *)r, err);
}

static int resize_disk(struct remote *r, uint64_t size, struct err *err)
{
	struct luks_disk *d = (struct luks_disk *)r;

	if (d->below)
		return remote_resize(d->below, d->payload + size, err);
	if (ftruncate(d->fd, d->payload + size) || fsync(d->fd))
		return err_set_errno(err, errno, "cannot resize %s", d->path);
	return 0;
}

static const struct remote_ops ops = {
	.close = close_disk, .read = read_disk, .write = write_disk, .zero = zero_disk, .flush = flush_disk,
	.resize = resize_disk, .refresh = refresh,
};
