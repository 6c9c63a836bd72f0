/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/files.h"

struct secret {
	char *id;
	uint8_t *data;
	size_t len;
	struct secret *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct secret *secrets;

static struct secret **find(const char *id)
{
	struct secret **at = &secrets;

	while (*at && strcmp((*at)->id, id))
		at = &(*at)->next;
	return at;
}

void secret_wipe(void *data, size_t len)
{
	if (data)
		explicit_bzero(data, len);
	free(data);
}

/* RFC 4648 section 4; white space between is let pass. False: it is none. */
static bool decode_base64(uint8_t *data, size_t *len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t bits = 0;
	size_t n = 0, out = 0, pads = 0;

	for (size_t i = 0; i < *len; i++) {
		const char *digit = data[i] ? strchr(digits, data[i]) : NULL;

		if (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t')
			continue;
		if (data[i] == '=') {
			pads++;
			continue;
		}
		if (!digit || pads)
			return false;
		bits = bits << 6 | (digit - digits);
		if (n++ % 4)
			data[out++] = bits >> (6 - 2 * ((n - 1) % 4));
	}
	/* The last quartet: two or three digits, the rest of them padding. */
	if (n % 4 == 1 || (n + pads) % 4)
		return false;
	*len = out;
	return true;
}

int secret_add(const char *id, const void *data, size_t len, bool base64, struct err *err)
{
	struct secret *s = calloc(1, sizeof(*s));
	int ret = 0;

	if (s) {
		s->id = strdup(id);
		s->data = malloc(len + 1);
	}
	if (!s || !s->id || !s->data) {
		ret = err_set(err, ENOMEM, "no memory for secret '%s'", id);
	} else if (len > SECRET_MAX) {
		ret = err_set(err, EINVAL, "secret '%s' is longer than %u bytes", id, SECRET_MAX);
	} else {
		memcpy(s->data, data, len);
		s->len = len;
		if (base64 && !decode_base64(s->data, &s->len))
			ret = err_set(err, EINVAL, "secret '%s' is not base64: say format=raw if it is to be used as it is", id);
	}
	if (!ret) {
		pthread_mutex_lock(&lock);
		if (*find(id))
			ret = err_set(err, EEXIST, "there is a secret '%s' already", id);
		else
			*find(id) = s;
		pthread_mutex_unlock(&lock);
	}
	if (ret && s) {
		secret_wipe(s->data, s->data && len <= SECRET_MAX ? len : 0);
		free(s->id);
		free(s);
	}
	return ret;
}

int secret_add_fd(const char *id, int fd, const char *name, bool base64, struct err *err)
{
	uint8_t *data = malloc(SECRET_MAX + 1);
	size_t len = 0;
	int ret = data ? 0 : err_set(err, ENOMEM, "no memory for secret '%s'", id);

	while (!ret && len <= SECRET_MAX) {
		ssize_t n = read(fd, data + len, SECRET_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ret = err_set_errno(err, errno, "cannot read secret '%s' from %s", id, name);
		if (n <= 0)
			break;
		len += n;
	}
	if (!ret)
		ret = secret_add(id, data, len, base64, err);
	secret_wipe(data, data ? SECRET_MAX + 1 : 0);
	return ret;
}

int secret_add_file(const char *id, const char *path, bool base64, struct err *err)
{
	int fd = file_open(path, O_RDONLY), ret;

	if (fd < 0)
		return err_set_errno(err, errno, "cannot read secret '%s' from %s", id, path);
	ret = secret_add_fd(id, fd, path, base64, err);
	close(fd);
	return ret;
}

int secret_del(const char *id, struct err *err)
{
	struct secret **at, *s;

	pthread_mutex_lock(&lock);
	at = find(id);
	s = *at;
	if (s)
		*at = s->next;
	pthread_mutex_unlock(&lock);
	if (!s)
		return err_set(err, ENOENT, "there is no secret '%s'", id);
	secret_wipe(s->data, s->len);
	free(s->id);
	free(s);
	return 0;
}

void *secret_get(const char *id, size_t *len, struct err *err)
{
	uint8_t *copy = NULL;
	const struct secret *s;

	pthread_mutex_lock(&lock);
	s = *find(id);
	if (!s) {
		err_set(err, ENOENT, "there is no secret '%s': make it with --object secret,id=%s,file=FILE", id, id);
	} else if (!(copy = malloc(s->len + 1))) {
		err_set(err, ENOMEM, "no memory for secret '%s'", id);
	} else {
		memcpy(copy, s->data, s->len);
		copy[s->len] = 0;
		*len = s->len;
	}
	pthread_mutex_unlock(&lock);
	return copy;
}
