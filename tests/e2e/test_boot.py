# SPDX-License-Identifier: GPL-2.0-or-later
"""An unmodified Debian kernel on the soft engine: boot, SMP, power-off, reboot, power button, crash, idleness."""
import hashlib
import shutil
import time

import pytest


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_boots_to_user_space(guest, build, cpus):
    g = guest("--cpus", cpus, "--memory", "256M", run="facts")
    assert g.expect("kernel").endswith("-cloud-amd64")
    assert g.expect("cpus") == str(cpus)
    assert 190000 < int(g.expect("memory").split()[0]) < 262144
    digest = hashlib.sha256(open(shutil.which("busybox"), "rb").read()).hexdigest()
    assert g.expect("sha256").split()[0] == digest
    assert g.qmp.event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert g.wait() == 0


def test_four_cpus_work_at_once(guest):
    g = guest("--cpus", 4, run="smp")
    assert g.expect("sums") == "1 cpus 4"
    assert g.wait() == 0


def test_memory_above_4_gib(guest):
    g = guest("--memory", "5G", run="facts")
    assert int(g.expect("memory").split()[0]) > 4 << 20
    assert g.wait() == 0


def test_reboot(guest):
    g = guest(run="reboot")
    g.qmp
    g.expect("up")
    g.expect("up")
    assert g.qmp.event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}
    g.qmp.command("quit")
    assert g.wait() == 0


def test_no_reboot_exits(guest):
    g = guest("--no-reboot", run="reboot")
    g.expect("up")
    assert g.wait() == 0


def test_system_reset(guest):
    g = guest(run="idle")
    g.expect("idle")
    g.qmp.command("system_reset")
    assert g.qmp.event("RESET")["data"]["guest"] is False
    g.expect("idle")


def test_power_button_is_seen(guest):
    g = guest(run="wait")
    g.expect("waiting")
    time.sleep(0.5)
    g.qmp.command("system_powerdown")
    g.qmp.event("POWERDOWN")
    g.expect("button")
    assert g.wait() == 0


def test_panic_tells_and_exits_with_crash(guest):
    g = guest(run="panic")
    assert g.qmp.event("GUEST_PANICKED")["data"]["action"] == "poweroff"
    assert g.wait() == 3


def test_triple_fault_exits_with_crash(guest):
    g = guest(run="triple", append="reboot=t")
    g.expect("up")
    assert g.wait() == 3
    assert "triple fault" in g.errors


@pytest.mark.timeout(120)
def test_idle_guest_costs_nothing(guest):
    g = guest(run="idle")
    g.expect("idle")
    time.sleep(3)
    before = g.cpu_seconds()
    time.sleep(10)
    share = (g.cpu_seconds() - before) / 10
    print(f"an idle guest takes {share:.2%} of a CPU")
    assert share < 0.02


def test_stop_and_cont(guest):
    g = guest(run="idle")
    g.expect("idle")
    g.qmp.command("stop")
    g.qmp.event("STOP")
    assert g.qmp.command("query-status")["status"] == "paused"
    before = g.cpu_seconds()
    time.sleep(1)
    assert g.cpu_seconds() - before < 0.02
    g.qmp.command("cont")
    g.qmp.event("RESUME")
    assert g.qmp.command("query-status")["running"] is True
