# SPDX-License-Identifier: GPL-2.0-or-later
"""fio inside of the same guest on Keel's and on QEMU's software CPU, by turns; KEEL_LONG=1 (scripts/check-long) runs it."""
import os
import shutil
import subprocess

import pytest

from keel import Guest
from tools import disk

pytestmark = [pytest.mark.skipif(not os.environ.get("KEEL_LONG"), reason="takes minutes: KEEL_LONG=1 runs it"),
              pytest.mark.skipif(not shutil.which("fio"), reason="fio is not installed"),
              pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="QEMU is not installed")]
JOBS = {"randread-1": "--rw=randread --bs=4k --iodepth=1", "randread-16": "--rw=randread --bs=4k --iodepth=16",
        "randwrite-16": "--rw=randwrite --bs=4k --iodepth=16", "read-64k": "--rw=read --bs=64k --iodepth=4",
        "write-64k": "--rw=write --bs=64k --iodepth=4"}
SCRIPT = "".join(f"""
fio --name=x --filename=/dev/vdb --direct=1 --ioengine=libaio --numjobs=2 --time_based --runtime=4 --ramp_time=1 \\
	--group_reporting --output-format=json --output=/tmp/j {options} >/dev/null 2>&1
say "iops {name} $(sed -n 's/^ *"iops" : \\([0-9]*\\).*/\\1/p' /tmp/j | sort -n | tail -n 1)"
""" for name, options in JOBS.items())


def keel(build, scratch, system, data, fmt, extra):
    return Guest(build, scratch, "--cpus", "2", "--memory", "512M", "--disk", system, "--disk", f"{data},format={fmt},cache=none,{extra}",
                 run="tools")


def qemu(build, scratch, system, data, fmt, extra):
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512", "-nodefaults",
               "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", build / "guest/vmlinuz", "-initrd", build / "guest/initrd",
               "-append", "console=ttyS0 panic=-1 loglevel=4 keel.run=tools",
               "-drive", f"file={system},format=raw,if=none,id=s", "-device", "virtio-blk-pci,drive=s",
               "-object", "iothread,id=t", "-drive", f"file={data},format={fmt},if=none,id=d,cache=none,aio=native",
               "-device", "virtio-blk-pci,drive=d,iothread=t,num-queues=2"]
    wrapper = scratch / "qemu"
    wrapper.write_text("#!/bin/sh\nexec " + " ".join(f"'{c}'" for c in command) + "\n")
    wrapper.chmod(0o755)
    # Where a test's Guest looks for a program.
    return Guest(build, scratch, kernel=False, qmp=False, engine=None, program=os.path.relpath(wrapper, build / "bin"))


def measure(start, *args):
    g = start(*args)
    try:
        found = {}
        for name in JOBS:
            got, iops = g.expect("iops", 240).split()
            assert got == name
            found[name] = int(iops)
        g.wait()
        return found
    finally:
        g.kill()


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_never_below_qemu(build, scratch, fmt):
    system = disk(scratch / "system", ["fio"], SCRIPT, "512M")
    data = scratch / "data"
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, "-o", "preallocation=full", data, "256M"], check=True)
    best = {keel: {}, qemu: {}}
    for _ in range(2):
        for start in (keel, qemu):
            for name, iops in measure(start, build, scratch, system, data, fmt, "queues=2").items():
                best[start][name] = max(iops, best[start].get(name, 0))
    ratios = {name: best[keel][name] / best[qemu][name] for name in JOBS}
    print(f"\n{fmt}: " + ", ".join(f"{name} {best[keel][name]}/{best[qemu][name]} = {r:.2f}" for name, r in ratios.items()))
    assert min(ratios.values()) >= 1, ratios


def test_threads_for_queues_are_not_slower(build, scratch):
    system = disk(scratch / "system", ["fio"], SCRIPT, "512M")
    data = scratch / "data"
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", "-o", "preallocation=full", data, "256M"], check=True)

    def laned(build, scratch, system, data, fmt, extra):
        return Guest(build, scratch, "--cpus", "2", "--memory", "512M", "--object", "iothread,id=t0", "--object", "iothread,id=t1",
                     "--disk", system, "--disk", f"{data},cache=none,queues=2,iothread=t0:t1", run="tools")

    best = {keel: {}, laned: {}}
    for _ in range(2):
        for start in best:
            for name, iops in measure(start, build, scratch, system, data, "raw", "queues=2").items():
                best[start][name] = max(iops, best[start].get(name, 0))
    ratios = {name: best[laned][name] / best[keel][name] for name in JOBS}
    print("\nlanes: " + ", ".join(f"{name} {best[laned][name]}/{best[keel][name]} = {r:.2f}" for name, r in ratios.items()))
    mean = 1
    for r in ratios.values():
        mean *= r ** (1 / len(ratios))
    assert mean > 0.95, ratios
