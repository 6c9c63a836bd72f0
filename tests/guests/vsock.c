/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's end of virtio-vsock, for tests/e2e: "listen PORT" takes one
 * connection and sends back what comes until its end; "connect PORT" connects
 * to the host, sends standard input and prints what comes back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void copy(int from, int to)
{
	static char data[65536];
	ssize_t n;

	while ((n = read(from, data, sizeof(data))) > 0)
		for (ssize_t at = 0, put; at < n; at += put)
			if ((put = write(to, data + at, n - at)) <= 0)
				fail("write");
	if (n < 0)
		fail("read");
}

int main(int argc, char **argv)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK };
	int s = socket(AF_VSOCK, SOCK_STREAM, 0), c;

	if (argc != 3 || s < 0)
		fail("socket");
	a.svm_port = strtoul(argv[2], NULL, 10);
	if (!strcmp(argv[1], "listen")) {
		a.svm_cid = VMADDR_CID_ANY;
		if (bind(s, (struct sockaddr *)&a, sizeof(a)) || listen(s, 4))
			fail("listen");
		puts("listening");
		fflush(stdout);
		c = accept(s, NULL, NULL);
		if (c < 0)
			fail("accept");
		copy(c, c);
		shutdown(c, SHUT_WR);
		close(c);
		return 0;
	}
	a.svm_cid = VMADDR_CID_HOST;
	if (connect(s, (struct sockaddr *)&a, sizeof(a)))
		fail("connect");
	copy(0, s);
	shutdown(s, SHUT_WR);
	copy(s, 1);
	return 0;
}
