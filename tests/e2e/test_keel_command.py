# SPDX-License-Identifier: GPL-2.0-or-later
"""The keel command: what it prints is, byte for byte, what stock virsh prints of the same keeld; and what virsh lacks."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from daemon import BUILD, LIMIT, Keeld, domain_xml

if not shutil.which("virsh"):
    pytest.skip("the package libvirt-clients is not installed", allow_module_level=True)

ENV = dict(os.environ, LC_ALL="C.UTF-8")


def keel(k, *args, stdin="", options=(), **kw):
    return subprocess.run([BUILD / "bin/keel", "-c", k.uri, *options, *map(str, args)], input=stdin, capture_output=True, text=True,
                          timeout=LIMIT, env=kw.pop("env", ENV), **kw)


def ok(k, *args, **kw):
    r = keel(k, *args, **kw)
    assert r.returncode == 0, (args, r.stdout, r.stderr)
    return r.stdout


@pytest.fixture(scope="module")
def k(tmp_path_factory):
    path = tmp_path_factory.mktemp("c")
    d = Keeld(path / "root")
    d.dir = path
    disk = path / "a.img"
    disk.write_bytes(bytes(1 << 20))
    devices = f"""<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
        <interface type='user'><mac address='52:54:00:01:02:03'/><model type='virtio'/></interface>"""
    (path / "one.xml").write_text(domain_xml("one", run="idle", devices=devices, extra="<title>Größe, 大きさ</title>", vcpus=2))
    (path / "two.xml").write_text(domain_xml("a-longer-name", run="idle"))
    (path / "off.xml").write_text(domain_xml("off", kernel=False))
    for name in ("one", "two", "off"):
        d.ok("define", path / f"{name}.xml")
    d.ok("start", "one")
    d.ok("start", "a-longer-name", "--paused")
    yield d
    d.end()
    shutil.rmtree(path, ignore_errors=True)


SAME = """
list
list --all
list --all --title
list --inactive
list --all --name
list --all --uuid
list --all --id
list --all --uuid --name
list --name --id
list --state-paused
list --all --state-shutoff --persistent
list --transient
list --all --autostart
domid one
domid off
domname 1
domuuid off
domstate one
domstate one --reason
domstate a-longer-name --reason
domstate off --reason
dominfo off
dominfo a-longer-name
domblklist one
domblklist one --details
domblklist off
domblklist one --inactive
domiflist one
domiflist off
domblkinfo one vda
domblkstat one nothing
nodememstats 7
list --all --id --name
attach-device off /dev/null
setmaxmem off 99x
setvcpus off 1
setmem one 90M --current --live
detach-device off /dev/null
update-device off /dev/null
update-device one /dev/null
domblkinfo one
domblkinfo one vda --human
domblkinfo one --all
domblkinfo one --all --human
domcontrol one
ttyconsole one
domstats off
domstats --state --balloon
domstats one off --state --vcpu
vcpuinfo off
vcpuinfo off --pretty
vcpuinfo a-longer-name
vcpucount one
vcpucount off
vcpucount one --maximum --live
vcpucount off --config
dumpxml one
dumpxml one --inactive
dumpxml off --migratable
desc one --title
desc one
nodeinfo
nodecpumap
maxvcpus
maxvcpus kvm
capabilities
domcapabilities
domcapabilities --virttype qemu --machine q35
sysinfo
hostname
uri
event --list
event --event reboot --timeout 1
domblkstat off
domblkstat off vda
domblkinfo one vdz
domblkinfo one vda --all
domifstat one 52:54:00:01:02:03
domifstat one nic
dommemstat off
domcontrol off
vcpucount off --live
console off
start one
start nobody
destroy off
shutdown off
reboot off
reset off
suspend off
resume off
domrename one other
domrename off one
attach-device one /nonexistent
attach-device one /dev/null
detach-device-alias one nothing
define /nonexistent
define /dev/null
create /dev/null
undefine nobody
autostart nobody
setmem off 1x
setmem off 100M
setvcpus off 99 --config
desc nobody
qemu-monitor-command one --pretty {"execute":"query-status"}
qemu-monitor-command one {"execute":"query-status"}
qemu-monitor-command one {"execute":"no-such-thing"}
qemu-monitor-command off {"execute":"query-status"}
list --frobnicate
list superfluous
start
domrename one
domblklist
dominfo --domain off
dominfo --domain=off
""".strip().splitlines()


@pytest.mark.parametrize("line", SAME)
def test_the_same_as_virsh(k, line):
    args = line.split()
    v = subprocess.run(["virsh", "-c", k.uri, *args], capture_output=True, text=True, timeout=LIMIT, env=ENV, stdin=subprocess.DEVNULL)
    r = keel(k, *args)
    # Numbers that go on between the two commands.
    mine, virshs = (re.sub(r"((?:time|rss|user|system)=)\d+", r"\1N", x.stdout) for x in (r, v))
    assert (r.returncode, mine, r.stderr) == (v.returncode, virshs, v.stderr)


def test_quiet(k):
    for args in (["list", "--all"], ["domid", "one"]):
        v = subprocess.run(["virsh", "-q", "-c", k.uri, *args], capture_output=True, text=True, timeout=LIMIT, env=ENV)
        if args[0] != "list":  # virsh leaves out the table's head, too
            assert keel(k, *args, options=["-q"]).stdout == v.stdout


def test_readonly(k):
    r = keel(k, "suspend", "one", options=["-r"])
    assert r.returncode == 1 and "read only access prevents virDomainSuspend" in r.stderr
    assert keel(k, "list", options=["-r"]).returncode == 0


def test_the_same_things_done(k, tmp_path):
    """Verbs that change something, by virsh with one guest and by keel with another: they say the same."""
    def text(name, verb, *args):
        r = subprocess.run((["virsh", "-c", k.uri] if name == "vv" else [BUILD / "bin/keel", "-c", k.uri]) + [verb, *args],
                           capture_output=True, text=True, timeout=LIMIT, env=ENV, stdin=subprocess.DEVNULL)
        return r.returncode, *(s.replace(name, "NAME") for s in (r.stdout, r.stderr))
    nic = tmp_path / "nic.xml"
    nic.write_text("<interface type='user'><mac address='52:54:00:0a:0b:0c'/><model type='virtio'/></interface>")
    wide = tmp_path / "wide.xml"
    wide.write_text("<interface type='user'><mac address='52:54:00:0a:0b:0d'/><model type='virtio'/></interface>")
    steps = [("define", "XML"), ("autostart", "NAME"), ("autostart", "NAME", "--disable"), ("desc", "NAME", "some", "words"),
             ("desc", "NAME"), ("desc", "NAME", "--title", "--config", "A title"), ("desc", "NAME", "--title"),
             ("attach-device", "NAME", str(nic), "--config"), ("domiflist", "NAME"), ("detach-device", "NAME", str(nic), "--config"),
             ("detach-device", "NAME", str(wide), "--config"), ("setmaxmem", "NAME", "160M", "--config"),
             ("setmem", "NAME", "150000", "--config"), ("dominfo", "UUIDLESS"), ("domrename", "NAME", "NAME2"),
             ("domrename", "NAME2", "NAME"), ("start", "NAME", "--paused"), ("domstate", "NAME"), ("resume", "NAME"), ("suspend", "NAME"),
             ("resume", "NAME"), ("reset", "NAME"), ("shutdown", "NAME", "--mode", "magic"), ("destroy", "NAME"), ("undefine", "NAME"),
             ("create", "XML", "--paused"), ("destroy", "NAME", "--graceful")]
    said = {}
    for name in ("vv", "kk"):
        xml = tmp_path / f"{name}.xml"
        xml.write_text(domain_xml(name))
        said[name] = []
        for step in steps:
            if "UUIDLESS" in step:
                continue
            args = [a.replace("NAME", name).replace("XML", str(xml)) for a in step]
            said[name].append((step, text(name, *args)))
    for a, b in zip(said["vv"], said["kk"]):
        assert a == b


# ---- What virsh lacks --------------------------------------------------------

def test_json(k):
    rows = {r["name"]: r for r in json.loads(ok(k, "list", "--all", "--json", "--title"))}
    assert rows["one"]["state"] == "running" and rows["one"]["id"] == 1 and rows["one"]["title"] == "Größe, 大きさ"
    assert rows["off"]["id"] is None and len(rows["off"]["uuid"]) == 36
    assert json.loads(ok(k, "domblklist", "one", "--json")) == [
        {"type": "file", "device": "disk", "target": "vda", "source": str(k.dir / "a.img")}]
    assert json.loads(ok(k, "domiflist", "one", "--json"))[0]["mac"] == "52:54:00:01:02:03"
    info = json.loads(ok(k, "dominfo", "one", "--json"))
    assert info["cpus"] == 2 and info["max-memory-kib"] == 131072 and info["persistent"] is True
    stats = {s["domain"]: s for s in json.loads(ok(k, "domstats", "--json"))}
    assert stats["one"]["vcpu.current"] == 2 and stats["off"]["state.state"] == 5
    assert [v["vcpu"] for v in json.loads(ok(k, "vcpuinfo", "one", "--json"))] == [0, 1]
    assert json.loads(ok(k, "nodeinfo", "--json"))["cpus"] == os.cpu_count()
    assert json.loads(ok(k, "pool-list", "--all", "--json")) == []
    assert json.loads(ok(k, "nodememstats", "--json"))["total"] > 0


def test_events(k):
    p = subprocess.Popen([BUILD / "bin/keel", "-c", k.uri, "event", "--event", "lifecycle", "--json", "--loop"], stdout=subprocess.PIPE,
                         text=True, env=ENV)
    v = subprocess.Popen(["virsh", "-c", k.uri, "event", "--event", "lifecycle", "--loop"], stdout=subprocess.PIPE, text=True, env=ENV)
    w = subprocess.Popen([BUILD / "bin/keel", "-c", k.uri, "event", "--event", "lifecycle", "--loop"], stdout=subprocess.PIPE, text=True, env=ENV)
    time.sleep(1)  # nothing says that they have subscribed
    ok(k, "suspend", "one")
    ok(k, "resume", "one")
    lines = [json.loads(p.stdout.readline()) for _ in range(2)]
    said = [q.stdout.readline() + q.stdout.readline() for q in (v, w)]
    for q in (p, v, w):
        q.send_signal(signal.SIGINT)
    out = [said[i] + q.communicate(timeout=LIMIT)[0] for i, q in enumerate((v, w))]
    p.communicate(timeout=LIMIT)
    assert out[0].rstrip("\n") == out[1].rstrip("\n") and "event 'lifecycle' for domain 'one': Suspended Paused" in out[1]
    assert [(line["event"], line["domain"], line["kind"]) for line in lines] == [("lifecycle", "one", 3), ("lifecycle", "one", 4)]


def test_top(k):
    out = ok(k, "top", "--all")
    assert re.search(r"keel top - \d\d:\d\d:\d\d  3 guests, 1 running, 3 vCPUs on", out)
    assert re.search(r"^ +1 one +running +2 ", out, re.M) and re.search(r"^ +- off +shut off", out, re.M)
    assert "\033" not in out
    rows = [json.loads(line) for line in ok(k, "top", "--json", "--iterations", "2", "--delay", "1").splitlines() if line]
    assert len(rows) == 2 and {r["name"] for r in rows[1]} == {"one", "a-longer-name"}
    assert keel(k, "top", "--sort", "colour").returncode == 1
    # A terminal: it fills the screen, obeys keys and leaves it as it was.
    pid, fd = pty.fork()
    if not pid:
        os.execve(BUILD / "bin/keel", ["keel", "-c", k.uri, "top", "--delay", "1"], dict(ENV, TERM="xterm"))
    text = b""
    end = time.time() + LIMIT
    while b"sorted by name" not in text and time.time() < end:
        if select.select([fd], [], [], 1)[0]:
            text += os.read(fd, 65536)
        if b"sorted by cpu" in text:
            os.write(fd, b"n")
    os.write(fd, b"q")
    try:
        while True:
            text += os.read(fd, 65536)
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"sorted by name" in text and text.startswith(b"\033[?1049h") and b"\033[?1049l" in text


def test_console(k):
    """Input's end does not end it; Ctrl-] on a terminal does."""
    xml = k.dir / "talk.xml"
    xml.write_text(domain_xml("talk", run="shell"))
    ok(k, "define", xml)
    pid, fd = pty.fork()
    if not pid:
        os.execve(BUILD / "bin/keel", ["keel", "-c", k.uri, "start", "talk", "--console"], ENV)
    text, sent, end = b"", False, time.time() + LIMIT
    while b"sum is 42" not in text and time.time() < end:
        if select.select([fd], [], [], 1)[0]:
            text += os.read(fd, 65536)
        if not sent and re.search(rb"[#$] ", text):
            os.write(fd, b"echo sum is $((6*7))\n")
            sent = True
    os.write(fd, b"\x1d")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text
    assert b"Connected to domain 'talk'\r\nEscape character is ^] (Ctrl + ])\r\n" in text and b"sum is 42" in text
    ok(k, "destroy", "talk")
    ok(k, "undefine", "talk")


def test_edit(k, tmp_path):
    before = ok(k, "dumpxml", "off", "--inactive")
    out = ok(k, "edit", "off", env=dict(ENV, EDITOR="true"))
    assert "XML configuration not changed" in out
    out = ok(k, "edit", "off", env=dict(ENV, EDITOR="sed -i 's,<vcpu .*</vcpu>,<vcpu>3</vcpu>,'"))
    assert "Domain 'off' XML configuration edited." in out and ">3</vcpu>" in ok(k, "dumpxml", "off")
    r = keel(k, "edit", "off", env=dict(ENV, EDITOR="sed -i 's,<domain,<planet,'"))
    assert r.returncode == 1 and r.stderr.startswith("error: ")
    assert keel(k, "edit", "off", env=dict(ENV, EDITOR="false")).returncode == 1
    (tmp_path / "old.xml").write_text(before)
    ok(k, "define", tmp_path / "old.xml")


def test_create(k, tmp_path):
    disk = tmp_path / "base.qcow2"
    subprocess.run([BUILD / "bin/keel", "image", "create", "-q", "-f", "qcow2", disk, "64M"], check=True, timeout=LIMIT)
    out = ok(k, "create", "made", "--image", disk, "--memory", "128M", "--cpus", "2", "--network", "none", "--title", "<made> & 'good'")
    assert "Domain 'made' defined, its disk is" in out and "Domain 'made' started" in out
    info = json.loads(ok(k, "dominfo", "made", "--json"))
    assert (info["state"], info["cpus"], info["max-memory-kib"]) == ("running", 2, 131072)
    assert ok(k, "desc", "made", "--title").strip() == "<made> & 'good'"
    r = keel(k, "create", "made", "--image", disk)
    assert r.returncode == 1 and "exists already" in r.stderr
    ok(k, "destroy", "made")
    # A disk of its own on top of the image.
    out = ok(k, "create", "above", "--image", disk, "--disk-size", "128M", "--directory", tmp_path, "--no-start")
    assert "started" not in out
    chain = json.loads(subprocess.run([BUILD / "bin/keel", "image", "info", "--output=json", tmp_path / "above.qcow2"], check=True,
                                      capture_output=True, timeout=LIMIT).stdout)
    assert chain["virtual-size"] == 128 << 20 and chain["backing-filename"] == str(disk)
    assert str(tmp_path / "above.qcow2") in ok(k, "domblklist", "above")
    # What can't be is refused, and leaves no disk behind.
    for args, text in ((["--image", tmp_path / "none"], "No such file"), (["--disk-size", "1M", "--network", "fog"], "--network fog"),
                       (["--disk-size", "64M", "--directory", tmp_path, "--cpus", "0"], "--cpus 0"),
                       (["--image", "debian"], "nobody could log in"), (["--kernel", "/none"], "--kernel /none")):
        r = keel(k, "create", "bad", "--directory", tmp_path, *args)
        assert r.returncode == 1 and text in r.stderr, (args, r.stderr)
        assert not (tmp_path / "bad.qcow2").exists()
    for name in ("made", "above"):
        ok(k, "undefine", name)


def complete(k, *words):
    return subprocess.run([BUILD / "bin/keel", "--complete", "-c", k.uri, *words], capture_output=True, text=True, timeout=LIMIT).stdout.split()


def test_completion(k):
    assert {"list", "start", "run", "image", "top"} <= set(complete(k, "st"))
    assert set(complete(k, "start", "")) == {"one", "a-longer-name", "off"}
    assert "--paused" in complete(k, "start", "one", "--")
    assert "--paused" not in complete(k, "start", "--paused", "--")
    assert complete(k, "start", "one", "") == []
    assert set(complete(k, "event", "--domain", "")) == {"one", "a-longer-name", "off"}
    script = f"""PATH={BUILD}/bin:$PATH; . {os.path.dirname(__file__)}/../../src/cli/keel.bash
        COMP_WORDS=(keel -c '{k.uri}' destroy a-); COMP_CWORD=4; _keel; printf '%s\\n' "${{COMPREPLY[@]}}" """
    r = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT)
    assert r.stdout.split() == ["a-longer-name"], r.stderr


def test_help(k):
    out = subprocess.run([BUILD / "bin/keel", "help"], capture_output=True, text=True, timeout=LIMIT).stdout
    assert "  domblklist " in out and "  image " in out
    out = subprocess.run([BUILD / "bin/keel", "help", "domblklist"], capture_output=True, text=True, timeout=LIMIT).stdout
    assert out.startswith("Usage: keel [-c URI] [-r] [-q] domblklist <domain> [--inactive] [--details] [--json]")
    r = subprocess.run([BUILD / "bin/keel", "frob"], capture_output=True, text=True, timeout=LIMIT)
    assert r.returncode == 2 and "there is no command 'frob'" in r.stderr


def test_no_daemon(tmp_path):
    r = subprocess.run([BUILD / "bin/keel", "list"], capture_output=True, text=True, timeout=LIMIT,
                       env=dict(ENV, KEEL_SOCKET=str(tmp_path / "none")))
    assert r.returncode == 1 and r.stderr.startswith("error: failed to connect to the hypervisor\nerror: ") and str(tmp_path / "none") in r.stderr
