/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Confinement from outside: what a keel-vmm is given, and what it is put into.
 * It opens nothing by itself: keeld opens all files, interfaces and sockets and
 * passes them. docs/sandbox.md has the whole.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "daemon/guest.h"

/* ---- Files (confine_files.c) ------------------------------------------------ */

struct confine_file {
	char *path;
	int fd;
};
/* Descriptors, and the paths that they stand for in the guest's process. */
struct confine_files {
	struct confine_file *v;
	unsigned n;
};
/* Takes fd. 0, or -ENOMEM with err set and fd closed. */
int confine_file_add(struct confine_files *f, const char *path, int fd, struct err *err);
/* Open one file. */
int confine_file_open(struct confine_files *f, const char *path, int flags, struct err *err);
/* A disk's image, in all the ways that its cache mode takes, and what lies below it. */
int confine_disk_open(struct confine_files *f, const struct guest *g, const struct dom_disk *disk, struct err *err);
/* A Unix socket at `path` that listens. */
int confine_socket_listen(struct confine_files *f, const char *path, struct err *err);
void confine_files_close(struct confine_files *f);
/*
 * keeld itself has had an image's header changed (a snapshot, a block job):
 * what it leads to now is what it may lead to at the next start.
 */
void confine_image_changed(const char *path);
/*
 * Send them over the monitor, before a command that names their paths. Closes
 * them. False: no connection.
 */
bool confine_files_send(struct confine_files *f, struct qmp *q);

/* ---- Networks (confine_net.c) ------------------------------------------------- */

/* passt, outside of the guest's confinement: it has one of its own. A connected socket, or a negative errno. */
int confine_passt_start(const struct guest *g, struct err *err);

/* ---- The process (confine.c) ----------------------------------------------------- */

struct confine_launch {
	char *const *argv;
	const int *fds; /* these stay open */
	unsigned nfds;
	int log;
	unsigned vcpus;
	const char *label; /* sVirt, or NULL */
};
/* Find out: fills d->confine and d->cgroups. */
void confine_init(struct daemon *d);
/*
 * A user of its own for a new guest: reserved by a socket that goes to the
 * process and lives as long. The descriptor, or -1: there is none (session
 * mode, or no free one), and the text stays without a user.
 */
int confine_reserve_user(const struct daemon *d, int id, uid_t *uid);
/* --sandbox's value. */
void confine_option(const struct daemon *d, uid_t uid, char *text, size_t room);
/* Start it. 0, or a negative errno. */
int confine_launch(const struct guest *g, const struct confine_launch *l, pid_t *pid, int *pidfd, struct err *err);
/* The host's number of a thread that calls itself `tid` in its PID namespace; 0: there is none. */
pid_t confine_host_tid(pid_t pid, pid_t tid);
/* It is gone: its cgroup, and sockets that it could not remove. g->live is there still. */
void confine_cleanup(const struct guest *g);
