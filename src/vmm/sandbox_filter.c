/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters for seccomp(2) out of the table of calls. libseccomp writes them once; each thread loads its own. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox.h"

static bool applies(const struct sandbox_call *c, enum sandbox_kind kind, unsigned ifs)
{
	return c->who & 1u << kind && !(c->who & (IF_NATIVE | IF_NETWORK | IF_CONNECT | IF_ALONE) & ~ifs);
}

static int add_call(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
	int ret = 0;

	if (!c->rules)
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, c->nr, 0);
	for (const struct sandbox_rule *r = c->rules; r->mask && !ret; r++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, c->nr, 1, SCMP_CMP(r->arg, SCMP_CMP_MASKED_EQ, r->mask, r->value));
	return ret;
}

/* One rule for all arguments swallows those for some. */
static bool has_plain(const struct sandbox_call *call, enum sandbox_kind kind, unsigned ifs)
{
	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0; c++)
		if (c->nr == call->nr && !c->rules && applies(c, kind, ifs))
			return true;
	return false;
}

static bool is_allowed(int nr, enum sandbox_kind kind, unsigned ifs)
{
	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0; c++)
		if (c->nr == nr && applies(c, kind, ifs))
			return true;
	return false;
}

static int add_rules(scmp_filter_ctx ctx, enum sandbox_kind kind, unsigned ifs)
{
	int ret = 0;

	/* Its flags lie in memory, where no filter sees them: the C library takes clone() then. */
	ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	for (const struct sandbox_call *c = sandbox_calls; c->nr >= 0 && !ret; c++)
		if (applies(c, kind, ifs) && (!c->rules || !has_plain(c, kind, ifs)))
			ret = add_call(ctx, c);
	for (const int *nr = sandbox_deadly; *nr >= 0 && !ret; nr++)
		if (!is_allowed(*nr, kind, ifs))
			ret = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, *nr, 0);
	if (!ret && !is_allowed(SYS_ptrace, kind, ifs))
		ret = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, SYS_ptrace, 0);
	return ret;
}

/* libseccomp writes to a file only. */
static int take_code(scmp_filter_ctx ctx, struct sandbox_filter *f)
{
	int fd = memfd_create("keel-filter", MFD_CLOEXEC), ret = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	off_t size = ret ? 0 : lseek(fd, 0, SEEK_END);

	if (!ret && (size <= 0 || size % sizeof(struct sock_filter) || size / sizeof(struct sock_filter) > BPF_MAXINSNS))
		ret = -EINVAL;
	f->code = ret ? NULL : malloc(size);
	f->len = size / sizeof(struct sock_filter);
	if (!ret && (!f->code || pread(fd, f->code, size, 0) != size))
		ret = -ENOMEM;
	if (fd >= 0)
		close(fd);
	return ret;
}

int sandbox_filter_make(struct sandbox_filter *f, enum sandbox_kind kind, unsigned ifs, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int ret = ctx ? 0 : -ENOMEM;

	*f = (struct sandbox_filter){ 0 };
	/* Calls of other ABIs (32 bits, x32) end the process: libseccomp's default for what is not the native one. */
	if (!ret)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: five comparisons instead of eighty */
	if (!ret)
		ret = add_rules(ctx, kind, ifs);
	if (!ret)
		ret = take_code(ctx, f);
	seccomp_release(ctx);
	if (!ret)
		return 0;
	sandbox_filter_free(f);
	return err_set_errno(err, -ret, "cannot make a filter of system calls");
}

int sandbox_filter_load(const struct sandbox_filter *f)
{
	struct sock_fprog prog = { .len = f->len, .filter = f->code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) ? -errno : 0;
}

void sandbox_filter_free(struct sandbox_filter *f)
{
	free(f->code);
	*f = (struct sandbox_filter){ 0 };
}
