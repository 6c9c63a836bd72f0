# SPDX-License-Identifier: GPL-2.0-or-later
"""Lives of guests, driven by stock python-libvirt and virsh: states, reasons, events and errors are libvirt's."""
import os
import pathlib
import shutil
import signal
import threading
import time
import uuid

import pytest

from daemon import LIMIT, Events, Keeld, domain_xml, event_loop

libvirt = pytest.importorskip("libvirt")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

# virDomainEventType and details
DEFINED, UNDEFINED, STARTED, SUSPENDED, RESUMED, STOPPED, SHUTDOWN, PMSUSPENDED, CRASHED = range(9)
LIFE = "LIFECYCLE"


@pytest.fixture
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("d")
    k = Keeld(path / "root")
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def conn(keeld):
    c = libvirt.open(keeld.uri)
    yield c
    try:
        c.close()
    except libvirt.libvirtError:
        pass


def fails(code, fn, *args, text=None):
    with pytest.raises(libvirt.libvirtError) as e:
        fn(*args)
    assert e.value.get_error_code() == code, str(e.value)
    if text:
        assert text in str(e.value)
    return e.value


def life(events):
    return [(e[2], e[3]) for e in events if e[0] == LIFE]


def test_definitions(conn, keeld):
    events = Events(libvirt, conn, [LIFE])
    d = conn.defineXML(domain_xml("one"))
    assert life([events.next()]) == [(DEFINED, 0)]
    assert (d.name(), d.ID(), d.isActive(), d.isPersistent(), d.autostart()) == ("one", -1, 0, 1, 0)
    assert d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, 0]
    assert (keeld.root / "etc/qemu/one.xml").exists()
    assert [x.name() for x in conn.listAllDomains()] == ["one"] and conn.listDefinedDomains() == ["one"]
    assert conn.numOfDefinedDomains() == 1 and conn.numOfDomains() == 0 and conn.listDomainsID() == []
    assert conn.lookupByName("one").UUIDString() == d.UUIDString()
    assert conn.lookupByUUIDString(d.UUIDString()).name() == "one"
    again = conn.defineXML(d.XMLDesc())
    assert life([events.next()]) == [(DEFINED, 1)] and again.UUIDString() == d.UUIDString()
    e = fails(libvirt.VIR_ERR_OPERATION_FAILED, conn.defineXML, domain_xml("one"), text="already exists with uuid")
    assert e.get_error_domain() == libvirt.VIR_FROM_DOMAIN
    fails(libvirt.VIR_ERR_OPERATION_FAILED, conn.defineXML, domain_xml("two", uuid=d.UUIDString()), text="is already defined with uuid")
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.destroy, text="domain is not running")
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.suspend, text="domain is not running")
    d.setAutostart(1)
    assert (keeld.root / "etc/qemu/autostart/one.xml").resolve() == (keeld.root / "etc/qemu/one.xml").resolve()
    assert d.autostart() == 1
    assert [x.name() for x in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)] == ["one"]
    assert conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE) == []
    assert d.rename("uno") == 0
    assert [(x[1], x[2], x[3]) for x in (events.next(), events.next())] == [("one", UNDEFINED, 1), ("uno", DEFINED, 2)]
    assert sorted(os.listdir(keeld.root / "etc/qemu")) == ["autostart", "uno.xml"]
    assert os.listdir(keeld.root / "etc/qemu/autostart") == ["uno.xml"]
    fails(libvirt.VIR_ERR_NO_DOMAIN, conn.lookupByName, "one", text="no domain with matching name 'one'")
    d = conn.lookupByName("uno")
    d.undefine()
    assert life([events.next()]) == [(UNDEFINED, 0)]
    assert sorted(os.listdir(keeld.root / "etc/qemu")) == ["autostart"] and os.listdir(keeld.root / "etc/qemu/autostart") == []
    fails(libvirt.VIR_ERR_NO_DOMAIN, d.info)
    assert conn.listAllDomains() == []
    events.close()


def test_a_life(conn, keeld):
    events = Events(libvirt, conn)
    d = conn.defineXML(domain_xml("a", run="idle"))
    events.next()
    d.create()
    assert life([events.next(), events.next()]) == [(RESUMED, 0), (STARTED, 0)]
    assert d.ID() == 1 and d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]
    assert conn.lookupByID(1).name() == "a" and conn.listDomainsID() == [1]
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.create, text="domain is already running")
    d.suspend()
    assert life([events.next()]) == [(SUSPENDED, 0)]
    assert d.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER]
    d.suspend()
    d.resume()
    assert life([events.next()]) == [(RESUMED, 0)]
    assert d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED]
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.resume, text="domain is already running")
    state, most, memory, cpus, used = d.info()
    assert (state, most, memory, cpus) == (1, 131072, 131072, 1)
    xml = d.XMLDesc()
    assert "<domain type='qemu' id='1'>" in xml and "<alias name='serial0'/>" in xml and "/dev/pts/" in xml
    inactive = d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    assert "id=" not in inactive.split("\n")[0] and "<alias" not in inactive and "/dev/pts" not in inactive
    d.undefine()
    assert life([events.next()]) == [(UNDEFINED, 0)]
    assert d.isPersistent() == 0 and d.isActive() == 1
    d.destroy()
    assert life([events.next(), events.next()]) == [(SHUTDOWN, 2), (STOPPED, 1)]  # as stock libvirtd with QEMU
    fails(libvirt.VIR_ERR_NO_DOMAIN, d.info)
    assert keeld.guests() == [] and os.listdir(keeld.root / "run/qemu") == []
    assert events.none() is None
    events.close()


def test_start_paused_and_autodestroy(conn, keeld):
    events = Events(libvirt, conn, [LIFE])
    d = conn.createXML(domain_xml("p"), libvirt.VIR_DOMAIN_START_PAUSED)
    assert life([events.next(), events.next()]) == [(STARTED, 0), (SUSPENDED, 0)]
    assert d.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER] and d.isPersistent() == 0
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.undefine, text="cannot undefine transient domain")
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.setAutostart, 1, text="cannot set autostart for transient domain")
    d.resume()
    assert life([events.next()]) == [(RESUMED, 0)]
    other = libvirt.open(keeld.uri)
    other.createXML(domain_xml("q"), libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED)
    assert life([events.next(), events.next()]) == [(STARTED, 0), (SUSPENDED, 0)]
    other.close()
    assert life(events.until(LIFE, "q", STOPPED)) == [(SHUTDOWN, 2), (STOPPED, 1)]
    assert [x.name() for x in conn.listAllDomains()] == ["p"]
    d.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
    assert life(events.until(LIFE, "p", STOPPED)) == [(SHUTDOWN, 2), (STOPPED, 1)]
    events.close()


def console_until(conn, dom, word):
    """Read the console until the guest says it."""
    stream = conn.newStream()
    dom.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    seen, end = b"", time.time() + LIMIT
    while word not in seen:
        assert time.time() < end, seen[-500:]
        data = stream.recv(4096)
        assert data, seen[-500:]
        seen += data
    stream.abort()
    return seen


def test_shutdown_and_reboot_by_the_button(conn, keeld):
    events = Events(libvirt, conn, [LIFE, "REBOOT"])
    d = conn.createXML(domain_xml("b", run="wait"), libvirt.VIR_DOMAIN_START_PAUSED)
    pid = keeld.guests()
    events.until(LIFE, "b", SUSPENDED)
    d.resume()
    events.next()
    console_until(conn, d, b"KEEL waiting")
    time.sleep(0.5)  # until its init reads the button
    d.reboot()
    assert [e[0] for e in events.until("REBOOT")] == [LIFE, "REBOOT"]
    assert keeld.guests() == pid and d.ID() == 1
    assert life([events.next()]) == [(RESUMED, 0)]
    console_until(conn, d, b"KEEL waiting")
    time.sleep(0.5)
    d.shutdown()
    assert life(events.until(LIFE, "b", STOPPED)) == [(SHUTDOWN, 1), (STOPPED, 0)]
    events.close()


def test_the_guest_reboots_by_itself_and_panics(conn):
    events = Events(libvirt, conn, [LIFE, "REBOOT"])
    d = conn.defineXML(domain_xml("r", run="reboot"))
    d.create()
    events.until("REBOOT", "r")
    events.until("REBOOT", "r")
    d.destroy()
    events.until(LIFE, "r", STOPPED, 1)
    d.undefine()
    d = conn.defineXML(domain_xml("c", run="panic", devices="<panic model='isa'/>"))
    d.create()
    assert life(events.until(LIFE, "c", STOPPED))[-2:] == [(CRASHED, 0), (STOPPED, 2)]
    assert d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED]
    events.close()


def test_a_killed_machine(conn, keeld):
    events = Events(libvirt, conn, [LIFE])
    d = conn.defineXML(domain_xml("k"))
    d.create()
    events.until(LIFE, "k", STARTED)
    os.kill(keeld.guests()[0], signal.SIGKILL)
    assert events.next()[:4] == (LIFE, "k", STOPPED, 5)
    assert d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED]
    d.create()
    assert d.ID() == 2
    d.destroy()
    events.close()


def test_a_start_that_fails(conn, keeld):
    events = Events(libvirt, conn, [LIFE, "CONTROL_ERROR"])
    d = conn.defineXML(domain_xml("f").replace("guest/vmlinuz", "guest/nothing"))
    events.next()
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.create, text="guest/nothing': No such file or directory")  # keeld opens the files
    junk = keeld.root / "junk"
    junk.write_bytes(bytes(1 << 20))
    xml = domain_xml("f", uuid=d.UUIDString(), devices=f"""<disk type='file'><driver name='qemu' type='qcow2'/>
        <source file='{junk}'/><target dev='vda'/></disk>""")
    d = conn.defineXML(xml)
    events.next()
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.create, text="process exited while connecting to monitor: keel-vmm: error: --disk: ")
    assert d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED] and d.ID() == -1
    assert events.next() == ("CONTROL_ERROR", "f")
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, conn.createXML, xml.replace("<name>f", "<name>g").replace(d.UUIDString(), str(uuid.uuid4())), 0)
    assert [x.name() for x in conn.listAllDomains()] == ["f"] and keeld.guests() == []
    assert events.next() == ("CONTROL_ERROR", "g") and events.none() is None
    events.close()


def test_keeld_killed_and_started_again(keeld):
    with libvirt.open(keeld.uri) as c:
        for name in ("run", "stopped", "gone", "off"):
            d = c.defineXML(domain_xml(name, uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name))))
            if name != "off":
                d.create()
        t = c.createXML(domain_xml("transient"), 0)
        c.lookupByName("stopped").suspend()
        c.lookupByName("off").setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "a title", None, None)
        ids = {d.name(): d.ID() for d in c.listAllDomains()}
        before = {d.name(): d.XMLDesc() for d in c.listAllDomains()}
        pids = set(keeld.guests())
        t.info()
    keeld.stop(signal.SIGKILL)
    assert set(keeld.guests()) == pids and len(pids) == 4
    gone = [p for p in pids if "\0--name\0gone\0" in open(f"/proc/{p}/cmdline").read()]
    os.kill(gone[0], signal.SIGKILL)
    stat = pathlib.Path(f"/proc/{gone[0]}/stat")
    while stat.exists() and ") Z" not in stat.read_text():  # the end of its PID namespace takes a moment
        time.sleep(0.01)
    end = time.time() + LIMIT
    while len(keeld.guests()) == 4:
        assert time.time() < end
        time.sleep(0.02)
    keeld.__init__(keeld.root)
    with libvirt.open(keeld.uri) as c:
        while c.lookupByName("stopped").state()[0] != libvirt.VIR_DOMAIN_PAUSED:
            assert time.time() < end
            time.sleep(0.02)
        after = {d.name(): d.XMLDesc() for d in c.listAllDomains()}
        assert {d.name(): d.state()[0] for d in c.listAllDomains()} == {
            "run": libvirt.VIR_DOMAIN_RUNNING, "stopped": libvirt.VIR_DOMAIN_PAUSED, "gone": libvirt.VIR_DOMAIN_SHUTOFF,
            "off": libvirt.VIR_DOMAIN_SHUTOFF, "transient": libvirt.VIR_DOMAIN_RUNNING}
        assert {d.name(): d.ID() for d in c.listAllDomains()} == dict(ids, gone=-1)
        for name in ("run", "stopped", "off", "transient"):
            assert after[name] == before[name]
        assert c.lookupByName("transient").isPersistent() == 0
        assert c.lookupByName("gone").state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED]
        events = Events(libvirt, c, [LIFE])
        c.lookupByName("stopped").resume()
        assert events.next()[:4] == (LIFE, "stopped", RESUMED, 0)
        d = c.lookupByName("gone")
        d.create()
        assert d.ID() > max(ids.values())
        for d in c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            d.destroy()
        events.close()
    assert keeld.guests() == []


def test_bad_files_keep_no_good_ones_away(keeld):
    keeld.ok("define", "/dev/stdin", stdin=domain_xml("good"))
    keeld.stop()
    etc = keeld.root / "etc/qemu"
    (etc / "half.xml").write_text("<domain type='qemu'><name>half")
    (etc / "other.xml").write_text((etc / "good.xml").read_text())
    (etc / "empty.xml").write_text("")
    (etc / "good.xml.new").write_text("left over")
    (etc / "pipe.xml").symlink_to("/dev/null")
    keeld.__init__(keeld.root)
    assert keeld.ok("-q", "list", "--all", "--name").split() == ["good"]
    assert keeld.stop() == 0
    log = keeld.process.stderr.read()
    for word in ("'half.xml' is skipped", "'other.xml' is skipped: Domain config filename", "'empty.xml' is skipped", "'pipe.xml' is skipped"):
        assert word in log, log


def test_autostart(keeld):
    keeld.ok("define", "/dev/stdin", stdin=domain_xml("auto"))
    keeld.ok("autostart", "auto")
    keeld.stop()
    keeld.__init__(keeld.root)
    end = time.time() + LIMIT
    while keeld.ok("domstate", "auto").strip() != "running":
        assert time.time() < end
        time.sleep(0.05)
    keeld.ok("destroy", "auto")


def test_64_threads(conn, keeld):
    """Each with a guest of its own and, now and then, one that all want."""
    wrong = []
    shared = conn.defineXML(domain_xml("shared"))

    def work(n):
        try:
            d = conn.defineXML(domain_xml(f"t{n}"))
            for i in range(5):
                d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, f"{n} {i}", None, None)
                assert d.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None) == f"{n} {i}"
                conn.listAllDomains()
                assert conn.lookupByName(f"t{n}").UUID() == d.UUID()
                if n % 16 == 0:
                    for fn in (shared.create, shared.suspend, shared.resume, shared.destroy):
                        try:
                            fn()
                        except libvirt.libvirtError as e:
                            assert e.get_error_code() in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_INTERNAL_ERROR,
                                                          libvirt.VIR_ERR_OPERATION_FAILED), str(e)
            d.undefine()
        except Exception as e:  # noqa: BLE001 - it is told in the main thread
            wrong.append(e)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(LIMIT)
    assert not wrong and not any(t.is_alive() for t in threads)
    if shared.isActive():
        shared.destroy()
    assert [d.name() for d in conn.listAllDomains()] == ["shared"] and keeld.guests() == []


HOOK = r"""#!/bin/sh
# arguments, the name in the XML that comes, and whether it is the running one's
xml=$(cat)
echo "$*|$(echo "$xml" | sed -n 's|.*<name>\(.*\)</name>.*|\1|p')" >>"$(dirname "$0")/log"
[ ! -e "$(dirname "$0")/refuse-$2" ] || { echo "not $2 today" >&2; exit 3; }
[ ! -e "$(dirname "$0")/slow" ] || sleep 1
"""


def test_hooks(tmp_path_factory):
    path = tmp_path_factory.mktemp("h")
    hooks = path / "root/etc/hooks"
    hooks.mkdir(parents=True)
    for name in ("qemu", "daemon"):
        (hooks / name).write_text(HOOK)
        (hooks / name).chmod(0o755)

    def log():
        text = (hooks / "log").read_text().splitlines()
        (hooks / "log").unlink()
        return text

    def until(line):
        end, seen = time.time() + LIMIT, []
        while line not in seen:
            assert time.time() < end, seen
            time.sleep(0.02)
            seen = (hooks / "log").read_text().splitlines() if (hooks / "log").exists() else []
        return log()

    k = Keeld(path / "root")
    try:
        assert until("- start - start|") == ["- start - start|"]
        with libvirt.open(k.uri) as conn:
            d = conn.defineXML(domain_xml("g"))
            d.create()
            assert log() == [f"g {a} begin -|g" for a in ("prepare", "start", "started")]
            k.stop(signal.SIGKILL)
        k.__init__(k.root)
        until("g reconnect begin -|g")
        with libvirt.open(k.uri) as conn:
            d = conn.lookupByName("g")
            d.destroy()
            assert until("g release end -|g") == ["g stopped end -|g", "g release end -|g"]
            (hooks / "refuse-start").touch()
            with pytest.raises(libvirt.libvirtError) as e:
                d.create()
            assert e.value.get_error_code() == libvirt.VIR_ERR_HOOK_SCRIPT_FAILED and "not start today" in str(e.value)
            assert until("g release end -|g")[:2] == ["g prepare begin -|g", "g start begin -|g"]
            assert not d.isActive() and k.guests() == []
            (hooks / "refuse-start").unlink()
            (hooks / "refuse-started").touch()
            with pytest.raises(libvirt.libvirtError, match="not started today"):
                d.create()
            until("g release end -|g")
            (hooks / "refuse-started").unlink()
            (hooks / "slow").touch()  # others are served while it takes its time, and see nothing of what is not there yet
            begin = time.time()
            starting = threading.Thread(target=lambda: conn.createXML(domain_xml("t")))
            starting.start()
            until("t prepare begin -|t")
            assert [x.name() for x in conn.listAllDomains()] == ["g"] and d.info()[0] == libvirt.VIR_DOMAIN_SHUTOFF
            assert time.time() - begin < 1
            starting.join()
            assert conn.lookupByName("t").isActive()
            conn.lookupByName("t").destroy()
        until("t release end -|t")
        k.process.send_signal(signal.SIGHUP)
        until("- reload begin SIGHUP|")
        k.stop()
        assert log() == ["- shutdown - shutdown|"]
    finally:
        k.end()
        shutil.rmtree(path, ignore_errors=True)
