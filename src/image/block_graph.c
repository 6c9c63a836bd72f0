/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/block_graph.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/block_int.h"
#include "image/dirty.h"
#include "image/image_int.h"
#include "image/qcow2.h"
#include "image/remote.h"
#include "util/files.h"

/* ---- Pauses ------------------------------------------------------------------- */

static bool is_busy(const struct block_queue *q)
{
	return !q->internal && __atomic_load_n(&q->inflight, __ATOMIC_SEQ_CST);
}

/* Queues of the caller's own thread cannot complete by themselves meanwhile. */
static struct block_queue *busy_queue(struct block *b, bool *mine)
{
	for (struct block_queue *q = b->queues; q; q = q->next) {
		*mine = loop_is_mine(q->loop);
		if (is_busy(q))
			return q;
	}
	return NULL;
}

static void finish_mine(struct block_queue *q)
{
	if (q->uring && uring_busy(q->uring))
		uring_wait(q->uring);
	else if (q->pool && pool_busy(q->pool))
		pool_wait(q->pool);
}

void block_pause(struct block *b)
{
	struct block_queue *q;
	bool mine;

	pthread_mutex_lock(&b->lock);
	__atomic_add_fetch(&b->paused, 1, __ATOMIC_SEQ_CST);
	while ((q = busy_queue(b, &mine))) {
		if (!mine) {
			pthread_cond_wait(&b->woken, &b->lock);
			continue;
		}
		pthread_mutex_unlock(&b->lock);
		finish_mine(q);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
}

void block_resume(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	if (!__atomic_sub_fetch(&b->paused, 1, __ATOMIC_SEQ_CST)) {
		pthread_cond_broadcast(&b->woken);
		for (struct block_queue *q = b->queues; q; q = q->next)
			queue_wake(q);
	}
	pthread_mutex_unlock(&b->lock);
}

void block_watch_add(struct block *b, struct block_watch *w)
{
	w->next = b->watches;
	b->watches = w;
}

void block_watch_del(struct block *b, struct block_watch *w)
{
	struct block_watch **at = &b->watches;

	while (*at && *at != w)
		at = &(*at)->next;
	if (*at)
		*at = w->next;
}

/* ---- Contents -------------------------------------------------------------------- */

void block_swap(struct block *a, struct block *b)
{
	const size_t at = offsetof(struct block, fd), n = sizeof(*a) - at;
	uint8_t contents[sizeof(*a)];

	block_bitmaps_watch(a, false);
	block_bitmaps_watch(b, false);
	memcpy(contents, (uint8_t *)a + at, n);
	memcpy((uint8_t *)a + at, (uint8_t *)b + at, n);
	memcpy((uint8_t *)b + at, contents, n);
	block_bitmaps_watch(a, true);
	block_bitmaps_watch(b, true);
	for (struct block_queue *q = a->queues; q; q = q->next)
		if (q->uring)
			uring_refile(q->uring);
	for (struct block_queue *q = b->queues; q; q = q->next)
		if (q->uring)
			uring_refile(q->uring);
}

struct qcow2 *block_qcow2(const struct block *b)
{
	return b->qcow2;
}

struct image *block_backing(const struct block *b, unsigned depth)
{
	struct image *img = b->qcow2 ? qcow2_backing(b->qcow2) : NULL;

	while (img && depth-- > 1)
		img = image_backing(img);
	return img;
}

unsigned block_depth(const struct block *b)
{
	unsigned n = 0;

	while (block_backing(b, n + 1))
		n++;
	return n;
}

int block_map(struct block *b, unsigned levels, uint64_t offset, uint64_t len, struct image_extent *e, struct err *err)
{
	struct image *below = block_backing(b, 1);
	uint64_t n;
	int ret;

	if (!b->qcow2) {
		struct image plain = { .path = b->path, .fd = b->fd, .size = b->real_size, .remote = b->remote };

		if (offset < b->real_size)
			return image_map(&plain, offset, len, e, err);
		*e = (struct image_extent){ .len = len, .zero = true, .present = true, .path = b->path };
		return 0;
	}
	n = qcow2_size(b->qcow2);
	if (offset >= n) { /* the rest of the last sector */
		*e = (struct image_extent){ .len = len, .zero = true, .path = b->path };
		return 0;
	}
	ret = qcow2_map(b->qcow2, offset, len < n - offset ? len : n - offset, e, err);
	if (ret || e->present)
		return ret;
	n = e->len;
	*e = (struct image_extent){ .len = n, .zero = true, .path = b->path };
	if (!below || levels == 1 || offset >= image_size(below))
		return 0;
	ret = image_map_above(below, levels - 1, offset, n, e, err);
	e->depth++;
	return ret;
}

int block_sync(struct block *b, struct err *err)
{
	if (b->readonly)
		return 0;
	if (b->qcow2)
		return qcow2_flush(b->qcow2, err);
	if (b->remote)
		return remote_flush(b->remote, err);
	if (b->unsafe)
		return 0;
	return fdatasync(b->fd) ? err_set_errno(err, errno, "%s: waiting for the disk", b->path) : 0;
}

/* ---- Reading and writing ----------------------------------------------------------- */

int image_reopen_fd(int fd, const char *path, bool write, struct err *err)
{
	struct stat old, new;
	int more, ret;

	unlock_image(fd);
	if (write && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
		more = file_open(path, O_RDWR | O_NONBLOCK);
		if (more < 0 || fstat(fd, &old) || fstat(more, &new))
			ret = err_set_errno(err, errno, "%s cannot be opened for writing", path);
		else if (old.st_dev != new.st_dev || old.st_ino != new.st_ino)
			ret = err_set(err, ESTALE, "%s is another file now than the one that is in use", path);
		else
			ret = dup3(more, fd, O_CLOEXEC) < 0 ? err_set_errno(err, errno, "%s", path) : 0;
		if (more >= 0)
			close(more);
		if (ret) {
			(void)lock_image(fd, path, false, NULL);
			return ret;
		}
	}
	ret = lock_image(fd, path, write, err);
	if (ret && write) {
		unlock_image(fd);
		(void)lock_image(fd, path, false, NULL);
	}
	return ret;
}

int image_set_writable(struct image *img, bool on, struct err *err)
{
	int ret = 0;

	if (on == !!(img->flags & IMAGE_RDWR))
		return 0;
	if (img->remote)
		return err_set(err, ENOTSUP, "%s was opened for reading only", img->path);
	ret = img->q ? qcow2_set_writable(img->q, on, err) : image_reopen_fd(img->fd, img->path, on, err);
	if (!ret)
		img->flags = on ? img->flags | IMAGE_RDWR : img->flags & ~IMAGE_RDWR;
	return ret;
}

/* ---- From and to images of a chain --------------------------------------------------- */

struct image *block_into_image(struct block *b, struct err *err)
{
	struct image *img = calloc(1, sizeof(*img));

	assert(!b->queues);
	if (!img) {
		err_set(err, ENOMEM, "%s: no memory", b->path);
		return NULL;
	}
	if (b->qcow2 ? qcow2_set_writable(b->qcow2, false, err) : block_sync(b, err)) {
		free(img);
		return NULL;
	}
	if (b->fd >= 0)
		(void)image_reopen_fd(b->fd, b->path, false, NULL);
	img->path = b->path;
	img->fd = b->fd;
	img->q = b->qcow2;
	img->remote = b->remote;
	img->size = b->real_size;
	if (b->qcow2)
		img->fd = qcow2_fd(b->qcow2);
	else if (b->fd >= 0 && b->direct) /* images are read without alignment */
		fcntl(b->fd, F_SETFL, fcntl(b->fd, F_GETFL) & ~O_DIRECT);
	if (b->plain_fd >= 0)
		close(b->plain_fd);
	throttle_put(b->throttle);
	block_bitmaps_free(b);
	pthread_cond_destroy(&b->woken);
	pthread_mutex_destroy(&b->lock);
	free(b);
	return img;
}

struct block *block_from_image(struct image *img, struct err *err)
{
	struct block *b = calloc(1, sizeof(*b));
	struct stat st;

	if (!b) {
		err_set(err, ENOMEM, "%s: no memory", img->path);
		return NULL;
	}
	b->fd = img->q ? -1 : img->fd;
	b->plain_fd = -1;
	b->path = img->path;
	b->qcow2 = img->q;
	b->remote = img->remote;
	b->readonly = !(img->flags & IMAGE_RDWR);
	b->unsafe = img->flags & IMAGE_UNSAFE;
	b->device = b->fd >= 0 && !fstat(b->fd, &st) && S_ISBLK(st.st_mode);
	b->real_size = image_size(img);
	b->size = (b->real_size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	b->mem_align = b->off_align = 1;
	if (b->qcow2)
		b->data_fd[0] = b->data_fd[1] = qcow2_data_fd(b->qcow2);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->woken, NULL);
	free(img);
	return b;
}
