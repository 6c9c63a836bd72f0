/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: the whole machine into a descriptor, and out of it into one that was
 * started the same way and has not run. What is written is all behind the
 * descriptor's offset: whoever keeps the file may put something before it.
 *
 * "KEELSAVE", version, 0 (4 bytes each), bytes of state (8), the state
 * (machine_save()); then pieces of memory: address, length (8 each), the bytes.
 * A piece of length 0 ends it. All little-endian.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/state.h"
#include "vmm/vmm.h"

#define MAGIC "KEELSAVE"
#define VERSION 1u
#define STATE_MAX (256u << 20)
#define CHUNK (1u << 20)

struct head {
	char magic[8];
	uint32_t version, zero;
	uint64_t state;
};
struct piece {
	uint64_t gpa, len;
};

static int take_file(struct vmm *v, json_t *args, struct err *err)
{
	const char *name = qmp_need_text(args, "protocol", err);

	if (!name)
		return -EINVAL;
	if (strncmp(name, "fd:", 3))
		return err_set(err, EINVAL, "Parameter 'protocol' must be fd:NAME, with a descriptor that getfd brought");
	return vmm_fd_take(v, name + 3, err);
}

/* ---- Out ------------------------------------------------------------------------ */

static int put(int fd, const void *data, size_t len, struct err *err)
{
	for (const uint8_t *p = data; len;) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set_errno(err, n ? errno : EIO, "the machine's state cannot be written");
		p += n;
		len -= n;
	}
	return 0;
}

static int put_region(int fd, const struct guest_region *r, struct err *err)
{
	int ret = 0;

	for (uint64_t off = 0, end; off < r->size && !ret; off = end) {
		struct piece p;

		end = off + CHUNK < r->size ? off + CHUNK : r->size;
		if (r->fd >= 0) { /* to read a hole would fill it */
			off_t data = lseek(r->fd, (off_t)(r->offset + off), SEEK_DATA);
			off_t hole = data < 0 ? -1 : lseek(r->fd, data, SEEK_HOLE);

			if (data < 0 || (uint64_t)data - r->offset >= r->size)
				break;
			off = (uint64_t)data - r->offset;
			end = off + CHUNK < r->size ? off + CHUNK : r->size;
			if (hole > 0 && (uint64_t)hole - r->offset < end)
				end = (uint64_t)hole - r->offset;
		}
		p = (struct piece){ r->gpa + off, end - off };
		ret = put(fd, &p, sizeof(p), err);
		if (!ret)
			ret = put(fd, r->hva + off, p.len, err);
	}
	return ret;
}

static json_t *cmd_save(struct vmm *v, json_t *args, struct err *err)
{
	const struct guest_mem *mem = &v->machine->mem;
	struct head head = { .magic = MAGIC, .version = VERSION };
	struct state_buf b = { 0 };
	struct piece end = { 0 };
	int fd, ret;

	if ((v->machine->state != MACHINE_PAUSED && v->machine->state != MACHINE_PRELAUNCH) || v->ended) {
		err_set(err, EPERM, "the machine has to be stopped before it is saved");
		return NULL;
	}
	fd = take_file(v, args, err);
	if (fd < 0)
		return NULL;
	ret = vmm_prepare(v, err);
	if (!ret)
		ret = machine_save(v->machine, &b, err);
	head.state = b.len;
	if (!ret)
		ret = put(fd, &head, sizeof(head), err);
	if (!ret)
		ret = put(fd, b.data, b.len, err);
	for (unsigned i = 0; i < mem->n && !ret; i++)
		ret = put_region(fd, &mem->region[i], err);
	if (!ret)
		ret = put(fd, &end, sizeof(end), err);
	if (!ret && fsync(fd) && errno != EINVAL)
		ret = err_set_errno(err, errno, "the machine's state cannot be written");
	close(fd);
	state_buf_free(&b);
	return qmp_done(ret);
}

/* ---- In ------------------------------------------------------------------------- */

static int get(int fd, void *data, size_t len, struct err *err)
{
	for (uint8_t *p = data; len;) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_errno(err, errno, "the saved state cannot be read");
		if (!n)
			return err_set(err, EINVAL, "the saved state ends too early");
		p += n;
		len -= n;
	}
	return 0;
}

/* Nothing of the reset's is to be left. */
static int forget_memory(struct vmm *v, struct err *err)
{
	const struct guest_mem *mem = &v->machine->mem;

	for (unsigned i = 0; i < mem->n; i++) {
		const struct guest_region *r = &mem->region[i];

		if (r->fd < 0 || fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->offset, (off_t)r->size))
			return err_set_errno(err, errno, "guest memory cannot be emptied");
	}
	return 0;
}

static int get_memory(struct vmm *v, int fd, struct err *err)
{
	struct piece p;
	uint8_t *to;

	for (;;) {
		if (get(fd, &p, sizeof(p), err))
			return -err->code;
		if (!p.len)
			return 0;
		to = p.len <= CHUNK ? mem_ptr(&v->machine->mem, p.gpa, p.len) : NULL;
		if (!to)
			return err_set(err, EINVAL, "the saved state is of a machine with other memory");
		if (get(fd, to, p.len, err))
			return -err->code;
		mem_written(&v->machine->mem, p.gpa, p.len);
	}
}

static json_t *cmd_load(struct vmm *v, json_t *args, struct err *err)
{
	uint8_t *state = NULL;
	struct head head;
	int fd, ret;

	if (v->machine->state != MACHINE_PRELAUNCH) {
		err_set(err, EPERM, "only a machine that has not run takes a saved state");
		return NULL;
	}
	fd = take_file(v, args, err);
	if (fd < 0)
		return NULL;
	ret = get(fd, &head, sizeof(head), err);
	if (!ret && (memcmp(head.magic, MAGIC, sizeof(head.magic)) || head.version != VERSION || head.zero || head.state > STATE_MAX))
		ret = err_set(err, EINVAL, "this is no saved state of version %u", VERSION);
	if (!ret)
		ret = vmm_prepare(v, err);
	state = ret ? NULL : malloc(head.state + 1);
	if (!ret && !state)
		ret = err_set(err, ENOMEM, "no memory for the saved state");
	if (!ret)
		ret = get(fd, state, head.state, err);
	if (!ret)
		ret = forget_memory(v, err);
	if (!ret)
		ret = get_memory(v, fd, err);
	if (!ret)
		ret = machine_load(v->machine, state, head.state, err);
	free(state);
	close(fd);
	if (ret)
		v->machine->state = MACHINE_ENDED; /* half of one, half of the other: it must not run before a reset */
	return qmp_done(ret);
}

const struct qmp_command qmp_state_commands[] = {
	{ "load-state", "protocol", cmd_load },
	{ "save-state", "protocol", cmd_save },
	{ NULL, NULL, NULL },
};
