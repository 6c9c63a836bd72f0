/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The few commands of the human monitor that tools send through human-monitor-command; the texts look like QEMU's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

static void segment(FILE *f, const char *name, const struct cpu_segment *s)
{
	fprintf(f, "%-3s=%04x %016llx %08x %08x\n", name, s->selector, (unsigned long long)s->base, s->limit,
		(s->attr & 0xf0ff) << 8);
}

static void print_cpu(FILE *f, unsigned index, const struct cpu_state *s)
{
	static const char *const names[16] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
					       "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15" };
	static const uint8_t order[16] = { R_AX, R_BX, R_CX, R_DX, R_SI, R_DI, R_BP, R_SP, 8, 9, 10, 11, 12, 13, 14, 15 };
	static const char *const segs[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS" };

	fprintf(f, "\nCPU#%u\n", index);
	for (int i = 0; i < 16; i++)
		fprintf(f, "%s=%016llx%c", names[order[i]], (unsigned long long)s->gpr[order[i]], i % 4 == 3 ? '\n' : ' ');
	fprintf(f, "RIP=%016llx RFL=%08llx CPL=%u II=%u HLT=%u\n", (unsigned long long)s->rip, (unsigned long long)s->rflags,
		(s->seg[SEG_SS].attr >> SEG_ATTR_DPL_SHIFT) & 3, s->interrupt_shadow, s->mp_state == CPU_MP_HALTED);
	for (int i = 0; i < SEG_COUNT; i++)
		segment(f, segs[i], &s->seg[i]);
	segment(f, "LDT", &s->ldtr);
	segment(f, "TR", &s->tr);
	fprintf(f, "GDT=     %016llx %08x\nIDT=     %016llx %08x\n", (unsigned long long)s->gdtr.base, s->gdtr.limit,
		(unsigned long long)s->idtr.base, s->idtr.limit);
	fprintf(f, "CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx\n", (unsigned long long)s->cr0, (unsigned long long)s->cr2,
		(unsigned long long)s->cr3, (unsigned long long)s->cr4);
	for (int i = 0; i < 4; i++)
		fprintf(f, "DR%d=%016llx ", i, (unsigned long long)s->dr[i]);
	fprintf(f, "\nDR6=%016llx DR7=%016llx\nEFER=%016llx\n", (unsigned long long)s->dr[6], (unsigned long long)s->dr[7],
		(unsigned long long)s->efer);
}

/* Pauses the guest for a moment if it runs; no event tells of it. */
static int info_registers(struct vmm *v, FILE *f, struct err *err)
{
	bool running = v->machine->state == MACHINE_RUNNING;
	struct cpu_state *s = cpu_state_new();
	int ret = s ? vmm_prepare(v, err) : err_set(err, ENOMEM, "no memory to read the registers");

	machine_pause(v->machine);
	for (unsigned i = 0; i < v->machine->config.cpus && !ret; i++) {
		ret = machine_get_cpu(v->machine, i, s, err);
		if (!ret)
			print_cpu(f, i, s);
	}
	if (running)
		machine_resume(v->machine);
	free(s);
	return ret;
}

static int info_status(struct vmm *v, FILE *f, struct err *err)
{
	fprintf(f, "VM status: %s\n", vmm_status(v));
	return 0;
}

static const struct {
	const char *line;
	int (*run)(struct vmm *v, FILE *f, struct err *err);
} commands[] = {
	{ "info registers", info_registers },
	{ "info registers -a", info_registers },
	{ "info status", info_status },
};

char *hmp_run(struct vmm *v, const char *line, struct err *err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int ret = 0;

	if (!f) {
		err_set(err, ENOMEM, "no memory for a reply");
		return NULL;
	}
	for (unsigned i = 0; i <= sizeof(commands) / sizeof(commands[0]); i++) {
		if (i == sizeof(commands) / sizeof(commands[0])) {
			fprintf(f, "unknown command: '%.200s'\r\n", line);
		} else if (!strcmp(commands[i].line, line)) {
			ret = commands[i].run(v, f, err);
			break;
		}
	}
	if (fclose(f) || ret) {
		err_set(err, ENOMEM, "no memory for a reply");
		free(text);
		return NULL;
	}
	return text;
}
