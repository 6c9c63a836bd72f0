/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Definitions as text: print, edit, describe. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/verb.h"

static int run_dumpxml(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	unsigned flags = 0;
	char *xml;

	if (!dom)
		return 1;
	flags |= cmd_has(c, "inactive") ? KEEL_XML_INACTIVE : 0;
	flags |= cmd_has(c, "security-info") ? KEEL_XML_SECURE : 0;
	flags |= cmd_has(c, "update-cpu") ? KEEL_XML_UPDATE_CPU : 0;
	flags |= cmd_has(c, "migratable") ? KEEL_XML_MIGRATABLE : 0;
	xml = keel_domain_xml(dom, flags, &c->error);
	keel_domain_free(dom);
	if (!xml)
		return cmd_fail(c, NULL);
	printf("%s", xml);
	keel_free(xml);
	return 0;
}

/* ---- edit ------------------------------------------------------------------ */

static int write_file(int fd, const char *text)
{
	FILE *f = fdopen(fd, "w");

	if (!f) {
		close(fd);
		return -errno;
	}
	fputs(text, f);
	return fclose(f) ? -errno : 0;
}

/* The editor is a command for the shell, as everywhere; the file's name is ours. */
static int run_editor(const char *path)
{
	const char *editor = getenv("VISUAL");
	char *command;
	int status;

	if (!editor || !*editor)
		editor = getenv("EDITOR");
	if (!editor || !*editor)
		editor = "editor";
	if (asprintf(&command, "%s %s", editor, path) < 0)
		return -ENOMEM;
	status = system(command);
	free(command);
	if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "error: the editor '%s' failed; it is chosen by VISUAL or EDITOR\n", editor);
		return -ECHILD;
	}
	return 0;
}

/* Define what has been edited. 0, 1: let's edit again, -1. */
static int define_edited(struct cmd *c, const char *path, const char *before)
{
	char *after = cmd_read_file(path), answer[16] = "n";
	struct keel_domain *dom = NULL;
	int ret = -1;

	if (!after)
		return -1;
	if (!strcmp(before, after)) {
		printf("Domain '%s' XML configuration not changed.\n", cmd_text(c, "domain"));
		ret = 0;
	} else if ((dom = keel_domain_define(c->conn, after, &c->error))) {
		printf("Domain '%s' XML configuration edited.\n", keel_domain_name(dom));
		ret = 0;
	} else {
		cmd_fail(c, NULL);
		if (isatty(STDIN_FILENO)) {
			printf("Failed. Try again? [y,n]: ");
			fflush(stdout);
			ret = fgets(answer, sizeof(answer), stdin) && *answer == 'y' ? 1 : -1;
		}
	}
	keel_domain_free(dom);
	free(after);
	return ret;
}

static int run_edit(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	char path[] = "/tmp/keelXXXXXX.xml", *before;
	int fd, ret;

	if (!dom)
		return 1;
	before = keel_domain_xml(dom, KEEL_XML_INACTIVE | KEEL_XML_SECURE, &c->error);
	keel_domain_free(dom);
	if (!before)
		return cmd_fail(c, NULL);
	fd = mkstemps(path, 4); /* mode 0600: it may have passwords */
	if (fd < 0 || write_file(fd, before)) {
		fprintf(stderr, "error: cannot write %s: %s\n", path, strerror(errno));
		ret = -1;
	} else {
		do {
			ret = run_editor(path);
			if (!ret)
				ret = define_edited(c, path, before);
		} while (ret > 0);
	}
	if (fd >= 0)
		unlink(path);
	keel_free(before);
	return ret ? 1 : 0;
}

/* ---- desc ------------------------------------------------------------------ */

/* virDomainMetadataType */
enum { METADATA_DESCRIPTION, METADATA_TITLE };

static int show_desc(struct cmd *c, struct keel_domain *dom, int type, unsigned flags)
{
	struct remote_domain_get_metadata_args args = { .dom = domain_wire(dom), .type = type, .flags = flags };
	struct remote_domain_get_metadata_ret ret = { 0 };

	if (!cmd_call(c, REMOTE_PROC_DOMAIN_GET_METADATA, &args, &ret))
		printf("%s\n", ret.metadata);
	else if (c->error.code == VIR_ERR_NO_DOMAIN_METADATA)
		printf(type == METADATA_TITLE ? "No title for domain: %s\n" : "No description for domain: %s\n", keel_domain_name(dom));
	else
		return cmd_fail(c, NULL);
	return 0;
}

static int run_desc(struct cmd *c)
{
	bool title = cmd_has(c, "title");
	struct remote_domain_set_metadata_args args = { .type = title ? METADATA_TITLE : METADATA_DESCRIPTION };
	struct keel_domain *dom;
	unsigned flags;
	char *text = NULL;
	size_t len;
	FILE *f;
	int status = 0;

	if (cmd_affect(c, &flags) || !(dom = cmd_domain(c)))
		return 1;
	if (!c->nmany) {
		status = show_desc(c, dom, args.type, flags);
		c->no_blank = !status;
	} else {
		f = open_memstream(&text, &len);
		for (unsigned n = 0; f && n < c->nmany; n++)
			fprintf(f, "%s%s", n ? " " : "", c->many[n]);
		if (f)
			fclose(f);
		args.dom = domain_wire(dom);
		args.metadata = text && *text ? text : NULL;
		args.flags = flags;
		if (cmd_call(c, REMOTE_PROC_DOMAIN_SET_METADATA, &args, NULL))
			status = cmd_fail(c, title ? "Failed to set new domain title" : "Failed to set new domain description");
		else if (!c->quiet)
			printf(title ? "Domain title updated successfully\n" : "Domain description updated successfully\n");
		c->no_blank = !status;
		free(text);
	}
	keel_domain_free(dom);
	return status;
}

static const struct opt dumpxml_opts[] = {
	OPT_THE_DOMAIN,
	{ "inactive", OPT_FLAG, 0, "the definition for the next start" },
	{ "security-info", OPT_FLAG, 0, "with passwords" },
	{ "update-cpu", OPT_FLAG, 0, "with the CPU spelled out" },
	{ "migratable", OPT_FLAG, 0, "for another host" },
	{ 0 },
};

static const struct opt domain_only[] = { OPT_THE_DOMAIN, { 0 } };

static const struct opt desc_opts[] = {
	OPT_THE_DOMAIN,
	{ "new-desc", OPT_TEXT, OPT_DATA | OPT_MANY, "the new one" },
	{ "title", OPT_FLAG, 0, "the title, not the description" },
	{ "config", OPT_FLAG, 0, "for the next start" },
	{ "live", OPT_FLAG, 0, "for the guest that runs" },
	{ "current", OPT_FLAG, 0, "as it is now" },
	{ 0 },
};

const struct verb text_verbs[] = {
	{ "dumpxml", "print a guest's XML", dumpxml_opts, run_dumpxml },
	{ "edit", "edit a guest's XML", domain_only, run_edit },
	{ "desc", "show or set a guest's description or title", desc_opts, run_desc },
	{ 0 },
};
