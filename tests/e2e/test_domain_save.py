# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests saved into files and brought back, by stock virsh and python-libvirt: they go on where they were."""
import re
import shutil
import time

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop

libvirt = pytest.importorskip("libvirt")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

STARTED, SUSPENDED, RESUMED, STOPPED = 2, 3, 4, 5


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("s")
    k = Keeld(path / "root")
    k.scratch = path
    with open(path / "a.img", "wb") as f:
        f.truncate(16 << 20)
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


def fails(code, fn, *args, text=""):
    with pytest.raises(libvirt.libvirtError) as e:
        fn(*args)
    assert e.value.get_error_code() == code and text in str(e.value), (e.value.get_error_code(), str(e.value))


class Shell:
    """The guest's, on its console."""

    def __init__(self, dom):
        self.stream = dom.connect().newStream()
        dom.openConsole(None, self.stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)

    def until(self, pattern):
        seen, end = b"", time.time() + LIMIT
        while not (found := re.search(pattern, seen)):
            assert time.time() < end, seen
            seen += self.stream.recv(4096)
        return found

    def run(self, text):
        self.stream.send(text.encode() + b"\n")

    def close(self):
        self.stream.abort()


def guest_xml(keeld, name):
    disk = (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{keeld.scratch}/a.img'/>"
            "<target dev='vda' bus='virtio'/></disk>")
    return domain_xml(name, run="none", vcpus=2, devices=disk + "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")


def counting(dom):
    """A guest that counts, and writes to its disk and reads back what it wrote."""
    shell = Shell(dom)
    shell.until(rb"/ # ")
    shell.run("modprobe virtio_pci; modprobe virtio_blk; sleep 1; i=0; while :; do i=$((i+1)); echo c$i | dd of=/dev/vda conv=sync oflag=direct "
              "2>/dev/null; echo @$(dd if=/dev/vda iflag=direct count=1 2>/dev/null | tr -d '\\000')@; sleep 0.1; done")
    n = int(shell.until(rb"@c(\d+)\s*@")[1])
    shell.close()
    return n


def count(dom):
    shell = Shell(dom)
    n = int(shell.until(rb"@c(\d+)\s*@")[1])
    shell.close()
    return n


def test_save_and_restore(keeld):
    image = keeld.scratch / "saved"
    with libvirt.open(keeld.uri) as conn:
        d = conn.defineXML(guest_xml(keeld, "g"))
        fails(libvirt.VIR_ERR_OPERATION_INVALID, d.save, str(image), text="domain is not running")
        d.create()
        before = counting(d)
        events = Events(libvirt, conn, ["LIFECYCLE"])
        keeld.ok("save", "g", image)
        assert [events.next()[2:4] for _ in range(2)] == [(SUSPENDED, 0), (STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED)]
        assert d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED] and keeld.guests() == []
        assert image.read_bytes()[:16] == b"LibvirtQemudSave" and image.stat().st_mode & 0o777 == 0o600
        assert "<name>g</name>" in keeld.ok("save-image-dumpxml", image)
        time.sleep(1)  # which the guest does not see
        keeld.ok("restore", image)
        assert [events.next()[2:4] for _ in range(2)] == [(RESUMED, 0), (STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED)]
        assert d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_RESTORED]
        after = count(d)
        assert before < after < before + 300  # it goes on counting; its disk and its shell are as they were
        fails(libvirt.VIR_ERR_OPERATION_INVALID, conn.restore, str(image), text="already active")
        d.destroy()
        conn.restoreFlags(str(image), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        assert d.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        d.resume()
        assert count(d) < after + 300
        # what can't be written is undone, and the guest runs on
        fails(libvirt.VIR_ERR_SYSTEM_ERROR, d.save, "/nothing/here")
        assert d.state()[0] == libvirt.VIR_DOMAIN_RUNNING
        count(d)
        d.destroy()
        d.undefine()
        conn.restore(str(image))  # a transient guest now
        d = conn.lookupByName("g")
        assert not d.isPersistent() and count(d)
        d.destroy()
        events.close()


def test_bad_images(keeld):
    with libvirt.open(keeld.uri) as conn:
        d = conn.createXML(domain_xml("x"))
        image = keeld.scratch / "bad"
        d.save(str(image))
        data = image.read_bytes()
        name = "x"
        for bad, text in ((data[:50], "failed to read qemu header"), (b"x" + data[1:], "magic"), (b"LibvirtQemudPart" + data[16:], "incomplete"),
                          (data[:16] + b"\7" + data[17:], "version"), (data[:4 << 20], "ends too early"), (data[:20] + b"\xff" * 4 + data[24:], "length"),
                          (data[:3000] + bytes(200) + data[3200:], "")):
            image.write_bytes(bad)
            with pytest.raises(libvirt.libvirtError) as e:
                conn.restore(str(image))
            assert text in str(e.value), (text, str(e.value))
            end = time.time() + LIMIT
            while conn.listAllDomains() or keeld.guests():
                assert time.time() < end
                time.sleep(0.02)
        xml = keeld.scratch / "x.xml"
        image.write_bytes(data)
        xml.write_text(conn.saveImageGetXMLDesc(str(image)).replace("<on_crash>destroy", "<on_crash>restart"))
        keeld.ok("save-image-define", image, xml, "--paused")
        fails(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, conn.saveImageDefineXML, str(image), xml.read_text().replace("131072", "200000"))
        conn.restore(str(image))
        d = conn.lookupByName(name)
        assert d.state()[0] == libvirt.VIR_DOMAIN_PAUSED and "<on_crash>restart" in d.XMLDesc()
        d.destroy()


def test_managed_save(keeld):
    with libvirt.open(keeld.uri) as conn:
        d = conn.defineXML(guest_xml(keeld, "m"))
        d.create()
        before = counting(d)
        keeld.ok("managedsave", "m")
        assert d.hasManagedSaveImage() and not d.isActive()
        assert [x.name() for x in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)] == ["m"]
        assert "saved" in keeld.ok("list", "--all", "--managed-save")
        assert "<name>m</name>" in keeld.ok("managedsave-dumpxml", "m")
        fails(libvirt.VIR_ERR_OPERATION_INVALID, d.undefine, text="managed save image exists")
        fails(libvirt.VIR_ERR_OPERATION_INVALID, d.rename, "n", 0)
        keeld.stop()
    keeld.__init__(keeld.root)  # it is a file
    with libvirt.open(keeld.uri) as conn:
        d = conn.lookupByName("m")
        d.create()
        assert before < count(d) < before + 300 and not d.hasManagedSaveImage()
        d.managedSave(libvirt.VIR_DOMAIN_SAVE_PAUSED)
        d.create()
        assert d.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        d.managedSave()
        keeld.ok("start", "m", "--force-boot")  # from the beginning
        Shell(d).until(rb"/ # ")
        d.managedSave()
        keeld.ok("managedsave-remove", "m")
        assert not d.hasManagedSaveImage()
        d.undefine()
        transient = conn.createXML(domain_xml("t"))
        fails(libvirt.VIR_ERR_OPERATION_INVALID, transient.managedSave, text="transient")
        transient.destroy()
