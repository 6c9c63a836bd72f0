/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events as they come, and QMP. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/verb.h"
#include "util/loop.h"

/* By number: virDomainEventID. */
static const char *const kinds[] = {
	"lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "graphics", "io-error-reason", "control-error", "block-job",
	"disk-change", "tray-change", "pm-wakeup", "pm-suspend", "balloon-change", "pm-suspend-disk", "device-removed", "block-job-2",
	"tunable", "agent-lifecycle", "device-added", "migration-iteration", "job-completed", "device-removal-failed",
	"metadata-change", "block-threshold", "memory-failure", "memory-device-size-change",
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct watch {
	struct cmd *c;
	bool loop, timestamp, json, pretty, all;
	const char *name; /* of a QMP event: only those; NULL: all */
	unsigned count;
	bool done;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	interrupted = 1;
}

static int int_of(const struct keel_event *e, const char *name)
{
	return (int)keel_param_number(e->params, e->nparams, name, NULL);
}

static const char *text_of(const struct keel_event *e, const char *name)
{
	for (unsigned n = 0; n < e->nparams; n++)
		if (!strcmp(e->params[n].name, name) && e->params[n].type == KEEL_PARAM_STRING)
			return e->params[n].value.s;
	return "";
}

static const char *word(const char *const *words, unsigned n, int i)
{
	return i >= 0 && (unsigned)i < n && words[i] ? words[i] : "unknown";
}
#define WORD(words, i) word(words, sizeof(words) / sizeof((words)[0]), i)

static const char *lifecycle_detail(int event, int detail)
{
	static const char *const details[][9] = {
		[KEEL_LIFECYCLE_DEFINED] = { "Added", "Updated", "Renamed", "Snapshot" },
		[KEEL_LIFECYCLE_UNDEFINED] = { "Removed", "Renamed" },
		[KEEL_LIFECYCLE_STARTED] = { "Booted", "Migrated", "Restored", "Snapshot", "Event wakeup" },
		[KEEL_LIFECYCLE_SUSPENDED] = { "Paused", "Migrated", "I/O Error", "Watchdog", "Restored", "Snapshot", "API error",
					       "Post-copy", "Post-copy Error" },
		[KEEL_LIFECYCLE_RESUMED] = { "Unpaused", "Migrated", "Snapshot", "Post-copy", "Post-copy failed" },
		[KEEL_LIFECYCLE_STOPPED] = { "Shutdown", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "Snapshot", "Daemon" },
		[KEEL_LIFECYCLE_SHUTDOWN] = { "Finished", "Finished after guest request", "Finished after host request" },
		[KEEL_LIFECYCLE_PMSUSPENDED] = { "Memory", "Disk" },
		[KEEL_LIFECYCLE_CRASHED] = { "Panicked", "Crashloaded" },
	};

	if (event < 0 || event > KEEL_LIFECYCLE_CRASHED || detail < 0 || detail > 8 || !details[event][detail])
		return "unknown";
	return details[event][detail];
}

/* What follows "event 'KIND' for domain 'NAME'". */
static void print_details(const struct keel_event *e)
{
	static const char *const lifecycle[] = { "Defined", "Undefined", "Started",	"Suspended",  "Resumed",
						 "Stopped", "Shutdown",	 "PMSuspended", "Crashed" };
	static const char *const watchdog[] = { "none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi" };
	static const char *const io_error[] = { "none", "pause", "report" };
	static const char *const agent_states[] = { "unknown", "connected", "disconnected" };
	static const char *const agent_reasons[] = { "unknown", "domain started", "channel event" };
	static const char *const metadata[] = { "description", "title", "element" };

	switch (e->kind) {
	case KEEL_EVENT_LIFECYCLE:
		printf(": %s %s\n", WORD(lifecycle, int_of(e, "event")), lifecycle_detail(int_of(e, "event"), int_of(e, "detail")));
		break;
	case KEEL_EVENT_RTC_CHANGE:
		printf(": %lld\n", (long long)keel_param_number(e->params, e->nparams, "offset", NULL));
		break;
	case KEEL_EVENT_WATCHDOG:
		printf(": %s\n", WORD(watchdog, int_of(e, "action")));
		break;
	case KEEL_EVENT_IO_ERROR:
		printf(": %s (%s) %s\n", text_of(e, "srcPath"), text_of(e, "devAlias"), WORD(io_error, int_of(e, "action")));
		break;
	case KEEL_EVENT_IO_ERROR_REASON:
		printf(": %s (%s) %s due to %s\n", text_of(e, "srcPath"), text_of(e, "devAlias"), WORD(io_error, int_of(e, "action")),
		       text_of(e, "reason"));
		break;
	case KEEL_EVENT_BALLOON_CHANGE:
		printf(": %lluKiB\n", (unsigned long long)keel_param_number(e->params, e->nparams, "actual", NULL));
		break;
	case KEEL_EVENT_DEVICE_ADDED:
	case KEEL_EVENT_DEVICE_REMOVED:
	case KEEL_EVENT_DEVICE_REMOVAL_FAILED:
		printf(": %s\n", text_of(e, "devAlias"));
		break;
	case KEEL_EVENT_AGENT_LIFECYCLE:
		printf(": state: '%s' reason: '%s'\n", WORD(agent_states, int_of(e, "state")), WORD(agent_reasons, int_of(e, "reason")));
		break;
	case KEEL_EVENT_METADATA_CHANGE:
		printf(": type %s, uri %s\n", WORD(metadata, int_of(e, "type")), *text_of(e, "nsuri") ? text_of(e, "nsuri") : "N/A");
		break;
	default:
		if (e->nparams)
			putchar(':');
		putchar('\n');
		for (unsigned n = 0; n < e->nparams; n++) {
			const struct keel_param *p = &e->params[n];

			if (p->type == KEEL_PARAM_STRING)
				printf("\t%s: %s\n", p->name, p->value.s);
			else
				printf("\t%s: %.15g\n", p->name, keel_param_number(p, 1, p->name, NULL));
		}
	}
}

static void stamp(char text[64])
{
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(text + strlen(text), 32, ".%03ld+0000", now.tv_nsec / 1000000);
}

static void print_json(const struct keel_event *e)
{
	json_t *o = json_pack("{s:s,s:s}", "event", e->kind < KINDS ? kinds[e->kind] : "qmp", "domain", keel_domain_name(e->dom));
	char *line;

	for (unsigned n = 0; n < e->nparams; n++) {
		const struct keel_param *p = &e->params[n];

		json_object_set_new(o, !strcmp(p->name, "event") ? "kind" : p->name,
				    p->type == KEEL_PARAM_STRING ? json_string(p->value.s) :
								   json_integer((json_int_t)keel_param_number(p, 1, p->name, NULL)));
	}
	line = json_dumps(o, JSON_PRESERVE_ORDER | JSON_COMPACT);
	printf("%s\n", line);
	free(line);
	json_decref(o);
}

static void on_event(void *opaque, const struct keel_event *e)
{
	struct watch *w = opaque;
	char text[64];

	if (w->done)
		return;
	w->count++;
	w->done = !w->loop;
	if (w->json) {
		print_json(e);
	} else {
		if (w->timestamp) {
			stamp(text);
			printf("%s: ", text);
		}
		printf("event '%s' for domain '%s'", e->kind < KINDS ? kinds[e->kind] : "unknown", keel_domain_name(e->dom));
		print_details(e);
	}
	fflush(stdout);
}

static void on_qmp(void *opaque, const struct keel_event *e)
{
	struct watch *w = opaque;
	const char *details = text_of(e, "details");
	char *nice = NULL;
	json_t *j;

	if (w->done || (w->name && strcmp(w->name, text_of(e, "event"))))
		return;
	w->count++;
	w->done = !w->loop;
	if (w->pretty && (j = json_loads(details, JSON_DECODE_ANY, NULL))) {
		nice = json_dumps(j, JSON_INDENT(2));
		json_decref(j);
	}
	if (w->json)
		print_json(e);
	else
		printf("event %s at %lld.%06u for domain '%s': %s\n", text_of(e, "event"),
		       (long long)keel_param_number(e->params, e->nparams, "seconds", NULL), (unsigned)int_of(e, "micros"),
		       keel_domain_name(e->dom), nice ? nice : *details ? details : "");
	free(nice);
	fflush(stdout);
}

/* Until enough has come, the time is over or somebody interrupts. The exit status. */
static int watch(struct cmd *c, struct watch *w, long long seconds)
{
	uint64_t end = seconds > 0 ? monotonic_ns() + (uint64_t)seconds * 1000000000 : 0;
	struct sigaction sa = { .sa_handler = on_interrupt };
	bool expired = false;

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	while (!w->done && !interrupted && !expired) {
		uint64_t now = monotonic_ns();
		int keep = keel_timeout(c->conn), ms = end ? end > now ? (int)((end - now) / 1000000) + 1 : 0 : -1;
		struct pollfd pfd = { .fd = keel_fd(c->conn), .events = POLLIN };

		if (keep >= 0 && (ms < 0 || keep < ms))
			ms = keep;
		if (poll(&pfd, 1, ms) < 0 && errno != EINTR)
			return 1;
		if (keel_dispatch(c->conn, &c->error))
			return cmd_fail(c, NULL);
		expired = end && monotonic_ns() >= end;
	}
	if (interrupted)
		printf("event loop interrupted\n");
	else if (!w->done)
		printf("event loop timed out\n");
	printf("events received: %u\n", w->count);
	return w->count ? 0 : 1;
}

static int kind_of(const char *name)
{
	for (int n = 0; n < (int)KINDS; n++)
		if (!strcmp(name, kinds[n]))
			return n;
	return -1;
}

/* The domain that is named, if one is. -1, and the message is printed. */
static int maybe_domain(struct cmd *c, struct keel_domain **dom)
{
	*dom = cmd_has(c, "domain") ? cmd_domain(c) : NULL;
	return cmd_has(c, "domain") && !*dom ? -1 : 0;
}

static int run_event(struct cmd *c)
{
	struct watch w = { .c = c, .loop = cmd_has(c, "loop"), .timestamp = cmd_has(c, "timestamp"), .json = cmd_has(c, "json") };
	const char *name = cmd_text(c, "event");
	struct keel_domain *dom;
	long long seconds = 0;
	int status = 1;

	if (cmd_has(c, "list")) {
		for (unsigned n = 0; n < KINDS; n++)
			printf("%s\n", kinds[n]);
		return 0;
	}
	if (!name && !cmd_has(c, "all")) {
		fprintf(stderr, "error: one of --list, --all, or --event <type> is required\n");
		return 1;
	}
	if (name && kind_of(name) < 0) {
		fprintf(stderr, "error: unknown event type %s\n", name);
		return 1;
	}
	if (cmd_number(c, "timeout", &seconds) || maybe_domain(c, &dom))
		return 1;
	for (int n = 0; n < (int)KINDS; n++) {
		if (name && n != kind_of(name))
			continue;
		/* With --all, kinds that the daemon does not have are left out. */
		if (keel_event_subscribe(c->conn, dom, (enum keel_event_kind)n, on_event, &w, &c->error) < 0) {
			if (name || !keel_is_alive(c->conn)) {
				cmd_fail(c, NULL);
				goto out;
			}
			c->error = (struct keel_error){ 0 };
		}
	}
	status = watch(c, &w, seconds);
out:
	keel_domain_free(dom);
	return status;
}

static int run_qmp_event(struct cmd *c)
{
	struct watch w = { .c = c, .loop = cmd_has(c, "loop"), .json = cmd_has(c, "json"), .pretty = cmd_has(c, "pretty"),
			   .name = cmd_text(c, "event") };
	struct keel_domain *dom;
	long long seconds = 0;
	int status;

	if (cmd_number(c, "timeout", &seconds) || maybe_domain(c, &dom))
		return 1;
	if (keel_event_subscribe(c->conn, dom, KEEL_EVENT_QMP, on_qmp, &w, &c->error) < 0)
		status = cmd_fail(c, NULL);
	else
		status = watch(c, &w, seconds);
	keel_domain_free(dom);
	return status;
}

/* ---- QMP ------------------------------------------------------------------- */

enum { MONITOR_HMP = 1 }; /* VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP */

static int run_qmp(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	struct qemu_domain_monitor_command_args args = { .flags = cmd_has(c, "hmp") ? MONITOR_HMP : 0 };
	struct qemu_domain_monitor_command_ret ret = { 0 };
	char *command = NULL, *nice;
	size_t len;
	json_t *j;
	FILE *f;
	int status = 0;

	if (!dom)
		return 1;
	f = open_memstream(&command, &len);
	for (unsigned n = 0; f && n < c->nmany; n++)
		fprintf(f, "%s%s", n ? " " : "", c->many[n]);
	if (f)
		fclose(f);
	args.dom = domain_wire(dom);
	args.cmd = command;
	if (conn_call(c->conn, &qemu_program, QEMU_PROC_DOMAIN_MONITOR_COMMAND, &args, &ret, &c->arena, &c->error)) {
		status = cmd_fail(c, NULL);
	} else if (cmd_has(c, "pretty") && (j = json_loads(ret.result, 0, NULL))) {
		nice = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
		printf("%s\n", nice);
		free(nice);
		json_decref(j);
		c->no_blank = true;
	} else {
		printf("%s\n", ret.result);
	}
	free(command);
	keel_domain_free(dom);
	return status;
}

static const struct opt event_opts[] = {
	{ "domain", OPT_TEXT, OPT_DOMAIN, "of one guest" },
	{ "event", OPT_TEXT, OPT_DATA, "of one kind" },
	{ "all", OPT_FLAG, 0, "of all kinds" },
	{ "loop", OPT_FLAG, 0, "go on after the first" },
	{ "timeout", OPT_NUMBER, 0, "seconds to wait" },
	{ "list", OPT_FLAG, 0, "list the kinds" },
	{ "timestamp", OPT_FLAG, 0, "with the time" },
	{ "json", OPT_FLAG, 0, "a JSON object a line" },
	{ 0 },
};

static const struct opt qmp_event_opts[] = {
	{ "domain", OPT_TEXT, OPT_DOMAIN, "of one guest" },
	{ "event", OPT_TEXT, OPT_DATA, "of one name" },
	{ "pretty", OPT_FLAG, 0, "details over several lines" },
	{ "loop", OPT_FLAG, 0, "go on after the first" },
	{ "timeout", OPT_NUMBER, 0, "seconds to wait" },
	{ "json", OPT_FLAG, 0, "a JSON object a line" },
	{ 0 },
};

static const struct opt qmp_opts[] = {
	OPT_THE_DOMAIN,
	{ "cmd", OPT_TEXT, OPT_DATA | OPT_REQUIRED | OPT_MANY, "the command: JSON, or with --hmp a line" },
	{ "hmp", OPT_FLAG, 0, "for the human monitor" },
	{ "pretty", OPT_FLAG, 0, "over several lines" },
	{ 0 },
};

const struct verb event_verbs[] = {
	{ "event", "print events of guests", event_opts, run_event },
	{ "qemu-monitor-command", "send a QMP command to a guest's machine", qmp_opts, run_qmp },
	{ "qemu-monitor-event", "print QMP events of guests' machines", qmp_event_opts, run_qmp_event },
	{ 0 },
};
