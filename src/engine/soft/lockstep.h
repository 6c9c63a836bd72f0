/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lock-step: each translated stretch runs, is undone and runs again in the
 * interpreter, and the two must have done the same. What the interpreter did
 * stays. (`--engine soft,lockstep=on`) Several vCPUs take turns.
 *
 * A stretch is what runs until the translator looks at v->request: a block.
 * Stretches that touch a device, a clock or a random number can't be done
 * twice: they run translated and are not compared.
 *
 * Undoing memory: no TLB entry allows a store before the page's content was
 * kept in this stretch, so each first store comes by here. What a page walk
 * marks in the tables stays marked; a stretch that also writes there is not
 * compared.
 */
#pragma once
#include "engine/soft/trans.h"

#define LOCKSTEP_TURN 16 /* stretches, where another vCPU waits */

struct lockstep {
	bool active;   /* a stretch runs: stores are kept */
	bool failed;
	bool flushed;  /* the TLB was, at the guest's wish */
	uint64_t stretches, not_compared, turns, differences;
	struct lockstep_page *page;
	unsigned pages;
	struct tlb_entry **opened;
	unsigned nopened;
	struct lockstep_state *state;
	char difference[400];
};

int lockstep_vcpu_init(struct soft_vcpu *v);
void lockstep_vcpu_free(struct soft_vcpu *v);
/* Run the stretch that begins with `b` at v->rip; as trans_run(). Leaves by longjmp if it ends in a fault. */
uint32_t lockstep_run(struct soft_vcpu *v, struct block *b);

/* A page is to be written (mmu_translate(), a refill of the TLB): its physical address and its host address. */
general_regs_only void lockstep_page(struct soft_vcpu *v, uint64_t gpa, uint8_t *host);
/* May the TLB entry that is being made for the page allow stores? */
general_regs_only bool lockstep_open(struct soft_vcpu *v, struct tlb_entry *t, uint64_t gpa);
/* A walk marked a paging entry. */
void lockstep_walked(struct soft_vcpu *v, uint64_t gpa);
