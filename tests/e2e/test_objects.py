# SPDX-License-Identifier: GPL-2.0-or-later
"""object-add and what it is good for: guests on encrypted disks, whose passphrases come over QMP or from a file."""
import base64
import subprocess

import pytest

from imagetool import image, qemu, run  # noqa: F401


@pytest.fixture
def encrypted(scratch, image):  # noqa: F811
    """A file system on an encrypted disk of that format; and what is in it afterwards, to qemu-img."""
    (scratch / "pass").write_bytes(b"open sesame")
    secret = ("--object", f"secret,id=key,file={scratch}/pass")

    def make(fmt):
        raw, path = scratch / "raw", scratch / f"disk.{fmt}"
        raw.write_bytes(b"")
        subprocess.run(["truncate", "-s", "64M", raw], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", raw], check=True)
        prefix = "encrypt." if fmt == "qcow2" else ""
        image("convert", *secret, "-f", "raw", "-O", fmt, "-o",
              ("encrypt.format=luks," if prefix else "") + f"{prefix}key-secret=key,{prefix}iter-time=50", raw, path)
        return path

    def check(path):
        fmt = path.suffix[1:]
        key = ("encrypt." if fmt == "qcow2" else "") + "key-secret=key"
        qemu("convert", *secret, "--image-opts", f"driver={fmt},file.filename={path},{key}", "-O", "raw", scratch / "after")
        run("e2fsck", "-f", "-n", scratch / "after")
        assert b"KEEL" not in path.read_bytes()

    make.check = check
    return make


@pytest.mark.parametrize("fmt,cache", [("luks", "writeback"), ("qcow2", "none")])
def test_a_guest_on_an_encrypted_disk(guest, scratch, encrypted, fmt, cache):
    path = encrypted(fmt)
    g = guest("--object", f"secret,id=key,file={scratch}/pass", "--disk", f"{path},format={fmt},key-secret=key,cache={cache}",
              run="disk")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0
    encrypted.check(path)


@pytest.mark.parametrize("fmt", ["luks"])
def test_the_passphrase_comes_over_qmp(guest, scratch, encrypted, fmt):
    path = encrypted(fmt)
    g = guest("--paused", run="disk")
    q = g.qmp
    node = {"driver": fmt, "node_name": "disk", "file": {"driver": "file", "filename": str(path)}}
    node |= {"key_secret": "key"} if fmt == "luks" else {"encrypt": {"format": "luks", "key-secret": "key"}}
    with pytest.raises(RuntimeError, match="there is no secret 'key'"):
        q.command("blockdev-add", **node)
    q.command("object-add", qom_type="secret", id="key", data="wrong")
    with pytest.raises(RuntimeError, match="not its passphrase"):
        q.command("blockdev-add", **node)
    with pytest.raises(RuntimeError, match="duplicate"):
        q.command("object-add", qom_type="secret", id="key", data="wrong")
    q.command("object-del", id="key")
    with pytest.raises(RuntimeError, match="not found"):
        q.command("object-del", id="key")
    q.command("object-add", qom_type="secret", id="key", data=base64.b64encode(b"open sesame").decode(), format="base64")
    q.command("blockdev-add", **node)
    q.command("object-del", id="key")  # has served
    q.command("device_add", driver="virtio-blk-pci", id="d", drive="disk")
    q.command("cont")
    wrote = g.expect("wrote")
    assert g.expect("read") == wrote and g.wait() == 0
    encrypted.check(path)


def test_objects_are_refused_by_name(guest, scratch, build):
    g = guest("--paused", "--object", "iothread,id=t0", run="idle")
    q = g.qmp
    threads = q.command("query-iothreads")
    assert [t["id"] for t in threads] == ["t0"]
    assert (g.process.pid, threads[0]["thread-id"]) and open(f"/proc/{g.process.pid}/task/{threads[0]['thread-id']}/comm").read() == "io t0\n"
    for args, word in [
        (dict(qom_type="rng-random", id="a"), "invalid object type: rng-random"),
        (dict(qom_type="secret"), "'id' is missing"),
        (dict(id="a"), "'qom-type' is missing"),
        (dict(qom_type="secret", id="1a", data="x"), "expects an identifier"),
        (dict(qom_type="secret", id="a"), "needs one of"),
        (dict(qom_type="secret", id="a", data="x", file="y"), "needs one of"),
        (dict(qom_type="secret", id="a", data="x", format="hex"), "raw or base64"),
        (dict(qom_type="secret", id="a", data="?", format="base64"), "not base64"),
        (dict(qom_type="secret", id="a", data="x", keyid="b"), "not supported"),
        (dict(qom_type="secret", id="a", data="x", color="red"), "'secret.color' not found"),
        (dict(qom_type="secret", id="a", file=str(scratch / "none")), "cannot read secret"),
        (dict(qom_type="tls-creds-x509", id="a"), "'dir' is missing"),
        (dict(qom_type="tls-creds-x509", id="a", dir="/x", endpoint="both"), "client or server"),
        (dict(qom_type="tls-creds-x509", id="a", dir="/x", verify_peer=3), "expected: boolean"),
        (dict(qom_type="iothread", id="t0"), "duplicate"),
    ]:
        with pytest.raises(RuntimeError, match=word):
            q.command("object-add", **args)
    q.command("object-add", qom_type="tls-creds-x509", id="a", dir="/x", endpoint="server", verify_peer=True)
    q.command("object-del", id="a")
    q.command("object-del", id="t0")
    assert q.command("query-iothreads") == []
    done = subprocess.run([build / "bin/keel", "run", "--kernel", "x", "--object", "secret,id=a,data=b"], capture_output=True, text=True)
    assert done.returncode and "no secret" in done.stderr and "file=FILE" in done.stderr
