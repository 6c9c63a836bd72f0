/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of disks on servers: those of iSCSI and of Ceph. What is taken has all that must be there. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/iscsi_name.h"
#include "image/rbd_name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct iscsi_name iscsi;
	struct rbd_name rbd;
	char *text = malloc(len + 9);

	if (!text)
		abort();
	memcpy(text, "iscsi://", 8);
	memcpy(text + 8, data, len);
	text[len + 8] = 0;
	if (!iscsi_name_parse(&iscsi, text, NULL)) {
		if (!*iscsi.portal || !*iscsi.target || !*iscsi.initiator || iscsi.lun < 0 || iscsi.lun > 16383 ||
		    !strchr(iscsi.portal, ':'))
			abort();
		iscsi_name_free(&iscsi);
	}
	memcpy(text + 4, "rbd:", 4);
	if (!rbd_name_parse(&rbd, text + 4, NULL)) {
		if (!*rbd.pool || !*rbd.image || (rbd.space && !*rbd.space) || (rbd.snapshot && !*rbd.snapshot))
			abort();
		rbd_name_free(&rbd);
	}
	free(text);
	return 0;
}
