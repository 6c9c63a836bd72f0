/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One machine, its back ends and its control sockets: what keel-vmm is made of.
 * Everything here belongs to the main loop's thread.
 */
#pragma once
#include <jansson.h>

#include "image/block.h"
#include "machine/backend.h"
#include "machine/machine.h"
#include "vmm/options.h"
#include "vmm/plug.h"

/* Exit statuses of keel-vmm and keel run. */
enum { VMM_OFF = 0, VMM_FAILED = 1, VMM_USAGE = 2, VMM_CRASHED = 3 };

struct qmp_server;

struct vmm {
	const struct vmm_options *options;
	struct loop *loop;
	struct machine *machine;
	enum engine_kind engine;
	struct chardev *serial[MAX_SERIALS], *debugcon;
	struct vmm_node *nodes;
	struct vmm_net *nets;
	struct vmm_chardev *chardevs;
	struct vmm_plug *plugs;
	struct vmm_fd *fds;
	struct vmm_object *objects;
	struct vmm_job *jobs;
	struct vmm_nbd *nbd; /* or NULL: it does not run */
	unsigned disks, cards, media; /* made so far by --disk, --net and blockdev-change-medium */
	struct device *balloon; /* or NULL */
	struct timer *balloon_timer;
	uint64_t balloon_told;  /* when the last event went out */
	struct qmp_server *qmp;
	bool prepared;   /* the first reset is done: kernel and tables are in guest memory */
	bool panicked;   /* since the last reset */
	bool io_error;   /* a disk's error stopped it */
	bool ended;      /* the machine has ended; only quit remains */
};

/* Build everything the options ask for; on failure err names the option and vmm_free() still has to be called. */
int vmm_init(struct vmm *v, const struct vmm_options *o, struct loop *loop, struct err *err);
void vmm_free(struct vmm *v);
/* Run until it ends: the exit status. */
int vmm_run(struct vmm *v, struct err *err);

/*
 * The first reset, with the loading of the kernel. It waits until somebody
 * needs it, so that a paused machine answers at once and holds no memory.
 */
int vmm_prepare(struct vmm *v, struct err *err);

/* What QMP's commands call. vmm_stop and vmm_cont emit STOP and RESUME. */
void vmm_stop(struct vmm *v);
int vmm_cont(struct vmm *v, struct err *err);
int vmm_reset(struct vmm *v, bool by_guest, struct err *err); /* emits RESET */
void vmm_powerdown(struct vmm *v);                 /* emits POWERDOWN when the button was pressed */
void vmm_quit(struct vmm *v, int status, bool by_guest, const char *reason); /* emits SHUTDOWN */
void vmm_escape(void *opaque); /* somebody at a terminal typed Ctrl-]; a struct vmm */
const char *vmm_status(const struct vmm *v);       /* QMP's RunState */

/* ---- QMP (qmp.c: the socket; qmp_commands.c: what can be said) ------------ */

struct qmp_server *qmp_new(struct vmm *v, struct err *err);
int qmp_listen(struct qmp_server *s, const char *text, struct err *err); /* "unix:PATH" or "fd:N" */
void qmp_free(struct qmp_server *s); /* sends what is pending, for up to a second */
/* Send an event to all clients that have negotiated. Takes `data` (NULL: none). */
void qmp_event(struct qmp_server *s, const char *name, json_t *data);

/*
 * A command: the value for "return" (NULL with err set on failure, or a fresh
 * object). `args` is an object, never NULL; names that the command does not
 * list in `args_known` (space-separated) have been refused already.
 */
struct qmp_command {
	const char *name;
	const char *args_known; /* "*": any */
	json_t *(*run)(struct vmm *v, json_t *args, struct err *err);
};
const struct qmp_command *qmp_command_find(const char *name);
/* For commands: an argument that must be a string, or NULL with err set; and the answer of one that has none to give. */
const char *qmp_need_text(json_t *args, const char *name, struct err *err);
json_t *qmp_done(int ret);
/* Tables end with name == NULL. */
extern const struct qmp_command qmp_commands[], qmp_block_commands[], qmp_chardev_commands[], qmp_tray_commands[], qmp_device_commands[], qmp_fd_commands[], qmp_object_commands[], qmp_memory_commands[], qmp_state_commands[], qmp_job_commands[], qmp_graph_commands[], qmp_export_commands[];
/* The descriptor that came with the command now running; the caller's. -1: none came. */
int qmp_take_fd(struct qmp_server *s);

/* "info registers" and others of the human monitor: the text, malloced, or NULL and err. */
char *hmp_run(struct vmm *v, const char *line, struct err *err);
