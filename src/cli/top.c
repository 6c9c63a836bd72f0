/* SPDX-License-Identifier: GPL-2.0-or-later */
/* keel top: who uses what, anew every few seconds. Without a terminal, plain tables one after the other. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/verb.h"
#include "util/loop.h"

struct row {
	char name[256];
	unsigned char uuid[16];
	int id, state;
	unsigned vcpus;
	double cpu_ns, read, written, received, sent; /* since its start */
	double memory_kib, rss_kib;
	/* A second, since the sample before. */
	double cpu_percent, read_rate, write_rate, receive_rate, send_rate;
};

struct sample {
	uint64_t when;
	unsigned n;
	struct row *rows;
};

enum sort { SORT_CPU, SORT_MEMORY, SORT_IO, SORT_NET, SORT_NAME };
static const char *const sort_names[] = { "cpu", "memory", "io", "net", "name" };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	interrupted = 1;
}

/* ---- Numbers --------------------------------------------------------------- */

static double number(const struct keel_stats *s, const char *name)
{
	return keel_param_number(s->params, s->nparams, name, NULL);
}

/* "block.N.rd.bytes" over all N. */
static double sum(const struct keel_stats *s, const char *group, const char *what)
{
	unsigned count;
	char name[64];
	double total = 0;

	snprintf(name, sizeof(name), "%s.count", group);
	count = (unsigned)number(s, name);
	for (unsigned n = 0; n < count && n < 4096; n++) {
		snprintf(name, sizeof(name), "%s.%u.%s", group, n, what);
		total += number(s, name);
	}
	return total;
}

static const struct row *row_before(const struct sample *before, const struct row *r)
{
	for (unsigned n = 0; before && n < before->n; n++)
		if (before->rows[n].id == r->id && !memcmp(before->rows[n].uuid, r->uuid, 16))
			return &before->rows[n];
	return NULL;
}

static double rate(double now, double then, double seconds)
{
	return now > then && seconds > 0 ? (now - then) / seconds : 0;
}

static void fill_row(struct row *r, const struct keel_stats *s, const struct sample *before, uint64_t when)
{
	const struct row *b;
	double seconds;

	snprintf(r->name, sizeof(r->name), "%s", keel_domain_name(s->dom));
	memcpy(r->uuid, keel_domain_uuid(s->dom), 16);
	r->id = keel_domain_id(s->dom);
	r->state = (int)number(s, "state.state");
	r->vcpus = (unsigned)number(s, "vcpu.current");
	r->cpu_ns = number(s, "cpu.time");
	r->memory_kib = number(s, "balloon.current");
	r->rss_kib = number(s, "balloon.rss");
	r->read = sum(s, "block", "rd.bytes");
	r->written = sum(s, "block", "wr.bytes");
	r->received = sum(s, "net", "rx.bytes");
	r->sent = sum(s, "net", "tx.bytes");
	b = row_before(before, r);
	if (!b)
		return;
	seconds = (double)(when - before->when) / 1e9;
	r->cpu_percent = rate(r->cpu_ns, b->cpu_ns, seconds) / 1e7;
	r->read_rate = rate(r->read, b->read, seconds);
	r->write_rate = rate(r->written, b->written, seconds);
	r->receive_rate = rate(r->received, b->received, seconds);
	r->send_rate = rate(r->sent, b->sent, seconds);
}

static enum sort order;

static double key(const struct row *r)
{
	switch (order) {
	case SORT_CPU:
		return r->cpu_percent;
	case SORT_MEMORY:
		return r->rss_kib;
	case SORT_IO:
		return r->read_rate + r->write_rate;
	case SORT_NET:
		return r->receive_rate + r->send_rate;
	case SORT_NAME:
		break;
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	double x = key(a), y = key(b);

	return x > y ? -1 : x < y ? 1 : strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

/* A new sample in place of the one before. 0 or -1. */
static int take(struct cmd *c, struct sample *s, bool all)
{
	struct sample now = { 0 };
	struct keel_stats *stats;
	unsigned groups = KEEL_STATS_STATE | KEEL_STATS_CPU | KEEL_STATS_BALLOON | KEEL_STATS_VCPU | KEEL_STATS_INTERFACE | KEEL_STATS_BLOCK;
	int n = keel_stats(c->conn, NULL, groups, all ? 0 : KEEL_LIST_ACTIVE, &stats, &c->error);

	if (n < 0)
		return -1;
	now.when = monotonic_ns();
	now.n = (unsigned)n;
	now.rows = calloc((size_t)n + 1, sizeof(*now.rows));
	for (int i = 0; now.rows && i < n; i++)
		fill_row(&now.rows[i], &stats[i], s->rows ? s : NULL, now.when);
	keel_stats_free(stats, n);
	free(s->rows);
	*s = now;
	if (s->rows && s->n)
		qsort(s->rows, s->n, sizeof(*s->rows), by_key);
	return s->rows ? 0 : -1;
}

/* ---- Showing --------------------------------------------------------------- */

/* At most six characters: 0, 999, 1.2k, 34M. */
static const char *short_size(double bytes, char text[16])
{
	static const char units[] = " kMGTP";
	unsigned n = 0;

	for (; bytes >= 1000 && n < 5; n++)
		bytes /= 1024;
	snprintf(text, 16, n && bytes < 10 ? "%.1f%c" : "%.0f%c", bytes, units[n]);
	if (!n)
		text[strlen(text) - 1] = 0;
	return text;
}

static void print_head(struct cmd *c, const struct sample *s, const struct keel_node_info *node, const char *end)
{
	char used[16], total[16], clock[16];
	time_t now = time(NULL);
	double cpu = 0, rss = 0;
	unsigned running = 0, vcpus = 0;
	struct tm tm;

	for (unsigned n = 0; n < s->n; n++) {
		cpu += s->rows[n].cpu_percent;
		rss += s->rows[n].rss_kib;
		running += s->rows[n].state == KEEL_STATE_RUNNING;
		vcpus += s->rows[n].id >= 0 ? s->rows[n].vcpus : 0;
	}
	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	printf("keel top - %s  %u guests, %u running, %u vCPUs on %u CPUs  CPU %.1f%%  memory %s of %s  sorted by %s%s\n%s\n", clock, s->n,
	       running, vcpus, node->cpus, cpu, short_size(rss * 1024, used), short_size((double)node->memory_kib * 1024, total),
	       sort_names[order], end, end);
}

static void print_rows(const struct sample *s, unsigned most, bool tty)
{
	char mem[16], rss[16], rd[16], wr[16], rx[16], tx[16];
	const char *end = tty ? "\033[K" : "";

	printf("%s%5s %-24s %-11s %5s %6s %6s %6s %6s %6s %6s %6s%s%s\n", tty ? "\033[7m" : "", "ID", "NAME", "STATE", "VCPUS", "%CPU", "MEM",
	       "RSS", "RD/s", "WR/s", "RX/s", "TX/s", end, tty ? "\033[m" : "");
	for (unsigned n = 0; n < s->n && n < most; n++) {
		const struct row *r = &s->rows[n];
		char id[16];

		snprintf(id, sizeof(id), r->id < 0 ? "-" : "%d", r->id);
		printf("%5s %-24.24s %-11s %5u %6.1f %6s %6s %6s %6s %6s %6s%s\n", id, r->name, keel_state_name(r->state), r->vcpus,
		       r->cpu_percent, short_size(r->memory_kib * 1024, mem), short_size(r->rss_kib * 1024, rss), short_size(r->read_rate, rd),
		       short_size(r->write_rate, wr), short_size(r->receive_rate, rx), short_size(r->send_rate, tx), end);
	}
}

static json_t *row_json(const struct row *r)
{
	return json_pack("{s:o,s:s,s:s,s:i,s:f,s:I,s:I,s:f,s:f,s:f,s:f}", "id", r->id < 0 ? json_null() : json_integer(r->id), "name",
			 r->name, "state", keel_state_name(r->state), "vcpus", (int)r->vcpus, "cpu-percent", r->cpu_percent,
			 "memory-kib", (json_int_t)r->memory_kib, "rss-kib", (json_int_t)r->rss_kib, "read-bytes-per-second", r->read_rate,
			 "written-bytes-per-second", r->write_rate, "received-bytes-per-second", r->receive_rate,
			 "sent-bytes-per-second", r->send_rate);
}

static void print_json(const struct sample *s)
{
	json_t *list = json_array();
	char *line;

	for (unsigned n = 0; n < s->n; n++)
		json_array_append_new(list, row_json(&s->rows[n]));
	line = json_dumps(list, JSON_COMPACT | JSON_PRESERVE_ORDER);
	printf("%s\n", line);
	free(line);
	json_decref(list);
}

static unsigned screen_rows(void)
{
	struct winsize w;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_row ? 24 : w.ws_row;
}

static void show(struct cmd *c, const struct sample *s, const struct keel_node_info *node, bool tty)
{
	unsigned rows = tty ? screen_rows() : ~0u;

	if (cmd_has(c, "json")) {
		print_json(s);
	} else {
		if (tty)
			printf("\033[H");
		print_head(c, s, node, tty ? "\033[K" : "");
		print_rows(s, rows > 4 ? rows - 4 : 1, tty);
		printf(tty ? "\033[J" : "\n");
	}
	fflush(stdout);
}

/* ---- Running --------------------------------------------------------------- */

/* Wait for the next round; keys choose the order or leave. True: leave. */
static bool pause_for(uint64_t until, bool keys)
{
	static const char letters[] = "cmifn"; /* cpu, memory, io, network's "f"low, name */
	struct pollfd pfd = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t now;
	char key;

	while (!interrupted && (now = monotonic_ns()) < until) {
		const char *at;

		if (poll(&pfd, keys ? 1 : 0, (int)((until - now) / 1000000) + 1) <= 0)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 3)
			return true;
		at = strchr(letters, key);
		if (at && key) {
			order = (enum sort)(at - letters);
			return false;
		}
	}
	return interrupted;
}

static int run_top(struct cmd *c)
{
	bool tty = isatty(STDOUT_FILENO) && !cmd_has(c, "plain") && !cmd_has(c, "json"), keys = tty && isatty(STDIN_FILENO);
	long long seconds = 2, rounds = tty ? 0 : 1;
	struct sigaction sa = { .sa_handler = on_interrupt };
	struct keel_node_info node;
	struct sample s = { 0 };
	struct termios old, raw;
	int status = 0;

	if (cmd_number(c, "delay", &seconds) || cmd_number(c, "iterations", &rounds))
		return 1;
	if (seconds < 1 || rounds < 0) {
		fprintf(stderr, "error: --delay is at least 1 and --iterations at least 0\n");
		return 1;
	}
	order = SORT_CPU;
	if (cmd_has(c, "sort")) {
		while (order <= SORT_NAME && strcmp(sort_names[order], cmd_text(c, "sort")))
			order++;
		if (order > SORT_NAME) {
			fprintf(stderr, "error: --sort %s: sort by cpu, memory, io, net or name\n", cmd_text(c, "sort"));
			return 1;
		}
	}
	/* Rates need two samples: the second is half a second after the first. */
	if (keel_node_info(c->conn, &node, &c->error) || take(c, &s, cmd_has(c, "all")))
		return cmd_fail(c, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	if (keys) {
		tcgetattr(STDIN_FILENO, &old);
		raw = old;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	if (tty)
		printf("\033[?1049h\033[?25l\033[H\033[J");
	if (!pause_for(monotonic_ns() + 500000000, keys))
		for (long long n = 0; !status; n++) {
			uint64_t next = monotonic_ns() + (uint64_t)seconds * 1000000000;

			if (take(c, &s, cmd_has(c, "all"))) {
				status = 1;
				break;
			}
			show(c, &s, &node, tty);
			if (n + 1 == rounds || pause_for(next, keys))
				break;
		}
	if (tty)
		printf("\033[?25h\033[?1049l");
	if (keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	free(s.rows);
	return status ? cmd_fail(c, NULL) : 0;
}

static const struct opt top_opts[] = {
	{ "all", OPT_FLAG, 0, "also guests that are off" },
	{ "delay", OPT_NUMBER, 0, "seconds between two rounds (2)" },
	{ "iterations", OPT_NUMBER, 0, "rounds; 0: until q or Ctrl-C, which is so on a terminal, else 1" },
	{ "sort", OPT_TEXT, 0, "by cpu, memory, io, net or name; on a terminal the keys c, m, i, f, n" },
	{ "plain", OPT_FLAG, 0, "tables one after the other, as without a terminal" },
	{ "json", OPT_FLAG, 0, "each round a JSON array on a line" },
	{ 0 },
};

const struct verb top_verbs[] = {
	{ "top", "show who uses what, again and again", top_opts, run_top },
	{ 0 },
};
