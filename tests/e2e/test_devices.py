# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio devices seen from a Debian kernel: disk, network, console, balloon, entropy."""
import hashlib
import os
import socket
import subprocess
import threading
import time

import pytest


def test_disk_survives_a_reboot(guest, scratch):
    image = scratch / "disk.raw"
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    g = guest("--disk", f"{image},format=raw", run="disk")
    wrote = g.expect("wrote")
    assert len(wrote) == 64
    assert g.expect("stored") == wrote
    assert g.expect("read") == wrote
    assert g.wait() == 0
    assert subprocess.run(["e2fsck", "-fn", image]).returncode == 0
    # The host reads the same bytes out of the file system.
    data = subprocess.run(["debugfs", "-R", "cat /data", image], capture_output=True, check=True).stdout
    assert hashlib.sha256(data).hexdigest() == wrote


def test_readonly_disk_stays_as_it_is(guest, scratch):
    image = scratch / "ro.raw"
    with open(image, "wb") as f:
        f.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    before = hashlib.sha256(open(image, "rb").read()).hexdigest()
    g = guest("--disk", f"{image},format=raw,readonly=on", run="readonly")
    assert g.expect("ro") == "1"
    assert "Read-only" in g.expect("write")
    assert g.wait() == 0
    assert hashlib.sha256(open(image, "rb").read()).hexdigest() == before


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_network_carries_100_mb_both_ways(guest):
    blob = os.urandom(1 << 20) * 100
    digest = hashlib.sha256(blob).hexdigest()
    server = socket.create_server(("0.0.0.0", 0))
    server.settimeout(120)

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.sendall(blob)

    threading.Thread(target=serve, daemon=True).start()
    port = free_port()
    g = guest("--memory", "512M", "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:5000", run="net",
              append=f"keel.port={server.getsockname()[1]}")
    assert g.expect("address")
    size, received = g.expect("received").split()
    assert (int(size), received) == (len(blob), digest)
    g.expect("serving")
    back, end = hashlib.sha256(), time.time() + 60
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=60)
            client.sendall(b"!")  # Debian 12's passt waits for it
            first = client.recv(1 << 16)
            if first:
                break
        except OSError:
            first = b""
        assert time.time() < end, "the guest's port does not answer"
        time.sleep(0.2)
    back.update(first)
    while chunk := client.recv(1 << 20):
        back.update(chunk)
    client.close()
    assert back.hexdigest() == digest
    g.expect("served")
    assert g.wait() == 0


def test_console_balloon_and_rng(guest, scratch):
    path = scratch / "con"
    g = guest("--console", f"unix:{path}", "--memory", "512M", run="devices")
    rng, size = g.expect("rng").rsplit(" ", 1)
    assert "virtio_rng" in rng and size == "64"
    before = int(g.expect("memory"))
    g.expect("ready")
    console = socket.socket(socket.AF_UNIX)
    console.settimeout(60)
    console.connect(str(path))
    console.sendall(b"hello\n")
    assert g.expect("console") == "hello"
    got = b""
    while b"echo:hello" not in got:
        got += console.recv(100)
    g.qmp.command("balloon", value=256 << 20)
    event = g.qmp.event("BALLOON_CHANGE")
    end = time.time() + 60
    while g.qmp.command("query-balloon")["actual"] > 256 << 20:
        assert time.time() < end
        time.sleep(0.1)
    assert event["data"]["actual"] < 512 << 20
    console.sendall(b"more\n")
    assert int(g.expect("memory")) < before - (200 << 10)
    g.qmp.command("balloon", value=512 << 20)
    while g.qmp.command("query-balloon")["actual"] < 512 << 20:
        assert time.time() < end + 60
        time.sleep(0.1)
    console.sendall(b"end\n")
    assert int(g.expect("memory")) > before - (16 << 10)
    assert g.wait() == 0


def ram_in_use(pid):
    """KiB of guest RAM that the host has given."""
    total, ours = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        if "-" in line.split(" ", 1)[0]:
            ours = "memfd:keel-ram" in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_free_pages_go_back_to_the_host(guest):
    g = guest("--memory", "512M", run="reporting")
    g.expect("filled")
    full = ram_in_use(g.process.pid)
    g.expect("freed")
    end = time.time() + 60
    while ram_in_use(g.process.pid) > full - (200 << 10):
        assert time.time() < end, f"{full} KiB before, {ram_in_use(g.process.pid)} KiB after"
        time.sleep(0.5)


@pytest.mark.parametrize("ring", ["packed=on", "packed=off", "packed=off,event-idx=off,indirect-desc=off", "packed=off,vectors=0"])
def test_every_kind_of_ring_under_a_real_driver(guest, ring):
    g = guest("--no-rng", "--device", f"virtio-rng-pci,{ring}", run="rng")
    assert g.expect("rng") == "virtio_rng.0 65536"
    assert g.wait() == 0
