# SPDX-License-Identifier: GPL-2.0-or-later
"""gcc on four vCPUs: what it makes in the guest is what it makes on the host, to the bit. scripts/check-long does it 100 times."""
import pathlib
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_parallel_compile_is_the_hosts(build):
    try:
        p = subprocess.run([TOP / "scripts/guest-disk", build / "guest/bench"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                           stdout=subprocess.DEVNULL, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip("Debian's packages could not be fetched within 240 s (scripts/guest-disk)")
    if p.returncode:
        pytest.skip(f"the disk with Debian's gcc can't be made: {p.stderr.strip()[-200:]}")
    p = subprocess.run([TOP / "scripts/boots", build, "--boots", "1", "--lines", "400"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "can't be run on this host" in p.stdout:
        pytest.skip(p.stdout.strip())
    assert p.returncode == 0, p.stdout
    assert "1 boots with 4 vCPUs" in p.stdout
