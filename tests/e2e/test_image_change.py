# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots, commit, rebase, preallocation and data files of keel image, with qemu-img as the second opinion."""
import json
import os
import random
import shutil

import pytest

from imagetool import image, qemu, run  # noqa: F401 (image is a fixture)

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="the package qemu-utils is not installed")

SHAPES = ["", "compat=0.10", "cluster_size=512", "cluster_size=4096,refcount_bits=4", "lazy_refcounts=on", "extended_l2=on,cluster_size=16k"]
SIZE = 3 << 20


@pytest.fixture(autouse=True)
def here(scratch, monkeypatch):
    """QEMU looks for data files in the working directory."""
    monkeypatch.chdir(scratch)


def write(path, rnd, n=5, size=SIZE):
    """Some writes, zeroes and discards by qemu-io."""
    commands = []
    for _ in range(n):
        at, length = rnd.randrange(size // 512) * 512, rnd.randrange(1, 400) * 512
        length = min(length, size - at)
        kind = rnd.choice([f"write -P {rnd.randrange(1, 256)}"] * 4 + ["write -z", "write -z -u", "discard"])
        commands += ["-c", f"{kind} {at} {length}"]
    run("qemu-io", "-f", "qcow2", *commands, path)


def contents(path, fmt="qcow2"):
    raw = str(path) + ".contents"
    qemu("convert", "-f", fmt, "-O", "raw", path, raw)
    data = open(raw, "rb").read()
    os.unlink(raw)
    return data


@pytest.mark.parametrize("options", SHAPES)
def test_snapshots(image, scratch, options):
    rnd = random.Random(options)
    q = scratch / "q"
    qemu("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), q, str(SIZE))
    kept = {}
    for i in range(14):
        write(q, rnd)
        name = f"s{i}"
        act = rnd.random()
        tool = image if rnd.random() < 0.75 else qemu
        if act < 0.5 or not kept:
            kept[name] = contents(q)
            tool("snapshot", "-c", name, q)
        elif act < 0.75:
            name = rnd.choice(sorted(kept))
            tool("snapshot", "-a", name, q)
            assert contents(q) == kept[name]
        else:
            name = rnd.choice(sorted(kept))
            tool("snapshot", "-d", name, q)
            del kept[name]
        qemu("check", q)
        image("check", q)
        assert image("snapshot", "-l", q) == qemu("snapshot", "-l", q)
    for name, data in kept.items():
        raw = scratch / "raw"
        qemu("convert", "-l", name, "-O", "raw", q, raw)
        assert raw.read_bytes() == data, name
    for name in sorted(kept):
        image("snapshot", "-d", name, q)
    assert "snapshots" not in json.loads(qemu("info", "--output=json", q))
    qemu("check", q)


def test_snapshot_refusals(image, scratch):
    q, r = scratch / "q", scratch / "r"
    image("create", "-q", "-f", "qcow2", "-o", "refcount_bits=1,cluster_size=512", q, "1M")
    write(q, random.Random(1), size=1 << 20)
    before = contents(q)
    image("snapshot", "-c", "x", q, status=1)  # counts of one bit cannot share
    qemu("check", q)
    assert contents(q) == before
    image("snapshot", "-a", "none", q, status=1)
    image("snapshot", "-d", "none", q, status=1)
    image("create", "-q", r, "1M")
    image("snapshot", "-c", "x", r, status=1)
    image("create", "-q", "-f", "qcow2", "-o", "data_file=data", scratch / "d", "1M")
    image("snapshot", "-c", "x", scratch / "d", status=1)


def chain(scratch, rnd, base_format="qcow2"):
    base, mid, top = scratch / "base", scratch / "mid", scratch / "top"
    if base_format == "raw":
        base.write_bytes(rnd.randbytes(SIZE // 2))
    else:
        qemu("create", "-q", "-f", "qcow2", base, str(SIZE // 2))
        write(base, rnd, size=SIZE // 2)
    for upper, lower, fmt in ((mid, base, base_format), (top, mid, "qcow2")):
        qemu("create", "-q", "-f", "qcow2", "-b", lower, "-F", fmt, upper, str(SIZE))
        write(upper, rnd)
    return base, mid, top


@pytest.mark.parametrize("base_format", ["qcow2", "raw"])
def test_commit(image, scratch, base_format):
    base, mid, top = chain(scratch, random.Random(base_format), base_format)
    want = contents(top)
    image("commit", top)
    assert contents(mid) == want and contents(top) == want
    # Emptied: nothing of its own is left.
    assert all(e["depth"] > 0 or not e["present"] for e in json.loads(qemu("map", "--output=json", top)))
    write(top, random.Random(8))
    want = contents(top)
    image("commit", "-p", "-b", base, top)
    got = contents(base, base_format)
    assert got == want
    assert contents(top) == want
    for f in (mid, top) + ((base,) if base_format == "qcow2" else ()):
        qemu("check", f)
    image("commit", base, status=1)


def test_rebase(image, scratch):
    rnd = random.Random(6)
    base, mid, top = chain(scratch, rnd)
    other = scratch / "other"
    qemu("create", "-q", "-f", "qcow2", other, str(SIZE - 65536))
    write(other, rnd, 8, SIZE - 65536)
    want = contents(top)
    for new, fmt in ((base, "qcow2"), (other, "qcow2"), ("", None), (mid, "qcow2")):
        image("rebase", *(["-F", fmt] if fmt else []), "-b", new, top)
        assert contents(top) == want, new
        info = json.loads(qemu("info", "--output=json", top))
        assert info.get("backing-filename", "") == str(new)
        qemu("check", top)
    image("rebase", "-u", "-b", "nowhere.qcow2", "-F", "qcow2", top)
    assert json.loads(image("info", "--output=json", top))["backing-filename"] == "nowhere.qcow2"
    image("rebase", "-b", other, top, status=1)  # no format


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_preallocation(image, scratch, mode):
    for n, options in enumerate(("", ",cluster_size=4k", ",extended_l2=on", ",compat=0.10", ",data_file=data")):
        q = scratch / f"q{n}"
        image("create", "-q", "-f", "qcow2", "-o", f"preallocation={mode}{options}", q, "20M")
        qemu("check", q)
        extents = json.loads(qemu("map", "--output=json", q))
        assert all(e["present"] and "offset" in e for e in extents)
        held = os.stat(scratch / "data" if "data_file" in options else q).st_blocks * 512
        assert held < 5 << 20 if mode == "metadata" else held >= 20 << 20
        assert contents(q) == bytes(20 << 20)
        write(q, random.Random(mode), size=20 << 20)
        image("resize", f"--preallocation={mode}", q, "+3M")
        qemu("check", q)
        assert all(e["present"] for e in json.loads(qemu("map", "--output=json", q)) if e["start"] >= 20 << 20)
    if mode != "metadata":
        image("create", "-q", "-o", f"preallocation={mode}", scratch / "raw", "9M")
        assert os.stat(scratch / "raw").st_blocks * 512 >= 9 << 20
    image("create", "-q", "-f", "qcow2", "-b", "q0", "-F", "qcow2", "-o", f"preallocation={mode}", scratch / "over", status=1)


@pytest.mark.parametrize("options,raw", [("", False), (",data_file_raw=on", True), (",extended_l2=on", False), (",cluster_size=4k,data_file_raw=on", True)])
def test_data_files(image, scratch, options, raw):
    rnd = random.Random(options)
    for tool in (image, qemu):
        q = scratch / f"q{tool is image}"
        data = scratch / f"data{tool is image}"
        tool("create", "-q", "-f", "qcow2", "-o", f"data_file={data.name}{options}", q, str(SIZE))
        source = scratch / "source"
        source.write_bytes(rnd.randbytes(SIZE // 3) + bytes(SIZE // 3) + rnd.randbytes(SIZE // 3))
        image("convert", "-n", "-f", "raw", "-O", "qcow2", source, q)
        write(q, rnd)
        got = contents(q)
        image("check", q)
        qemu("check", q)
        assert image("info", q) == qemu("info", q)
        assert json.loads(image("info", "--output=json", q)) == json.loads(qemu("info", "--output=json", q))
        image("resize", "--shrink", q, str(SIZE // 2))
        image("resize", q, str(SIZE))
        got = got[:SIZE // 2] + bytes(SIZE // 2)
        assert contents(q) == got
        if raw:
            assert data.read_bytes() == got
        image("convert", "-c", "-n", "-f", "raw", "-O", "qcow2", source, q, status=1)
    # Never over something that is there.
    image("create", "-q", "-f", "qcow2", "-o", "data_file=source", scratch / "x", "1M", status=1)
    assert source.stat().st_size
    # Whoever gets an image from somewhere does not read a file that it names unasked.
    os.unlink(data)
    image("info", q, status=1)


@pytest.mark.parametrize("pack", [False, True])
def test_convert_over_a_backing_file(image, scratch, pack):
    rnd = random.Random(9)
    base, mid, top = chain(scratch, rnd)
    want = contents(top)
    new = scratch / "new"
    image("convert", *(["-c"] if pack else []), "-m", "3", "-f", "qcow2", "-O", "qcow2", "-B", base, "-F", "qcow2", top, new)
    qemu("check", new)
    assert contents(new) == want
    # What the base shows is not copied.
    own = sum(e["length"] for e in json.loads(qemu("map", "--output=json", new)) if e["present"] and e["depth"] == 0)
    image("convert", "-f", "qcow2", "-O", "qcow2", "-B", base, "-F", "qcow2", base, scratch / "same")
    assert not any(e["present"] and e["depth"] == 0 for e in json.loads(qemu("map", "--output=json", scratch / "same")))
    assert own < SIZE
    image("convert", "-O", "raw", "-B", base, "-F", "qcow2", top, scratch / "x", status=1)
    image("convert", "-O", "qcow2", "-B", base, top, scratch / "x", status=1)


def test_bench(image, scratch):
    """It does what it says: so many requests of that size and pattern, at those places."""
    for fmt in ("raw", "qcow2"):
        for cache in ("none", "writeback", "writethrough", "directsync", "unsafe"):
            d = scratch / f"{cache}.{fmt}"
            image("create", "-q", "-f", fmt, d, "1M")
            out = image("bench", "-f", fmt, "-t", cache, "-w", "-c", "40", "-d", "7", "-s", "8k", "-S", "24k", "-o", "4k", "--pattern=3",
                        "--flush-interval=9", d)
            assert "Sending 40 write requests, 8192 bytes each, 7 in parallel" in out and "Run completed in" in out
            want, at = bytearray(1 << 20), 4096
            for _ in range(40):
                place = at if at + 8192 <= 1 << 20 else 0
                want[place:place + 8192] = bytes([3]) * 8192
                at = (at + 24576) % (1 << 20)
            assert contents(d, fmt) == want
            image("bench", "-q", "-t", cache, "-c", "100", "--random", d)
    image("bench", "-s", "2M", d, status=1)
    image("bench", "-t", "no", d, status=1)
