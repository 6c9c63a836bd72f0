/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors that QMP clients passed over their sockets: by name (getfd) and in sets (add-fd). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/files.h"
#include "vmm/vmm.h"

static void fd_forget(struct vmm *v, struct vmm_fd *f)
{
	struct vmm_fd **p = &v->fds;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	free(f->name);
	free(f);
}

static struct vmm_fd *named(struct vmm *v, const char *name)
{
	for (struct vmm_fd *f = v->fds; f; f = f->next)
		if (f->name && !strcmp(f->name, name))
			return f;
	return NULL;
}

int vmm_fd_take(struct vmm *v, const char *name, struct err *err)
{
	struct vmm_fd *f = named(v, name);
	char *end;
	long fd;

	if (f) {
		fd = f->fd;
		fd_forget(v, f);
		return fd;
	}
	fd = strtol(name, &end, 10);
	if (end == name || *end || fd < 3 || fd > 65535)
		return err_set(err, ENOENT, "File descriptor named '%.80s' has not been found", name);
	if (fcntl(fd, F_GETFD) < 0)
		return err_set(err, EBADF, "File descriptor %ld is not open", fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

int vmm_fdset_dup(struct vmm *v, int64_t set, bool write, struct err *err)
{
	bool found = false;

	for (struct vmm_fd *f = v->fds; f; f = f->next) {
		int mode = fcntl(f->fd, F_GETFL) & O_ACCMODE, fd;

		if (f->name || f->set != set)
			continue;
		found = true;
		if (mode != O_RDWR && (write || mode != O_RDONLY))
			continue;
		fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
		return fd >= 0 ? fd : err_set_errno(err, errno, "cannot duplicate a descriptor of set %lld", (long long)set);
	}
	if (!found)
		return err_set(err, ENOENT, "there is no descriptor set %lld", (long long)set);
	return err_set(err, EACCES, "descriptor set %lld has no descriptor that is open for %s", (long long)set,
		       write ? "writing" : "reading");
}

void vmm_fds_free(struct vmm *v)
{
	while (v->fds) {
		close(v->fds->fd);
		fd_forget(v, v->fds);
	}
}

/* ---- Commands ---------------------------------------------------------------- */

/* The descriptor that came with the command; there must be one. */
static struct vmm_fd *arrived(struct vmm *v, struct err *err)
{
	struct vmm_fd *f;
	int fd = qmp_take_fd(v->qmp);

	if (fd < 0) {
		err_set(err, EINVAL, "No file descriptor supplied via SCM_RIGHTS");
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		close(fd);
		err_set(err, ENOMEM, "no memory for a descriptor");
		return NULL;
	}
	f->fd = fd;
	return f;
}

static void keep(struct vmm *v, struct vmm_fd *f)
{
	f->next = v->fds;
	v->fds = f;
}

static json_t *cmd_getfd(struct vmm *v, json_t *args, struct err *err)
{
	const char *name = json_string_value(json_object_get(args, "fdname"));
	struct vmm_fd *f = arrived(v, err), *old;

	if (!f)
		return NULL;
	if (!name || !*name || (*name >= '0' && *name <= '9')) {
		err_set(err, EINVAL, "Parameter 'fdname' expects a name not starting with a digit");
		close(f->fd);
		free(f);
		return NULL;
	}
	old = named(v, name);
	if (old) {
		close(old->fd);
		fd_forget(v, old);
	}
	f->name = strdup(name);
	keep(v, f);
	return json_object();
}

static json_t *cmd_closefd(struct vmm *v, json_t *args, struct err *err)
{
	const char *name = json_string_value(json_object_get(args, "fdname"));
	struct vmm_fd *f = name ? named(v, name) : NULL;

	if (!f) {
		err_set(err, ENOENT, "File descriptor named '%.80s' has not been found", name ? name : "");
		return NULL;
	}
	close(f->fd);
	fd_forget(v, f);
	return json_object();
}

static json_t *cmd_add_fd(struct vmm *v, json_t *args, struct err *err)
{
	json_t *set = json_object_get(args, "fdset-id");
	const char *opaque = json_string_value(json_object_get(args, "opaque"));
	struct vmm_fd *f = arrived(v, err);

	if (!f)
		return NULL;
	if (set && (!json_is_integer(set) || json_integer_value(set) < 0)) {
		err_set(err, EINVAL, "Parameter 'fdset-id' expects a non-negative value");
		close(f->fd);
		free(f);
		return NULL;
	}
	/* Keel's own: the descriptor stands for this path in commands that follow. */
	if (opaque && !strncmp(opaque, "path:", 5) && opaque[5]) {
		int fd = f->fd;

		free(f);
		return qmp_done(file_pass(opaque + 5, fd) ? err_set(err, ENOMEM, "no memory for a descriptor") : 0);
	}
	f->set = json_integer_value(set);
	for (struct vmm_fd *o = v->fds; o && !set; o = o->next)
		if (!o->name && o->set >= f->set)
			f->set = o->set + 1;
	keep(v, f);
	return json_pack("{s:I,s:i}", "fdset-id", (json_int_t)f->set, "fd", f->fd);
}

static json_t *cmd_remove_fd(struct vmm *v, json_t *args, struct err *err)
{
	json_t *set = json_object_get(args, "fdset-id"), *fd = json_object_get(args, "fd");
	struct vmm_fd *next;
	bool found = false;

	for (struct vmm_fd *f = v->fds; f; f = next) {
		next = f->next;
		if (f->name || f->set != json_integer_value(set) || (fd && f->fd != json_integer_value(fd)))
			continue;
		found = true;
		close(f->fd);
		fd_forget(v, f);
	}
	if (!found) {
		err_set(err, ENOENT, "File descriptor named 'fdset-id:%lld' has not been found",
			(long long)json_integer_value(set));
		return NULL;
	}
	return json_object();
}

const struct qmp_command qmp_fd_commands[] = {
	{ "add-fd", "fdset-id opaque", cmd_add_fd },
	{ "closefd", "fdname", cmd_closefd },
	{ "getfd", "fdname", cmd_getfd },
	{ "remove-fd", "fdset-id fd", cmd_remove_fd },
	{ NULL, NULL, NULL },
};
