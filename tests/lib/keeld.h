/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A keeld of the test's own: programs beside each other in a scratch directory, which is its root as well. */
#pragma once
#include <sys/types.h>

struct test_keeld {
	char dir[64]; /* has bin/ and root/ */
	char uri[160], uri_ro[164];
	pid_t pid;
};

/* `keeld` and `vmm` are paths of the build. Fails the test if it does not come up. */
void test_keeld_start(struct test_keeld *k, const char *keeld, const char *vmm);
/* Ends it and removes all. */
void test_keeld_stop(struct test_keeld *k);
