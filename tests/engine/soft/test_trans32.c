/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit code translated: in flat segments, and nowhere else. */
#include "soft_rig.h"

#define SEL_BASE 0x18   /* data with a base */
#define SEL_CODE32 0x20 /* code, flat */
#define SEL_STACK16 0x28

static int setup(void **state)
{
	return rig_setup(state, 1);
}

static void gdt_more(struct rig *r)
{
	static const uint64_t more[] = { 0x00cf93001000ffff, 0x00cf9b000000ffff, 0x008f93000000ffff };

	memcpy(r->ram + RIG_GDT + SEL_BASE, more, sizeof(more));
	r->v->gdtr.limit = SEL_STACK16 + 7;
}

/* Protected mode without paging, flat. */
static void start32(struct rig *r)
{
	rig_start(r, 0);
	rig_mode(r->v, RIG_NONE, 0, 0, 0);
	gdt_more(r);
}

static bool is_translated(struct rig *r, uint64_t gpa)
{
	struct block *b = block_find(r->e, gpa, BLOCK_ONE_PAGE, MODE_32);

	return b && b->trans > TRANS_NEVER;
}

/* What has a form of its own in 32-bit code: the stack, INC and DEC, absolute addresses, branches, high bytes. */
static void own_forms(void **state)
{
	struct rig *r = *state;

	start32(r);
	RIG_BLOB(blob_own, ".code32; mov $0x300000, %edi; mov $100, %ecx; xor %edx, %edx; 1: stc; inc %edx; dec %esi; adc $0, %ebx; push %ecx; push $-2;"
			   "pop %eax; add %eax, (%edi); call 5f; pop %ecx; loop 1b; mov 0x300000, %eax; mov %al, 0x300010; mov %eax, 0x300014;"
			   "mov $3f - blob_own + 0x10000, %eax; jmp *%eax; ud2; 3: movl $4f - blob_own + 0x10000, 0x300020; call *0x300020; mov %esp, %ebp; out %al, $0xf4;"
			   "5: push %ebp; mov %esp, %ebp; sub $16, %esp; mov %ecx, -4(%ebp); addl $3, -4(%ebp); mov 8(%ebp), %ch; mov -4(%ebp), %eax;"
			   "add %eax, 4(%edi); leave; ret; 4: movb $9, 8(%edi); ret $0; .code64");
	rig_load(r, RIG_CODE, blob_own);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_DX], 100);
	assert_int_equal(r->v->gpr[R_SI], (uint32_t)-100);
	assert_int_equal(r->v->gpr[R_BX], 100);
	assert_int_equal(*rig_d(r, 0x300000), (uint32_t)-200);
	assert_int_equal(*rig_d(r, 0x300004), 5050 + 300);
	assert_int_equal(*rig_d(r, 0x300010), (uint8_t)-200);
	assert_int_equal(*rig_d(r, 0x300014), (uint32_t)-200);
	assert_int_equal(*rig_d(r, 0x300008), 9);
	assert_int_equal(r->v->gpr[R_BP], RIG_STACK);
	assert_true(is_translated(r, RIG_CODE));
	assert_int_equal(RIG_CODE, 0x10000);
}

/* A segment register is loaded in the middle of code that takes all for flat. */
static void segment_with_base(void **state)
{
	struct rig *r = *state;

	start32(r);
	RIG_BLOB(blob_ds, ".code32; mov $0x18, %eax; mov $20, %ecx; 1: mov 0x300000, %ebx; mov %eax, %ds; mov 0x300000, %edx; add $4, %esi;"
			  "mov %edx, %es:0x300008; mov %ss, %edi; mov %edi, %ds; loop 1b; mov %eax, %fs; mov %fs:0x300000, %ebp; out %al, $0xf4; .code64");
	rig_load(r, RIG_CODE, blob_ds);
	*rig_d(r, 0x300000) = 1;
	*rig_d(r, 0x301000) = 2;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 1);
	assert_int_equal(r->v->gpr[R_DX], 2);
	assert_int_equal(r->v->gpr[R_BP], 2);
	assert_int_equal(r->v->gpr[R_SI], 80);
	assert_int_equal(*rig_d(r, 0x300008), 2);
	assert_true(is_translated(r, RIG_CODE));
}

/* GS with a base and no limit: the last bytes of it are reached, and what goes on beyond them faults. */
static void segment_end(void **state)
{
	struct rig *r = *state;
	uint64_t gate = 0xc000 | 8u << 16 | 0x8e00ull << 32;

	start32(r);
	RIG_BLOB(blob_gs, ".code32; mov $0x18, %eax; mov %eax, %gs; mov $-1, %edi; mov $20, %ecx; 1: movb $7, %gs:(%edi); mov %gs:(%edi), %dl;"
			  "mov %gs:-4, %esi; mov %gs:0, %ebp; inc %ebx; loop 1b; mov %gs:(%edi), %eax; ud2; .code64");
	RIG_BLOB(blob_gp, ".code32; mov $99, %ecx; out %al, $0xf4; .code64");
	rig_load(r, RIG_CODE, blob_gs);
	rig_load(r, 0xc000, blob_gp);
	*rig_q(r, RIG_GDT + SEL_BASE) = 0x00cf93300101ffff; /* base 0x300101 */
	*rig_q(r, RIG_IDT + 13 * 8) = gate;
	*rig_d(r, 0x3000fd) = 0x11223344;
	*rig_d(r, 0x300101) = 0x55667788;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_CX], 99);
	assert_int_equal(r->v->gpr[R_BX], 20);
	assert_int_equal(r->v->gpr[R_DX], 7);
	assert_int_equal(r->v->gpr[R_SI], 0x07223344);
	assert_int_equal(r->v->gpr[R_BP], 0x55667788);
	assert_int_equal(r->v->gpr[R_AX], 0x18);
}

/* With a 16-bit stack pointer nothing is translated: only SP moves. */
static void small_stack(void **state)
{
	struct rig *r = *state;

	start32(r);
	RIG_BLOB(blob_ss, ".code32; mov $0x28, %eax; mov %eax, %ss; mov $0x90000, %esp; push %eax; pop %ecx; mov $0x90000, %esp; push %eax;"
			  "jmp 1f; 1: mov %esp, %ebx; out %al, $0xf4; .code64");
	rig_load(r, RIG_CODE, blob_ss);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0x9fffc);
	assert_int_equal(*rig_d(r, 0xfffc), 0x28);
}

/* The same bytes in both modes, found by the same address: INC RAX, or DEC EAX and INC EAX. */
static void both_modes(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	gdt_more(r);
	RIG_BLOB(blob_modes, "mov $0x11000, %esi; xor %eax, %eax; mov $5, %ecx; mov $0xaa00000000, %rbx; 1: call *%rsi; loop 1b; mov %eax, %edi;"
			     "pushq $0x20; pushq $0x10800; lretq");
	RIG_BLOB(blob_compat, ".code32; mov $7, %ecx; 1: call *%esi; loop 1b; mov %eax, %edx; push %ebx; pop %ebp; out %al, $0xf4; .code64");
	RIG_BLOB(blob_both, "inc %rax; ret");
	rig_load(r, RIG_CODE, blob_modes);
	rig_load(r, 0x10800, blob_compat);
	rig_load(r, 0x11000, blob_both);
	assert_int_equal(RIG_CODE, 0x10000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_DI], 5);
	assert_int_equal(r->v->gpr[R_DX], 5);
	assert_int_equal(r->v->gpr[R_SP], RIG_STACK);
	assert_int_equal(r->v->gpr[R_BP], 0);
	assert_true(is_translated(r, 0x11000));
	assert_true(block_find(r->e, 0x11000, BLOCK_ONE_PAGE, MODE_64)->trans > TRANS_NEVER);
}

/* A branch that leaves the top of the address space comes in at its bottom. */
static void wraps(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	gdt_more(r);
	RIG_BLOB(blob_wrap, "pushq $0x20; pushq $0x10800; lretq");
	RIG_BLOB(blob_start, ".code32; mov $20, %ecx; 1: mov $0xfffffff0, %eax; jmp *%eax; .code64");
	RIG_BLOB(blob_top, ".code32; inc %ebx; .byte 0xe9; .long 0x500a; .code64");
	RIG_BLOB(blob_low, ".code32; add $2, %ebx; dec %ecx; jz 1f; mov $0x10805, %eax; jmp *%eax; 1: out %al, $0xf4; .code64");
	rig_load(r, RIG_CODE, blob_wrap);
	rig_load(r, 0x10800, blob_start);
	rig_load(r, 0x1ffff0, blob_top);
	rig_load(r, 0x5000, blob_low);
	*rig_q(r, 0x2018) = 0x8003; /* the last 2 MiB below 4 GiB are the first of RAM */
	*rig_q(r, 0x8000 + 511 * 8) = 0x83;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 60);
	assert_true(is_translated(r, 0x5000));
	assert_true(is_translated(r, 0x1ffff0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(own_forms, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(segment_with_base, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(segment_end, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(small_stack, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(both_modes, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(wraps, setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
