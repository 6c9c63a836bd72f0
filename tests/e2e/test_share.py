# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder of the host in the guest (virtiofsd behind vhost-user)."""
import hashlib
import os
import subprocess
import time

import pytest


@pytest.fixture
def folder(scratch):
    if os.geteuid():
        pytest.skip("Debian 12's virtiofsd needs root")
    if not os.path.exists("/usr/lib/qemu/virtiofsd"):
        pytest.skip("no virtiofsd: install qemu-system-common")
    path = scratch / "shared folder"
    path.mkdir()
    (path / "big").write_bytes(os.urandom(16 << 20))
    return path


def servers():
    return subprocess.run(["pgrep", "-c", "-f", "virtiofsd --fd=3"], capture_output=True, text=True).stdout


def test_files_go_both_ways_and_over_a_reboot(guest, folder):
    before = servers()
    g = guest("--memory", "384M", "--share", f"{folder},tag=work", run="share")
    assert g.expect("files").split() == ["big"]
    big = (folder / "big").read_bytes()
    assert g.expect("sum") == hashlib.sha256(big).hexdigest()
    assert g.expect("runs") == "it does"
    assert g.expect("again") == "hello"
    assert (folder / "copy").read_bytes() == big
    assert (folder / "dir/file").stat().st_mode & 0o777 == 0o600 and os.readlink(folder / "dir/link") == "file"
    assert g.wait() == 0
    assert not (folder / "seen").exists()
    end = time.time() + 10
    while servers() != before:
        assert time.time() < end, "a virtiofsd stays behind"


@pytest.mark.parametrize("text, word", [
    ("{0}/none,tag=x", "cannot find the folder"),
    ("{0}/big,tag=x", "not a folder"),
    ("{0}", "tag"),
    ("{0},tag=" + "x" * 40, "tag"),
    ("{0},tag=x,cache=often", "cache"),
    ("{0},tag=x,colour=red", "colour"),
])
def test_refusals(build, folder, text, word):
    p = subprocess.run([build / "bin/keel-vmm", "--kernel", build / "guest/vmlinuz", "--engine", "soft", "--share",
                        text.format(folder)], capture_output=True, text=True, timeout=20)
    assert p.returncode == 1
    assert word in p.stderr and "--share" in p.stderr
