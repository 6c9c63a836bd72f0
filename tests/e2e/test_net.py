# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on tap interfaces: a bridge in a network namespace of the test's own."""
import os
import socket
import subprocess

import pytest

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 2, 0x100, 0x1000, 0x4000


@pytest.fixture
def lan():
    """Words that run a command in a namespace with the bridge br0, MTU 9000."""
    flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
    holder = subprocess.Popen(["unshare"] + flags + ["sh", "-c", "echo in; exec sleep 1000"], stdout=subprocess.PIPE)
    try:
        if holder.stdout.readline() != b"in\n":
            pytest.skip("no network namespaces here")
        enter = ["nsenter", "-t", str(holder.pid), "-n"] + ([] if os.geteuid() == 0 else ["-U", "--preserve-credentials"])
        if not os.path.exists("/dev/net/tun"):
            pytest.skip("no /dev/net/tun here")
        if subprocess.run(enter + ["ip", "link", "add", "br0", "mtu", "9000", "type", "bridge"]).returncode:
            pytest.skip("no bridges here")
        subprocess.run(enter + ["ip", "link", "set", "br0", "up"], check=True)
        yield enter
    finally:
        holder.kill()
        holder.wait()


def test_two_guests_on_a_bridge(guest, lan):
    """24 MB and jumbo frames, with two queues, checksums and segments left to the kernel."""
    one = guest("--cpus", 2, "--memory", "384M", "--net", "tap,br=br0,queues=2,ifname=one,mac=52:54:00:00:00:01", run="lan",
                append="keel.ip=10.9.0.1", prefix=lan)
    assert one.expect("card") == "mtu 9000 queues 2"
    one.expect("listening")
    two = guest("--cpus", 2, "--memory", "384M", "--net", "tap,br=br0,queues=2,ifname=two,mac=52:54:00:00:00:02", run="lan",
                append="keel.ip=10.9.0.2 keel.peer=10.9.0.1", prefix=lan)
    assert two.expect("card") == "mtu 9000 queues 2"
    assert two.expect("ping") == "3"
    sent = two.expect("sent")
    assert sent.startswith(f"{24 << 20} ")
    assert one.expect("received") == sent
    assert two.expect("back") == sent.split()[1]
    # Both pairs of queues had interrupts somewhere.
    assert int(one.expect("interrupts")) >= 3 and int(two.expect("interrupts")) >= 3
    assert one.wait() == 0 and two.wait() == 0
    left = subprocess.run(lan + ["ip", "link", "show"], capture_output=True, check=True, text=True).stdout
    assert "one" not in left and "two" not in left  # they went with their guests


def test_descriptors_of_somebody_elses_tap(guest, lan):
    """As a management daemon does it: the interface is made outside, the guest's process gets descriptors only."""
    helper = """
import fcntl, os, socket, struct, sys
s = socket.socket(fileno=int(sys.argv[1]))
fds = []
for _ in range(2):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, %d, struct.pack("16sH22x", b"given", %d))
    fds.append(fd)
os.system("ip link set given mtu 9000 master br0 up; ip addr add 10.9.0.1/24 dev br0")
socket.send_fds(s, [b"x"], fds)
server = socket.create_server(("10.9.0.1", 5000))
s.send(b"y")
c, _ = server.accept()
n = 0
while data := c.recv(1 << 20):
    n += len(data)
s.send(str(n).encode())
c.close()
c, _ = socket.create_server(("10.9.0.1", 5001)).accept()
c.sendall(bytes(1 << 20))
c.close()
""" % (TUNSETIFF, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    p = subprocess.Popen(lan + ["python3", "-c", helper, str(theirs.fileno())], close_fds=False)
    theirs.close()
    try:
        _, fds, _, _ = socket.recv_fds(ours, 1, 2)
        assert ours.recv(1) == b"y"
        g = guest("--cpus", 2, "--paused", "--memory", "384M", run="lan", append="keel.ip=10.9.0.2 keel.peer=10.9.0.1",
                  prefix=lan)
        q = g.qmp
        for i, fd in enumerate(fds):
            socket.send_fds(q.sock, [b'{"execute":"getfd","arguments":{"fdname":"q%d"}}' % i], [fd])
            assert q.reply()["return"] == {}
            os.close(fd)
        q.command("netdev_add", type="tap", id="t", fds="q0:q1")
        q.command("device_add", driver="virtio-net-pci", id="c", netdev="t", mac="52:54:00:00:00:02")
        q.command("cont")
        assert g.expect("card") == "mtu 9000 queues 2"
        assert g.expect("ping") == "3"
        assert ours.recv(100).decode() == str(24 << 20)
        assert g.expect("back") == "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"  # sha256 of 1 MiB of zeroes
        assert g.wait() == 0
    finally:
        p.kill()
        p.wait()


@pytest.mark.parametrize("text, word", [
    ("tap,br=nowhere", "no bridge nowhere"),
    ("tap,ifname=much/too/strange", "no name of an interface"),
    ("tap,queues=17", "queues must be 1 to 16"),
    ("tap,fds=77", "not open"),
    ("tap,colour=red", "no setting 'colour'"),
    ("stream,path=/nowhere/sock", "/nowhere/sock"),
    ("user,ifname=x", "'ifname' is unexpected"),
])
def test_refusals(build, lan, text, word):
    p = subprocess.run(lan + [build / "bin/keel-vmm", "--kernel", build / "guest/vmlinuz", "--engine", "soft", "--net", text],
                       capture_output=True, text=True, timeout=20)
    assert p.returncode == 1
    assert word in p.stderr and "--net" in p.stderr
