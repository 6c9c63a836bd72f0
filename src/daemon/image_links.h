/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which other files an image leads to. A small reader of its own: keeld opens files by what it says, as root. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image_links {
	bool qcow2;
	char backing[1024];	  /* as it stands there; "" for none */
	char backing_format[16];  /* "": not said */
	char data_file[1024];
};
/* Of the first `len` bytes of a file. False: its header makes no sense. */
bool image_links_parse(const uint8_t *p, size_t len, struct image_links *links);
#define IMAGE_LINKS_BYTES 65536u /* as much of the file as matters: nothing of this lies behind */

/*
 * The path that `name`, in the image at `of`, means; malloced. NULL: no plain
 * file (a server's, or another kind of image), or no memory.
 */
char *image_links_path(const char *of, const char *name);
