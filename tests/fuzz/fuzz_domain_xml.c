/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domain XML and device XML: read, printed, read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/domain.h"

static void whole(const char *xml, const struct domain_caps *caps)
{
	struct domain *def = domain_parse(xml, 0, caps, NULL), *again;
	char *text, *second;

	if (!def)
		return;
	text = domain_format(def, DOMAIN_FORMAT_LIVE);
	again = domain_parse(text, DOMAIN_PARSE_STATUS, caps, NULL);
	if (!again)
		__builtin_trap();
	second = domain_format(again, DOMAIN_FORMAT_LIVE);
	if (strlen(text) != strlen(second)) /* the order of controllers may change */
		__builtin_trap();
	free(domain_metadata_get(def, "urn:x", NULL));
	free(text);
	free(second);
	domain_free(again);
	domain_free(def);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct domain_caps caps;
	struct domain_device dev;
	char *xml = malloc(len + 1);

	if (!xml)
		return 0;
	memcpy(xml, data, len);
	xml[len] = '\0';
	domain_caps_init(&caps);
	caps.kvm = true;
	caps.emulator = "/usr/bin/keel-vmm";
	caps.devices = UINT64_MAX;
	whole(xml, &caps);
	if (!domain_device_parse(xml, 0, NULL, &caps, &dev, NULL)) {
		free(domain_device_format(&dev, 0));
		domain_device_free(&dev);
	}
	free(xml);
	return 0;
}
