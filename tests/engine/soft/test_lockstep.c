/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lock-step itself: it finds what is wrong, nothing is done twice, and what it can't do it refuses. */
#include <fcntl.h>
#include <unistd.h>

#include "engine/soft/lockstep.h"
#include "soft_rig.h"
#include "util/log.h"

static int setup(void **state)
{
	return rig_setup(state, 1);
}

static int setup_two(void **state)
{
	return rig_setup(state, 2);
}

RIG_BLOB(blob_count, "mov $0x300000, %edi; mov $1000, %ecx; 1: incl (%rdi); lock xaddl %eax, 4(%rdi); push %rcx; pop %rdx;"
		     "add $7, %ebx; loop 1b; out %al, $0xf4");

/* Stores count once, though each is made twice. */
static void nothing_twice(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	rig_load(r, RIG_CODE, blob_count);
	rig_run_one(r);
	assert_int_equal(*rig_d(r, 0x300000), 1000);
	assert_int_equal(r->v->gpr[R_BX], 7000);
	assert_true(r->v->lockstep->stretches >= 1000);
	assert_true(r->v->lockstep->not_compared <= 2); /* OUT */
}

static void device_once(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_device, "mov $0x40000000, %edi; mov $5, %eax; mov %eax, 0x300000; mov %eax, (%rdi); mov (%rdi), %ecx; add %ecx, 0x300000;"
			      "out %al, $0xf4");
	*rig_q(r, 0x2008) = 0x40000083; /* 1 GiB: device memory */
	rig_load(r, RIG_CODE, blob_device);
	r->mmio_answer = 37;
	rig_run_one(r);
	assert_int_equal(r->mmio_writes, 1);
	assert_int_equal(r->mmio_reads, 1);
	assert_int_equal(r->v->gpr[R_CX], 37);
	assert_int_equal(*rig_d(r, 0x300000), 42);
}

/* A page fault, its handler and the way back. */
static void faults(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_fault, "mov $0x60000000, %edi; mov $3, %ebx; add $1, %ebx; movl $1, (%rdi); add $2, %ebx; out %al, $0xf4");
	RIG_BLOB(blob_handler, "incl 0x300000; addq $6, 8(%rsp); mov %cr2, %rsi; add $8, %rsp; iretq");
	rig_load(r, RIG_CODE, blob_fault);
	rig_load(r, RIG_CODE + 0x1000, blob_handler);
	rig_gate(r, 14, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 6);
	assert_int_equal(r->v->gpr[R_SI], 0x60000000);
	assert_int_equal(*rig_d(r, 0x300000), 1);
}

/* Code that writes itself, in its own block and in another. */
static void self_modification(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_smc, "mov $10, %ecx; 1: incb 2f+1(%rip); 2: mov $0, %al; movzbl %al, %edx; add %edx, %ebx; loop 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_smc);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 55);
}

/* One byte of the host code of the block at `gpa` becomes another: the translator is wrong now. */
static void plant(struct rig *r, uint64_t gpa, const void *bytes, size_t n, unsigned at, uint8_t value)
{
	struct block *b = block_find(r->e, gpa, BLOCK_ONE_PAGE, MODE_64);
	uint8_t *code = r->e->trans->write + b->trans, *found;

	assert_non_null(b);
	assert_true(b->trans > TRANS_NEVER);
	found = memmem(code, 512, bytes, n);
	assert_non_null(found);
	found[at] = value;
}

static void expect_difference(struct rig *r, const char *what)
{
	struct err err = ERR_INIT;
	int null = open("/dev/null", O_WRONLY);

	log_to_fd(null);
	assert_int_equal(vcpu_run(r->vcpu[0], &err), VCPU_EXIT_ERROR);
	log_to_fd(2);
	close(null);
	if (!strstr(err_msg(&err), what))
		fail_msg("'%s' does not say '%s'", err_msg(&err), what);
	r->v->lockstep->failed = false;
	r->v->request &= ~REQ_KICK;
}

static void wrong_register(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_register, "xor %ebx, %ebx; add $7, %ebx; jmp 1f; 1: out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_register);
	rig_run_one(r);
	plant(r, RIG_CODE, "\x83\xc3\x07", 3, 2, 9);
	rig_start(r, 0);
	expect_difference(r, "gpr 3 is 0x9 instead of 0x7");
	assert_int_equal(r->v->gpr[R_BX], 7); /* what the interpreter did stays */
}

static void wrong_memory(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	/* The first store to a page is the interpreter's. */
	RIG_BLOB(blob_memory, "movl $1, 0x300008; mov $0x10100, %eax; jmp *%rax");
	RIG_BLOB(blob_memory2, "movl $0x11223344, 0x300000; jmp 1f; 1: out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_memory);
	rig_load(r, RIG_CODE + 0x100, blob_memory2);
	rig_run_one(r);
	plant(r, RIG_CODE + 0x100, "\x44\x33\x22\x11", 4, 1, 0x99);
	rig_start(r, 0);
	expect_difference(r, "memory at 0x300001 is 0x99 instead of 0x33");
	assert_int_equal(*rig_d(r, 0x300000), 0x11223344);
}

static void wrong_flags(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_cmp, "mov $5, %eax; cmp $5, %eax; jmp 1f; 1: lahf; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_cmp);
	rig_run_one(r);
	plant(r, RIG_CODE, "\x83\xf8\x05", 3, 2, 6);
	rig_start(r, 0);
	expect_difference(r, "RFLAGS");
}

static void *run_second(void *arg)
{
	struct rig *r = arg;
	struct err err = ERR_INIT;

	if (vcpu_run(r->vcpu[1], &err) != VCPU_EXIT_ERROR)
		return NULL;
	vcpu_kick(r->vcpu[0]); /* it would wait for ever */
	return "a difference";
}

/* Two vCPUs that store to the same page: neither undoes what the other one did, nor takes it for a difference. */
static void two_vcpus(void **state)
{
	struct rig *r = *state;
	pthread_t thread;
	void *what;

	RIG_BLOB(blob_two, "mov $0x300000, %edi; mov $20000, %ecx; 1: incl (%rdi,%rbp); lock incl 8(%rdi); push %rcx; pop %rdx; loop 1b;"
			   "lock incl 16(%rdi); 2: pause; cmpl $2, 16(%rdi); jne 2b; out %al, $0xf4");
	for (unsigned n = 0; n < 2; n++) {
		rig_start(r, n);
		soft_vcpu(r->vcpu[n])->gpr[R_BP] = n * 4;
	}
	rig_load(r, RIG_CODE, blob_two);
	assert_int_equal(pthread_create(&thread, NULL, run_second, r), 0);
	rig_run_one(r);
	pthread_join(thread, &what);
	assert_null(what);
	assert_int_equal(*rig_d(r, 0x300000), 20000);
	assert_int_equal(*rig_d(r, 0x300004), 20000);
	assert_int_equal(*rig_d(r, 0x300008), 40000);
	for (unsigned n = 0; n < 2; n++)
		assert_true(soft_vcpu(r->vcpu[n])->lockstep->stretches >= 20000);
}

static void refused(void **state)
{
	struct engine_config config = {.kind = ENGINE_SOFT, .cpus = 1, .lockstep = true, .no_translate = true};
	struct err err = ERR_INIT;

	assert_null(engine_new(&config, &err));
	assert_non_null(strstr(err_msg(&err), "translate=off"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_twice, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(device_once, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(faults, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(self_modification, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(wrong_register, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(wrong_memory, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(wrong_flags, setup, rig_teardown),
		cmocka_unit_test_setup_teardown(two_vcpus, setup_two, rig_teardown),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
