# SPDX-License-Identifier: GPL-2.0-or-later
"""keel image and qcow2, with qemu-img as the second opinion on everything."""
import hashlib
import itertools
import json
import os
import random
import shutil
import struct
import subprocess

import pytest

from imagetool import image, qemu, run  # noqa: F401 (image is a fixture)

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="the package qemu-utils is not installed")

OPTIONS = [
    "", "compat=0.10", "cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=2M,refcount_bits=64",
    "lazy_refcounts=on,refcount_bits=8", "compression_type=zstd", "extended_l2=on", "extended_l2=on,cluster_size=16k,compression_type=zstd",
]


@pytest.fixture
def disk(scratch):
    """8 MiB and a sector with random, repeating and no data in it."""
    path, source = scratch / "disk.raw", random.Random(4)
    with open(path, "wb") as f:
        f.truncate((8 << 20) + 512)
        for at in (0, 70000, 1 << 20, (5 << 20) + 512, (8 << 20) - 100):
            f.seek(at)
            f.write(source.randbytes(source.randrange(1000, 300000)) if at < 7 << 20 else source.randbytes(612))
            f.write(bytes(source.randrange(256) for _ in range(40)) * 3000 if at < 7 << 20 else b"")
        f.truncate((8 << 20) + 512)
    return path


def merged(text):
    """A map with neighbours of one kind put together."""
    out = []
    for e in json.loads(text):
        kind = (e["zero"], e["data"], e["depth"] if e["present"] else -1)
        if out and out[-1][2] == kind:
            out[-1][1] += e["length"]
        else:
            out.append([e["start"], e["length"], kind])
    return out


def options(text):
    return ["-o", text] if text else []


@pytest.mark.parametrize("text,compress", itertools.product(OPTIONS, (False, True)))
def test_both_directions(image, scratch, disk, text, compress):
    c = ["-c"] if compress else []
    ours, theirs, back = scratch / "ours", scratch / "theirs", scratch / "back"
    image("convert", *c, "-f", "raw", "-O", "qcow2", *options(text), disk, ours)
    qemu("check", "-f", "qcow2", ours)
    qemu("compare", "-f", "raw", "-F", "qcow2", disk, ours)
    image("check", ours)
    qemu("convert", *c, "-f", "raw", "-O", "qcow2", *options(text), disk, theirs)
    image("check", "-f", "qcow2", theirs)
    image("compare", "-f", "raw", "-F", "qcow2", disk, theirs)
    for f in (ours, theirs):
        assert merged(image("map", "--output=json", f)) == merged(qemu("map", "--output=json", f))
        assert json.loads(image("info", "--output=json", f)) == json.loads(qemu("info", "--output=json", f))
        assert image("info", f) == qemu("info", f)
        image("convert", "-f", "qcow2", "-O", "raw", f, back)
        assert back.read_bytes() == disk.read_bytes()
    assert os.stat(back).st_blocks <= os.stat(disk).st_blocks + 8
    check = json.loads(qemu("check", "--output=json", ours))
    mine = json.loads(image("check", "--output=json", ours))
    assert {k: mine[k] for k in ("allocated-clusters", "image-end-offset", "total-clusters")} == \
        {k: check[k] for k in ("allocated-clusters", "image-end-offset", "total-clusters")}
    if not compress:
        need = json.loads(image("measure", "--output=json", "-O", "qcow2", *options(text), disk))
        assert os.stat(ours).st_size <= need["required"] <= need["fully-allocated"]


def test_backing_chain(image, scratch, disk):
    (scratch / "sub").mkdir()
    image("convert", "-O", "qcow2", disk, scratch / "base.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", scratch / "sub/mid.qcow2", "12M")
    run("qemu-io", "-c", "write -P 7 100k 300k", "-c", "write -z 2M 1M", "-c", "write -P 9 11M 64k", scratch / "sub/mid.qcow2")
    image("create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o", "extended_l2=on", scratch / "sub/top.qcow2")
    run("qemu-io", "-c", "write -P 3 5k 3k", "-c", "discard 3M 1M", scratch / "sub/top.qcow2")
    top = scratch / "sub/top.qcow2"
    image("convert", "-O", "raw", top, scratch / "ours.raw")
    qemu("convert", "-O", "raw", top, scratch / "theirs.raw")
    assert (scratch / "ours.raw").read_bytes() == (scratch / "theirs.raw").read_bytes()
    assert merged(image("map", "--output=json", top)) == merged(qemu("map", "--output=json", top))
    assert len(json.loads(image("info", "--backing-chain", "--output=json", top))) == 3
    # A name is looked for beside the image, wherever this runs.
    image("compare", "sub/top.qcow2", "ours.raw", cwd=scratch)


def test_resize(image, scratch, disk):
    a, b = scratch / "a", scratch / "b"
    for f in (a, b):
        qemu("convert", "-O", "qcow2", disk, f)
    for size in ("+100M", "20G", "50M"):
        image("resize", *(["--shrink"] if size == "50M" else []), a, size)
        qemu("resize", "-q", *(["--shrink"] if size == "50M" else []), b, size)
        qemu("check", a)
        qemu("compare", a, b)
        assert json.loads(qemu("info", "--output=json", a))["virtual-size"] == json.loads(qemu("info", "--output=json", b))["virtual-size"]
    image("resize", a, "1M", status=1)
    image("resize", "--shrink", a, "-49M")
    assert json.loads(qemu("info", "--output=json", a))["virtual-size"] == 1 << 20
    qemu("check", a)


def test_exit_statuses(image, scratch, disk):
    q = scratch / "q"
    image("convert", "-O", "qcow2", disk, q)
    image("compare", disk, q)
    with open(disk, "r+b") as f:
        f.seek(1000)
        f.write(b"other")
    assert "Content mismatch at offset 512!" in image("compare", disk, q, status=1)
    image("compare", disk, scratch / "none", status=2)
    image("check", "-f", "raw", disk, status=63)
    image("check", scratch / "none", status=1)
    table = struct.unpack(">Q", q.read_bytes()[48:56])[0]
    block = struct.unpack(">Q", q.read_bytes()[table:table + 8])[0]
    healthy = q.read_bytes()
    # One count too high is a leak, too low a corruption; both are repaired.
    end = len(healthy) // 65536
    for cluster, change, status, how in ((end, b"\0\1", 3, "leaks"), (6, b"\0\0", 2, "all"), (6, b"\0\2", 2, "all")):
        q.write_bytes(healthy + bytes(65536))
        with open(q, "r+b") as f:
            f.seek(block + 2 * cluster)
            f.write(change)
        image("check", q, status=status)
        qemu("check", q, status=status)
        image("check", "-r", how, q)
        image("check", q)
        qemu("check", q)
    assert "there is no verb" in subprocess.run([*image_command(image), "frob"], capture_output=True, text=True).stderr


def image_command(image):
    return [image.__closure__[0].cell_contents / "bin/keel", "image"]


def test_failure_leaves_the_target_alone(image, scratch, disk):
    target = scratch / "target"
    target.write_bytes(b"precious")
    bad = scratch / "bad.qcow2"
    image("convert", "-c", "-O", "qcow2", disk, bad)
    size = os.stat(bad).st_size
    with open(bad, "r+b") as f:  # garbage in the compressed data
        f.seek(size // 2)
        f.write(b"\xff" * (size - size // 2))
    image("convert", "-O", "raw", bad, target, status=1)
    image("convert", "-O", "qcow2", "-o", "cluster_size=3000", disk, target, status=1)
    image("create", "-f", "qcow2", "-o", "cluster_size=512", target, "100T", status=1)
    assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in scratch.iterdir()) == ["bad.qcow2", "disk.raw", "target"]


def test_snapshots(image, scratch, disk):
    q = scratch / "q"
    qemu("convert", "-O", "qcow2", disk, q)
    for name in ("first", "second one"):
        qemu("snapshot", "-c", name, q)
        run("qemu-io", "-c", "write -P 5 0 200k", "-c", "discard 1M 64k", q)
    assert image("snapshot", "-l", q) == qemu("snapshot", "-l", q)
    assert image("info", q) == qemu("info", q)
    image("check", q)
    image("resize", q, "+1M")
    qemu("check", q)
    # The snapshots keep their size.
    qemu("snapshot", "-a", "first", q)
    assert json.loads(image("info", "--output=json", q))["virtual-size"] == os.stat(disk).st_size
    image("compare", disk, q)


def test_guest_on_qcow2(image, guest, scratch):
    """Written by a guest, read by it after a reboot, and by the host; the image is in order afterwards, says QEMU."""
    raw, q, back = scratch / "disk.raw", scratch / "disk.qcow2", scratch / "back.raw"
    with open(raw, "wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", raw], check=True)
    image("convert", "-c", "-O", "qcow2", raw, scratch / "base.qcow2")
    image("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", q)
    g = guest("--disk", f"{q},format=qcow2", run="disk")
    wrote = g.expect("wrote")
    assert g.expect("stored") == wrote
    assert g.expect("read") == wrote
    assert g.wait() == 0
    qemu("check", q)
    qemu("convert", "-O", "raw", q, back)
    assert subprocess.run(["e2fsck", "-fn", back]).returncode == 0
    data = subprocess.run(["debugfs", "-R", "cat /data", back], capture_output=True, check=True).stdout
    assert hashlib.sha256(data).hexdigest() == wrote
