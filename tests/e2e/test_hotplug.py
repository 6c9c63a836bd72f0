# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go under a Debian kernel, over QMP in QEMU's shapes."""
import socket
import threading

import pytest


@pytest.fixture
def greeter():
    """A server that says hello to whoever connects; its port."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        def serve():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"hello\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def image(path, size):
    with open(path, "wb") as f:
        f.truncate(size)
    return str(path)


def node(name, path, driver="raw"):
    return {"driver": driver, "node_name": name, "file": {"driver": "file", "filename": path}}


def ids(q):
    """qdev ids by bus number, from query-pci."""
    found = {}

    def walk(devices):
        for d in devices:
            found.setdefault(d["bus"], []).append(d["qdev_id"])
            walk(d.get("pci_bridge", {}).get("devices", []))

    walk(q.command("query-pci")[0]["devices"])
    return found


def test_disk_and_card_come_are_used_and_go(guest, scratch, greeter):
    path = image(scratch / "hot.raw", 16 << 20)
    g = guest("--root-ports", "2", run="hotplug", append=f"keel.port={greeter}")
    g.expect("ready")
    q = g.qmp
    q.command("blockdev-add", **node("hot", path))
    assert {n["node-name"]: n["ro"] for n in q.command("query-named-block-nodes")} == {"hot": False}
    q.command("device_add", driver="virtio-blk-pci", id="vd", drive="hot", serial="PLUGGED", bus="rp1", addr="0x0")
    assert g.expect("disk") == "PLUGGED 32768"
    wrote, read = g.expect("wrote").split()
    assert wrote == read
    block = q.command("query-block")
    assert [(b["qdev"], b["inserted"]["node-name"], b["inserted"]["drv"]) for b in block] == [("vd", "hot", "raw")]
    stats = q.command("query-blockstats")[0]
    assert stats["qdev"] == "vd" and stats["stats"]["wr_bytes"] == 1 << 20
    q.command("block_resize", node_name="hot", size=32 << 20)
    g.expect("resized")
    q.command("netdev_add", type="user", id="n0")
    q.command("device_add", driver="virtio-net-pci", id="nic", netdev="n0", mac="52:54:00:aa:bb:cc")
    assert g.expect("card") == "52:54:00:aa:bb:cc"
    assert g.expect("heard") == "hello"
    assert sorted(sum((v for k, v in ids(q).items() if k), [])) == ["nic", "vd"]
    q.command("set_link", name="n0", up=False)
    g.expect("unplugged")
    q.command("set_link", name="nic", up=True)
    g.expect("replugged")
    # Both are in use, and asking twice is no help.
    with pytest.raises(RuntimeError, match="in use"):
        q.command("blockdev-del", node_name="hot")
    with pytest.raises(RuntimeError, match="in use"):
        q.command("netdev_del", id="n0")
    q.command("device_del", id="nic")
    q.command("device_del", id="vd")
    with pytest.raises(RuntimeError, match="already in the process of unplug"):
        q.command("device_del", id="vd")
    gone = [q.event("DEVICE_DELETED")["data"] for _ in range(2)]
    assert sorted(d["device"] for d in gone) == ["nic", "vd"]
    assert gone[0]["path"] == "/machine/peripheral/" + gone[0]["device"]
    g.expect("gone")
    q.command("netdev_del", id="n0")
    q.command("blockdev-del", node_name="hot")
    assert q.command("query-named-block-nodes") == [] and q.command("query-block") == []
    # What was written is there when it comes back, in the other slot.
    q.command("blockdev-add", **node("hot", path))
    q.command("device_add", driver="virtio-blk-pci", id="vd", drive="hot", bus="rp0")
    assert g.expect("again") == wrote
    assert g.wait() == 0


def test_a_paused_machine_is_put_together_over_qmp(guest, scratch):
    import subprocess
    path = scratch / "cold.raw"
    image(path, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    g = guest("--paused", run="disk")
    q = g.qmp
    q.command("blockdev-add", driver="file", node_name="storage", filename=str(path))
    q.command("blockdev-add", driver="raw", node_name="format", file="storage")
    q.command("device_add", driver="virtio-blk-pci", id="d", drive="format", bus="pcie.0")
    q.command("device_add", driver="virtio-rng-pci", id="r")
    q.command("device_del", id="r")
    assert q.event("DEVICE_DELETED")["data"]["device"] == "r"
    q.command("cont")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote  # after a reboot
    assert g.wait() == 0


def test_what_cannot_be_plugged_is_refused_by_name(guest, scratch):
    path = image(scratch / "x.raw", 1 << 20)
    g = guest("--root-ports", "1", run="idle")
    q = g.qmp
    g.expect("idle")
    q.command("blockdev-add", **node("n", path))
    for args, word in [
        (dict(driver="no-such", id="a"), "not a valid device model"),
        (dict(driver="virtio-blk-pci", id="a", drive="m"), "can't find value 'm'"),
        (dict(driver="virtio-blk-pci", id="a"), "drive"),
        (dict(driver="virtio-blk-pci", id="a", drive="n", bus="pcie.0"), "does not support hotplugging"),
        (dict(driver="virtio-blk-pci", id="a", drive="n", bus="rp7"), "rp7"),
        (dict(driver="virtio-blk-pci", id="a", drive="n", addr="0x3", bus="rp0"), "one slot"),
        (dict(driver="virtio-blk-pci", id="a", drive="n", colour="red"), "colour"),
        (dict(driver="virtio-net-pci", id="a", netdev="n"), "can't find value 'n'"),
        (dict(driver="isa-serial", id="a"), "does not support hotplugging"),
        (dict(driver="virtio-rng-pci", id="rng0"), "rng0"),
    ]:
        with pytest.raises(RuntimeError, match=word):
            q.command("device_add", **args)
    # None of them left anything behind.
    q.command("blockdev-del", node_name="n")
    for args, word in [
        (dict(driver="qcow2", node_name="n", file={"driver": "file", "filename": path}), "x.raw"),
        (dict(driver="raw", node_name="n", file="nowhere"), "nowhere"),
        (dict(driver="raw", node_name="n", file={"driver": "file", "filename": path}, size=3), "size"),
        (dict(driver="file", node_name="n", filename=str(scratch / "none")), "No such file"),
        (dict(driver="file", node_name="#n", filename=path), "node-name"),
        (dict(driver="ssh", node_name="n"), "ssh"),
    ]:
        with pytest.raises(RuntimeError, match=word):
            q.command("blockdev-add", **args)
    assert q.command("query-named-block-nodes") == []
    q.command("device_add", driver="virtio-rng-pci", id="only")
    with pytest.raises(RuntimeError, match="no PCIe slot is free"):
        q.command("device_add", driver="virtio-rng-pci", id="more")
    q.raw(b'{"execute":"device_del","arguments":{"id":"nobody"}}')
    assert q.reply()["error"]["class"] == "DeviceNotFound"
    with pytest.raises(RuntimeError, match="does not support hotplugging"):
        q.command("device_del", id="rng0")
    with pytest.raises(RuntimeError, match="does not support hotplugging"):
        q.command("device_del", id="rp0")


def test_descriptors_are_passed_over_the_socket(guest, scratch):
    path = image(scratch / "fd.raw", 1 << 20)
    g = guest("--paused", run="idle")
    q = g.qmp
    with open(path, "r+b") as f:
        socket.send_fds(q.sock, [b'{"execute":"add-fd","arguments":{"fdset-id":7}}'], [f.fileno()])
        assert q.reply()["return"]["fdset-id"] == 7
        socket.send_fds(q.sock, [b'{"execute":"getfd","arguments":{"fdname":"f"}}'], [f.fileno()])
        assert q.reply()["return"] == {}
    q.command("blockdev-add", **node("n", "/dev/fdset/7"))
    assert q.command("query-named-block-nodes")[0]["image"]["virtual-size"] == 1 << 20
    with pytest.raises(RuntimeError, match="set 8"):
        q.command("blockdev-add", **node("m", "/dev/fdset/8"))
    with pytest.raises(RuntimeError, match="No file descriptor supplied"):
        q.command("getfd", fdname="g")
    with pytest.raises(RuntimeError, match="tap"):
        q.command("netdev_add", type="tap", id="t", fd="f")
    with pytest.raises(RuntimeError, match="not been found"):
        q.command("closefd", fdname="f")
    q.command("remove-fd", fdset_id=7)
