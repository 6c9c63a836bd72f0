/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine's options say that its sandbox has to leave. */
#include <stdlib.h>
#include <string.h>

#include "vmm/options.h"
#include "vmm/sandbox.h"

/* A back end's "unix:PATH", which may stand before other settings. */
static void add_own(struct sandbox_own *own, const char *text, bool settings)
{
	struct option_pair pairs[16];
	const char *path = text;
	int n = 0;

	if (settings) {
		n = options_split("", text, "backend", pairs, 16, NULL);
		path = NULL;
		for (int i = 0; i < n && !path; i++)
			if (!strcmp(pairs[i].key, "backend"))
				path = pairs[i].value;
			else if (!strcmp(pairs[i].key, "socket") && own->n < SANDBOX_OWN_MAX)
				own->path[own->n++] = strdup(pairs[i].value);
	}
	if (path && !strncmp(path, "unix:", 5) && own->n < SANDBOX_OWN_MAX)
		own->path[own->n++] = strdup(path + 5);
	if (n > 0)
		options_split_free(pairs, n);
}

void sandbox_find_needs(const struct vmm_options *o, struct sandbox_needs *needs, struct sandbox_own *own)
{
	memset(own, 0, sizeof(*own));
	*needs = (struct sandbox_needs){ .native = options_native(o), .connect = o->vsock, .own = own->path };
	for (unsigned i = 0; i < o->disks; i++)
		needs->network |= strstr(o->disk[i], "://") || strstr(o->disk[i], "rbd:");
	for (unsigned i = 0; i < o->devices; i++)
		needs->connect |= strstr(o->device[i], "vsock") || strstr(o->device[i], "vhost-user");
	for (unsigned i = 0; i < o->qmps; i++)
		add_own(own, o->qmp[i], false);
	for (unsigned i = 0; i < o->serials; i++)
		add_own(own, o->serial[i], false);
	if (o->console)
		add_own(own, o->console, false);
	if (o->debugcon)
		add_own(own, o->debugcon, false);
	for (unsigned i = 0; i < o->channels; i++)
		add_own(own, o->channel[i], true);
	if (o->vsock)
		add_own(own, o->vsock, true);
	for (unsigned i = 0; i < o->devices; i++)
		add_own(own, o->device[i], true);
}

void sandbox_own_free(struct sandbox_own *own)
{
	while (own->n)
		free((char *)own->path[--own->n]);
}
