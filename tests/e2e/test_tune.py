# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of running guests: what virsh sets stands in the guest's control groups."""
import os
import pathlib
import re
import shutil

import pytest

from daemon import Keeld, domain_xml

CGROUPS = pathlib.Path("/sys/fs/cgroup")
V1 = (CGROUPS / "cpu/cpu.shares").exists() or (CGROUPS / "cpu/tasks").exists()
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not V1, reason="needs root and the CPU controller of cgroups, version 1")


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("t")
    k = Keeld(path / "r")
    tune = """<cputune><shares>512</shares><period>50000</period><quota>25000</quota><emulator_quota>60000</emulator_quota></cputune>
      <memtune><hard_limit unit='KiB'>1048576</hard_limit></memtune>"""
    (path / "t.xml").write_text(domain_xml("t", vcpus=2, extra=tune))
    k.ok("define", path / "t.xml")
    k.ok("start", "t")
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


def group(keeld, controller):
    lines = open(f"/proc/{keeld.guests()[0]}/task/{keeld.guests()[0]}/cgroup").read().splitlines()
    path = next(p for _, names, p in (line.split(":", 2) for line in lines) if controller in names.split(","))
    return CGROUPS / controller / path.lstrip("/").removesuffix("/emulator")


def read(path):
    return path.read_text().strip()


def settings(text):
    return dict(re.findall(r"^(\S+)\s*: (.*?)\s*$", text, re.M))


def test_the_definition_holds(keeld):
    cpu = group(keeld, "cpu")
    assert read(cpu / "cpu.shares") == "512"
    for n in range(2):
        assert read(cpu / f"vcpu{n}/cpu.cfs_period_us") == "50000" and read(cpu / f"vcpu{n}/cpu.cfs_quota_us") == "25000"
        tids = read(cpu / f"vcpu{n}/tasks").split()
        assert [open(f"/proc/{t}/comm").read() for t in tids] == [f"vcpu {n}\n"]
    assert read(cpu / "emulator/cpu.cfs_quota_us") == "60000" and str(keeld.guests()[0]) in read(cpu / "emulator/tasks").split()
    assert read(group(keeld, "memory") / "memory.limit_in_bytes") == str(1 << 30)
    now = settings(keeld.ok("schedinfo", "t"))
    assert list(now) == ["Scheduler", "cpu_shares", "vcpu_period", "vcpu_quota", "emulator_period", "emulator_quota",
                         "global_period", "global_quota", "iothread_period", "iothread_quota"]
    assert now["Scheduler"] == "posix" and now["cpu_shares"] == "512" and now["vcpu_quota"] == "25000"
    assert now["global_period"] == "100000" and now["global_quota"] == "17592186044415"


def test_schedinfo(keeld):
    cpu = group(keeld, "cpu")
    keeld.ok("schedinfo", "t", "--live", "--set", "cpu_shares=2048", "vcpu_quota=30000")
    assert read(cpu / "cpu.shares") == "2048" and read(cpu / "vcpu1/cpu.cfs_quota_us") == "30000"
    assert settings(keeld.ok("schedinfo", "t", "--config"))["cpu_shares"] == "512"
    keeld.ok("schedinfo", "t", "--config", "--set", "global_quota=40000")
    assert "<global_quota>40000</global_quota>" in keeld.ok("dumpxml", "t", "--inactive")
    assert read(cpu / "cpu.cfs_quota_us") == "-1"
    keeld.ok("schedinfo", "t", "--live", "--set", "vcpu_quota=-1")
    assert read(cpu / "vcpu0/cpu.cfs_quota_us") == "-1"
    r = keeld.virsh("schedinfo", "t", "--set", "vcpu_period=1")
    assert r.returncode and "out of range" in r.stderr
    assert keeld.virsh("schedinfo", "t", "--set", "speed=1").returncode


def test_memtune(keeld):
    memory = group(keeld, "memory")
    keeld.ok("memtune", "t", "--hard-limit", "2097152", "--soft-limit", "524288", "--live", "--config")
    assert read(memory / "memory.limit_in_bytes") == str(2 << 30) and read(memory / "memory.soft_limit_in_bytes") == str(512 << 20)
    assert settings(keeld.ok("memtune", "t"))["hard_limit"] == "2097152"
    assert "<soft_limit unit='KiB'>524288</soft_limit>" in keeld.ok("dumpxml", "t", "--inactive")
    keeld.ok("memtune", "t", "--soft-limit", "-1", "--live")
    assert settings(keeld.ok("memtune", "t", "--live"))["soft_limit"] == "unlimited"
    assert int(read(memory / "memory.soft_limit_in_bytes")) > 1 << 60
    r = keeld.virsh("memtune", "t", "--swap-hard-limit", "1024", "--live")
    assert r.returncode and "lower than or equal to swap_hard_limit" in r.stderr


def test_blkiotune(keeld):
    now = settings(keeld.ok("blkiotune", "t"))
    assert list(now) == ["weight", "device_weight", "device_read_iops_sec", "device_write_iops_sec", "device_read_bytes_sec",
                         "device_write_bytes_sec"]
    keeld.ok("blkiotune", "t", "--weight", "300", "--config")
    assert "<blkiotune>\n    <weight>300</weight>" in keeld.ok("dumpxml", "t", "--inactive")
    r = keeld.virsh("blkiotune", "t", "--device-read-bytes-sec", "/dev/null,1000", "--live")
    assert r.returncode and "Block device required" in r.stderr
    devices = [p for p in ("/dev/vda", "/dev/sda", "/dev/nvme0n1") if os.path.exists(p)]
    if devices:
        keeld.ok("blkiotune", "t", "--device-read-bytes-sec", f"{devices[0]},1000000", "--live")
        assert " 1000000" in read(group(keeld, "blkio") / "blkio.throttle.read_bps_device")
    assert keeld.virsh("blkiotune", "t", "--weight", "5").returncode


def test_groups_go_with_the_guest(keeld):
    groups = [group(keeld, c) for c in ("cpu", "memory", "blkio", "pids")]
    assert all(g.is_dir() for g in groups) and int(read(groups[3] / "pids.max")) > 2
    keeld.ok("destroy", "t")
    assert not any(g.exists() for g in groups)
