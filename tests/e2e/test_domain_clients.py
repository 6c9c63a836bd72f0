# SPDX-License-Identifier: GPL-2.0-or-later
"""Other stock clients and many of them: libvirt-dbus, 64 threads of python-libvirt, virt-xml-validate of all that is emitted."""
import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop, wait_for

libvirt = pytest.importorskip("libvirt")
libvirt_qemu = pytest.importorskip("libvirt_qemu")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    k = Keeld(path / "root")
    k.scratch = path
    for name in ("a", "b", "cd"):
        with open(path / f"{name}.img", "wb") as f:
            f.truncate(16 << 20)
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


def rich(keeld, name, run="idle"):
    """A bit of everything that Keel has."""
    ports = "<controller type='pci' index='0' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 8
    return domain_xml(name, run=run, vcpus=2, extra="""<metadata><x:y xmlns:x='http://x/' z='&lt;'/></metadata><cpu><topology sockets='1'
      cores='2' threads='1'/></cpu><cputune><vcpupin vcpu='0' cpuset='0'/></cputune><on_crash>restart</on_crash>""", devices=f"""{ports}
      <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' error_policy='stop' queues='2'/>
      <source file='{keeld.scratch}/a.img'/><target dev='vda' bus='virtio'/><serial>A1</serial>
      <iotune><total_iops_sec>100000</total_iops_sec></iotune></disk>
      <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{keeld.scratch}/b.img'/>
      <target dev='sda' bus='scsi'/></disk>
      <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{keeld.scratch}/cd.img'/>
      <target dev='sdb' bus='scsi'/><readonly/></disk>
      <interface type='user'><mac address='52:54:00:aa:bb:cc'/><model type='virtio'/></interface>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
      <console type='pty'><target type='virtio'/></console>
      <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><panic model='isa'/><memballoon model='virtio'/>""")


def test_all_xml_is_valid(keeld):
    """By libvirt's own schemas, running and not."""
    kinds = {}
    with libvirt.open(keeld.uri) as conn:
        d = conn.defineXML(rich(keeld, "rich"))
        kinds["domain"] = [d.XMLDesc(), d.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)]
        before = d.XMLDesc()
        d.create()
        kinds["domain"] += [d.XMLDesc(f) for f in (0, libvirt.VIR_DOMAIN_XML_INACTIVE, libvirt.VIR_DOMAIN_XML_UPDATE_CPU,
                                                   libvirt.VIR_DOMAIN_XML_MIGRATABLE)]
        d.attachDeviceFlags("<interface type='user'><mac address='52:54:00:aa:bb:cd'/><model type='virtio'/></interface>", LIVE)
        kinds["domain"].append(d.XMLDesc())
        kinds["capability"] = [conn.getCapabilities()]
        kinds["domaincaps"] = [conn.getDomainCapabilities(None, "x86_64", m, v) for m in ("q35", None) for v in ("qemu", None)]
        kinds["storagepool"] = [conn.storagePoolDefineXML("<pool type='dir'><name>p</name><target><path>"
                                                          f"{keeld.scratch}</path></target></pool>").XMLDesc()]
        conn.storagePoolLookupByName("p").create()
        kinds["storagevol"] = [v.XMLDesc() for v in conn.storagePoolLookupByName("p").listAllVolumes()]
        d.destroy()
        assert d.XMLDesc() == before  # nothing of its life is left
        again = conn.defineXML(before)  # and it survives a round trip
        assert again.XMLDesc() == before
        d.undefine()
    for kind, texts in kinds.items():
        assert texts
        for n, text in enumerate(texts):
            file = keeld.scratch / f"{kind}{n}.xml"
            file.write_text(text)
            r = subprocess.run(["virt-xml-validate", file, kind], capture_output=True, text=True, timeout=LIMIT)
            assert r.returncode == 0, (kind, text, r.stderr)


def test_64_threads(keeld):
    """Each with a guest of its own, on connections that several share; one guest that all look at; nothing is mixed up or lost."""
    conns = [libvirt.open(keeld.uri) for _ in range(8)]
    shared = conns[0].defineXML(domain_xml("shared"))
    shared.create()
    wrong = []

    def work(n):
        try:
            c = conns[n % len(conns)]
            for i in range(4):
                d = c.defineXML(domain_xml(f"t{n}", memory=98304 + 4 * n))
                assert d.name() == f"t{n}" and f"<memory unit='KiB'>{98304 + 4 * n}<" in d.XMLDesc()
                d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, f"title {n} {i}", None, None, CONFIG)
                assert d.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None) == f"title {n} {i}"
                assert c.lookupByName("shared").isActive() and c.lookupByName("shared").info()[3] == 1
                if n < 4:
                    d.create()
                    assert d.isActive()
                    d.destroy()
                assert d.UUIDString() in {x.UUIDString() for x in c.listAllDomains()}
                d.undefine()
        except Exception as e:
            wrong.append((n, repr(e)))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    [t.start() for t in threads]
    [t.join(LIMIT) for t in threads]
    assert not wrong and not any(t.is_alive() for t in threads)
    assert [d.name() for d in conns[0].listAllDomains()] == ["shared"]
    shared.destroy()
    shared.undefine()
    [c.close() for c in conns]


def test_packed_definitions(keeld):
    """More guests than keep their structs: each has all of its definition whatever is done with the others meanwhile."""
    with libvirt.open(keeld.uri) as conn:
        first = conn.defineXML(rich(keeld, "n0"))
        before = first.XMLDesc()
        guests = [conn.defineXML(domain_xml(f"n{n}", memory=98304 + 4 * n)) for n in range(1, 150)]
        texts = [d.XMLDesc() for d in guests]
        for d in guests:
            d.setMetadata(libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, "of " + d.name(), None, None, CONFIG)
        assert first.XMLDesc() == before
        stats = {d.name(): s for d, s in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON)}
        assert all(stats[f"n{n}"]["balloon.maximum"] == 98304 + 4 * n for n in range(1, 150))
        for d, text in zip(guests, texts):
            assert d.XMLDesc() == text.replace("  <memory", f"  <description>of {d.name()}</description>\n  <memory", 1)
            assert d.info()[1] == int(d.name()[1:]) * 4 + 98304 and d.isPersistent()
        first.create()
        [d.info() for d in guests]
        assert "<alias" in first.XMLDesc() and first.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before
        first.destroy()
        [d.undefine() for d in guests]
        assert first.XMLDesc() == before
        first.undefine()


def test_event_kinds(keeld):
    """Each kind that Keel can tell of, of one guest's life."""
    with libvirt.open(keeld.uri) as conn:
        events = Events(libvirt, conn)
        d = conn.defineXML(rich(keeld, "e", run="hotplug"))
        d.create()
        seen = events.until("LIFECYCLE", "e", libvirt.VIR_DOMAIN_EVENT_STARTED)
        d.reset()
        d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "t", None, None, CONFIG)
        d.setBlockIoTune("vda", {"total_iops_sec": 0}, LIVE)
        libvirt_qemu.qemuMonitorCommand(d, '{"execute":"eject","arguments":{"id":"scsi0-0-0-1","force":true}}', 0)
        seen += events.until("TRAY_CHANGE", "e", "scsi0-0-0-1", libvirt.VIR_DOMAIN_EVENT_TRAY_CHANGE_OPEN)
        assert "tray='open'" in d.XMLDesc()
        d.attachDeviceFlags("<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>", LIVE)
        seen += events.until("DEVICE_ADDED", "e", "net1")
        d.suspend()
        d.resume()
        with pytest.raises(libvirt.libvirtError):
            conn.createXML(domain_xml("broken", memory=32768))  # not enough for its kernel
        d.destroy()
        seen += events.until("LIFECYCLE", "e", libvirt.VIR_DOMAIN_EVENT_STOPPED)
        d.undefine()
        seen += events.until("LIFECYCLE", "e", libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
        assert {e[0] for e in seen} >= {"LIFECYCLE", "REBOOT", "METADATA_CHANGE", "TUNABLE", "TRAY_CHANGE", "DEVICE_ADDED", "CONTROL_ERROR"}
        lives = [e[2] for e in seen if e[:2] == ("LIFECYCLE", "e")]
        assert lives == [libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_STARTED,
                         libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN,
                         libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED]
        events.close()


def drop():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_libvirt_dbus():
    """Its objects are keeld's guests. A session's daemon and bus, as nobody if we are root."""
    program = shutil.which("libvirt-dbus", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not program or not shutil.which("dbus-run-session") or not shutil.which("gdbus"):
        pytest.skip("the packages libvirt-dbus, dbus-daemon and libglib2.0-bin are not installed")
    import tempfile
    from daemon import BUILD
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="keel-dbus-"))
    as_user = drop if os.geteuid() == 0 else None
    if as_user:
        os.chown(scratch, 65534, 65534)
    # A checkout under /root is none of nobody's business.
    shutil.copytree(BUILD / "bin", scratch / "bin")
    env = dict(os.environ, HOME=str(scratch), **{f"XDG_{v}": str(scratch) for v in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME")})
    keeld = subprocess.Popen([scratch / "bin/keeld", "--root", scratch / "root"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=env, preexec_fn=as_user)
    try:
        wait_for(scratch / "root/run/libvirt-sock-ro", keeld)
        (scratch / "libvirt").mkdir()
        if as_user:
            os.chown(scratch / "libvirt", 65534, 65534)
        (scratch / "libvirt/libvirt-sock").symlink_to(scratch / "root/run/libvirt-sock")
        (scratch / "d.xml").write_text(domain_xml("bus", kernel=False))
        os.chmod(scratch / "d.xml", 0o644)
        call = "gdbus call --session --dest org.libvirt --object-path {} --method {} {}"
        script = "; ".join((
            f"{program} --session & bus=$!",
            "gdbus wait --session --timeout 20 org.libvirt",
            call.format("/org/libvirt/QEMU", "org.libvirt.Connect.DomainDefineXML", f"\"$(cat {scratch}/d.xml)\""),
            "path=$(" + call.format("/org/libvirt/QEMU", "org.libvirt.Connect.ListDomains", "0") + r" | grep -o '/org/libvirt/QEMU/domain/[0-9a-z_]*')",
            call.format("$path", "org.freedesktop.DBus.Properties.Get", "org.libvirt.Domain Name"),
            call.format("$path", "org.libvirt.Domain.Create", "1"),
            call.format("$path", "org.libvirt.Domain.GetState", "0"),
            call.format("$path", "org.libvirt.Domain.Destroy", "0"),
            call.format("$path", "org.libvirt.Domain.GetXMLDesc", "0"),
            call.format("$path", "org.libvirt.Domain.Undefine", "0"),
            call.format("/org/libvirt/QEMU", "org.libvirt.Connect.ListDomains", "0"),
            "kill $bus; wait $bus"))
        r = subprocess.run(["dbus-run-session", "--", "sh", "-c", script], capture_output=True, text=True, timeout=LIMIT, env=env,
                           preexec_fn=as_user, cwd="/")
        said = r.stdout
        assert "(<'bus'>,)" in said and "<name>bus</name>" in said, (said, r.stderr)
        assert "(3, 1)" in said or "(3, 0)" in said or "paused" in said, said  # VIR_DOMAIN_PAUSED
        assert said.rstrip().endswith("(@ao [],)"), said
    finally:
        keeld.terminate()
        keeld.wait(timeout=LIMIT)
        shutil.rmtree(scratch, ignore_errors=True)
