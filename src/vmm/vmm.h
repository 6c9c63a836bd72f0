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

/* Exit statuses of keel-vmm and keel run. */
enum { VMM_OFF = 0, VMM_FAILED = 1, VMM_USAGE = 2, VMM_CRASHED = 3 };

struct vmm_disk {
	char *device_id, *path;
	struct block *block;
};

struct qmp_server;

struct vmm {
	const struct vmm_options *options;
	struct loop *loop;
	struct machine *machine;
	enum engine_kind engine;
	struct chardev *serial[MAX_SERIALS], *console, *debugcon;
	struct netdev *net[MAX_NETS];
	struct vmm_disk disk[MAX_DISKS];
	unsigned disks, nets;
	struct device *balloon; /* or NULL */
	struct timer *balloon_timer;
	uint64_t balloon_told;  /* when the last event went out */
	struct qmp_server *qmp;
	bool prepared;   /* the first reset is done: kernel and tables are in guest memory */
	bool panicked;   /* since the last reset */
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
const char *vmm_status(const struct vmm *v);       /* QMP's RunState */

/* ---- QMP (qmp.c: the socket; qmp_commands.c: what can be said) ------------ */

struct qmp_server *qmp_new(struct vmm *v, struct err *err);
int qmp_listen(struct qmp_server *s, const char *text, struct err *err); /* "unix:PATH" */
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
	const char *args_known;
	json_t *(*run)(struct vmm *v, json_t *args, struct err *err);
};
const struct qmp_command *qmp_command_find(const char *name);
extern const struct qmp_command qmp_commands[]; /* ends with name == NULL */

/* "info registers" and others of the human monitor: the text, malloced, or NULL and err. */
char *hmp_run(struct vmm *v, const char *line, struct err *err);
