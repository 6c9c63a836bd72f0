/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libkeel: guests of keeld, or of any daemon that speaks libvirt's protocol.
 *
 * Conventions, for every function here:
 *  - Failure is NULL from what returns a pointer and -1 from what returns an
 *    int; then `*error` is filled, if `error` is not NULL. It is left alone on
 *    success. "0 or -1" below means this.
 *  - What is returned belongs to the caller, who gives it back with the
 *    function named there; strings are freed by keel_free(). What is passed is
 *    not kept.
 *  - Every function may be called from any thread, several on one connection
 *    at once: their calls overlap on the wire. keel_close() and the _free
 *    functions must be the last use of their object. Guests and streams have
 *    references to their connection and stay valid, though useless, after
 *    keel_close().
 *  - A function waits for the daemon's answer for as long as the connection
 *    lives. keel_set_keepalive() bounds how long a dead one seems alive.
 *  - Callbacks run in the thread inside keel_dispatch() or keel_wait() and
 *    nowhere else, without locks: they may call everything here but
 *    keel_dispatch(), keel_wait() and keel_close() of their connection.
 *  - Strings are UTF-8 as the daemon sends it. The library ignores the locale,
 *    prints nothing and installs no signal handlers.
 */
#ifndef KEEL_KEEL_H
#define KEEL_KEEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KEEL_API __attribute__((visibility("default")))
#else
#define KEEL_API
#endif

struct keel_conn;
struct keel_domain;
struct keel_stream;

/* ---- Errors ---------------------------------------------------------------- */

/* The codes that programs act upon; a daemon may send others. They are libvirt's numbers. */
enum keel_code {
	KEEL_ERR_INTERNAL = 1,
	KEEL_ERR_NO_MEMORY = 2,
	KEEL_ERR_NO_SUPPORT = 3, /* the daemon does not know the call */
	KEEL_ERR_NO_CONNECT = 5,
	KEEL_ERR_INVALID = 8,
	KEEL_ERR_FAILED = 9,
	KEEL_ERR_XML = 27,
	KEEL_ERR_EXISTS = 28,
	KEEL_ERR_DENIED = 29, /* a read-only connection, or the access rules */
	KEEL_ERR_SYSTEM = 38,
	KEEL_ERR_RPC = 39, /* with domain KEEL_FROM_RPC: the connection is broken */
	KEEL_ERR_NO_DOMAIN = 42,
	KEEL_ERR_AUTH = 45,
	KEEL_ERR_STATE = 55, /* not in the guest's present state */
	KEEL_ERR_UNSUPPORTED = 67, /* the definition asks for what can't be had */
	KEEL_ERR_TIMEOUT = 68,
	KEEL_ERR_ACCESS = 88 /* the access rules */
};

enum { KEEL_FROM_RPC = 7 };

struct keel_error {
	int code;	    /* enum keel_code and others; 0 while unset */
	int domain;	    /* which part of the daemon says so; libvirt's numbers */
	char message[1152]; /* one sentence, complete */
};

/* Give back a string or a list of strings of this library. NULL is allowed. */
KEEL_API void keel_free(void *p);
/* The library's version, such as "0.1.0". Static. */
KEEL_API const char *keel_version(void);

/* ---- Connections ----------------------------------------------------------- */

enum keel_open_flags {
	KEEL_OPEN_READONLY = 1 << 0 /* may look, not change; through the read-only socket where there is one */
};

/* What authentication asks for. */
enum keel_credential { KEEL_CRED_USER = 1, KEEL_CRED_PASSWORD = 2 };
/*
 * Asked for a credential; `prompt` is the mechanism's own text. Returns a
 * malloced string, or NULL to give up. Runs in the thread inside
 * keel_open_auth().
 */
typedef char *(*keel_auth_fn)(void *opaque, enum keel_credential what, const char *prompt);

/*
 * Connect. The URIs are libvirt's:
 *   qemu:///system, qemu:///session   this host's daemon: root's, or this user's
 *   qemu+unix:///system?socket=PATH   the same with a socket named (also without +unix)
 *   qemu+tls://HOST[:PORT]/system     TLS with client certificates; ?pkipath=DIR has cacert.pem, clientcert.pem and
 *                                     clientkey.pem, else /etc/pki is used; ?no_verify=1 trusts any server
 *   qemu+tcp://HOST[:PORT]/system     unprotected unless SASL protects it
 * NULL stands for $KEEL_URI, then $LIBVIRT_DEFAULT_URI, then qemu:///system for
 * root and qemu:///session for others. Without ?socket=, $KEEL_SOCKET is the
 * socket, then keeld's own default, then libvirt's. Ended by keel_close().
 */
KEEL_API struct keel_conn *keel_open(const char *uri, unsigned flags, struct keel_error *error);
/* The same where the daemon may ask for a name and password (SASL). `fn` may be NULL. */
KEEL_API struct keel_conn *keel_open_auth(const char *uri, unsigned flags, keel_auth_fn fn, void *opaque,
					  struct keel_error *error);
/* Hang up. Callbacks run no more; calls of other threads fail. NULL is allowed. */
KEEL_API void keel_close(struct keel_conn *conn);
/* 1 while nothing has shown that the connection is broken, else 0. Asks nobody. */
KEEL_API int keel_is_alive(struct keel_conn *conn);

/* The daemon's own URI, and its host's name. Freed by keel_free(). */
KEEL_API char *keel_uri(struct keel_conn *conn, struct keel_error *error);
KEEL_API char *keel_hostname(struct keel_conn *conn, struct keel_error *error);
/* What the host can do, as libvirt's capabilities XML. Freed by keel_free(). */
KEEL_API char *keel_capabilities(struct keel_conn *conn, struct keel_error *error);
/* The hypervisor's and the protocol's version as major * 1000000 + minor * 1000 + release. Either pointer may be NULL. 0 or -1. */
KEEL_API int keel_versions(struct keel_conn *conn, uint64_t *hypervisor, uint64_t *protocol, struct keel_error *error);

struct keel_node_info {
	char model[32];	     /* CPU architecture, such as "x86_64" */
	uint64_t memory_kib; /* RAM */
	unsigned cpus;	     /* online logical CPUs */
	unsigned mhz;
	unsigned nodes, sockets, cores, threads; /* NUMA nodes, sockets of each, cores of each, threads of each */
};
/* 0 or -1. */
KEEL_API int keel_node_info(struct keel_conn *conn, struct keel_node_info *info, struct keel_error *error);

/* ---- Waiting, and other programs' event loops ------------------------------- */

/*
 * To take part in an event loop: watch keel_fd() for reading, wait at most
 * keel_timeout() milliseconds, and call keel_dispatch() after either.
 */

/* One descriptor for the connection's life; watch it for reading only. It stays the connection's. */
KEEL_API int keel_fd(struct keel_conn *conn);
/* Milliseconds until keel_dispatch() wants to run though nothing is readable; -1: never. May change with any call here. */
KEEL_API int keel_timeout(struct keel_conn *conn);
/* Handle what has come and run callbacks; waits for nothing. 0, or -1 once the connection is broken. */
KEEL_API int keel_dispatch(struct keel_conn *conn, struct keel_error *error);
/* For programs without a loop: wait at most `timeout_ms` (-1: for ever) for something, then as keel_dispatch(). 0 or -1. */
KEEL_API int keel_wait(struct keel_conn *conn, int timeout_ms, struct keel_error *error);
/*
 * Ask for a sign of life after each `seconds` of silence; after `count` without
 * one the connection is broken. It is noticed inside calls, keel_dispatch()
 * and keel_wait(). 0 seconds: stop. 0 or -1.
 */
KEEL_API int keel_set_keepalive(struct keel_conn *conn, unsigned seconds, unsigned count, struct keel_error *error);

/* ---- Guests ---------------------------------------------------------------- */

/*
 * A guest is a name, a UUID and a number as they were when it was looked up.
 * It does not change and may be used by several threads; calls find the guest
 * by its UUID. Freed by keel_domain_free().
 */
KEEL_API struct keel_domain *keel_domain_by_name(struct keel_conn *conn, const char *name, struct keel_error *error);
KEEL_API struct keel_domain *keel_domain_by_id(struct keel_conn *conn, int id, struct keel_error *error);
KEEL_API struct keel_domain *keel_domain_by_uuid(struct keel_conn *conn, const unsigned char uuid[16],
						 struct keel_error *error);
KEEL_API void keel_domain_free(struct keel_domain *dom); /* NULL is allowed */

/* Valid as long as the guest object. */
KEEL_API const char *keel_domain_name(const struct keel_domain *dom);
KEEL_API const unsigned char *keel_domain_uuid(const struct keel_domain *dom); /* 16 bytes */
/* The number that a running guest has, or -1: as of the look-up. */
KEEL_API int keel_domain_id(const struct keel_domain *dom);
/* UUID as 36 characters and a NUL. */
KEEL_API void keel_domain_uuid_text(const struct keel_domain *dom, char text[37]);

enum keel_list_flags { /* nothing of a pair: both */
	KEEL_LIST_ACTIVE = 1 << 0, KEEL_LIST_INACTIVE = 1 << 1,
	KEEL_LIST_PERSISTENT = 1 << 2, KEEL_LIST_TRANSIENT = 1 << 3,
	KEEL_LIST_RUNNING = 1 << 4, KEEL_LIST_PAUSED = 1 << 5, KEEL_LIST_SHUTOFF = 1 << 6, KEEL_LIST_OTHER = 1 << 7,
	KEEL_LIST_MANAGED_SAVE = 1 << 8, KEEL_LIST_NO_MANAGED_SAVE = 1 << 9,
	KEEL_LIST_AUTOSTART = 1 << 10, KEEL_LIST_NO_AUTOSTART = 1 << 11,
	KEEL_LIST_SNAPSHOT = 1 << 12, KEEL_LIST_NO_SNAPSHOT = 1 << 13,
	KEEL_LIST_CHECKPOINT = 1 << 14, KEEL_LIST_NO_CHECKPOINT = 1 << 15
};
/* *list gets as many guests as returned, and a NULL behind them. Freed by keel_domain_list_free(). The number, or -1. */
KEEL_API int keel_domain_list(struct keel_conn *conn, unsigned flags, struct keel_domain ***list,
			      struct keel_error *error);
KEEL_API void keel_domain_list_free(struct keel_domain **list); /* and its guests; NULL is allowed */

/* Define from libvirt's domain XML, or define anew what has this name and UUID. Durable when it returns. */
KEEL_API struct keel_domain *keel_domain_define(struct keel_conn *conn, const char *xml, struct keel_error *error);
enum keel_start_flags { KEEL_START_PAUSED = 1 << 0, KEEL_START_AUTODESTROY = 1 << 1 /* ends with the connection */ };
/* Start from XML; the definition goes with the guest's end, unless there was one. */
KEEL_API struct keel_domain *keel_domain_create(struct keel_conn *conn, const char *xml, unsigned flags,
						struct keel_error *error);
enum keel_undefine_flags {
	KEEL_UNDEFINE_MANAGED_SAVE = 1 << 0,
	KEEL_UNDEFINE_SNAPSHOTS = 1 << 1,
	KEEL_UNDEFINE_NVRAM = 1 << 2,
	KEEL_UNDEFINE_KEEP_NVRAM = 1 << 3,
	KEEL_UNDEFINE_CHECKPOINTS = 1 << 4
};
/* Forget the definition; a running guest becomes transient. 0 or -1, as all that follow. */
KEEL_API int keel_domain_undefine(struct keel_domain *dom, unsigned flags, struct keel_error *error);
/* Start a defined guest: keel_start_flags. */
KEEL_API int keel_domain_start(struct keel_domain *dom, unsigned flags, struct keel_error *error);
enum keel_shutdown_flags { KEEL_SHUTDOWN_ACPI = 1 << 0, KEEL_SHUTDOWN_AGENT = 1 << 1 };
/* Ask the guest to go; returns before it has. 0 flags: the daemon's choice. */
KEEL_API int keel_domain_shutdown(struct keel_domain *dom, unsigned flags, struct keel_error *error);
KEEL_API int keel_domain_reboot(struct keel_domain *dom, unsigned flags, struct keel_error *error);
/* Pull the reset line: the guest is not asked. */
KEEL_API int keel_domain_reset(struct keel_domain *dom, struct keel_error *error);
enum keel_destroy_flags { KEEL_DESTROY_GRACEFUL = 1 << 0 /* fail rather than kill by SIGKILL */ };
/* Stop at once; it is gone when this returns. */
KEEL_API int keel_domain_destroy(struct keel_domain *dom, unsigned flags, struct keel_error *error);
KEEL_API int keel_domain_suspend(struct keel_domain *dom, struct keel_error *error);
KEEL_API int keel_domain_resume(struct keel_domain *dom, struct keel_error *error);

enum keel_state {
	KEEL_STATE_NONE, KEEL_STATE_RUNNING, KEEL_STATE_BLOCKED, KEEL_STATE_PAUSED, KEEL_STATE_SHUTDOWN, KEEL_STATE_SHUTOFF,
	KEEL_STATE_CRASHED, KEEL_STATE_PMSUSPENDED
};
/* The state, or -1. `reason`, which may be NULL, gets libvirt's number of why. */
KEEL_API int keel_domain_state(struct keel_domain *dom, int *reason, struct keel_error *error);
/* A word for a state as `keel list` prints it; "no state" for what is none. Static. */
KEEL_API const char *keel_state_name(int state);

struct keel_domain_info {
	int state; /* enum keel_state */
	unsigned vcpus;
	uint64_t max_memory_kib, memory_kib; /* the most it may have, and what it has */
	uint64_t cpu_time_ns;		     /* used by all of it since its start */
};
KEEL_API int keel_domain_info(struct keel_domain *dom, struct keel_domain_info *info, struct keel_error *error);

enum keel_xml_flags {
	KEEL_XML_SECURE = 1 << 0, /* with passwords */
	KEEL_XML_INACTIVE = 1 << 1, /* the definition for the next start */
	KEEL_XML_UPDATE_CPU = 1 << 2,
	KEEL_XML_MIGRATABLE = 1 << 3
};
/* Freed by keel_free(). */
KEEL_API char *keel_domain_xml(struct keel_domain *dom, unsigned flags, struct keel_error *error);

/* Start with the daemon: 0 or 1. */
KEEL_API int keel_domain_set_autostart(struct keel_domain *dom, int on, struct keel_error *error);
/* 0, 1 or -1. */
KEEL_API int keel_domain_autostart(struct keel_domain *dom, struct keel_error *error);

enum keel_affect_flags { KEEL_AFFECT_CURRENT = 0, KEEL_AFFECT_LIVE = 1 << 0, KEEL_AFFECT_CONFIG = 1 << 1 };
/* Plug, unplug and change one device, given as the XML of its element: keel_affect_flags. */
KEEL_API int keel_domain_attach(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error);
KEEL_API int keel_domain_detach(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error);
KEEL_API int keel_domain_update(struct keel_domain *dom, const char *xml, unsigned flags, struct keel_error *error);

/*
 * Send a QMP command to the guest's machine; its answer as JSON, freed by
 * keel_free(). `command` is JSON, as {"execute": "query-status"}.
 */
KEEL_API char *keel_domain_qmp(struct keel_domain *dom, const char *command, struct keel_error *error);

/* ---- Statistics ------------------------------------------------------------ */

enum keel_param_type {
	KEEL_PARAM_INT = 1, KEEL_PARAM_UINT, KEEL_PARAM_INT64, KEEL_PARAM_UINT64, KEEL_PARAM_DOUBLE, KEEL_PARAM_BOOL,
	KEEL_PARAM_STRING
};
/* A named value; all of it belongs to the record or event that it came in. */
struct keel_param {
	const char *name;
	enum keel_param_type type;
	union {
		int i;
		unsigned u;
		int64_t l;
		uint64_t ul;
		double d;
		int b;
		const char *s;
	} value;
};

enum keel_stats_groups { /* none: all */
	KEEL_STATS_STATE = 1 << 0, KEEL_STATS_CPU = 1 << 1, KEEL_STATS_BALLOON = 1 << 2, KEEL_STATS_VCPU = 1 << 3,
	KEEL_STATS_INTERFACE = 1 << 4, KEEL_STATS_BLOCK = 1 << 5, KEEL_STATS_PERF = 1 << 6, KEEL_STATS_IOTHREAD = 1 << 7,
	KEEL_STATS_MEMORY = 1 << 8, KEEL_STATS_DIRTYRATE = 1 << 9, KEEL_STATS_VM = 1 << 10
};
struct keel_stats {
	struct keel_domain *dom;
	unsigned nparams;
	struct keel_param *params; /* names and units are libvirt's: "cpu.time" in ns, "balloon.current" in KiB, … */
};
/*
 * Statistics of all guests (`list_flags` choose, of enum keel_list_flags), or
 * of one if `dom` is not NULL. *records gets as many as returned; freed by
 * keel_stats_free(). The number, or -1.
 */
KEEL_API int keel_stats(struct keel_conn *conn, struct keel_domain *dom, unsigned groups, unsigned list_flags,
			struct keel_stats **records, struct keel_error *error);
KEEL_API void keel_stats_free(struct keel_stats *records, int n); /* NULL is allowed */
/* The parameter of that name as a number; 0 and false in *found, which may be NULL, if there is none or it is a string. */
KEEL_API double keel_param_number(const struct keel_param *params, unsigned n, const char *name, int *found);

/* ---- Events ---------------------------------------------------------------- */

/* libvirt's numbers, and one of our own. */
enum keel_event_kind {
	KEEL_EVENT_LIFECYCLE = 0, KEEL_EVENT_REBOOT = 1, KEEL_EVENT_RTC_CHANGE = 2, KEEL_EVENT_WATCHDOG = 3,
	KEEL_EVENT_IO_ERROR = 4, KEEL_EVENT_IO_ERROR_REASON = 6, KEEL_EVENT_CONTROL_ERROR = 7, KEEL_EVENT_BLOCK_JOB = 8,
	KEEL_EVENT_DISK_CHANGE = 9, KEEL_EVENT_TRAY_CHANGE = 10, KEEL_EVENT_PMWAKEUP = 11, KEEL_EVENT_PMSUSPEND = 12,
	KEEL_EVENT_BALLOON_CHANGE = 13, KEEL_EVENT_PMSUSPEND_DISK = 14, KEEL_EVENT_DEVICE_REMOVED = 15,
	KEEL_EVENT_TUNABLE = 17, KEEL_EVENT_AGENT_LIFECYCLE = 18, KEEL_EVENT_DEVICE_ADDED = 19, KEEL_EVENT_MIGRATION_ITERATION = 20,
	KEEL_EVENT_JOB_COMPLETED = 21, KEEL_EVENT_DEVICE_REMOVAL_FAILED = 22, KEEL_EVENT_METADATA_CHANGE = 23,
	KEEL_EVENT_BLOCK_THRESHOLD = 24, KEEL_EVENT_MEMORY_FAILURE = 25, KEEL_EVENT_MEMORY_DEVICE_SIZE_CHANGE = 26,
	KEEL_EVENT_QMP = 1000 /* an event of the machine's own: "event", "seconds", "micros", "details" */
};
/* What KEEL_EVENT_LIFECYCLE's "event" says. */
enum keel_lifecycle {
	KEEL_LIFECYCLE_DEFINED, KEEL_LIFECYCLE_UNDEFINED, KEEL_LIFECYCLE_STARTED, KEEL_LIFECYCLE_SUSPENDED,
	KEEL_LIFECYCLE_RESUMED, KEEL_LIFECYCLE_STOPPED, KEEL_LIFECYCLE_SHUTDOWN, KEEL_LIFECYCLE_PMSUSPENDED,
	KEEL_LIFECYCLE_CRASHED
};
/* Valid during the callback. The parameters are named as in libvirt's callbacks: "event" and "detail", "devAlias", … */
struct keel_event {
	enum keel_event_kind kind;
	struct keel_domain *dom;
	unsigned nparams;
	const struct keel_param *params;
};
typedef void (*keel_event_fn)(void *opaque, const struct keel_event *event);

/*
 * Hear of events of a kind, of one guest or, if `dom` is NULL, of all. `fn`
 * runs in keel_dispatch() or keel_wait(). Events that come while nobody
 * dispatches are kept, in order. A number for keel_event_unsubscribe(), or -1.
 */
KEEL_API int keel_event_subscribe(struct keel_conn *conn, struct keel_domain *dom, enum keel_event_kind kind,
				  keel_event_fn fn, void *opaque, struct keel_error *error);
/* `fn` is not called again once this has returned, unless another thread is inside it now. 0 or -1. */
KEEL_API int keel_event_unsubscribe(struct keel_conn *conn, int number, struct keel_error *error);

/* ---- Streams --------------------------------------------------------------- */

enum keel_console_flags { KEEL_CONSOLE_FORCE = 1 << 0 /* take it from another client */, KEEL_CONSOLE_SAFE = 1 << 1 };
/* A console of a running guest: its alias ("serial0"), or NULL for the first. Ended by keel_stream_free(). */
KEEL_API struct keel_stream *keel_domain_console(struct keel_domain *dom, const char *device, unsigned flags,
						 struct keel_error *error);
enum keel_stream_flags { KEEL_STREAM_NONBLOCK = 1 << 0 };
/* Bytes read; 0 at the end; -1 on failure; -2 if it would have to wait and flags say KEEL_STREAM_NONBLOCK. */
KEEL_API ssize_t keel_stream_recv(struct keel_stream *st, void *data, size_t len, unsigned flags,
				  struct keel_error *error);
/* Sends all of it. 0 or -1. */
KEEL_API int keel_stream_send(struct keel_stream *st, const void *data, size_t len, struct keel_error *error);
/* `fn` runs in keel_dispatch() or keel_wait() while there is something to read, or the end. NULL: stop. */
KEEL_API void keel_stream_on_readable(struct keel_stream *st, void (*fn)(void *opaque, struct keel_stream *st),
				      void *opaque);
/* All is sent and read: wait for the daemon to confirm it. 0 or -1. */
KEEL_API int keel_stream_finish(struct keel_stream *st, struct keel_error *error);
/* Ends it, unless it has ended, and frees it. NULL is allowed. */
KEEL_API void keel_stream_free(struct keel_stream *st);

#ifdef __cplusplus
}
#endif
#endif
