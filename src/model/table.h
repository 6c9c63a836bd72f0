/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * XML elements as tables. One description of an element (its C struct, its
 * attributes and children in libvirt's order) is what parsing, formatting,
 * copying, comparing and freeing walk. What a table doesn't list is what Keel
 * refuses: an unknown element or attribute is an error that names it.
 */
#pragma once
#include <libxml/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/types.h"
#include "model/xbuf.h"
#include "util/err.h"

/* Where in the element a member is. */
enum xml_place {
	XML_ATTR,      /* an attribute */
	XML_TEXT,      /* the element's own text */
	XML_ELEM,      /* a child element that holds just the value */
	XML_ELEM_ATTR, /* a child element with one attribute, `attr`, that holds the value */
	XML_CHILD,     /* pointer to the struct of a child element */
	XML_LIST,      /* LIST() of such */
	XML_RAW,       /* char *: the child element as it stands */
	XML_IGNORED_ATTR, /* known, and says nothing that the rest doesn't: dropped, as libvirt drops it */
	XML_IGNORED_ELEM,
};

/* How a value is stored and written. */
enum xml_value {
	XML_STR,   /* char * */
	XML_WORD,  /* char *, one of `names` */
	XML_PATH,  /* char *, absolute */
	XML_NAME,  /* char *: of a host, a device or the like: no white space or mark-up */
	XML_BOOL,  /* bool: the empty element is there */
	XML_YESNO, /* enum tristate */
	XML_ONOFF,
	XML_ENUM,   /* an enum, by `names` */
	XML_U32,    /* uint32_t, 0: absent */
	XML_OPT32,  /* struct opt32 */
	XML_HEX32,  /* the same, written 0x%x */
	XML_OPT64,  /* struct opt64 */
	XML_OPTINT, /* struct optint */
	XML_UUID,   /* struct opt_uuid */
	XML_MAC,    /* struct opt_mac */
	XML_KIB,    /* uint64_t KiB with an attribute `unit` beside it; 0: absent */
	XML_OPTKIB, /* struct opt64, the same */
	XML_OPTBYTES, /* struct opt64: bytes with unit='bytes' */
	XML_ALIAS,  /* char *: a user's own ("ua-...") always, others live only */
	XML_HEXDIGIT, /* struct opt32 in hex with `width` digits */
};

enum {
	XML_REQUIRED = 1, /* libvirt: "Missing required attribute ..." */
	XML_LIVE = 2,     /* parsed and printed only with the live state */
	XML_ABI = 8,      /* the guest sees it */
	XML_NONZERO = 32,
	XML_KEEP_EMPTY = 64, /* of a child: printed even with nothing in it */
};

struct xml_type;

struct xml_field {
	const char *name;
	uint16_t offset;
	uint8_t place, value, flags, width;
	const char *attr; /* XML_ELEM_ATTR */
	union {
		/*
		 * XML_ENUM and XML_WORD: names[1], names[2], ... up to NULL are the enum's; after
		 * it come, up to another NULL, names that libvirt knows and Keel refuses.
		 */
		const char *const *names;
		const struct xml_type *type; /* XML_CHILD, XML_LIST */
	};
};

#define XML_PARSE_LIVE 1u

struct xml_parse {
	unsigned flags; /* XML_PARSE_LIVE */
	unsigned depth;
};

struct xml_type {
	const char *name; /* for messages: "disk" */
	size_t size;
	const struct xml_field *fields;
	unsigned n;
	/* After the members are read: what one member says about another. May be NULL. */
	int (*parsed)(void *obj, const struct xml_parse *p, struct err *err);
	/* Instead of the table where the attributes depend on each other (addresses). The struct holds no pointer but strings listed in fields. */
	int (*parse)(void *obj, xmlNode *node, const struct xml_parse *p, struct err *err);
	void (*format)(struct xbuf *b, const void *obj, unsigned flags);
};

#define XML_TYPE(var, text, c_type, table, ...)                                                                        \
	const struct xml_type var = {                                                                                  \
		.name = text, .size = sizeof(c_type), .fields = table, .n = sizeof(table) / sizeof(table[0]), ##__VA_ARGS__ \
	}
#define XML_AT(t, m) (uint16_t) offsetof(struct t, m)

/* The object for an element, malloced; NULL and err. */
void *xml_parse_object(const struct xml_type *type, xmlNode *node, const struct xml_parse *p, struct err *err);

#define XML_FORMAT_LIVE 1u
/* <name ...>...</name> on lines of their own. An element with nothing in it is left out unless keep_empty. */
void xml_format_object(struct xbuf *b, const struct xml_type *type, const char *name, const void *obj, unsigned flags,
		       bool keep_empty);
void *xml_copy_object(const struct xml_type *type, const void *obj); /* NULL without memory */
void xml_free_object(const struct xml_type *type, void *obj);        /* NULL is allowed */
bool xml_equal_object(const struct xml_type *type, const void *a, const void *b, unsigned only_flags);

/*
 * The first member with XML_ABI that differs: 0, or -ENOTSUP and libvirt's
 * sentence "Target WHAT x does not match source y".
 */
int xml_abi_object(const struct xml_type *type, const char *what, const void *src, const void *dst, struct err *err);

/* Untyped access to LIST() members. */
struct xml_list {
	void **v;
	unsigned n;
};
bool xml_list_add(struct xml_list *list, void *obj);             /* false without memory */
bool xml_list_insert(struct xml_list *list, unsigned at, void *obj);
void xml_list_remove(struct xml_list *list, unsigned at);        /* doesn't free the object */
#define LIST_ADD(list, obj) xml_list_add((struct xml_list *)(list), obj)

/* ---- Values --------------------------------------------------------------- */

/* `attr` NULL: the text of `element`. */
int xml_value_parse(const struct xml_field *f, void *member, const char *text, const char *unit, const char *attr,
		    const char *element, struct err *err);
bool xml_value_set(const struct xml_field *f, const void *member);
/* Stored as char *. */
static inline bool xml_value_is_text(const struct xml_field *f)
{
	return f->value == XML_STR || f->value == XML_WORD || f->value == XML_PATH || f->value == XML_NAME ||
	       f->value == XML_ALIAS;
}
/* The text, in `tmp` or a constant or the member itself. */
const char *xml_value_text(const struct xml_field *f, const void *member, char tmp[64]);
const char *xml_value_unit(const struct xml_field *f); /* NULL: the value has none */

/* Bytes for "KiB", "MB", ...; 0 for an unknown unit. */
uint64_t xml_unit_bytes(const char *unit);
int xml_uuid_parse(const char *text, uint8_t uuid[16]); /* 0 or -EINVAL; dashes and white space as libvirt allows */
void xml_uuid_text(const uint8_t uuid[16], char text[37]);
int xml_mac_parse(const char *text, uint8_t mac[6]);
/* Decimal, or 0x hex where the text has it; white space around. */
int xml_number(const char *text, uint64_t *value);

/* ---- Documents ------------------------------------------------------------ */

/* NULL and EBADMSG with libvirt's text: "(WHERE):LINE: MESSAGE\nCONTEXT\n^". xmlFreeDoc() it. */
xmlDoc *xml_doc_parse(const char *xml, const char *where, struct err *err);
/* Against a schema of libvirt's that the host has: 0, -EINVAL, or 0 where there is no such schema. */
int xml_doc_validate(xmlDoc *doc, const char *schema, struct err *err);
char *xml_node_raw(xmlNode *node); /* malloced */
int xml_no_memory(struct err *err);
