/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of attributes and elements: text to members and back. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/table.h"

int xml_no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "a definition");
}

uint64_t xml_unit_bytes(const char *unit)
{
	static const char powers[] = "kmgtpe";
	const char *at;
	unsigned n;
	uint64_t bytes = 1, step;

	if (!strcmp(unit, "b") || !strcmp(unit, "byte") || !strcmp(unit, "bytes"))
		return 1;
	at = *unit ? strchr(powers, tolower((unsigned char)*unit)) : NULL;
	if (!at)
		return 0;
	n = at - powers + 1;
	if (!unit[1] || !strcasecmp(unit + 1, "iB"))
		step = 1024;
	else if (!strcasecmp(unit + 1, "B"))
		step = 1000;
	else
		return 0;
	while (n--)
		bytes *= step;
	return bytes;
}

int xml_number(const char *text, uint64_t *value)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10);
	if (errno)
		return -ERANGE;
	while (isspace((unsigned char)*end))
		end++;
	return *end ? -EINVAL : 0;
}

static int parse_signed(const char *text, int64_t *value)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	if (!isdigit((unsigned char)text[*text == '-' || *text == '+']))
		return -EINVAL;
	errno = 0;
	*value = strtoll(text, &end, 10);
	if (errno)
		return -ERANGE;
	while (isspace((unsigned char)*end))
		end++;
	return *end ? -EINVAL : 0;
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

int xml_uuid_parse(const char *text, uint8_t uuid[16])
{
	while (isspace((unsigned char)*text))
		text++;
	for (unsigned i = 0; i < 16; i++) {
		while (*text == '-' || isspace((unsigned char)*text))
			text++;
		if (hex_digit(text[0]) < 0 || hex_digit(text[1]) < 0)
			return -EINVAL;
		uuid[i] = hex_digit(text[0]) << 4 | hex_digit(text[1]);
		text += 2;
	}
	while (isspace((unsigned char)*text))
		text++;
	return *text ? -EINVAL : 0;
}

void xml_uuid_text(const uint8_t uuid[16], char text[37])
{
	for (unsigned i = 0, at = 0; i < 16; i++) {
		at += sprintf(text + at, "%02x", uuid[i]);
		if (i == 3 || i == 5 || i == 7 || i == 9)
			text[at++] = '-';
	}
	text[36] = '\0';
}

int xml_mac_parse(const char *text, uint8_t mac[6])
{
	for (unsigned i = 0; i < 6; i++) {
		char *end;
		unsigned long byte;

		if (!isxdigit((unsigned char)*text))
			return -EINVAL;
		byte = strtoul(text, &end, 16);
		if (byte > 255 || end - text > 2 || *end != (i < 5 ? ':' : '\0'))
			return -EINVAL;
		mac[i] = byte;
		text = end + 1;
	}
	return 0;
}

/* Libvirt names the attribute, or for an element's text the element. */
static int bad_value(const char *attr, const char *element, const char *text, const char *expected, struct err *err)
{
	if (attr)
		return err_set(err, EINVAL, "Invalid value for attribute '%s' in element '%s': '%.200s'.%s%s", attr, element,
			       text, *expected ? " " : "", expected);
	return err_set(err, EINVAL, "Invalid value '%.200s' for element or attribute './%s[1]'", text, element);
}

static int parse_enum(const struct xml_field *f, unsigned *member, const char *text, const char *attr,
		      const char *element, struct err *err)
{
	unsigned i;

	for (i = 1; f->names[i]; i++)
		if (!strcmp(text, f->names[i])) {
			*member = i;
			return 0;
		}
	for (i++; f->names[i]; i++)
		if (!strcmp(text, f->names[i]))
			return attr ? err_set(err, ENOTSUP, "element '%s' with %s='%s' is not supported by Keel", element,
					      attr, text) :
				      err_set(err, ENOTSUP, "element '%s' with value '%s' is not supported by Keel",
					      element, text);
	return bad_value(attr, element, text, "", err);
}

static int parse_size(const struct xml_field *f, void *member, const char *text, const char *unit, const char *attr,
		      const char *element, struct err *err)
{
	uint64_t n, scale = f->value == XML_OPTBYTES ? 1 : 1024;
	unsigned __int128 bytes;

	if (xml_number(text, &n))
		return bad_value(attr, element, text, "Expected non-negative integer value", err);
	if (unit) {
		scale = xml_unit_bytes(unit);
		if (!scale)
			return err_set(err, ENOENT, "unknown suffix '%.100s'", unit);
	}
	bytes = (unsigned __int128)n * scale;
	if (f->value != XML_OPTBYTES)
		bytes = (bytes + 1023) / 1024;
	if (bytes > INT64_MAX / 1024)
		return err_set(err, EOVERFLOW, "value too large: %.100s%s", text, unit ? unit : "KiB");
	if (f->value == XML_KIB)
		*(uint64_t *)member = bytes;
	else
		*(struct opt64 *)member = (struct opt64){ bytes, true };
	return 0;
}

static int parse_unsigned(const struct xml_field *f, void *member, const char *text, const char *attr,
			  const char *element, struct err *err)
{
	bool wide = f->value == XML_OPT64;
	uint64_t n;

	if (xml_number(text, &n) || (!wide && n > UINT32_MAX))
		return bad_value(attr, element, text, "Expected non-negative integer value", err);
	if (!n && f->flags & XML_NONZERO)
		return attr ? err_set(err, EINVAL, "Invalid value for attribute '%s' in element '%s': Zero is not permitted",
				      attr, element) :
			      bad_value(attr, element, text, "Zero is not permitted", err);
	if (f->value == XML_U32)
		*(uint32_t *)member = n;
	else if (wide)
		*(struct opt64 *)member = (struct opt64){ n, true };
	else
		*(struct opt32 *)member = (struct opt32){ n, true };
	return 0;
}

static int parse_tristate(const char *yes, const char *no, enum tristate *member, const char *text, const char *attr,
			  const char *element, struct err *err)
{
	if (!strcmp(text, yes))
		*member = TRI_YES;
	else if (!strcmp(text, no))
		*member = TRI_NO;
	else
		return bad_value(attr, element, text, "", err);
	return 0;
}

int xml_value_parse(const struct xml_field *f, void *member, const char *text, const char *unit, const char *attr,
		    const char *element, struct err *err)
{
	struct optint *i = member;
	struct opt_uuid *uuid = member;
	struct opt_mac *mac = member;

	static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:+@/%-";
	unsigned which;
	int ret = 0;

	if (f->value == XML_WORD)
		ret = parse_enum(f, &which, text, attr, element, err);
	else if (f->value == XML_PATH && (*text != '/' || strpbrk(text, "\n\r\t")))
		ret = bad_value(attr, element, text, "Expected an absolute path", err);
	else if (f->value == XML_NAME && strlen(text) != strspn(text, name_chars))
		ret = bad_value(attr, element, text, "Expected a name", err);
	if (ret)
		return ret;
	switch ((enum xml_value)f->value) {
	case XML_STR:
	case XML_WORD:
	case XML_PATH:
	case XML_NAME:
	case XML_ALIAS:
		free(*(char **)member);
		*(char **)member = strdup(text);
		return *(char **)member ? 0 : xml_no_memory(err);
	case XML_BOOL:
		*(bool *)member = true;
		return 0;
	case XML_YESNO:
		return parse_tristate("yes", "no", member, text, attr, element, err);
	case XML_ONOFF:
		return parse_tristate("on", "off", member, text, attr, element, err);
	case XML_ENUM:
		return parse_enum(f, member, text, attr, element, err);
	case XML_U32:
	case XML_OPT32:
	case XML_OPT64:
	case XML_HEX32:
	case XML_HEXDIGIT:
		return parse_unsigned(f, member, text, attr, element, err);
	case XML_OPTINT:
		if (parse_signed(text, &i->value))
			return bad_value(attr, element, text, "Expected integer value", err);
		i->set = true;
		return 0;
	case XML_UUID:
		if (xml_uuid_parse(text, uuid->bytes))
			return bad_value(attr, element, text, "Expected UUID", err);
		uuid->set = true;
		return 0;
	case XML_MAC:
		if (xml_mac_parse(text, mac->bytes))
			return err_set(err, EINVAL, "unable to parse mac address '%.100s'", text);
		if (mac->bytes[0] & 1)
			return err_set(err, EINVAL, "expected unicast mac address, found multicast '%.100s'", text);
		mac->set = true;
		return 0;
	case XML_KIB:
	case XML_OPTKIB:
	case XML_OPTBYTES:
		return parse_size(f, member, text, unit, attr, element, err);
	}
	return 0;
}

bool xml_value_set(const struct xml_field *f, const void *member)
{
	switch ((enum xml_value)f->value) {
	case XML_STR:
	case XML_WORD:
	case XML_PATH:
	case XML_NAME:
	case XML_ALIAS:
		return *(char *const *)member;
	case XML_BOOL:
		return *(const bool *)member;
	case XML_YESNO:
	case XML_ONOFF:
	case XML_ENUM:
		return *(const unsigned *)member;
	case XML_U32:
		return *(const uint32_t *)member;
	case XML_OPT32:
	case XML_HEX32:
	case XML_HEXDIGIT:
		return ((const struct opt32 *)member)->set;
	case XML_OPT64:
	case XML_OPTKIB:
	case XML_OPTBYTES:
		return ((const struct opt64 *)member)->set;
	case XML_OPTINT:
		return ((const struct optint *)member)->set;
	case XML_UUID:
		return ((const struct opt_uuid *)member)->set;
	case XML_MAC:
		return ((const struct opt_mac *)member)->set;
	case XML_KIB:
		return *(const uint64_t *)member;
	}
	return false;
}

const char *xml_value_text(const struct xml_field *f, const void *member, char tmp[64])
{
	const struct opt_mac *mac = member;

	switch ((enum xml_value)f->value) {
	case XML_STR:
	case XML_WORD:
	case XML_PATH:
	case XML_NAME:
	case XML_ALIAS:
		return *(char *const *)member;
	case XML_BOOL:
		return "";
	case XML_YESNO:
		return *(const enum tristate *)member == TRI_YES ? "yes" : "no";
	case XML_ONOFF:
		return *(const enum tristate *)member == TRI_YES ? "on" : "off";
	case XML_ENUM:
		return f->names[*(const unsigned *)member];
	case XML_U32:
		sprintf(tmp, "%" PRIu32, *(const uint32_t *)member);
		break;
	case XML_OPT32:
		sprintf(tmp, "%" PRIu32, ((const struct opt32 *)member)->value);
		break;
	case XML_HEX32:
		sprintf(tmp, "0x%" PRIx32, ((const struct opt32 *)member)->value);
		break;
	case XML_HEXDIGIT:
		sprintf(tmp, "0x%0*" PRIx32, f->width, ((const struct opt32 *)member)->value);
		break;
	case XML_OPT64:
	case XML_OPTKIB:
	case XML_OPTBYTES:
		sprintf(tmp, "%" PRIu64, ((const struct opt64 *)member)->value);
		break;
	case XML_OPTINT:
		sprintf(tmp, "%" PRId64, ((const struct optint *)member)->value);
		break;
	case XML_UUID:
		xml_uuid_text(((const struct opt_uuid *)member)->bytes, tmp);
		break;
	case XML_MAC:
		sprintf(tmp, "%02x:%02x:%02x:%02x:%02x:%02x", mac->bytes[0], mac->bytes[1], mac->bytes[2], mac->bytes[3],
			mac->bytes[4], mac->bytes[5]);
		break;
	case XML_KIB:
		sprintf(tmp, "%" PRIu64, *(const uint64_t *)member);
		break;
	}
	return tmp;
}

const char *xml_value_unit(const struct xml_field *f)
{
	if (f->place > XML_ELEM_ATTR)
		return NULL;
	return f->value == XML_KIB || f->value == XML_OPTKIB ? "KiB" : f->value == XML_OPTBYTES ? "bytes" : NULL;
}
