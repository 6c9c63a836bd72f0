/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A writer for the little AML that depends on the machine (ACPI 6.4 §20).
 * Scopes nest: aml_open_*() ... aml_close(). Names are one or more segments of
 * four characters separated by dots, after an optional backslash.
 * Not thread-safe; out of memory is sticky in the buffer (state_buf.failed).
 */
#pragma once
#include "machine/state.h"

#define AML_DEPTH 8
struct aml {
	struct state_buf buf;
	size_t open[AML_DEPTH]; /* where each open package's length goes */
	unsigned depth;
};

void aml_open_scope(struct aml *a, const char *name);
void aml_open_device(struct aml *a, const char *name);
void aml_open_package(struct aml *a, uint8_t elements); /* that many objects follow */
void aml_open_buffer(struct aml *a, unsigned len); /* resource templates and other raw bytes follow */
void aml_close(struct aml *a);

void aml_name(struct aml *a, const char *name); /* Name (NAME, <the object that follows>) */
void aml_int(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0501" */

/* A resource template as the object of aml_name(): `irq` 0 for none. */
void aml_io_irq(struct aml *a, uint16_t port, uint8_t ports, unsigned irq);
