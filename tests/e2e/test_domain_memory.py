# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's memory from outside: peeks, core dumps as binutils read them, an NMI."""
import re
import shutil
import struct
import subprocess
import time

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop

libvirt = pytest.importorskip("libvirt")
libvirt_qemu = pytest.importorskip("libvirt_qemu")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

SMBIOS = 0xf0000
DIRECT = 0xffff888000000000  # Linux's map of all physical memory, with nokaslr
VIRTUAL, PHYSICAL = libvirt.VIR_MEMORY_VIRTUAL, libvirt.VIR_MEMORY_PHYSICAL
MEMORY_ONLY = libvirt.VIR_DUMP_MEMORY_ONLY


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("m")
    k = Keeld(path / "root")
    k.scratch = path
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def conn(keeld):
    with libvirt.open(keeld.uri) as c:
        yield c


def says(conn, dom, word):
    stream = conn.newStream()
    dom.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    seen, end = b"", time.time() + LIMIT
    while word not in seen:
        assert time.time() < end, seen
        seen += stream.recv(4096)
    stream.abort()


@pytest.fixture
def guest(conn):
    d = conn.defineXML(domain_xml("g", run="idle nokaslr", vcpus=2))
    d.create()
    says(conn, d, b"KEEL idle")
    yield d
    if d.isActive():
        d.destroy()
    d.undefine()


def fails(code, fn, *args, text=""):
    with pytest.raises(libvirt.libvirtError) as e:
        fn(*args)
    assert e.value.get_error_code() == code and text in str(e.value), (e.value.get_error_code(), str(e.value))


def test_peek(guest):
    tables = guest.memoryPeek(SMBIOS, 65536, PHYSICAL)
    assert b"_SM3_" in tables and len(tables) == 65536
    assert guest.memoryPeek(DIRECT + SMBIOS + 5, 40000, VIRTUAL) == tables[5:40005]
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, guest.memoryPeek, 1 << 50, 16, PHYSICAL, text="Invalid addr")
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, guest.memoryPeek, 4096, 16, VIRTUAL, text="Invalid addr")
    fails(libvirt.VIR_ERR_INVALID_ARG, guest.memoryPeek, 0, 16, VIRTUAL | PHYSICAL)


def loads(core):
    """{physical address: (offset, size)} and the instruction pointers, as readelf finds them."""
    text = subprocess.run(["readelf", "-lW", core], capture_output=True, text=True, check=True).stdout
    found = {}
    for m in re.finditer(r"LOAD +0x(\w+) 0x\w+ 0x(\w+) 0x(\w+)", text):
        found[int(m[2], 16)] = (int(m[1], 16), int(m[3], 16))
    assert "CORE (Core file)" in subprocess.run(["readelf", "-hW", core], capture_output=True, text=True, check=True).stdout
    notes = subprocess.run(["readelf", "-nW", core], capture_output=True, text=True, check=True).stdout
    assert notes.count("NT_PRSTATUS") == 2 and "0x00000150" in notes
    return found


def test_core_dump(keeld, conn, guest):
    events = Events(libvirt, conn, ["LIFECYCLE"])
    core = keeld.scratch / "core"
    guest.suspend()
    registers = libvirt_qemu.qemuMonitorCommand(guest, "info registers", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    keeld.ok("dump", "g", core, "--memory-only")
    assert guest.state()[0] == libvirt.VIR_DOMAIN_PAUSED  # as before
    ram = loads(core)
    size = sum(n for _, n in ram.values())
    assert 127 << 20 <= size <= 129 << 20
    data = core.read_bytes()
    at = next(offset + SMBIOS - a for a, (offset, n) in ram.items() if a <= SMBIOS < a + n)
    assert data[at:at + 65536] == guest.memoryPeek(SMBIOS, 65536, PHYSICAL)
    assert b"Linux version" in data
    assert core.stat().st_blocks * 512 < size  # what was never touched is a hole
    notes = int(re.search(r"NOTE +0x(\w+)", subprocess.run(["readelf", "-lW", core], capture_output=True, text=True, check=True).stdout)[1], 16)
    for n, rip in enumerate(re.findall(r"RIP=(\w+)", registers)):
        # behind the header and "CORE", at struct elf_prstatus' pr_reg[16]
        assert struct.unpack_from("<Q", data, notes + n * 356 + 20 + 112 + 16 * 8) == (int(rip, 16),)
    assert core.stat().st_mode & 0o777 == 0o600
    guest.resume()
    while events.none():
        pass
    guest.coreDumpWithFormat(str(core), 0, MEMORY_ONLY)
    assert [events.next()[2:4] for _ in range(2)] == [(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 0), (libvirt.VIR_DOMAIN_EVENT_RESUMED, 0)]
    assert guest.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    guest.coreDump(str(core), MEMORY_ONLY | libvirt.VIR_DUMP_LIVE)
    assert events.none() is None
    fails(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, guest.coreDump, str(core), 0, text="--memory-only")
    fails(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, guest.coreDumpWithFormat, str(core), 1, MEMORY_ONLY)
    fails(libvirt.VIR_ERR_INVALID_ARG, guest.coreDump, str(core), MEMORY_ONLY | 1 | 2)
    fails(libvirt.VIR_ERR_SYSTEM_ERROR, guest.coreDump, "/nothing/core", MEMORY_ONLY)
    guest.coreDump(str(core), MEMORY_ONLY | libvirt.VIR_DUMP_RESET)
    says(conn, guest, b"KEEL idle")
    guest.coreDump(str(core), MEMORY_ONLY | libvirt.VIR_DUMP_CRASH)
    events.until("LIFECYCLE", "g", libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED)
    assert guest.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED]
    loads(core)
    events.close()


def test_nmi(conn, guest):
    guest.injectNMI(0)
    assert guest.isActive()  # "Uhhuh. NMI received for unknown reason": Linux goes on
    fails(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, guest.screenshot, conn.newStream(), 0, text="no display")
