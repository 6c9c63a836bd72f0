/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What bare-metal payloads, their runtime and the test machine agree on.
 *
 * A payload is linked with runtime.S at GUEST_BASE and entered in real mode at
 * its first byte, with 4 MiB of RAM. The runtime goes to 64-bit mode (ring 0,
 * identity-mapped, interrupts off) and calls main64. Where a payload defines
 * main32, that is called first, in flat 32-bit mode without paging.
 */
#pragma once

#define GUEST_BASE 0x10000
#define GUEST_RAM 0x400000

/* Tables of the runtime, then what payloads may use. */
#define PML4 0x1000
#define PDPT 0x2000
#define PD 0x3000       /* 0..1 GiB: the first 2 MiB by PT, the rest in 2 MiB pages */
#define PT 0x4000       /* 4 KiB pages, supervisor, writable */
#define PD_HIGH 0x5000  /* 3..4 GiB: only the local APIC's page */
#define IDT 0x6000
#define RESULTS 0x7000  /* 4 KiB that the test compares between engines */
#define TRAMPOLINE 0x8000 /* start of an application processor, SIPI vector 8 */
#define STACK_TOP 0x80000
#define AP_STACK_TOP 0x88000
#define USER_STACK_TOP 0x90000
#define SCRATCH 0x100000 /* 1 MiB and up: pages for the payload's own games, in PT */
#define ROM 0xd0200000    /* a read-only page of 5ah bytes */
#define DEVICE 0xd0000000 /* an 8-byte register that echoes; not mapped by the runtime */

/* Ports of the test machine. */
#define PORT_SERIAL 0xe9
#define PORT_EXIT 0xf4   /* 0: passed, EXIT_SKIP: the CPU lacks the feature, else the line that failed */
#define PORT_INTR 0x80   /* raise the PIC's line with this vector */
#define PORT_MARKER 0x81 /* the vCPU may move to another engine here */
#define PORT_LEVEL 0x82  /* a level-triggered message with this vector, as from an IOAPIC pin */
#define PORT_EDGE 0x83   /* an edge-triggered one */
#define PORT_IRQFD 0x84  /* signal the machine's interrupt descriptor (vector IRQFD_VECTOR) */
#define IRQFD_VECTOR 0x61
#define DOORBELL (DEVICE + 0x1000) /* 4-byte writes here signal a descriptor */
#define EXIT_SKIP 0xffff
#define EXIT_EXCEPTION 0x10000 /* | vector: one that nobody expected */

/* Selectors. SYSRET wants user32, user data, user64 in this order. */
#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_CODE32 0x18
#define SEL_USER32 0x23
#define SEL_USER_DATA 0x2b
#define SEL_USER64 0x33
#define SEL_TSS 0x38
#define SEL_ABSENT 0x48
#define SEL_SMALL 0x50   /* data, limit 0fffh bytes, base SCRATCH */
#define SEL_CODE16 0x58  /* base GUEST_BASE, for the way back to real mode */
#define SEL_CALL_GATE 0x60 /* 64-bit, DPL 3: to call_gate_entry, if the payload defines it */

#define SEL_DATA16 0x70

#define VECTOR_NONE 0xffffffff
