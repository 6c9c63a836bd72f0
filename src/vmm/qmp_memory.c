/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: the guest's memory and vCPUs, taken out. Files are descriptors that came
 * by getfd, named "fd:NAME": a confined process opens none.
 */
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define PAGE 4096u
#define CHUNK (1u << 20)

/* vCPUs stand still between these two. */
static bool freeze(struct vmm *v)
{
	bool running = v->machine->state == MACHINE_RUNNING;

	if (running)
		machine_pause(v->machine);
	return running;
}

static void unfreeze(struct vmm *v, bool running)
{
	if (running)
		machine_resume(v->machine);
}

static int take_file(struct vmm *v, json_t *args, const char *key, struct err *err)
{
	const char *name = qmp_need_text(args, key, err);

	if (!name)
		return -EINVAL;
	if (strncmp(name, "fd:", 3))
		return err_set(err, EINVAL, "Parameter '%s' must be fd:NAME, with a descriptor that getfd brought", key);
	return vmm_fd_take(v, name + 3, err);
}

static int write_at(int fd, const void *data, size_t len, uint64_t at, struct err *err)
{
	for (const uint8_t *p = data; len;) {
		ssize_t n = pwrite64(fd, p, len, (off64_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set_errno(err, n ? errno : EIO, "dump: failed to save memory");
		p += n;
		at += n;
		len -= n;
	}
	return 0;
}

/* ---- A core file (System V ABI, AMD64 supplement; elf(5), core(5)) ------------- */

struct cpu_note {
	Elf64_Nhdr head;
	char name[8]; /* "CORE", padded */
	struct elf_prstatus status;
} __attribute__((packed)); /* the descriptor follows the name at a multiple of 4, not of 8 */

static void fill_note(struct cpu_note *n, const struct cpu_state *s, unsigned index)
{
	/* struct user_regs_struct's order */
	const uint64_t regs[ELF_NGREG] = {
		s->gpr[R_15], s->gpr[R_14], s->gpr[R_13], s->gpr[R_12], s->gpr[R_BP],	  s->gpr[R_BX],	       s->gpr[R_11],
		s->gpr[R_10], s->gpr[R_9],  s->gpr[R_8],  s->gpr[R_AX], s->gpr[R_CX],	  s->gpr[R_DX],	       s->gpr[R_SI],
		s->gpr[R_DI], s->gpr[R_AX], s->rip,	  s->seg[SEG_CS].selector, s->rflags, s->gpr[R_SP],	       s->seg[SEG_SS].selector,
		s->seg[SEG_FS].base, s->seg[SEG_GS].base, s->seg[SEG_DS].selector, s->seg[SEG_ES].selector, s->seg[SEG_FS].selector,
		s->seg[SEG_GS].selector,
	};

	*n = (struct cpu_note){ .head = { .n_namesz = 5, .n_descsz = sizeof(n->status), .n_type = NT_PRSTATUS }, .name = "CORE" };
	n->status.pr_pid = (int)index + 1;
	memcpy((uint8_t *)&n->status + offsetof(struct elf_prstatus, pr_reg), regs, sizeof(regs));
}

static int write_notes(struct vmm *v, int fd, uint64_t at, struct err *err)
{
	struct cpu_state *s = cpu_state_new();
	struct cpu_note note;
	int ret = s ? 0 : err_set(err, ENOMEM, "no memory for a vCPU's state");

	for (unsigned i = 0; i < v->machine->config.cpus && !ret; i++) {
		ret = machine_get_cpu(v->machine, i, s, err);
		if (ret)
			break;
		fill_note(&note, s, i);
		ret = write_at(fd, &note, sizeof(note), at + i * sizeof(note), err);
	}
	free(s);
	return ret;
}

/* What was never touched stays a hole, here as there: to read it would fill it. */
static int write_ram(int fd, const struct guest_region *r, uint64_t at, struct err *err)
{
	int ret = 0;

	for (uint64_t off = 0, end; off < r->size && !ret; off = end) {
		end = off + CHUNK < r->size ? off + CHUNK : r->size;
		if (r->fd >= 0) {
			off_t data = lseek(r->fd, (off_t)(r->offset + off), SEEK_DATA);
			uint64_t next = data < 0 ? r->size : (uint64_t)data - r->offset;

			if (next >= end) {
				end = next < r->size ? next : r->size;
				continue;
			}
		}
		ret = write_at(fd, r->hva + off, end - off, at + off, err);
	}
	if (!ret && ftruncate(fd, (off_t)(at + r->size)))
		ret = err_set_errno(err, errno, "dump: failed to save memory");
	return ret;
}

static int write_core(struct vmm *v, int fd, struct err *err)
{
	const struct guest_mem *mem = &v->machine->mem;
	Elf64_Phdr ph[1 + GUEST_MEM_REGIONS] = { 0 };
	uint64_t at = sizeof(Elf64_Ehdr) + sizeof(ph), notes = (uint64_t)v->machine->config.cpus * sizeof(struct cpu_note);
	Elf64_Ehdr eh = { .e_type = ET_CORE, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_phoff = sizeof(eh),
			  .e_ehsize = sizeof(eh), .e_phentsize = sizeof(ph[0]), .e_phnum = 1 };
	int ret;

	memcpy(eh.e_ident, (const uint8_t[]){ ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, 7);
	ph[0] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = at, .p_filesz = notes, .p_memsz = notes };
	ret = write_notes(v, fd, at, err);
	at = (at + notes + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	for (unsigned i = 0; i < mem->n && !ret; i++) {
		const struct guest_region *r = &mem->region[i];

		ph[eh.e_phnum++] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = at, .p_paddr = r->gpa, .p_filesz = r->size,
						 .p_memsz = r->size };
		ret = write_ram(fd, r, at, err);
		at += r->size;
	}
	if (!ret)
		ret = write_at(fd, ph, sizeof(ph), sizeof(eh), err);
	return ret ? ret : write_at(fd, &eh, sizeof(eh), 0, err); /* last: a core that is not whole is none */
}

static json_t *cmd_dump(struct vmm *v, json_t *args, struct err *err)
{
	const char *format = json_string_value(json_object_get(args, "format"));
	bool running;
	int fd, ret;

	if (!json_is_false(json_object_get(args, "paging"))) {
		err_set(err, ENOTSUP, "Parameter 'paging' must be false: addresses in the core file are physical");
		return NULL;
	}
	if (format && strcmp(format, "elf")) {
		err_set(err, ENOTSUP, "Parameter 'format' must be elf");
		return NULL;
	}
	fd = take_file(v, args, "protocol", err);
	if (fd < 0)
		return NULL;
	running = freeze(v);
	ret = vmm_prepare(v, err);
	if (!ret)
		ret = write_core(v, fd, err);
	unfreeze(v, running);
	if (close(fd) && !ret)
		ret = err_set_errno(err, errno, "dump: failed to save memory");
	return qmp_done(ret);
}

static json_t *cmd_dump_formats(struct vmm *v, json_t *args, struct err *err)
{
	return json_pack("{s:[s]}", "formats", "elf");
}

/* ---- A piece of memory ------------------------------------------------------------ */

static int copy_piece(struct vmm *v, int fd, uint64_t from, uint64_t len, bool virtual, unsigned cpu, struct err *err)
{
	uint8_t data[PAGE];

	for (uint64_t done = 0, n; done < len; done += n) {
		uint64_t gpa = from + done;

		n = PAGE - (gpa & (PAGE - 1));
		if (n > len - done)
			n = len - done;
		if ((virtual && !vcpu_translate(v->machine->vcpus[cpu].vcpu, gpa, &gpa)) || mem_read(&v->machine->mem, gpa, data, n))
			return err_set(err, EFAULT, "Invalid addr 0x%016llx/size %llu specified", (unsigned long long)from,
				       (unsigned long long)len);
		if (write_at(fd, data, n, done, err))
			return -err->code;
	}
	return 0;
}

static json_t *save_piece(struct vmm *v, json_t *args, bool virtual, struct err *err)
{
	json_t *val = json_object_get(args, "val"), *size = json_object_get(args, "size"), *index = json_object_get(args, "cpu-index");
	bool running;
	int fd, ret;

	if (!json_is_integer(val) || !json_is_integer(size) || json_integer_value(size) < 0) {
		err_set(err, EINVAL, "Parameters 'val' and 'size' must be numbers");
		return NULL;
	}
	if (index && (!json_is_integer(index) || json_integer_value(index) < 0 ||
		      json_integer_value(index) >= v->machine->config.cpus)) {
		err_set(err, EINVAL, "Parameter 'cpu-index' expects a CPU number");
		return NULL;
	}
	fd = take_file(v, args, "filename", err);
	if (fd < 0)
		return NULL;
	running = freeze(v);
	ret = vmm_prepare(v, err);
	if (!ret)
		ret = copy_piece(v, fd, (uint64_t)json_integer_value(val), (uint64_t)json_integer_value(size), virtual,
				 (unsigned)json_integer_value(index), err);
	unfreeze(v, running);
	close(fd);
	return qmp_done(ret);
}

static json_t *cmd_memsave(struct vmm *v, json_t *args, struct err *err)
{
	return save_piece(v, args, true, err);
}

static json_t *cmd_pmemsave(struct vmm *v, json_t *args, struct err *err)
{
	return save_piece(v, args, false, err);
}

/* ---- NMI ---------------------------------------------------------------------------- */

static json_t *cmd_nmi(struct vmm *v, json_t *args, struct err *err)
{
	for (unsigned i = 0; i < v->machine->config.cpus; i++)
		vcpu_nmi(v->machine->vcpus[i].vcpu);
	return json_object();
}

const struct qmp_command qmp_memory_commands[] = {
	{ "dump-guest-memory", "paging protocol format", cmd_dump },
	{ "inject-nmi", "", cmd_nmi },
	{ "memsave", "val size filename cpu-index", cmd_memsave },
	{ "pmemsave", "val size filename", cmd_pmemsave },
	{ "query-dump-guest-memory-capability", "", cmd_dump_formats },
	{ NULL, NULL, NULL },
};
