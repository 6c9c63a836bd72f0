# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks in a real Ceph: scripts/ceph-one python3 -m pytest tests/e2e/test_image_rbd.py (scripts/check-long does it)."""
import json
import os
import random
import subprocess
import time

import pytest

from imagetool import image, qemu, run  # noqa: F401

pytestmark = pytest.mark.skipif("KEEL_CEPH_INSIDE" not in os.environ, reason="needs a Ceph cluster: scripts/ceph-one runs it")
SIZE = 24 << 20  # several of Ceph's objects


@pytest.fixture
def refused(build):
    def call(*args):
        done = subprocess.run([build / "bin/keel", "image", *map(str, args)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1, done.stdout
        return done.stderr

    return call


@pytest.fixture
def rbd(request):
    """A name of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    yield name
    subprocess.run(["rbd", "snap", "purge", f"keel/{name}"], capture_output=True)
    subprocess.run(["rbd", "rm", f"keel/{name}"], capture_output=True)


def disk(seed):
    rnd = random.Random(seed)
    return rnd.randbytes(SIZE // 3) + bytes(SIZE // 3) + rnd.randbytes(SIZE // 3)


def test_contents(image, scratch, rbd):  # noqa: F811
    (scratch / "disk").write_bytes(disk(1))
    name = f"rbd:keel/{rbd}"
    image("create", "-f", "raw", name, SIZE)
    assert json.loads(run("rbd", "info", "--format=json", f"keel/{rbd}"))["size"] == SIZE
    image("convert", "-n", "-f", "raw", "-O", "raw", scratch / "disk", name)
    run("rbd", "export", f"keel/{rbd}", scratch / "back")
    assert (scratch / "back").read_bytes() == disk(1)
    image("compare", scratch / "disk", name)
    qemu("compare", "-f", "raw", "-F", "raw", scratch / "disk", name)
    kinds = [(e["start"], e["zero"]) for e in json.loads(image("map", "--output=json", name))]
    assert [z for _, z in kinds] == [False, True, False]
    # The devices' way to it.
    image("bench", "-f", "raw", "-w", "-c", "100", "-d", "16", "-s", "8k", "-S", "16k", "--pattern=7", "--flush-interval=30", name)
    want = bytearray(disk(1))
    for i in range(100):
        want[i * 16384:i * 16384 + 8192] = bytes([7]) * 8192
    (scratch / "back").unlink()
    run("rbd", "export", f"keel/{rbd}", scratch / "back")
    assert (scratch / "back").read_bytes() == want
    image("resize", name, "+8M")
    assert json.loads(run("rbd", "info", "--format=json", f"keel/{rbd}"))["size"] == SIZE + (8 << 20)
    image("create", "-q", "-f", "qcow2", "-b", name, "-F", "raw", scratch / "top")
    image("compare", scratch / "top", name)


def test_snapshots(image, refused, scratch, rbd):  # noqa: F811
    (scratch / "disk").write_bytes(disk(2))
    (scratch / "zero").write_bytes(bytes(SIZE))
    name = f"rbd:keel/{rbd}"
    image("convert", "-f", "raw", "-O", "raw", scratch / "disk", name)  # which makes it
    run("rbd", "snap", "create", f"keel/{rbd}@one")
    image("convert", "-n", "-f", "raw", "-O", "raw", scratch / "zero", name)
    image("compare", scratch / "disk", name + "@one")
    image("compare", scratch / "zero", name)
    assert "snapshot, which never changes" in refused("bench", "-w", "-f", "raw", "-c", "1", name + "@one")
    assert "No such file" in refused("info", name + "@two")


def test_two_writers(image, refused, rbd, build):  # noqa: F811
    name = f"rbd:keel/{rbd}"
    image("create", "-f", "raw", name, SIZE)
    first = subprocess.Popen([build / "bin/keel", "image", "bench", "-w", "-f", "raw", "-c", "1000000", name],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.time() + 30
        while not json.loads(run("rbd", "lock", "ls", "--format=json", f"keel/{rbd}")) and time.time() < end:
            time.sleep(0.1)
        told = refused("bench", "-w", "-f", "raw", "-c", "1", name)
        assert "in use by" in told and "two writers" in told
        image("info", name)  # who only reads may
    finally:
        first.kill()
        first.wait()


def test_a_user_of_its_own(image, refused, scratch, rbd, monkeypatch):  # noqa: F811
    """No configuration, no keyring: monitor, user and key from the name and a secret."""
    run("rbd", "namespace", "create", "keel/space")
    run("ceph", "auth", "get-or-create", "client.keel", "mon", "profile rbd", "osd", "profile rbd pool=keel")
    (scratch / "key").write_text(run("ceph", "auth", "print-key", "client.keel"))
    (scratch / "wrong").write_text(run("ceph", "auth", "print-key", "client.admin"))
    run("rbd", "create", "--size", "8M", f"keel/space/{rbd}")
    monkeypatch.delenv("CEPH_CONF")
    name = f"rbd:keel/space/{rbd}:id=keel:key-secret=k:mon_host=127.0.0.1"
    info = json.loads(image("info", "--output=json", "--object", f"secret,id=k,file={scratch}/key", name))
    assert info["virtual-size"] == 8 << 20
    assert "cannot connect" in refused("info", "--object", f"secret,id=k,file={scratch}/wrong", name)
    assert "there is no secret 'k'" in refused("info", name)
    for wrong, word in [("rbd:keel", "rbd:POOL/IMAGE"), ("rbd:keel/", "image's name"), ("rbd:keel/a@", "snapshot's name"),
                        ("rbd:keel/a:id", "KEY=VALUE"), ("rbd:keel/a:key=AQ", "everybody can read"),
                        ("rbd:keel/a:color=red", "knows no setting 'color'"),
                        ("rbd:keel/a:conf=/nonexistent", "configuration")]:
        assert word in refused("info", wrong)


def test_a_guest_on_it(guest, image, scratch, rbd):  # noqa: F811
    """First by option; then, with encryption above it, by QMP as libvirt asks for it."""
    subprocess.run(["truncate", "-s", "64M", scratch / "fs"], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", scratch / "fs"], check=True)
    name = f"rbd:keel/{rbd}"
    image("convert", "-f", "raw", "-O", "raw", scratch / "fs", name)
    g = guest("--disk", name, run="disk")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0
    run("rbd", "export", f"keel/{rbd}", scratch / "back")
    run("e2fsck", "-f", "-n", scratch / "back")

    (scratch / "pass").write_bytes(b"abc")
    secret = ("--object", f"secret,id=key,file={scratch}/pass")
    image("convert", *secret, "-f", "raw", "-O", "luks", "-o", "key-secret=key,iter-time=50", scratch / "fs", scratch / "luks")
    run("rbd", "rm", f"keel/{rbd}")
    run("rbd", "import", scratch / "luks", f"keel/{rbd}")
    g = guest("--paused", "--sandbox", "off", run="disk")
    q = g.qmp
    q.command("object-add", qom_type="secret", id="key", data="abc")
    q.command("blockdev-add", driver="luks", node_name="n", key_secret="key",
              file={"driver": "rbd", "pool": "keel", "image": rbd, "conf": os.environ["CEPH_CONF"]})
    q.command("device_add", driver="virtio-blk-pci", id="d", drive="n")
    q.command("cont")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0
    theirs = f"driver=luks,key-secret=key,file.driver=rbd,file.pool=keel,file.image={rbd},file.conf={os.environ['CEPH_CONF']}"
    qemu("convert", *secret, "--image-opts", theirs, "-O", "raw", scratch / "after")
    run("e2fsck", "-f", "-n", scratch / "after")
