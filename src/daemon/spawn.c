/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/vmm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "util/tap_host.h"

#define ARGS_MAX 1536
#define PASSED_MAX 640

/* A command line under construction. Descriptors named in it are passed on, then closed here. */
struct command {
	char *argv[ARGS_MAX];
	unsigned argc;
	int passed[PASSED_MAX];
	unsigned npassed;
	bool failed;
};

static void add(struct command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct command *c, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (c->argc == ARGS_MAX - 1 || vasprintf(&text, fmt, ap) < 0)
		c->failed = true;
	else
		c->argv[c->argc++] = text;
	va_end(ap);
}

static int pass(struct command *c, int fd)
{
	if (c->npassed == PASSED_MAX) {
		close(fd);
		c->failed = true;
		return -1;
	}
	return c->passed[c->npassed++] = fd;
}

static void command_free(struct command *c)
{
	while (c->argc)
		free(c->argv[--c->argc]);
	while (c->npassed)
		close(c->passed[--c->npassed]);
}

/* Files that are open stand for their paths in the new process. Takes them. */
static void pass_files(struct command *c, struct confine_files *f)
{
	for (unsigned n = 0; n < f->n; n++) {
		int fd = pass(c, f->v[n].fd);

		add(c, "--fd");
		add(c, "%d=%s", fd, f->v[n].path);
		free(f->v[n].path);
	}
	free(f->v);
	*f = (struct confine_files){ 0 };
}

static int pass_file(struct command *c, const char *path, int flags, struct err *err)
{
	struct confine_files f = { 0 };
	int ret = confine_file_open(&f, path, flags, err);

	pass_files(c, &f);
	return ret;
}

/* A value in a list of settings: a comma in it is written twice. The result is malloced. */
static char *setting(struct command *c, const char *value)
{
	char *out = malloc(2 * strlen(value) + 1), *o = out;

	if (!out) {
		c->failed = true;
		return NULL;
	}
	for (; *value; value++) {
		if (*value == ',')
			*o++ = ',';
		*o++ = *value;
	}
	*o = 0;
	return out;
}

/* ---- Characters ------------------------------------------------------------ */

/* A raw pty whose other end, hung up for now, tells when somebody opens it. 0 or a negative errno. */
static int make_pty(struct command *c, char path[64], int *master, int *opens, struct err *err)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, i;
	struct termios t;

	if (m < 0 || grantpt(m) || unlockpt(m) || ptsname_r(m, path, 64)) {
		if (m >= 0)
			close(m);
		return err_set_errno(err, errno, "cannot make a terminal");
	}
	slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave >= 0 && !tcgetattr(slave, &t)) {
		cfmakeraw(&t);
		tcsetattr(slave, TCSANOW, &t);
	}
	i = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (slave < 0 || i < 0 || inotify_add_watch(i, path, IN_OPEN) < 0) {
		int code = errno;

		close(m);
		if (slave >= 0)
			close(slave);
		if (i >= 0)
			close(i);
		return err_set_errno(err, code, "cannot use the terminal %s", path);
	}
	close(slave);
	*master = pass(c, m);
	*opens = pass(c, i);
	return 0;
}

static struct dom_chr_source *chr_source(struct dom_chr *chr)
{
	struct dom_chr_source **v;

	if (chr->source.n)
		return chr->source.v[0];
	v = calloc(1, sizeof(*v));
	if (v && (v[0] = calloc(1, sizeof(**v)))) {
		chr->source.v = v;
		chr->source.n = 1;
		return v[0];
	}
	free(v);
	return NULL;
}

/* The back end as the machine's options write it; a pty's path is filled in. */
static int back_end(struct command *c, struct dom_chr *chr, char text[PATH_MAX], struct err *err)
{
	struct dom_chr_source *s = chr_source(chr);
	int master = -1, opens = -1, ret;
	struct confine_files f = { 0 };
	char path[64];

	if (!s)
		return err_set(err, ENOMEM, "no memory for a terminal");
	switch (chr->type) {
	case DOM_CHR_PTY:
		ret = make_pty(c, path, &master, &opens, err);
		if (ret)
			return ret;
		free(s->path);
		s->path = strdup(path);
		snprintf(text, PATH_MAX, "pty:%d:%d", master, opens);
		return s->path ? 0 : err_set(err, ENOMEM, "no memory for a terminal");
	case DOM_CHR_NULL:
		strcpy(text, "null");
		return 0;
	case DOM_CHR_FILE:
		if (!s->path || snprintf(text, PATH_MAX, "file:%s", s->path) >= PATH_MAX)
			return err_set(err, EINVAL, "a character device of type 'file' needs a path");
		return pass_file(c, s->path, O_WRONLY | O_CREAT | O_TRUNC, err);
	case DOM_CHR_UNIX:
		if (!s->path || (s->mode && strcmp(s->mode, "bind")))
			return err_set(err, ENOTSUP, "a character device of type 'unix' needs mode='bind' and a path");
		if (snprintf(text, PATH_MAX, "unix:%s", s->path) >= PATH_MAX)
			return err_set(err, ENAMETOOLONG, "the path of a character device is too long");
		ret = confine_socket_listen(&f, s->path, err);
		pass_files(c, &f);
		return ret;
	default:
		return err_set(err, ENOTSUP, "only the types pty, file, unix and null of character devices are possible");
	}
}

static int add_chr(struct command *c, const char *option, struct dom_chr *chr, struct err *err)
{
	char text[PATH_MAX];
	int ret = back_end(c, chr, text, err);

	if (!ret) {
		add(c, "%s", option);
		add(c, "%s", text);
	}
	return ret;
}

/* A channel without a path gets a socket among the guest's run files. */
static int add_channel(struct command *c, const struct guest *g, struct dom_chr *chr, struct err *err)
{
	const char *name = chr->target ? chr->target->name : NULL;
	struct dom_chr_source *s = chr_source(chr);
	char text[PATH_MAX], *end, *n;
	int ret;

	if (!s || !name)
		return err_set(err, ENOTSUP, "a channel needs a name");
	if (chr->type == DOM_CHR_UNIX && !s->path &&
	    asprintf(&s->path, "%s/run/qemu/%d.%s", g->daemon->root, g->id, chr->info.alias) < 0)
		return err_set(err, ENOMEM, "no memory for a channel");
	ret = back_end(c, chr, text, err);
	end = ret ? NULL : setting(c, text);
	n = setting(c, name);
	if (end && n) {
		add(c, "--channel");
		add(c, "%s,name=%s,id=%s", end, n, chr->info.alias);
	}
	free(end);
	free(n);
	return ret;
}

static int copy_path(struct dom_chr *to, const char *path, struct err *err)
{
	struct dom_chr_source *s = chr_source(to);
	char *copy = strdup(path);

	if (!s || !copy) {
		free(copy);
		return err_set(err, ENOMEM, "no memory for a terminal");
	}
	free(s->path);
	s->path = copy;
	return 0;
}

/* The first console is the first serial port once more, unless it is a virtio console. */
static int add_chars(struct command *c, struct domain *def, struct err *err)
{
	struct dom_devices *dev = def->devices;
	int ret = 0;

	for (unsigned n = 0; n < dev->serial.n && !ret; n++)
		ret = add_chr(c, "--serial", dev->serial.v[n], err);
	if (!dev->serial.n) {
		add(c, "--serial");
		add(c, "null");
	}
	for (unsigned n = 0; n < dev->console.n && !ret; n++) {
		struct dom_chr *con = dev->console.v[n];

		if (con->target && con->target->type && !strcmp(con->target->type, "virtio"))
			ret = add_chr(c, "--console", con, err);
		else if (dev->serial.n && dev->serial.v[0]->type == DOM_CHR_PTY)
			ret = copy_path(con, dev->serial.v[0]->source.v[0]->path, err);
		/* Consoles say it twice. */
		if (!ret && con->type == DOM_CHR_PTY && con->source.n) {
			free(con->tty);
			con->tty = con->source.v[0]->path ? strdup(con->source.v[0]->path) : NULL;
		}
	}
	return ret;
}

/* ---- Devices --------------------------------------------------------------- */

static const char *cache_name(const struct dom_disk *disk)
{
	switch (disk->driver ? disk->driver->cache : 0) {
	case DOM_DISK_CACHE_NONE:
		return "none";
	case DOM_DISK_CACHE_WRITETHROUGH:
		return "writethrough";
	case DOM_DISK_CACHE_DIRECTSYNC:
		return "directsync";
	case DOM_DISK_CACHE_UNSAFE:
		return "unsafe";
	default:
		return "writeback";
	}
}

/* More settings of the --disk that was just added. */
static void append(struct command *c, const char *key, const char *value)
{
	char *longer;

	if (c->failed || asprintf(&longer, "%s,%s=%s", c->argv[c->argc - 1], key, value) < 0) {
		c->failed = true;
		return;
	}
	free(c->argv[c->argc - 1]);
	c->argv[c->argc - 1] = longer;
}

static void add_disk_driver(struct command *c, const struct dom_disk *disk)
{
	static const char *const actions[] = { [DOM_ERROR_STOP] = "stop", [DOM_ERROR_REPORT] = "report", [DOM_ERROR_IGNORE] = "ignore",
					       [DOM_ERROR_ENOSPACE] = "enospc" };
	const struct dom_disk_driver *d = disk->driver;
	char number[16];

	if (!d)
		return;
	if (d->error_policy)
		append(c, "werror", actions[d->error_policy]);
	if (d->rerror_policy || (d->error_policy && d->error_policy != DOM_ERROR_ENOSPACE)) /* one policy is for both */
		append(c, "rerror", actions[d->rerror_policy ? d->rerror_policy : d->error_policy]);
	if (d->queues.set && disk->target->bus == DOM_BUS_VIRTIO) {
		snprintf(number, sizeof(number), "%u", d->queues.value);
		append(c, "queues", number);
	}
}

static int add_disk(struct command *c, const struct guest *g, const struct dom_disk *disk, struct err *err)
{
	const char *path = disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
	const char *format = disk->driver && disk->driver->type ? disk->driver->type : "raw";
	char *p, *serial;
	struct confine_files f = { 0 };
	int ret;

	if (!path)
		return err_set(err, ENOTSUP, "the disk '%s' is neither a file nor a block device", disk->target->dev);
	ret = confine_disk_open(&f, g, disk, err);
	pass_files(c, &f);
	if (ret)
		return ret;
	serial = disk->serial ? setting(c, disk->serial) : NULL;
	p = setting(c, path);
	add(c, "--disk");
	add(c, "file=%s,format=%s,cache=%s,id=%s%s%s%s%s%s", p ? p : "", format, cache_name(disk), disk->info.alias,
	    disk->readonly && disk->device != DOM_DISK_CDROM ? ",readonly=on" : "", disk->target->bus == DOM_BUS_SCSI ? ",bus=scsi" : "",
	    disk->device == DOM_DISK_CDROM ? ",media=cdrom" : "", serial ? ",serial=" : "", serial ? serial : "");
	add_disk_driver(c, disk);
	free(p);
	free(serial);
	return 0;
}

/* The host's end is called vnetN, unless the definition has another name. */
static int name_tap(struct dom_interface *nic)
{
	static unsigned last;
	char name[16], path[48];

	if (nic->target && nic->target->dev && strncmp(nic->target->dev, "vnet", 4))
		return 0;
	do {
		snprintf(name, sizeof(name), "vnet%u", last++ % 100000);
		snprintf(path, sizeof(path), "/sys/class/net/%s", name);
	} while (!access(path, F_OK));
	if (!nic->target)
		nic->target = calloc(1, sizeof(*nic->target));
	if (!nic->target)
		return -ENOMEM;
	free(nic->target->dev);
	nic->target->dev = strdup(name);
	return nic->target->dev ? 0 : -ENOMEM;
}

/* The host's end: an interface of its own, in the bridge. */
static int open_tap(struct command *c, const struct dom_interface *nic, int *mtu, struct err *err)
{
	struct tap_host tap = { .what = "interface", .ifname = nic->target->dev, .bridge = nic->source->bridge };
	int ret = tap_host_open(&tap, err);

	*mtu = ret ? 0 : tap_host_mtu(nic->target->dev);
	return ret ? ret : pass(c, tap.fd[0]);
}

static int add_bridge(struct command *c, struct dom_interface *nic, struct err *err)
{
	const uint8_t *m = nic->mac->address.bytes;
	int mtu, fd;

	if (!nic->source || !nic->source->bridge)
		return err_set(err, ENOTSUP, "an interface of type 'bridge' needs <source bridge=.../>");
	if (name_tap(nic))
		return err_set(err, ENOMEM, "no memory for an interface");
	fd = open_tap(c, nic, &mtu, err);
	if (fd < 0)
		return err->code ? -err->code : err_set(err, ENOMEM, "too many interfaces");
	add(c, "--net");
	/* From inside, the interface's own length of frames is not to be seen. */
	add(c, "tap,fd=%d,id=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x,mtu=%d", fd, nic->info.alias, m[0], m[1], m[2], m[3], m[4], m[5],
	    mtu > 0 ? mtu : 1500);
	return 0;
}

static int add_user(struct command *c, const struct guest *g, struct dom_interface *nic, struct err *err)
{
	const uint8_t *m = nic->mac->address.bytes;
	struct confine_files f = { 0 };
	char name[80];
	int fd = confine_passt_start(g, err);

	if (fd < 0)
		return fd;
	snprintf(name, sizeof(name), "passt:%.60s", nic->info.alias);
	if (confine_file_add(&f, name, fd, err))
		return -err->code;
	pass_files(c, &f);
	add(c, "--net");
	add(c, "stream,path=%s,id=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", name, nic->info.alias, m[0], m[1], m[2], m[3], m[4], m[5]);
	return 0;
}

static int add_interface(struct command *c, const struct guest *g, struct dom_interface *nic, struct err *err)
{
	if (nic->type == DOM_NET_BRIDGE)
		return add_bridge(c, nic, err);
	if (nic->type == DOM_NET_USER)
		return add_user(c, g, nic, err);
	return err_set(err, ENOTSUP, "only interfaces of the types 'user' and 'bridge' are possible yet");
}

/* Root ports, and which of the guest's devices is where. */
static int add_place(const struct domain_device *dev, void *opaque)
{
	const struct dom_info *info = domain_device_info(dev);
	const struct dom_address *a = info ? info->address : NULL;
	const struct dom_controller *con = dev->kind == DOM_DEV_CONTROLLER ? dev->dev : NULL;
	struct command *c = opaque;
	const char *id = info ? info->alias : NULL;
	char bus[16] = "pcie.0";

	if (!a || a->type != DOM_ADDRESS_PCI || !id)
		return 0;
	if (con && con->type == DOM_CONTROLLER_PCI) {
		add(c, "--device");
		add(c, "pcie-root-port,id=%s,slot=%u", id, con->index.value);
	} else if (con && con->type == DOM_CONTROLLER_VIRTIO_SERIAL) {
		id = "console0";
	} else if (con && con->type != DOM_CONTROLLER_SCSI) {
		return 0; /* with nothing on it */
	}
	if (a->bus)
		snprintf(bus, sizeof(bus), "pci.%u", a->bus);
	add(c, "--place");
	add(c, "%s=%s:%x.%x", id, bus, a->slot, a->function);
	return 0;
}

static int add_devices(struct command *c, const struct guest *g, struct domain *def, struct err *err)
{
	struct dom_devices *dev = def->devices;
	int ret = 0;

	for (unsigned n = 0; n < dev->disk.n && !ret; n++)
		ret = add_disk(c, g, dev->disk.v[n], err);
	for (unsigned n = 0; n < dev->interface.n && !ret; n++)
		ret = add_interface(c, g, dev->interface.v[n], err);
	if (!ret)
		ret = add_chars(c, def, err);
	for (unsigned n = 0; n < dev->channel.n && !ret; n++)
		ret = add_channel(c, g, dev->channel.v[n], err);
	if (!dev->rng.n)
		add(c, "--no-rng");
	if (!dev->memballoon || !dev->memballoon->model || !strcmp(dev->memballoon->model, "none"))
		add(c, "--no-balloon");
	if (!dev->panic.n)
		add(c, "--no-pvpanic");
	return ret ? ret : domain_device_each(def, add_place, c);
}

static int add_boot(const struct daemon *d, struct command *c, const struct domain *def, struct err *err)
{
	const struct dom_os *os = def->os;
	const char *firmware = os->loader && os->loader->path ? os->loader->path
			       : os->firmware_auto == DOM_FIRMWARE_EFI ? d->caps.firmware_efi
								       : d->caps.firmware_bios;

	int ret;

	if (os->kernel) {
		ret = pass_file(c, os->kernel, O_RDONLY, err);
		if (!ret && os->initrd)
			ret = pass_file(c, os->initrd, O_RDONLY, err);
		if (ret)
			return ret;
		add(c, "--kernel");
		add(c, "%s", os->kernel);
		if (os->initrd) {
			add(c, "--initrd");
			add(c, "%s", os->initrd);
		}
		if (os->cmdline) {
			add(c, "--append");
			add(c, "%s", os->cmdline);
		}
		return 0;
	}
	if (!firmware)
		return err_set(err, ENOENT, "no firmware is installed: install the package seabios or give <kernel>");
	add(c, "--firmware");
	add(c, "%s", firmware);
	return pass_file(c, firmware, O_RDONLY, err);
}

/* First of all, so that it holds before anything else is read. */
static int add_sandbox(struct command *c, const struct guest *g, const struct domain *def, struct err *err)
{
	uid_t uid = 0;
	char text[64];
	int lock = confine_reserve_user(g->daemon, g->id, &uid);

	if (lock >= 0)
		pass(c, lock);
	else if (g->daemon->privileged && !g->daemon->confine.off)
		return err_set(err, EUSERS, "there is no free user for '%s'", g->name);
	confine_option(g->daemon, uid, text, sizeof(text));
	add(c, "--sandbox");
	/* The soft engine's native tier starts processes of its own. */
	add(c, "%s%s", text, def->type == DOM_VIRT_KVM || g->daemon->confine.off ? "" : ",native");
	return def->type == DOM_VIRT_KVM ? pass_file(c, "/dev/kvm", O_RDWR, err) : 0;
}

static int build(struct command *c, struct guest *g, struct domain *def, int monitor, struct err *err)
{
	struct daemon *d = g->daemon;
	char uuid[37];
	int ret;

	uuid_text(g->uuid, uuid);
	add(c, "%s", def->devices->emulator ? def->devices->emulator : d->vmm);
	ret = add_sandbox(c, g, def, err);
	if (ret)
		return ret;
	add(c, "--name");
	add(c, "%s", g->name);
	add(c, "--uuid");
	add(c, "%s", uuid);
	add(c, "--cpus");
	add(c, "%u", domain_vcpus_current(def));
	add(c, "--memory");
	add(c, "%lluK", (unsigned long long)def->memory->kib);
	add(c, "--engine");
	add(c, "%s", def->type == DOM_VIRT_KVM ? "kvm" : "soft");
	add(c, "--qmp");
	add(c, "fd:%d", monitor);
	add(c, "--paused");
	add(c, "--no-shutdown");
	if (def->on_reboot == DOM_ACTION_DESTROY)
		add(c, "--no-reboot");
	ret = add_boot(d, c, def, err);
	if (!ret)
		ret = add_devices(c, g, def, err);
	if (!ret && c->failed)
		ret = err_set(err, ENOMEM, "the command line of '%s' has too many parts", g->name);
	return ret;
}

/* ---- The monitor's socket -------------------------------------------------- */

/* However long the root's path is, this one fits into an address. */
static int monitor_address(const struct daemon *d, const char *name, struct sockaddr_un *a, struct err *err)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%s", d->run_dir, name) >= (int)sizeof(a->sun_path))
		return err_set(err, ENAMETOOLONG, "the monitor's name '%s' is too long", name);
	return 0;
}

int vmm_connect(const struct daemon *d, const char *monitor, struct err *err)
{
	struct sockaddr_un a;
	int fd, ret = monitor_address(d, monitor, &a, err);

	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		ret = err_set_errno(err, errno, "failed to connect to monitor socket");
		if (fd >= 0)
			close(fd);
		return ret;
	}
	return fd;
}

static int listen_monitor(const struct daemon *d, const char *name, struct err *err)
{
	struct sockaddr_un a;
	int fd, ret = monitor_address(d, name, &a, err);

	if (ret)
		return ret;
	unlinkat(d->run_dir, name, 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8)) {
		ret = err_set_errno(err, errno, "cannot make the monitor's socket");
		if (fd >= 0)
			close(fd);
		return ret;
	}
	return fd;
}

/* ---- The process ----------------------------------------------------------- */

/* Field 22 of /proc/PID/stat (proc(5)): with the number it names a process for ever. 0: no such process. */
static uint64_t start_time_of(pid_t pid)
{
	unsigned long long start = 0;
	char path[64], line[1024], *p;
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	line[n] = 0;
	p = strrchr(line, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		start = strtoull(p, NULL, 10);
	return start;
}

int vmm_find(pid_t pid, uint64_t start_time)
{
	int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (fd < 0)
		return -ESRCH;
	if (start_time_of(pid) == start_time)
		return fd;
	close(fd);
	return -ESRCH;
}

int vmm_open_log(const struct guest *g, struct err *err)
{
	char name[NAME_MAX + 1];
	int fd;

	if (snprintf(name, sizeof(name), "%s.log", g->name) >= (int)sizeof(name))
		return err_set(err, ENAMETOOLONG, "the name '%s' is too long for a file", g->name);
	fd = openat(g->daemon->log_dir, name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 ? fd : err_set_errno(err, errno, "cannot open the log %s", name);
}

char *vmm_last_words(const struct guest *g, off_t log_start)
{
	char text[2048], *line, *end;
	int fd = vmm_open_log(g, NULL);
	off_t size;
	ssize_t n;

	if (fd < 0)
		return NULL;
	size = lseek(fd, 0, SEEK_END);
	if (size - log_start > (off_t)sizeof(text) - 1)
		log_start = size - (off_t)sizeof(text) + 1;
	n = size > log_start ? pread(fd, text, sizeof(text) - 1, log_start) : 0;
	close(fd);
	while (n > 0 && text[n - 1] == '\n')
		n--;
	if (n <= 0)
		return NULL;
	text[n] = 0;
	end = strrchr(text, '\n');
	line = end ? end + 1 : text;
	return strdup(line);
}

static void log_start(int log, const struct command *c)
{
	for (unsigned n = 0; n < c->argc; n++)
		dprintf(log, "%s%s", n ? " " : "", c->argv[n]);
	dprintf(log, "\n");
}

/* sVirt: the label of the definition, if it has one for what this host has. */
static const char *label_of(const struct guest *g, const struct domain *def)
{
	static const char *const models[] = { [LSM_SELINUX] = "selinux", [LSM_APPARMOR] = "apparmor" };

	for (unsigned n = 0; n < def->seclabel.n && g->daemon->confine.lsm != LSM_NONE; n++) {
		const struct dom_seclabel *l = def->seclabel.v[n];

		if (l->label && (!l->model || !strcmp(l->model, models[g->daemon->confine.lsm])))
			return l->label;
	}
	return NULL;
}

static int run(struct guest *g, const struct domain *def, struct command *c, struct spawned *out, struct err *err)
{
	int log = vmm_open_log(g, err), ret;
	struct confine_launch l = { .argv = c->argv, .fds = c->passed, .nfds = c->npassed, .log = log,
				    .vcpus = def->vcpu->max, .label = label_of(g, def) };

	if (log < 0)
		return log;
	log_start(log, c);
	out->log_start = lseek(log, 0, SEEK_END);
	ret = confine_launch(g, &l, &out->pid, &out->pidfd, err);
	close(log);
	if (!ret)
		out->start_time = start_time_of(out->pid);
	return ret;
}

int vmm_spawn(struct guest *g, struct domain *def, struct spawned *out, struct err *err)
{
	struct command c = { 0 };
	char name[32];
	int listener, ret;

	*out = (struct spawned){ .pidfd = -1, .monitor = -1 };
	snprintf(name, sizeof(name), "%d.monitor", g->id);
	listener = listen_monitor(g->daemon, name, err);
	if (listener < 0)
		return listener;
	ret = build(&c, g, def, pass(&c, listener), err);
	if (!ret) {
		/* It listens already: the connection waits until the machine is built. */
		out->monitor = vmm_connect(g->daemon, name, err);
		ret = out->monitor < 0 ? out->monitor : run(g, def, &c, out, err);
	}
	command_free(&c);
	if (ret) {
		if (out->monitor >= 0)
			close(out->monitor);
		unlinkat(g->daemon->run_dir, name, 0);
	}
	return ret;
}
