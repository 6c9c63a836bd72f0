# SPDX-License-Identifier: GPL-2.0-or-later
"""User code that runs natively does what an x86-64 CPU does: tests/guests/user.c under Debian's kernel."""
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "guests/user.c"
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/user && echo KEEL user good || echo KEEL user bad
echo KEEL end
/bin/busybox sleep 100000
"""


@pytest.fixture(scope="module")
def initrd(build, tmp_path_factory):
    """The guest's initramfs with the program and an init of its own laid over it."""
    top = tmp_path_factory.mktemp("user")
    root = top / "root"
    root.mkdir()
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", root / "user", SOURCE, "-lm"], check=True)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    over = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=b"init\nuser\n", stdout=subprocess.PIPE, check=True)
    out = top / "initrd"
    base = (build / "guest/initrd").read_bytes()
    out.write_bytes(base + bytes(-len(base) % 512) + over.stdout)
    return out


def start(guest, build, initrd, engine, cpus):
    return guest("--kernel", build / "guest/vmlinuz", "--initrd", initrd, "--append", "console=ttyS0 panic=-1 loglevel=4",
                 "--cpus", cpus, kernel=False, engine=engine)


@pytest.mark.parametrize("engine,cpus", [("soft,native=always", 2), ("soft", 1), ("soft,native=off", 1)])
def test_user_code(guest, build, initrd, engine, cpus):
    g = start(guest, build, initrd, engine, cpus)
    g.expect("end")
    bad = [line for line in g.output if line.startswith("BAD")]
    assert not bad and any(line.startswith("KEEL user good") for line in g.output), g.output[-40:]
    stats = g.qmp.command("query-engine")
    if engine == "soft,native=off":
        assert stats["native-stretches"] == 0
    elif not g.errors:
        # Several of its seconds are computations.
        assert stats["native-us"] > 500000, stats


def processes(pid):
    """Those that run guest code."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def test_process_killed(guest, build, initrd):
    """The process that runs guest code has the vCPU's state in it: whoever kills it ends the guest, with the reason."""
    g = start(guest, build, initrd, "soft,native=always", 1)
    deadline = time.time() + 60
    while g.process.poll() is None and time.time() < deadline:
        for pid in processes(g.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.001)
    if g.process.poll() is None:
        pytest.skip("no guest code ran natively: " + g.errors)
    assert g.wait() == 1 and "the process that ran guest user code was killed" in g.errors, g.errors
