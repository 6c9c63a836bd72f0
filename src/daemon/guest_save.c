/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/guest_save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* libvirt's save image, version 2: virsh save-image-dumpxml of either reads it. */
struct head {
	char magic[16];
	uint32_t version, data_len, was_running, compressed, cookie;
	uint32_t unused[14];
};
#define WHOLE "LibvirtQemudSave"
#define PARTIAL "LibvirtQemudPart"
#define VERSION 2u
#define XML_MAX (4u << 20)
#define ROOM 1024u /* for a definition that grows */

static int put(int fd, const void *data, size_t len, off_t at, struct err *err)
{
	ssize_t n = pwrite(fd, data, len, at);

	return n == (ssize_t)len ? 0 : err_set_errno(err, n < 0 ? errno : ENOSPC, "cannot write a saved state");
}

int save_create(const char *path, const char *xml, bool running, struct err *err)
{
	size_t len = strlen(xml) + 1;
	struct head head = { .version = VERSION, .data_len = (uint32_t)(len + ROOM), .was_running = running };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600), ret = 0;

	if (fd < 0)
		return err_set_errno(err, errno, "Failed to create file '%s'", path);
	memcpy(head.magic, PARTIAL, sizeof(head.magic));
	ret = put(fd, &head, sizeof(head), 0, err);
	if (!ret)
		ret = put(fd, xml, len, sizeof(head), err);
	if (!ret && (ftruncate(fd, (off_t)(sizeof(head) + head.data_len)) || lseek(fd, 0, SEEK_END) < 0))
		ret = err_set_errno(err, errno, "cannot write '%s'", path);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

int save_complete(int fd, struct err *err)
{
	int ret = put(fd, WHOLE, 16, 0, err);

	return ret || !fsync(fd) || errno == EINVAL ? ret : err_set_errno(err, errno, "cannot write a saved state");
}

static int read_head(int fd, const char *path, struct head *head, struct err *err)
{
	if (pread(fd, head, sizeof(*head), 0) != sizeof(*head))
		return err_set(err, EIO, "failed to read qemu header");
	if (!memcmp(head->magic, PARTIAL, 16))
		return err_set(err, ENODATA, "save image is incomplete: '%s'", path);
	if (memcmp(head->magic, WHOLE, 16))
		return err_set(err, ESRCH, "image magic is incorrect");
	if (head->version != VERSION)
		return err_set(err, ESRCH, "image version is not supported (%u > %u)", head->version, VERSION);
	if (head->compressed || head->cookie)
		return err_set(err, ESRCH, "compressed images and cookies are not supported");
	if (!head->data_len || head->data_len > XML_MAX)
		return err_set(err, ESRCH, "invalid header data length: %u", head->data_len);
	return 0;
}

int save_open(const char *path, char **xml, bool *running, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), ret;
	struct head head;

	*xml = NULL;
	if (fd < 0)
		return err_set_errno(err, errno, "Failed to open file '%s'", path);
	ret = read_head(fd, path, &head, err);
	if (!ret) {
		*xml = calloc(1, head.data_len + 1);
		if (!*xml)
			ret = err_set(err, ENOMEM, "no memory for a definition");
		else if (pread(fd, *xml, head.data_len, sizeof(head)) != (ssize_t)head.data_len ||
			 lseek(fd, (off_t)(sizeof(head) + head.data_len), SEEK_SET) < 0)
			ret = err_set(err, EIO, "failed to read domain XML");
	}
	*running = !ret && head.was_running;
	if (!ret)
		return fd;
	free(*xml);
	*xml = NULL;
	close(fd);
	return ret;
}

int save_redefine(const char *path, const char *xml, int running, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY), ret;
	size_t len = strlen(xml) + 1;
	struct head head;

	if (fd < 0)
		return err_set_errno(err, errno, "Failed to open file '%s'", path);
	ret = read_head(fd, path, &head, err);
	if (!ret && len > head.data_len)
		ret = err_set(err, ESRCH, "new xml too large to fit in file");
	if (!ret && running >= 0) {
		head.was_running = (uint32_t)running;
		ret = put(fd, &head, sizeof(head), 0, err);
	}
	if (!ret)
		ret = put(fd, xml, len, sizeof(head), err);
	if (close(fd) && !ret)
		ret = err_set_errno(err, errno, "cannot write '%s'", path);
	return ret;
}

char *save_managed_path(const struct guest *g)
{
	char *path;

	return asprintf(&path, "%s/save/%s.save", g->daemon->root, g->name) < 0 ? NULL : path;
}

bool save_is_managed(const struct guest *g)
{
	char *path = save_managed_path(g);
	bool there = path && !access(path, F_OK);

	free(path);
	return there;
}

void save_forget_managed(const struct guest *g)
{
	char *path = save_managed_path(g);

	if (path)
		unlink(path);
	free(path);
}
