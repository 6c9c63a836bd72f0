/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/image_int.h"
#include "image/qcow2.h"
#include "image/remote.h"
#include "util/files.h"

#define MAX_DEPTH 200u
#define ZEROES 65536u
#define CONNECTIONS 4u /* to a server */

char *image_backing_path(const char *of, const char *name, struct err *err)
{
	const char *slash = strrchr(of, '/'), *colon = strchr(name, ':');
	size_t dir = slash ? slash - of + 1 : 0;
	char *path;

	if (remote_is_uri(name)) {
		path = strdup(name);
		if (!path)
			err_set(err, ENOMEM, "%s: no memory", of);
		return path;
	}
	if (!strncmp(name, "file:", 5)) {
		name += 5;
	} else if (colon && memchr(name, '/', colon - name) == NULL) {
		err_set(err, ENOTSUP, "%s: its backing file %s is neither a plain file name nor an NBD server's", of,
			name);
		return NULL;
	}
	if (name[0] == '/')
		dir = 0;
	path = malloc(dir + strlen(name) + 1);
	if (!path) {
		err_set(err, ENOMEM, "%s: no memory", of);
		return NULL;
	}
	memcpy(path, of, dir);
	strcpy(path + dir, name);
	return path;
}

static int raw_size(struct image *img, const struct stat *st, struct err *err)
{
	if (S_ISREG(st->st_mode))
		img->size = st->st_size;
	else if (!S_ISBLK(st->st_mode))
		return err_set(err, EINVAL, "%s is neither a file nor a block device", img->path);
	else if (ioctl(img->fd, BLKGETSIZE64, &img->size))
		return err_set_errno(err, errno, "cannot tell the size of %s", img->path);
	return 0;
}

static int check_chain(const struct image_chain *chain, struct err *err)
{
	for (const struct image_chain *up = chain->up; up; up = up->up)
		if (up->dev == chain->dev && up->ino == chain->ino)
			return err_set(err, ELOOP, "%s is its own backing file, by way of %s", chain->path,
				       chain->up->path);
	if (chain->depth > MAX_DEPTH)
		return err_set(err, ELOOP, "%s: there are more than %u backing files", chain->path, MAX_DEPTH);
	return 0;
}

/* The disk behind a LUKS header, in a file or on another disk. */
static int open_luks(struct image *img, struct remote *below, struct err *err)
{
	if (!img->key_secret && !(img->flags & (IMAGE_LOCKED | IMAGE_CHECK))) {
		remote_close(below);
		return err_set(err, EACCES,
			       "%s is encrypted: name the secret with its passphrase, key-secret=ID, and make it with "
			       "--object secret,id=ID,file=FILE",
			       img->path);
	}
	img->remote = luks_disk_open(img->fd, img->path, below, img->key_secret, err);
	return img->remote ? 0 : -EACCES;
}

static int set_up(struct image *img, const char *format, const struct image_chain *up, struct err *err)
{
	struct image_chain chain = {
		.up = up, .path = img->path, .key_secret = img->key_secret, .depth = up ? up->depth + 1 : 0,
	};
	const char *found = format;
	struct stat st;
	int ret;

	if (fstat(img->fd, &st))
		return err_set_errno(err, errno, "cannot stat %s", img->path);
	chain.dev = st.st_dev;
	chain.ino = st.st_ino;
	ret = check_chain(&chain, err);
	if (!ret)
		ret = raw_size(img, &st, err);
	if (!ret && !(img->flags & IMAGE_NO_LOCK))
		ret = lock_image(img->fd, img->path, img->flags & IMAGE_RDWR, err);
	if (!ret && !format) {
		ret = probe_format(img->fd, img->size, &found);
		if (ret)
			return err_set_errno(err, -ret, "cannot read %s", img->path);
		found = found ? found : "raw";
		chain.probed = up; /* at the top, the user says what is opened */
	}
	if (ret)
		return ret;
	if (!strcmp(found, "raw"))
		return 0;
	if (!strcmp(found, "luks"))
		return open_luks(img, NULL, err);
	if (strcmp(found, "qcow2"))
		return err_set(err, ENOTSUP, "%s: format '%s' is not supported, only raw, qcow2 and luks are", img->path,
			       found);
	img->q = qcow2_open(img->fd, img->path, img->flags, &chain, err);
	if (!img->q)
		img->fd = -1; /* closed there */
	return img->q ? 0 : -EINVAL;
}

/* What a server has is the disk as it is; formats over it would need a size that changes. */
static int open_remote(struct image *img, const char *format, struct err *err)
{
	struct remote *below;
	uint8_t magic[6];
	int ret;

	if (format && !strcmp(format, "luks")) {
		below = remote_open(img->path, !(img->flags & IMAGE_RDWR), CONNECTIONS, err);
		return below ? open_luks(img, below, err) : -EIO;
	}
	img->remote = remote_open(img->path, !(img->flags & IMAGE_RDWR), CONNECTIONS, err);
	if (!img->remote)
		return -EIO;
	img->size = remote_size(img->remote);
	if (format && strcmp(format, "raw"))
		return err_set(err, ENOTSUP, "%s: format '%s' is not supported over a server, only raw and luks are",
			       img->path, format);
	if (format || img->size < sizeof(magic))
		return 0;
	ret = remote_read(img->remote, 0, magic, sizeof(magic), err);
	if (!ret && !memcmp(magic, "QFI\xfb", 4))
		ret = err_set(err, ENOTSUP, "%s has a qcow2 image on it: give format=raw to use it as it is",
			      img->path);
	else if (!ret && !memcmp(magic, "LUKS\xba\xbe", 6))
		ret = err_set(err, ENOTSUP, "%s has a LUKS header on it: give format=luks, or format=raw to use it as it is",
			      img->path);
	return ret;
}

static struct image *open_image(const char *path, const char *format, unsigned flags, const char *key_secret,
				const struct image_chain *up, struct err *err)
{
	struct image *img = calloc(1, sizeof(*img));
	int ret;

	if (!img || !(img->path = strdup(path))) {
		free(img);
		err_set(err, ENOMEM, "no memory to open %s", path);
		return NULL;
	}
	img->flags = flags;
	img->key_secret = key_secret;
	img->fd = -1;
	if (remote_is_uri(path)) {
		if (open_remote(img, format, err)) {
			image_close(img, NULL);
			return NULL;
		}
		return img;
	}
	img->fd = file_open(path, (flags & IMAGE_RDWR ? O_RDWR : O_RDONLY) | O_NONBLOCK);
	ret = img->fd < 0 ? err_set_errno(err, errno, "cannot open %s", path) : set_up(img, format, up, err);
	if (ret) {
		image_close(img, NULL);
		return NULL;
	}
	return img;
}

struct image *image_open_chain(const char *path, const char *format, unsigned flags, const struct image_chain *up,
			       struct err *err)
{
	return open_image(path, format, flags, up ? up->key_secret : NULL, up, err);
}

struct image *image_open(const char *path, const char *format, unsigned flags, struct err *err)
{
	return open_image(path, format, flags, NULL, NULL, err);
}

struct image *image_open_keyed(const char *path, const char *format, unsigned flags, const char *key_secret,
			       struct err *err)
{
	return open_image(path, format, flags, key_secret, NULL, err);
}

int image_close(struct image *img, struct err *err)
{
	int ret = 0;

	if (!img)
		return 0;
	if (img->fd >= 0 && !img->q) {
		unlock_image(img->fd);
		close(img->fd);
	}
	ret = qcow2_close(img->q, err);
	remote_close(img->remote);
	free(img->path);
	free(img);
	return ret;
}

uint64_t image_size(const struct image *img)
{
	return img->q ? qcow2_size(img->q) : img->remote ? remote_size(img->remote) : img->size;
}

const char *image_path(const struct image *img)
{
	return img->path;
}

const char *image_format(const struct image *img)
{
	return img->q ? "qcow2" : img->remote && luks_disk_luks(img->remote) ? "luks" : "raw";
}

struct luks *image_luks(const struct image *img)
{
	return img->q ? qcow2_luks(img->q) : img->remote ? luks_disk_luks(img->remote) : NULL;
}

struct qcow2 *image_qcow2(const struct image *img)
{
	return img->q;
}

int image_fd(const struct image *img)
{
	return img->fd;
}

int image_read(struct image *img, uint64_t offset, void *buf, size_t len, struct err *err)
{
	uint64_t size = image_size(img), n = offset < size ? size - offset : 0, done = 0;

	if (n > len)
		n = len;
	memset((uint8_t *)buf + n, 0, len - n);
	if (img->q)
		return n ? qcow2_read(img->q, offset, buf, n, err) : 0;
	if (img->remote)
		return n ? remote_read(img->remote, offset, buf, n, err) : 0;
	while (done < n) {
		ssize_t got = pread(img->fd, (uint8_t *)buf + done, n - done, offset + done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set_errno(err, errno, "%s: reading at byte %llu", img->path,
					     (unsigned long long)(offset + done));
		if (!got)
			return err_set(err, EIO, "%s became shorter while it was read", img->path);
		done += got;
	}
	return 0;
}

int image_write(struct image *img, uint64_t offset, const void *buf, size_t len, struct err *err)
{
	uint64_t size = image_size(img);
	size_t done = 0;

	if (img->q)
		return qcow2_write(img->q, offset, buf, len, err);
	if ((img->remote || !(img->flags & IMAGE_GROW)) && (offset > size || len > size - offset))
		return err_set(err, EINVAL, "%s: bytes past its end are to be written", img->path);
	if (img->remote)
		return remote_write(img->remote, offset, buf, len, false, err);
	while (done < len) {
		ssize_t n = pwrite(img->fd, (const uint8_t *)buf + done, len - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set_errno(err, n ? errno : ENOSPC, "%s: writing at byte %llu", img->path,
					     (unsigned long long)(offset + done));
		done += n;
	}
	return 0;
}

int image_zero(struct image *img, uint64_t offset, uint64_t len, bool unmap, struct err *err)
{
	static const uint8_t zeroes[ZEROES];
	int ret = 0;

	if (img->q)
		return qcow2_zero(img->q, offset, len, unmap, err);
	if (img->remote)
		return remote_zero(img->remote, offset, len, unmap, err);
	if (unmap && !img->no_punch && len) {
		if (!fallocate(img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len))
			return 0;
		img->no_punch = true;
	}
	while (len && !ret) {
		size_t n = len < ZEROES ? len : ZEROES;

		ret = image_write(img, offset, zeroes, n, err);
		offset += n;
		len -= n;
	}
	return ret;
}

int image_flush(struct image *img, struct err *err)
{
	if (img->q)
		return qcow2_flush(img->q, err);
	if (img->flags & IMAGE_UNSAFE)
		return 0;
	if (img->remote)
		return remote_flush(img->remote, err);
	return fdatasync(img->fd) ? err_set_errno(err, errno, "%s: waiting for the disk", img->path) : 0;
}

static void map_raw(struct image *img, uint64_t offset, uint64_t len, struct image_extent *e)
{
	off_t data = lseek(img->fd, offset, SEEK_DATA), hole;
	uint64_t end = offset + len;

	*e = (struct image_extent){
		.present = true, .data = true, .has_offset = true, .offset = offset, .path = img->path
	};
	if (data < 0 && errno == ENXIO) {
		e->data = false;
	} else if (data > (off_t)offset) {
		e->data = false;
		end = (uint64_t)data < end ? (uint64_t)data : end;
	} else if (data >= 0) {
		hole = lseek(img->fd, offset, SEEK_HOLE);
		if (hole > (off_t)offset && (uint64_t)hole < end)
			end = hole;
	}
	e->zero = !e->data;
	e->len = end - offset;
}

struct image *image_backing(const struct image *img)
{
	return img->q ? qcow2_backing(img->q) : NULL;
}

int image_resize(struct image *img, uint64_t size, struct err *err)
{
	if (img->q)
		return qcow2_resize(img->q, size, err);
	if (img->remote)
		return remote_resize(img->remote, size, err);
	if (ftruncate(img->fd, size) || fsync(img->fd))
		return err_set_errno(err, errno, "cannot resize %s", img->path);
	img->size = size;
	return 0;
}

int image_map(struct image *img, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err)
{
	return image_map_above(img, UINT_MAX, offset, len, e, err);
}

int image_map_above(struct image *img, unsigned levels, uint64_t offset, uint64_t len, struct image_extent *e,
		    struct err *err)
{
	uint64_t size = image_size(img), most = size - offset < len ? size - offset : len, n;
	struct image *backing = image_backing(img);
	int ret;

	if (offset >= size || !len)
		return err_set(err, EINVAL, "%s: byte %llu is past its end", img->path, (unsigned long long)offset);
	if (img->remote) {
		*e = (struct image_extent){
			.present = true, .path = img->path, .has_offset = !image_luks(img), .offset = offset,
		};
		return remote_map(img->remote, offset, most, &e->data, &e->zero, &e->len, err);
	}
	if (!img->q) {
		map_raw(img, offset, most, e);
		return 0;
	}
	ret = qcow2_map(img->q, offset, most, e, err);
	if (ret || e->present)
		return ret;
	n = e->len;
	*e = (struct image_extent){ .len = n, .zero = true, .path = img->path };
	if (!backing || levels == 1 || offset >= image_size(backing))
		return 0;
	ret = image_map_above(backing, levels - 1, offset, n, e, err);
	e->depth++;
	return ret;
}
