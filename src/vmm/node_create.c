/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new qcow2 image in the file of a node, as blockdev-create makes it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image/qcow2.h"
#include "util/files.h"
#include "vmm/vmm.h"

static const char *text_of(json_t *args, const char *name)
{
	return json_string_value(json_object_get(args, name));
}

static int take_number(json_t *args, const char *name, uint64_t most, uint64_t *value, struct err *err)
{
	json_t *given = json_object_get(args, name);

	if (!given)
		return 0;
	if (!json_is_integer(given) || json_integer_value(given) < 0 || (uint64_t)json_integer_value(given) > most)
		return err_set(err, EINVAL, "Parameter 'options.%s' expects a number from 0 to %llu", name,
			       (unsigned long long)most);
	*value = json_integer_value(given);
	return 0;
}

int vmm_node_create(struct vmm *v, json_t *options, struct err *err)
{
	const char *file = qmp_need_text(options, "file", err), *key;
	struct vmm_node *n = file ? vmm_node_named(v, file, err) : NULL;
	struct qcow2_create_options o = { 0 };
	uint64_t cluster = 65536;
	json_t *value;
	int fd, ret;

	if (!n)
		return -err->code;
	json_object_foreach(options, key, value)
	{
		static const char *const known[] = { "driver",	     "file",	    "size",
						     "backing-file", "backing-fmt", "cluster-size" };
		unsigned i = 0;

		while (i < 6 && strcmp(known[i], key))
			i++;
		if (i == 6)
			return err_set(err, EINVAL, "Parameter 'options.%.80s' is unexpected", key);
	}
	if (n->users || n->file || n->block)
		return err_set(err, EBUSY, "Node '%s' is already in use, or no file", file);
	ret = take_number(options, "size", INT64_MAX, &o.size, err);
	if (!ret)
		ret = take_number(options, "cluster-size", 2 << 20, &cluster, err);
	if (!ret && (cluster < 512 || cluster & (cluster - 1)))
		ret = err_set(err, EINVAL, "Parameter 'cluster-size' expects a power of two from 512 to 2M");
	if (ret)
		return ret;
	o.cluster_bits = __builtin_ctzll(cluster);
	o.backing = text_of(options, "backing-file");
	o.backing_format = text_of(options, "backing-fmt");
	fd = file_open(n->path, O_RDWR);
	if (fd < 0)
		return err_set_errno(err, errno, "Could not open '%s'", n->path);
	ret = lseek(fd, 0, SEEK_END) > 0 ? err_set(err, EEXIST, "%s is not empty", n->path)
					 : qcow2_create(fd, n->path, &o, err);
	close(fd);
	return ret;
}
