# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go, figures, memory, pinning, consoles and QMP of guests under stock clients."""
import json
import os
import pathlib
import pty
import shutil
import subprocess
import time
from xml.etree import ElementTree

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop

libvirt = pytest.importorskip("libvirt")
libvirt_qemu = pytest.importorskip("libvirt_qemu")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

CONFIG, LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
PORTS = "<controller type='pci' index='0' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 5
NIC = "<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>"


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("v")
    k = Keeld(path / "root")
    k.scratch = path
    for name in ("a", "b", "c", "d", "e"):
        with open(path / f"{name}.img", "wb") as f:
            f.truncate(16 << 20)
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def conn(keeld):
    with libvirt.open(keeld.uri) as c:
        yield c


def disk(keeld, name, target):
    return (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{keeld.scratch}/{name}.img'/>"
            f"<target dev='{target}' bus='virtio'/></disk>")


@pytest.fixture(scope="module")
def guest(keeld, conn):
    """A guest that runs during all of this file."""
    d = conn.defineXML(domain_xml("g", run="hotplug", vcpus=2, devices=PORTS + disk(keeld, "a", "vda")))
    d.create()
    yield d
    d.destroy()


def read_console(conn, dom, word, flags=0):
    stream = conn.newStream()
    dom.openConsole(None, stream, flags)
    seen, end = b"", time.time() + LIMIT
    while word not in seen:
        assert time.time() < end, seen[-300:]
        data = stream.recv(4096)
        assert data, seen[-300:]
        seen += data
    return stream


@pytest.fixture(scope="module")
def booted(conn, guest):
    read_console(conn, guest, b"KEEL wrote").abort()
    return guest


def fails(code, fn, *args, text=""):
    with pytest.raises(libvirt.libvirtError) as e:
        fn(*args)
    assert e.value.get_error_code() == code and text in str(e.value), str(e.value)


def test_attach_and_detach_leave_the_definition_as_it_was(keeld, conn):
    d = conn.defineXML(domain_xml("c", devices=PORTS))
    before = d.XMLDesc()
    d.attachDeviceFlags(disk(keeld, "a", "vda"), CONFIG)
    d.attachDeviceFlags(NIC, CONFIG)
    middle = d.XMLDesc()
    assert "vda" in middle and "52:54:00:11:22:33" in middle
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.attachDeviceFlags, disk(keeld, "b", "vda"), CONFIG, text="target vda already exists")
    d.updateDeviceFlags(NIC.replace("</interface>", "<link state='down'/></interface>"), CONFIG)
    assert "<link state='down'/>" in d.XMLDesc()
    d.detachDeviceFlags(NIC, CONFIG)
    d.detachDeviceFlags(disk(keeld, "a", "vda"), CONFIG)
    assert d.XMLDesc() == before
    fails(libvirt.VIR_ERR_DEVICE_MISSING, d.detachDeviceFlags, NIC, CONFIG)
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.attachDeviceFlags, NIC, LIVE, text="domain is not running")
    d.undefine()


def wait_powered(dom, *aliases):
    """Until the guest has switched these devices' slots on: before that it would keep them."""
    end = time.time() + LIMIT
    while True:
        buses = json.loads(libvirt_qemu.qemuMonitorCommand(dom, '{"execute":"query-pci"}', 0))["return"]
        behind = [x for b in buses for d in b["devices"] for x in d.get("pci_bridge", {}).get("devices", [])]
        on = {x["qdev_id"] for x in behind if any(r["address"] > 0 for r in x["regions"])}
        if on >= set(aliases):
            return
        assert time.time() < end, buses
        time.sleep(0.05)


def test_live_devices(keeld, conn, booted):
    d = booted
    events = Events(libvirt, conn, ["DEVICE_ADDED", "DEVICE_REMOVED", "DEVICE_REMOVAL_FAILED"])
    before, config = d.XMLDesc(), d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    d.attachDeviceFlags(disk(keeld, "b", "vdb"), LIVE)
    assert events.next() == ("DEVICE_ADDED", "g", "virtio-disk1")
    d.attachDeviceFlags(NIC, LIVE)
    assert events.next() == ("DEVICE_ADDED", "g", "net0")
    assert d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == config
    machine = json.loads(libvirt_qemu.qemuMonitorCommand(d, '{"execute":"query-block"}', 0))["return"]
    assert {b["qdev"] for b in machine} == {"virtio-disk0", "virtio-disk1"}
    assert d.blockInfo("vdb")[0] == 16 << 20
    d.blockResize("vdb", 32 << 20, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    assert d.blockInfo("vdb")[0] == 32 << 20
    fails(libvirt.VIR_ERR_INVALID_ARG, d.attachDeviceFlags, disk(keeld, "missing", "vdc"), LIVE, text="Cannot access storage file")
    d.updateDeviceFlags(NIC.replace("</interface>", "<link state='down'/></interface>"), LIVE)
    assert "<link state='down'/>" in d.XMLDesc()
    fails(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, d.updateDeviceFlags, disk(keeld, "a", "vdb"), LIVE)
    wait_powered(d, "virtio-disk1", "net0")
    d.detachDeviceAlias("virtio-disk1", LIVE)
    d.detachDeviceFlags(NIC, LIVE)
    gone = {events.next(), events.next()}
    assert gone == {("DEVICE_REMOVED", "g", "virtio-disk1"), ("DEVICE_REMOVED", "g", "net0")}
    assert d.XMLDesc() == before
    end = time.time() + LIMIT
    while "libvirt" and len(json.loads(libvirt_qemu.qemuMonitorCommand(d, '{"execute":"query-named-block-nodes"}', 0))["return"]) > 1:
        assert time.time() < end
        time.sleep(0.05)
    d.attachDeviceFlags(disk(keeld, "b", "vdb"), LIVE)  # its place and its image are free again
    events.close()


def places(dom):
    """Where the machine has its devices: {id: (id of the port above or None, slot, function)}."""
    buses = json.loads(libvirt_qemu.qemuMonitorCommand(dom, '{"execute":"query-pci"}', 0))["return"]
    found = {}
    for d in (d for b in buses for d in b["devices"]):
        found[d["qdev_id"]] = (None, d["slot"], d["function"])
        for x in d.get("pci_bridge", {}).get("devices", []):
            found[x["qdev_id"]] = (d["qdev_id"], x["slot"], x["function"])
    return found


def wanted_places(dom):
    """The same as the domain XML says it."""
    found = {}
    for alias in ElementTree.fromstring(dom.XMLDesc()).iter("alias"):
        for a in (a for e in [parent_of(dom, alias.get("name"))] for a in e.findall("address") if a.get("type") == "pci"):
            bus, slot, function = (int(a.get(k), 16) for k in ("bus", "slot", "function"))
            found[alias.get("name")] = (f"pci.{bus}" if bus else None, slot, function)
    return found


def parent_of(dom, alias):
    return next(e for e in ElementTree.fromstring(dom.XMLDesc()).find("devices") if e.find(f"alias[@name='{alias}']") is not None)


def test_devices_are_where_the_xml_says(keeld, conn):
    def at(bus, slot, function=0):
        return f"<address type='pci' domain='0' bus='{bus}' slot='{slot}' function='{function}'/>"
    ports = ("<controller type='pci' index='0' model='pcie-root'/>" +
             "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'>{at(0, 5, n - 1)}</controller>" for n in range(1, 9)))
    d = conn.createXML(domain_xml("where", run="hotplug", devices=ports +
                                  disk(keeld, "c", "vda").replace("</disk>", at(3, 0) + "</disk>") +
                                  NIC.replace("11:22:33", "11:22:44").replace("</interface>", at(0, 16) + "</interface>") +
                                  "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
                                  "<channel type='unix'><target type='virtio' name='x.y'/></channel>"))
    try:
        read_console(conn, d, b"KEEL wrote").abort()  # the guest has found the disk behind its port
        wanted = wanted_places(d)
        assert wanted["virtio-disk0"] == ("pci.3", 0, 0) and wanted["net0"] == (None, 16, 0) and wanted["pci.2"] == (None, 5, 1)
        assert {"rng0", "balloon0", "virtio-serial0"} <= set(wanted)
        machine = places(d)
        machine["virtio-serial0"] = machine.pop("console0")
        wanted = {k: v for k, v in wanted.items() if not k.startswith(("usb", "sata", "ide"))}
        assert {k: machine[k] for k in wanted} == wanted
        d.attachDeviceFlags(disk(keeld, "d", "vdb").replace("</disk>", at(8, 0) + "</disk>"), LIVE)
        assert places(d)["virtio-disk1"] == ("pci.8", 0, 0)
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.attachDeviceFlags,
              disk(keeld, "e", "vdc").replace("</disk>", at(0, 20) + "</disk>"), LIVE, text="does not support hotplugging")
    finally:
        d.destroy()


def test_figures(conn, booted):
    d = booted
    rd, rd_bytes, wr, wr_bytes, errors = d.blockStats("vda")
    assert wr_bytes >= 1 << 20 and wr >= 16 and rd_bytes >= 1 << 20 and errors == -1  # what its init wrote and read back
    assert d.blockStatsFlags("vda")["wr_bytes"] == wr_bytes
    assert set(d.blockStatsFlags("vda")) >= {"rd_bytes", "wr_operations", "flush_total_times"}
    fails(libvirt.VIR_ERR_INVALID_ARG, d.blockStats, "vdz", text="invalid path: vdz")
    memory = d.memoryStats()
    assert memory["actual"] == 131072 and memory["rss"] > 1000
    total = d.getCPUStats(True)[0]
    assert total["cpu_time"] == total["user_time"] + total["system_time"] > 0
    cpus, maps = d.vcpus()
    assert len(cpus) == 2 and all(c[1] == 1 and c[2] > 0 for c in cpus) and all(any(m) for m in maps)
    all_of_it = dict((r[0].name(), r[1]) for r in conn.getAllDomainStats())["g"]
    assert all_of_it["state.state"] == 1 and all_of_it["vcpu.current"] == 2 and all_of_it["block.0.name"] == "vda"
    assert all_of_it["block.0.capacity"] == 16 << 20 and all_of_it["block.0.wr.bytes"] == wr_bytes and all_of_it["cpu.time"] > 0
    only = conn.domainListGetStats([d], libvirt.VIR_DOMAIN_STATS_BALLOON)[0][1]
    assert set(only) == {"balloon.current", "balloon.maximum", "balloon.rss"}
    fails(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, conn.getAllDomainStats, libvirt.VIR_DOMAIN_STATS_DIRTYRATE,
          libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS)


def test_pinning(keeld, conn, booted):
    if os.cpu_count() < 2:
        pytest.skip("one CPU is no choice")
    events = Events(libvirt, conn, ["TUNABLE"])
    booted.pinVcpu(1, (False, True))
    assert events.next() == ("TUNABLE", "g", {"cputune.vcpupin1": "1"})
    # The machine's own number of it is one of its PID namespace.
    tid = [int(t.parent.name) for p in keeld.guests() for t in pathlib.Path(f"/proc/{p}/task").glob("*/comm") if t.read_text() == "vcpu 1\n"]
    assert os.sched_getaffinity(tid[0]) == {1}
    assert booted.vcpuPinInfo()[1][:2] == (False, True) and booted.vcpus()[1][1][:2] == (False, True)
    booted.pinVcpuFlags(0, (True, False), CONFIG)
    assert "<vcpupin vcpu='0' cpuset='0'/>" in booted.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    fails(libvirt.VIR_ERR_INVALID_ARG, booted.pinVcpu, 7, (True, True))
    events.close()


def test_words_and_memory(conn, booted):
    d = booted
    events = Events(libvirt, conn, ["METADATA_CHANGE"])
    d.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<a b='c'/>", "key", "http://keel/x", LIVE | CONFIG)
    assert events.next() == ("METADATA_CHANGE", "g", 2, "http://keel/x")
    for flag in (LIVE, CONFIG):
        assert 'b="c"' in d.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "http://keel/x", flag).replace("'", '"')
    d.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, "http://keel/x", LIVE | CONFIG)
    fails(libvirt.VIR_ERR_NO_DOMAIN_METADATA, d.metadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT, "http://keel/x")
    d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "words", None, None, CONFIG)
    assert d.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None, CONFIG) == "words"
    fails(libvirt.VIR_ERR_NO_DOMAIN_METADATA, d.metadata, libvirt.VIR_DOMAIN_METADATA_TITLE, None, LIVE)
    fails(libvirt.VIR_ERR_INVALID_ARG, d.setMemory, 1 << 30, text="cannot set memory higher than max memory")
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.setMaxMemory, 1 << 18)
    d.setMemoryFlags(100 << 10, CONFIG)
    assert "<currentMemory unit='KiB'>102400</currentMemory>" in d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert d.info()[1:3] == [131072, 131072]
    d.setMemory(131072)
    events.close()


def test_console_of_several_clients(keeld, conn, booted):
    first = conn.newStream(libvirt.VIR_STREAM_NONBLOCK)
    booted.openConsole(None, first, 0)
    fails(libvirt.VIR_ERR_OPERATION_FAILED, booted.openConsole, None, conn.newStream(), 0, text="Active console session exists")
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, booted.openConsole, "nothing", conn.newStream(), 0, text="cannot find character device")
    second = conn.newStream()
    booted.openConsole("serial0", second, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    with pytest.raises(libvirt.libvirtError):
        end = time.time() + LIMIT
        while first.recv(100) == -2:
            assert time.time() < end
            time.sleep(0.02)
    second.abort()
    master, slave = pty.openpty()  # virsh console wants a terminal
    v = subprocess.Popen(["virsh", "-c", keeld.uri, "console", "--force", "g"], stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    while b"Escape character" not in seen:
        seen += os.read(master, 1000)
    booted.reset()
    while b"KEEL wrote" not in seen:
        seen += os.read(master, 1000)
    os.write(master, b"\x1d")
    assert v.wait(LIMIT) == 0
    os.close(master)
    os.close(slave)


def test_qmp_and_its_events(conn, booted):
    seen = []
    number = libvirt_qemu.qemuMonitorEventRegister(conn, booted, "S.*|RESUME", lambda *a: seen.append(a[2:]), None,
                                                   libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX)
    assert json.loads(libvirt_qemu.qemuMonitorCommand(booted, '{"execute":"query-status","id":7}', 0))["id"] == 7
    assert "RIP=" in libvirt_qemu.qemuMonitorCommand(booted, "info registers", 1)
    assert "error" in json.loads(libvirt_qemu.qemuMonitorCommand(booted, '{"execute":"nothing"}', 0))
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt_qemu.qemuMonitorCommand, booted, "{", 0, text="cannot parse json")
    booted.suspend()
    booted.resume()
    end = time.time() + LIMIT
    while len(seen) < 2:
        assert time.time() < end
        time.sleep(0.02)
    assert [s[0] for s in seen] == ["STOP", "RESUME"]
    libvirt_qemu.qemuMonitorEventDeregister(conn, number)
    fails(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, libvirt_qemu.qemuAgentCommand, booted, "{}", 1, 0)


def test_callbacks_for_one_guest_and_errors(conn, booted):
    mine = Events(libvirt, conn, ["LIFECYCLE"], dom=booted)
    other = conn.defineXML(domain_xml("o"))
    other.undefine()
    booted.suspend()
    assert mine.next()[:4] == ("LIFECYCLE", "g", 3, 0)
    booted.resume()
    assert mine.next()[:4] == ("LIFECYCLE", "g", 4, 0) and mine.none() is None
    mine.close()
    fails(libvirt.VIR_ERR_NO_DOMAIN, other.XMLDesc)
    fails(libvirt.VIR_ERR_INVALID_ARG, booted.XMLDesc, 1 << 12)
    ro = libvirt.openReadOnly(conn.getURI() + "-ro")
    assert ro.lookupByName("g").info()[0] == 1
    with pytest.raises(libvirt.libvirtError) as e:
        ro.lookupByName("g").destroy()
    assert e.value.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED
    ro.close()


def test_limits_of_disks(keeld, conn):
    tuned = disk(keeld, "c", "vda").replace("</disk>", "<iotune><total_bytes_sec>1048576</total_bytes_sec></iotune></disk>")
    tuned = tuned.replace("type='raw'/>", "type='raw' error_policy='stop' queues='2'/>")
    d = conn.defineXML(domain_xml("limits", devices=tuned))
    d.create()
    events = Events(libvirt, conn, ["TUNABLE"])

    def machine():
        blocks = json.loads(libvirt_qemu.qemuMonitorCommand(d, '{"execute":"query-block"}', 0))["return"]
        return {k: v for k, v in blocks[0]["inserted"].items() if k.startswith(("bps", "iops", "group"))}
    try:
        assert machine()["bps"] == 1 << 20 and machine()["iops"] == 0
        assert d.blockIoTune("vda")["total_bytes_sec"] == 1 << 20
        d.setBlockIoTune("vda", {"read_iops_sec": 100, "read_iops_sec_max": 200, "group_name": "g"}, LIVE)
        name, guest_name, params = events.next()
        assert params["blkdeviotune.disk"] == "virtio-disk0" and params["blkdeviotune.read_iops_sec"] == 100
        assert params["blkdeviotune.total_bytes_sec"] == 1 << 20  # what was not named stays
        now = machine()
        assert (now["bps"], now["iops_rd"], now["iops_rd_max"], now["group"]) == (1 << 20, 100, 200, "g")
        assert "<read_iops_sec>100</read_iops_sec>" in d.XMLDesc()
        assert "read_iops_sec" not in d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        keeld.ok("blkdeviotune", "limits", "vda", "--total-bytes-sec", "0", "--live", "--config")
        assert machine()["bps"] == 0 and "total_bytes_sec" not in d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert "read_iops_sec  : 100" in keeld.ok("blkdeviotune", "limits", "vda")
        fails(libvirt.VIR_ERR_INVALID_ARG, d.setBlockIoTune, "vda", {"total_bytes_sec": 1, "read_bytes_sec": 1}, LIVE)
        fails(libvirt.VIR_ERR_INVALID_ARG, d.setBlockIoTune, "vdz", {"total_bytes_sec": 1}, LIVE)
        fails(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, d.setBlockIoTune, "vda", {"write_iops_sec_max": 1}, LIVE)
    finally:
        events.close()
        d.destroy()
        d.undefine()
