/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/iothread.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/loop.h"
#include "util/threads.h"

struct vmm_iothread {
	struct loop *loop;
	pthread_t thread;
	int tid; /* the kernel's; set with `started` */
	sem_t started;
};

static void *run(void *arg)
{
	struct vmm_iothread *t = arg;

	thread_begin(THREAD_IO);
	t->tid = gettid();
	sem_post(&t->started);
	loop_run(t->loop);
	return NULL;
}

struct vmm_iothread *iothread_new(const char *id, struct err *err)
{
	struct vmm_iothread *t = calloc(1, sizeof(*t));
	char name[16];
	int ret;

	if (!t) {
		err_set(err, ENOMEM, "no memory for iothread '%s'", id);
		return NULL;
	}
	t->loop = loop_new(err);
	if (!t->loop) {
		free(t);
		return NULL;
	}
	sem_init(&t->started, 0, 0);
	ret = pthread_create(&t->thread, NULL, run, t);
	if (ret) {
		sem_destroy(&t->started);
		err_set_errno(err, ret, "cannot make the thread of iothread '%s'", id);
		loop_free(t->loop);
		free(t);
		return NULL;
	}
	snprintf(name, sizeof(name), "io %s", id);
	pthread_setname_np(t->thread, name);
	while (sem_wait(&t->started) && errno == EINTR)
		;
	return t;
}

void iothread_free(struct vmm_iothread *t)
{
	if (!t)
		return;
	loop_quit(t->loop, 0);
	pthread_join(t->thread, NULL);
	loop_free(t->loop);
	sem_destroy(&t->started);
	free(t);
}

int iothread_tid(const struct vmm_iothread *t)
{
	return t->tid;
}

struct loop *iothread_loop(struct vmm_iothread *t)
{
	return t->loop;
}
