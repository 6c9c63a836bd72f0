# SPDX-License-Identifier: GPL-2.0-or-later
"""Persistent dirty bitmaps: made and kept by keel image, read by QEMU, and the other way round."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from imagetool import image, qemu, run  # noqa: F401 (image is a fixture)

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="the package qemu-utils is not installed")
SIZE = 40 << 20


def bitmaps(path, tool=qemu):
    data = json.loads(tool("info", "--output=json", path))["format-specific"]["data"]
    return {b["name"]: (b["granularity"], tuple(b["flags"])) for b in data.get("bitmaps", [])}


def dirty(path, name, scratch):
    """What QEMU reads from the bitmap: stretches, by way of an NBD server that shows it."""
    sock = scratch / "nbd"
    server = subprocess.Popen(["qemu-nbd", "-r", "-k", sock, "-B", name, "-f", "qcow2", path], stderr=subprocess.PIPE)
    try:
        end = time.time() + 20
        while not sock.exists() and time.time() < end:
            time.sleep(0.01)
        out = qemu("map", "--output=json", "--image-opts",
                   f"driver=nbd,server.type=unix,server.path={sock},x-dirty-bitmap=qemu:dirty-bitmap:{name}")
    finally:
        server.terminate()
        server.wait()
        sock.unlink(missing_ok=True)
    # There, dirty parts look like holes.
    blocks = set()
    for e in json.loads(out):
        if not e["data"]:
            blocks |= set(range(e["start"] // 512, (e["start"] + e["length"]) // 512))
    return blocks


def blocks_of(writes, granularity, size=SIZE):
    out = set()
    for at, length in writes:
        first, last = at // granularity * granularity, min(size, (at + length + granularity - 1) // granularity * granularity)
        out |= set(range(first // 512, last // 512))
    return out


def write(image, path, scratch, rnd, n=6):
    """Writes by Keel's own block layer: what bench sends is where bench says."""
    writes = []
    for _ in range(n):
        at = rnd.randrange(SIZE // 4096 - 4) * 4096
        image("bench", "-q", "-w", "-f", "qcow2", "-c", "3", "-d", "2", "-s", "4k", "-o", at, "--pattern", rnd.randrange(256), path)
        writes.append((at, 3 * 4096))
    return writes


def test_kept_and_read_by_qemu(image, scratch):
    rnd = random.Random(3)
    q = scratch / "q"
    image("create", "-q", "-f", "qcow2", q, SIZE)
    image("bitmap", "--add", "-g", "4k", q, "fine")
    image("bitmap", "--add", q, "coarse")
    image("bitmap", "--add", "--disable", q, "off")
    want = {"fine": (4096, ("auto",)), "coarse": (65536, ("auto",)), "off": (65536, ())}
    assert bitmaps(q) == bitmaps(q, image) == want
    assert image("info", q) == qemu("info", q)
    writes = write(image, q, scratch, rnd)
    qemu("check", q)
    image("check", q)
    assert dirty(q, "fine", scratch) == blocks_of(writes, 4096)
    assert dirty(q, "coarse", scratch) == blocks_of(writes, 65536)
    assert not dirty(q, "off", scratch)
    # QEMU writes, too; and then again Keel.
    run("qemu-io", "-c", "write 20M 8k", "-c", "discard 21M 64k", q)
    writes += [(20 << 20, 8192), (21 << 20, 65536)] + write(image, q, scratch, rnd)
    assert dirty(q, "fine", scratch) == blocks_of(writes, 4096)
    image("bitmap", "--clear", "--disable", q, "coarse")
    image("bitmap", "--merge", "fine", q, "coarse")
    assert dirty(q, "coarse", scratch) == blocks_of(writes, 65536)
    image("bitmap", "--enable", q, "off")
    writes = write(image, q, scratch, rnd)
    assert dirty(q, "off", scratch) == blocks_of(writes, 65536)
    image("bitmap", "--remove", q, "fine")
    image("bitmap", "--remove", q, "fine", status=1)
    image("bitmap", "--add", q, "off", status=1)
    assert sorted(bitmaps(q)) == ["coarse", "off"]
    for name in ("coarse", "off"):
        image("bitmap", "--remove", q, name)
    assert not bitmaps(q)
    assert "No errors" in qemu("check", q)


def test_of_qemus_making(image, scratch):
    q, other = scratch / "q", scratch / "other"
    for f in (q, other):
        qemu("create", "-q", "-f", "qcow2", f, str(SIZE))
        qemu("bitmap", "--add", "-g", "64k", f, "b")
    run("qemu-io", "-c", "write 1M 100k", "-c", "write 30M 5M", q)
    run("qemu-io", "-c", "write 3M 100k", other)
    image("bitmap", "--merge", "b", "-b", other, "-F", "qcow2", q, "b")
    assert dirty(q, "b", scratch) == blocks_of([(1 << 20, 100 << 10), (30 << 20, 5 << 20), (3 << 20, 100 << 10)], 65536)
    # Another size, a snapshot.
    image("resize", "--shrink", q, "32M")
    assert dirty(q, "b", scratch) == blocks_of([(1 << 20, 100 << 10), (30 << 20, 2 << 20), (3 << 20, 100 << 10)], 65536)
    image("resize", q, "64M")
    assert dirty(q, "b", scratch) == blocks_of([(1 << 20, 100 << 10), (30 << 20, 2 << 20), (3 << 20, 100 << 10)], 65536)
    image("snapshot", "-c", "s", q)
    image("snapshot", "-a", "s", q)
    assert len(dirty(q, "b", scratch)) == (64 << 20) // 512
    qemu("check", q)


def test_a_crash_spoils_them(build, image, scratch):
    q = scratch / "q"
    image("create", "-q", "-f", "qcow2", q, SIZE)
    image("bitmap", "--add", q, "b")
    p = subprocess.Popen([build / "bin/keel", "image", "bench", "-q", "-w", "-f", "qcow2", "-c", "100000000", q])
    end = time.time() + 20
    while "in-use" not in str(json.loads(image("info", "-U", "--output=json", q))) and time.time() < end:
        time.sleep(0.01)
    p.send_signal(signal.SIGKILL)
    p.wait()
    # The kernel takes the ring of a killed process apart in its own time; until then it holds the file and its locks.
    while subprocess.run(["qemu-img", "info", q], capture_output=True).returncode and time.time() < end + 20:
        time.sleep(0.05)
    assert bitmaps(q)["b"][1] == ("in-use", "auto") == bitmaps(q, image)["b"][1]
    # Others' bitmaps and the disk go on; this one can only be removed.
    image("bitmap", "--add", q, "new")
    image("bitmap", "--clear", q, "b", status=1)
    write(image, q, scratch, random.Random(1), 1)
    assert bitmaps(q)["b"][1] == ("in-use", "auto")
    image("bitmap", "--remove", q, "b")
    assert list(bitmaps(q)) == ["new"]
    qemu("check", "-r", "leaks", q)
    assert "No errors" in qemu("check", q)
