/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keel image build: a Debian system on a disk that boots, from Debian's
 * packages alone. mmdebstrap installs it (as root, or in a user namespace),
 * mke2fs makes the file system of it, grub-mkimage the boot loader; the
 * partition table is written here. Nothing is mounted and no device is used.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/image.h"

#define START (1u << 20) /* of the partition, bytes; the boot loader lies before it */
#define SECTOR 512u

/* What the new system is told. Everything it gets comes by the environment: $BUILD_…, and nothing is evaluated. */
static const char customize[] =
	"set -eu\n"
	"r=$1\n"
	"echo \"$BUILD_HOSTNAME\" > \"$r/etc/hostname\"\n"
	"printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n::1 localhost ip6-localhost\\n' \"$BUILD_HOSTNAME\" > "
	"\"$r/etc/hosts\"\n"
	"echo \"UUID=$BUILD_UUID / ext4 errors=remount-ro 0 1\" > \"$r/etc/fstab\"\n"
	"mkdir -p \"$r/etc/systemd/network\" \"$r/boot/grub\"\n"
	"printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=yes\\n' > \"$r/etc/systemd/network/80-dhcp.network\"\n"
	"chroot \"$r\" systemctl -q enable systemd-networkd systemd-resolved\n"
	"printf 'serial --unit=0 --speed=115200\\nterminal_input serial console\\nterminal_output serial console\\n"
	"set timeout=0\\nmenuentry Debian {\\n  search --no-floppy --fs-uuid --set=root %s\\n"
	"  linux /vmlinuz root=UUID=%s ro console=tty0 console=ttyS0,115200\\n  initrd /initrd.img\\n}\\n' "
	"\"$BUILD_UUID\" \"$BUILD_UUID\" > \"$r/boot/grub/grub.cfg\"\n"
	"if [ -n \"$BUILD_USER\" ]; then\n"
	"  [ \"$BUILD_USER\" = root ] || chroot \"$r\" useradd -m -s /bin/bash -G sudo \"$BUILD_USER\"\n"
	"  home=$(chroot \"$r\" sh -c 'eval echo ~\"$1\"' sh \"$BUILD_USER\")\n"
	"  if [ -n \"$BUILD_KEY\" ]; then\n"
	"    mkdir -p -m 700 \"$r$home/.ssh\"\n"
	"    echo \"$BUILD_KEY\" > \"$r$home/.ssh/authorized_keys\"\n"
	"    chmod 600 \"$r$home/.ssh/authorized_keys\"\n"
	"    chroot \"$r\" chown -R \"$BUILD_USER:\" \"$home/.ssh\"\n"
	"  fi\n"
	"  if [ -n \"$BUILD_PASSWORD\" ]; then echo \"$BUILD_USER:$BUILD_PASSWORD\" | chroot \"$r\" chpasswd; fi\n"
	"  echo \"$BUILD_USER ALL=(ALL) NOPASSWD: ALL\" > \"$r/etc/sudoers.d/90-user\"\n"
	"  chmod 440 \"$r/etc/sudoers.d/90-user\"\n"
	"fi\n"
	": > \"$r/etc/machine-id\"\n";

/*
 * $1: the work directory, $2: the customizing script. The root file system
 * goes through a pipe into where its owners are known, and comes back as a
 * file system's image.
 */
static const char script[] =
	"set -eu\n"
	"cd \"$1\"\n"
	"printf '%s' \"$2\" > customize\n"
	"chmod 755 . customize\n"
	"mmdebstrap --quiet --mode=auto --variant=minbase --format=tar --include=\"$BUILD_PACKAGES\" "
	"--customize-hook=\"sh '$1/customize' \\\"\\$1\\\"\" \"$BUILD_SUITE\" root.tar "
	"${BUILD_MIRROR:+\"$BUILD_MIRROR\"}\n"
	"make_fs='set -eu; t=$(mktemp -d); trap \"rm -rf $t\" EXIT; mkdir \"$t/d\"; tar -C \"$t/d\" --numeric-owner "
	"-xf -; "
	"truncate -s \"$BUILD_PART\" \"$t/fs\"; mke2fs -q -t ext4 -L root -U \"$BUILD_UUID\" -d \"$t/d\" \"$t/fs\" "
	">&2; "
	"cat \"$t/fs\"'\n"
	"if [ \"$(id -u)\" = 0 ]; then run=; else run='mmdebstrap --unshare-helper'; fi\n"
	"$run sh -c \"$make_fs\" < root.tar | dd of=disk.raw bs=1M seek=1 iflag=fullblock conv=sparse status=none\n"
	"rm root.tar\n"
	"truncate -s \"$BUILD_SIZE\" disk.raw\n"
	"grub-mkimage -O i386-pc -o core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 linux normal "
	"configfile "
	"serial terminal echo search search_fs_uuid reboot halt\n"
	"cp /usr/lib/grub/i386-pc/boot.img boot.img\n";

struct build {
	const char *suite, *mirror, *user, *key_file, *password_file, *hostname, *include, *format, *to;
	uint64_t size;
	bool cloud_init;
	char *key, *password;
};

/* The first line of a file. NULL: complained. */
static char *first_line(const char *path)
{
	FILE *f = fopen(path, "re");
	size_t room = 0;
	char *line = NULL;
	ssize_t n = f ? getline(&line, &room, f) : -1;

	if (f)
		fclose(f);
	if (n < 0) {
		image_fail(1, "cannot read %s: %s", path, f ? "it is empty" : strerror(errno));
		free(line);
		return NULL;
	}
	line[strcspn(line, "\r\n")] = 0;
	return line;
}

static bool plain_name(const char *text)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

	return *text && *text != '-' && *text != '.' && strlen(text) < 64 && !text[strspn(text, ok)];
}

static int parse_build(int argc, char **argv, struct build *b)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' },
		{ "suite", required_argument, NULL, 'S' },
		{ "mirror", required_argument, NULL, 'M' },
		{ "user", required_argument, NULL, 'u' },
		{ "ssh-key", required_argument, NULL, 'k' },
		{ "password-file", required_argument, NULL, 'p' },
		{ "hostname", required_argument, NULL, 'h' },
		{ "include", required_argument, NULL, 'i' },
		{ "format", required_argument, NULL, 'O' },
		{ "cloud-init", no_argument, NULL, 'c' },
		{ 0 },
	};
	int opt;

	*b = (struct build){
		.suite = "bookworm", .user = "debian", .hostname = "debian", .format = "qcow2", .size = 4ull << 30
	};
	optind = 1;
	while ((opt = getopt_long(argc, argv, "s:O:", longs, NULL)) != -1) {
		switch (opt) {
		case 's':
			if (!image_parse_size(optarg, &b->size) || b->size < 1u << 30 || b->size > 2ull << 40)
				return image_fail(1, "--size takes a size from 1G to 2T, not '%s'", optarg);
			b->size = b->size / START * START;
			break;
		case 'S':
			b->suite = optarg;
			break;
		case 'M':
			b->mirror = optarg;
			break;
		case 'u':
			b->user = optarg;
			break;
		case 'k':
			b->key_file = optarg;
			break;
		case 'p':
			b->password_file = optarg;
			break;
		case 'h':
			b->hostname = optarg;
			break;
		case 'i':
			b->include = optarg;
			break;
		case 'O':
			b->format = optarg;
			break;
		case 'c':
			b->cloud_init = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return image_fail(1, "build needs the new image's name");
	b->to = argv[optind];
	if (strcmp(b->format, "raw") && strcmp(b->format, "qcow2"))
		return image_fail(1, "format '%s' is not supported, only raw and qcow2 are", b->format);
	if (!plain_name(b->user) || !plain_name(b->hostname) || !plain_name(b->suite))
		return image_fail(1, "users, hosts and suites have names of letters, digits, '-', '_' and '.'");
	if (!b->key_file && !b->password_file && !b->cloud_init)
		return image_fail(1, "nobody could log in: give --ssh-key FILE, --password-file FILE or --cloud-init");
	if (b->key_file && !(b->key = first_line(b->key_file)))
		return 1;
	if (b->password_file && !(b->password = first_line(b->password_file)))
		return 1;
	return 0;
}

/* ---- The boot loader ------------------------------------------------------------------ */

static int copy_file(const char *dir, const char *name, int fd, uint64_t at, size_t most, bool cut, struct err *err)
{
	uint8_t *buf = malloc(most + 1);
	char path[4096];
	ssize_t n = -1;
	int in, ret = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	in = open(path, O_RDONLY | O_CLOEXEC);
	if (in >= 0 && buf)
		n = read(in, buf, most + 1);
	if (n > (ssize_t)most && cut)
		n = most;
	if (n <= 0)
		ret = err_set(err, EIO, "cannot read GRUB's %s", name);
	else if (n > (ssize_t)most)
		ret = err_set(err, EFBIG, "GRUB's %s does not fit before the partition", name);
	if (!ret && n > 0 && pwrite(fd, buf, n, at) != n)
		ret = err_set_errno(err, errno, "cannot write the boot loader");
	if (in >= 0)
		close(in);
	free(buf);
	return ret;
}

/* GRUB's first sector up to the disk signature, one partition, and GRUB's core behind it, where the first sector looks.
 */
static int make_bootable(const char *dir, uint64_t size, struct err *err)
{
	uint32_t start = START / SECTOR, sectors = (size - START) / SECTOR;
	uint8_t table[72] = { 0 }, *p = table + 6; /* from byte 440 on */
	char path[4096];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/disk.raw", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(err, errno, "cannot open %s", path);
	if (getrandom(table, 4, 0) != 4)
		memcpy(table, &start, 4);
	p[0] = 0x80;		/* active */
	memset(p + 1, 0xff, 3); /* no cylinders: look at the sector numbers */
	p[1] = 0xfe;
	p[4] = 0x83; /* Linux */
	memcpy(p + 5, "\xfe\xff\xff", 3);
	for (unsigned i = 0; i < 4; i++) {
		p[8 + i] = start >> (8 * i);
		p[12 + i] = sectors >> (8 * i);
	}
	table[70] = 0x55;
	table[71] = 0xaa;
	ret = copy_file(dir, "boot.img", fd, 0, 440, true, err);
	if (!ret)
		ret = copy_file(dir, "core.img", fd, SECTOR, START - SECTOR, false, err);
	if (!ret && pwrite(fd, table, sizeof(table), 440) != sizeof(table))
		ret = err_set_errno(err, errno, "cannot write the partition table");
	close(fd);
	return ret;
}

/* ---- All of it ---------------------------------------------------------------------------- */

static void set_number(const char *name, uint64_t n)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	setenv(name, text, 1);
}

static void set_environment(const struct build *b)
{
	char packages[4096], uuid[40];
	uint8_t r[16];

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		memset(r, 0x5a, sizeof(r));
	r[6] = (r[6] & 0x0f) | 0x40; /* RFC 4122 §4.4 */
	r[8] = (r[8] & 0x3f) | 0x80;
	snprintf(uuid, sizeof(uuid), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1],
		 r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
	snprintf(packages, sizeof(packages),
		 "linux-image-cloud-amd64,initramfs-tools,systemd-sysv,systemd-resolved,udev,dbus,e2fsprogs,openssh-"
		 "server,sudo,"
		 "iproute2,iputils-ping,ca-certificates,less%s%s%s",
		 b->cloud_init ? ",cloud-init" : "", b->include ? "," : "", b->include ? b->include : "");
	setenv("BUILD_PACKAGES", packages, 1);
	setenv("BUILD_UUID", uuid, 1);
	setenv("BUILD_SUITE", b->suite, 1);
	setenv("BUILD_MIRROR", b->mirror ? b->mirror : "", 1);
	setenv("BUILD_HOSTNAME", b->hostname, 1);
	setenv("BUILD_USER", b->key || b->password ? b->user : "", 1);
	setenv("BUILD_KEY", b->key ? b->key : "", 1);
	setenv("BUILD_PASSWORD", b->password ? b->password : "", 1);
	set_number("BUILD_SIZE", b->size);
	set_number("BUILD_PART", b->size - START);
	/* Where users without root have no such places in their paths. */
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
}

static int run_script(const char *dir, struct err *err)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execl("/bin/sh", "sh", "-c", script, "sh", dir, customize, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return err_set_errno(err, errno, "cannot run a shell");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return err_set(err, EIO, "the system could not be made; the lines before this one say why");
	return 0;
}

static void remove_dir(const char *dir)
{
	static const char *const names[] = { "customize", "root.tar", "disk.raw", "core.img", "boot.img" };
	char path[4096];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

static bool have_programs(void)
{
	static const struct {
		const char *program, *package;
	} needed[] = {
		{ "/usr/bin/mmdebstrap", "mmdebstrap" },
		{ "/usr/bin/grub-mkimage", "grub-common" },
		{ "/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin" },
		{ "/sbin/mke2fs", "e2fsprogs" },
	};
	bool all = true;

	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (access(needed[i].program, R_OK)) {
			image_fail(1, "%s is missing: install the package %s", needed[i].program, needed[i].package);
			all = false;
		}
	return all;
}

int image_cmd_build(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct build b;
	char dir[4000], raw[4096];
	int ret;

	if (parse_build(argc, argv, &b) || !have_programs())
		return 1;
	/* Beside the image: that is where there is room. */
	snprintf(dir, sizeof(dir), "%s.build-XXXXXX", b.to);
	if (!mkdtemp(dir))
		return image_fail(1, "cannot make %s: %s", dir, strerror(errno));
	if (!realpath(dir, raw) || strlen(raw) >= sizeof(dir) || strchr(raw, '\'')) {
		rmdir(dir);
		return image_fail(1, "%s is no path to build in", dir);
	}
	strcpy(dir, raw);
	set_environment(&b);
	ret = run_script(dir, &err);
	if (!ret)
		ret = make_bootable(dir, b.size, &err);
	if (ret) {
		ret = image_fail(1, "%s", err_msg(&err));
	} else {
		char *convert[] = { "convert", "-f", "raw", "-O", (char *)b.format, raw, (char *)b.to, NULL };

		snprintf(raw, sizeof(raw), "%s/disk.raw", dir);
		ret = image_cmd_convert(7, convert);
	}
	remove_dir(dir);
	free(b.key);
	free(b.password);
	if (!ret)
		printf("Made '%s': Debian %s, %llu bytes\n", b.to, b.suite, (unsigned long long)b.size);
	return ret;
}
