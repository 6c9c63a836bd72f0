/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/disk.h"

#include <errno.h>
#include <string.h>

#include "machine/machine.h"

static const struct disk_ops *const table[] = { &virtio_blk_disk, &scsi_hd_disk, &scsi_cd_disk };

const struct disk_ops *disk_ops_of(const struct device *d)
{
	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i]->cls, d->cls->name))
			return table[i];
	return NULL;
}

bool disk_removable(struct device *d)
{
	const struct disk_ops *ops = disk_ops_of(d);

	return ops && ops->removable && ops->removable(d);
}

bool disk_locked(struct device *d)
{
	const struct disk_ops *ops = disk_ops_of(d);

	return ops && ops->locked && ops->locked(d);
}

bool disk_tray_open(struct device *d)
{
	const struct disk_ops *ops = disk_ops_of(d);

	return ops && ops->tray_open && ops->tray_open(d);
}

const char *disk_io_status(struct device *d)
{
	static const char *const names[] = { [DISK_OK] = "ok", [DISK_FAILED] = "failed", [DISK_NOSPACE] = "nospace" };
	const struct disk_ops *ops = disk_ops_of(d);

	return names[ops ? __atomic_load_n(&ops->errors(d)->status, __ATOMIC_RELAXED) : DISK_OK];
}

void disk_set_owner(struct device *d, void (*told)(void *opaque, struct device *d, const struct disk_news *news), void *opaque)
{
	const struct disk_ops *ops = disk_ops_of(d);
	struct disk_errors *e = ops ? ops->errors(d) : NULL;

	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->told = told;
	e->opaque = opaque;
	pthread_mutex_unlock(&e->lock);
}

/* ---- Error policies --------------------------------------------------------- */

static int parse_policy(struct disk_errors *e, unsigned i, const char *text, struct err *err)
{
	static const struct {
		const char *name;
		enum disk_action action;
		bool nospace;
	} policies[] = {
		{ "report", DISK_REPORT, false },
		{ "ignore", DISK_IGNORE, false },
		{ "stop", DISK_STOP, false },
		{ "enospc", DISK_STOP, true },
		{ "auto", DISK_STOP, true },
	};

	for (unsigned k = 0; k < sizeof(policies) / sizeof(policies[0]); k++) {
		if (strcmp(policies[k].name, text))
			continue;
		e->policy[i] = policies[k].action;
		e->nospace[i] = policies[k].nospace;
		return 0;
	}
	return err_set(err, EINVAL, "%s must be report, ignore, stop or enospc, not '%.40s'", i ? "werror" : "rerror", text);
}

int disk_errors_init(struct disk_errors *e, struct device *d, const char *rerror, const char *werror, struct err *err)
{
	int ret = parse_policy(e, 0, rerror, err);

	if (!ret)
		ret = parse_policy(e, 1, werror, err);
	e->dev = d;
	if (!ret)
		pthread_mutex_init(&e->lock, NULL);
	return ret;
}

static void tell_owner(void *arg)
{
	struct disk_errors *e = arg;
	struct disk_news news;
	bool tray;

	pthread_mutex_lock(&e->lock);
	e->telling = false;
	news = e->news;
	tray = e->tray_moved;
	e->news.code = 0;
	e->tray_moved = false;
	pthread_mutex_unlock(&e->lock);
	if (e->told && news.code)
		e->told(e->opaque, e->dev, &news);
	if (e->told && tray)
		e->told(e->opaque, e->dev, &(struct disk_news){ 0 });
}

/* Lock held. */
static void send_news(struct disk_errors *e)
{
	if (e->told && !e->telling)
		e->telling = !loop_post(e->dev->machine->loop, tell_owner, e);
}

void disk_tray_moved(struct disk_errors *e)
{
	pthread_mutex_lock(&e->lock);
	e->tray_moved = true;
	send_news(e);
	pthread_mutex_unlock(&e->lock);
}

void disk_errors_exit(struct disk_errors *e)
{
	loop_unpost(e->dev->machine->loop, tell_owner, e);
	pthread_mutex_destroy(&e->lock);
}

enum disk_action disk_error(struct disk_errors *e, bool write, int code)
{
	enum disk_action action = e->nospace[write] && code != ENOSPC ? DISK_REPORT : e->policy[write];

	pthread_mutex_lock(&e->lock);
	/* Nobody would make it go on. */
	if (action == DISK_STOP && !e->told)
		action = DISK_REPORT;
	if (action == DISK_STOP)
		e->status = code == ENOSPC ? DISK_NOSPACE : DISK_FAILED;
	/* One message for many errors of the same moment, and the one that stops counts most. */
	if (!e->news.code || e->news.action != DISK_STOP)
		e->news = (struct disk_news){ action, write, code };
	send_news(e);
	pthread_mutex_unlock(&e->lock);
	return action;
}

void disk_errors_resume(struct disk_errors *e)
{
	__atomic_store_n(&e->status, DISK_OK, __ATOMIC_RELAXED);
}

int disk_resize(struct device *d, uint64_t size, struct err *err)
{
	const struct disk_ops *ops = disk_ops_of(d);
	struct block *b = ops ? ops->block(d) : NULL;
	int ret;

	if (!b)
		return err_set(err, EINVAL, "device %s has no image whose size could change", d->id);
	ret = block_resize(b, size, err);
	if (!ret)
		ops->resized(d);
	return ret;
}
