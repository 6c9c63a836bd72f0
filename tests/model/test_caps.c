/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Capabilities of made-up hosts and of this one; CPUs compared. */
#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <sys/stat.h>

#include "model/caps.h"
#include "model_test.h"

static char root[64];

static void put_file(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *p = path + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void put_cpu(unsigned id, unsigned package, unsigned core, const char *siblings)
{
	char name[128], text[16];

	snprintf(name, sizeof(name), "sys/devices/system/cpu/cpu%u/topology/physical_package_id", id);
	snprintf(text, sizeof(text), "%u\n", package);
	put_file(name, text);
	snprintf(name, sizeof(name), "sys/devices/system/cpu/cpu%u/topology/core_id", id);
	snprintf(text, sizeof(text), "%u\n", core);
	put_file(name, text);
	snprintf(name, sizeof(name), "sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", id);
	put_file(name, siblings);
}

static int make_root(void **state)
{
	(void)state;
	strcpy(root, "/tmp/keel-test-caps-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r '%s'", root);
	return system(command);
}

/* Two nodes, each one socket of two cores with two threads. */
static void make_host(void)
{
	put_file("sys/devices/system/cpu/present", "0-7\n");
	put_file("sys/devices/system/cpu/online", "0-7\n");
	put_file("sys/devices/system/node/online", "0-1\n");
	put_file("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
	put_file("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
	put_file("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       1000 kB\n");
	put_file("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:       2000 kB\n");
	put_file("sys/devices/system/node/node0/distance", "10 21\n");
	put_file("sys/devices/system/node/node1/distance", "21 10\n");
	put_file("sys/class/dmi/id/product_uuid", "4c4c4544-0042-3010-8048-b7c04f4e3232\n");
	put_file("proc/meminfo", "MemTotal:        3000 kB\n");
	for (unsigned i = 0; i < 8; i++) {
		char siblings[16];

		snprintf(siblings, sizeof(siblings), "%u,%u\n", i % 4, i % 4 + 4);
		put_cpu(i, i / 2 % 2, i % 2, siblings);
	}
}

static void read_host(struct host_caps *h)
{
	char sysfs[80], proc[80];

	snprintf(sysfs, sizeof(sysfs), "%s/sys", root);
	snprintf(proc, sizeof(proc), "%s/proc", root);
	assert_int_equal(host_caps_read(h, sysfs, proc, NULL), 0);
}

static bool valid(const char *xml, const char *schema)
{
	char path[128];
	xmlRelaxNGParserCtxt *parser;
	xmlRelaxNGValidCtxt *ctxt;
	xmlRelaxNG *rng;
	xmlDoc *doc;
	int ret;

	snprintf(path, sizeof(path), "/usr/share/libvirt/schemas/%s", schema);
	if (access(path, R_OK))
		return true;
	parser = xmlRelaxNGNewParserCtxt(path);
	rng = xmlRelaxNGParse(parser);
	ctxt = xmlRelaxNGNewValidCtxt(rng);
	doc = xmlReadMemory(xml, strlen(xml), NULL, NULL, 0);
	assert_non_null(doc);
	ret = xmlRelaxNGValidateDoc(ctxt, doc);
	xmlFreeDoc(doc);
	xmlRelaxNGFreeValidCtxt(ctxt);
	xmlRelaxNGFree(rng);
	xmlRelaxNGFreeParserCtxt(parser);
	return !ret;
}

static void test_made_up_host(void **state)
{
	static const char *const parts[] = {
		"<uuid>4c4c4544-0042-3010-8048-b7c04f4e3232</uuid>",
		"<topology sockets='1' dies='1' cores='2' threads='2'/>",
		"<cells num='2'>",
		"<cell id='1'>\n          <memory unit='KiB'>2000</memory>\n          <pages unit='KiB' size='4'>500</pages>\n",
		"          <distances>\n            <sibling id='0' value='21'/>\n            <sibling id='1' value='10'/>\n",
		"<cpus num='4'>",
		"<cpu id='6' socket_id='1' die_id='0' core_id='0' siblings='2,6'/>",
		"<machine canonical='pc-q35-7.2' maxCpus='255'>q35</machine>",
		"<domain type='qemu'/>",
		"<domain type='kvm'/>",
	};
	struct domain_caps caps = everything();
	struct host_caps h;
	char *xml;

	(void)state;
	make_host();
	read_host(&h);
	xml = capabilities_format(&h, &caps);
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!strstr(xml, parts[i]))
			fail_msg("no %s in\n%s", parts[i], xml);
	if (!valid(xml, "capability.rng"))
		fail_msg("%s", xml);
	free(xml);
	/* only what the host has is offered */
	caps.kvm = false;
	xml = capabilities_format(&h, &caps);
	assert_null(strstr(xml, "<domain type='kvm'/>"));
	free(xml);
	host_caps_clear(&h);
}

static void test_bare_host(void **state)
{
	struct domain_caps caps = everything();
	struct host_caps h;
	char *xml;

	(void)state;
	assert_int_equal(host_caps_read(&h, "/nonexistent", "/nonexistent", NULL), 0);
	assert_int_equal(h.n_nodes, 1);
	assert_true(h.n_cpus > 0);
	xml = capabilities_format(&h, &caps);
	assert_true(valid(xml, "capability.rng"));
	free(xml);
	host_caps_clear(&h);
}

/* The kernel reads the same bits and calls many of them the same. */
static void test_features_as_the_kernel_has_them(void **state)
{
	static const char *const same[] = { "sse2", "ssse3",  "avx",   "avx2",  "bmi1",	  "bmi2",    "aes",	"fma",
					    "movbe", "popcnt", "xsave", "f16c",	 "rdrand", "rdseed",  "adx",	"smep",
					    "smap",  "erms",   "sse4a", "lahf_lm", "syscall", "nx",    "rdtscp", "avx512f",
					    "vaes",  "gfni",   "umip",	"fsrm",	 "xsaves", "clzero", "la57" };
	struct cpu_host cpu;
	char *text = calloc(1, 65536), *flags;
	FILE *f = fopen("/proc/cpuinfo", "r");

	(void)state;
	assert_non_null(f);
	assert_true(fread(text, 1, 65535, f) > 0);
	fclose(f);
	flags = strstr(text, "flags");
	assert_non_null(flags);
	flags = strchr(flags, ':');
	*strchr(flags, '\n') = ' ';
	cpu_host_read(&cpu);
	for (unsigned i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		char word[32];
		int feature = cpu_feature_find(same[i]);

		snprintf(word, sizeof(word), " %s ", same[i]);
		assert_true(feature >= 0);
		/* the kernel may switch off what CPUID has, never the other way round */
		if (strstr(flags, word) && !cpu_set_has(&cpu.features, feature))
			fail_msg("the kernel has %s, Keel hasn't", same[i]);
	}
	free(text);
}

static void test_levels(void **state)
{
	struct cpu_set below = { 0 }, set;

	(void)state;
	for (unsigned i = 0; i < cpu_model_count(); i++) {
		assert_true(cpu_model_set(cpu_model_name(i), &set));
		for (unsigned k = 0; k < CPU_FEATURES_MAX / 64; k++)
			assert_int_equal(below.bits[k] & ~set.bits[k], 0);
		assert_int_equal(cpu_model_best(&set), i);
		below = set;
	}
	assert_false(cpu_model_set("Haswell", &set));
}

static struct cpu_host cpu_of(const char *model)
{
	struct cpu_host cpu = { .vendor = "GenuineIntel" };

	assert_true(cpu_model_set(model, &cpu.features));
	return cpu;
}

static void test_compare(void **state)
{
	static const struct {
		const char *xml;
		int result;
	} cases[] = {
		{ "<cpu><arch>x86_64</arch><model>x86-64-v2</model></cpu>", CPU_COMPARE_SUPERSET },
		{ "<cpu><arch>x86_64</arch><model>x86-64-v3</model></cpu>", CPU_COMPARE_IDENTICAL },
		{ "<cpu><arch>x86_64</arch><model>x86-64-v4</model></cpu>", CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu><arch>x86_64</arch><model>x86-64-v2</model><feature name='avx2'/></cpu>", CPU_COMPARE_SUPERSET },
		{ "<cpu><arch>x86_64</arch><model>x86-64-v2</model><feature name='sha-ni'/></cpu>", CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu match='strict'><model>x86-64-v2</model></cpu>", CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu match='exact'><model>x86-64-v2</model><feature policy='forbid' name='avx'/></cpu>",
		  CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu match='exact'><model>x86-64-v3</model><feature policy='disable' name='avx'/></cpu>",
		  CPU_COMPARE_SUPERSET },
		{ "<cpu><arch>aarch64</arch><model>x86-64-v1</model></cpu>", CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu><arch>x86_64</arch><model>x86-64-v1</model><vendor>AMD</vendor></cpu>", CPU_COMPARE_INCOMPATIBLE },
		{ "<cpu mode='host-passthrough'/>", CPU_COMPARE_IDENTICAL },
		{ "<domain><cpu><model>x86-64-v1</model></cpu></domain>", CPU_COMPARE_SUPERSET },
		{ "<cpu><arch>x86_64</arch><model>Haswell</model></cpu>", -1 },
		{ "<cpu><model>x86-64-v1</model><feature name='frob'/></cpu>", -1 },
		{ "<cpu/>", -1 },
		{ "<a/>", -1 },
		{ "<cpu", -1 },
	};
	struct cpu_host cpu = cpu_of("x86-64-v3");

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = ERR_INIT;
		int ret = cpu_compare_xml(&cpu, cases[i].xml, &err);

		if (cases[i].result < 0 ? ret >= 0 || !err.code : ret != cases[i].result)
			fail_msg("%d, not %d for %s (%s)", ret, cases[i].result, cases[i].xml, err_msg(&err));
	}
}

static void test_this_host(void **state)
{
	struct domain_caps caps = everything();
	struct host_caps h;
	char *xml;

	(void)state;
	assert_int_equal(host_caps_read(&h, "/sys", "/proc", NULL), 0);
	xml = capabilities_format(&h, &caps);
	assert_true(valid(xml, "capability.rng"));
	assert_int_equal(cpu_compare_xml(&h.cpu, xml, NULL), CPU_COMPARE_IDENTICAL);
	free(xml);
	host_caps_clear(&h);
}

static void test_baseline(void **state)
{
	const char *const cpus[] = {
		"<cpu><arch>x86_64</arch><model>x86-64-v3</model><vendor>AMD</vendor><feature name='sha-ni'/></cpu>",
		"<cpu><arch>x86_64</arch><model>x86-64-v2</model><vendor>AMD</vendor><feature name='sha-ni'/>"
		"<feature name='avx'/></cpu>",
	};
	const char *const strangers[] = { cpus[0], "<cpu><model>x86-64-v1</model><vendor>Intel</vendor></cpu>" };
	struct err err = ERR_INIT;
	char *xml = cpu_baseline_xml(cpus, 2, false, NULL);

	(void)state;
	assert_string_equal(xml, "<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>x86-64-v2</model>\n"
				 "  <vendor>AMD</vendor>\n  <feature policy='require' name='avx'/>\n"
				 "  <feature policy='require' name='sha-ni'/>\n</cpu>\n");
	free(xml);
	xml = cpu_baseline_xml(cpus, 2, true, NULL);
	assert_non_null(strstr(xml, "<feature policy='require' name='sse2'/>"));
	free(xml);
	assert_null(cpu_baseline_xml(strangers, 2, false, &err));
	assert_string_equal(err_msg(&err), "CPU vendors do not match");
	assert_null(cpu_baseline_xml(cpus, 0, false, &err));
}

static void test_domain_capabilities(void **state)
{
	static const struct {
		const char *emulator, *arch, *machine, *virt;
		int code; /* 0: valid */
	} cases[] = {
		{ NULL, NULL, NULL, NULL, 0 },
		{ "/usr/bin/qemu-system-x86_64", "x86_64", "q35", "kvm", 0 },
		{ NULL, "x86_64", "pc-q35-6.2", "qemu", 0 },
		{ NULL, "x86_64", "microvm", "qemu", 0 },
		{ "/bin/other", NULL, NULL, NULL, 8 },
		{ NULL, "aarch64", NULL, NULL, 8 },
		{ NULL, NULL, "pc", NULL, 8 },
		{ NULL, NULL, NULL, "xen", 8 },
	};
	struct domain_caps caps = everything(), poor;
	char *xml;

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = ERR_INIT;

		xml = domain_capabilities_format(NULL, &caps, cases[i].emulator, cases[i].arch, cases[i].machine, cases[i].virt,
						 &err);
		assert_int_equal(!xml, cases[i].code != 0);
		if (!xml)
			assert_int_equal(model_vir_code(&err), cases[i].code);
		else if (!valid(xml, "domaincaps.rng"))
			fail_msg("%s", xml);
		free(xml);
	}
	domain_caps_init(&poor);
	poor.emulator = "/usr/bin/keel-vmm";
	xml = domain_capabilities_format(NULL, &poor, NULL, NULL, NULL, NULL, NULL);
	assert_true(valid(xml, "domaincaps.rng"));
	assert_null(strstr(xml, "<value>sata</value>"));
	assert_null(strstr(xml, "<value>cdrom</value>"));
	assert_non_null(strstr(xml, "<filesystem supported='no'/>"));
	free(xml);
	assert_null(domain_capabilities_format(NULL, &poor, NULL, NULL, NULL, "kvm", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_made_up_host, make_root, remove_root),
		cmocka_unit_test(test_bare_host),
		cmocka_unit_test(test_features_as_the_kernel_has_them),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_this_host),
		cmocka_unit_test(test_baseline),
		cmocka_unit_test(test_domain_capabilities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
