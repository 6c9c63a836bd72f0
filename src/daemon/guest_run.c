/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's process: started, watched, ended, and found again by the next keeld. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/guest.h"
#include "daemon/guest_agent.h"
#include "daemon/guest_devices.h"
#include "daemon/guest_hooks.h"
#include "daemon/guest_tune.h"
#include "daemon/vmm_process.h"
#include "util/log.h"

#define KILL_NS 10000000000u /* how long a process may take to end by itself */

enum stage { STAGE_CONNECTING, STAGE_STARTING, STAGE_RUNNING };

struct guest_run {
	struct guest *guest;
	enum stage stage;
	pid_t pid;
	uint64_t start_time;
	int pidfd;
	struct loop_fd *exit_watch;
	struct qmp *qmp;
	char *monitor, *tty;
	off_t log_start;
	unsigned flags;	   /* START_* */
	bool reconnecting; /* an earlier keeld started it */
	bool settling;	   /* and it has not yet said how it is: calls that change it wait */
	bool shut_down;	   /* the guest has powered off */
	bool crashed;	   /* its kernel panicked */
	bool destroying;
	int end_reason, end_detail; /* what its end is, whatever brings it; 0: see why_it_ended() */
	int restore_fd;	   /* its state comes from here first, or -1 */
	bool ending; /* told to end, for whatever reason: what it says now is no news */
	bool restored;	   /* it began with a saved state */
	bool fake_reboot; /* the next power-off is a reboot */
	struct timer *kill_timer;
	bool graceful;
	guest_started started, killed;
	void *started_opaque, *killed_opaque;
	pid_t *tids;
	unsigned ntids;
};

struct qmp *guest_monitor(const struct guest *g)
{
	return g->run && g->run->stage != STAGE_CONNECTING ? g->run->qmp : NULL;
}

pid_t guest_pid(const struct guest *g)
{
	return g->run ? g->run->pid : 0;
}

uint64_t guest_start_time(const struct guest *g)
{
	return g->run ? g->run->start_time : 0;
}

const char *guest_tty(const struct guest *g)
{
	return g->run ? g->run->tty : NULL;
}

pid_t guest_vcpu_tid(const struct guest *g, unsigned vcpu)
{
	return g->run && vcpu < g->run->ntids ? g->run->tids[vcpu] : 0;
}

void guest_set_fake_reboot(struct guest *g, bool on)
{
	if (g->run)
		g->run->fake_reboot = on;
}

void guest_set_state(struct guest *g, enum guest_state state, int reason)
{
	g->state = state;
	g->reason = reason;
	store_save_live(g);
}

void guest_run_free(struct guest_run *r)
{
	if (!r)
		return;
	qmp_free_client(r->qmp);
	loop_fd_del(r->exit_watch);
	if (r->pidfd >= 0)
		close(r->pidfd);
	timer_free(r->kill_timer);
	if (r->restore_fd >= 0)
		close(r->restore_fd);
	free(r->monitor);
	free(r->tty);
	free(r->tids);
	free(r);
}

void guest_abandon(struct guest *g)
{
	struct guest_run *r = g->run;
	struct err err = ERR_INIT;

	if (!r)
		return;
	block_jobs_forget(g);
	g->run = NULL;
	err_set(&err, ECANCELED, "keeld ends");
	if (r->started)
		r->started(g, r->started_opaque, &err);
	if (r->killed)
		r->killed(g, r->killed_opaque, &err);
	guest_run_free(r);
}

/* ---- The end --------------------------------------------------------------- */

static void tell_started(struct guest *g, const struct err *err)
{
	struct guest_run *r = g->run;
	guest_started fn = r ? r->started : NULL;

	if (!fn)
		return;
	r->started = NULL;
	fn(g, r->started_opaque, err);
}

static void why_it_ended(const struct guest_run *r, int *reason, int *detail)
{
	if (r->end_reason) {
		*reason = r->end_reason;
		*detail = r->end_detail;
	} else if (r->destroying) {
		*reason = SHUTOFF_DESTROYED;
		*detail = STOPPED_DESTROYED;
	} else if (r->crashed) {
		*reason = SHUTOFF_CRASHED;
		*detail = STOPPED_CRASHED;
	} else if (r->shut_down) {
		*reason = SHUTOFF_SHUTDOWN;
		*detail = STOPPED_SHUTDOWN;
	} else {
		*reason = r->stage == STAGE_RUNNING ? SHUTOFF_CRASHED : SHUTOFF_FAILED;
		*detail = STOPPED_FAILED;
	}
}

/* The process is gone. */
static void ended(struct guest *g)
{
	struct guest_run *r = g->run;
	struct err err = ERR_INIT;
	guest_started started = r->started, killed = r->killed;
	void *started_opaque = r->started_opaque, *killed_opaque = r->killed_opaque;
	bool settling;
	int reason, detail;
	char *words;

	guest_get(g);
	qmp_drain(r->qmp); /* what it said last */
	guest_agent_guest_ended(g);
	guest_agent_free(g);
	block_jobs_forget(g);
	why_it_ended(r, &reason, &detail);
	if (started) {
		words = vmm_last_words(g, r->log_start);
		err_set(&err, ECHILD, "process exited while connecting to monitor%s%s", words ? ": " : "", words ? words : "");
		free(words);
		if (!r->destroying)
			event_control_error(g);
	}
	if (r->stage == STAGE_RUNNING && detail == STOPPED_FAILED)
		log_line(LOG_WARN, "the process %d of the guest '%s' ended without a word", r->pid, g->name);
	unlinkat(g->daemon->run_dir, r->monitor, 0);
	store_delete_live(g);
	confine_cleanup(g);
	hook_guest(g, g->live, "stopped", "end", NULL, NULL);
	hook_guest(g, g->live, "release", "end", NULL, NULL);
	g->run = NULL;
	domain_free(g->live);
	g->live = NULL;
	g->state = STATE_SHUTOFF;
	g->reason = reason;
	g->updated = false;
	g->autodestroy = NULL;
	/* A start that fails is told to its caller only. */
	if (r->stage == STAGE_RUNNING || r->reconnecting)
		event_lifecycle(g, EVENT_STOPPED, detail);
	g->id = -1;
	if (!guest_is_persistent(g))
		guest_remove(g);
	guest_unpack(g); /* off: it may be packed when others need the room */
	settling = r->settling;
	guest_run_free(r);
	if (settling)
		guest_job_end(g);
	if (started)
		started(g, started_opaque, &err);
	if (killed)
		killed(g, killed_opaque, NULL);
	guest_put(g);
}

static void exit_ready(void *opaque, uint32_t events)
{
	struct guest_run *r = opaque;
	siginfo_t info;

	/* Not our child if an earlier keeld started it; then somebody else reaps it. */
	waitid(P_PIDFD, r->pidfd, &info, WEXITED);
	ended(r->guest);
}

static void send_signal(struct guest_run *r, int sig)
{
	syscall(SYS_pidfd_send_signal, r->pidfd, sig, NULL, 0);
}

static void kill_late(void *opaque)
{
	struct guest_run *r = opaque;
	guest_started fn = r->killed;
	struct err err = ERR_INIT;

	if (!r->graceful) {
		send_signal(r, SIGKILL);
		return;
	}
	r->killed = NULL;
	r->destroying = r->ending = false;
	err_set(&err, EBUSY, "Failed to terminate process %d with SIGTERM: Device or resource busy", r->pid);
	if (fn)
		fn(r->guest, r->killed_opaque, &err);
}

/* Without a timer there is no waiting. */
static void terminate(struct guest_run *r)
{
	r->ending = true;
	send_signal(r, SIGTERM);
	if (!r->kill_timer)
		r->kill_timer = timer_new(r->guest->daemon->loop, kill_late, r);
	if (r->kill_timer)
		timer_arm(r->kill_timer, monotonic_ns() + KILL_NS);
	else
		send_signal(r, SIGKILL);
}

void guest_kill(struct guest *g, bool graceful, guest_started done, void *opaque)
{
	struct guest_run *r = g->run;

	if (r->killed) { /* somebody has asked already: both are told in turn by the later one's caller */
		struct err err = ERR_INIT;

		err_set(&err, EBUSY, "the domain '%s' is being destroyed already", g->name);
		if (done)
			done(g, opaque, &err);
		return;
	}
	r->destroying = true;
	r->graceful = graceful;
	r->killed = done;
	r->killed_opaque = opaque;
	terminate(r);
}

void guest_end_as(struct guest *g, int reason, int detail, guest_started done, void *opaque)
{
	struct guest_run *r = g->run;

	r->end_reason = reason;
	r->end_detail = detail;
	if (!r->killed) {
		r->killed = done;
		r->killed_opaque = opaque;
		done = NULL;
	}
	terminate(r);
	if (done)
		done(g, opaque, NULL);
}

/* ---- Power-off, reboot, crash ---------------------------------------------- */

static void begin_again(struct guest *g)
{
	struct guest_run *r = g->run;

	r->fake_reboot = r->shut_down = r->crashed = false;
	/* What keeps the guest from running again ends it. */
	if (!qmp_send(r->qmp, "system_reset", NULL, NULL, NULL) || !qmp_send(r->qmp, "cont", NULL, NULL, NULL))
		terminate(r);
}

static void shutdown_event(struct guest *g, json_t *data)
{
	struct guest_run *r = g->run;
	json_t *by_guest = json_object_get(data, "guest");
	const char *reason = json_string_value(json_object_get(data, "reason"));
	enum dom_action action = g->live->on_poweroff;

	if (r->ending) {
		/* Destroyed: told, as libvirt does, before the end itself. */
		if (r->destroying && !r->shut_down && r->stage == STAGE_RUNNING)
			event_lifecycle(g, EVENT_SHUTDOWN, SHUTDOWN_EVENT_HOST);
		r->shut_down = true;
		return;
	}
	if (reason && !strcmp(reason, "guest-panic") && !r->crashed) { /* a triple fault: no kernel was left to tell */
		r->crashed = true;
		guest_set_state(g, STATE_CRASHED, CRASHED_PANICKED);
		event_lifecycle(g, EVENT_CRASHED, CRASHED_EVENT_PANICKED);
	}
	if (r->crashed) {
		action = g->live->on_crash;
		if (action == DOM_ACTION_COREDUMP_RESTART)
			action = DOM_ACTION_RESTART;
	} else {
		r->shut_down = true;
		guest_agent_guest_ended(g);
		guest_set_state(g, STATE_SHUTDOWN, SHUTDOWN_UNKNOWN);
		event_lifecycle(g, EVENT_SHUTDOWN, !by_guest ? SHUTDOWN_EVENT_FINISHED : json_is_true(by_guest) ? SHUTDOWN_EVENT_GUEST
														: SHUTDOWN_EVENT_HOST);
		if (reason && !strcmp(reason, "guest-reset"))
			action = DOM_ACTION_DESTROY; /* on_reboot */
		else if (r->fake_reboot)
			action = DOM_ACTION_RESTART;
	}
	switch (action) {
	case DOM_ACTION_RESTART:
	case DOM_ACTION_RENAME_RESTART:
		begin_again(g);
		break;
	case DOM_ACTION_PRESERVE:
		break;
	default:
		terminate(r);
	}
}

/* ---- Events of the machine ------------------------------------------------- */

static void ask_cpus(struct guest *g);

static void stop_event(struct guest *g)
{
	/* A guest that has powered off is not paused, and a start is no news. */
	if (g->state != STATE_RUNNING || g->run->stage != STAGE_RUNNING)
		return;
	guest_set_state(g, STATE_PAUSED, PAUSED_USER);
	event_lifecycle(g, EVENT_SUSPENDED, SUSPENDED_PAUSED);
}

static void resume_event(struct guest *g)
{
	if (g->state == STATE_RUNNING)
		return;
	guest_set_state(g, STATE_RUNNING, g->run->stage == STAGE_RUNNING ? RUNNING_UNPAUSED
					: g->run->restored		? RUNNING_RESTORED
									: RUNNING_BOOTED);
	event_lifecycle(g, EVENT_RESUMED, RESUMED_UNPAUSED);
	if (g->run->stage == STAGE_RUNNING && !guest_vcpu_tid(g, 0)) /* it was started paused: no vCPU has run before */
		ask_cpus(g);
}

static void balloon_event(struct guest *g, json_t *data)
{
	uint64_t kib = (uint64_t)json_integer_value(json_object_get(data, "actual")) / 1024;

	if (kib > g->live->memory->kib)
		kib = g->live->memory->kib; /* the guest says so, not the host */
	if (g->live->current_memory)
		g->live->current_memory->kib = kib;
	store_save_live(g);
	event_balloon_change(g, kib);
}

static void watchdog_event(struct guest *g, json_t *data)
{
	static const char *const actions[] = { "none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi" };
	const char *action = json_string_value(json_object_get(data, "action"));

	for (unsigned n = 0; action && n < sizeof(actions) / sizeof(actions[0]); n++) {
		if (strcmp(actions[n], action))
			continue;
		if (n == 1 && g->state == STATE_RUNNING) {
			guest_set_state(g, STATE_PAUSED, PAUSED_WATCHDOG);
			event_lifecycle(g, EVENT_SUSPENDED, SUSPENDED_WATCHDOG);
		}
		event_watchdog(g, (int)n);
	}
}

static void io_error_event(struct guest *g, json_t *data)
{
	const char *action = json_string_value(json_object_get(data, "action"));
	const char *device = json_string_value(json_object_get(data, "device"));
	bool full = json_is_true(json_object_get(data, "nospace"));
	const struct dom_disk *disk = device ? disk_by_alias(g->live, device) : NULL;
	const char *path = disk && disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
	int n = action && !strcmp(action, "stop") ? 1 : action && !strcmp(action, "report") ? 2 : 0;

	event_io_error(g, path ? path : "", device ? device : "", n, full ? "enospc" : "");
	if (n == 1 && g->state == STATE_RUNNING) {
		guest_set_state(g, STATE_PAUSED, PAUSED_IOERROR);
		event_lifecycle(g, EVENT_SUSPENDED, SUSPENDED_IOERROR);
	}
}

static void panicked_event(struct guest *g)
{
	g->run->crashed = true;
	guest_set_state(g, STATE_CRASHED, CRASHED_PANICKED);
	event_lifecycle(g, EVENT_CRASHED, CRASHED_EVENT_PANICKED);
}

static void reset_event(struct guest *g)
{
	guest_agent_guest_ended(g);
	event_reboot(g);
}

static void on_event(void *opaque, const char *name, json_t *data, int64_t seconds, uint32_t micros)
{
	struct guest_run *r = opaque;
	struct guest *g = guest_get(r->guest);

	event_monitor(g, name, seconds, micros, data);
	if (!strcmp(name, "SHUTDOWN"))
		shutdown_event(g, data);
	else if (!strcmp(name, "STOP"))
		stop_event(g);
	else if (!strcmp(name, "RESUME"))
		resume_event(g);
	else if (!strcmp(name, "RESET"))
		reset_event(g);
	else if (!strcmp(name, "BALLOON_CHANGE"))
		balloon_event(g, data);
	else if (!strcmp(name, "RTC_CHANGE"))
		event_rtc_change(g, json_integer_value(json_object_get(data, "offset")));
	else if (!strcmp(name, "WATCHDOG"))
		watchdog_event(g, data);
	else if (!strcmp(name, "BLOCK_IO_ERROR"))
		io_error_event(g, data);
	else if (!strcmp(name, "BLOCK_JOB_READY") || !strcmp(name, "BLOCK_JOB_COMPLETED") || !strcmp(name, "BLOCK_JOB_CANCELLED"))
		block_jobs_event(g, name, data);
	else if (!strcmp(name, "GUEST_PANICKED"))
		panicked_event(g);
	else if (!strcmp(name, "GUEST_CRASHLOADED"))
		event_lifecycle(g, EVENT_CRASHED, CRASHED_EVENT_CRASHLOADED);
	else if (!strcmp(name, "DEVICE_DELETED"))
		devices_deleted(g, json_string_value(json_object_get(data, "device")));
	else if (!strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR"))
		devices_unplug_failed(g, json_string_value(json_object_get(data, "device")));
	else if (!strcmp(name, "DEVICE_TRAY_MOVED"))
		devices_tray_moved(g, json_string_value(json_object_get(data, "id")), json_is_true(json_object_get(data, "tray-open")));
	else if (!strcmp(name, "VSERPORT_CHANGE"))
		devices_port_change(g, json_string_value(json_object_get(data, "id")), json_is_true(json_object_get(data, "open")));
	guest_put(g);
}

/* The monitor is gone; so is the process, in a moment. One that stays without a monitor can't be managed. */
static void on_closed(void *opaque, const char *why)
{
	struct guest_run *r = opaque;

	if (!r->destroying && !r->shut_down)
		log_line(LOG_INFO, "the monitor of '%s' is closed: %s", r->guest->name, why);
	terminate(r);
}

/* ---- The beginning --------------------------------------------------------- */

static void remember_tids(struct guest_run *r, json_t *cpus)
{
	unsigned n = json_array_size(cpus);

	if (n > domain_vcpus_current(r->guest->live))
		n = domain_vcpus_current(r->guest->live);
	free(r->tids);
	r->tids = calloc(n + 1, sizeof(*r->tids));
	r->ntids = r->tids ? n : 0;
	for (unsigned i = 0; i < r->ntids; i++)
		r->tids[i] = confine_host_tid(
			r->pid, (pid_t)json_integer_value(json_object_get(json_array_get(cpus, i), "thread-id")));
}

static void fail_start(struct guest *g, const char *what, const char *why)
{
	struct err err = ERR_INIT;

	err_set(&err, EIO, "unable to execute QEMU command '%s': %s", what, why);
	g->run->destroying = false;
	tell_started(g, &err);
	terminate(g->run);
}

/* A hook that refuses what has begun ends it. */
static void hook_started(struct guest *g, void *opaque, const struct err *refused)
{
	(void)opaque;
	tell_started(g, refused);
	if (refused && g->run)
		terminate(g->run);
}

static void cpus_known(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;
	struct guest_run *r = g->run;

	if (r) {
		remember_tids(r, ret);
		r->stage = STAGE_RUNNING;
		tune_apply(g);
		store_save_live(g);
		hook_guest(g, g->live, "started", "begin", hook_started, NULL);
	}
	guest_put(g);
}

/* Its vCPUs have threads as soon as it runs. */
static void ask_cpus(struct guest *g)
{
	if (!qmp_send(g->run->qmp, "query-cpus-fast", NULL, cpus_known, guest_get(g))) {
		guest_put(g);
		fail_start(g, "query-cpus-fast", "no memory");
	}
}

static void continued(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;

	if (g->run && !ret)
		fail_start(g, "cont", error);
	else if (g->run)
		ask_cpus(g);
	guest_put(g);
}

static void throttled(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;

	if (g->run && !ret)
		fail_start(g, "block_set_io_throttle", error);
	guest_put(g);
}

static void throttle_disks(struct guest *g)
{
	const struct dom_devices *dev = g->live->devices;

	for (unsigned n = 0; n < dev->disk.n; n++) {
		const struct dom_disk *d = dev->disk.v[n];

		if (d->iotune && !qmp_send(g->run->qmp, "block_set_io_throttle", iotune_arguments(d->info.alias, d->iotune), throttled,
					   guest_get(g)))
			guest_put(g); /* the monitor is gone: so is the start */
	}
}

static void loaded(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;

	if (g->run && !ret)
		fail_start(g, "load-state", error);
	guest_put(g);
}

/* The machine is to be what it was; the commands after this one wait for it. */
static void load_state(struct guest *g)
{
	struct guest_run *r = g->run;

	if (qmp_send_fd(r->qmp, "getfd", json_pack("{s:s}", "fdname", "load"), r->restore_fd, NULL, NULL) &&
	    !qmp_send(r->qmp, "load-state", json_pack("{s:s}", "protocol", "fd:load"), loaded, guest_get(g)))
		guest_put(g);
	close(r->restore_fd);
	r->restore_fd = -1;
	r->restored = true;
}

static void begin(struct guest *g)
{
	struct guest_run *r = g->run;
	uint64_t current = domain_memory_current(g->live);

	r->stage = STAGE_STARTING;
	throttle_disks(g);
	if (r->restore_fd >= 0)
		load_state(g);
	else if (g->live->devices->memballoon && current < g->live->memory->kib)
		qmp_send(r->qmp, "balloon", json_pack("{s:I}", "value", (json_int_t)(current * 1024)), NULL, NULL);
	if (r->flags & START_PAUSED) {
		guest_set_state(g, STATE_PAUSED, PAUSED_USER);
		ask_cpus(g);
	} else if (!qmp_send(r->qmp, "cont", NULL, continued, guest_get(g))) {
		guest_put(g);
		fail_start(g, "cont", "no memory");
	}
}

/* What an earlier keeld knew may have changed while nobody looked. */
static void status_known(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;
	const char *status = json_string_value(json_object_get(ret, "status"));

	if (g->run && status) {
		g->run->stage = STAGE_RUNNING;
		hook_guest(g, g->live, "reconnect", "begin", hook_started, NULL);
		if (!strcmp(status, "running")) {
			if (g->state != STATE_RUNNING)
				guest_set_state(g, STATE_RUNNING, RUNNING_UNKNOWN);
		} else if (!strcmp(status, "shutdown")) {
			shutdown_event(g, NULL);
		} else if (!strcmp(status, "guest-panicked")) {
			panicked_event(g);
			shutdown_event(g, NULL);
		} else if (g->state != STATE_PAUSED) {
			guest_set_state(g, STATE_PAUSED, PAUSED_UNKNOWN);
		}
	}
	if (g->run && g->run->settling) {
		g->run->settling = false;
		guest_job_end(g);
	}
	guest_put(g);
}

static void reconnected_cpus(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;

	if (g->run)
		remember_tids(g->run, ret);
	guest_put(g);
}

static void balloon_known(void *opaque, json_t *ret, const char *error)
{
	struct guest *g = opaque;

	if (g->run && ret && g->live->current_memory)
		g->live->current_memory->kib = (uint64_t)json_integer_value(json_object_get(ret, "actual")) / 1024;
	guest_put(g);
}

static void on_ready(void *opaque)
{
	struct guest_run *r = opaque;
	struct guest *g = r->guest;

	if (!r->reconnecting) {
		begin(g);
		return;
	}
	r->stage = STAGE_STARTING;
	if (!qmp_send(r->qmp, "query-cpus-fast", NULL, reconnected_cpus, guest_get(g)))
		guest_put(g);
	if (!qmp_send(r->qmp, "query-balloon", NULL, balloon_known, guest_get(g)))
		guest_put(g);
	if (!qmp_send(r->qmp, "query-status", NULL, status_known, guest_get(g)))
		guest_put(g);
}

static const struct qmp_ops ops = { .ready = on_ready, .event = on_event, .closed = on_closed };

/* Takes the descriptors of `s`, also on failure. */
static int watch(struct guest *g, const struct spawned *s, const char *monitor, struct err *err)
{
	struct guest_run *r = calloc(1, sizeof(*r));
	struct loop *loop = g->daemon->loop;

	if (!r) {
		close(s->monitor);
		close(s->pidfd);
		return err_set(err, ENOMEM, "no memory for a process");
	}
	*r = (struct guest_run){ .guest = g, .pid = s->pid, .start_time = s->start_time, .pidfd = s->pidfd,
				 .log_start = s->log_start, .monitor = strdup(monitor), .restore_fd = -1 };
	r->exit_watch = loop_fd_add(loop, s->pidfd, EPOLLIN, exit_ready, r, err);
	r->qmp = qmp_new_client(loop, s->monitor, &ops, r, err);
	if (!r->monitor || !r->exit_watch || !r->qmp) {
		guest_run_free(r);
		return err_set(err, ENOMEM, "no memory for a process");
	}
	g->run = r;
	return 0;
}

/* What the live definition says about the first terminal. */
static const char *first_tty(const struct domain *def)
{
	for (unsigned n = 0; n < def->devices->console.n; n++)
		if (def->devices->console.v[n]->tty)
			return def->devices->console.v[n]->tty;
	for (unsigned n = 0; n < def->devices->serial.n; n++)
		if (def->devices->serial.v[n]->type == DOM_CHR_PTY && def->devices->serial.v[n]->source.n)
			return def->devices->serial.v[n]->source.v[0]->path;
	return NULL;
}

/* A start under way, while hooks run. */
struct starting {
	struct domain *def;
	unsigned flags;
	int restore_fd;
	guest_started done;
	void *opaque;
};

static void not_started(struct guest *g, struct starting *s, const struct err *err)
{
	guest_started done = s->done;
	void *opaque = s->opaque;

	g->id = -1;
	g->state = STATE_SHUTOFF;
	g->reason = SHUTOFF_FAILED;
	if (s->def && s->def->id.set) {
		hook_guest(g, s->def, "stopped", "end", NULL, NULL);
		hook_guest(g, s->def, "release", "end", NULL, NULL);
	}
	domain_free(s->def);
	if (s->restore_fd >= 0)
		close(s->restore_fd);
	free(s);
	done(g, opaque, err);
}

/* All hooks agree. */
static void start_process(struct guest *g, void *opaque, const struct err *refused)
{
	struct starting *st = opaque;
	struct domain *def = st->def;
	struct err err = ERR_INIT;
	struct spawned s;
	char monitor[32];
	const char *tty;

	if (refused) {
		not_started(g, st, refused);
		return;
	}
	g->id = (int)def->id.value;
	snprintf(monitor, sizeof(monitor), "%d.monitor", g->id);
	if (vmm_spawn(g, def, &s, &err)) {
		not_started(g, st, &err);
		return;
	}
	if (watch(g, &s, monitor, &err)) {
		kill(s.pid, SIGKILL);
		waitpid(s.pid, NULL, 0);
		unlinkat(g->daemon->run_dir, monitor, 0);
		not_started(g, st, &err);
		return;
	}
	tty = first_tty(def);
	g->run->tty = tty ? strdup(tty) : NULL;
	g->run->flags = st->flags;
	g->run->restore_fd = st->restore_fd;
	g->run->started = st->done;
	g->run->started_opaque = st->opaque;
	g->live = def;
	free(st);
	guest_set_state(g, STATE_PAUSED, PAUSED_STARTING_UP);
}

static void prepared(struct guest *g, void *opaque, const struct err *refused)
{
	struct starting *s = opaque;

	if (refused)
		not_started(g, s, refused);
	else
		hook_guest(g, s->def, "start", "begin", start_process, s);
}

void guest_start(struct guest *g, struct domain *def, unsigned flags, guest_started done, void *opaque)
{
	struct starting *s = calloc(1, sizeof(*s));
	struct err err = ERR_INIT;
	int ret = 0;

	if (!def)
		def = domain_copy(g->config);
	if (!def || !s)
		ret = err_set(&err, ENOMEM, "no memory to start '%s'", g->name);
	if (!ret)
		ret = domain_check(def, &g->daemon->caps, &err);
	if (!ret)
		ret = domain_fill_aliases(def, &err);
	if (!s) {
		domain_free(def);
		if (g->restore_fd >= 0)
			close(g->restore_fd);
		g->restore_fd = -1;
		done(g, opaque, &err);
		return;
	}
	*s = (struct starting){ .def = def, .flags = flags, .restore_fd = g->restore_fd, .done = done, .opaque = opaque };
	g->restore_fd = -1;
	if (ret) {
		not_started(g, s, &err);
		return;
	}
	def->id = (struct opt32){ .value = ++g->daemon->guests.last_id, .set = true };
	hook_guest(g, def, "prepare", "begin", prepared, s);
}

void guest_reconnect(struct guest *g, pid_t pid, uint64_t start_time, const char *monitor, const char *tty)
{
	struct spawned s = { .pid = pid, .start_time = start_time, .pidfd = vmm_find(pid, start_time), .monitor = -1 };
	struct err err = ERR_INIT;

	if (s.pidfd >= 0)
		s.monitor = vmm_connect(g->daemon, monitor, &err);
	if (s.monitor >= 0 && !watch(g, &s, monitor, &err)) {
		g->run->reconnecting = g->run->settling = g->busy = true;
		g->run->tty = tty ? strdup(tty) : NULL;
		return;
	}
	/* One that runs but can't be reached must not run beside its next start. */
	if (s.pidfd >= 0 && s.monitor < 0) {
		syscall(SYS_pidfd_send_signal, s.pidfd, SIGKILL, NULL, 0);
		close(s.pidfd);
	}
	log_line(LOG_WARN, "the guest '%s' ended while no keeld ran", g->name);
	unlinkat(g->daemon->run_dir, monitor, 0);
	store_delete_live(g);
	confine_cleanup(g);
	domain_free(g->live);
	g->live = NULL;
	g->id = -1;
	g->state = STATE_SHUTOFF;
	g->reason = SHUTOFF_CRASHED;
	if (!guest_is_persistent(g))
		guest_remove(g);
}
