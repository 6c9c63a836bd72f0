# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio devices seen from a Debian kernel: disk, network, console, balloon, entropy."""
import hashlib
import json
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


def test_named_ports(guest, scratch):
    """Channels as guest agents use them, and the event that tells when one listens."""
    path = scratch / "agent"
    g = guest("--channel", f"unix:{path},name=org.qemu.guest_agent.0,id=agent0", "--channel", "null,name=org.other.0",
              "--paused", run="channel")
    q = g.qmp
    assert [c["label"] for c in q.command("query-chardev")] == ["agent0", "channel1"]
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(path))
    q.command("cont")
    assert sorted(g.expect("ports").split()) == ["org.other.0", "org.qemu.guest_agent.0"]
    g.expect("open")
    assert q.event("VSERPORT_CHANGE")["data"] == {"id": "agent0", "open": True}
    client.sendall(b"hello\n")
    got = b""
    while b"\n" not in got:
        got += client.recv(100)
    assert got.strip() == b"you said hello"
    assert q.event("VSERPORT_CHANGE")["data"] == {"id": "agent0", "open": False}
    assert g.wait() == 0


def small_fs(scratch):
    """Words that run a command where scratch/small is a file system of 8 MiB, or a skip."""
    (scratch / "small").mkdir()
    words = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=8m none {scratch}/small && exec \"$@\"", "sh"]
    if os.geteuid() or subprocess.run(words + ["true"]).returncode:
        pytest.skip("cannot mount a file system of its own here")
    return words


def test_full_disk_stops_the_guest_and_nothing_is_lost(guest, scratch):
    words = small_fs(scratch) + ["sh", "-c", f"truncate -s 16M {scratch}/small/disk && exec \"$@\"", "sh"]
    g = guest("--disk", f"{scratch}/small/disk,format=raw", run="fill", prefix=words)
    event = g.qmp.event("BLOCK_IO_ERROR")["data"]
    assert (event["device"], event["operation"], event["action"], event["nospace"]) == ("disk0", "write", "stop", True)
    g.qmp.event("STOP")
    assert g.qmp.command("query-status")["status"] == "io-error"
    assert g.qmp.command("query-block")[0]["io-status"] == "nospace"
    # Going on without more room stops it again.
    g.qmp.command("cont")
    g.qmp.event("STOP")
    subprocess.run(["nsenter", "-t", str(g.process.pid), "-m", "mount", "-o", "remount,size=64m", f"{scratch}/small"], check=True)
    g.qmp.command("cont")
    assert g.expect("write") == "0"
    wrote, read = g.expect("sums").split()
    assert wrote == read
    assert g.wait() == 0


def test_errors_that_are_reported(guest, scratch):
    words = small_fs(scratch) + ["sh", "-c", f"truncate -s 16M {scratch}/small/disk && exec \"$@\"", "sh"]
    g = guest("--disk", f"{scratch}/small/disk,format=raw,werror=report", run="fill", prefix=words)
    assert g.qmp.event("BLOCK_IO_ERROR")["data"]["action"] == "report"
    assert int(g.expect("write")) > 0
    assert g.qmp.command("query-status")["running"]
    wrote, read = g.expect("sums").split()
    assert wrote != read
    assert g.wait() == 0


def test_throttle(guest, scratch):
    image = scratch / "disk.raw"
    with open(image, "wb") as f:
        f.truncate(16 << 20)
    path = scratch / "go"
    g = guest("--disk", f"{image},format=raw", "--serial", "stdio", "--serial", f"unix:{path}", run="speed")
    g.expect("speed")
    go = socket.socket(socket.AF_UNIX)
    go.connect(str(path))
    none = {k: 0 for k in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")}

    def limit(**limits):
        g.qmp.raw(json.dumps({"execute": "block_set_io_throttle", "arguments": {"id": "disk0", **limits}}).encode())
        return g.qmp.reply()

    def seconds():
        go.sendall(b"go\n")
        start, end = map(float, g.expect("took").split())
        return end - start

    assert seconds() < 1.5
    assert limit(**{**none, "bps_wr": 2 << 20}) == {"return": {}}
    inserted = g.qmp.command("query-block")[0]["inserted"]
    assert inserted["bps_wr"] == 2 << 20 and inserted["group"] == "disk0"
    assert 1.6 < seconds() < 10  # 4 MiB at 2 MiB a second, of which a part is a burst
    assert limit(**none) == {"return": {}}
    assert g.qmp.command("query-block")[0]["inserted"]["bps_wr"] == 0
    assert seconds() < 1.5
    assert "bps_rd" in limit(bps=0)["error"]["desc"]
