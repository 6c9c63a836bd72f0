# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks whose queues have threads of their own: --object iothread, iothread= and QEMU's iothread-vq-mapping."""
import hashlib
import os

import pytest


def image(path, size=16 << 20):
    with open(path, "wb") as f:
        f.truncate(size)
    return str(path)


def expected(cpus):
    data = b""
    for i in range(cpus):
        line = f"cpu {i} round 7\n".encode()
        data += (line * ((1 << 20) // len(line) + 1))[:1 << 20]
    return hashlib.sha256(data).hexdigest()


def used(g, name):
    """CPU time of the thread of that name, in ticks."""
    for task in os.listdir(f"/proc/{g.process.pid}/task"):
        base = f"/proc/{g.process.pid}/task/{task}"
        if open(f"{base}/comm").read().strip() == name:
            return sum(map(int, open(f"{base}/schedstat").read().split()[:1]))
    raise AssertionError(f"no thread {name}")


@pytest.mark.parametrize("settings", ["queues=4,iothread=t0:t1", "queues=4,cache=none,iothread=t0"])
def test_queues_go_round_the_threads(guest, scratch, settings):
    path = image(scratch / "disk.raw")
    g = guest("--cpus", "4", "--paused", "--object", "iothread,id=t0", "--object", "iothread,id=t1", "--no-shutdown",
              "--disk", f"{path},{settings}", run="lanes")
    g.qmp
    idle = used(g, "io t0"), used(g, "io t1")
    g.qmp.command("cont")
    assert g.expect("queues") == "4"
    assert g.expect("wrote") == expected(4)
    worked = used(g, "io t0") - idle[0] > 1_000_000, used(g, "io t1") - idle[1] > 1_000_000
    assert worked == ("t0" in settings, "t1" in settings)
    assert hashlib.sha256(open(path, "rb").read()[:4 << 20]).hexdigest() == expected(4)
    g.qmp.command("quit")
    assert g.wait() == 0


def test_the_mapping_says_which_queue(guest, scratch):
    """Two disks share the threads; what makes no sense is refused by name."""
    a, b = image(scratch / "a.raw"), image(scratch / "b.raw")
    g = guest("--cpus", "4", "--paused", "--root-ports", "2", run="lanes")
    q = g.qmp
    for t in ("t0", "t1", "t2"):
        q.command("object-add", qom_type="iothread", id=t)
    for name, path in (("a", a), ("b", b)):
        q.command("blockdev-add", driver="raw", node_name=name, file={"driver": "file", "filename": path})
    mapping = [{"iothread": "t0", "vqs": [0, 1, 2]}, {"iothread": "t2", "vqs": [3]}]

    def add(**args):
        q.command("device_add", driver="virtio-blk-pci", num_queues=4, **args)

    for wrong, word in [
        (dict(iothread="none"), "no object 'none'"),
        (dict(iothread_vq_mapping=[]), "not a list"),
        (dict(iothread_vq_mapping=[{"vqs": [0]}]), "'iothread' is missing"),
        (dict(iothread_vq_mapping=[{"iothread": "t0", "vqs": [0, 0]}]), "listed twice"),
        (dict(iothread_vq_mapping=[{"iothread": "t0", "vqs": [16]}]), "is none"),
        (dict(iothread_vq_mapping=[{"iothread": "t0", "vqs": [0]}, {"iothread": "t1"}]), "for all iothreads or for none"),
        (dict(iothread="t0", iothread_vq_mapping=mapping), "exclude each other"),
    ]:
        with pytest.raises(RuntimeError, match=word):
            add(id="x", drive="b", **wrong)
    add(id="da", drive="a", iothread_vq_mapping=mapping)
    add(id="db", drive="b", iothread="t0")
    for t in ("t0", "t2"):
        with pytest.raises(RuntimeError, match="in use"):
            q.command("object-del", id=t)
    q.command("object-del", id="t1")
    q.command("cont")
    assert g.expect("wrote") == expected(4)
    assert g.wait() == 0
    assert hashlib.sha256(open(a, "rb").read()[:4 << 20]).hexdigest() == expected(4)
