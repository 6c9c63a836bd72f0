/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For the tests of src/model. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/domain.h"

/* A host that can do everything, so that only the XML is tested; its emulator is the one in the golden files. */
static inline struct domain_caps everything(void)
{
	struct domain_caps caps;

	domain_caps_init(&caps);
	caps.kvm = caps.soft = true;
	caps.emulator = "/usr/bin/qemu-system-x86_64";
	caps.firmware_bios = "/usr/share/seabios/bios.bin";
	caps.firmware_efi = "/usr/share/OVMF/OVMF_CODE.fd";
	caps.devices = UINT64_MAX;
	return caps;
}

static inline char *read_text(const char *dir, const char *name)
{
	char path[1024];
	FILE *f;
	char *text;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("cannot open %s", path);
	text = calloc(1, 1 << 20);
	assert_non_null(text);
	n = fread(text, 1, (1 << 20) - 1, f);
	fclose(f);
	text[n] = '\0';
	return text;
}

static inline struct domain *must_parse(const char *xml, unsigned flags)
{
	struct domain_caps caps = everything();
	struct err err = ERR_INIT;
	struct domain *def = domain_parse(xml, flags, &caps, &err);

	if (!def)
		fail_msg("%s\n%s", err_msg(&err), xml);
	return def;
}

/* `body` inside a small domain that is complete without it. */
#define DOMAIN(body)                                                                                                   \
	"<domain type='kvm'><name>t</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><memory>100000</memory>"    \
	"<os><type arch='x86_64' machine='q35'>hvm</type></os>" body "</domain>"
#define DEVICES(body) DOMAIN("<devices>" body "</devices>")
