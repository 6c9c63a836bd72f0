/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What kind of work a thread does. Each new thread says it first of all, so
 * that the sandbox can take from it what this kind never needs.
 */
#pragma once

enum thread_kind {
	THREAD_VCPU,  /* runs guest code, and devices on its behalf */
	THREAD_IO,    /* queues of devices, requests to images */
	THREAD_TIMER, /* the timers of an engine */
	THREAD_KINDS,
};

/* For the thread that calls it. */
void thread_begin(enum thread_kind kind);
/* What thread_begin() does; before any thread is made. */
void threads_on_begin(void (*fn)(enum thread_kind kind));
