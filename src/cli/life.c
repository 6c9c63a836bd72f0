/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests' lives: define, start, stop, pause. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/console.h"
#include "cli/verb.h"

/* Verbs that do one thing to one guest and say one line. */
static int act(struct cmd *c, int (*fn)(struct cmd *c, struct keel_domain *dom), const char *what, const char *done)
{
	struct keel_domain *dom = cmd_domain(c);
	int status = 1;

	if (!dom)
		return 1;
	if (fn(c, dom)) {
		cmd_fail(c, "Failed to %s domain '%s'", what, keel_domain_name(dom));
	} else {
		if (!c->quiet)
			printf("Domain '%s' %s\n", keel_domain_name(dom), done);
		status = 0;
	}
	keel_domain_free(dom);
	return status;
}

static int do_suspend(struct cmd *c, struct keel_domain *dom)
{
	return keel_domain_suspend(dom, &c->error);
}

static int run_suspend(struct cmd *c)
{
	return act(c, do_suspend, "suspend", "suspended");
}

static int do_resume(struct cmd *c, struct keel_domain *dom)
{
	return keel_domain_resume(dom, &c->error);
}

static int run_resume(struct cmd *c)
{
	return act(c, do_resume, "resume", "resumed");
}

static int do_reset(struct cmd *c, struct keel_domain *dom)
{
	return keel_domain_reset(dom, &c->error);
}

static int run_reset(struct cmd *c)
{
	return act(c, do_reset, "reset", "was reset");
}

static int do_destroy(struct cmd *c, struct keel_domain *dom)
{
	return keel_domain_destroy(dom, cmd_has(c, "graceful") ? KEEL_DESTROY_GRACEFUL : 0, &c->error);
}

static int run_destroy(struct cmd *c)
{
	return act(c, do_destroy, "destroy", "destroyed");
}

/* --mode acpi,agent,...: virDomainShutdownFlagValues and virDomainRebootFlagValues, which agree. */
static int parse_mode(const struct cmd *c, unsigned *flags)
{
	static const char *const modes[] = { "acpi", "agent", "initctl", "signal", "paravirt" };
	char *copy = cmd_has(c, "mode") ? strdup(cmd_text(c, "mode")) : NULL, *save = NULL;
	int ret = 0;

	*flags = 0;
	for (char *word = copy ? strtok_r(copy, ",", &save) : NULL; word && !ret; word = strtok_r(NULL, ",", &save)) {
		unsigned n = 0;

		while (n < 5 && strcmp(word, modes[n]))
			n++;
		if (n == 5) {
			fprintf(stderr, "error: Unknown mode %s value, expecting 'acpi', 'agent', 'initctl', 'signal', or 'paravirt'\n", word);
			ret = -1;
		}
		*flags |= 1u << n;
	}
	free(copy);
	return ret;
}

static int do_shutdown(struct cmd *c, struct keel_domain *dom)
{
	unsigned flags;

	return parse_mode(c, &flags) ? -1 : keel_domain_shutdown(dom, flags, &c->error);
}

static int run_shutdown(struct cmd *c)
{
	unsigned flags;

	return parse_mode(c, &flags) ? 1 : act(c, do_shutdown, "shutdown", "is being shutdown");
}

static int do_reboot(struct cmd *c, struct keel_domain *dom)
{
	unsigned flags;

	return parse_mode(c, &flags) ? -1 : keel_domain_reboot(dom, flags, &c->error);
}

static int run_reboot(struct cmd *c)
{
	unsigned flags;

	return parse_mode(c, &flags) ? 1 : act(c, do_reboot, "reboot", "is being rebooted");
}

static int do_undefine(struct cmd *c, struct keel_domain *dom)
{
	unsigned flags = 0;

	flags |= cmd_has(c, "managed-save") ? KEEL_UNDEFINE_MANAGED_SAVE : 0;
	flags |= cmd_has(c, "snapshots-metadata") ? KEEL_UNDEFINE_SNAPSHOTS : 0;
	flags |= cmd_has(c, "checkpoints-metadata") ? KEEL_UNDEFINE_CHECKPOINTS : 0;
	flags |= cmd_has(c, "nvram") ? KEEL_UNDEFINE_NVRAM : 0;
	flags |= cmd_has(c, "keep-nvram") ? KEEL_UNDEFINE_KEEP_NVRAM : 0;
	return keel_domain_undefine(dom, flags, &c->error);
}

static int run_undefine(struct cmd *c)
{
	return act(c, do_undefine, "undefine", "has been undefined");
}

static int run_start(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	unsigned flags = (cmd_has(c, "paused") ? KEEL_START_PAUSED : 0u) | (cmd_has(c, "autodestroy") ? KEEL_START_AUTODESTROY : 0u);
	int status = 1;

	if (!dom)
		return 1;
	if (keel_domain_id(dom) >= 0) {
		cmd_fail(c, "Domain is already active");
	} else if (keel_domain_start(dom, flags, &c->error)) {
		cmd_fail(c, "Failed to start domain '%s'", keel_domain_name(dom));
	} else {
		if (!c->quiet)
			printf("Domain '%s' started\n", keel_domain_name(dom));
		status = cmd_has(c, "console") ? console_attach(c, dom, NULL, 0) : 0;
	}
	keel_domain_free(dom);
	return status;
}

static int run_define(struct cmd *c)
{
	struct remote_domain_define_xml_flags_args args = { .flags = cmd_has(c, "validate") ? 1 : 0 };
	struct remote_domain_define_xml_flags_ret ret = { 0 };
	char *xml = cmd_read_file(cmd_text(c, "file"));
	int status = 1;

	if (!xml)
		return 1;
	args.xml = xml;
	if (cmd_call(c, REMOTE_PROC_DOMAIN_DEFINE_XML_FLAGS, &args, &ret)) {
		cmd_fail(c, "Failed to define domain from %s", cmd_text(c, "file"));
	} else {
		if (!c->quiet)
			printf("Domain '%s' defined from %s\n", ret.dom.name, cmd_text(c, "file"));
		status = 0;
	}
	free(xml);
	return status;
}

/* ---- Marks ------------------------------------------------------------------ */

static int run_autostart(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	bool on = !cmd_has(c, "disable");
	int status = 0;

	if (!dom)
		return 1;
	if (keel_domain_set_autostart(dom, on, &c->error))
		status = cmd_fail(c, on ? "Failed to mark domain '%s' as autostarted" : "Failed to unmark domain '%s' as autostarted",
				  keel_domain_name(dom));
	else if (!c->quiet)
		printf(on ? "Domain '%s' marked as autostarted\n" : "Domain '%s' unmarked as autostarted\n", keel_domain_name(dom));
	keel_domain_free(dom);
	return status;
}

static int run_rename(struct cmd *c)
{
	struct keel_domain *dom = cmd_domain(c);
	struct remote_domain_rename_args args = { .new_name = (char *)cmd_text(c, "new-name") };
	int status = 0;

	if (!dom)
		return 1;
	args.dom = domain_wire(dom);
	if (cmd_call(c, REMOTE_PROC_DOMAIN_RENAME, &args, NULL))
		status = cmd_fail(c, NULL);
	else if (!c->quiet)
		printf("Domain successfully renamed\n");
	keel_domain_free(dom);
	return status;
}

static const struct opt domain_only[] = { OPT_THE_DOMAIN, { 0 } };

static const struct opt start_opts[] = {
	OPT_THE_DOMAIN,
	{ "console", OPT_FLAG, 0, "attach to its console" },
	{ "paused", OPT_FLAG, 0, "leave it paused" },
	{ "autodestroy", OPT_FLAG, 0, "it ends with this command's connection" },
	{ 0 },
};

static const struct opt mode_opts[] = {
	OPT_THE_DOMAIN,
	{ "mode", OPT_TEXT, 0, "how: acpi|agent|initctl|signal|paravirt, by commas" },
	{ 0 },
};

static const struct opt destroy_opts[] = {
	OPT_THE_DOMAIN,
	{ "graceful", OPT_FLAG, 0, "fail rather than kill it" },
	{ 0 },
};

static const struct opt undefine_opts[] = {
	OPT_THE_DOMAIN,
	{ "managed-save", OPT_FLAG, 0, "remove its saved state" },
	{ "snapshots-metadata", OPT_FLAG, 0, "remove what is known of its snapshots" },
	{ "checkpoints-metadata", OPT_FLAG, 0, "remove what is known of its checkpoints" },
	{ "nvram", OPT_FLAG, 0, "remove its NVRAM file" },
	{ "keep-nvram", OPT_FLAG, 0, "keep its NVRAM file" },
	{ 0 },
};

static const struct opt define_opts[] = {
	{ "file", OPT_TEXT, OPT_DATA | OPT_REQUIRED | OPT_FILE, "file with its XML" },
	{ "validate", OPT_FLAG, 0, "check the XML against the schema" },
	{ 0 },
};

static const struct opt autostart_opts[] = {
	OPT_THE_DOMAIN,
	{ "disable", OPT_FLAG, 0, "don't" },
	{ 0 },
};

static const struct opt rename_opts[] = {
	OPT_THE_DOMAIN,
	{ "new-name", OPT_TEXT, OPT_DATA | OPT_REQUIRED, "its new name" },
	{ 0 },
};

const struct verb life_verbs[] = {
	{ "define", "define a guest from its XML, or define it anew", define_opts, run_define },
	{ "undefine", "forget a guest's definition", undefine_opts, run_undefine },
	{ "start", "start a defined guest", start_opts, run_start },
	{ "shutdown", "ask a guest to shut down", mode_opts, run_shutdown },
	{ "reboot", "ask a guest to reboot", mode_opts, run_reboot },
	{ "reset", "reset a guest at once", domain_only, run_reset },
	{ "destroy", "stop a guest at once", destroy_opts, run_destroy },
	{ "suspend", "pause a guest", domain_only, run_suspend },
	{ "resume", "let a paused guest go on", domain_only, run_resume },
	{ "autostart", "start a guest with the daemon", autostart_opts, run_autostart },
	{ "domrename", "give a guest another name", rename_opts, run_rename },
	{ 0 },
};
