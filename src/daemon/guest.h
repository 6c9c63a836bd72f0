/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest: its name, its definitions and, while it runs, its process. All of it
 * belongs to the loop's thread.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/daemon.h"
#include "daemon/qmp_client.h"
#include "model/domain.h"

/* virDomainState */
enum guest_state {
	STATE_NONE,
	STATE_RUNNING,
	STATE_BLOCKED,
	STATE_PAUSED,
	STATE_SHUTDOWN,
	STATE_SHUTOFF,
	STATE_CRASHED,
	STATE_PMSUSPENDED,
};

/* virDomainRunningReason, PausedReason, ShutdownReason, ShutoffReason, CrashedReason */
enum { RUNNING_UNKNOWN, RUNNING_BOOTED, RUNNING_MIGRATED, RUNNING_RESTORED, RUNNING_FROM_SNAPSHOT, RUNNING_UNPAUSED,
       RUNNING_MIGRATION_CANCELED, RUNNING_SAVE_CANCELED, RUNNING_WAKEUP, RUNNING_CRASHED, RUNNING_POSTCOPY };
enum { PAUSED_UNKNOWN, PAUSED_USER, PAUSED_MIGRATION, PAUSED_SAVE, PAUSED_DUMP, PAUSED_IOERROR, PAUSED_WATCHDOG,
       PAUSED_FROM_SNAPSHOT, PAUSED_SHUTTING_DOWN, PAUSED_SNAPSHOT, PAUSED_CRASHED, PAUSED_STARTING_UP };
enum { SHUTDOWN_UNKNOWN, SHUTDOWN_USER };
enum { SHUTOFF_UNKNOWN, SHUTOFF_SHUTDOWN, SHUTOFF_DESTROYED, SHUTOFF_CRASHED, SHUTOFF_MIGRATED, SHUTOFF_SAVED,
       SHUTOFF_FAILED, SHUTOFF_FROM_SNAPSHOT, SHUTOFF_DAEMON };
enum { CRASHED_UNKNOWN, CRASHED_PANICKED };

struct guest_run;
struct guest_waiting;

struct guest {
	struct guest *next_name, *next_uuid; /* in the table's chains */
	struct daemon *daemon;
	unsigned refs;
	bool listed;	       /* in the table */
	char *name;
	uint8_t uuid[16];
	int id;		       /* -1 while it's off */
	struct domain *config; /* what a start takes; NULL: transient, or packed */
	char *packed;	       /* the same as text, while nobody works with it */
	struct guest *newer, *older; /* guest_pack.c */
	bool recent;
	struct domain *live;   /* what runs; NULL while it's off */
	struct guest_run *run; /* the process; NULL while it's off */
	enum guest_state state;
	int reason;
	bool autostart, updated;
	void *autodestroy;     /* the client that it ends with, or NULL */
	int restore_fd;	       /* what its next start begins with, or -1; taken by guest_start() */
	struct agent *agent;   /* guest_agent.c; NULL: nobody has asked it yet */
	int agent_timeout;     /* seconds, or -2: as long as it takes */

	bool busy;		 /* something changes it: others wait */
	struct rpc_call *job;	 /* for whom; NULL: for the daemon itself */
	struct guest_waiting *waiting, **waiting_end;
};

static inline bool guest_is_active(const struct guest *g)
{
	return g->id >= 0;
}

static inline bool guest_is_persistent(const struct guest *g)
{
	return g->config || g->packed;
}

/* False: a transient guest whose start waits for a hook. Nobody sees it yet. */
static inline bool guest_is_there(const struct guest *g)
{
	return g->live || guest_is_persistent(g);
}

/* The definition that questions are answered from: the live one, or the configured. Never NULL once guest_unpack() was called. */
static inline struct domain *guest_def(const struct guest *g)
{
	return g->live ? g->live : g->config;
}

/* ---- The table (guest.c) --------------------------------------------------- */

struct guest *guest_new(struct daemon *d, const char *name, const uint8_t uuid[16]); /* NULL: no memory */
struct guest *guest_get(struct guest *g);
void guest_put(struct guest *g); /* NULL is allowed */
/* Into the table, which has a reference of its own, and out of it. 0 or -ENOMEM. */
int guest_add(struct guest *g);
void guest_remove(struct guest *g);
struct guest *guest_by_name(const struct daemon *d, const char *name);
struct guest *guest_by_uuid(const struct daemon *d, const uint8_t uuid[16]);
struct guest *guest_by_id(const struct daemon *d, int id);
/* A new name, in the table as well. 0 or -ENOMEM. */
int guest_set_name(struct guest *g, const char *name);
/* For each, in the order of their names; `fn` must not change the table. Stops at and returns non-zero; -ENOMEM. */
int guest_each(const struct daemon *d, int (*fn)(struct guest *g, void *opaque), void *opaque);
void guest_table_free(struct daemon *d);
void uuid_text(const uint8_t uuid[16], char text[37]);

/* Does it pass virConnectListAllDomainsFlags? (domain_list.c) */
bool list_matches(const struct guest *g, uint32_t flags);
/* How the guest goes over the wire; valid as long as the guest. */
struct remote_domain guest_wire(const struct guest *g);

/* ---- Packed definitions (guest_pack.c) ------------------------------------- */

/* Before g->config is used, or guest_def(): calls about one guest have it done. 0 or -ENOMEM. */
int guest_unpack(struct guest *g);
/* Pack it unless it is in use. */
void guest_pack(struct guest *g);
void guest_forget_recent(struct guest *g); /* it leaves the table */
/* Another configuration, which is taken, or none. */
void guest_set_config(struct guest *g, struct domain *def);

/* ---- Calls about one guest (guest_call.c) ---------------------------------- */

/* As rpc_handler; the first member of the arguments is the domain, and `g` is it. */
typedef int (*guest_handler)(struct rpc_call *call, struct guest *g);

enum {
	GUEST_JOB = 1 << 0,    /* changes the guest: one such call at a time, others wait */
	GUEST_ACTIVE = 1 << 1, /* refused unless it runs */
	GUEST_PACKED = 1 << 2, /* needs no unpacked definition; g->config may be NULL for a persistent guest */
};
struct guest_binding {
	const struct rpc_program *program; /* NULL: remote */
	uint32_t number;
	guest_handler fn; /* NULL ends the table */
	unsigned flags;
};
extern const struct guest_binding lifecycle_guest_bindings[], query_bindings[], config_bindings[], tune_bindings[], params_bindings[],
	agent_bindings[], memory_bindings[], save_guest_bindings[], iotune_bindings[], block_bindings[], snapshot_bindings[], device_bindings[], stats_guest_bindings[], console_bindings[], qemu_guest_bindings[];
void guest_bind(struct rpc_server *s, const struct guest_binding *b);

/* The end of a call put off: answers it, ends its job and lets the next begin. `ret` is a handler's result. */
void guest_finish(struct rpc_call *call, struct guest *g, int ret);
/* The same for a job of the daemon's own. */
void guest_job_end(struct guest *g);

/* What a QMP command brought: as a guest_handler's result. `ret` is its value. */
typedef int (*guest_answer)(struct rpc_call *call, struct guest *g, json_t *ret);
/*
 * Run a command for a call and go on with `fn` (NULL: the call succeeds). What
 * the machine refuses fails the call in libvirt's words. Takes args.
 * RPC_LATER, or -1 with the error set.
 */
int guest_qmp(struct rpc_call *call, struct guest *g, const char *command, json_t *args, guest_answer fn);
/* As guest_qmp(), but `fn` gets NULL for a refused command; the call's error is set then. */
int guest_qmp_try(struct rpc_call *call, struct guest *g, const char *command, json_t *args, guest_answer fn);

/* call->error from a failure of the model or of the host. -1. */
int call_fail_model(struct rpc_call *call, const struct err *err);
int call_fail_memory(struct rpc_call *call);

/*
 * VIR_DOMAIN_AFFECT_*: which definitions a change is for. Resolves CURRENT; -1
 * with the error set for what the guest's state or persistence does not allow.
 */
enum { AFFECT_CURRENT = 0, AFFECT_LIVE = 1, AFFECT_CONFIG = 2 };
int call_affect(struct rpc_call *call, const struct guest *g, uint32_t flags, bool *live, bool *config);
/* The one definition a question is about. NULL with the error set. */
struct domain *call_affect_one(struct rpc_call *call, const struct guest *g, uint32_t flags);
/* Save the configured definition after a change of it; on failure the old one, `before`, is put back. Takes before. */
int guest_config_commit(struct rpc_call *call, struct guest *g, struct domain *before);

/* ---- Files (guest_store.c) ------------------------------------------------- */

/* Write the configuration, durably. */
int store_save_config(const struct guest *g, const struct domain *def, struct err *err);
int store_delete_config(const struct daemon *d, const char *name, struct err *err);
int store_set_autostart(const struct guest *g, bool on, struct err *err);
/* The running guest's own state, for the next keeld. Failure is logged. */
void store_save_live(const struct guest *g);
void store_delete_live(const struct guest *g);
/* Read all of it, at start. */
int store_load(struct daemon *d, struct err *err);
/* Replace a file as a whole: written, synced, renamed. */
int store_write_file(int dirfd, const char *name, const char *text, size_t len, bool durable, struct err *err);

/* ---- The process (guest_run.c) --------------------------------------------- */

enum { START_PAUSED = 1 << 0 };
/* How a start ended: err is NULL if it runs. */
typedef void (*guest_started)(struct guest *g, void *opaque, const struct err *err);
/*
 * Start g->config or, for a transient guest, `def`, which is taken. The guest
 * has to be off and busy. `done` is called exactly once, perhaps before this returns.
 */
void guest_start(struct guest *g, struct domain *def, unsigned flags, guest_started done, void *opaque);
/* End the process. `done`, which may be NULL, is called when it's gone, or with an error if it won't go (graceful only). */
void guest_kill(struct guest *g, bool graceful, guest_started done, void *opaque);
/* The same at once, with a reason (SHUTOFF_*) and an event (STOPPED_*) of its own. */
void guest_end_as(struct guest *g, int reason, int detail, guest_started done, void *opaque);
/* A keel-vmm that an earlier keeld left. */
void guest_reconnect(struct guest *g, pid_t pid, uint64_t start_time, const char *monitor, const char *tty);
/* Forget the process; it goes on. Whoever waits for it is told. */
void guest_abandon(struct guest *g);
void guest_run_free(struct guest_run *r);

struct qmp *guest_monitor(const struct guest *g); /* NULL: none, or not ready */
pid_t guest_pid(const struct guest *g);		  /* 0: off */
uint64_t guest_start_time(const struct guest *g); /* of the process, as /proc counts it */
/* The terminal of its first serial port or console: "/dev/pts/N", or NULL. */
const char *guest_tty(const struct guest *g);
void guest_set_fake_reboot(struct guest *g, bool on);
void guest_set_state(struct guest *g, enum guest_state state, int reason);
/* Thread number of a vCPU, 0 if unknown. */
pid_t guest_vcpu_tid(const struct guest *g, unsigned vcpu);

/* ---- Events (domain_events.c) ---------------------------------------------- */

enum { EVENT_DEFINED, EVENT_UNDEFINED, EVENT_STARTED, EVENT_SUSPENDED, EVENT_RESUMED, EVENT_STOPPED, EVENT_SHUTDOWN,
       EVENT_PMSUSPENDED, EVENT_CRASHED };
enum { DEFINED_ADDED, DEFINED_UPDATED, DEFINED_RENAMED };
enum { UNDEFINED_REMOVED, UNDEFINED_RENAMED };
enum { STARTED_BOOTED };
enum { SUSPENDED_PAUSED, SUSPENDED_MIGRATED, SUSPENDED_IOERROR, SUSPENDED_WATCHDOG };
enum { RESUMED_UNPAUSED };
enum { STOPPED_SHUTDOWN, STOPPED_DESTROYED, STOPPED_CRASHED, STOPPED_MIGRATED, STOPPED_SAVED, STOPPED_FAILED };
enum { SHUTDOWN_EVENT_FINISHED, SHUTDOWN_EVENT_GUEST, SHUTDOWN_EVENT_HOST };
enum { CRASHED_EVENT_PANICKED, CRASHED_EVENT_CRASHLOADED };

void event_lifecycle(struct guest *g, int event, int detail);
void event_reboot(struct guest *g);
void event_control_error(struct guest *g);
void event_rtc_change(struct guest *g, int64_t offset);
void event_watchdog(struct guest *g, int action);
void event_io_error(struct guest *g, const char *path, const char *alias, int action, const char *reason);
void event_balloon_change(struct guest *g, uint64_t kib);
void event_tray_change(struct guest *g, const char *alias, bool open);
void event_device_added(struct guest *g, const char *alias);
void event_device_removed(struct guest *g, const char *alias);
void event_device_removal_failed(struct guest *g, const char *alias);
void event_agent(struct guest *g, int state, int reason);
void event_metadata_change(struct guest *g, int type, const char *uri);
void event_tunable(struct guest *g, struct remote_typed_param *params, unsigned n);
void event_block_job(struct guest *g, const char *path, const char *dst, int type, int status);
void event_block_threshold(struct guest *g, const char *dev, const char *path, uint64_t threshold, uint64_t excess);
/* QMP's own, for those who asked through the program qemu. */
void event_monitor(struct guest *g, const char *name, int64_t seconds, uint32_t micros, json_t *data);

/* ---- Typed parameters ------------------------------------------------------ */

enum { PARAM_INT = 1, PARAM_UINT, PARAM_LLONG, PARAM_ULLONG, PARAM_DOUBLE, PARAM_BOOLEAN, PARAM_STRING };

/* A growing list in a call's arena; `failed` if there was no memory. */
struct params {
	struct arena *arena;
	struct remote_typed_param *list;
	uint32_t n, room;
	bool failed;
};
void params_int(struct params *p, const char *name, int32_t v);
void params_uint(struct params *p, const char *name, uint32_t v);
void params_llong(struct params *p, const char *name, int64_t v);
void params_ullong(struct params *p, const char *name, uint64_t v);
void params_bool(struct params *p, const char *name, bool v);
void params_string(struct params *p, const char *name, const char *v);
