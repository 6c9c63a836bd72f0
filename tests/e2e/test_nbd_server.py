# SPDX-License-Identifier: GPL-2.0-or-later
"""Keel's NBD server: stock clients, our own, and clients that lie. As `keel image serve` and over QMP."""
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

from imagetool import image, qemu, run  # noqa: F401

pytestmark = pytest.mark.skipif(not shutil.which("nbdinfo"), reason="libnbd-bin is not installed")
SIZE = 16 << 20


def nbd_uri(scratch, export="", scheme="nbd+unix", more=""):
    return f"{scheme}:///{export}?socket={scratch}/sock{more}"


@pytest.fixture
def serve(build, scratch):
    servers = []

    def start(*args):
        path = scratch / "pid"  # written when it listens
        servers.append(subprocess.Popen([str(build / "bin/keel"), "image", "serve", "-k", str(scratch / "sock"), "--pid-file",
                                         str(path), *map(str, args)], stderr=subprocess.PIPE, text=True))
        end = time.time() + 20
        while not path.exists() and servers[-1].poll() is None and time.time() < end:
            time.sleep(0.01)
        return servers[-1]

    yield start
    for s in servers:
        s.kill()
        s.wait()


@pytest.fixture
def disk(scratch):
    """A qcow2 image with data here and there, and a bitmap of some of it; and what guests see of it."""
    path = scratch / "disk.qcow2"
    qemu("create", "-q", "-f", "qcow2", path, SIZE)
    run("qemu-io", "-c", "write -P 7 0 1M", "-c", "write -P 9 5M 70k", path)
    qemu("bitmap", "--add", "--enable", "-g", "65536", path, "since")
    run("qemu-io", "-c", "write -P 8 8M 128k", "-c", "write -z 512k 64k", path)
    qemu("convert", "-O", "raw", path, scratch / "raw")
    return path


def extents(uri, context="base:allocation"):
    return [(e["offset"], e["length"], e["type"]) for e in json.loads(run("nbdinfo", "--json", f"--map={context}", uri))]


def test_stock_clients(serve, disk, image, scratch):
    serve("-t", "-r", "-e", "0", "-x", "a/b", "-D", "some disk", "-B", "since", disk)
    uri = nbd_uri(scratch, "a/b")
    (info,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
    assert (info["export-size"], info["is_read_only"], info["description"]) == (SIZE, True, "some disk")
    assert info["contexts"] == ["base:allocation", "qemu:dirty-bitmap:since"]
    assert [e["export-name"] for e in json.loads(run("nbdinfo", "--json", "--list", nbd_uri(scratch)))["exports"]] == ["a/b"]
    # The map is what qemu-img map sees.
    data = lambda parts: [(o, n) for o, n, is_data in parts if is_data]
    seen = [(e["start"], e["length"], e["data"]) for e in json.loads(qemu("map", "-U", "--output=json", disk))]
    merged = []
    for o, n in data(seen):
        if merged and sum(merged[-1]) == o:
            o, n = merged[-1][0], merged.pop()[1] + n
        merged.append((o, n))
    assert data([(o, n, not t & 1) for o, n, t in extents(uri)]) == merged
    assert [(o, n) for o, n, t in extents(uri, "qemu:dirty-bitmap:since") if t] == [(512 << 10, 64 << 10), (8 << 20, 128 << 10)]
    run("nbdcopy", uri, scratch / "out1")
    qemu("convert", "-O", "raw", uri, scratch / "out2")
    image("convert", "-O", "raw", uri, scratch / "out3")
    want = (scratch / "raw").read_bytes()
    for n in "123":
        assert (scratch / f"out{n}").read_bytes() == want
    assert "read-only" in subprocess.run(["nbdcopy", scratch / "raw", uri], capture_output=True, text=True).stderr.lower()


def test_writes_of_any_size(serve, disk, scratch):
    """Writes, zeroes and discards at any byte, by libnbd, against a copy in memory."""
    s = serve("-t", "-e", "4", disk)
    (scratch / "client.py").write_text("""
import nbd, random, sys
uri, raw = sys.argv[1:]
want = bytearray(open(raw, "rb").read())
rnd = random.Random(5)
h = [nbd.NBD() for _ in range(3)]
for c in h:
    c.connect_uri(uri)
assert h[0].can_multi_conn()
for i in range(400):
    c = rnd.choice(h)
    n = rnd.choice([1, 511, 512, 513, 4096, 70000, rnd.randrange(1, 300000)])
    at = rnd.randrange(0, len(want) - n)
    if rnd.randrange(2):
        at = at // 512 * 512
    what = rnd.randrange(5)
    if what < 2:
        data = rnd.randbytes(n)
        c.pwrite(data, at, nbd.CMD_FLAG_FUA if rnd.randrange(9) == 0 else 0)
        want[at:at + n] = data
    elif what == 2:
        c.zero(n, at, rnd.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA]))
        want[at:at + n] = bytes(n)
    elif what == 3:
        got = c.pread(n, at) if rnd.randrange(2) else c.pread_structured(n, at, lambda *_: 0, nbd.CMD_FLAG_DF)
        assert got == want[at:at + n], (i, at, n)
    elif rnd.randrange(8) == 0:
        c.flush()
for c in h[1:]:
    c.shutdown()
assert h[0].pread(len(want), 0) == want
h[0].flush()
open(raw, "wb").write(want)
""")
    run("/usr/bin/python3", scratch / "client.py", nbd_uri(scratch), scratch / "raw")
    s.send_signal(signal.SIGTERM)
    assert s.wait(20) == 0
    assert not (scratch / "sock").exists()
    qemu("compare", "-f", "qcow2", "-F", "raw", disk, scratch / "raw")
    qemu("check", "-q", disk)


def test_it_ends_with_its_last_client(serve, disk, scratch):
    """Without -t, and one client at a time without -e."""
    s = serve(disk)
    first = socket.socket(socket.AF_UNIX)
    first.connect(str(scratch / "sock"))
    assert first.recv(8) == b"NBDMAGIC"
    second = socket.socket(socket.AF_UNIX)
    second.connect(str(scratch / "sock"))
    assert second.recv(8) == b""
    first.close()
    assert s.wait(20) == 0


def test_wrong_arguments(build, disk, scratch):
    for text, args in (("needs a file", []), ("'none' not found", ["-k", scratch / "s", "-B", "none", disk]),
                       ("neither port nor address", ["-k", "x", "-p", "1", disk]), ("cache mode", ["--cache=x", disk]),
                       ("certificate authority", ["-k", scratch / "s", "--tls-certificates", scratch, disk]),
                       ("cannot open", ["-k", scratch / "s", scratch / "nothing"])):
        done = subprocess.run([build / "bin/keel", "image", "serve", *map(str, args)], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and text in done.stderr, (args, done.stderr)


# ---- TLS ---------------------------------------------------------------------


def certificate(directory, name, ca=None):
    template = directory / f"{name}.tmpl"
    template.write_text('cn = "localhost"\ndns_name = "localhost"\n' +
                        ("ca\ncert_signing_key\n" if not ca else "tls_www_server\ntls_www_client\nencryption_key\nsigning_key\n"))
    run("certtool", "--generate-privkey", "--bits", "2048", "--outfile", directory / f"{name}-key.pem")
    run("certtool", *(["--generate-self-signed"] if not ca else
                      ["--generate-certificate", "--load-ca-certificate", directory / f"{ca}-cert.pem", "--load-ca-privkey",
                       directory / f"{ca}-key.pem"]),
        "--load-privkey", directory / f"{name}-key.pem", "--template", template, "--outfile", directory / f"{name}-cert.pem")


@pytest.mark.skipif(not shutil.which("certtool"), reason="gnutls-bin is not installed")
def test_tls(serve, disk, scratch, image):
    pki, other = scratch / "pki", scratch / "other"
    for d in (pki, other):
        d.mkdir()
        certificate(d, "ca")
        for name in ("server", "client"):
            certificate(d, name, "ca")
    serve("-t", "-r", "-e", "0", "--tls-certificates", pki, "--tls-verify", disk)
    secure = nbd_uri(scratch, scheme="nbds+unix", more=f"&tls-certificates={pki}")
    (shown,) = json.loads(run("nbdinfo", "--json", secure))["exports"]
    assert shown["export-size"] == SIZE
    run("nbdcopy", secure, scratch / "out")
    assert (scratch / "out").read_bytes() == (scratch / "raw").read_bytes()
    image("convert", "-O", "raw", secure, scratch / "out2")
    assert (scratch / "out2").read_bytes() == (scratch / "raw").read_bytes()
    for wrong in (nbd_uri(scratch), nbd_uri(scratch, scheme="nbds+unix", more=f"&tls-certificates={other}")):
        assert subprocess.run(["nbdinfo", wrong], capture_output=True).returncode != 0


# ---- Clients that lie -----------------------------------------------------------


class Raw:
    def __init__(self, scratch, flags=3):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(str(scratch / "sock"))
        assert self.take(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.s.sendall(struct.pack(">I", flags))

    def take(self, n):
        data = b""
        while len(data) < n:
            try:
                more = self.s.recv(n - len(data))
            except ConnectionResetError:  # it went with bytes of ours unread
                more = b""
            if not more:
                return data
            data += more
        return data

    def option(self, what, data=b"", length=None):
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", what, len(data) if length is None else length) + data)

    def reply(self):
        head = self.take(20)
        if len(head) < 20:
            return None
        magic, option, kind, length = struct.unpack(">QIII", head)
        assert magic == 0x3e889045565a9
        return kind, self.take(length)

    def go(self):
        self.option(7, struct.pack(">IH", 0, 0))
        while True:
            kind, _ = self.reply()
            if kind == 1:
                return
            assert kind == 3

    def request(self, kind, offset, length, flags=0, data=b""):
        """The error that it is answered with."""
        try:
            self.s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, 77, offset, length) + data)
        except BrokenPipeError:
            return None
        answer = self.take(16)
        if len(answer) < 16:
            return None
        magic, error, handle = struct.unpack(">IIQ", answer)
        assert (magic, handle) == (0x67446698, 77)
        return error


INVALID, TOO_BIG, UNKNOWN, UNSUPPORTED = ((1 << 31) + n for n in (3, 9, 6, 1))


def test_clients_that_lie(serve, disk, scratch):
    s = serve("-t", "-e", "0", disk)
    c = Raw(scratch)
    for want, option, data in ((UNSUPPORTED, 99, b"x" * 100), (UNSUPPORTED, 11, b""), (INVALID, 3, b"x"), (INVALID, 7, b""), (INVALID, 7, b"\xff\xff\xff\xff"),
                               (INVALID, 7, struct.pack(">IH", 0, 9)), (INVALID, 7, struct.pack(">I", 3) + b"ab"),
                               (UNKNOWN, 6, struct.pack(">I", 3) + b"abc\0\0"), (INVALID, 10, struct.pack(">II", 0, 1)),
                               (INVALID, 9, struct.pack(">III", 0, 1, 100) + b"base:"), (TOO_BIG, 7, bytes(100000))):
        c.option(option, data)
        assert c.reply()[0] == want, (option, data[:20])
    c.go()
    size = SIZE
    for want, args in ((22, (0, size, 1)), (22, (0, 2**64 - 512, 1024)), (22, (9, 0, 1)), (22, (5, 0, 512)), (22, (0, 0, 512, 0x80)),
                       (22, (7, 0, 512)), (22, (0, 0, (32 << 20) + 1)),
                       (28, (6, size - 512, 1024)), (0, (3, 0, 0)), (0, (6, 0, 0)), (0, (4, 0, size))):
        assert c.request(*args) == want, args
    assert c.request(1, size - 4, 8, data=b"12345678") == 28
    assert c.request(1, 0, 4, data=b"abcd") == 0
    # A write that nobody can mean ends the connection; the next client is served.
    assert c.request(1, 0, (32 << 20) + 1) is None
    for bad in (b"\0" * 28, b"GET / HTTP/1.1\r\n\r\n" + b"x" * 100):
        c = Raw(scratch)
        c.go()
        c.s.sendall(bad)
        assert c.take(1) == b""
    assert Raw(scratch, flags=8).take(1) == b""
    c = Raw(scratch)
    c.option(1, b"no such export")
    assert c.take(1) == b""
    # Halves of everything, and gone.
    whole = b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0) + struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 4096) + bytes(4096)
    for n in range(1, len(whole), 61):
        c = Raw(scratch)
        c.s.sendall(whole[:n])
        c.s.close()
    rnd = random.Random(3)
    for _ in range(200):
        c = Raw(scratch)
        if rnd.randrange(2):
            c.go()
        try:
            c.s.sendall(rnd.choice([b"", b"IHAVEOPT", b"\x25\x60\x95\x13"]) + rnd.randbytes(rnd.randrange(200)))
        except OSError:
            pass
        c.s.close()
    assert s.poll() is None
    assert json.loads(run("nbdinfo", "--json", nbd_uri(scratch)))["exports"][0]["export-size"] == SIZE


# ---- Over QMP ----------------------------------------------------------------------


def test_exports_over_qmp(guest, disk, scratch, image):
    """A live disk is exported; a backup goes to another Keel's export, a mirror too."""
    g = guest("--disk", f"file={disk},format=qcow2,id=disk", "--paused", "--sandbox", "paths")
    q = g.qmp
    with pytest.raises(RuntimeError, match="not running"):
        q.command("block-export-add", type="nbd", id="e", node_name="disk")
    q.command("nbd-server-start", addr={"type": "unix", "data": {"path": f"{scratch}/sock"}})
    q.command("block-export-add", type="nbd", id="e", node_name="disk", name="live", bitmaps=["since"])
    q.command("nbd-server-add", device="disk", name="other", writable=True)
    assert [(e["id"], e["type"], e["node-name"]) for e in q.command("query-block-exports")] == [
        ("other", "nbd", "disk"), ("e", "nbd", "disk")]
    with pytest.raises(RuntimeError, match="already"):
        q.command("block-export-add", type="nbd", id="e", node_name="disk")
    run("nbdcopy", nbd_uri(scratch, "live"), scratch / "out")
    assert (scratch / "out").read_bytes() == (scratch / "raw").read_bytes()
    assert [(o, n) for o, n, t in extents(nbd_uri(scratch, "live"), "qemu:dirty-bitmap:since") if t][0] == (512 << 10, 64 << 10)
    # What a client writes counts.
    q.command("block-dirty-bitmap-add", node="disk", name="now", granularity=65536)
    run("qemu-io", "-f", "raw", "-c", "write -P 3 3M 64k", "-c", "flush", nbd_uri(scratch, "other"))
    (now,) = [b for b in q.command("query-block")[0]["inserted"]["dirty-bitmaps"] if b["name"] == "now"]
    assert now["count"] == 65536
    # A client holds on to its export.
    c = Raw(scratch)
    c.option(7, struct.pack(">I", 4) + b"live" + b"\0\0")
    while c.reply()[0] != 1:
        pass
    with pytest.raises(RuntimeError, match="in use"):
        q.command("block-export-del", id="e")
    q.command("block-export-del", id="e", mode="hard")
    assert q.event("BLOCK_EXPORT_DELETED")["data"]["id"] == "e"
    assert c.take(1) == b""
    with pytest.raises(RuntimeError, match="in use by an export"):
        q.command("blockdev-mirror", device="disk", target="disk", sync="full")
    q.command("nbd-server-stop")
    assert q.command("query-block-exports") == []
    q.command("quit")
    assert g.wait() == 0
    qemu("check", "-q", disk)


def test_jobs_to_nbd(guest, serve, disk, scratch, build):
    """A mirror and a backup whose targets are another process's exports."""
    for job, extra in (("blockdev-backup", {}), ("blockdev-mirror", {"copy_mode": "write-blocking"})):
        target = scratch / f"{job}.qcow2"
        qemu("create", "-q", "-f", "qcow2", target, SIZE)
        s = serve("-t", "-e", "0", target)
        g = guest("--disk", f"file={disk},format=qcow2,id=disk,readonly=on", "--paused", "--sandbox", "off")
        q = g.qmp
        q.command("blockdev-add", driver="raw", node_name="t",
                  file={"driver": "nbd", "server": {"type": "unix", "path": f"{scratch}/sock"}, "export": ""})
        q.command(job, job_id="j", device="disk", target="t", sync="full", **extra)
        if job == "blockdev-mirror":
            q.event("BLOCK_JOB_READY")
            q.command("block-job-cancel", device="j")
        event = q.event("BLOCK_JOB_COMPLETED")["data"]
        assert event["offset"] == event["len"] == SIZE and "error" not in event
        q.command("quit")
        g.wait()
        s.send_signal(signal.SIGTERM)
        s.wait(20)
        qemu("compare", "-f", "qcow2", "-F", "raw", target, scratch / "raw")
        qemu("check", "-q", target)
