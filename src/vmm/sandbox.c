/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "util/files.h"
#include "util/log.h"
#include "vmm/options.h"

/* A sanitizer's run-time opens files and traces the process at its end. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZER 1
#endif
#ifndef SANITIZER
#define SANITIZER 0
#endif

static struct sandbox_filter filters[SANDBOX_KINDS];
static unsigned ifs;   /* IF_* that hold */
static bool unprivileged; /* the main thread has no capabilities, so new ones have none */

/* ---- The option ------------------------------------------------------------- */

static int parse_uid(struct sandbox *s, const char *text, struct err *err)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || *text == '-' || !n || n >= UINT32_MAX)
		return err_set(err, EINVAL, "--sandbox: '%s' is not the number of a user other than root", text);
	s->has_uid = true;
	s->uid = n;
	return 0;
}

static int parse_setting(struct sandbox *s, const struct option_pair *p, struct err *err)
{
	static const char *const modes[] = { [SANDBOX_OFF] = "off", [SANDBOX_PATHS] = "paths", [SANDBOX_ON] = "on" };

	if (!strcmp(p->key, "uid"))
		return parse_uid(s, p->value, err);
	if (!strcmp(p->key, "mode")) {
		for (unsigned i = SANDBOX_OFF; i <= SANDBOX_ON; i++) {
			if (!strcmp(modes[i], p->value)) {
				s->mode = i;
				return 0;
			}
		}
		return err_set(err, EINVAL, "--sandbox must be on, paths or off, not '%s'", p->value);
	}
	if (!strcmp(p->key, "passed"))
		s->passed = true;
	else if (!strcmp(p->key, "root"))
		s->root = true;
	else if (!strcmp(p->key, "native"))
		s->native = true;
	else
		return err_set(err, EINVAL, "--sandbox: there is no setting '%s'; use passed, root, native or uid", p->key);
	return 0;
}

int sandbox_parse(struct sandbox *s, const char *text, struct err *err)
{
	struct option_pair pairs[6];
	int n = options_split("--sandbox", text, NULL, pairs, 6, err), ret = n < 0 ? n : 0;

	*s = (struct sandbox){ 0 };
	for (int i = 0; i < n && !ret; i++) {
		/* The first is the mode, a word alone. */
		struct option_pair p = i ? pairs[i] : (struct option_pair){ (char *)"mode", pairs[0].key };

		ret = parse_setting(s, &p, err);
	}
	if (n > 0)
		options_split_free(pairs, n);
	if (!ret && s->mode != SANDBOX_ON && (s->passed || s->root || s->native || s->has_uid))
		ret = err_set(err, EINVAL, "--sandbox: only 'on' has settings");
	if (!ret && (s->root || s->has_uid) && !s->passed)
		ret = err_set(err, EINVAL, "--sandbox: root and uid need 'passed': without paths there must be descriptors");
	return ret;
}

/* ---- Rights ------------------------------------------------------------------ */

/* What a program would get. Ends at the first that the kernel does not know, or at once without the right to. */
static void drop_bounds(void)
{
	for (int cap = 0; !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++)
		;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	return syscall(SYS_capset, &head, none) ? -errno : 0;
}

/* Nothing is mounted here but an empty folder without a place for a file. */
static int enter_empty_root(struct err *err)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("keel", "/proc", "tmpfs", flags, "mode=0555,nr_inodes=2,size=4k") || chdir("/proc"))
		return err_set_errno(err, errno, "--sandbox: cannot make an empty root directory");
	/* On a ram disk's root only chroot() is possible; without capabilities there is no way out of it. */
	if (!syscall(SYS_pivot_root, ".", ".")) {
		if (umount2(".", MNT_DETACH))
			return err_set_errno(err, errno, "--sandbox: cannot let go of the host's files");
	} else if (chroot(".")) {
		return err_set_errno(err, errno, "--sandbox: cannot enter an empty root directory");
	}
	if (chdir("/") || mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL))
		return err_set_errno(err, errno, "--sandbox: cannot enter an empty root directory");
	return 0;
}

/* ---- Landlock ------------------------------------------------------------------ */

/* Of newer kernels than this build's headers (Documentation/userspace-api/landlock.rst). */
struct ruleset {
	uint64_t fs, net, scoped;
};
#define FS_ABI1 0x1fffull   /* 13 rights */
#define FS_REFER (1ull << 13)	 /* ABI 2 */
#define FS_TRUNCATE (1ull << 14) /* 3 */
#define FS_IOCTL_DEV (1ull << 15) /* 5 */
#define FS_REMOVE_FILE (1ull << 5)
#define NET_BIND_CONNECT 3ull	  /* 4: TCP */
#define SCOPE_ABSTRACT_AND_SIGNAL 3ull /* 6 */

static int allow_removal(int ruleset, const char *path)
{
	struct landlock_path_beneath_attr beneath = { .allowed_access = FS_REMOVE_FILE };
	char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
	int ret = 0;

	if (!dir)
		return -ENOMEM;
	if (slash)
		*(slash == dir ? slash + 1 : slash) = 0;
	beneath.parent_fd = open(slash ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (beneath.parent_fd < 0)
		return 0; /* gone: so is the socket */
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
		ret = -errno;
	close(beneath.parent_fd);
	return ret;
}

/* No file is opened any more, no port, no abstract socket from outside; no signal leaves. 0 also where the kernel has none. */
static int landlock(const char *const *own, bool network, struct err *err)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION), fd, ret = 0;
	struct ruleset r = { .fs = FS_ABI1 };

	if (abi < 0)
		return 0;
	r.fs |= (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0);
	r.net = abi >= 4 && !network ? NET_BIND_CONNECT : 0;
	r.scoped = abi >= 6 ? SCOPE_ABSTRACT_AND_SIGNAL : 0;
	fd = (int)syscall(SYS_landlock_create_ruleset, &r, abi >= 6 ? 24 : abi >= 4 ? 16 : 8, 0);
	if (fd < 0)
		return err_set_errno(err, errno, "--sandbox: cannot make Landlock's rules");
	while (own && *own && !ret)
		ret = allow_removal(fd, *own++);
	if (!ret && syscall(SYS_landlock_restrict_self, fd, 0))
		ret = -errno;
	close(fd);
	return ret ? err_set_errno(err, -ret, "--sandbox: cannot apply Landlock's rules") : 0;
}

/* ---- The steps ----------------------------------------------------------------- */

static int need_filter(enum sandbox_kind kind, struct err *err)
{
	return filters[kind].code ? 0 : sandbox_filter_make(&filters[kind], kind, ifs, err);
}

static int load(enum sandbox_kind kind, struct err *err)
{
	int ret = need_filter(kind, err);

	if (!ret)
		ret = sandbox_filter_load(&filters[kind]);
	sandbox_filter_free(&filters[kind]);
	return ret ? err_set_errno(err, -ret, "--sandbox: the kernel refuses a filter of system calls; --sandbox off does without")
		   : 0;
}

/* By a thread that was confined itself, which has no capabilities; its filter does not let us ask. */
static bool is_made_confined(void)
{
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0;
}

static void thread_begins(enum thread_kind kind)
{
	/* A thread that cannot be confined must not run. */
	if ((!unprivileged && !is_made_confined() && drop_capabilities()) || sandbox_filter_load(&filters[kind])) {
		log_line(LOG_ERROR, "a thread cannot be confined: %s", strerror(errno));
		abort();
	}
}

int sandbox_confine(const struct sandbox *s, struct err *err)
{
	int ret = 0;

	assert(s->passed);
	tzset(); /* the last file that is read by its path: the guest's clock may show local time */
	if (SANITIZER)
		return 0;
	if (s->root)
		ret = enter_empty_root(err);
	drop_bounds();
	if (!ret && s->has_uid && (setgroups(0, NULL) || setresgid(s->uid, s->uid, s->uid) || setresuid(s->uid, s->uid, s->uid)))
		ret = err_set_errno(err, errno, "--sandbox: cannot become the user %u", s->uid);
	if (!ret && drop_capabilities())
		ret = err_set_errno(err, errno, "--sandbox: cannot drop capabilities");
	if (!ret && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		ret = err_set_errno(err, errno, "--sandbox: cannot renounce new privileges");
	if (!ret)
		ret = landlock(NULL, false, err);
	ifs = s->native ? IF_NATIVE : 0;
	unprivileged = true;
	return ret ? ret : load(KIND_START, err);
}

int sandbox_prepare(const struct sandbox *s, const struct sandbox_needs *needs, struct err *err)
{
	if (s->mode == SANDBOX_OFF || SANITIZER)
		return 0;
	if (s->passed && needs->native && !s->native)
		return err_set(err, EINVAL, "--engine native=on: the sandbox has to know from the start: --sandbox on,passed,native");
	ifs = (needs->native ? IF_NATIVE : 0) | (needs->network ? IF_NETWORK : 0) | (needs->connect ? IF_CONNECT : 0) |
	      (s->passed ? 0 : IF_ALONE);
	for (unsigned kind = 0; kind < THREAD_KINDS; kind++)
		if (need_filter(kind, err))
			return -err->code;
	threads_on_begin(thread_begins);
	return 0;
}

int sandbox_seal(const struct sandbox *s, const struct sandbox_needs *needs, struct err *err)
{
	int ret = 0;

	files_forget();
	if (s->mode != SANDBOX_ON || SANITIZER)
		return 0;
	if (!s->passed && drop_capabilities())
		return err_set_errno(err, errno, "--sandbox: cannot drop capabilities");
	unprivileged = true;
	if (!s->passed)
		ret = landlock(needs->own, needs->network, err);
	return ret ? ret : load(KIND_MAIN, err);
}
