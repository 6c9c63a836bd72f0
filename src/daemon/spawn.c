/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/vmm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
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

#define ARGS_MAX 256
#define PASSED_MAX 32

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
		return 0;
	case DOM_CHR_UNIX:
		if (!s->path || (s->mode && strcmp(s->mode, "bind")))
			return err_set(err, ENOTSUP, "a character device of type 'unix' needs mode='bind' and a path");
		if (snprintf(text, PATH_MAX, "unix:%s", s->path) >= PATH_MAX)
			return err_set(err, ENAMETOOLONG, "the path of a character device is too long");
		return 0;
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

static int add_disk(struct command *c, const struct dom_disk *disk, struct err *err)
{
	const char *path = disk->source ? disk->source->file ? disk->source->file : disk->source->dev : NULL;
	const char *format = disk->driver && disk->driver->type ? disk->driver->type : "raw";
	char *p, *serial = disk->serial ? setting(c, disk->serial) : NULL;

	if (!path)
		return err_set(err, ENOTSUP, "the disk '%s' is neither a file nor a block device", disk->target->dev);
	p = setting(c, path);
	add(c, "--disk");
	add(c, "file=%s,format=%s,cache=%s,id=%s%s%s%s%s%s", p ? p : "", format, cache_name(disk), disk->info.alias,
	    disk->readonly && disk->device != DOM_DISK_CDROM ? ",readonly=on" : "", disk->target->bus == DOM_BUS_SCSI ? ",bus=scsi" : "",
	    disk->device == DOM_DISK_CDROM ? ",media=cdrom" : "", serial ? ",serial=" : "", serial ? serial : "");
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

static int add_interface(struct command *c, struct dom_interface *nic, struct err *err)
{
	const uint8_t *m = nic->mac->address.bytes;

	if (nic->type != DOM_NET_USER && nic->type != DOM_NET_BRIDGE)
		return err_set(err, ENOTSUP, "only interfaces of the types 'user' and 'bridge' are possible yet");
	if (nic->type == DOM_NET_BRIDGE) {
		if (!nic->source || !nic->source->bridge)
			return err_set(err, ENOTSUP, "an interface of type 'bridge' needs <source bridge=.../>");
		if (name_tap(nic))
			return err_set(err, ENOMEM, "no memory for an interface");
	}
	add(c, "--net");
	if (nic->type == DOM_NET_BRIDGE)
		add(c, "tap,br=%s,ifname=%s,id=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", nic->source->bridge, nic->target->dev,
		    nic->info.alias, m[0], m[1], m[2], m[3], m[4], m[5]);
	else
		add(c, "user,id=%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", nic->info.alias, m[0], m[1], m[2], m[3], m[4], m[5]);
	return 0;
}

static unsigned root_ports(const struct domain *def)
{
	unsigned n = 0;

	for (unsigned i = 0; i < def->devices->controller.n; i++) {
		const struct dom_controller *con = def->devices->controller.v[i];

		n += con->type == DOM_CONTROLLER_PCI && con->model && !strcmp(con->model, "pcie-root-port");
	}
	return n < 16 ? n : 16;
}

static int add_devices(struct command *c, const struct guest *g, struct domain *def, struct err *err)
{
	struct dom_devices *dev = def->devices;
	int ret = 0;

	for (unsigned n = 0; n < dev->disk.n && !ret; n++)
		ret = add_disk(c, dev->disk.v[n], err);
	for (unsigned n = 0; n < dev->interface.n && !ret; n++)
		ret = add_interface(c, dev->interface.v[n], err);
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
	if (root_ports(def)) {
		add(c, "--root-ports");
		add(c, "%u", root_ports(def));
	}
	return ret;
}

static int add_boot(const struct daemon *d, struct command *c, const struct domain *def, struct err *err)
{
	const struct dom_os *os = def->os;
	const char *firmware = os->loader && os->loader->path ? os->loader->path
			       : os->firmware_auto == DOM_FIRMWARE_EFI ? d->caps.firmware_efi
								       : d->caps.firmware_bios;

	if (os->kernel) {
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
	return 0;
}

static int build(struct command *c, struct guest *g, struct domain *def, int monitor, struct err *err)
{
	struct daemon *d = g->daemon;
	char uuid[37];
	int ret;

	uuid_text(g->uuid, uuid);
	add(c, "%s", def->devices->emulator ? def->devices->emulator : d->vmm);
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

static int open_log(const struct guest *g, struct err *err)
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
	int fd = open_log(g, NULL);
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

/* A session of its own, so that no signal of keeld's terminal reaches it; it does not end with keeld. */
static int launch(struct command *c, int log, pid_t *pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	char *env[] = { "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&files, log, 1);
	posix_spawn_file_actions_adddup2(&files, log, 2);
	for (unsigned n = 0; n < c->npassed; n++)
		posix_spawn_file_actions_adddup2(&files, c->passed[n], c->passed[n]); /* the same: it stays open */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	ret = posix_spawn(pid, c->argv[0], &files, &attr, c->argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return ret;
}

static int run(struct guest *g, struct command *c, struct spawned *out, struct err *err)
{
	int log = open_log(g, err), code;

	if (log < 0)
		return log;
	log_start(log, c);
	out->log_start = lseek(log, 0, SEEK_END);
	code = launch(c, log, &out->pid);
	close(log);
	if (code)
		return err_set_errno(err, code, "cannot execute binary %s", c->argv[0]);
	out->pidfd = (int)syscall(SYS_pidfd_open, out->pid, 0);
	if (out->pidfd < 0) {
		code = errno;
		kill(out->pid, SIGKILL);
		waitpid(out->pid, NULL, 0);
		return err_set_errno(err, code, "cannot watch the process %d", out->pid);
	}
	fcntl(out->pidfd, F_SETFD, FD_CLOEXEC);
	out->start_time = start_time_of(out->pid);
	return 0;
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
		ret = out->monitor < 0 ? out->monitor : run(g, &c, out, err);
	}
	command_free(&c);
	if (ret) {
		if (out->monitor >= 0)
			close(out->monitor);
		unlinkat(g->daemon->run_dir, name, 0);
	}
	return ret;
}
