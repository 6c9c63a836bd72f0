/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decoded code stays true to memory: self- and cross-modifying code, remapped pages, the cache running full. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "soft_rig.h"

static int setup(void **state)
{
	return rig_setup(state, 4);
}

static void *job_run(void *opaque)
{
	struct vcpu *v = opaque;

	return (void *)(uintptr_t)vcpu_run(v, NULL);
}

static uint64_t decoded(struct rig *r)
{
	struct engine_stats stats;

	engine_get_stats(r->engine, &stats);
	return stats.blocks_decoded;
}

/* ---- One vCPU ------------------------------------------------------------ */

/* A store into the next instruction of the same block takes effect at once. */
static void own_block(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_own, "xor %ebx, %ebx; mov $100, %ecx;"
			   "1: mov %cl, 2f+1(%rip); 2: mov $0, %al; movzbl %al, %eax; add %eax, %ebx; dec %ecx; jnz 1b;"
			   "out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_own);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 5050);
}

/* The same through every kind of store that the engine has a path of its own for. */
static void own_block_stores(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_stores,
		 "xor %ebx, %ebx; lea 9f+1(%rip), %rdi; lea 9f+1(%rip), %rsi;"
		 "movl $0x11, (%rdi); call 9f; add %rax, %rbx;"            /* mov imm */
		 "lock addl $1, (%rdi); call 9f; add %rax, %rbx;"          /* 0x12 */
		 "mov $0x13, %eax; xchg %eax, (%rdi); call 9f; add %rax, %rbx;"
		 "mov $0x14, %eax; stosl; sub $4, %rdi; call 9f; add %rax, %rbx;"
		 "incl (%rdi); call 9f; add %rax, %rbx;"                   /* 0x15 */
		 "mov $1, %ecx; mov $0x16, %eax; rep stosl; sub $4, %rdi; call 9f; add %rax, %rbx;"
		 "mov $0x17, %eax; movd %eax, %xmm0; movd %xmm0, (%rdi); call 9f; add %rax, %rbx;"
		 "mov $0x18, %eax; mov %rsp, %rbp; lea 4(%rdi), %rsp; .byte 0x66; push $0; .byte 0x66; push $0x18; mov %rbp, %rsp;"
		 "call 9f; add %rax, %rbx;"
		 "mov $0x18, %eax; mov $0x19, %edx; lock cmpxchg %edx, (%rdi); call 9f; add %rax, %rbx;"
		 "btsl $2, (%rdi); call 9f; add %rax, %rbx;"               /* 0x1d */
		 "out %al, $0xf4; 9: mov $0, %eax; ret");
	rig_load(r, RIG_CODE, blob_stores);
	r->v->cr4 |= 0x600;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0x11 + 0x12 + 0x13 + 0x14 + 0x15 + 0x16 + 0x17 + 0x18 + 0x19 + 0x1d);
}

/* Code written through another linear address than it runs at. */
static void aliased(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	*rig_q(r, 0x2000 + 8) = 0x7000 | 3; /* 1 GiB up: RAM again */
	*rig_q(r, 0x7000) = 0x83;
	RIG_BLOB(blob_alias, "xor %ebx, %ebx; mov $100, %ecx; lea 2f+1(%rip), %rdi; add $0x40000000, %rdi;"
			     "1: mov %cl, (%rdi); 2: mov $0, %al; movzbl %al, %eax; add %eax, %ebx; dec %ecx; jnz 1b;"
			     "out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_alias);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 5050);
}

/* Data beside code, in the same page and in the same 64 bytes: right, and no code is decoded again. */
static void data_beside_code(void **state)
{
	struct rig *r = *state;
	uint64_t before;

	rig_start(r, 0);
	RIG_BLOB(blob_beside, "mov $100000, %ecx; 1: incq 0x10038; incq 0x10080; incq 0x10ff8; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_beside);
	assert_true(blob_beside_end - blob_beside <= 0x38);
	before = decoded(r);
	rig_run_one(r);
	assert_in_range(decoded(r) - before, 1, 6);
	assert_int_equal(*rig_q(r, 0x10038), 100000);
	assert_int_equal(*rig_q(r, 0x10080), 100000);
	assert_int_equal(*rig_q(r, 0x10ff8), 100000);
}

/* A page whose code is overwritten as a whole is an ordinary page again. */
static void flag_goes_away(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	RIG_BLOB(blob_clear, "call 0x12000 - 0x10000 + blob_clear; mov $0x12000, %edi; mov $512, %ecx; xor %eax, %eax;"
			     "rep stosq; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_clear);
	rig_put(r, 0x12000, "\xc3", 1);
	rig_run_one(r);
	assert_int_equal(r->e->page_flags[0x12], 0);
	assert_int_equal(r->e->page_flags[RIG_CODE >> 12], PAGE_HAS_CODE);
}

/* mov $imm32, %eax in the last two bytes of one page and the first three of the next; ret. */
static void put_crossing(struct rig *r, uint64_t first, uint64_t second, uint8_t value)
{
	uint8_t a[2] = { 0xb8, value }, b[4] = { 0, 0, 0, 0xc3 };

	b[0] = value;
	rig_put(r, first + 0xffe, a, 2);
	rig_put(r, second, b, 4);
}

/* Map 4 KiB pages at 0x40000000. */
static void small_pages(struct rig *r, uint64_t first, uint64_t second)
{
	*rig_q(r, 0x2000 + 8) = 0x7000 | 3;
	*rig_q(r, 0x7000) = 0x8000 | 3;
	*rig_q(r, 0x8000) = first | 3;
	*rig_q(r, 0x8008) = second | 3;
}

/* An instruction that crosses into a page that is mapped to another frame. */
static void second_page_remapped(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	put_crossing(r, 0x400000, 0x401000, 1);
	rig_put(r, 0x402000, "\x02\0\0\xc3", 4);
	small_pages(r, 0x400000, 0x401000);
	/* Call it, map the second page elsewhere, flush that page, call it again; 100 times back and forth. */
	RIG_BLOB(blob_remap, "xor %ebx, %ebx; mov $50, %ecx; mov $0x40000ffe, %edx;"
			     "1: call *%rdx; add %rax, %rbx; movq $0x402003, 0x8008; invlpg 2(%rdx);"
			     "call *%rdx; add %rax, %rbx; movq $0x401003, 0x8008; invlpg 2(%rdx);"
			     "dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_remap);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 50 * 0x101 + 50 * 0x201);
}

/* The bytes in the second page are written. */
static void second_page_written(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	put_crossing(r, 0x400000, 0x401000, 0);
	small_pages(r, 0x400000, 0x401000);
	RIG_BLOB(blob_second, "xor %ebx, %ebx; mov $100, %ecx; mov $0x40000ffe, %edx;"
			      "1: mov %cl, 0x401000; call *%rdx; add %rax, %rbx; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_second);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 5050 << 8);
}

/* Both halves in one frame that is mapped twice. */
static void same_frame_twice(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	put_crossing(r, 0x400000, 0x400000, 0);
	small_pages(r, 0x400000, 0x400000);
	RIG_BLOB(blob_twice, "xor %ebx, %ebx; mov $100, %ecx; mov $0x40000ffe, %edx;"
			     "1: mov %cl, 0x400000; call *%rdx; add %rax, %rbx; dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_twice);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 5050 << 8);
}

/* The second page is not there: the fault names it, and the first page's bytes are the instruction's. */
static void second_page_absent(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	put_crossing(r, 0x400000, 0x401000, 1);
	small_pages(r, 0x400000, 0);
	*rig_q(r, 0x8008) = 0;
	/* The handler maps it and returns. */
	RIG_BLOB(blob_absent, "mov $0x40000ffe, %edx; call *%rdx; out %al, $0xf4");
	RIG_BLOB(blob_fetch_pf, "add $8, %rsp; mov %cr2, %rbx; mov (%rsp), %rsi; movq $0x401003, 0x8008; iretq");
	rig_load(r, RIG_CODE, blob_absent);
	rig_load(r, RIG_CODE + 0x1000, blob_fetch_pf);
	rig_gate(r, 14, RIG_CODE + 0x1000);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0x40001000);
	assert_int_equal(r->v->gpr[R_SI], 0x40000ffe);
	assert_int_equal(r->v->gpr[R_AX] & 0xffffff00, 0x100); /* OUT changes nothing */
}

/* A page of code is mapped elsewhere: jump cache and links must not outlive INVLPG. */
static void code_page_remapped(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	/* Each frame: mov $n, %al; jmp +0; ret */
	rig_put(r, 0x400000, "\xb0\x01\xeb\x00\xc3", 5);
	rig_put(r, 0x402000, "\xb0\x02\xeb\x00\xc3", 5);
	small_pages(r, 0x400000, 0);
	RIG_BLOB(blob_page, "xor %ebx, %ebx; xor %eax, %eax; mov $50, %ecx; mov $0x40000000, %edx;"
			    "1: call *%rdx; add %rax, %rbx; movq $0x402003, 0x8000; invlpg (%rdx);"
			    "call *%rdx; add %rax, %rbx; movq $0x400003, 0x8000; mov %cr3, %rsi; mov %rsi, %cr3;"
			    "dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_page);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 150);
}

/* The same with a large page, flushed by another address in it. */
static void large_code_page_remapped(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	rig_put(r, 0x400000, "\xb0\x01\xeb\x00\xc3", 5);
	rig_put(r, 0x600000, "\xb0\x02\xeb\x00\xc3", 5);
	*rig_q(r, 0x2000 + 8) = 0x7000 | 3;
	*rig_q(r, 0x7000) = 0x400000 | 0x83;
	RIG_BLOB(blob_large, "xor %ebx, %ebx; xor %eax, %eax; mov $50, %ecx; mov $0x40000000, %edx;"
			     "1: call *%rdx; add %rax, %rbx; movq $0x600083, 0x7000; invlpg 0x123456(%rdx);"
			     "call *%rdx; add %rax, %rbx; movq $0x400083, 0x7000; invlpg 0x1ff000(%rdx);"
			     "dec %ecx; jnz 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_large);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 150);
}

/* The same bytes are other instructions in another mode. */
static void mode_is_part_of_the_key(void **state)
{
	struct rig *r = *state;
	static const uint8_t code[] = { 0x48, 0xff, 0xc0, 0xe6, 0xf4 }; /* 64-bit: inc rax; 32-bit: dec eax, inc eax */

	rig_start(r, 0);
	rig_put(r, RIG_CODE, code, sizeof(code));
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], 1);
	rig_mode(r->v, RIG_NONE, 0, 0, 0);
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->gpr[R_AX] = 5;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], 5);
	r->v->rip = r->v->next_rip = RIG_CODE;
	r->v->seg[SEG_CS].attr &= ~SEG_ATTR_DB;
	soft_update_mode(r->v);
	r->v->gpr[R_AX] = 0xffff0000;
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], 0xffff0000);
}

/* ---- Other writers ------------------------------------------------------- */

/* Somebody outside (DMA, a monitor) breaks the tightest loop there is, which runs. */
static void dma_breaks_a_loop(void **state)
{
	struct rig *r = *state;

	for (unsigned n = 0; n < 50; n++) {
		pthread_t thread;

		rig_start(r, 0);
		rig_put(r, RIG_CODE, "\xeb\xfe\xe6\xf4", 4); /* 1: jmp 1b; out */
		pthread_create(&thread, NULL, job_run, r->vcpu[0]);
		usleep(n * 20);
		rig_put(r, RIG_CODE, "\xeb\x00", 2);
		pthread_join(thread, NULL);
		assert_int_equal(r->v->rip, RIG_CODE + 4);
	}
}

/*
 * One vCPU writes code and then a flag, the others wait for the flag, serialize
 * and run the code (SDM vol. 3 §8.1.3): they must run what was written, each time.
 */
static void cross_modifying(void **state)
{
	struct rig *r = *state;
	pthread_t thread[4];

	for (unsigned i = 0; i < 4; i++)
		rig_start(r, i);
	/* Writer: for n in 1..1000: imm = n; flag = n; wait until all acks = n. */
	RIG_BLOB(blob_writer, "xor %ebx, %ebx; 1: inc %ebx; mov %ebx, 0x12001; mov %ebx, 0x300000;"
			      "2: pause; cmp %ebx, 0x300040; jne 2b; 3: pause; cmp %ebx, 0x300080; jne 3b;"
			      "cmp $1000, %ebx; jb 1b; out %al, $0xf4");
	RIG_BLOB(blob_reader, "xor %ebx, %ebx; 1: inc %ebx; 2: pause; cmp %ebx, 0x300000; jne 2b;"
			      "push %rbx; xor %eax, %eax; cpuid; pop %rbx; mov $0x12000, %edx; call *%rdx; cmp %ebx, %eax; je 3f;"
			      "incl 0x3000c0; 3: mov %ebx, (%rdi); cmp $1000, %ebx; jb 1b; out %al, $0xf4");
	rig_load(r, RIG_CODE, blob_writer);
	rig_load(r, RIG_CODE + 0x1000, blob_reader);
	rig_put(r, 0x12000, "\xb8\0\0\0\0\xc3", 6); /* mov $n, %eax; ret */
	for (unsigned i = 1; i < 3; i++) {
		struct soft_vcpu *v = soft_vcpu(r->vcpu[i]);

		v->rip = v->next_rip = RIG_CODE + 0x1000;
		v->gpr[R_DI] = RIG_DATA + 0x40 * i;
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, job_run, r->vcpu[i]);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(*rig_d(r, RIG_DATA + 0xc0), 0);
	assert_int_equal(*rig_d(r, RIG_DATA), 1000);
}

/* Code that is written between being read and being published is read again. */
static void publish_race(void **state)
{
	struct rig *r = *state;
	struct block *b = r->v->blocks->build, *out = NULL;
	struct page_code *p[2] = { NULL, NULL };
	uint32_t gen[2] = { 0, 0 };

	for (unsigned written = 0; written < 3; written++) {
		p[0] = page_code_begin(r->e, 0x400100, &gen[0]);
		assert_non_null(p[0]);
		page_code_mark(p[0], 0x100, 15);
		memset(b, 0, sizeof(*b) + sizeof(struct insn));
		b->gpa = 0x400100;
		b->gpa2 = BLOCK_ONE_PAGE;
		b->bytes = 3;
		b->n = b->count = 1;
		b->key = MODE_64;
		if (written == 0)
			engine_written(r->engine, 0x400101, 1);
		if (written == 1)
			engine_written(r->engine, 0x400200, 64); /* elsewhere in the page */
		assert_int_equal(block_publish(r->v, b, p, gen, &out), written == 0 ? PUBLISH_RACED : PUBLISHED);
	}
	assert_ptr_equal(block_find(r->e, 0x400100, BLOCK_ONE_PAGE, MODE_64), out);
	engine_written(r->engine, 0x400103, 1); /* just behind it */
	assert_ptr_equal(block_find(r->e, 0x400100, BLOCK_ONE_PAGE, MODE_64), out);
	engine_written(r->engine, 0x400102, 1);
	assert_null(block_find(r->e, 0x400100, BLOCK_ONE_PAGE, MODE_64));
}

/* ---- The cache ----------------------------------------------------------- */

#define LONG_CODE 0x800000ull
#define LONG_BYTES 0x400000u

/* 4 MiB of INC, 90 MiB decoded: the cache is emptied several times under way. */
static void fill_with_code(struct rig *r)
{
	for (unsigned at = 0; at < LONG_BYTES; at += 3)
		memcpy(r->ram + LONG_CODE + at, "\x48\xff\xc0", 3);
	memcpy(r->ram + LONG_CODE + LONG_BYTES / 3 * 3, "\xc3", 1);
	engine_written(r->engine, LONG_CODE, LONG_BYTES);
}

RIG_BLOB(blob_long, "mov $2, %ebx; mov $0x800000, %edx; 1: xor %eax, %eax; call *%rdx; cmp $1398101, %eax; jne 2f; dec %ebx; jnz 1b;"
		    "2: out %al, $0xf4");

static void cache_full(void **state)
{
	struct rig *r = *state;

	rig_start(r, 0);
	fill_with_code(r);
	rig_load(r, RIG_CODE, blob_long);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_AX], LONG_BYTES / 3);
	assert_int_equal(r->v->gpr[R_BX], 0);
}

/* Two find the cache full at the same time: who comes second, when there is room again, must not throw away what has just been begun. */
static void emptied_once(void **state)
{
	struct rig *r = *state;
	uint64_t epoch;

	rig_start(r, 0);
	epoch = block_epoch(r->e);
	assert_true(block_renew(r->v));
	assert_int_equal(block_epoch(r->e), epoch);
}

static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;

/* A device that is busy for long: its vCPU holds an instruction of a block all the time. */
static void slow_device(struct rig *r, uint16_t port, uint32_t value)
{
	if (port == 0xf5) {
		pthread_mutex_lock(&device_lock);
		pthread_mutex_unlock(&device_lock);
	}
	rig_kick_self(r, port, value);
}

/* Three run through it, one sits in a device the whole time: nobody waits for it, and it comes back unharmed. */
static void cache_full_smp(void **state)
{
	struct rig *r = *state;
	pthread_t thread[4];

	r->on_pio = slow_device;
	for (unsigned i = 0; i < 4; i++)
		rig_start(r, i);
	fill_with_code(r);
	rig_load(r, RIG_CODE, blob_long);
	RIG_BLOB(blob_busy, "mov $7, %ebx; out %al, $0xf5; inc %ebx; out %al, $0xf4");
	rig_load(r, RIG_CODE + 0x1000, blob_busy);
	soft_vcpu(r->vcpu[3])->rip = soft_vcpu(r->vcpu[3])->next_rip = RIG_CODE + 0x1000;
	pthread_mutex_lock(&device_lock);
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&thread[3 - i], NULL, job_run, r->vcpu[3 - i]);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(soft_vcpu(r->vcpu[i])->gpr[R_AX], LONG_BYTES / 3);
		assert_int_equal(soft_vcpu(r->vcpu[i])->gpr[R_BX], 0);
	}
	pthread_mutex_unlock(&device_lock);
	pthread_join(thread[3], NULL);
	assert_int_equal(soft_vcpu(r->vcpu[3])->gpr[R_BX], 8);
	/* And it all still works. */
	rig_start(r, 0);
	rig_run_one(r);
	assert_int_equal(r->v->gpr[R_BX], 0);
}

/* The whole cache is dropped from outside while code runs. */
static void flushed_while_running(void **state)
{
	struct rig *r = *state;
	pthread_t thread[2];

	for (unsigned i = 0; i < 2; i++)
		rig_start(r, i);
	RIG_BLOB(blob_sum, "mov $3000000, %ecx; xor %eax, %eax; 1: call 2f; dec %ecx; jnz 1b; out %al, $0xf4; 2: inc %rax; ret");
	rig_load(r, RIG_CODE, blob_sum);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, job_run, r->vcpu[i]);
	for (unsigned n = 0; n < 100; n++) {
		block_flush_all(r->e);
		usleep(200);
	}
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(soft_vcpu(r->vcpu[i])->gpr[R_AX], 3000000);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(own_block), T(own_block_stores), T(aliased), T(data_beside_code), T(flag_goes_away), T(second_page_remapped),
		T(second_page_written), T(same_frame_twice), T(second_page_absent), T(code_page_remapped), T(large_code_page_remapped),
		T(mode_is_part_of_the_key), T(dma_breaks_a_loop), T(cross_modifying), T(publish_race), T(cache_full), T(emptied_once), T(cache_full_smp),
		T(flushed_while_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
