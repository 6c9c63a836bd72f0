/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Definitions are files, ROOT/etc/qemu/NAME.xml; an autostarted guest has a
 * symbolic link in ROOT/etc/qemu/autostart. What runs is written down in
 * ROOT/run/qemu/NAME.xml, so that the next keeld finds it. Every file is
 * replaced as a whole: there are no half-written ones.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guest.h"
#include "util/log.h"

#define FILE_MAX_BYTES (32u << 20)

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= n;
	}
	return 0;
}

int store_write_file(int dirfd, const char *name, const char *text, size_t len, bool durable, struct err *err)
{
	char temporary[NAME_MAX + 1];
	int fd, ret;

	if (snprintf(temporary, sizeof(temporary), "%s.new", name) >= (int)sizeof(temporary))
		return err_set(err, ENAMETOOLONG, "cannot save '%s': the name is too long for a file", name);
	fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set_errno(err, errno, "cannot create file '%s'", temporary);
	ret = write_all(fd, text, len);
	if (!ret && durable && fsync(fd))
		ret = -errno;
	if (close(fd) && !ret)
		ret = -errno;
	if (!ret && renameat(dirfd, temporary, dirfd, name))
		ret = -errno;
	if (!ret)
		return 0;
	unlinkat(dirfd, temporary, 0);
	return err_set_errno(err, -ret, "cannot write data to file '%s'", name);
}

static int file_name(char name[NAME_MAX + 1], const char *guest, struct err *err)
{
	/* ".new" has to fit as well */
	if (snprintf(name, NAME_MAX + 1, "%s.xml", guest) > NAME_MAX - 4)
		return err_set(err, ENAMETOOLONG, "the name '%s' is too long for a file", guest);
	return 0;
}

int store_save_config(const struct guest *g, const struct domain *def, struct err *err)
{
	static const char head[] = "<!--\n"
				   "Written by keeld. Change it with `virsh edit`: changes made here\n"
				   "are overwritten and lost.\n"
				   "-->\n\n";
	char name[NAME_MAX + 1], *xml, *text = NULL;
	int ret = file_name(name, g->name, err), len;

	if (ret)
		return ret;
	xml = domain_format(def, DOMAIN_FORMAT_SECURE);
	len = xml ? asprintf(&text, "%s%s", head, xml) : -1;
	ret = len < 0 ? err_set(err, ENOMEM, "no memory to save '%s'", g->name)
		      : store_write_file(g->daemon->config_dir, name, text, len, true, err);
	free(text);
	free(xml);
	return ret;
}

int store_delete_config(const struct daemon *d, const char *guest, struct err *err)
{
	char name[NAME_MAX + 1];
	int ret = file_name(name, guest, err);

	if (ret)
		return ret;
	if (unlinkat(d->autostart_dir, name, 0) && errno != ENOENT)
		return err_set_errno(err, errno, "Failed to unlink '%s'", name);
	if (unlinkat(d->config_dir, name, 0) && errno != ENOENT)
		return err_set_errno(err, errno, "cannot remove config %s", name);
	fsync(d->config_dir);
	return 0;
}

int store_set_autostart(const struct guest *g, bool on, struct err *err)
{
	char name[NAME_MAX + 1], target[NAME_MAX + 8];
	int ret = file_name(name, g->name, err);

	if (ret)
		return ret;
	snprintf(target, sizeof(target), "../%s", name);
	if (on && symlinkat(target, g->daemon->autostart_dir, name) && errno != EEXIST)
		return err_set_errno(err, errno, "Failed to create symlink '%s' to '%s'", name, target);
	if (!on && unlinkat(g->daemon->autostart_dir, name, 0) && errno != ENOENT)
		return err_set_errno(err, errno, "Failed to unlink '%s'", name);
	fsync(g->daemon->autostart_dir);
	return 0;
}

/* ---- What runs ------------------------------------------------------------- */

void store_save_live(const struct guest *g)
{
	struct err err = ERR_INIT;
	char name[NAME_MAX + 1], *xml = NULL, *text = NULL;
	const char *tty = guest_tty(g);
	int len = -1;

	if (!g->live || file_name(name, g->name, NULL))
		return;
	xml = domain_format(g->live, DOMAIN_FORMAT_LIVE | DOMAIN_FORMAT_SECURE);
	if (xml)
		len = asprintf(&text, "<domstatus state='%d' reason='%d' pid='%d' start='%llu' monitor='%d.monitor' tty='%s'>\n%s</domstatus>\n",
			       g->state, g->reason, guest_pid(g), (unsigned long long)guest_start_time(g), g->id, tty ? tty : "",
			       xml);
	if (len < 0)
		err_set(&err, ENOMEM, "no memory");
	else
		store_write_file(g->daemon->run_dir, name, text, len, false, &err);
	if (err.code)
		log_line(LOG_ERROR, "the state of the guest '%s' is not saved: %s", g->name, err_msg(&err));
	free(text);
	free(xml);
}

void store_delete_live(const struct guest *g)
{
	char name[NAME_MAX + 1];

	if (!file_name(name, g->name, NULL))
		unlinkat(g->daemon->run_dir, name, 0);
}

/* ---- Reading --------------------------------------------------------------- */

/* A whole file, malloced and ended by NUL, or NULL. */
static char *read_file(int dirfd, const char *name, size_t *len, struct err *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	size_t at = 0;
	struct stat st;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, &st))
		err_set_errno(err, errno, "cannot read %s", name);
	else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX_BYTES)
		err_set(err, EINVAL, "%s is no definition", name);
	else if (!(text = malloc(st.st_size + 1)))
		err_set(err, ENOMEM, "no memory for %s", name);
	while (text && n && at < (size_t)st.st_size) {
		n = read(fd, text + at, st.st_size - at);
		if (n < 0 && errno != EINTR) {
			err_set_errno(err, errno, "cannot read %s", name);
			free(text);
			text = NULL;
		}
		at += n > 0 ? n : 0;
	}
	if (text)
		text[at] = 0;
	*len = at;
	if (fd >= 0)
		close(fd);
	return text;
}

static bool is_definition(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && name[0] != '.' && !strcmp(name + len - 4, ".xml");
}

static int names_file(const struct domain *def, const char *file, struct err *err)
{
	size_t len = strlen(file) - 4;

	if (!strncmp(def->name, file, len) && !def->name[len])
		return 0;
	return err_set(err, EINVAL, "Domain config filename '%s' does not match domain name '%s'", file, def->name);
}

static int load_config(struct daemon *d, const char *file, struct err *err)
{
	struct domain *def = NULL;
	struct guest *g = NULL;
	size_t len;
	char *text = read_file(d->config_dir, file, &len, err);
	int ret = -1;

	if (text)
		def = domain_parse(text, DOMAIN_PARSE_SKIP_CHECK, &d->caps, err);
	free(text);
	if (!def || names_file(def, file, err))
		goto out;
	if (guest_by_uuid(d, def->uuid.bytes)) {
		err_set(err, EEXIST, "another guest has the same UUID");
		goto out;
	}
	g = guest_new(d, def->name, def->uuid.bytes);
	if (!g || guest_add(g)) {
		err_set(err, ENOMEM, "no memory");
		goto out;
	}
	guest_put(g); /* the table has it */
	g->config = def;
	g->autostart = !faccessat(d->autostart_dir, file, F_OK, 0);
	guest_pack(g);
	return 0;
out:
	guest_put(g);
	domain_free(def);
	return ret;
}

static long attribute(xmlNode *node, const char *name)
{
	xmlChar *text = xmlGetProp(node, BAD_CAST name);
	long v = text ? strtol((char *)text, NULL, 10) : -1;

	xmlFree(text);
	return v;
}

/* The <domain> inside <domstatus>, as text of its own. */
static struct domain *inner_domain(xmlDoc *doc, xmlNode *root, struct daemon *d, struct err *err)
{
	xmlBuffer *buf = xmlBufferCreate();
	struct domain *def = NULL;
	xmlNode *n = root->children;

	while (n && (n->type != XML_ELEMENT_NODE || strcmp((const char *)n->name, "domain")))
		n = n->next;
	if (n && buf && xmlNodeDump(buf, doc, n, 0, 0) >= 0)
		def = domain_parse((const char *)xmlBufferContent(buf), DOMAIN_PARSE_STATUS | DOMAIN_PARSE_SKIP_CHECK | DOMAIN_PARSE_NO_FILL,
				   &d->caps, err);
	else
		err_set(err, EINVAL, "there is no definition in it");
	xmlBufferFree(buf);
	return def;
}

static int adopt(struct daemon *d, struct domain *live, xmlNode *root, struct err *err)
{
	struct guest *g = guest_by_uuid(d, live->uuid.bytes);
	xmlChar *monitor = xmlGetProp(root, BAD_CAST "monitor"), *tty = xmlGetProp(root, BAD_CAST "tty"),
		*start = xmlGetProp(root, BAD_CAST "start");
	int ret = 0;

	if (g) {
		guest_get(g);
	} else {
		g = guest_new(d, live->name, live->uuid.bytes);
		if (!g || guest_add(g))
			ret = err_set(err, ENOMEM, "no memory");
	}
	if (!ret && (!monitor || strchr((char *)monitor, '/') || !live->id.set || live->id.value > INT_MAX))
		ret = err_set(err, EINVAL, "it does not say where its monitor is");
	if (ret) {
		domain_free(live);
	} else {
		g->live = live;
		g->id = (int)live->id.value;
		if (g->id > d->guests.last_id)
			d->guests.last_id = g->id;
		g->state = attribute(root, "state");
		g->reason = attribute(root, "reason");
		guest_reconnect(g, attribute(root, "pid"), start ? strtoull((char *)start, NULL, 10) : 0, (char *)monitor,
				tty && *tty ? (char *)tty : NULL);
	}
	guest_put(g);
	xmlFree(monitor);
	xmlFree(tty);
	xmlFree(start);
	return ret;
}

static int load_live(struct daemon *d, const char *file, struct err *err)
{
	size_t len;
	char *text = read_file(d->run_dir, file, &len, err);
	xmlDoc *doc = text ? xmlReadMemory(text, (int)len, file, NULL, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)
			   : NULL;
	xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	struct domain *live = root ? inner_domain(doc, root, d, err) : NULL;

	if (text && !root)
		err_set(err, EINVAL, "it is no XML");
	if (live && !names_file(live, file, err))
		adopt(d, live, root, err);
	else
		domain_free(live);
	xmlFreeDoc(doc);
	free(text);
	return err->code ? -err->code : 0;
}

/* Each definition by itself: one that can't be used does not keep the others from being loaded. */
static int load_all(struct daemon *d, int dirfd, const char *what, int (*load)(struct daemon *, const char *, struct err *),
		    struct err *err)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return err_set_errno(err, errno, "cannot list the %s", what);
	}
	while ((e = readdir(dir))) {
		struct err why = ERR_INIT;

		if (is_definition(e->d_name) && load(d, e->d_name, &why))
			log_line(LOG_ERROR, "%s '%s' is skipped: %s", what, e->d_name, err_msg(&why));
	}
	closedir(dir);
	return 0;
}

int store_load(struct daemon *d, struct err *err)
{
	int ret = load_all(d, d->config_dir, "the definition", load_config, err);

	return ret ? ret : load_all(d, d->run_dir, "the state", load_live, err);
}
