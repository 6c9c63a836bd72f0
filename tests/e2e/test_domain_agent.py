# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's guest agent in a guest, asked through stock python-libvirt and virsh; and agents that answer nonsense."""
import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from daemon import BUILD, LIMIT, Events, Keeld, domain_xml, event_loop

libvirt = pytest.importorskip("libvirt")
libvirt_qemu = pytest.importorskip("libvirt_qemu")
libvirt.registerErrorHandler(lambda *_: None, None)
event_loop(libvirt)

GA = "/usr/sbin/qemu-ga"
if not os.path.exists(GA):
    pytest.skip("the package qemu-guest-agent is not installed", allow_module_level=True)
CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def bring_agent(scratch, fake=None):
    """The test guest's initrd with the host's agent behind it, and little programs that it calls. Or a script as the agent."""
    tree = scratch / "tree"
    libs = [w for line in subprocess.run(["ldd", GA], capture_output=True, text=True, check=True).stdout.splitlines()
            for w in line.split() if w.startswith("/")]
    for f in [GA, *libs] if not fake else []:
        to = tree / f.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, to)
    files = {"etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/os-release": 'ID=keel\nNAME="Keel test"\n',
             "sbin/shutdown": '#!/bin/sh\nsync; case "$*" in *-r*) reboot -f;; *) poweroff -f;; esac\n',
             "sbin/hwclock": "#!/bin/sh\nexit 0\n", "sbin/chpasswd": "#!/bin/sh\necho KEEL password $(cat) >/dev/console\n"}
    if fake:
        files["usr/sbin/qemu-ga"] = fake
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    archive = subprocess.run("find . | cpio -o -H newc --quiet | gzip -1", shell=True, cwd=tree, capture_output=True, check=True).stdout
    out = scratch / "initrd"
    out.write_bytes((BUILD / "guest/initrd").read_bytes() + archive)
    shutil.rmtree(tree)
    return out


@pytest.fixture(scope="module")
def keeld(tmp_path_factory):
    path = tmp_path_factory.mktemp("a")
    k = Keeld(path / "root")
    k.scratch = path
    with open(path / "disk.img", "wb") as f:
        f.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", path / "disk.img"], check=True)
    yield k
    k.end()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def conn(keeld):
    with libvirt.open(keeld.uri) as c:
        yield c


def xml(keeld, name, initrd):
    disk = (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{keeld.scratch}/disk.img'/>"
            "<target dev='vda' bus='virtio'/><serial>S1</serial></disk>")
    return domain_xml(name, run="agent", vcpus=2, devices=disk + CHANNEL).replace(f"{BUILD}/guest/initrd", str(initrd))


def fails(code, fn, *args, text=""):
    with pytest.raises(libvirt.libvirtError) as e:
        fn(*args)
    assert e.value.get_error_code() == code and text in str(e.value), (e.value.get_error_code(), str(e.value))


@pytest.fixture(scope="module")
def guest(keeld, conn):
    events = Events(libvirt, conn, ["AGENT_LIFECYCLE"])
    d = conn.defineXML(xml(keeld, "g", bring_agent(keeld.scratch)))
    fails(libvirt.VIR_ERR_OPERATION_INVALID, d.getTime, text="domain is not running")
    d.create()
    fails(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, d.getTime, text="QEMU guest agent is not connected")
    assert events.next() == ("AGENT_LIFECYCLE", "g", libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED,
                             libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_CHANNEL)
    events.close()
    assert "state='connected'" in d.XMLDesc()
    yield d


def command(dom, **what):
    return json.loads(libvirt_qemu.qemuAgentCommand(dom, json.dumps(what), libvirt_qemu.VIR_DOMAIN_QEMU_AGENT_COMMAND_BLOCK, 0))


def test_commands(guest):
    assert command(guest, execute="guest-ping") == {"return": {}}
    assert command(guest, execute="guest-info")["return"]["version"].startswith("7.2")
    assert "CommandNotFound" == command(guest, execute="guest-nothing")["error"]["class"]
    fails(libvirt.VIR_ERR_INVALID_ARG, libvirt_qemu.qemuAgentCommand, guest, '{"execute":"guest-ping"}\nx{', -2, 0)


def test_time_name_password(keeld, guest):
    guest.setTime({"seconds": 1234567890, "nseconds": 500000000})
    now = guest.getTime()
    assert 1234567890 <= now["seconds"] < 1234567890 + LIMIT
    assert guest.hostname() == "keel-guest"
    stream = guest.connect().newStream()
    guest.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    guest.setUserPassword("root", "sec'ret", 0)
    seen, end = b"", time.time() + LIMIT
    while b"KEEL password root:sec'ret" not in seen:
        assert time.time() < end, seen
        seen += stream.recv(4096)
    stream.abort()


def test_file_systems(keeld, guest):
    mnt = [f for f in guest.fsInfo() if f[0] == "/mnt"]
    assert [(f[2], f[3]) for f in mnt] == [("ext4", ["vda"])]
    assert guest.fsFreeze() == 1
    assert command(guest, execute="guest-fsfreeze-status") == {"return": "frozen"}
    fails(libvirt.VIR_ERR_INTERNAL_ERROR, guest.fsFreeze, text="unable to execute QEMU agent command 'guest-fsfreeze-freeze'")
    assert guest.fsThaw() == 1
    assert guest.fsFreeze(["/mnt"]) == 1 and guest.fsThaw() == 1
    guest.fSTrim(None, 0)
    r = keeld.ok("domfsinfo", "g")
    assert "/mnt" in r and "vda" in r


def test_guest_info(keeld, guest):
    info = guest.guestInfo()
    assert info["hostname"] == "keel-guest" and info["os.id"] == "keel" and info["os.name"] == "Keel test"
    assert info["if.count"] >= 1 and info["if.0.name"] == "lo" and info["if.0.addr.0.addr"] == "127.0.0.1"
    assert any(info[f"fs.{n}.mountpoint"] == "/mnt" and info[f"fs.{n}.total-bytes"] > 1 << 20 for n in range(info["fs.count"]))
    assert info["disk.count"] >= 1 and info["user.count"] == 0
    only = guest.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME)
    assert only == {"hostname": "keel-guest"}
    fails(libvirt.VIR_ERR_INVALID_ARG, guest.guestInfo, 1 << 20)
    assert "127.0.0.1/8" in keeld.ok("domifaddr", "g", "--source", "agent", "--full")
    lo = guest.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)["lo"]
    assert {"addr": "127.0.0.1", "prefix": 8, "type": 0} in lo["addrs"]


def test_vcpus(guest):
    assert guest.guestVcpus() == {"vcpus": "0-1", "online": "0-1", "offlinable": "1"}
    guest.setVcpusFlags(1, libvirt.VIR_DOMAIN_VCPU_GUEST | libvirt.VIR_DOMAIN_AFFECT_LIVE)
    assert guest.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_GUEST | libvirt.VIR_DOMAIN_AFFECT_LIVE) == 1
    guest.setGuestVcpus("1", 1)
    assert guest.guestVcpus()["online"] == "0-1"


def test_many_at_once(guest):
    """Answers do not get mixed up."""
    wrong = []

    def ask(n):
        for i in range(10):
            got = command(guest, execute="guest-sync", arguments={"id": n * 1000 + i})
            if got != {"return": n * 1000 + i}:
                wrong.append(got)
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_agent_outlives_keeld(keeld, conn, guest):
    keeld.process.kill()
    keeld.process.wait()
    keeld.__init__(keeld.root)
    assert keeld.ok("domhostname", "g", "--source", "agent").strip() == "keel-guest"


def test_reboot_and_shutdown(keeld, guest):
    with libvirt.open(keeld.uri) as conn:  # the daemon is another one now
        d = conn.lookupByName("g")
        events = Events(libvirt, conn, ["REBOOT", "LIFECYCLE", "AGENT_LIFECYCLE"])
        d.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
        events.until("REBOOT", "g")
        events.until("AGENT_LIFECYCLE", "g", 1)
        assert d.hostname() == "keel-guest"
        d.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
        events.until("LIFECYCLE", "g", libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
        assert not d.isActive()
        events.close()


NONSENSE = r"""#!/bin/sh
exec 3<>"$4"
head -c 3000000 /dev/urandom >&3
printf '\n\377{"return": 1}\n{"return": [[[[\n\377\377\n' >&3
while read -r line <&3; do
	case $line in
	*guest-sync*) printf '{"return": 0}\n\377{"return": %s}\n' "$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')" >&3 ;;
	*host-name*) printf '{"return": {"host-name": 7}}\n' >&3 ;;
	*'get-time"'*) ;; # never
	*fsinfo*) printf '{"return": {}}\n' >&3 ;;
	*interfaces*) printf '{"return": [{"name": "x", "ip-addresses": 5}, 3]}\n' >&3 ;;
	*get-vcpus*) printf '{"return": [{"logical-id": 99999999999}]}\n' >&3 ;;
	*) printf '{"error": {"class": "GenericError", "desc": "no & never"}}\n' >&3 ;;
	esac
done
"""


def test_an_agent_that_talks_nonsense(keeld):
    """Whatever it says: an error in libvirt's codes, in time, and the next question is asked."""
    (keeld.scratch / "fake").mkdir()
    with libvirt.open(keeld.uri) as conn:
        events = Events(libvirt, conn, ["AGENT_LIFECYCLE"])
        d = conn.createXML(xml(keeld, "fake", bring_agent(keeld.scratch / "fake", NONSENSE)))
        events.until("AGENT_LIFECYCLE", "fake", 1)
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.hostname, text="malformed return value of guest-get-host-name")
        d.agentSetResponseTimeout(1)
        begin = time.time()
        fails(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, d.getTime)
        assert 0.9 < time.time() - begin < 10
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.fsInfo, text="malformed")
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.interfaceAddresses, 1, text="malformed")
        assert "malformed return value of guest-get-vcpus" in keeld.virsh("guestvcpus", "fake").stderr
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.setUserPassword, "a", "b", text="no & never")
        assert "hostname" not in d.guestInfo()
        fails(libvirt.VIR_ERR_INTERNAL_ERROR, d.guestInfo, libvirt.VIR_DOMAIN_GUEST_INFO_OS)
        d.destroy()
        events.close()
