/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keel create: a guest in one line, from a disk image or as a fresh Debian.
 * Without an option that says what the guest is made of it is virsh's create:
 * start a transient guest from a file of XML.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/console.h"
#include "cli/image.h"
#include "cli/verb.h"
#include "lib/open.h"
#include "lib/uri.h"

/* What the guest is to be. */
struct plan {
	const char *name;
	char *disk, *iso, *kernel, *initrd; /* absolute paths; NULL: none */
	const char *format, *append, *bridge;
	bool made; /* the disk is ours: it goes if the guest can't be defined */
	bool user_network;
	uint64_t memory_kib;
	unsigned cpus;
};

static int refuse(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int refuse(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("error: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return -1;
}

/* ---- virsh's ---------------------------------------------------------------- */

static int create_from_xml(struct cmd *c)
{
	unsigned flags = (cmd_has(c, "paused") ? KEEL_START_PAUSED : 0u) | (cmd_has(c, "autodestroy") ? KEEL_START_AUTODESTROY : 0u);
	const char *file = cmd_text(c, "name");
	char *xml = cmd_read_file(file);
	struct keel_domain *dom;
	int status = 0;

	if (!xml)
		return 1;
	dom = keel_domain_create(c->conn, xml, flags, &c->error);
	free(xml);
	if (!dom)
		return cmd_fail(c, "Failed to create domain from %s", file);
	if (!c->quiet)
		printf("Domain '%s' created from %s\n", keel_domain_name(dom), file);
	if (cmd_has(c, "console"))
		status = console_attach(c, dom, NULL, 0);
	keel_domain_free(dom);
	return status;
}

/* ---- Disks ----------------------------------------------------------------- */

/* Files are made on this host, so the daemon has to be on it. */
static bool is_remote(const struct cmd *c)
{
	struct uri u;
	bool remote = uri_parse(&u, c->uri ? c->uri : open_default_uri(), NULL) || u.transport != URI_UNIX;

	uri_free(&u);
	return remote;
}

/* An existing file's absolute path, malloced. NULL, and the message is printed. */
static char *absolute(const char *option, const char *path)
{
	char *full = realpath(path, NULL);

	if (!full)
		refuse("--%s %s: %s", option, path, strerror(errno));
	return full;
}

static const char *format_of(const char *path)
{
	char magic[4] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool qcow2 = fd >= 0 && pread(fd, magic, 4, 0) == 4 && !memcmp(magic, "QFI\xfb", 4);

	if (fd >= 0)
		close(fd);
	return qcow2 ? "qcow2" : "raw";
}

/* Where new disks go: DIR/NAME.qcow2, malloced. The directory is made. NULL, and the message is printed. */
static char *new_disk(const struct cmd *c, const char *name)
{
	const char *dir = cmd_text(c, "directory"), *home = getenv("HOME"), *data = getenv("XDG_DATA_HOME");
	char own[512], *full, *path = NULL;

	if (!dir) {
		if (!geteuid())
			snprintf(own, sizeof(own), "/var/lib/keel/images");
		else if (data && *data == '/')
			snprintf(own, sizeof(own), "%s/keel/images", data);
		else
			snprintf(own, sizeof(own), "%s/.local/share/keel/images", home ? home : ".");
		for (char *slash = strchr(own + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
			*slash = 0;
			mkdir(own, 0711);
			*slash = '/';
		}
		mkdir(own, 0711);
		dir = own;
	}
	full = absolute("directory", dir);
	if (!full)
		return NULL;
	if (asprintf(&path, "%s/%s.qcow2", full, name) < 0)
		path = NULL;
	free(full);
	if (path && !access(path, F_OK)) {
		refuse("%s exists already; use it with --image, remove it, or choose another --directory", path);
		free(path);
		path = NULL;
	}
	return path;
}

/* Run keel image ... and wait. 0 or -1. */
static int run_image(const char *const *args)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execv("/proc/self/exe", (char *const *)args);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
		return refuse("keel %s %s failed", args[1], args[2]);
	return 0;
}

static int build_debian(const struct cmd *c, struct plan *p)
{
	const char *size = cmd_has(c, "disk-size") ? cmd_text(c, "disk-size") : "4G";
	const char *args[24] = { "keel", "image", "build", "--size", size, "--hostname", p->name };
	static const char *const passed[] = { "user", "ssh-key", "password-file", "suite", "mirror" };
	static const char *const options[] = { "--user", "--ssh-key", "--password-file", "--suite", "--mirror" };
	unsigned n = 7;

	for (unsigned i = 0; i < 5; i++)
		if (cmd_has(c, passed[i])) {
			args[n++] = options[i];
			args[n++] = cmd_text(c, passed[i]);
		}
	args[n++] = p->disk;
	if (!cmd_has(c, "ssh-key") && !cmd_has(c, "password-file"))
		return refuse("--image debian: nobody could log in; give --ssh-key FILE or --password-file FILE (and --user NAME)");
	return run_image(args);
}

/* The disk of --image and --disk-size: a fresh Debian, the image itself, an overlay of it, or an empty one. */
static int plan_disk(const struct cmd *c, struct plan *p)
{
	const char *image = cmd_text(c, "image"), *size = cmd_text(c, "disk-size");
	char *base;
	int ret;

	if (!image && !size)
		return 0;
	if (is_remote(c))
		return refuse("disks are made and looked at on this host; %s is on another: define it there by XML", c->uri);
	if (image && strcmp(image, "debian")) {
		base = absolute("image", image);
		if (!base)
			return -1;
		if (!size) {
			p->disk = base;
			p->format = format_of(base);
			return 0;
		}
	} else {
		base = NULL;
	}
	p->format = "qcow2";
	p->disk = new_disk(c, p->name);
	if (!p->disk) {
		free(base);
		return -1;
	}
	p->made = true;
	if (image && !base)
		ret = build_debian(c, p);
	else if (base)
		ret = run_image((const char *const[]){ "keel", "image", "create", "-q", "-f", "qcow2", "-b", base, "-F", format_of(base), p->disk,
						       size, NULL });
	else
		ret = run_image((const char *const[]){ "keel", "image", "create", "-q", "-f", "qcow2", p->disk, size, NULL });
	free(base);
	return ret;
}

/* ---- XML ------------------------------------------------------------------- */

static void put_escaped(FILE *f, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '<':
			fputs("&lt;", f);
			break;
		case '>':
			fputs("&gt;", f);
			break;
		case '&':
			fputs("&amp;", f);
			break;
		case '\'':
			fputs("&apos;", f);
			break;
		case '"':
			fputs("&quot;", f);
			break;
		default:
			fputc(*s, f);
		}
}

static void put_element(FILE *f, const char *name, const char *text)
{
	if (!text)
		return;
	fprintf(f, "<%s>", name);
	put_escaped(f, text);
	fprintf(f, "</%s>", name);
}

static void put_disk(FILE *f, const char *device, const char *format, const char *path, const char *target, const char *bus)
{
	if (!path)
		return;
	fprintf(f, "<disk type='file' device='%s'><driver name='qemu' type='%s'/><source file='", device, format);
	put_escaped(f, path);
	fprintf(f, "'/><target dev='%s' bus='%s'/>%s</disk>", target, bus, strcmp(device, "cdrom") ? "" : "<readonly/>");
}

/* Does the host run guests of this type at hardware speed? */
static bool has_kvm(struct cmd *c)
{
	char *caps = keel_capabilities(c->conn, NULL);
	bool kvm = caps && (strstr(caps, "<domain type='kvm'"));

	keel_free(caps);
	return kvm;
}

static char *plan_xml(struct cmd *c, const struct plan *p)
{
	char *xml = NULL;
	size_t len;
	FILE *f = open_memstream(&xml, &len);

	if (!f)
		return NULL;
	fprintf(f, "<domain type='%s'>", has_kvm(c) ? "kvm" : "qemu");
	put_element(f, "name", p->name);
	put_element(f, "title", cmd_text(c, "title"));
	fprintf(f, "<memory unit='KiB'>%llu</memory><vcpu>%u</vcpu>", (unsigned long long)p->memory_kib, p->cpus);
	fputs("<os><type arch='x86_64' machine='q35'>hvm</type>", f);
	put_element(f, "kernel", p->kernel);
	put_element(f, "initrd", p->initrd);
	put_element(f, "cmdline", p->append);
	if (!p->kernel)
		fputs(p->iso ? "<boot dev='cdrom'/><boot dev='hd'/>" : "<boot dev='hd'/>", f);
	fputs("</os><features><acpi/><apic/></features><clock offset='utc'/><devices>", f);
	put_disk(f, "disk", p->format, p->disk, "vda", "virtio");
	put_disk(f, "cdrom", "raw", p->iso, "sda", "scsi");
	if (p->iso)
		fputs("<controller type='scsi' model='virtio-scsi'/>", f);
	if (p->user_network)
		fputs("<interface type='user'><model type='virtio'/></interface>", f);
	if (p->bridge) {
		fputs("<interface type='bridge'><source bridge='", f);
		put_escaped(f, p->bridge);
		fputs("'/><model type='virtio'/></interface>", f);
	}
	fputs("<serial type='pty'/><console type='pty'/></devices></domain>", f);
	fclose(f);
	return xml;
}

/* ---- Together --------------------------------------------------------------- */

static int plan_rest(struct cmd *c, struct plan *p)
{
	const char *network = cmd_has(c, "network") ? cmd_text(c, "network") : "user";
	uint64_t bytes = 1ull << 30;
	long long cpus = 1;

	if (cmd_number(c, "cpus", &cpus))
		return -1;
	if (cpus < 1 || cpus > 255)
		return refuse("--cpus %lld: give a number from 1 to 255", cpus);
	if (cmd_has(c, "memory") && !image_parse_size(cmd_text(c, "memory"), &bytes))
		return refuse("--memory %s: give a size such as 512M or 2G", cmd_text(c, "memory"));
	if (bytes < 1 << 20)
		return refuse("--memory %s: that is less than 1M; say 512M or 2G", cmd_text(c, "memory"));
	p->cpus = (unsigned)cpus;
	p->memory_kib = bytes >> 10;
	p->append = cmd_text(c, "append");
	if (!strcmp(network, "user"))
		p->user_network = true;
	else if (!strncmp(network, "bridge=", 7) && network[7])
		p->bridge = network + 7;
	else if (strcmp(network, "none"))
		return refuse("--network %s: give user, bridge=NAME or none", network);
	if ((cmd_has(c, "iso") && !(p->iso = absolute("iso", cmd_text(c, "iso")))) ||
	    (cmd_has(c, "kernel") && !(p->kernel = absolute("kernel", cmd_text(c, "kernel")))) ||
	    (cmd_has(c, "initrd") && !(p->initrd = absolute("initrd", cmd_text(c, "initrd")))))
		return -1;
	if ((p->initrd || p->append) && !p->kernel)
		return refuse("--initrd and --append belong to --kernel");
	return 0;
}

static int start_it(struct cmd *c, struct keel_domain *dom)
{
	if (cmd_has(c, "autostart") && keel_domain_set_autostart(dom, 1, &c->error))
		return cmd_fail(c, "Failed to mark domain '%s' as autostarted", keel_domain_name(dom));
	if (cmd_has(c, "no-start"))
		return 0;
	if (keel_domain_start(dom, cmd_has(c, "paused") ? KEEL_START_PAUSED : 0, &c->error))
		return cmd_fail(c, "Failed to start domain '%s', which is defined", keel_domain_name(dom));
	if (!c->quiet)
		printf("Domain '%s' started\n", keel_domain_name(dom));
	return cmd_has(c, "console") ? console_attach(c, dom, NULL, 0) : 0;
}

static int create(struct cmd *c, struct plan *p)
{
	struct keel_domain *dom = keel_domain_by_name(c->conn, p->name, NULL);
	char *xml;
	int status;

	if (dom) {
		keel_domain_free(dom);
		refuse("domain '%s' exists already", p->name);
		return 1;
	}
	if (plan_rest(c, p) || plan_disk(c, p))
		return 1;
	xml = plan_xml(c, p);
	dom = xml ? keel_domain_define(c->conn, xml, &c->error) : NULL;
	free(xml);
	if (!dom)
		return cmd_fail(c, "Failed to define domain '%s'", p->name);
	p->made = false; /* it is the guest's now */
	if (!c->quiet)
		printf("Domain '%s' defined%s%s\n", p->name, p->disk ? ", its disk is " : "", p->disk ? p->disk : "");
	status = start_it(c, dom);
	keel_domain_free(dom);
	return status;
}

static int run_create(struct cmd *c)
{
	static const char *const parts[] = { "image", "disk-size", "iso", "kernel" };
	struct plan p = { .name = cmd_text(c, "name") };
	bool any = false;
	int status;

	for (unsigned n = 0; n < sizeof(parts) / sizeof(parts[0]); n++)
		any |= cmd_has(c, parts[n]);
	if (!any)
		return create_from_xml(c);
	if (!*p.name || strchr(p.name, '/') || *p.name == '.') {
		refuse("'%s' can't be a guest's name", p.name);
		return 1;
	}
	status = create(c, &p);
	if (p.made && status)
		unlink(p.disk);
	free(p.disk);
	free(p.iso);
	free(p.kernel);
	free(p.initrd);
	return status;
}

static const struct opt create_opts[] = {
	{ "name", OPT_TEXT, OPT_DATA | OPT_REQUIRED | OPT_FILE, "the guest's name; or, without what it is made of, a file with its XML" },
	{ "image", OPT_TEXT, OPT_FILE, "a disk image, or debian: a fresh system by keel image build" },
	{ "disk-size", OPT_TEXT, 0, "a new disk of this size, on top of --image if that is a file" },
	{ "directory", OPT_TEXT, OPT_FILE, "where new disks go" },
	{ "iso", OPT_TEXT, OPT_FILE, "a CD to boot from" },
	{ "kernel", OPT_TEXT, OPT_FILE, "a kernel to boot directly" },
	{ "initrd", OPT_TEXT, OPT_FILE, "its initial file system" },
	{ "append", OPT_TEXT, 0, "its command line" },
	{ "memory", OPT_TEXT, 0, "memory (1G)" },
	{ "cpus", OPT_NUMBER, 0, "vCPUs (1)" },
	{ "network", OPT_TEXT, 0, "user (default), bridge=NAME or none" },
	{ "title", OPT_TEXT, 0, "a title" },
	{ "user", OPT_TEXT, 0, "of a fresh Debian: the user" },
	{ "ssh-key", OPT_TEXT, OPT_FILE, "and the public key to log in with" },
	{ "password-file", OPT_TEXT, OPT_FILE, "and the password" },
	{ "suite", OPT_TEXT, 0, "of which release" },
	{ "mirror", OPT_TEXT, 0, "and from where" },
	{ "autostart", OPT_FLAG, 0, "start it with the daemon" },
	{ "no-start", OPT_FLAG, 0, "only define it" },
	{ "paused", OPT_FLAG, 0, "leave it paused" },
	{ "autodestroy", OPT_FLAG, 0, "with XML: it ends with this command's connection" },
	{ "console", OPT_FLAG, 0, "attach to its console" },
	{ 0 },
};

const struct verb create_verbs[] = {
	{ "create", "make a guest of an image and start it", create_opts, run_create },
	{ 0 },
};
