# SPDX-License-Identifier: GPL-2.0-or-later
"""The translator under a real kernel: against the interpreter block by block, and with four vCPUs at work."""
import subprocess
import time

import pytest


def test_kernel_starts_in_lock_step(guest):
    """As much of a boot as fits: the first difference would end the process. scripts/check-long does all of it."""
    g = guest("--memory", "256M", run="boot", engine="soft,lockstep=on")
    g.qmp
    end = time.time() + 12
    while time.time() < end and g.process.poll() is None:
        time.sleep(0.5)
    assert g.process.poll() in (None, 0), g.errors
    assert "differs" not in g.errors
    if g.process.poll() is None:
        assert g.qmp.command("query-status")["running"] is True
        g.qmp.command("quit")
        assert g.wait() == 0


@pytest.mark.parametrize("engine, extra, words", [
    ("soft,lockstep=on,translate=off", [], "leave translate=off out"),
    ("soft,lockstep=maybe", [], "lockstep is on or off, not 'maybe'"),
])
def test_lock_step_is_refused(build, engine, extra, words):
    done = subprocess.run([build / "bin/keel-vmm", "--engine", engine, "--kernel", build / "guest/vmlinuz", *extra],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert words in done.stderr
