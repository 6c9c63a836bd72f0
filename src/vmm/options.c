/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum {
	O_KERNEL = 256, O_INITRD, O_APPEND, O_FIRMWARE, O_CPUS, O_MEMORY, O_ENGINE, O_DISK, O_NET, O_SERIAL, O_CONSOLE,
	O_CHANNEL, O_SHARE, O_VSOCK, O_QMP, O_NAME, O_NO_REBOOT, O_NO_SHUTDOWN, O_PAUSED, O_DEBUGCON, O_DEBUG_EXIT, O_DEVICE, O_UUID, O_ROOT_PORTS, O_NO_PVPANIC, O_OBJECT,
	O_NO_RNG, O_NO_BALLOON, O_HIDE_PV, O_SANDBOX, O_FD, O_PLACE, O_HELP, O_VERSION,
};

static const struct {
	const char *name, *arg, *help;
	int key;
} table[] = {
	{ "kernel", "FILE", "boot this kernel: Linux bzImage, PVH ELF or multiboot", O_KERNEL },
	{ "initrd", "FILE", "its initial RAM disk (multiboot: FILE[ ARGS],FILE...)", O_INITRD },
	{ "append", "TEXT", "its command line", O_APPEND },
	{ "firmware", "FILE", "boot this firmware instead of a kernel", O_FIRMWARE },
	{ "cpus", "N", "virtual CPUs, 1 to 255 (1)", O_CPUS },
	{ "memory", "SIZE", "guest memory, in MiB or with suffix K, M, G, T (256)", O_MEMORY },
	{ "engine", "KIND", "auto, kvm or soft[,translate=off][,native=off][,lockstep=on][,cache=SIZE] (auto)", O_ENGINE },
	{ "disk", "PATH[,format=raw|qcow2|luks][,key-secret=ID][,readonly=on][,cache=MODE][,id=ID][,serial=TEXT][,bus=virtio|scsi][,media=disk|cdrom]"
	  "[,queues=N][,iothread=ID[:ID]...][,discard=off][,werror=report|ignore|stop|enospc][,rerror=...]", "a disk; may be repeated", O_DISK },
	{ "net", "none|user[,hostfwd=[tcp|udp]:[ADDR]:PORT-:PORT]...|tap[,ifname=NAME][,br=NAME][,queues=N]|tap,fds=N:N...|stream,path=PATH",
	  "a virtio network card on passt, a tap interface or a socket; each with [,mac=MAC][,mtu=N][,id=NAME][,inbound=LIMIT][,outbound=LIMIT], a LIMIT being "
	  "AVERAGE[:PEAK[:BURST]] in KiB (none)", O_NET },
	{ "serial", "stdio|null|file:PATH|unix:PATH", "first, then second, ... serial port (stdio)", O_SERIAL },
	{ "console", "BACKEND", "a virtio console, with a back end as --serial's", O_CONSOLE },
	{ "channel", "BACKEND,name=NAME[,id=NAME]", "a virtio serial port of that name in the guest; may be repeated", O_CHANNEL },
	{ "share", "DIR,tag=NAME[,cache=auto|always|none][,queues=N][,id=ID]", "a folder of the host that the guest can mount (virtiofs)", O_SHARE },
	{ "vsock", "guest-cid=N,socket=PATH[,id=ID]", "sockets between host and guest: PATH and PATH_PORT on the host", O_VSOCK },
	{ "device", "CLASS[,PROPERTY=VALUE]...", "one more device", O_DEVICE },
	{ "place", "ID=BUS:SLOT[.FUNCTION]", "where a PCI device goes: BUS is pcie.0 or the id of a root port; may be repeated", O_PLACE },
	{ "object", "secret,id=ID,file=FILE[,format=base64]|tls-creds-x509,id=ID,dir=DIR,endpoint=client|server|iothread,id=ID",
	  "a passphrase, certificates, or a thread for disks; may be repeated", O_OBJECT },
	{ "qmp", "unix:PATH|fd:N", "listen for QMP clients; may be repeated", O_QMP },
	{ "name", "TEXT", "what the machine is called in messages and the process list", O_NAME },
	{ "uuid", "UUID", "what SMBIOS tells the guest", O_UUID },
	{ "no-reboot", NULL, "exit where the guest would reboot", O_NO_REBOOT },
	{ "no-shutdown", NULL, "stay when the guest powers off or panics; QMP's quit ends, system_reset starts anew", O_NO_SHUTDOWN },
	{ "paused", NULL, "start paused; QMP's cont runs it", O_PAUSED },
	{ "root-ports", "N", "PCI Express root ports for hot-plug, 0 to 16 (0)", O_ROOT_PORTS },
	{ "debugcon", "BACKEND", "port 0xe9 (0x402 with --firmware), with a back end as --serial's", O_DEBUGCON },
	{ "debug-exit", NULL, "a write of N to port 0xf4 ends Keel with status 2N+1", O_DEBUG_EXIT },
	{ "no-pvpanic", NULL, "leave out the panic notifier", O_NO_PVPANIC },
	{ "no-rng", NULL, "leave out the entropy device", O_NO_RNG },
	{ "no-balloon", NULL, "leave out the memory balloon", O_NO_BALLOON },
	{ "hide-pv", NULL, "do not offer KVM's paravirtual clock", O_HIDE_PV },
	{ "sandbox", "on|paths|off[,passed][,root][,native][,uid=N]", "what keel-vmm gives up before the guest runs (on; paths with --qmp unix:PATH)",
	  O_SANDBOX },
	{ "fd", "N=PATH", "descriptor N is the file PATH, opened by whoever started us; may be repeated", O_FD },
	{ "help", NULL, "this text", O_HELP },
	{ "version", NULL, "print the version", O_VERSION },
};
#define N_OPTIONS (sizeof(table) / sizeof(table[0]))

void options_help(FILE *f, const char *program)
{
	fprintf(f, "Usage: %s [OPTION]...\nRun a virtual machine.\n\n", program);
	for (unsigned i = 0; i < N_OPTIONS; i++) {
		int n = fprintf(f, "  --%s%s%s", table[i].name, table[i].arg ? " " : "", table[i].arg ? table[i].arg : "");

		fprintf(f, "%s%*s%s\n", n > 28 ? "\n" : "", n > 28 ? 30 : 30 - n, "", table[i].help);
	}
	fprintf(f, "\nExit status: 0 the guest powered off (or QMP said quit), 1 Keel failed, 2 wrong options,\n"
		   "3 the guest crashed (triple fault or panic).\n");
}

int options_size(const char *text, bool mib, uint64_t *bytes)
{
	unsigned shift = mib ? 20 : 0;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end) {
		const char *at = strchr("KMGT", toupper((unsigned char)*end));

		if (!at)
			return -EINVAL;
		shift = 10 * (at - "KMGT") + 10;
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
		if (*end)
			return -EINVAL;
	}
	if (*bytes > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes <<= shift;
	return 0;
}

static int parse_uint(const char *option, const char *text, unsigned min, unsigned max, const char *what, uint32_t *value,
		      struct err *err)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end)
		return err_set(err, EINVAL, "--%s: '%s' is not a number", option, text);
	if (errno || n < min || n > max)
		return err_set(err, EINVAL, "--%s: %s %s; %u to %u are possible", option, text, what, min, max);
	*value = n;
	return 0;
}

static int parse_memory(struct vmm_options *o, const char *text, struct err *err)
{
	int ret = options_size(text, true, &o->memory);

	if (ret == -EINVAL)
		return err_set(err, EINVAL, "--memory: '%s' is not a size; write for example 512M or 2G", text);
	if (ret || o->memory > Q35_RAM_MAX)
		return err_set(err, EINVAL, "--memory: %s is more than the machine can have, %llu GiB", text,
			       (unsigned long long)(Q35_RAM_MAX >> 30));
	if (o->memory < 2 << 20)
		return err_set(err, EINVAL, "--memory: %s is too little; give at least 2M", text);
	o->memory &= ~0xfffull;
	return 0;
}

static int parse_switch(const char *key, const char *value, bool *off, struct err *err)
{
	*off = !strcmp(value, "off");
	if (*off || !strcmp(value, "on"))
		return 0;
	return err_set(err, EINVAL, "--engine: %s is on or off, not '%s'", key, value);
}

static int parse_engine_key(struct vmm_options *o, char *item, struct err *err)
{
	char *value = strchr(item, '=');

	if (!value)
		return err_set(err, EINVAL, "--engine soft: '%s' is no KEY=VALUE", item);
	*value++ = '\0';
	if (!strcmp(item, "translate"))
		return parse_switch(item, value, &o->no_translate, err);
	if (!strcmp(item, "native")) {
		o->no_native = false;
		o->native_always = !strcmp(value, "always");
		return o->native_always ? 0 : parse_switch(item, value, &o->no_native, err);
	}
	if (!strcmp(item, "lockstep")) {
		bool off;

		if (parse_switch(item, value, &off, err) < 0)
			return -EINVAL;
		o->lockstep = !off;
		return 0;
	}
	if (!strcmp(item, "cache")) {
		if (options_size(value, true, &o->engine_cache) || o->engine_cache < ENGINE_CACHE_MIN ||
		    o->engine_cache > ENGINE_CACHE_MAX)
			return err_set(err, EINVAL, "--engine: cache=%s: give a size from %lluM to %lluM", value,
				       ENGINE_CACHE_MIN >> 20, ENGINE_CACHE_MAX >> 20);
		return 0;
	}
	return err_set(err, EINVAL, "--engine soft: there is no key '%s'; use translate, native, lockstep or cache", item);
}

static int parse_engine(struct vmm_options *o, const char *text, struct err *err)
{
	char *copy = strdup(text), *rest = copy, *name, *item;
	int ret = 0;

	if (!copy)
		return err_set(err, ENOMEM, "no memory for --engine");
	name = strsep(&rest, ",");
	if (!strcmp(name, "soft"))
		o->engine = ENGINE_SOFT;
	else if (!rest && !strcmp(name, "kvm"))
		o->engine = ENGINE_KVM;
	else if (!rest && !strcmp(name, "auto"))
		o->engine = ENGINE_AUTO;
	else
		ret = err_set(err, EINVAL, "--engine: there is no engine '%s'; use auto, kvm, soft or soft,KEY=VALUE,...", text);
	while (!ret && (item = strsep(&rest, ",")))
		ret = parse_engine_key(o, item, err);
	free(copy);
	return ret;
}

static int parse_uuid(struct vmm_options *o, const char *text, struct err *err)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	unsigned n = 0;

	for (const char *p = text, *f = form; *f || *p; p++, f++) {
		if (*f == '-' ? *p != '-' : !isxdigit((unsigned char)*p))
			return err_set(err, EINVAL, "--uuid: '%s' is not of the form %s", text, form);
		if (*f == 'x') {
			uint8_t digit = isdigit((unsigned char)*p) ? *p - '0' : (*p & ~0x20) - 'A' + 10;

			o->uuid[n / 2] = o->uuid[n / 2] << 4 | digit;
			n++;
		}
	}
	o->has_uuid = true;
	return 0;
}

static int add(const char **list, unsigned *n, unsigned max, const char *text, const char *option, struct err *err)
{
	if (*n == max)
		return err_set(err, EINVAL, "--%s: at most %u are possible", option, max);
	list[(*n)++] = text;
	return 0;
}

static int once(const char **to, const char *text, const char *option, struct err *err)
{
	if (*to)
		return err_set(err, EINVAL, "--%s is given twice", option);
	*to = text;
	return 0;
}

static int apply(struct vmm_options *o, int key, char *arg, struct err *err)
{
	switch (key) {
	case O_KERNEL:
		return once(&o->kernel, arg, "kernel", err);
	case O_INITRD:
		free(o->initrd);
		o->initrd = strdup(arg);
		return o->initrd ? 0 : err_set(err, ENOMEM, "no memory for the options");
	case O_APPEND:
		return once(&o->append, arg, "append", err);
	case O_FIRMWARE:
		return once(&o->firmware, arg, "firmware", err);
	case O_CPUS:
		return parse_uint("cpus", arg, 1, ENGINE_MAX_CPUS, "vCPUs are not possible", &o->cpus, err);
	case O_MEMORY:
		return parse_memory(o, arg, err);
	case O_ENGINE:
		return parse_engine(o, arg, err);
	case O_DISK:
		return add(o->disk, &o->disks, MAX_DISKS, arg, "disk", err);
	case O_NET:
		return add(o->net, &o->nets, MAX_NETS, arg, "net", err);
	case O_SERIAL:
		return add(o->serial, &o->serials, MAX_SERIALS, arg, "serial", err);
	case O_DEVICE:
		return add(o->device, &o->devices, MAX_DEVICES, arg, "device", err);
	case O_OBJECT:
		return add(o->object, &o->objects, MAX_OBJECTS, arg, "object", err);
	case O_PLACE:
		return add(o->place, &o->places, MAX_PLACES, arg, "place", err);
	case O_QMP:
		return add(o->qmp, &o->qmps, 4, arg, "qmp", err);
	case O_CONSOLE:
		return once(&o->console, arg, "console", err);
	case O_VSOCK:
		return once(&o->vsock, arg, "vsock", err);
	case O_SHARE:
		return add(o->share, &o->shares, MAX_SHARES, arg, "share", err);
	case O_CHANNEL:
		return add(o->channel, &o->channels, MAX_CHANNELS, arg, "channel", err);
	case O_DEBUGCON:
		return once(&o->debugcon, arg, "debugcon", err);
	case O_NAME:
		o->name = arg;
		if (!*arg || strlen(arg) > 255 || strpbrk(arg, "\n/"))
			return err_set(err, EINVAL, "--name: a name has 1 to 255 characters, without '/'");
		return 0;
	case O_UUID:
		return parse_uuid(o, arg, err);
	case O_ROOT_PORTS:
		return parse_uint("root-ports", arg, 0, 16, "root ports are not possible", &o->root_ports, err);
	case O_NO_REBOOT:
		o->no_reboot = true;
		return 0;
	case O_NO_SHUTDOWN:
		o->no_shutdown = true;
		return 0;
	case O_PAUSED:
		o->paused = true;
		return 0;
	case O_DEBUG_EXIT:
		o->debug_exit = true;
		return 0;
	case O_NO_PVPANIC:
		o->no_pvpanic = true;
		return 0;
	case O_NO_RNG:
		o->no_rng = true;
		return 0;
	case O_NO_BALLOON:
		o->no_balloon = true;
		return 0;
	case O_HIDE_PV:
		o->hide_pv = true;
		return 0;
	case O_SANDBOX:
		return once(&o->sandbox, arg, "sandbox", err);
	case O_FD:
		return add(o->file, &o->files, MAX_FILES, arg, "fd", err);
	case O_HELP:
		o->help = true;
		return 0;
	default:
		o->version = true;
		return 0;
	}
}

static int check(struct vmm_options *o, struct err *err)
{
	if (o->help || o->version)
		return 0;
	if (o->kernel && o->firmware)
		return err_set(err, EINVAL, "--kernel and --firmware exclude each other");
	if (!o->kernel && !o->firmware)
		return err_set(err, EINVAL, "nothing to boot: give --kernel FILE (or --firmware FILE)");
	if (o->initrd && !o->kernel)
		return err_set(err, EINVAL, "--initrd needs --kernel");
	if (o->append && !o->kernel)
		return err_set(err, EINVAL, "--append needs --kernel");
	return 0;
}

int options_parse(struct vmm_options *o, int argc, char **argv, struct err *err)
{
	struct option longs[N_OPTIONS + 1] = { 0 };
	int key, ret = 0;

	memset(o, 0, sizeof(*o));
	o->name = "keel";
	o->cpus = 1;
	o->memory = 256ull << 20;
	for (unsigned i = 0; i < N_OPTIONS; i++)
		longs[i] = (struct option){ table[i].name, table[i].arg ? required_argument : no_argument, NULL, table[i].key };
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while (!ret && (key = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
		if (key == ':')
			ret = err_set(err, EINVAL, "%s needs a value; see --help", argv[optind - 1]);
		else if (key == '?')
			ret = err_set(err, EINVAL, "unknown option '%s'; see --help", argv[optind - 1]);
		else
			ret = apply(o, key, optarg, err);
	}
	if (!ret && optind < argc)
		ret = err_set(err, EINVAL, "'%s' is not an option; see --help", argv[optind]);
	return ret ? ret : check(o, err);
}

bool options_native(const struct vmm_options *o)
{
	return o->native_always || !(o->no_native || o->no_translate);
}

void options_free(struct vmm_options *o)
{
	free(o->initrd);
	o->initrd = NULL;
}

/* One element up to an unpaired comma, ",," folded; *text moves behind it. NULL: no memory. */
static char *element(const char **text)
{
	char *out = malloc(strlen(*text) + 1), *o = out;
	const char *p = *text;

	if (!out)
		return NULL;
	for (; *p; p++) {
		if (*p == ',') {
			if (p[1] != ',')
				break;
			p++;
		}
		*o++ = *p;
	}
	*o = 0;
	*text = *p ? p + 1 : p;
	return out;
}

int options_split(const char *option, const char *text, const char *first_key, struct option_pair *pairs, unsigned max,
		  struct err *err)
{
	const char *at = text;
	int n = 0, ret;

	do {
		char *e = element(&at), *eq = e ? strchr(e, '=') : NULL;
		bool first = n == 0 && first_key && !eq;

		if (!e)
			ret = err_set(err, ENOMEM, "no memory for the options");
		else if ((unsigned)n == max)
			ret = err_set(err, EINVAL, "%s: more than %u settings in '%s'", option, max, text);
		else if (!*e || eq == e)
			ret = err_set(err, EINVAL, "%s: an empty setting in '%s'", option, text);
		else
			ret = 0;
		if (!ret) {
			pairs[n].key = first ? strdup(first_key) : eq ? strndup(e, eq - e) : strdup(e);
			pairs[n].value = first ? strdup(e) : strdup(eq ? eq + 1 : "on");
			n++;
			if (!pairs[n - 1].key || !pairs[n - 1].value)
				ret = err_set(err, ENOMEM, "no memory for the options");
		}
		free(e);
		if (ret) {
			options_split_free(pairs, n);
			return ret;
		}
	} while (*at);
	return n;
}

void options_split_free(struct option_pair *pairs, int n)
{
	for (int i = 0; i < n; i++) {
		free(pairs[i].key);
		free(pairs[i].value);
	}
}
