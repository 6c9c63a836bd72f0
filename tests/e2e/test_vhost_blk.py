# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of another process behind vhost-user: Debian's qemu-storage-daemon, which also dies and comes back."""
import hashlib
import shutil
import subprocess
import time

import pytest

from imagetool import run

pytestmark = pytest.mark.skipif(not shutil.which("qemu-storage-daemon"), reason="qemu-storage-daemon is not installed")


@pytest.fixture
def server(scratch):
    class Server:
        path, socket, process = scratch / "disk.raw", scratch / "vhost", None

        def start(self, size=64 << 20, writable="on"):
            if not self.path.exists():
                with open(self.path, "wb") as f:
                    f.truncate(size)
            self.socket.unlink(missing_ok=True)
            self.process = subprocess.Popen(
                ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={self.path}",
                 "--export", f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={self.socket},writable={writable},num-queues=4"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            end = time.time() + 20
            while not self.socket.exists():
                assert self.process.poll() is None and time.time() < end
                time.sleep(0.02)

        def kill(self):
            if self.process:
                self.process.kill()
                self.process.wait()
            self.process = None

    s = Server()
    yield s
    s.kill()


def test_a_guest_on_it(guest, server):
    server.start()
    run("mkfs.ext4", "-q", "-F", server.path)
    g = guest("--cpus", "2", "--device", f"vhost-user-blk-pci,socket={server.socket},num-queues=2,id=d", run="disk")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0  # after a reboot
    server.kill()
    run("e2fsck", "-f", "-n", server.path)


def test_the_server_dies_and_comes_back(guest, server):
    """Under load: what was in flight is done by the next one."""
    server.start()
    g = guest("--cpus", "4", "--device", f"vhost-user-blk-pci,socket={server.socket},num-queues=4,reconnect=1,id=d", run="lanes")
    assert g.expect("queues") == "4"
    for _ in range(3):
        time.sleep(0.3)
        server.kill()
        server.start()
        time.sleep(1.2)
    wrote = g.expect("wrote")
    assert g.wait() == 0
    assert hashlib.sha256(open(server.path, "rb").read()[:4 << 20]).hexdigest() == wrote
    assert b"cpu 3 round 7" in open(server.path, "rb").read(4 << 20)
    assert "is gone; a new one is awaited" in g.errors and "is back" in g.errors


def test_without_reconnect_the_device_waits_for_a_reset(guest, server):
    server.start()
    g = guest("--device", f"vhost-user-blk-pci,socket={server.socket},id=d", run="idle")
    g.expect("idle")
    server.kill()
    end = time.time() + 10
    while "the server of the disk is gone" not in g.errors and time.time() < end:
        time.sleep(0.05)
    assert "the server of the disk is gone" in g.errors
    assert g.qmp.command("query-status")["running"]


def test_refusals(guest, server, scratch):
    for options, word in [("", "socket and fd"), (f",socket={scratch}/none", "cannot connect to the server of the disk"),
                          (",fd=77,reconnect=3", "reconnect needs a socket"), (f",socket={server.socket},num-queues=9", "has 4 queues")]:
        if "num-queues" in options:
            server.start()
        g = guest("--device", f"vhost-user-blk-pci{options}", qmp=False)
        assert g.wait() == 1
        time.sleep(0.1)
        assert word in g.errors, g.errors
