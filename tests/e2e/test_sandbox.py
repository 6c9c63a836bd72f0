# SPDX-License-Identifier: GPL-2.0-or-later
"""
A keel-vmm that has been taken over: tests/vmm/hostile.c runs in its place, started by keeld as every guest's process
is, and tries to get at other guests and the host. Each attempt is made from each kind of thread; with the sandbox off
the same attempts succeed, so the test would notice one that is not there.
"""
import ctypes
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

import pytest

from daemon import BUILD, Keeld, domain_xml

HOSTILE = next((p for p in (BUILD / "bin/hostile", BUILD / "tests/vmm/hostile") if p.exists()), None)
pytestmark = [pytest.mark.skipif(not HOSTILE, reason="tests/vmm/hostile is not built")]
ROOT = os.geteuid() == 0
SHM_KEY = 0x6B65656C


def evil_keeld(base, *options):
    """One that starts what lies beside it as every keeld does: the hostile program."""
    (base / "bin").mkdir()
    shutil.copy(BUILD / "bin/keeld", base / "bin/keeld")
    shutil.copy(HOSTILE, base / "bin/keel-vmm")
    return Keeld(base / "evil", *options, program=base / "bin/keeld")


def attempt(keeld, name, thread, attack, arg=""):
    """What the hostile process said, and whether it ended by itself."""
    order = f"{thread} {attack} {arg}".strip()
    xml = domain_xml(name)
    xml = re.sub("<cmdline>.*?</cmdline>", f"<cmdline>{order}</cmdline>", xml, flags=re.S)
    path = keeld.root / "attempt.xml"
    path.write_text(xml)
    log = keeld.root / "log/qemu" / f"{name}.log"
    before = log.stat().st_size if log.exists() else 0
    r = keeld.virsh("create", path)
    assert r.returncode and log.exists(), r.stderr  # it is no machine: it answers no monitor
    said = log.read_text()[before:]
    return said[said.index("\n") + 1:]  # without the command line


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What there is to get at: a guest that runs, its disk and process, keeld, a network, the host's files."""
    base = tmp_path_factory.mktemp("s")
    base.chmod(0o755)
    k = Keeld(base / "d")
    (base / "other.img").write_bytes(b"SECRET" * 200000)
    disk = f"""<disk type='file'><driver name='qemu' type='raw'/><source file='{base}/other.img'/><target dev='vda'/></disk>"""
    (base / "other.xml").write_text(domain_xml("other", devices=disk))
    k.ok("create", base / "other.xml")
    (base / "secret").write_text("of the host\n")
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0keel-test-{os.getpid()}")
    abstract.listen(64)
    plain = socket.socket(socket.AF_UNIX)
    os.chdir(base)
    plain.bind("plain")
    plain.listen(64)
    libc = ctypes.CDLL(None)
    shm = libc.shmget(SHM_KEY, 4096, 0o1666)

    class World:
        root, keeld, victim, evil = base, k, k.guests()[0], evil_keeld(base)
        args = {
            "open": base / "secret", "write": base / "other.img", "create": base / "new", "stat": base / "secret",
            "memory": victim, "signal": victim, "tgkill": victim, "ptrace": victim, "vm-read": victim, "pidfd": victim,
            "prlimit": victim, "priority": victim, "unix": base / "d/run/libvirt-sock", "abstract": f"keel-test-{os.getpid()}",
            "tcp": tcp.getsockname()[1], "shm": SHM_KEY, "mknod": base / "device", "mount": base, "uring-open": base / "secret",
            "uring-tcp": tcp.getsockname()[1],
        }
    yield World
    World.evil.end()
    k.end()
    for s in (tcp, abstract, plain):
        s.close()
    if shm >= 0:
        libc.shmctl(shm, 0, None)
    shutil.rmtree(base, ignore_errors=True)


# What a process with all of root's rights can do, and one in the sandbox cannot.
ATTACKS = ("open write create list stat memory signal tgkill ptrace vm-read pidfd prlimit priority unix abstract tcp packet netlink "
           "exec exec-memory fork fork3 userns mount chroot module kexec keyctl bpf userfaultfd perf setuid capset shm mknod int80 "
           "x32 uring-open uring-tcp").split()
# Of these, what fails here without a sandbox as well: the kernel, or the host's own rules, have it off.
HARMLESS = {"x32", "prlimit", "kexec", "module", "userfaultfd", "keyctl", "bpf", "perf"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_way_out(world, attack):
    for thread in ("main", "vcpu", "io", "timer"):
        said = attempt(world.evil, "hostile", thread, attack, world.args.get(attack, ""))
        assert f"HOSTILE tries {attack}" in said, said
        assert "GOT IN" not in said, (thread, said)
    os.kill(world.victim, 0)
    assert (world.root / "other.img").read_bytes()[:6] == b"SECRET" and not (world.root / "new").exists()


def test_without_the_sandbox_they_succeed(world, tmp_path_factory):
    base = tmp_path_factory.mktemp("o")
    k = evil_keeld(base, "--sandbox", "off")
    failed = set()
    try:
        for attack in ATTACKS:
            said = attempt(k, "hostile", "main", attack, world.args.get(attack, ""))
            assert f"HOSTILE tries {attack}" in said, said
            if "GOT IN" not in said:
                failed.add(attack)
        # For a user without rights much is refused anyway.
        assert failed <= HARMLESS if ROOT else {"open", "stat", "list", "signal", "unix", "tcp", "exec", "fork"}.isdisjoint(failed)
        log = (k.root / "log/qemu/hostile.log").read_text()
    finally:
        k.end()
    assert "--sandbox off" in log
    assert "has all the rights" in k.process.stderr.read()


def test_what_a_machine_is_put_into(world):
    pid = world.victim
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":" in line)
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    for ns in ("mnt", "pid", "ipc", "net", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{ns}") != os.readlink(f"/proc/self/ns/{ns}"), ns
    assert os.listdir(f"/proc/{pid}/root") == []
    assert status["NSpid"].split()[1] == "1"
    limits = open(f"/proc/{pid}/limits").read()
    assert re.search(r"Max core file size +0 +0 ", limits)
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        filters = int(re.search(r"Seccomp_filters:\s+(\d+)", (task / "status").read_text())[1])
        assert filters >= 2 + (task / "comm").read_text().startswith("vcpu"), task  # its own, and those of whoever made it
    if not ROOT:
        return
    uids = set(status["Uid"].split()) | set(status["Gid"].split())
    assert len(uids) == 1 and int(uids.pop()) >= 0x78000000 and status["Groups"].strip() == ""
    (world.root / "more.xml").write_text(domain_xml("more"))
    world.keeld.ok("create", world.root / "more.xml")
    other = [p for p in world.keeld.guests() if p != pid][0]
    assert os.stat(f"/proc/{other}").st_uid != os.stat(f"/proc/{pid}").st_uid
    groups = open(f"/proc/{other}/cgroup").read()
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in groups.splitlines()}
    leaf = paths.get("pids") or paths.get("")
    world.keeld.ok("destroy", "more")
    if leaf and leaf.startswith("/keel/"):
        where = pathlib.Path("/sys/fs/cgroup") / ("pids" if "pids" in paths else "") / leaf[1:]
        assert not where.exists(), "groups go with their guest"


def test_a_new_keeld_finds_them(world):
    pid = world.victim
    world.keeld.stop(9)
    k = Keeld(world.keeld.root)
    world.keeld.process = k.process
    assert k.guests() == [pid]
    assert k.ok("domstate", "other").strip() == "running"
    tid = k.ok("vcpuinfo", "other")
    assert re.search(r"State: +running", tid) and re.search(r"CPU: +\d", tid)


QCOW2 = ("qemu-img", "create", "-q", "-f", "qcow2")


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
def test_images_lead_nowhere_new(world):
    """A guest that writes another backing file's name into its image gets no other file by that."""
    d, k = world.root, world.keeld
    subprocess.run([*QCOW2, d / "base.qcow2", "8M"], check=True)
    subprocess.run([*QCOW2, "-b", "base.qcow2", "-F", "qcow2", d / "top.qcow2"], check=True)
    disk = f"""<disk type='file'><driver name='qemu' type='qcow2'/><source file='{d}/top.qcow2'/>%s<target dev='vda'/></disk>"""
    (d / "t.xml").write_text(domain_xml("t", devices=disk % ""))
    k.ok("create", d / "t.xml")
    k.ok("destroy", "t")
    subprocess.run(["qemu-img", "rebase", "-u", "-b", d / "secret", "-F", "raw", d / "top.qcow2"], check=True)
    r = k.virsh("create", d / "t.xml")
    assert r.returncode and "guests write images" in r.stderr and "backingStore" in r.stderr
    named = f"<backingStore type='file'><format type='raw'/><source file='{d}/secret'/></backingStore>"
    (d / "t.xml").write_text(domain_xml("t", devices=disk % named))
    k.ok("create", d / "t.xml")
    k.ok("destroy", "t")


def test_alone(build, scratch):
    """Without keeld: nothing is opened after the start, and --sandbox says what is left."""
    def run(*options):
        return subprocess.run([HOSTILE, *options, "--kernel", build / "guest/vmlinuz", "--append", f"vcpu open {scratch}/file"],
                              capture_output=True, text=True, timeout=60).stderr
    (scratch / "file").write_text("x")
    assert "refused" in run() and "GOT IN" in run("--sandbox", "off")
    keel = build / "bin/keel"
    for text, why in (("maybe", "on, paths or off"), ("on,uid=7", "need 'passed'"), ("on,what", "no setting")):
        r = subprocess.run([keel, "run", "--sandbox", text, "--kernel", "/x"], capture_output=True, text=True, timeout=60)
        assert r.returncode == 2 and why in r.stderr, r.stderr


def test_starts_are_quick(world):
    """The bar of a fifth of stock libvirtd's 325 ms, with room for a loaded host."""
    (world.root / "quick.xml").write_text(domain_xml("quick"))
    world.keeld.ok("define", world.root / "quick.xml")
    took = []
    for _ in range(5):
        begin = time.time()
        world.keeld.ok("start", "quick")
        took.append(time.time() - begin)
        world.keeld.ok("destroy", "quick")
    world.keeld.ok("undefine", "quick")
    assert min(took) < 0.3, took
