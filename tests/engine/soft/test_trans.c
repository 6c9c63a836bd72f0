/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Translated code: what no other test looks at from near. Everything here runs translated from its first instruction on. */
#include "soft_rig.h"

static int setup(void **state)
{
	return rig_setup(state, 1);
}

/* It is indeed translated code that runs. */
static void is_translated(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_plain, "mov $7, %ebx; lea 1(%rbx), %ecx; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_plain);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_CX], 8);
	assert_true(block_find(r->e, RIG_CODE, BLOCK_ONE_PAGE, MODE_64)->trans > TRANS_NEVER);
}

/* Flags outlive loads, stores and pushes between the instruction that makes them and the one that reads them. */
static void flags_across_memory(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_flags,
		 "mov $0x300000, %edi; xor %ebx, %ebx; mov $0x7fffffff, %eax;"
		 "add $1, %eax; mov %rax, (%rdi); mov (%rdi), %rcx; push %rcx; pop %rdx; seto %bl; sets %bh;" /* OF, SF */
		 "mov $0, %esi; sub $1, %esi; mov %rsi, 8(%rdi); adc $0, %ebp;"                               /* CF */
		 "stc; incq 16(%rdi); adc $0, %ebp;"                   /* INC keeps CF across its own store */
		 "cmp %eax, %eax; lock xaddq %rbp, 24(%rdi); sete %r9b; movzbl %r9b, %r9d;"
		 "cmp %eax, %eax; mov (%rdi), %r10; cmove %rdi, %r11; jne 1f; or $0x10000, %ebx; 1:"
		 "mov $3, %cl; stc; shl %cl, %r12; mov $0, %cl; stc; mov (%rdi), %rax; shl %cl, %r12; setc %r13b;"
		 "pushf; pop %r14; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_flags);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0x10101);
	assert_int_equal(*rig_q(r, 0x300018), 2); /* RBP */
	assert_int_equal(r->v->gpr[R_9], 0); /* 0 + 2: not zero */
	assert_int_equal(r->v->gpr[R_11], 0x300000);
	assert_int_equal(r->v->gpr[R_13], 1);
	assert_int_equal(r->v->gpr[R_14] & FL_CF, FL_CF);
}

/* The registers that have no host register of their own, in every operand place. */
static void spilled_registers(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_spill,
		 "mov $0x300000, %r9d; mov $2, %r10d; mov $0x1122334455667788, %r11;"
		 "mov %r11, (%r9,%r10,8); mov 0x10(%r9), %rax; mov %r11b, 1(%r9,%r10,8); mov 0x10(%r9), %rbx;"
		 "add %r10, %r11; xchg %r11, 0x20(%r9); mov 0x20(%r9), %rcx; push %r11; pop %r10; push %rsp; pop %rdx;"
		 "mov $-1, %r11; mov $5, %r11w; movzbl %r11b, %esi; mov $-1, %r10; mov $6, %r10b; mov $-1, %r9; mov $7, %r9d;"
		 "lea (%r9,%r10,2), %rdi; xadd %r9, %r9; bswap %r10d; xchg %rax, %r10; imul $3, %r9, %r11; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_spill);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_10], 0x1122334455667788);
	assert_int_equal(r->v->gpr[R_AX] & 0xffffff00, 0x06ffff00);
	assert_int_equal(r->v->gpr[R_BX], 0x1122334455668888);
	assert_int_equal(r->v->gpr[R_CX], 0x112233445566778a);
	assert_int_equal(r->v->gpr[R_DX], RIG_STACK);
	assert_int_equal(r->v->gpr[R_SI], 5);
	assert_int_equal(r->v->gpr[R_DI], 7 + 2 * 0xffffffffffffff06);
	assert_int_equal(r->v->gpr[R_9], 14);
	assert_int_equal(r->v->gpr[R_11], 42);
}

/* AH..BH beside RSP's place in the encoding, and SPL. */
static void byte_registers(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_bytes,
		 "mov $0x1234, %eax; mov $0x5678, %ecx; mov %ah, %ch; mov $0x9a, %dl; mov %dl, %dh; test $0x10, %ah; setne %bl;"
		 "mov $0x11, %bh; mov %rsp, %r12; mov $0x40, %spl; mov %rsp, %r13; mov %r12, %rsp; movzbl %ah, %esi;"
		 "mov %ah, 0x300000; mov 0x300000, %dh; not %ah; mov %eax, %edi; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_bytes);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_CX], 0x1278);
	assert_int_equal(r->v->gpr[R_DX], 0x129a);
	assert_int_equal(r->v->gpr[R_BX], 0x1101);
	assert_int_equal(r->v->gpr[R_13], RIG_STACK + 0x40);
	assert_int_equal(r->v->gpr[R_SI], 0x12);
	assert_int_equal(r->v->gpr[R_DI], 0xed34);
}

/* A fault in mid-block finds everything before it done and nothing of it or after it. */
static void fault_in_mid_block(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_fault, "mov $1, %eax; mov $2, %r10d; add $-3, %eax; push %rax; 9: addq $5, 0x60000000; mov $7, %eax; out %al, $0xf4");
	RIG_BLOB(blob_fault_pf, "mov %rsp, %rbx; mov %eax, %ecx; mov %cr2, %rdx; mov 8(%rsp), %rsi; mov 24(%rsp), %rdi; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_fault);
	rig_load(r, RIG_CODE + 0x1000, blob_fault_pf);
	rig_gate(r, 14, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_CX], 0xfffffffe);
	assert_int_equal(r->v->gpr[R_10], 2);
	assert_int_equal(r->v->gpr[R_DX], 0x60000000);
	assert_int_equal(r->v->gpr[R_SI], RIG_CODE + 5 + 6 + 3 + 1);
	assert_int_equal(r->v->gpr[R_DI] & FLAGS_ARITH, FL_SF);
	assert_int_equal(*rig_q(r, RIG_STACK - 8), 0xfffffffe);
}

/* An access at the very end of the linear addresses misses the TLB's empty last entry. */
static void last_page(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_last, "mov $-16, %rdi; mov (%rdi), %rax; out %al, $0xf4");
	RIG_BLOB(blob_last_pf, "mov %cr2, %rdx; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_last);
	rig_load(r, RIG_CODE + 0x1000, blob_last_pf);
	rig_gate(r, 14, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_DX], -16);
}

/* Page-crossing accesses, by one byte each way. */
static void crossing(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_cross, "mov $0x300000, %edi; mov %rdi, 0x2000(%rdi); mov %rdi, 0xff8(%rdi); mov $0x0102030405060708, %rax; "
			     "mov %rax, 0xff9(%rdi); mov 0xff9(%rdi), %rbx; addl $1, 0xffd(%rdi); movzwl 0xfff(%rdi), %ecx;"
			     "lea 0x1004(%rdi), %rsp; push %rax; pop %rdx; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_cross);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0x0102030405060708);
	assert_int_equal(r->v->gpr[R_CX], 0x0102);
	assert_int_equal(r->v->gpr[R_DX], 0x0102030405060708);
}

/* As much code as there is: the memory for it stays bounded, and what runs stays right. */
static void cache_full(void **state)
{
	struct rig *r = *state;
	static const uint8_t piece[16] = { 0x48, 0xff, 0xc3, 0x48, 0x85, 0xdb, 0x75, 0x08 }; /* inc rbx; test rbx, rbx; jnz +8 */
	uint64_t from = 0x400000, to = 0x1c00000, n = (to - from) / 16;

	rig_start(r, 0);
	for (uint64_t at = from; at < to; at += 16)
		memcpy(r->ram + at, piece, 16);
	memcpy(r->ram + to, "\xe6\xf4", 2);
	engine_written(r->engine, 0, RIG_RAM);
	for (unsigned round = 1; round <= 2; round++) {
		r->v->rip = r->v->next_rip = from;
		rig_run_one(r);
		assert_int_equal(r->v->gpr[R_BX], round * n);
	}
	assert_true(r->e->trans->used <= r->e->trans->room);
}

/* Blocks become units when those that follow them are known, not at their first execution. */
static void with_units(struct rig *r)
{
	r->e->trans->threshold = r->v->xl.threshold = 2;
	rig_start(r, 0);
}

static struct block *block_at(struct rig *r, uint64_t gpa)
{
	struct block *b = block_find(r->e, gpa, BLOCK_ONE_PAGE, MODE_64);

	assert_non_null(b);
	return b;
}

/* Blocks that follow each other are translated as one; what leaves it on the side is counted exactly. */
static void several_blocks(void **state)
{
	struct rig *r = *state;
	uint64_t before;

	with_units(r);
	RIG_BLOB(blob_unit, "mov $100, %ecx; 1: add $1, %eax; test $3, %al; jz 2f; add $10, %edx; 2: call 3f; dec %ecx; jnz 1b;"
			    "out %al, $0xf4; 3: add $1, %esi; ret");
	rig_load(r, RIG_CODE, blob_unit);
	r->v->gpr[R_AX] = r->v->gpr[R_DX] = r->v->gpr[R_SI] = 0;
	before = r->v->insns;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], 100);
	assert_int_equal(r->v->gpr[R_DX], 750);
	assert_int_equal(r->v->gpr[R_SI], 100);
	assert_int_equal(r->v->insns - before, 1 + 100 * 8 + 75 + 1);
	/* What follows the JZ belongs to the unit of another block. */
	assert_true(block_at(r, RIG_CODE + 5 + 3 + 2 + 2)->units != 0);
}

/* A unit writes into itself, further on, while it runs: the new code runs. And its first block outlives it. */
static void unit_writes_itself(void **state)
{
	struct rig *r = *state;

	with_units(r);
	RIG_BLOB(blob_self, "mov $40, %ecx; lea 2f+1(%rip), %rdi; 1: mov %cl, (%rdi); test %ecx, %ecx; js 3f; add $1, %esi;"
			    "2: mov $0, %al; movzbl %al, %eax; add %eax, %edx; dec %ecx; jnz 1b; 3: out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_self);
	r->v->gpr[R_DX] = r->v->gpr[R_SI] = 0;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_DX], 40 * 41 / 2);
	assert_int_equal(r->v->gpr[R_SI], 40);
}

/* Operands near each other are looked up together; where they lie in two pages, by themselves. */
static void neighbours(void **state)
{
	struct rig *r = *state;

	with_units(r);
	RIG_BLOB(blob_near,
		 "mov $60, %ecx; mov $0x300ff0, %ebx; 1: mov %rcx, (%rbx); mov %rcx, 8(%rbx); add $8, %rbx; addq $1, 8(%rbx);"
		 "add 8(%rbx), %rdx; push %rbx; pop %rsi; mov -8(%rbx), %rdi; mov $0x300ff0, %ebx; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_near);
	r->v->gpr[R_DX] = 0;
	rig_run_one(r);
	assert_int_equal(*rig_q(r, 0x300ff0), 1);
	assert_int_equal(*rig_q(r, 0x300ff8), 1);
	assert_int_equal(*rig_q(r, 0x301000), 60);
	assert_int_equal(r->v->gpr[R_DX], 60 * 61 / 2);
	assert_int_equal(r->v->gpr[R_SI], 0x300ff8);
	assert_int_equal(r->v->gpr[R_DI], 1);
	assert_int_equal(block_at(r, RIG_CODE + 10)->trans_apart, TRANS_APART);
}

/* Quotients that fit, one that does not, and -1, which might not. */
static void division(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_div,
		 "mov $7, %r9d; mov $100, %eax; xor %edx, %edx; div %r9d; mov %eax, %ebx; mov %edx, %esi;"
		 "mov $-1000, %rax; cqo; movq $30, 0x300000; idivq 0x300000; mov %rax, %r8; mov %rdx, %r12;"
		 "mov $-5, %eax; cltd; mov $-1, %ecx; idiv %ecx; mov %eax, %r13d;"
		 "mov $5, %edx; xor %eax, %eax; mov $5, %ecx; stc; div %ecx; out %al, $0xf4");
	RIG_BLOB(blob_div_de, "mov (%rsp), %rdi; mov 16(%rsp), %r14; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_div);
	rig_load(r, RIG_CODE + 0x1000, blob_div_de);
	rig_gate(r, 0, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 14);
	assert_int_equal(r->v->gpr[R_SI], 2);
	assert_int_equal(r->v->gpr[R_8], -33);
	assert_int_equal(r->v->gpr[R_12], -10);
	assert_int_equal(r->v->gpr[R_13], 5);
	assert_int_equal(r->v->gpr[R_DI], RIG_CODE + (blob_div_end - blob_div) - 4);
	assert_int_equal(r->v->gpr[R_14] & FL_CF, FL_CF);
	assert_int_equal(r->v->gpr[R_DX], 5);
}

/* The vector registers live in the host's: they outlive calls of the interpreter, faults and stores that miss. */
static void vectors_stay(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	r->v->cr4 |= 1u << 9; /* OSFXSR */
	RIG_BLOB(blob_vec,
		 "mov $0x1122334455667788, %rax; movq %rax, %xmm9; mov $0x300ff8, %edi; movups %xmm9, (%rdi); paddq %xmm9, %xmm9;"
		 "xor %eax, %eax; cpuid; movq %xmm9, %r12; pcmpeqb %xmm3, %xmm3; mov $0x400ffc, %esi; mov (%rsi), %r8;"
		 "pmovmskb %xmm3, %r10d; pxor %xmm9, %xmm9; addl $1, 0x60000000; out %al, $0xf4");
	RIG_BLOB(blob_vec_pf, "movq %xmm9, %r13; movq %xmm3, %r14; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_vec);
	rig_load(r, RIG_CODE + 0x1000, blob_vec_pf);
	rig_gate(r, 14, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(*rig_q(r, 0x300ff8), 0x1122334455667788);
	assert_int_equal(r->v->gpr[R_12], 0x22446688aaccef10);
	assert_int_equal(r->v->gpr[R_10], 0xffff);
	assert_int_equal(r->v->gpr[R_13], 0);
	assert_int_equal(r->v->gpr[R_14], -1);
}

/* BMI's three operands, of which each may be a register that lives in memory. */
static void bmi(void **state)
{
	struct rig *r = *state;

	if (!__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
		skip();
	rig_start(r, 0);
	RIG_BLOB(blob_bmi,
		 "mov $0xf0, %r9d; mov $0xff, %r10d; andn %r10, %r9, %r11; mov %r11, %rax; blsr %r10, %r9; mov %r9, %rbx;"
		 "mov $0x100000000, %rdx; mov $0x300000000, %r10; mulx %r10, %r9, %r11; mov %r9, %rcx; mov %r11, %rsi;"
		 "mulx %r10, %r9, %r9; mov %r9, %rdi; rorx $4, %r10, %r11; mov %r11, %r12; mov $8, %r9d; shlx %r9, %r10, %r10;"
		 "mov %r10, %r13; movq $0x70, 0x300000; blsi 0x300000, %r14; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_bmi);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], 0x0f);
	assert_int_equal(r->v->gpr[R_BX], 0xfe);
	assert_int_equal(r->v->gpr[R_CX], 0);
	assert_int_equal(r->v->gpr[R_SI], 3);
	assert_int_equal(r->v->gpr[R_DI], 3);
	assert_int_equal(r->v->gpr[R_12], 0x30000000);
	assert_int_equal(r->v->gpr[R_13], 0x30000000000);
	assert_int_equal(r->v->gpr[R_14], 0x10);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(is_translated, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(flags_across_memory, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(spilled_registers, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(byte_registers, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(fault_in_mid_block, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(last_page, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(crossing, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(several_blocks, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(unit_writes_itself, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(neighbours, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(division, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(vectors_stay, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(bmi, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(cache_full, setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
