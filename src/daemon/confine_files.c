/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files of a guest, opened on its behalf. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/image_links.h"
#include "util/sockets.h"

#define DEPTH_MAX 200u /* image.c's */

int confine_file_add(struct confine_files *f, const char *path, int fd, struct err *err)
{
	struct confine_file *v = realloc(f->v, (f->n + 1) * sizeof(*v));
	char *copy = strdup(path);

	if (v)
		f->v = v;
	if (!v || !copy) {
		free(copy);
		close(fd);
		return err_set(err, ENOMEM, "no memory for the file %s", path);
	}
	f->v[f->n++] = (struct confine_file){ copy, fd };
	return 0;
}

void confine_files_close(struct confine_files *f)
{
	while (f->n) {
		free(f->v[--f->n].path);
		close(f->v[f->n].fd);
	}
	free(f->v);
	f->v = NULL;
}

static int open_file(const char *path, int flags, struct err *err)
{
	/* Not to wait for a FIFO's other end, and not to become a terminal's owner. */
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd >= 0)
		return fd;
	if (errno == EINVAL && flags & O_DIRECT)
		return err_set(err, EINVAL, "%s: its file system has no direct I/O: use cache='writeback'", path);
	if ((flags & O_ACCMODE) == O_RDWR && (errno == EACCES || errno == EROFS || errno == EPERM))
		return err_set(err, errno, "%s cannot be written: make it writable or give the disk <readonly/>", path);
	return err_set_errno(err, errno, "Cannot access storage file '%s'", path);
}

int confine_file_open(struct confine_files *f, const char *path, int flags, struct err *err)
{
	int fd = open_file(path, flags, err);

	return fd < 0 ? fd : confine_file_add(f, path, fd, err);
}

int confine_socket_listen(struct confine_files *f, const char *path, struct err *err)
{
	int fd = unix_listen(path, "character device", err);

	return fd < 0 ? fd : confine_file_add(f, path, fd, err);
}

/* ---- Disks ---------------------------------------------------------------- */

struct chain {
	struct confine_files *files;
	const struct guest *guest;
	const struct dom_disk *disk;
	bool direct;
	unsigned depth;
};

static const char *path_of(const struct dom_disk *disk)
{
	return disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
}

static bool is_inode(const char *path, const struct stat *st)
{
	struct stat other;

	return path && !stat(path, &other) && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

#define RECORD_MAX (2 * sizeof(((struct image_links *)NULL)->backing) + 2)
static int format_record(const struct image_links *links, char text[RECORD_MAX])
{
	return snprintf(text, RECORD_MAX, "%s\n%s", links->backing, links->data_file);
}

/* Nobody but root may change trusted ones; a session's guests are kept from theirs by the sandbox alone. */
static const char *record_name(void)
{
	return geteuid() ? "user.keel.links" : "trusted.keel.links";
}

/* What an image leads to, as it did when a guest got it for the first time. */
static bool as_recorded(int fd, const struct image_links *links)
{
	const char *name = record_name();
	char now[RECORD_MAX], before[RECORD_MAX];
	int len = format_record(links, now);
	ssize_t n = fgetxattr(fd, name, before, sizeof(before));

	if (n < 0)
		return errno == ENODATA && !fsetxattr(fd, name, now, (size_t)len, XATTR_CREATE);
	return n == len && !memcmp(now, before, (size_t)len);
}

/* An image that names another one. */
struct link {
	const char *from;
	bool trusted; /* no guest can have put the name there */
};

static bool is_named(const struct dom_disk *disk, const struct stat *st)
{
	for (const struct dom_backing_store *b = disk->backing; b; b = b->backing)
		if (b->source && (is_inode(b->source->file, st) || is_inode(b->source->dev, st)))
			return true;
	return false;
}

/*
 * The name comes out of a file that the guest's process writes: if a guest has
 * taken that over, it may have put any name there, another guest's disk or a
 * file of the host. So what was not there when the image was used first has to
 * be named in the definition, too.
 */
static int check_link(const struct chain *c, const struct link *l, const char *to, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_set_errno(err, errno, "Cannot access storage file '%s'", to);
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(err, EACCES, "the image %s names %s, which is neither a file nor a block device", l->from, to);
	if (l->trusted || is_named(c->disk, &st))
		return 0;
	return err_set(err, EACCES,
		       "the image %s names the file %s, and did not when a guest got it first; guests write images: if it is meant, "
		       "name it as <backingStore> of the disk", l->from, to);
}

static int open_image(struct chain *c, const char *path, const char *format, bool write, const struct link *from, struct err *err);

static int read_links(int fd, const char *path, struct image_links *links, struct err *err)
{
	uint8_t *head = malloc(IMAGE_LINKS_BYTES);
	ssize_t n = head ? pread(fd, head, IMAGE_LINKS_BYTES, 0) : 0;
	int ret = 0;

	if (n < 0)
		ret = err_set_errno(err, errno, "cannot read %s", path);
	else if (!head || !image_links_parse(head, (size_t)n, links))
		ret = err_set(err, EINVAL, "%s: its header makes no sense", path);
	free(head);
	return ret;
}

/* What lies below; a name that leads to no file is left to the machine, which refuses it. */
static int follow(struct chain *c, const char *path, int fd, bool write, struct err *err)
{
	struct link link = { .from = path };
	struct image_links links;
	int ret = read_links(fd, path, &links, err);
	char *next;

	if (ret || !links.qcow2)
		return ret;
	link.trusted = !write || as_recorded(fd, &links);
	if (links.data_file[0]) {
		next = image_links_path(path, links.data_file);
		ret = next ? open_image(c, next, "raw", write, &link, err) : 0;
		free(next);
	}
	if (links.backing[0] && !ret) {
		next = image_links_path(path, links.backing);
		ret = next ? open_image(c, next, links.backing_format[0] ? links.backing_format : NULL, false, &link, err) : 0;
		free(next);
	}
	return ret;
}

/* `from` is the image that names it; NULL: the definition does. */
static int open_image(struct chain *c, const char *path, const char *format, bool write, const struct link *from, struct err *err)
{
	int flags = write ? O_RDWR : O_RDONLY, fd = open_file(path, flags, err), ret;

	if (fd < 0)
		return fd;
	if (c->depth++ > DEPTH_MAX)
		ret = err_set(err, ELOOP, "%s: there are more than %u backing files", path, DEPTH_MAX);
	else
		ret = from ? check_link(c, from, path, fd, err) : 0;
	/* Once more past the page cache: tables, and requests that are not aligned, do not go there. */
	if (!ret && c->direct && (!from || write))
		ret = confine_file_open(c->files, path, flags | O_DIRECT, err);
	/* A format that was only guessed leads nowhere. */
	if (!ret && format && !strcmp(format, "qcow2"))
		ret = follow(c, path, fd, write, err);
	if (!ret)
		return confine_file_add(c->files, path, fd, err);
	close(fd);
	return ret;
}

int confine_disk_open(struct confine_files *f, const struct guest *g, const struct dom_disk *disk, struct err *err)
{
	enum dom_disk_cache cache = disk->driver ? disk->driver->cache : 0;
	struct chain c = { .files = f, .guest = g, .disk = disk,
			   .direct = cache == DOM_DISK_CACHE_NONE || cache == DOM_DISK_CACHE_DIRECTSYNC };

	return open_image(&c, path_of(disk), disk->driver && disk->driver->type ? disk->driver->type : "raw",
			  !disk->readonly && disk->device != DOM_DISK_CDROM, NULL, err);
}

bool confine_files_send(struct confine_files *f, struct qmp *q)
{
	bool sent = true;

	for (unsigned n = 0; n < f->n && sent; n++) {
		json_t *args = json_pack("{s:s+}", "opaque", "path:", f->v[n].path);

		sent = args && qmp_send_fd(q, "add-fd", args, f->v[n].fd, NULL, NULL);
	}
	confine_files_close(f);
	return sent;
}

void confine_image_changed(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct image_links links;
	char now[RECORD_MAX];

	if (fd < 0)
		return;
	if (!read_links(fd, path, &links, NULL) && links.qcow2)
		fsetxattr(fd, record_name(), now, (size_t)format_record(&links, now), 0);
	close(fd);
}
