# SPDX-License-Identifier: GPL-2.0-or-later
"""Block jobs, snapshots, bitmaps and transactions over QMP, under a kernel that writes all the time."""
import json
import os
import socket
import subprocess
import time

import pytest

from imagetool import qemu
from keel import QMP

SIZE = 4096 * 1000


def create(path, *args):
    qemu("create", "-q", "-f", "qcow2", *args, path, SIZE)
    return str(path)


def qcow2(name, path, **kw):
    return {"driver": "qcow2", "node_name": name, "file": {"driver": "file", "filename": str(path)}, **kw}


def has_rounds(path, last):
    """Each block of the disk holds the last round that was written to it. A kill may leave one more than `last`."""
    raw = f"{path}.raw"
    qemu("convert", "-U", "-O", "raw", path, raw)
    newest = {}
    for i in range(last + 1):
        newest[i * 37 % 1000] = i
    with open(raw, "rb") as f:
        for block, i in newest.items():
            f.seek(block * 4096)
            text = f.read(16).split(b"\0")[0].decode()
            assert text.startswith("round ") and int(text[6:]) >= i and (int(text[6:]) - i) % 1000 == 0, (block, i, text)
    os.unlink(raw)


class Writer:
    """A guest whose disk "disk" is the node that blockdev-add made of the last of these images."""

    def __init__(self, guest, scratch, path):
        self.guest = guest("--disk", f"file={path},format=qcow2,id=disk", "--serial", "stdio", "--serial",
                           f"unix:{scratch}/c", run="rounds")
        self.guest.expect("rounds")
        self.control = socket.socket(socket.AF_UNIX)
        self.control.connect(f"{scratch}/c")
        self.qmp = self.guest.qmp

    def another(self):
        """A round that was begun after now."""
        seen = int(self.guest.expect("round"))
        while not self.guest.lines.empty():
            seen = int(self.guest.expect("round"))
        while True:
            now = int(self.guest.expect("round"))
            if now > seen + 20:
                return now

    def stop(self):
        self.control.sendall(b"stop\n")
        last = int(self.guest.expect("last"))
        assert self.guest.wait() == 0
        return last

    def job(self, name, /, **args):
        self.qmp.command(name, job_id="j", device="disk", **args)

    def end(self):
        event = self.qmp.event("BLOCK_JOB_COMPLETED")["data"]
        assert "error" not in event and event["offset"] == event["len"], event
        while self.qmp.event("JOB_STATUS_CHANGE")["data"]["status"] != "null":
            pass
        assert self.qmp.command("query-block-jobs") == []
        return event

    def ready(self):
        assert self.qmp.event("BLOCK_JOB_READY")["data"]["device"] == "j"

    def node(self):
        return self.qmp.command("query-block")[0]["inserted"]


def sound(*paths):
    for p in paths:
        qemu("check", "-q", p)


def test_snapshots_jobs_and_a_way_home(guest, scratch):
    """Two snapshots, a commit between them, a mirror, a stream and an active commit, all in one life of the guest."""
    base, one, two, copy = (scratch / n for n in ("base", "one", "two", "copy"))
    create(base)
    w = Writer(guest, scratch, base)
    w.another()
    for below, path in ((base, one), (one, two)):
        create(path, "-b", str(below), "-F", "qcow2")
        w.qmp.command("blockdev-add", **qcow2(path.name, path, backing=None))
        w.qmp.command("blockdev-snapshot", node="disk", overlay=path.name)
        w.another()
    inserted = w.node()
    assert (inserted["node-name"], inserted["backing_file_depth"]) == ("two", 2)
    # Down: what the first overlay has into the base.
    w.job("block-commit", top=str(one), base=str(base))
    assert w.end()["type"] == "commit"
    inserted = w.node()
    assert (inserted["backing_file_depth"], inserted["backing_file"]) == (1, str(base))
    w.another()
    # Elsewhere: onto another image, which is the disk then.
    create(copy)
    w.qmp.command("blockdev-add", **qcow2("copy", copy))
    w.job("blockdev-mirror", target="copy", sync="full", copy_mode="write-blocking")
    w.ready()
    w.another()
    assert w.qmp.command("query-jobs")[0]["status"] == "ready"
    w.qmp.command("job-complete", id="j")
    assert w.end()["type"] == "mirror"
    assert w.node()["node-name"] == "copy" and w.node()["file"] == str(copy)
    w.another()
    # A snapshot of that, and back.
    os.unlink(one)
    create(one, "-b", str(copy), "-F", "qcow2")
    w.qmp.command("blockdev-add", **qcow2("again", one, backing=None))
    w.qmp.command("blockdev-snapshot", node="copy", overlay="again")
    w.another()
    w.job("block-commit")
    w.ready()
    w.another()
    w.qmp.command("block-job-complete", device="j")
    w.end()
    assert w.node()["node-name"] == "copy" and "backing_file" not in w.node()
    # Once more, and up.
    w.qmp.command("blockdev-del", node_name="again")
    create(one, "-b", str(copy), "-F", "qcow2")
    w.qmp.command("blockdev-add", **qcow2("again", one, backing=None))
    w.qmp.command("blockdev-snapshot", node="copy", overlay="again")
    w.job("block-stream")
    assert w.end()["type"] == "stream"
    assert "backing_file" not in w.node()
    w.qmp.command("blockdev-del", node_name="copy")
    last = w.stop()
    has_rounds(one, last)
    sound(base, two, copy, one)
    assert "backing" not in qemu("info", one)


def test_backups_at_one_moment(guest, scratch):
    """A full backup with a bitmap in one transaction; an incremental one makes it complete."""
    disk, full, again = (scratch / n for n in ("disk", "full", "again"))
    create(disk)
    w = Writer(guest, scratch, disk)
    w.another()
    create(full)
    w.qmp.command("blockdev-add", **qcow2("t", full))
    with pytest.raises(RuntimeError, match="Abort"):
        w.qmp.command("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "gone"}}, {"type": "abort", "data": {}}])
    assert "dirty-bitmaps" not in w.node()
    w.qmp.command("transaction", actions=[
        {"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "since", "persistent": True, "granularity": 4096}},
        {"type": "blockdev-backup", "data": {"job-id": "j", "device": "disk", "target": "t", "sync": "full"}}])
    w.end()
    w.another()
    (bitmap,) = w.node()["dirty-bitmaps"]
    assert (bitmap["name"], bitmap["recording"], bitmap["persistent"]) == ("since", True, True)
    assert 0 < bitmap["count"] < SIZE
    w.control.sendall(b"stop\n")
    last = int(w.guest.expect("last"))
    # The guest has nothing more to say, so this is all of it.
    w.qmp.command("stop")
    w.job("blockdev-backup", target="t", sync="incremental", bitmap="since")
    w.end()
    assert w.node()["dirty-bitmaps"][0]["count"] == 0
    w.qmp.command("quit")
    w.guest.wait()
    has_rounds(full, last)
    has_rounds(disk, last)
    sound(disk, full)


def test_what_is_refused(guest, scratch):
    a, b, small = (scratch / n for n in ("a", "b", "small"))
    create(a)
    create(b)
    qemu("create", "-q", "-f", "qcow2", small, "1M")
    g = guest("--disk", f"file={a},format=qcow2,id=disk", "--paused")
    q = g.qmp
    for name, path in (("b", b), ("small", small)):
        q.command("blockdev-add", **qcow2(name, path))
    for text, command, args in (
            ("node-name='none'", "blockdev-mirror", {"device": "none", "target": "b", "sync": "full"}),
            ("sync", "blockdev-mirror", {"device": "disk", "target": "b"}),
            ("one size", "blockdev-mirror", {"device": "disk", "target": "small", "sync": "full"}),
            ("cannot be the same", "blockdev-backup", {"device": "disk", "target": "disk", "sync": "full"}),
            ("needs a bitmap", "blockdev-backup", {"device": "disk", "target": "b", "sync": "incremental"}),
            ("'nothing' not found", "blockdev-backup", {"device": "disk", "target": "b", "sync": "bitmap", "bitmap": "nothing"}),
            ("replaces", "blockdev-mirror", {"device": "disk", "target": "b", "sync": "full", "replaces": "x"}),
            ("no backing file", "block-stream", {"device": "disk"}),
            ("nothing to commit to", "block-commit", {"device": "disk"}),
            ("not found", "job-cancel", {"id": "x"}),
            ("'x' not found", "block-job-pause", {"device": "x"}),
            ("bytes", "blockdev-snapshot", {"node": "disk", "overlay": "small"}),
            ("Cannot find", "blockdev-snapshot", {"node": "disk", "overlay": "none"})):
        with pytest.raises(RuntimeError, match=text):
            q.command(command, **args)
    # A node in a job's hands has no time for others.
    q.command("blockdev-mirror", job_id="j", device="disk", target="b", sync="full", auto_dismiss=False)
    q.event("BLOCK_JOB_READY")
    for text, command, args in (
            ("busy", "block-stream", {"device": "disk", "job_id": "k"}),
            ("already in use", "blockdev-backup", {"device": "disk", "target": "b", "sync": "full", "job_id": "j"}),
            ("in use", "blockdev-del", {"node_name": "b"})):
        with pytest.raises(RuntimeError, match=text):
            q.command(command, **args)
    q.command("block-job-cancel", device="j")
    q.event("BLOCK_JOB_COMPLETED")
    assert q.command("query-jobs")[0]["status"] == "concluded"
    q.command("job-dismiss", id="j")
    assert q.command("query-jobs") == []
    q.command("blockdev-del", node_name="b")
    q.command("quit")
    assert g.wait() == 0


@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_killed_in_the_middle(guest, scratch, delay):
    """keel-vmm is killed while it commits to the base under load: the overlay has everything, and both are sound."""
    base, top = scratch / "base", scratch / "top"
    create(base)
    create(top, "-b", str(base), "-F", "qcow2")
    w = Writer(guest, scratch, top)
    w.another()
    w.job("block-commit", speed=200000)
    time.sleep(delay)
    seen = w.another()
    w.guest.kill()
    qemu("check", "-U", "-q", base)
    subprocess.run(["qemu-img", "check", "-U", "-q", top], check=False)  # clusters may have leaked
    assert json.loads(subprocess.run(["qemu-img", "check", "-U", "--output=json", str(top)], capture_output=True,
                                     text=True).stdout).get("corruptions", 0) == 0
    has_rounds(top, seen)
