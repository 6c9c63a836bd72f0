# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/engine runs in the guest and on the host: Debian's programs on fixed work."""
from collections import namedtuple

# half: "user" where native time is spent in user mode, "system" where the kernel is what is measured.
# command has {n} where the amount of work goes; small is the amount that only warms caches.
# figure: the command prints microseconds for its work itself.
Program = namedtuple("Program", "name half command n small figure", defaults=(False,))

BOX, HERE = "/bin/busybox", "/tmp/bench"
TEXT = f"{HERE}/text"  # Python's library, about 5 MB
PYTHON = f"python3 {HERE}/python.py"
SYSBENCH = "sysbench {} --time=0 run | /bin/busybox grep '{}'"


def speed(algorithm, awk):
    """openssl speed counts operations in a fixed time; awk turns its -mr line into microseconds for fixed work."""
    return (f"openssl speed -mr -elapsed -seconds {{n}} -bytes 8192 {algorithm} 2>/dev/null | "
            f"{BOX} awk -F: '/^.F/ {{{{ printf \"%d\\n\", {awk} }}}}'")


def many(command):
    """A command of busybox on a file n times over."""
    return f'i=0; while [ $i -lt {{n}} ]; do set -- "$@" {TEXT}; i=$((i + 1)); done; exec {BOX} {command} "$@"'


# The user half takes about half a second natively each, so that starting the program (system half: fork+exec) is not what is measured.
PROGRAMS = [
    Program("sha256sum", "user", many("sha256sum"), 24, 1),
    Program("md5sum", "user", many("md5sum"), 32, 1),
    Program("gzip", "user", f"{BOX} head -q -c {{n}} {TEXT} {TEXT} {TEXT} | {BOX} gzip -c", 5 << 20, 65536),
    Program("awk", "user", f"{BOX} awk 'BEGIN {{{{ for (i = 1; i < {{n}}; i++) s += (i * 1.7 - 3) / i; print s }}}}'", 2000000, 1000),
    Program("shell", "user", "i=0; while [ $i -lt {n} ]; do i=$((i + 1)); done; echo $i", 600000, 1000),
    Program("openssl-sha256", "user", speed("sha256", "1073741824 / $4 * 1e6"), 2, 1, True),
    Program("openssl-aes-gcm", "user", speed("-evp aes-128-gcm", "1073741824 / $4 * 1e6"), 2, 1, True),
    Program("openssl-rsa2048", "user", speed("rsa2048", "(1e3 / $4 + 1e3 / $5) * 1e6"), 2, 1, True),
    # With its path: busybox's shell has an xz of its own.
    Program("xz", "user", f"{BOX} head -c {{n}} {TEXT} | /usr/bin/xz -T1 -3 >/tmp/x; {BOX} sha256sum </tmp/x; "
            f"/usr/bin/xz -dc /tmp/x | {BOX} md5sum", 5 << 20, 65536),
    Program("zstd", "user", f"{BOX} head -c {{n}} {TEXT} | zstd --single-thread -14 >/tmp/x; {BOX} sha256sum </tmp/x; "
            f"zstd -dc /tmp/x | {BOX} md5sum", 4 << 20, 65536),
    Program("sqlite", "user", f"{BOX} rm -f /tmp/db; {BOX} sed s/SCALE/{{n}}/ {HERE}/speed.sql | sqlite3 /tmp/db", 140000, 100),
    Program("python-nbody", "user", f"{PYTHON} nbody {{n}}", 150000, 10),
    Program("python-fannkuch", "user", f"{PYTHON} fannkuch {{n}}", 9, 4),
    Program("python-objects", "user", f"{PYTHON} objects {{n}}", 400000, 10),
    Program("python-json", "user", f"{PYTHON} json {{n}}", 1400, 1),
    Program("python-regex", "user", f"{PYTHON} regex {{n}}", 150, 1),
    Program("gcc", "user", f"gcc -O2 -w -c {HERE}/unit{{n}}.c -o /tmp/o && {BOX} sha256sum </tmp/o", 5000, 100),
    Program("sysbench-cpu", "user", SYSBENCH.format("cpu --cpu-max-prime=10000 --events={n}", "number of events"), 3000, 1),
    Program("sysbench-memory", "user", SYSBENCH.format("memory --memory-block-size=1M --memory-total-size={n}G", "total size"), 20, 1),
    Program("sysbench-threads", "system",
            SYSBENCH.format("threads --threads=4 --thread-yields=100 --thread-locks=2 --events={n}", "number of events"), 4000, 1),
    Program("fork+exec", "system", f"i=0; while [ $i -lt {{n}} ]; do {BOX} true; i=$((i + 1)); done", 1500, 1),
    Program("forks", "system", f"{HERE}/calls forks {{n}}", 4000, 1),
    Program("pipe", "system", f"{HERE}/calls pingpong {{n}}", 40000, 1),
    Program("page-faults", "system", f"{HERE}/calls faults {{n}}", 80, 1),
    Program("getppid", "system", f"{HERE}/calls getppid {{n}}", 6000000, 1),
]
