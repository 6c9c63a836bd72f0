/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct passed {
	struct passed *next;
	int fd;
	mode_t type; /* S_IFMT of it */
	int flags;
	char path[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct passed *list, **list_end = &list;

int file_pass(const char *path, int fd)
{
	struct passed *p = malloc(sizeof(*p) + strlen(path) + 1);
	struct stat st;

	if (!p || fstat(fd, &st)) {
		free(p);
		close(fd);
		return -ENOMEM;
	}
	strcpy(p->path, path);
	p->next = NULL;
	p->fd = fd;
	p->type = st.st_mode & S_IFMT;
	p->flags = fcntl(fd, F_GETFL) & (O_ACCMODE | O_DIRECT);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	pthread_mutex_lock(&lock);
	*list_end = p;
	list_end = &p->next;
	pthread_mutex_unlock(&lock);
	return 0;
}

bool file_passed(const char *path)
{
	const struct passed *p;

	pthread_mutex_lock(&lock);
	for (p = list; p && strcmp(p->path, path);)
		p = p->next;
	pthread_mutex_unlock(&lock);
	return p;
}

/* Out of the list; the lock is held. */
static int give_away(struct passed **at)
{
	struct passed *p = *at;
	int fd = p->fd;

	if (S_ISCHR(p->type))
		return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	*at = p->next;
	if (list_end == &p->next)
		list_end = at;
	free(p);
	return fd;
}

/* -1: none was passed. -2: none that fits. */
static int take(const char *path, bool sock, int flags)
{
	int fd = -1;

	pthread_mutex_lock(&lock);
	for (struct passed **at = &list; *at; at = &(*at)->next) {
		if (strcmp((*at)->path, path))
			continue;
		if (S_ISSOCK((*at)->type) != sock || (!sock && (*at)->flags != (flags & (O_ACCMODE | O_DIRECT)))) {
			fd = -2;
			continue;
		}
		fd = give_away(at);
		break;
	}
	pthread_mutex_unlock(&lock);
	return fd;
}

int file_open(const char *path, int flags)
{
	int fd = take(path, false, flags);

	if (fd == -2) {
		errno = EACCES;
		return -1;
	}
	return fd >= 0 ? fd : open(path, flags | O_CLOEXEC, 0666);
}

int file_take_socket(const char *path)
{
	int fd = take(path, true, 0);

	return fd >= 0 ? fd : -1;
}

void files_forget(void)
{
	pthread_mutex_lock(&lock);
	while (list) {
		struct passed *p = list;

		list = p->next;
		close(p->fd);
		free(p);
	}
	list_end = &list;
	pthread_mutex_unlock(&lock);
}
