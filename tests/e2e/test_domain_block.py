# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh blockcopy, blockcommit, blockpull and blockjob on a guest that writes all the time."""
import os
import shutil
import time
from xml.etree import ElementTree

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop
from imagetool import qemu
from test_jobs import SIZE, create, has_rounds, sound

libvirt = pytest.importorskip("libvirt")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

PULL, COPY, COMMIT, ACTIVE = 1, 2, 3, 4
COMPLETED, FAILED, CANCELED, READY = 0, 1, 2, 3


@pytest.fixture
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("v")
    k = Keeld(path / "root")
    k.scratch = path
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def conn(keeld):
    with libvirt.open(keeld.uri) as c:
        yield c


class Guest:
    """One with disk vda on that image, and its console."""

    def __init__(self, conn, path):
        devices = (f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>"
                   "<target dev='vda' bus='virtio'/></disk><serial type='pty'/>")
        self.dom = conn.defineXML(domain_xml("g", run="rounds", devices=devices))
        self.events = Events(libvirt, conn, ("BLOCK_JOB", "BLOCK_JOB_2"))
        self.dom.create()
        self.stream = conn.newStream()
        self.dom.openConsole(None, self.stream, 0)
        self.seen = b""
        self.another()

    def round(self):
        """The next one that the guest tells of."""
        end = time.time() + LIMIT
        while True:
            at = self.seen.find(b"KEEL round ")
            line_end = self.seen.find(b"\n", at) if at >= 0 else -1
            if line_end >= 0:
                number, self.seen = int(self.seen[at + 11:line_end]), self.seen[line_end:]
                return number
            assert time.time() < end, self.seen[-300:]
            data = self.stream.recv(4096)
            assert data, self.seen[-300:]
            self.seen += data

    def another(self):
        first = self.round()
        while True:
            now = self.round()
            if now > first + 20:
                return now

    def source(self, flags=0):
        return ElementTree.fromstring(self.dom.XMLDesc(flags)).find("devices/disk/source").get("file")

    def event(self, kind, status):
        self.events.until("BLOCK_JOB", "g", self.source(), kind, status)
        assert self.events.next() == ("BLOCK_JOB_2", "g", "vda", kind, status)

    def end(self):
        """Off; the last round that it told of."""
        last = self.another()
        self.dom.destroy()
        self.events.close()
        return last


def test_copy_and_pivot(keeld, conn):
    a, b = keeld.scratch / "a.qcow2", keeld.scratch / "b.qcow2"
    create(a)
    g = Guest(conn, a)
    # What is not ready cannot pivot; what is ended leaves nothing.
    keeld.ok("blockcopy", "g", "vda", "--dest", str(b), "--bytes", "--bandwidth", "100000", "--transient-job")
    info = g.dom.blockJobInfo("vda", 0)
    assert info["type"] == COPY and info["cur"] < info["end"]
    assert "100000" in keeld.ok("blockjob", "g", "vda", "--raw", "--bytes")
    with pytest.raises(libvirt.libvirtError) as e:
        g.dom.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    assert e.value.get_error_code() == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
    with pytest.raises(libvirt.libvirtError, match="already in active block job"):
        g.dom.blockPull("vda", 0, 0)
    keeld.ok("blockjob", "g", "vda", "--abort")
    g.event(COPY, CANCELED)
    assert g.dom.blockJobInfo("vda", 0) == {}
    assert "already exists" in keeld.virsh("blockcopy", "g", "vda", "--dest", str(b)).stderr
    # Once more, to the end.
    os.unlink(b)
    r = keeld.ok("blockcopy", "g", "vda", "--dest", str(b), "--wait", "--verbose", "--pivot", "--transient-job", "--synchronous-writes")
    assert "Successfully pivoted" in r
    g.event(COPY, READY) if g.source() == str(a) else None
    assert g.source() == str(b) and g.source(libvirt.VIR_DOMAIN_XML_INACTIVE) == str(b)
    assert ElementTree.fromstring(g.dom.XMLDesc()).find("devices/disk/driver").get("type") == "qcow2"
    last = g.end()
    has_rounds(b, last)
    sound(a, b)
    # It starts from there.
    g.dom.create()
    assert g.dom.isActive()
    g.dom.destroy()


def test_commit_and_pull(keeld, conn):
    base, mid, top = (keeld.scratch / n for n in ("base.qcow2", "mid.qcow2", "top.qcow2"))
    create(base)
    create(mid, "-b", str(base), "-F", "qcow2")
    create(top, "-b", str(mid), "-F", "qcow2")
    g = Guest(conn, top)
    assert "requires active flag" in keeld.virsh("blockcommit", "g", "vda").stderr
    assert "not found" in keeld.virsh("blockcommit", "g", "vdx").stderr
    assert "could not find image" in keeld.virsh("blockcommit", "g", "vda", "--top", "/none").stderr
    # The one in the middle goes down; then the rest comes up; then there is nothing left to commit to.
    keeld.ok("blockcommit", "g", "vda", "--top", str(mid), "--base", str(base), "--wait")
    g.event(COMMIT, COMPLETED)
    assert qemu("info", "-U", top).count(f"backing file: {base}") == 1
    keeld.ok("blockpull", "g", "vda", "--wait")
    g.event(PULL, COMPLETED)
    assert "backing" not in qemu("info", "-U", top)
    assert "no backing file" in keeld.virsh("blockcommit", "g", "vda", "--active").stderr
    last = g.end()
    has_rounds(top, last)
    sound(base, mid, top)


def test_active_commit(keeld, conn):
    base, top = keeld.scratch / "base.qcow2", keeld.scratch / "top.qcow2"
    create(base)
    create(top, "-b", str(base), "-F", "qcow2")
    g = Guest(conn, top)
    r = keeld.ok("blockcommit", "g", "vda", "--active", "--wait", "--pivot", "--verbose")
    assert "Successfully pivoted" in r
    g.events.until("BLOCK_JOB_2", "g", "vda", ACTIVE, READY)
    g.event(ACTIVE, COMPLETED)
    assert g.source() == str(base) and g.source(libvirt.VIR_DOMAIN_XML_INACTIVE) == str(base)
    last = g.end()
    has_rounds(base, last)
    sound(base, top)


def test_external_snapshot_and_back(keeld, conn):
    """virsh's way to a consistent backup: an overlay, a copy of what lies still, a commit back."""
    base = keeld.scratch / "disk.qcow2"
    create(base)
    g = Guest(conn, base)
    assert "--no-metadata" in keeld.virsh("snapshot-create-as", "g", "one", "--disk-only").stderr
    for text, spec in (("unsupported", "vda,driver=raw"), ("own backing file", f"vda,file={base}"), ("no disks", "vda,snapshot=no"),
                       ("only have an external", "vda,snapshot=internal")):
        assert text in keeld.virsh("snapshot-create-as", "g", "one", "--disk-only", "--no-metadata", "--diskspec", spec).stderr, text
    before = g.another()
    assert "one created" in keeld.ok("snapshot-create-as", "g", "one", "--disk-only", "--no-metadata", "--atomic")
    overlay = keeld.scratch / "disk.one"
    assert g.source() == str(overlay) and g.source(libvirt.VIR_DOMAIN_XML_INACTIVE) == str(overlay)
    has_rounds(base, before)
    still = base.read_bytes()
    second = keeld.scratch / "second.qcow2"
    keeld.ok("snapshot-create-as", "g", "two", "--disk-only", "--no-metadata", "--diskspec", f"vda,file={second}")
    g.another()
    assert base.read_bytes() == still
    assert "already exists" in keeld.virsh("snapshot-create-as", "g", "three", "--disk-only", "--no-metadata", "--diskspec",
                                           f"vda,file={overlay}").stderr
    keeld.ok("blockcommit", "g", "vda", "--active", "--wait", "--pivot")
    assert g.source() == str(base)
    last = g.end()
    has_rounds(base, last)
    sound(base, overlay, second)
    g.dom.create()
    g.dom.destroy()
