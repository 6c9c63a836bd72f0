/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of keel-vmm, which `keel run` shares. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/engine.h"
#include "machine/boot.h"

#define MAX_DISKS 16
#define MAX_NETS 8
#define MAX_DEVICES 64
#define MAX_PLACES 64
#define MAX_SERIALS 4
#define MAX_CHANNELS 7
#define MAX_SHARES 8
#define MAX_OBJECTS 64
#define MAX_FILES 512

struct vmm_options {
	const char *name;
	const char *kernel, *firmware, *append;
	char *initrd; /* comma-separated for multiboot: FILE[ ARGS][,FILE[ ARGS]]... */
	uint32_t cpus;
	uint64_t memory; /* bytes */
	enum engine_kind engine;
	bool no_reboot, no_shutdown, paused, debug_exit, no_pvpanic, hide_pv, no_translate, no_native, native_always, lockstep;
	uint64_t engine_cache; /* --engine soft,cache=SIZE; 0: the default */
	bool no_rng, no_balloon;
	const char *serial[MAX_SERIALS]; /* backend texts */
	unsigned serials;
	const char *console, *debugcon; /* backend texts or NULL */
	const char *channel[MAX_CHANNELS]; /* texts as given */
	unsigned channels;
	const char *share[MAX_SHARES];
	unsigned shares;
	const char *vsock;
	const char *qmp[4];
	unsigned qmps;
	const char *disk[MAX_DISKS], *net[MAX_NETS], *device[MAX_DEVICES]; /* texts as given */
	const char *object[MAX_OBJECTS]; /* texts as given */
	unsigned disks, nets, devices, objects;
	const char *place[MAX_PLACES]; /* "ID=BUS:SLOT[.FUNCTION]" */
	unsigned places;
	uint8_t uuid[16];
	bool has_uuid;
	uint32_t root_ports;
	const char *sandbox;  /* text as given, or NULL */
	const char *file[MAX_FILES]; /* "N=PATH" */
	unsigned files;
	bool help, version;
};

/*
 * Parse argv[1..]. Texts point into argv. 0, or -EINVAL and err with a
 * sentence that names the option. Nothing is opened. options_free() after it.
 */
int options_parse(struct vmm_options *o, int argc, char **argv, struct err *err);
void options_free(struct vmm_options *o);
/* Does long user code run natively (engine soft)? Unless it is told not to, and not where the interpreter is asked for. */
bool options_native(const struct vmm_options *o);
void options_help(FILE *f, const char *program);

/* "KEY=VALUE" of a comma-separated list: copies of key and value, each freed by the caller. See options_split(). */
struct option_pair {
	char *key, *value;
};
/*
 * Split "first,key=value,flag" into pairs; the first element without '=' gets
 * the key `first_key` (NULL: not allowed), others the value "on". ",," stands
 * for a comma inside a value. Returns the number of pairs or -EINVAL.
 */
int options_split(const char *option, const char *text, const char *first_key, struct option_pair *pairs, unsigned max,
		  struct err *err);
void options_split_free(struct option_pair *pairs, int n);

/* "512M", "2G", "1048576": bytes; a plain number counts MiB if `mib`. 0, -EINVAL, -ERANGE. */
int options_size(const char *text, bool mib, uint64_t *bytes);
