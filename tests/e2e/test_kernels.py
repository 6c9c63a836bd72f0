# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's three kernels, unmodified, on the soft engine: cloud (no modules needed), amd64 and rt (threaded interrupts)."""
import pathlib
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def kernels(build):
    """A function that gives the directory of a flavour, fetched where it is not there yet."""
    def get(flavour):
        directory = build / "guest" if flavour == "cloud" else build / "guest" / flavour
        if not ((directory / "vmlinuz").exists() and (directory / "initrd").exists()):
            try:
                p = subprocess.run([TOP / "scripts/guest", directory, flavour], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, text=True, timeout=180)
            except subprocess.TimeoutExpired:
                pytest.skip(f"Debian's {flavour} kernel could not be fetched within 180 s (scripts/guest {directory} {flavour})")
            if p.returncode:
                pytest.skip(f"Debian's {flavour} kernel could not be fetched: {p.stderr.strip()[-200:]}")
        return directory
    return get


@pytest.mark.timeout(400)
@pytest.mark.parametrize("flavour, suffix", [("cloud", "-cloud-amd64"), ("amd64", "-amd64"), ("rt", "-rt-amd64")])
def test_kernel_boots_and_works_on_four_cpus(guest, kernels, flavour, suffix):
    directory = kernels(flavour)
    both = ["--kernel", directory / "vmlinuz", "--initrd", directory / "initrd", "--memory", "512M", "--append"]
    g = guest(*both, "console=ttyS0 panic=-1 quiet keel.run=facts", kernel=False)
    release = g.expect("kernel")
    assert release.endswith(suffix) and release.count("-") == suffix.count("-") + 1
    assert g.expect("cpus") == "1"
    assert g.wait() == 0
    g = guest(*both, "console=ttyS0 panic=-1 loglevel=4 keel.run=smp", "--cpus", 4, kernel=False)
    assert g.expect("sums") == "1 cpus 4"
    assert g.wait() == 0
    complaints = [line for line in g.output if any(w in line for w in ("WARNING:", "BUG:", "Oops", "rcu_preempt detected"))]
    assert not complaints
