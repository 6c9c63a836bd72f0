/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vCPU threads: one each, made at the first start, parked on a condition while the machine is paused. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "machine/machine.h"
#include "util/log.h"
#include "util/threads.h"

static void leave(struct machine *m)
{
	if (--m->inside == 0)
		pthread_cond_broadcast(&m->run_cond);
}

static void *vcpu_thread(void *opaque)
{
	struct machine_vcpu *v = opaque;
	struct machine *m = v->machine;
	char name[16];

	snprintf(name, sizeof(name), "vcpu %u", v->index);
	prctl(PR_SET_NAME, name);
	thread_begin(THREAD_VCPU);
	pthread_mutex_lock(&m->run_lock);
	v->tid = gettid();
	pthread_cond_broadcast(&m->run_cond);
	while (!m->quit) {
		struct err err = ERR_INIT;
		enum vcpu_exit exit;

		if (!m->go || v->ended) {
			pthread_cond_wait(&m->run_cond, &m->run_lock);
			continue;
		}
		m->inside++;
		pthread_mutex_unlock(&m->run_lock);
		exit = vcpu_run(v->vcpu, &err);
		pthread_mutex_lock(&m->run_lock);
		leave(m);
		if (exit == VCPU_EXIT_KICK)
			continue;
		v->ended = true;
		pthread_mutex_unlock(&m->run_lock);
		if (exit == VCPU_EXIT_ERROR)
			log_line(LOG_ERROR, "vCPU %u: %s", v->index, err_msg(&err));
		machine_signal(m, exit == VCPU_EXIT_SHUTDOWN ? MACHINE_TRIPLE_FAULT : MACHINE_ENGINE_ERROR, v->index);
		pthread_mutex_lock(&m->run_lock);
	}
	pthread_mutex_unlock(&m->run_lock);
	return NULL;
}

int vcpus_create(struct machine *m, struct err *err)
{
	sigset_t all, old;
	int ret = 0;

	/* Signals are for the main thread; the engine unblocks what it kicks with. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; i < m->config.cpus && !ret; i++) {
		struct machine_vcpu *v = &m->vcpus[i];

		if (v->has_thread)
			continue;
		ret = pthread_create(&v->thread, NULL, vcpu_thread, v);
		if (ret)
			ret = err_set_errno(err, ret, "cannot make the thread of vCPU %u", i);
		else
			v->has_thread = true;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	/* Whoever starts the machine may ask for its threads' numbers next. */
	pthread_mutex_lock(&m->run_lock);
	for (unsigned i = 0; i < m->config.cpus; i++)
		while (m->vcpus[i].has_thread && !m->vcpus[i].tid)
			pthread_cond_wait(&m->run_cond, &m->run_lock);
	pthread_mutex_unlock(&m->run_lock);
	return ret;
}

void vcpus_go(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->go = true;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
}

void vcpus_halt(struct machine *m)
{
	pthread_mutex_lock(&m->run_lock);
	m->go = false;
	if (m->inside)
		for (unsigned i = 0; i < m->config.cpus; i++)
			vcpu_kick(m->vcpus[i].vcpu);
	while (m->inside)
		pthread_cond_wait(&m->run_cond, &m->run_lock);
	pthread_mutex_unlock(&m->run_lock);
}

void vcpus_destroy(struct machine *m)
{
	vcpus_halt(m);
	pthread_mutex_lock(&m->run_lock);
	m->quit = true;
	pthread_cond_broadcast(&m->run_cond);
	pthread_mutex_unlock(&m->run_lock);
	for (unsigned i = 0; i < m->config.cpus; i++)
		if (m->vcpus[i].has_thread)
			pthread_join(m->vcpus[i].thread, NULL);
}
