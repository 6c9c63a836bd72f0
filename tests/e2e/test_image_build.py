# SPDX-License-Identifier: GPL-2.0-or-later
"""keel image build: what it refuses; and, with KEEL_LONG set, a Debian system that is made, boots twice and answers by SSH."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest

BIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")


@pytest.fixture
def build_image(build):
    return lambda *args: subprocess.run([build / "bin/keel", "image", "build", *map(str, args)], capture_output=True, text=True)


def test_refusals(build_image, scratch):
    key = scratch / "key"
    key.write_text("ssh-ed25519 AAAA someone\n")
    for args, text in ((["new"], "nobody could log in"), (["--ssh-key", scratch / "none", "new"], "none"),
                       (["--ssh-key", key, "--size", "5M", "new"], "1G to 2T"), (["--ssh-key", key, "--hostname", "a;b", "new"], "letters"),
                       (["--ssh-key", key, "--user", "$(id)", "new"], "letters"), (["--ssh-key", key, "--format", "vmdk", "new"], "vmdk"),
                       (["--ssh-key", key], "name")):
        done = build_image(*args)
        assert done.returncode == 1 and text in done.stderr, (args, done.stderr)
    assert not list(pathlib.Path(".").glob("new*"))


def test_a_failure_leaves_nothing(build_image, scratch):
    if not shutil.which("mmdebstrap") or not pathlib.Path("/usr/lib/grub/i386-pc/boot.img").exists():
        pytest.skip("mmdebstrap or grub-pc-bin is not installed")
    (scratch / "key").write_text("ssh-ed25519 AAAA someone\n")
    done = build_image("--ssh-key", scratch / "key", "--mirror", f"deb copy:{scratch}/nowhere bookworm main", scratch / "new")
    assert done.returncode == 1 and "could not be made" in done.stderr
    assert [p.name for p in scratch.iterdir()] == ["key"]


@pytest.mark.skipif(not os.environ.get("KEEL_LONG"), reason="it takes minutes and Debian's mirror: set KEEL_LONG")
@pytest.mark.timeout(3000)
def test_debian(build, build_image, scratch):
    if not BIOS.exists():
        pytest.skip("the package seabios is not installed")
    disk, key = scratch / "disk", scratch / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    done = build_image("--size", "2G", "--ssh-key", f"{key}.pub", "--hostname", "built", "--user", "someone", disk)
    assert done.returncode == 0, done.stderr
    assert json.loads(subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, text=True).stdout)["virtual-size"] == 2 << 30
    # Twice on virtio-blk, then on virtio-scsi.
    for boot, bus in enumerate(["virtio", "virtio", "scsi"]):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        vm = subprocess.Popen([build / "bin/keel", "run", "--memory", "1024", "--cpus", "2", "--firmware", BIOS, "--disk", f"{disk},format=qcow2,bus={bus}",
                               "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:22", "--serial", f"file:{scratch}/serial"], stdin=subprocess.DEVNULL)
        try:
            ssh = ["ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                   "ConnectTimeout=20", "someone@127.0.0.1"]
            end = time.time() + 600
            while time.time() < end:
                done = subprocess.run([*ssh, "hostname; cat mark 2>/dev/null; sudo id -u; ls -d /sys/block/[sv]da; touch mark; echo again > mark"], capture_output=True, text=True)
                if done.returncode == 0:
                    break
                time.sleep(3)
            assert done.stdout.split() == ["built"] + ["again"] * (boot > 0) + ["0", "/sys/block/sda" if bus == "scsi" else "/sys/block/vda"], (done, open(scratch / "serial").read()[-3000:])
            subprocess.run([*ssh, "sudo systemctl poweroff"], capture_output=True)
            assert vm.wait(300) == 0
        finally:
            vm.kill()
            vm.wait()
    subprocess.run(["qemu-img", "check", disk], check=True)
