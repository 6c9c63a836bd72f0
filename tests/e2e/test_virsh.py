# SPDX-License-Identifier: GPL-2.0-or-later
"""keeld under Debian's stock virsh and python-libvirt; and our codec between stock virsh and stock libvirtd."""
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from daemon import BUILD, LIMIT, Keeld, virsh, wait_for

if not shutil.which("virsh"):
    pytest.skip("the package libvirt-clients is not installed", allow_module_level=True)


@pytest.fixture
def scratch(tmp_path_factory):
    path = tmp_path_factory.mktemp("v")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def keeld(scratch):
    k = Keeld(scratch / "root")
    yield k
    if k.process.poll() is None:
        assert k.stop() == 0
        assert k.process.stderr.read() == ""


def test_version(keeld):
    r = virsh(keeld.uri, "version", "--daemon")
    assert r.returncode == 0, r.stderr
    assert "Running hypervisor: QEMU 7.2.0" in r.stdout
    assert "Running against daemon: 9.0.0" in r.stdout
    assert r.stderr == ""


def test_names(keeld):
    assert virsh(keeld.uri, "uri").stdout.strip() == keeld.uri
    assert virsh(keeld.uri, "hostname").stdout.strip() == socket.gethostname()


@pytest.mark.parametrize("args", [["list"], ["list", "--all"], ["list", "--inactive", "--persistent"], ["-q", "list", "--name"]])
@pytest.mark.parametrize("readonly", [False, True])
def test_an_empty_list(keeld, args, readonly):
    r = virsh(keeld.uri_ro if readonly else keeld.uri, *args, readonly=readonly)
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout.split() in ([], ["Id", "Name", "State", "--------------------"])


def test_errors_are_libvirts(keeld):
    r = virsh(keeld.uri, "find-storage-pool-sources", "dir")
    assert r.returncode == 1
    assert "this function is not supported by the connection driver: virConnectFindStoragePoolSources" in r.stderr
    r = virsh(keeld.uri.replace(keeld.plain, "qemu:///other"), "list")
    assert r.returncode == 1 and f"unexpected QEMU URI path '/other', try {keeld.plain}" in r.stderr


def test_python_libvirt(keeld):
    libvirt = pytest.importorskip("libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)
    with libvirt.open(keeld.uri) as c:
        assert (c.getType(), c.getVersion(), c.getLibVersion()) == ("QEMU", 7002000, 9000000)
        assert c.isSecure() == 1 and c.isAlive() == 1
        assert c.listAllDomains() == [] and c.listDefinedDomains() == [] and c.listDomainsID() == []
        assert c.numOfDomains() == 0 and c.numOfDefinedDomains() == 0
        for lookup, argument, text in [
                (c.lookupByName, "a'b", "no domain with matching name 'a'b'"),
                (c.lookupByID, 5, "no domain with matching id 5"),
                (c.lookupByUUIDString, "6695eb01-f6a4-8304-79aa-97f2502e193f",
                 "no domain with matching uuid '6695eb01-f6a4-8304-79aa-97f2502e193f'")]:
            with pytest.raises(libvirt.libvirtError) as e:
                lookup(argument)
            assert e.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
            assert e.value.get_error_domain() == libvirt.VIR_FROM_QEMU
            assert e.value.get_error_message() == "Domain not found: " + text
        with pytest.raises(libvirt.libvirtError) as e:
            c.networkDefineXML("<network/>")
        assert e.value.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT
        with pytest.raises(libvirt.libvirtError) as e:
            c.listAllDomains(1 << 30)
        assert e.value.get_error_code() == libvirt.VIR_ERR_INVALID_ARG


def test_many_threads_on_one_connection(keeld):
    libvirt = pytest.importorskip("libvirt")
    wrong = []
    with libvirt.open(keeld.uri) as c:
        def work():
            for _ in range(20):
                if c.getVersion() != 7002000 or c.listAllDomains() != []:
                    wrong.append(1)
        threads = [threading.Thread(target=work) for _ in range(64)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(LIMIT)
        assert not wrong and not any(t.is_alive() for t in threads)


def packet(procedure, payload=b"", serial=0):
    return struct.pack(">7I", 28 + len(payload), 0x20008086, 1, procedure, 0, serial, 0) + payload


def read_packet(s):
    data = b""
    while len(data) < 4 or len(data) < struct.unpack(">I", data[:4])[0]:
        more = s.recv(65536)
        if not more:
            return None
        data += more
    return struct.unpack(">7I", data[:28]), data[28:]


def connect(keeld):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(LIMIT)
    s.connect(str(keeld.path))
    return s


def test_nothing_before_the_opening(keeld):
    with connect(keeld) as s:
        s.sendall(packet(3, serial=7))  # CONNECT_GET_TYPE
        head, body = read_packet(s)
        assert head[3:] == (3, 1, 7, 1)  # its procedure, a reply, its serial, an error
        assert struct.unpack(">2I", body[:8]) == (1, 7) and b"connection not open" in body


def test_garbage_and_idle_clients(keeld):
    """A thousand idle connections and some that send nonsense, while others are served."""
    idle = [connect(keeld) for _ in range(500)]
    half = [connect(keeld) for _ in range(500)]
    for s in half:
        s.sendall(packet(66)[:13])
    for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\xff" * 100, packet(66)[:4] + bytes(24)[:20] + b"\0\0\0\x09"):
        with connect(keeld) as s:
            s.sendall(data)
            assert s.recv(1) == b""
    assert virsh(keeld.uri, "list").returncode == 0
    for s in half:  # the slow ones get their answers in the end
        s.sendall(packet(66)[13:])
        head, body = read_packet(s)
        assert head[3:] == (66, 1, 0, 0) and body == struct.pack(">2I", 1, 0)
    for s in idle + half:
        s.close()
    assert virsh(keeld.uri, "list").returncode == 0


def test_two_on_one_directory(keeld):
    r = subprocess.run([BUILD / "bin/keeld", "--root", keeld.root], capture_output=True, text=True, timeout=LIMIT)
    assert r.returncode == 1 and "another keeld serves this directory" in r.stderr
    assert virsh(keeld.uri, "list").returncode == 0


def test_killed_and_started_again(scratch):
    k = Keeld(scratch / "root")
    assert virsh(k.uri, "list").returncode == 0
    k.stop(signal.SIGKILL)
    k = Keeld(scratch / "root")
    assert virsh(k.uri, "list").returncode == 0
    assert k.stop() == 0


# ---- The codec between stock virsh and stock libvirtd --------------------------------------------------------------

DOMAIN = """<domain type='test'><name>made</name><memory>65536</memory><vcpu>2</vcpu><os><type>hvm</type></os></domain>"""
NETWORK = "<network><name>n2</name><bridge name='br7'/><ip address='10.9.8.1' netmask='255.255.255.0'/></network>"
POOL = "<pool type='dir'><name>p2</name><target><path>/tmp/p2</path></target></pool>"
VOLUME = "<volume><name>v1</name><capacity>1048576</capacity></volume>"
SECRET = "<secret ephemeral='no' private='no'><usage type='ceph'><name>x</name></usage></secret>"

TOUR = [
    "version --daemon", "uri", "hostname", "sysinfo", "capabilities", "nodeinfo", "nodecpumap", "nodecpustats", "nodememstats",
    "freecell --all", "maxvcpus", "cpu-models x86_64", "domcapabilities", "list --all", "list --title --uuid", "dominfo test",
    "domid test", "domuuid test", "domstate test --reason", "dumpxml test", "vcpuinfo test", "vcpucount test", "vcpupin test 0 0",
    "vcpupin test", "emulatorpin test", "iothreadinfo test", "schedinfo test", "schedinfo test weight=70", "dommemstat test",
    "domstats test", "domblklist test", "domiflist test", "domblkerror test", "domfsinfo test", "domjobinfo test", "domtime test",
    "domhostname test", "guestvcpus test", "suspend test", "resume test", "autostart test", "autostart --disable test",
    "setmem test 1048576 --config", "setmaxmem test 4194304 --config", "setvcpus test 2 --live", "desc test --config words",
    "desc test --title --config title", "metadata test http://keel.test/m --key k --set <a/>", "metadata test http://keel.test/m",
    "snapshot-create-as test s1 text", "snapshot-list test --tree", "snapshot-info test s1", "snapshot-dumpxml test s1",
    "snapshot-current test", "snapshot-create-as test s2", "snapshot-parent test s2", "snapshot-revert test s1",
    "snapshot-delete test s2", "checkpoint-create-as test c1", "checkpoint-list test", "save test SCRATCH/saved",
    "restore SCRATCH/saved", "managedsave test", "managedsave-remove test", "start test", "reboot test", "shutdown test", "start test",
    "screenshot test SCRATCH/shot", "send-key test KEY_A", "inject-nmi test", "dump test SCRATCH/core", "reset test",
    "define SCRATCH/domain.xml", "start made", "destroy made", "domrename made other", "undefine other", "create SCRATCH/domain.xml",
    "attach-disk made /dev/null vda", "detach-disk made vda", "blkdeviotune made vda", "domif-getlink made x",
    "destroy --graceful made", "net-list --all", "net-define SCRATCH/net.xml", "net-start n2", "net-info n2", "net-dumpxml n2",
    "net-update n2 add ip-dhcp-range <range/>", "net-dhcp-leases n2", "net-autostart n2", "net-port-list n2", "net-destroy n2",
    "net-undefine n2", "pool-list --all --details", "pool-define SCRATCH/pool.xml", "pool-build p2", "pool-start p2", "pool-info p2",
    "pool-dumpxml p2", "pool-refresh p2", "vol-create p2 SCRATCH/vol.xml", "vol-list p2 --details", "vol-info v1 --pool p2",
    "vol-dumpxml v1 --pool p2", "vol-path v1 --pool p2", "vol-upload v1 SCRATCH/vol.xml --pool p2",
    "vol-download v1 SCRATCH/down --pool p2", "vol-delete v1 --pool p2", "pool-destroy p2", "pool-undefine p2", "iface-list --all",
    "iface-dumpxml eth1", "nodedev-list", "nodedev-list --tree", "nodedev-dumpxml computer", "nwfilter-list",
    "nwfilter-binding-list", "secret-list", "secret-define SCRATCH/secret.xml", "find-storage-pool-sources dir",
    "qemu-monitor-command test info", "qemu-agent-command test x", "event --all --timeout 1",
]


@pytest.fixture(scope="module")
def stock():
    """Stock libvirtd in session mode, as nobody if we are root, with its test driver; and our relay before it."""
    libvirtd = shutil.which("libvirtd", path=os.environ["PATH"] + ":/usr/sbin")
    if not libvirtd:
        pytest.skip("the package libvirt-daemon is not installed")
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="keel-stock-"))
    for name, text in (("domain", DOMAIN), ("net", NETWORK), ("pool", POOL), ("vol", VOLUME), ("secret", SECRET)):
        (scratch / f"{name}.xml").write_text(text)
    command = [libvirtd, "--timeout", "600"]
    if os.geteuid() == 0:
        os.chown(scratch, 65534, 65534)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    env = dict(os.environ, HOME=str(scratch), **{f"XDG_{v}": str(scratch) for v in
                                                 ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "STATE_HOME")})
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    relay = None
    try:
        wait_for(scratch / "libvirt/libvirt-sock", server)
        relay = subprocess.Popen([BUILD / "tests/rpc/rpc_relay", scratch / "relay", scratch / "libvirt/libvirt-sock",
                                  scratch / "log"])
        wait_for(scratch / "relay", relay)
        yield scratch
    finally:
        for process in filter(None, (relay, server)):
            process.terminate()
            process.wait(timeout=LIMIT)
        shutil.rmtree(scratch, ignore_errors=True)


def test_stock_traffic_goes_through_our_codec(stock):
    """Every packet of a tour decodes and encodes to the same bytes; virsh says the same as without us between."""
    tour = "; ".join(TOUR).replace("SCRATCH", str(stock))
    r = virsh(f"test+unix:///default?socket={stock}/relay", tour)
    direct = virsh(f"test+unix:///default?socket={stock}/libvirt/libvirt-sock", tour)
    log = (stock / "log").read_text().splitlines()
    assert not [line for line in log if not line.startswith("ok ")]
    procedures = {line.split()[1] for line in log}
    assert len(procedures) >= 100, sorted(procedures)
    assert any(line.endswith(" error") for line in log) and any(" stream" in line for line in log)
    assert "is closed" not in r.stderr + direct.stderr
    assert len(r.stdout.splitlines()) == len(direct.stdout.splitlines())
