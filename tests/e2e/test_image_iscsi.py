# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks on an iSCSI target: tgtd, by keel image, by a guest, by QMP; with CHAP, while it breaks, and when it comes back."""
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time

import pytest

from imagetool import qemu, run
from iscsi import IQN, Target

pytestmark = pytest.mark.skipif(not shutil.which("tgtd"), reason="tgt is not installed")
SIZE = 6 << 20


@pytest.fixture
def target(scratch):
    t = Target(scratch)
    t.start()
    yield t
    t.kill()


@pytest.fixture
def image(build):
    if "without libiscsi" in subprocess.run([build / "bin/keel", "image", "info", "iscsi://h/t/1"], capture_output=True, text=True).stderr:
        pytest.skip("this Keel was built without libiscsi")
    return lambda *args, **kw: run(build / "bin/keel", "image", *args, **kw)


@pytest.fixture
def refused(build, image):
    def call(*args):
        done = subprocess.run([build / "bin/keel", "image", *map(str, args)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1, done.stdout
        return done.stderr

    return call


def disk(seed):
    rnd = random.Random(seed)
    return rnd.randbytes(SIZE // 3) + bytes(SIZE // 3) + rnd.randbytes(SIZE // 3)


@pytest.mark.parametrize("block", [512, 4096])
def test_contents(image, target, scratch, block):
    data = disk(block)
    (scratch / "disk").write_bytes(data)
    (scratch / "lun").write_bytes(bytes(SIZE))
    target.lun(1, scratch / "lun", block, "thin_provisioning=1")
    name = target.name(1)
    assert json.loads(image("info", "--output=json", name))["virtual-size"] == SIZE
    image("convert", "-n", "-f", "raw", "-O", "raw", scratch / "disk", name)
    assert (scratch / "lun").read_bytes() == data
    image("compare", scratch / "disk", name)
    qemu("compare", "-f", "raw", "-F", "raw", scratch / "disk", target.name(1))  # libiscsi's own URL: the same
    # The devices' way to it: writes smaller than its blocks, many at a time, flushed.
    image("bench", "-f", "raw", "-w", "-c", "100", "-d", "16", "-s", "1536", "-S", "16k", "--pattern=7", "--flush-interval=30", name)
    want = bytearray(data)
    for i in range(100):
        want[i * 16384:i * 16384 + 1536] = bytes([7]) * 1536
    image("convert", "-f", "raw", "-O", "raw", name, scratch / "back")
    assert (scratch / "back").read_bytes() == want
    # Zeroes, by WRITE SAME, over data: it is copied on top of what is there.
    (scratch / "zero").write_bytes(bytes(SIZE))
    image("convert", "-n", "-f", "raw", "-O", "raw", scratch / "zero", name)
    assert (scratch / "lun").read_bytes() == bytes(SIZE)
    # Below an image of ours.
    image("create", "-q", "-f", "qcow2", "-b", name, "-F", "raw", scratch / "top")
    image("compare", scratch / "top", scratch / "zero")


def test_encrypted(image, target, scratch):
    """LUKS behind iSCSI: qemu-img reads it there."""
    (scratch / "pass").write_bytes(b"abc")
    (scratch / "disk").write_bytes(disk(5))
    secret = ("--object", f"secret,id=key,file={scratch}/pass")
    image("convert", *secret, "-f", "raw", "-O", "luks", "-o", "key-secret=key,iter-time=50", scratch / "disk", scratch / "lun")
    target.lun(1, scratch / "lun")
    name = f"driver=luks,key-secret=key,file.filename={target.name(1)}"
    image("compare", *secret, "--image-opts", name, f"driver=raw,file.filename={scratch}/disk")
    image("bench", *secret, "--image-opts", "-w", "-c", "50", "-s", "64k", "--pattern=9", name)
    theirs = f"driver=luks,key-secret=key,file.driver=iscsi,file.transport=tcp,file.portal={target.portal},file.target={IQN},file.lun=1"
    qemu("convert", *secret, "--image-opts", theirs, "-O", "raw", scratch / "back")
    assert (scratch / "back").read_bytes() == bytes([9]) * (50 << 16) + disk(5)[50 << 16:]


def test_chap(image, refused, target, scratch):
    (scratch / "lun").write_bytes(disk(1))
    (scratch / "pass").write_bytes(b"twelve-chars-x")
    (scratch / "wrong").write_bytes(b"twelve-chars-y")
    target.lun(1, scratch / "lun")
    target.login("alice", "twelve-chars-x")
    good = ("--object", f"secret,id=p,file={scratch}/pass")
    image("compare", *good, scratch / "lun", target.name(1, "alice", password_secret="p"))
    wrong = ("--object", f"secret,id=p,file={scratch}/wrong")
    assert "cannot log in" in refused("info", *wrong, target.name(1, "alice", password_secret="p"))
    assert "cannot log in" in refused("info", target.name(1))
    assert "password-secret" in refused("info", target.name(1, "alice"))
    told = refused("info", target.name(1, "alice%twelve-chars-x"))
    assert "everybody can read" in told


def test_what_is_wrong_is_named(refused, image, target, scratch):
    (scratch / "lun").write_bytes(disk(2))
    target.lun(1, scratch / "lun", params="readonly=1")
    (scratch / "second").write_bytes(bytes(1 << 20))
    target.lun(2, scratch / "second")
    image("compare", scratch / "lun", target.name(1))
    assert "read-only at the target" in refused("bench", "-w", "-f", "raw", "-c", "1", target.name(1))
    assert "LOGICAL_UNIT_NOT_SUPPORTED" in refused("info", target.name(7)).upper().replace(" ", "_")
    assert "cannot log in" in refused("info", target.name(1).replace("keel", "leek"))
    assert "size that its server gives it" in refused("resize", target.name(2), "+1M")
    assert "only raw" in refused("convert", "-O", "qcow2", scratch / "lun", target.name(1))
    with socket.socket() as s:  # nobody listens there
        s.bind(("127.0.0.1", 0))
        assert "cannot log in" in refused("info", f"iscsi://127.0.0.1:{s.getsockname()[1]}/{IQN}/1")
    for name, word in [("iscsi://h", "target's name is missing"), ("iscsi://h/", "target's name"), ("iscsi://:1/t/1", "portal"),
                       ("iscsi://h:99999/t/1", "portal"), ("iscsi://h/t/x", "LUN"), ("iscsi://h/t/1?color=red", "settings"),
                       ("iscsi://h/t/1?header-digest=md5", "header-digest"), ("iscsi://h/%00/1", "target's name")]:
        assert word in refused("info", name)


def test_a_server_that_talks_nonsense(refused, scratch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            for junk in (b"", b"HTTP/1.0 400 no\r\n\r\n" * 10, bytes(48), b"\x23" + b"\xff" * 47, random.Random(3).randbytes(4000)):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.settimeout(5)
                        connection.recv(100)
                        connection.sendall(junk)
                        time.sleep(0.2)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        for _ in range(5):
            assert "cannot log in" in refused("info", f"iscsi://127.0.0.1:{server.getsockname()[1]}/{IQN}/1")


def test_the_target_dies_and_comes_back(image, target, scratch, build):
    """Requests that are on their way when the connection breaks are sent again."""
    (scratch / "lun").write_bytes(bytes(SIZE))
    target.lun(1, scratch / "lun")
    bench = subprocess.Popen([build / "bin/keel", "image", "bench", "-f", "raw", "-w", "-c", "60000", "-d", "8", "-s", "4k",
                              "--pattern=5", target.name(1)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))  # libiscsi loses 1,480 bytes a reconnection
    time.sleep(0.7)
    assert bench.poll() is None
    target.kill()
    time.sleep(0.3)
    target.start()
    target.lun(1, scratch / "lun")
    out, errors = bench.communicate(timeout=90)
    assert bench.returncode == 0, errors
    assert (scratch / "lun").read_bytes() == bytes([5]) * SIZE


def test_a_guest_on_it(guest, image, target, scratch):
    """By option, and by QMP as libvirt asks for it, with CHAP."""
    subprocess.run(["truncate", "-s", "64M", scratch / "lun"], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", scratch / "lun"], check=True)
    target.lun(1, scratch / "lun")
    target.login("bob", "secret-of-bob")
    (scratch / "pass").write_bytes(b"secret-of-bob")
    g = guest("--paused", "--object", f"secret,id=p,file={scratch}/pass", "--disk",
              target.name(1, "bob", password_secret="p"), run="disk")
    q = g.qmp
    q.command("object-add", qom_type="secret", id="q", data="secret-of-bob")
    q.command("blockdev-add", driver="raw", node_name="n", file={
        "driver": "iscsi", "transport": "tcp", "portal": target.portal, "target": IQN, "lun": 1, "user": "bob", "password-secret": "q"})
    assert {n["node-name"] for n in q.command("query-named-block-nodes")} >= {"n"}
    with pytest.raises(RuntimeError, match="'target' is missing"):
        q.command("blockdev-add", driver="iscsi", node_name="m", portal="h")
    with pytest.raises(RuntimeError, match="resize it there"):
        q.command("block_resize", node_name="n", size=128 << 20)
    q.command("blockdev-del", node_name="n")
    q.command("cont")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0
    run("e2fsck", "-f", "-n", scratch / "lun")
