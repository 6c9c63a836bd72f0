# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-scsi under a Debian kernel: a disk, a CD-ROM, and a disk that comes and goes."""
import hashlib
import os


def test_disk_cdrom_and_hotplug(guest, scratch):
    disk, cd, hot = scratch / "disk", scratch / "cd.iso", scratch / "hot"
    for path, size in (disk, 16), (hot, 8):
        with open(path, "wb") as f:
            f.truncate(size << 20)
    cd.write_bytes(os.urandom(1 << 20))
    g = guest("--memory", "384M", "--disk", f"{disk},format=raw,bus=scsi,serial=KEEL0001", "--disk",
              f"{cd},format=raw,media=cdrom", run="scsi")
    assert g.expect("disk") == "KEEL HARDDISK 32768"
    assert "KEEL0001" in g.expect("id")
    assert g.expect("cache") == "write back discard 4096 ro 1"
    assert g.expect("cdrom") == hashlib.sha256(cd.read_bytes()).hexdigest()
    wrote, read = g.expect("wrote").split()
    assert wrote == read
    assert g.expect("discarded") == hashlib.sha256(bytes(16 << 20)).hexdigest()
    assert os.stat(disk).st_blocks < 100  # the host has the space back
    q = g.qmp
    blocks = {b["qdev"]: b for b in q.command("query-block")}
    assert blocks["disk1"]["removable"] and blocks["disk1"]["inserted"]["ro"] and not blocks["disk0"]["removable"]
    q.command("blockdev-add", driver="raw", node_name="hot", file={"driver": "file", "filename": str(hot)})
    q.command("device_add", driver="scsi-hd", id="sd", drive="hot", bus="scsi0.0", lun=3, **{"scsi-id": 7})
    assert g.expect("second") == "16384"
    g.expect("used")
    q.command("device_del", id="sd")
    assert q.event("DEVICE_DELETED")["data"]["device"] == "sd"
    g.expect("gone")
    q.command("blockdev-del", node_name="hot")
    # Another medium, and none.
    other = scratch / "other.iso"
    other.write_bytes(os.urandom(2 << 20))
    q.command("blockdev-change-medium", id="disk1", filename=str(other), format="raw", **{"read-only-mode": "retain"})
    assert [q.event("DEVICE_TRAY_MOVED")["data"]["tray-open"] for _ in range(2)] == [True, False]
    assert g.expect("changed") == hashlib.sha256(other.read_bytes()).hexdigest()
    q.command("eject", id="disk1", force=True)
    assert q.event("DEVICE_TRAY_MOVED")["data"] == {"device": "medium0", "id": "disk1", "tray-open": True}
    drive = [b for b in q.command("query-block") if b["qdev"] == "disk1"][0]
    assert drive["tray_open"] and "inserted" not in drive
    q.command("block_resize", device="disk0", size=32 << 20)
    g.expect("resized")
    assert g.wait() == 0
