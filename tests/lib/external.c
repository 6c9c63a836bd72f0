/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Somebody else's program: knows libkeel through pkg-config only. Usage: external URI */
#include <keel/keel.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	static const char xml[] = "<domain type='qemu'><name>outside</name><memory>65536</memory><os><type>hvm</type></os></domain>";
	struct keel_error error;
	struct keel_conn *conn = keel_open(argc > 1 ? argv[1] : NULL, 0, &error);
	struct keel_domain *dom, **list;
	int n, i;

	if (!conn) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	dom = keel_domain_define(conn, xml, &error);
	n = keel_domain_list(conn, 0, &list, &error);
	for (i = 0; i < n; i++)
		printf("%s %s\n", keel_domain_name(list[i]), keel_state_name(keel_domain_state(list[i], NULL, NULL)));
	keel_domain_list_free(list);
	n = !dom || keel_domain_undefine(dom, 0, &error);
	keel_domain_free(dom);
	keel_close(conn);
	return n;
}
