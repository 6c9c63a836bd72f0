/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machine code on the whole engine: real mode, protected mode with two levels,
 * virtual-8086 mode, long mode with interrupts on an IST, SYSCALL, single-step,
 * data breakpoints, a message-signalled interrupt out of HLT, and all the way
 * back to real mode. The guest tells its progress through ports: bytes to
 * 0xe9, doublewords to 0xe8; what it must say is written down in `expected`.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "engine/engine.h"
#include "engine/soft/trans.h"

#define RAM_SIZE 0x400000u
#define BASE 0x8000u

#define GDT 0x1000u
#define IDT32 0x2000u
#define IDT64 0x3000u
#define TSS32 0x4000u
#define TSS64 0x5000u
#define PML4 0x70000u
#define PDPT 0x71000u
#define PD 0x72000u /* four */
#define HIGH 0xffffff8000000000ull /* the same memory once more */

/* Selectors, as the machine code below has them in figures */
enum { CODE32 = 0x08, DATA32 = 0x10, CODE64 = 0x18, CODE16 = 0x20, DATA16 = 0x28, UCODE32 = 0x30, UDATA = 0x38, UCODE64 = 0x40,
       SEL_TSS32 = 0x48, SEL_TSS64 = 0x50, SEL_GATE = 0x60, GDT_END = 0x70 };

/* clang-format off */
asm("	.pushsection .rodata, \"a\"\n"
"	.global modes_start, modes_end\n"
"modes_start:\n"
#define AT(label) "(" #label " - modes_start + 0x8000)"
#define SAY(c) "	movb $'" c "', %al\n	outb %al, $0xe9\n"
#define TELL "	outl %eax, $0xe8\n"
/* Real mode: an interrupt through the IVT, then PE. */
"	.code16\n"
"	cli\n"
"	xorw %ax, %ax\n"
"	movw %ax, %ds\n"
"	movw %ax, %ss\n"
"	movw $0x7000, %sp\n"
"	int $0x21\n"
	SAY("A")
"	lgdtl 0x600\n"
"	movl %cr0, %eax\n"
"	orb $1, %al\n"
"	movl %eax, %cr0\n"
"	ljmpl $0x08, $" AT(prot32) "\n"
"modes_ivt21:\n"
	SAY("a")
"	iretw\n"

/* Protected mode: an interrupt at the same level, then level 3 and back. */
"	.code32\n"
"prot32:\n"
"	movl $0x10, %eax\n"
"	movl %eax, %ds\n"
"	movl %eax, %es\n"
"	movl %eax, %ss\n"
"	movl $0x60000, %esp\n"
"	lidtl 0x608\n"
"	movl $0x48, %eax\n"
"	ltr %ax\n"
"	int $0x30\n"
	SAY("B")
"	pushl $0x3b\n"
"	pushl $0x50000\n"
"	pushl $0x3002\n" /* IOPL 3 */
"	pushl $0x33\n"
"	pushl $" AT(user32) "\n"
"	iretl\n"
"user32:\n"
"	movl %cs, %eax\n"
	TELL
"	int $0x31\n"
"	ud2\n"
"modes_int30:\n"
	SAY("b")
"	iretl\n"
/* From level 3: tell what was pushed, stay at level 0. */
"modes_int31:\n"
	SAY("c")
"	movl %ss, %eax\n"
	TELL
"	movl 4(%esp), %eax\n"
	TELL
"	movl 12(%esp), %eax\n"
	TELL
"	movl $0x60000, %esp\n"
/* Virtual-8086 mode */
"	pushl $0x4444\n" /* GS, FS, DS, ES */
"	pushl $0x3333\n"
"	pushl $0x0000\n"
"	pushl $0x1111\n"
"	pushl $0x0500\n" /* SS:ESP */
"	pushl $0x0800\n"
"	pushl $0x23002\n"
"	pushl $0x0800\n" /* CS:EIP 0800:x is 8000 + x */
"	pushl $(vm86 - modes_start)\n"
"	iretl\n"
"	.code16\n"
"vm86:\n"
	SAY("d")
"	movw %gs, %ax\n"
"	outw %ax, $0xe8\n"
"	pushf\n"
"	popw %ax\n"
"	outw %ax, $0xe8\n"
"	int $0x32\n"
"	.code32\n"
"modes_int32:\n"
	SAY("e")
"	movl 8(%esp), %eax\n" /* EFLAGS, SS, GS as pushed */
	TELL
"	movl 16(%esp), %eax\n"
	TELL
"	movl 32(%esp), %eax\n"
	TELL
"	movl %ds, %eax\n"
	TELL

/* Long mode */
"	movl $0x10, %eax\n"
"	movl %eax, %ds\n"
"	movl %cr4, %eax\n"
"	orl $0x20, %eax\n"
"	movl %eax, %cr4\n"
"	movl $0x70000, %eax\n"
"	movl %eax, %cr3\n"
"	movl $0xc0000080, %ecx\n"
"	rdmsr\n"
"	orl $0x101, %eax\n"
"	wrmsr\n"
"	movl %cr0, %eax\n"
"	orl $0x80010000, %eax\n"
"	movl %eax, %cr0\n"
"	rdmsr\n"
	TELL
"	ljmpl $0x18, $" AT(long64) "\n"
"	.code64\n"
"long64:\n"
"	xorl %eax, %eax\n"
"	movl %eax, %ss\n"
"	movl %eax, %ds\n"
"	movl %eax, %es\n"
"	movq $0x60000, %rsp\n"
"	lidtq 0x610\n"
"	movl $0x50, %eax\n"
"	ltr %ax\n"
/* #UD on IST1 */
"	ud2\n"
	SAY("F")
/* SYSCALL: STAR, LSTAR, SFMASK; then level 3 */
"	movl $0xc0000081, %ecx\n"
"	xorl %eax, %eax\n"
"	movl $0x00300008, %edx\n"
"	wrmsr\n"
"	incl %ecx\n"
"	movl $" AT(entry64) ", %eax\n"
"	xorl %edx, %edx\n"
"	wrmsr\n"
"	movl $0xc0000084, %ecx\n"
"	movl $0x200, %eax\n"
"	wrmsr\n"
"	pushq $0x3b\n"
"	pushq $0x50000\n"
"	pushq $0x3202\n"
"	pushq $0x43\n"
"	pushq $" AT(user64) "\n"
"	iretq\n"
"user64:\n"
"	movl $0x12345678, %ebx\n"
"	syscall\n"
"	movl %ss, %eax\n"
	TELL
"	int $0x40\n"
"	ud2\n"
"entry64:\n"
	SAY("g")
"	movl %r11d, %eax\n"
	TELL
"	movl %ebx, %eax\n"
	TELL
"	sysretq\n"
"modes_ud:\n"
	SAY("f")
"	movl %esp, %eax\n"
	TELL
"	addq $2, (%rsp)\n"
"	iretq\n"
"modes_int40:\n"
	SAY("h")
"	movl 32(%rsp), %eax\n"
	TELL
"	movl %esp, %eax\n"
	TELL
"	movq $0x60000, %rsp\n"
/* #PF, on a page that is not there and on one that is read-only */
"	movl $0x200123, %ebx\n"
"	movb (%rbx), %cl\n"
"	nop\n"
"	movl $0x1ff000, %ebx\n"
"	movb %cl, 0x200eff(%rbx)\n"
/* Single-step over five instructions */
"	xorl %ebp, %ebp\n"
"	pushfq\n"
"	orl $0x100, (%rsp)\n"
"	popfq\n"
"	nop\n"
"	nop\n"
"	pushfq\n"
"	andl $~0x100, (%rsp)\n"
"	popfq\n"
"	nop\n"
"	movl %ebp, %eax\n"
	TELL
/* A breakpoint on a doubleword that is written */
"	movl $0x7f00, %eax\n"
"	movq %rax, %dr0\n"
"	movl $0x000d0401, %eax\n"
"	movq %rax, %dr7\n"
"	xorl %ebp, %ebp\n"
"	movl 0x7f00, %eax\n"
"	movl %eax, 0x7f04\n"
"	movw %ax, 0x7f02\n"
"	movl %ebp, %eax\n"
	TELL
"	movq %dr6, %rax\n"
	TELL
"	movl $0x400, %eax\n"
"	movq %rax, %dr7\n"
/* An interrupt out of HLT: the host posts vector 50h when 0xe7 is written */
"	movl $0xfee000f0, %ebx\n"
"	movl $0x1ff, (%rbx)\n"
"	outb %al, $0xe7\n"
"	movl $0, %ebp\n"
"	sti\n"
"	hlt\n"
"	cli\n"
"	movl %ebp, %eax\n"
	TELL
/* Back: compatibility mode, paging off, 16-bit code, PE off */
"	pushq $0x08\n"
"	pushq $" AT(compat) "\n"
"	lretq\n"
"	.code32\n"
"compat:\n"
"	movl $0x10, %eax\n"
"	movl %eax, %ss\n"
"	movl %eax, %ds\n"
	SAY("k")
/* A 64-bit call gate whose code lies high */
"	movl $0x60000, %esp\n"
"	lcall $0x60, $0\n"
"	movl %esp, %eax\n"
	TELL
"	movl %cr0, %eax\n"
"	andl $0x7fffffff, %eax\n"
"	movl %eax, %cr0\n"
"	movl $0xc0000080, %ecx\n"
"	rdmsr\n"
	TELL
"	lidtl 0x620\n"
"	ljmpl $0x20, $" AT(prot16) "\n"
"	.code16\n"
"prot16:\n"
"	movw $0x28, %ax\n"
"	movw %ax, %ds\n"
"	movw %ax, %ss\n"
"	movl %cr0, %eax\n"
"	andb $0xfe, %al\n"
"	movl %eax, %cr0\n"
"	ljmpw $0, $" AT(real) "\n"
"real:\n"
"	xorw %ax, %ax\n"
"	movw %ax, %ds\n"
"	movw %ax, %ss\n"
"	movw $0x7000, %sp\n"
"	int $0x21\n"
	SAY("K")
"	outb %al, $0xf4\n"
"1:	hlt\n"
"	jmp 1b\n"

"	.code64\n"
"modes_pf:\n"
	SAY("i")
"	movl (%rsp), %eax\n"
	TELL
"	movq %cr2, %rax\n"
	TELL
"	movq 8(%rsp), %rax\n"
"	cmpb $0x8a, (%rax)\n" /* the load is 2 bytes long, the store 6 */
"	movl $2, %eax\n"
"	je 1f\n"
"	movl $6, %eax\n"
"1:	addq %rax, 8(%rsp)\n"
"	addq $8, %rsp\n"
"	iretq\n"
"modes_db:\n"
"	incl %ebp\n"
"	iretq\n"
"modes_gate:\n"
"	leaq 0(%rip), %rax\n"
"	shrq $32, %rax\n"
	TELL
"	lretq\n"
"modes_msi:\n"
"	incl %ebp\n"
"	movl $0xfee000b0, %eax\n"
"	movl $0, (%rax)\n"
	SAY("j")
"	iretq\n"
"modes_bad:\n"
	SAY("!")
"	movl (%rsp), %eax\n"
	TELL
"	outb %al, $0xf4\n"
"1:	hlt\n"
"	jmp 1b\n"
"modes_end:\n"
"	.code64\n"
"	.popsection\n");
/* clang-format on */

extern const uint8_t modes_start[], modes_end[], modes_ivt21[], modes_int30[], modes_int31[], modes_int32[], modes_ud[],
	modes_int40[], modes_pf[], modes_db[], modes_gate[], modes_msi[], modes_bad[];

static uint8_t *ram;
static struct engine *engine;
static struct vcpu *vcpu;
static struct said { uint16_t port; uint32_t value; } log_[128];
static unsigned said;

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size) { return UINT32_MAX; }
static void pio_write(void *opaque, uint16_t port, uint32_t value, unsigned size)
{
	if (port == 0xf4)
		vcpu_kick(vcpu);
	else if (port == 0xe7)
		engine_msi(engine, 0xfee00000, 0x50);
	else if (said < 128)
		log_[said++] = (struct said){ port, value };
}
static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size) { return UINT64_MAX; }
static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size) { }
static int pic_ack(void *opaque) { return -1; }
static void ioapic_eoi(void *opaque, uint8_t vector) { }

static void poke(uint64_t at, uint64_t value, unsigned size) { memcpy(ram + at, &value, size); }

static void descriptor(unsigned selector, uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	poke(GDT + selector, (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	     (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56, 8);
}

static uint32_t address(const uint8_t *label) { return BASE + (label - modes_start); }

static void gate(uint64_t at, uint16_t selector, const uint8_t *label, unsigned access, unsigned ist)
{
	uint32_t offset = address(label);

	poke(at, (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)access << 40 |
	     (uint64_t)(offset >> 16) << 48, 8);
}

static void build_machine(void)
{
	memset(ram, 0, RAM_SIZE);
	memcpy(ram + BASE, modes_start, modes_end - modes_start);
	poke(0x21 * 4, address(modes_ivt21), 4);
	descriptor(CODE32, 0, 0xfffff, 0x9a, 0xc);
	descriptor(DATA32, 0, 0xfffff, 0x92, 0xc);
	descriptor(CODE64, 0, 0xfffff, 0x9a, 0xa);
	descriptor(CODE16, 0, 0xffff, 0x9a, 0);
	descriptor(DATA16, 0, 0xffff, 0x92, 0);
	descriptor(UCODE32, 0, 0xfffff, 0xfa, 0xc);
	descriptor(UDATA, 0, 0xfffff, 0xf2, 0xc);
	descriptor(UCODE64, 0, 0xfffff, 0xfa, 0xa);
	descriptor(SEL_TSS32, TSS32, 0x2fff, 0x89, 0);
	descriptor(SEL_TSS64, TSS64, 0x67, 0x89, 0);
	gate(GDT + SEL_GATE, CODE64, modes_gate, 0x8c, 0);
	poke(GDT + SEL_GATE + 8, HIGH >> 32, 8);
	poke(0x600, GDT_END - 1, 2);
	poke(0x602, GDT, 4);
	poke(0x608, 0x7ff, 2);
	poke(0x60a, IDT32, 4);
	poke(0x610, 0xfff, 2);
	poke(0x612, IDT64, 8);
	poke(0x620, 0x3ff, 2);
	for (unsigned n = 0; n < 256; n++)
		gate(IDT32 + n * 8, CODE32, modes_bad, 0x8e, 0);
	gate(IDT32 + 0x30 * 8, CODE32, modes_int30, 0x8e, 0);
	gate(IDT32 + 0x31 * 8, CODE32, modes_int31, 0xee, 0);
	gate(IDT32 + 0x32 * 8, CODE32, modes_int32, 0xee, 0);
	for (unsigned n = 0; n < 256; n++)
		gate(IDT64 + n * 16, CODE64, modes_bad, 0x8e, 0);
	gate(IDT64 + 1 * 16, CODE64, modes_db, 0x8e, 0);
	gate(IDT64 + 6 * 16, CODE64, modes_ud, 0x8e, 1);
	gate(IDT64 + 14 * 16, CODE64, modes_pf, 0x8e, 2);
	gate(IDT64 + 0x40 * 16, CODE64, modes_int40, 0xee, 0);
	gate(IDT64 + 0x50 * 16, CODE64, modes_msi, 0x8e, 0);
	poke(TSS32 + 4, 0x61000, 4);
	poke(TSS32 + 8, DATA32, 4);
	poke(TSS32 + 102, 104, 2); /* all ports allowed */
	poke(TSS64 + 4, 0x62000, 8);
	poke(TSS64 + 0x24, 0x63000, 8);
	poke(TSS64 + 0x2c, 0x64000, 8);
	/* 4 GiB by 2 MiB, for everybody; one page missing, the next read-only */
	poke(PML4, PDPT | 7, 8);
	poke(PML4 + 511 * 8, PDPT | 7, 8);
	for (unsigned n = 0; n < 4; n++)
		poke(PDPT + n * 8, (PD + n * 0x1000) | 7, 8);
	for (unsigned n = 0; n < 2048; n++)
		poke(PD + n * 8, (uint64_t)n << 21 | 0x87, 8);
	poke(PD + 1 * 8, 0, 8);
	poke(PD + 2 * 8, 0, 8);
}

#define B(c) { 0xe9, c }
#define D(x) { 0xe8, x }
static const struct said expected[] = {
	B('a'), B('A'),
	B('b'), B('B'), D(UCODE32 | 3), B('c'), D(DATA32), D(UCODE32 | 3), D(0x50000),
	B('d'), D(0x4444), D(0x3002), B('e'), D(0x23002), D(0x0500), D(0x4444), D(0),
	D(0x501), /* EFER: SCE, LME, LMA */
	B('f'), D(0x63000 - 40), B('F'),
	B('g'), D(0x3202), D(0x12345678), D(UDATA | 3), B('h'), D(UDATA | 3), D(0x62000 - 40),
	B('i'), D(0), D(0x200123), B('i'), D(2), D(0x3ffeff),
	D(5), D(1), D(0xffff0ff1 | 0x4000),
	B('j'), D(1),
	B('k'), D(0xffffff80), D(0x60000), D(0x101), B('a'), B('K'),
};

static void check_log(void)
{
	unsigned want = sizeof(expected) / sizeof(expected[0]);

	for (unsigned n = 0; n < said || n < want; n++) {
		if (n >= said || n >= want || log_[n].port != expected[n].port || log_[n].value != expected[n].value)
			fail_msg("item %u of %u: port %02x value %x, expected port %02x value %x", n, said, n < said ? log_[n].port : 0,
				 n < said ? log_[n].value : 0, n < want ? expected[n].port : 0, n < want ? expected[n].value : 0);
	}
}

static void start(void)
{
	struct err err = ERR_INIT;
	struct engine_config config = { .kind = ENGINE_SOFT, .cpus = 1,
		.host = { .pio_read = pio_read, .pio_write = pio_write, .mmio_read = mmio_read, .mmio_write = mmio_write,
			  .pic_ack = pic_ack, .ioapic_eoi = ioapic_eoi } };
	static struct cpu_state s;

	said = 0;
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(ram, MAP_FAILED);
	build_machine();
	engine = engine_new(&config, &err);
#ifdef RIG_TRANSLATE
	if (engine)
		trans_set_test(soft_engine(engine), 0, true);
#endif
	if (!engine)
		fail_msg("%s", err_msg(&err));
	assert_int_equal(engine_map(engine, 0, RAM_SIZE, ram, false, &err), 0);
	vcpu = vcpu_new(engine, 0, &err);
	if (!vcpu)
		fail_msg("%s", err_msg(&err));
	assert_int_equal(vcpu_get_state(vcpu, &s, &err), 0);
	s.seg[SEG_CS].base = 0;
	s.seg[SEG_CS].selector = 0;
	s.rip = BASE;
	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
}

static void stop(void)
{
	vcpu_free(vcpu);
	engine_free(engine);
	munmap(ram, RAM_SIZE);
}

static void test_run(void **state)
{
	struct err err = ERR_INIT;

	start();
	assert_int_equal(vcpu_run(vcpu, &err), VCPU_EXIT_KICK);
	check_log();
	stop();
}

/* The same one instruction at a time, the state going out and in between them. */
static void test_step(void **state)
{
	static struct cpu_state s;
	struct err err = ERR_INIT;
	enum vcpu_exit exit;

	start();
	for (unsigned n = 0; n < 2000 && (!said || log_[said - 1].value != 'K'); n++) {
		assert_int_equal(vcpu_step(vcpu, 1, &exit, &err), 0);
		assert_int_equal(exit, VCPU_EXIT_KICK);
		assert_int_equal(vcpu_get_state(vcpu, &s, &err), 0);
		if (vcpu_set_state(vcpu, &s, &err) != 0)
			fail_msg("step %u at %lx: %s", n, (long)s.rip, err_msg(&err));
	}
	check_log();
	stop();
}

/* A triple fault ends the run and leaves the state before the third fault. */
static void test_triple_fault(void **state)
{
	static struct cpu_state s;
	struct err err = ERR_INIT;

	start();
	poke(BASE, 0x0b0f, 2); /* UD2, with no IVT in reach */
	assert_int_equal(vcpu_get_state(vcpu, &s, &err), 0);
	s.idtr.limit = 0;
	s.gpr[R_SP] = 0x7000;
	assert_int_equal(vcpu_set_state(vcpu, &s, &err), 0);
	assert_int_equal(vcpu_run(vcpu, &err), VCPU_EXIT_SHUTDOWN);
	assert_int_equal(vcpu_get_state(vcpu, &s, &err), 0);
	assert_int_equal(s.rip, BASE);
	assert_int_equal(s.gpr[R_SP], 0x7000);
	assert_int_equal(s.event_pending, 0);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_step),
		cmocka_unit_test(test_triple_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
