# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks on NBD servers, plain and with TLS: real servers, and one that lies."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

pytestmark = pytest.mark.skipif(not (shutil.which("qemu-nbd") and shutil.which("nbdkit")), reason="qemu-utils or nbdkit is not installed")
SIZE = 6 << 20


def run(*command, status=0, text=True):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=text, timeout=120)
    assert done.returncode == status, (command, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stderr if status else done.stdout


@pytest.fixture
def image(build, scratch):
    tool = lambda *args, **kw: run(build / "bin/keel", "image", *args, **kw)
    (scratch / "x").touch()
    if "without libnbd" in subprocess.run([build / "bin/keel", "image", "info", "nbd+unix:///?socket=none"], capture_output=True, text=True).stderr:
        pytest.skip("this Keel was built without libnbd")
    return tool


@pytest.fixture
def serve(scratch):
    servers = []

    def start(*command):
        path = scratch / "sock"
        path.unlink(missing_ok=True)
        servers.append(subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL))
        end = time.time() + 20
        while not path.exists() and time.time() < end:
            time.sleep(0.01)
        return servers[-1]

    yield start
    for s in servers:
        s.kill()
        s.wait()


def disk(rnd):
    return rnd.randbytes(SIZE // 3) + bytes(SIZE // 3) + rnd.randbytes(SIZE // 3)


def test_qemu_nbd(image, serve, scratch):
    data = disk(random.Random(1))
    (scratch / "disk").write_bytes(data)
    run("qemu-img", "create", "-q", "-f", "qcow2", scratch / "q", str(SIZE))
    serve("qemu-nbd", "-t", "-e", "8", "-k", scratch / "sock", "-x", "name", "-f", "qcow2", scratch / "q")
    uri = f"nbd+unix:///name?socket={scratch}/sock"
    image("convert", "-n", "-f", "raw", "-O", "raw", scratch / "disk", uri)
    image("compare", scratch / "disk", uri)
    info = json.loads(image("info", "--output=json", uri))
    assert info["virtual-size"] == SIZE and info["format"] == "raw"
    kinds = [(e["start"], e["zero"]) for e in json.loads(image("map", "--output=json", uri))]
    assert [z for _, z in kinds] == [False, True, False]
    image("convert", "-f", "raw", "-O", "raw", uri, scratch / "back")
    assert (scratch / "back").read_bytes() == data
    # The devices' way to it: 100 writes of 8 KiB, many at a time, flushed.
    image("bench", "-f", "raw", "-w", "-c", "100", "-d", "16", "-s", "8k", "-S", "16k", "--pattern=7", "--flush-interval=30", uri)
    want = bytearray(data)
    for i in range(100):
        want[i * 16384:i * 16384 + 8192] = bytes([7]) * 8192
    image("convert", "-f", "raw", "-O", "raw", uri, scratch / "back")
    assert (scratch / "back").read_bytes() == want
    # Below an image of ours.
    image("create", "-q", "-f", "qcow2", "-b", uri, "-F", "raw", scratch / "top")
    image("convert", "-f", "qcow2", "-O", "raw", scratch / "top", scratch / "back")
    assert (scratch / "back").read_bytes() == want
    # What can't be done is refused.
    image("resize", uri, "+1M", status=1)
    image("convert", "-O", "qcow2", scratch / "disk", uri, status=1)
    assert "no-such" in image("info", f"nbd+unix:///no-such?socket={scratch}/sock", status=1)


def test_readonly_server(image, serve, scratch):
    (scratch / "disk").write_bytes(disk(random.Random(2)))
    serve("nbdkit", "-f", "-r", "-U", scratch / "sock", "file", scratch / "disk")
    uri = f"nbd+unix:///?socket={scratch}/sock"
    image("compare", scratch / "disk", uri)
    assert "read-only" in image("bench", "-w", "-f", "raw", "-c", "1", uri, status=1)


def test_qcow2_inside_is_not_taken_for_raw(image, serve, scratch):
    run("qemu-img", "create", "-q", "-f", "qcow2", scratch / "q", "1M")
    serve("nbdkit", "-f", "-U", scratch / "sock", "file", scratch / "q")
    uri = f"nbd+unix:///?socket={scratch}/sock"
    assert "format=raw" in image("info", uri, status=1)
    image("info", "-f", "raw", uri)


def test_tls(image, serve, scratch):
    data = disk(random.Random(3))
    (scratch / "disk").write_bytes(data)
    # Pre-shared keys.
    (scratch / "psk").write_text("alice:" + "5a" * 32 + "\n")
    (scratch / "wrong").write_text("alice:" + "5b" * 32 + "\n")
    serve("nbdkit", "-f", "--tls=require", f"--tls-psk={scratch}/psk", "-U", scratch / "sock", "file", scratch / "disk")
    image("compare", scratch / "disk", f"nbds+unix://alice@/?socket={scratch}/sock&tls-psk-file={scratch}/psk")
    image("info", f"nbds+unix://alice@/?socket={scratch}/sock&tls-psk-file={scratch}/wrong", status=1)
    image("info", f"nbd+unix:///?socket={scratch}/sock", status=1)  # without


def test_tls_certificates(image, serve, scratch):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    (scratch / "disk").write_bytes(disk(random.Random(4)))
    pki = scratch / "pki"
    pki.mkdir()

    def openssl(*args):
        run("openssl", *args, text=True)

    for ca in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={ca}", "-days", "2", "-keyout", pki / f"{ca}-key.pem",
                "-out", pki / f"{ca}-cert.pem", "-addext", "basicConstraints=critical,CA:TRUE")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", pki / "server-key.pem", "-out", pki / "server.csr")
    (pki / "ext").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", pki / "server.csr", "-CA", pki / "ca-cert.pem", "-CAkey", pki / "ca-key.pem", "-CAcreateserial", "-days", "2",
            "-out", pki / "server-cert.pem", "-extfile", pki / "ext")
    good, bad = scratch / "good", scratch / "bad"
    for where, ca in ((good, "ca"), (bad, "other")):
        where.mkdir()
        shutil.copy(pki / f"{ca}-cert.pem", where / "ca-cert.pem")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    p = serve("nbdkit", "-f", "--tls=require", f"--tls-certificates={pki}", "-i", "127.0.0.1", "-p", port, "-P", scratch / "sock", "file", scratch / "disk")
    assert p.poll() is None
    image("compare", scratch / "disk", f"nbds://localhost:{port}/?tls-certificates={good}")
    assert "certificate" in image("info", f"nbds://localhost:{port}/?tls-certificates={bad}", status=1).lower()


def test_server_dies(image, serve, build, scratch):
    (scratch / "disk").write_bytes(bytes(SIZE))
    p = serve("nbdkit", "-f", "-U", scratch / "sock", "--filter=delay", "file", scratch / "disk", "delay-write=50ms")
    uri = f"nbd+unix:///?socket={scratch}/sock"
    bench = subprocess.Popen([build / "bin/keel", "image", "bench", "-q", "-w", "-f", "raw", "-c", "100000", "-d", "8", uri],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    p.send_signal(signal.SIGKILL)
    out, errors = bench.communicate(timeout=30)
    assert bench.returncode == 1 and "request failed" in errors


@pytest.mark.parametrize("seed", range(12))
def test_garbage(image, scratch, seed):
    """What is no NBD server, or stops being one: an error with the name, no crash, no waiting for ever."""
    rnd = random.Random(seed)
    path = scratch / "sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    greeting = b"NBDMAGICIHAVEOPT\0\3" if seed % 3 else b""

    def lie():
        try:
            while True:
                c, _ = listener.accept()
                c.sendall(greeting + rnd.randbytes(rnd.randrange(1, 4000)))
                c.close()
        except OSError:
            pass

    t = threading.Thread(target=lie, daemon=True)
    t.start()
    assert "sock" in image("info", f"nbd+unix:///?socket={path}", status=1)
    listener.close()
