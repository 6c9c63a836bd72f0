/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside src/model: short forms for tables. S is the C struct's tag, defined around each table as a macro. */
#pragma once
#include "model/table.h"

#define ATTR(text, m, kind, ...)                                                                                       \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ATTR, .value = XML_##kind, ##__VA_ARGS__ }
#define ATTR_ENUM(text, m, list, ...)                                                                                  \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ATTR, .value = XML_ENUM, .names = list, ##__VA_ARGS__ }
#define ATTR_WORD(text, m, list, ...)                                                                                  \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ATTR, .value = XML_WORD, .names = list, ##__VA_ARGS__ }
#define TEXT(m, kind, ...) { .name = "", .offset = XML_AT(S, m), .place = XML_TEXT, .value = XML_##kind, ##__VA_ARGS__ }
#define ELEM(text, m, kind, ...)                                                                                       \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ELEM, .value = XML_##kind, ##__VA_ARGS__ }
#define ELEM_ENUM(text, m, list, ...)                                                                                  \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ELEM, .value = XML_ENUM, .names = list, ##__VA_ARGS__ }
#define ELEM_ATTR(text, at, m, kind, ...)                                                                              \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ELEM_ATTR, .value = XML_##kind, .attr = at, ##__VA_ARGS__ }
#define ELEM_ATTR_ENUM(text, at, m, list, ...)                                                                         \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ELEM_ATTR, .value = XML_ENUM, .attr = at, .names = list,  \
	  ##__VA_ARGS__ }
#define ELEM_ATTR_WORD(text, at, m, list, ...)                                                                         \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_ELEM_ATTR, .value = XML_WORD, .attr = at, .names = list,  \
	  ##__VA_ARGS__ }
#define CHILD(text, m, t, ...)                                                                                         \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_CHILD, .type = &t, ##__VA_ARGS__ }
#define CHILDREN(text, m, t, ...)                                                                                      \
	{ .name = text, .offset = XML_AT(S, m), .place = XML_LIST, .type = &t, ##__VA_ARGS__ }
#define IGNORED_ATTR(text) { .name = text, .place = XML_IGNORED_ATTR }
#define IGNORED_ELEM(text) { .name = text, .place = XML_IGNORED_ELEM }
#define ABI .flags = XML_ABI
#define LIVE .flags = XML_LIVE
#define REQUIRED .flags = XML_REQUIRED

#define VIRTIO_ATTRS                                                                                                   \
	ATTR("iommu", virtio.iommu, ONOFF, ABI), ATTR("ats", virtio.ats, ONOFF, ABI),                                  \
		ATTR("packed", virtio.packed, ONOFF, ABI), ATTR("page_per_vq", virtio.page_per_vq, ONOFF, ABI)
/* At the end of every device. Only those that can be booted from have <boot>. */
#define INFO                                                                                                           \
	ELEM_ATTR("alias", "name", info.alias, ALIAS), ELEM_ATTR("acpi", "index", info.acpi_index, OPT32, ABI),        \
		CHILD("address", info.address, dom_address_xml, ABI)
#define BOOT ELEM_ATTR("boot", "order", info.boot_order, OPT32, .flags = XML_NONZERO)
