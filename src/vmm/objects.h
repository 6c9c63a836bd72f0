/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects that have a name and are no devices: object-add, object-del and
 * --object. Main loop's thread.
 *
 *   secret          file=FILE (or, by QMP only, data=TEXT) [format=raw|base64]
 *   tls-creds-x509  dir=DIR endpoint=client|server [verify-peer=on|off]
 *   iothread        an event loop in a thread, for disks
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "util/err.h"
#include "vmm/options.h"

struct vmm;

enum object_type { OBJECT_SECRET, OBJECT_TLS, OBJECT_IOTHREAD };

struct vmm_object {
	char *id;
	enum object_type type;
	unsigned users; /* it can't be deleted while it has some */
	/* tls-creds-x509 */
	char *dir;
	bool server, verify_peer;
	/* iothread */
	struct vmm_iothread *iothread;
	struct vmm_object *next;
};

/* NULL and err: there is none of that name and type. */
struct vmm_object *vmm_object_find(struct vmm *v, const char *id, enum object_type type, struct err *err);
int vmm_object_add(struct vmm *v, json_t *args, struct err *err); /* object-add's arguments */
int vmm_object_option(struct vmm *v, const char *text, struct err *err);
int vmm_object_del(struct vmm *v, const char *id, struct err *err);
void vmm_objects_free(struct vmm *v);

/* --object's text of a program that only knows secrets. */
int object_secret_option(const char *text, struct err *err);

