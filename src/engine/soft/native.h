/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The native tier: long stretches of a guest's 64-bit user code run on the
 * host's CPU as they stand, in a process of their own that has nothing but the
 * guest's user pages in its address space and can make no system call. Any
 * exception, system call or request brings the vCPU back to the soft engine,
 * which does the instruction that caused it. docs/translator.md
 *
 *   native.c       when: measurement and choice; entry and exit
 *   native_map.c   what the process has mapped: a TLB in the host's page tables
 *   native_stub.c  the process
 *
 * A vCPU has a few such processes ("spaces"), each bound to one of the guest's
 * address spaces. A mapping stands only where the guest's page tables have it
 * accessed (and dirty, to be writable), and dies whenever the TLB's entry for
 * it must.
 *
 * Thread safety: a vCPU's spaces are its thread's own, or anybody's while the
 * vCPU is at the safe point.
 */
#pragma once
#include <sched.h>
#include <sys/types.h>

#include "engine/soft/core.h"

#define NATIVE_SPACES 4u
#define NATIVE_STUB_BASE 0x6a5e4b3c2000ull /* two ranges that no system puts anything at: code, then the list */
#define NATIVE_STUB_CODE 4096u
#define NATIVE_LIST_BYTES 65536u
#define NATIVE_STUB_END (NATIVE_STUB_BASE + NATIVE_STUB_CODE + NATIVE_LIST_BYTES)
#define NATIVE_USER_END 0x7fffffffe000ull /* Linux maps nothing of a user's beyond */
#define NATIVE_CS 0x33u /* of user code, as Linux has it; Windows has the same */
#define NATIVE_SS 0x2bu
#define NATIVE_FDS 4u
#define NATIVE_PATCHED 128u /* pages in use at a time */
#define NATIVE_CODE_PAGES 256u

/* ---- The process (native_stub.c) ----------------------------------------- */

/* As PTRACE_GETREGS has them: <sys/user.h> can't be included beside our own names. */
struct native_regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss,
		fs_base, gs_base, ds, es, fs, gs;
};
#define NATIVE_NT_XSTATE 0x202 /* NT_X86_XSTATE of <elf.h> */

/* A system call that the process makes for us between two stretches. */
struct native_call {
	uint64_t nr, arg[6];
};
#define NATIVE_CALLS (NATIVE_LIST_BYTES / sizeof(struct native_call))

struct native_stub {
	pid_t pid;                /* 0: none */
	int cpu;                  /* pinned there, or -1 */
	struct native_call *call; /* shared with it */
	unsigned calls;
	size_t xstate_size;       /* of the host's XSAVE area as ptrace has it */
};

/* Start one whose address space is empty; it may use `fds`. Own thread, as all of these. */
int native_stub_start(struct native_stub *s, const int *fds, unsigned n, struct err *err);
void native_stub_end(struct native_stub *s);
/* Make the calls that were collected. False: the process is of no use any more. */
bool native_stub_flush(struct native_stub *s);
/* The way there and back as guest code takes it: to its first system call. */
bool native_stub_trip(struct native_stub *s);
/* Room for one more call, flushing if there is none; NULL as native_stub_flush(). */
struct native_call *native_stub_call(struct native_stub *s);
/* Wait until it stops: the status as of waitpid(), or -1 if it is gone. */
int native_stub_wait(struct native_stub *s);

/* ---- Mappings (native_map.c) --------------------------------------------- */

#define NATIVE_W 1u
#define NATIVE_X 2u
#define NATIVE_DENIED 4u /* may not be executed here: it holds instructions that would see the host */
struct native_page {
	uint64_t key;    /* linear address | NATIVE_*; 0: empty, NATIVE_GONE: was one */
	uint64_t gpa;
};
#define NATIVE_GONE 8u

struct native_space {
	struct native_stub stub;
	uint64_t root;            /* CR3's table; 0: free */
	uint32_t id;              /* address-space id that the mappings are of; 0: none may be used */
	bool on;                  /* worth it */
	bool failed;              /* the process died or could not be made */
	uint32_t slots;           /* the engine's slot generation that the process knows */
	struct native_page *page; /* open hash */
	unsigned pages_size, pages_used, pages; /* used: with those gone */
	uint64_t last;            /* TSC of the last use */
	uint64_t tls;             /* FS base of the thread that it was switched on for */
	/* Does it pay? */
	int64_t credit, invest;   /* ns */
	uint64_t cpu;             /* ns that the process had at the last look */
	unsigned exits;
	uint64_t banned_until;
	unsigned bans;
};

/* Drop everything. */
void native_map_reset(struct soft_vcpu *v, struct native_space *s);
/* The same at the end: the process goes next. */
void native_map_free(struct soft_vcpu *v, struct native_space *s);
/* Map the page of `linear` and its neighbours, as far as the guest's tables allow; `exec`: it was fetched from. */
void native_map_around(struct soft_vcpu *v, struct native_space *s, uint64_t linear, bool exec);
/* Map what the TLB knows. */
void native_map_known(struct soft_vcpu *v, struct native_space *s);
/* NATIVE_* of a page, or -1. */
int native_map_find(const struct native_space *s, uint64_t linear);
/* The page's copy is of no use any more; false: it has none. */
bool native_code_unpatch(struct soft_engine *e, uint64_t gpa);
void native_map_drop(struct soft_vcpu *v, struct native_space *s, uint64_t linear);

/* ---- The engine's part ---------------------------------------------------- */

struct native_engine {
	_Atomic uint16_t *writable; /* by physical page: spaces that have it mapped writable */
	_Atomic uint32_t slots;     /* generation of the memory slots' files */
	_Atomic bool tsc_moved;     /* it is not the host's, see native_tsc_moved() */
	_Atomic uint32_t scans;     /* changes when a page that was found fit for execution is written */
	/* Copies of pages of code in which some instructions are UD2 instead (native_map.c). */
	int code_fd;
	uint8_t *code;
	pthread_mutex_t code_lock;
	struct {
		uint64_t gpa;       /* of the original | 1; 0: free */
		uint32_t slot;
	} patched[NATIVE_PATCHED];
	uint32_t code_next;
	unsigned pages_max;         /* of a space: the host maps no more */
	_Atomic uint64_t table_bytes; /* of all native_space.page */
	unsigned refused;           /* starts that failed */
	_Atomic int64_t round_ns, stub_ns; /* CPU time of a way there and back: the thread's, the process's */
};

struct native_vcpu {
	struct native_space space[NATIVE_SPACES];
	uint64_t candidate;   /* CR3's table that was last seen in user mode by the timer's tick */
	unsigned streak, ticks, passed;
	uint64_t fault;       /* linear address that the process could not reach, or NATIVE_NO_FAULT */
	bool fault_exec;
	uint32_t scans;
	struct native_stub *vec_at; /* where the vector state is while v->vec_away */
	bool lost;            /* it went with its process */
	bool pinned;
	cpu_set_t home;       /* where the thread may run when it is not pinned */
	int pinned_cpu;
	uint64_t last_tick;
	uint64_t stretches, ticks_inside;
	uint8_t xstate[8192] __attribute__((aligned(64)));
};
#define NATIVE_NO_FAULT UINT64_MAX
