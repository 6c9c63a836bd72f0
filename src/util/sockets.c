/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/sockets.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/files.h"

static bool is_live(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool live = fd >= 0 && !connect(fd, (const struct sockaddr *)a, sizeof(*a));

	if (fd >= 0)
		close(fd);
	return live;
}

int unix_listen(const char *path, const char *what, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int fd = file_take_socket(path), ret;

	if (fd >= 0) /* whoever passed it has bound it, and listens */
		return fd;
	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, ENAMETOOLONG, "%s: the socket path %s is longer than %zu bytes", what, path,
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	if (!lstat(path, &st)) {
		if (!S_ISSOCK(st.st_mode))
			return err_set(err, EEXIST, "%s: %s exists and is not a socket", what, path);
		if (is_live(&a))
			return err_set(err, EADDRINUSE, "%s: somebody listens on %s already", what, path);
		unlink(path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(err, errno, "%s: cannot make a socket", what);
	mask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&a, sizeof(a));
	umask(mask);
	if (ret || listen(fd, 8)) {
		ret = err_set_errno(err, errno, "%s: cannot listen on %s", what, path);
		close(fd);
		return ret;
	}
	return fd;
}
