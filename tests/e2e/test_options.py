# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong options and broken files: one clear line that names the option and the reason, and the right exit status."""
import json
import os
import stat
import subprocess

import pytest


@pytest.fixture
def keel(build):
    def run(*args):
        return subprocess.run([build / "bin/keel", *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60)
    return run


def check_line(result, status, *words):
    assert result.returncode == status, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize("args, words", [
    (["--cpus", "0"], ["--cpus", "0", "255"]),
    (["--cpus", "10000"], ["--cpus", "10000", "255"]),
    (["--cpus", "two"], ["--cpus", "two"]),
    (["--memory", "much"], ["--memory", "much"]),
    (["--memory", "1K"], ["--memory"]),
    (["--memory", "99999999999G"], ["--memory"]),
    (["--engine", "warp"], ["--engine", "warp", "kvm", "soft"]),
    (["--no-such-option"], ["--no-such-option", "--help"]),
    (["--kernel"], ["--kernel", "value"]),
    (["stray"], ["stray"]),
    (["--initrd", "x"], ["--kernel"]),
    ([], ["--kernel"]),
    (["--uuid", "abc"], ["--uuid"]),
])
def test_wrong_options(keel, args, words):
    check_line(keel("run", *args), 2, *words)


def test_memory_beyond_the_host(keel, build):
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--memory", "400G"), 1, "--memory", "host")


@pytest.fixture
def files(build, scratch):
    kernel = (build / "guest/vmlinuz").read_bytes()
    (scratch / "truncated").write_bytes(kernel[: len(kernel) // 2])
    (scratch / "header-only").write_bytes(kernel[:600])
    (scratch / "text").write_bytes(b"This is no kernel.\n" * 100)
    (scratch / "empty").write_bytes(b"")
    (scratch / "elf").write_bytes(open("/bin/true", "rb").read())
    bad_elf = bytearray(open("/bin/true", "rb").read()[:4096])
    bad_elf[32:40] = b"\xff" * 8
    (scratch / "bad-elf").write_bytes(bad_elf)
    with open(scratch / "huge", "wb") as f:
        f.write(kernel)
        f.truncate(40 << 30)
    with open(scratch / "big-initrd", "wb") as f:
        f.truncate(1 << 30)
    os.mkdir(scratch / "directory")
    return scratch


@pytest.mark.parametrize("name, words", [
    ("missing", ["cannot open", "No such file"]), ("truncated", ["truncated"]), ("header-only", ["not a kernel"]), ("text", ["not a kernel"]),
    ("empty", ["empty"]), ("elf", ["PVH"]), ("bad-elf", ["truncated"]), ("huge", ["memory"]), ("directory", ["regular file"]),
])
def test_broken_kernels(keel, files, name, words):
    check_line(keel("run", "--kernel", files / name), 1, "--kernel", name, *words)


def test_initrd_larger_than_memory(keel, build, files):
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--initrd", files / "big-initrd", "--memory", "256M"), 1,
               "--initrd", "big-initrd", "--memory")


def test_missing_initrd(keel, build, files):
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--initrd", files / "nope"), 1, "--initrd", "nope")


def test_too_little_memory_for_the_kernel(keel, build):
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--memory", "16M"), 1, "--kernel", "--memory")


@pytest.mark.parametrize("disk, words", [
    ("/nonexistent/disk.raw", ["--disk", "/nonexistent/disk.raw", "No such file"]),
    ("/dev/null,color=red", ["--disk", "color"]),
    (",", ["--disk"]),
    ("{dir}/text,readonly=maybe", ["--disk", "readonly", "maybe"]),
    ("{dir}/text,format=vmdk", ["--disk", "vmdk"]),
    ("{dir}/directory", ["--disk", "directory"]),
    ("{dir}/text,cache=fast", ["--disk", "fast"]),
])
def test_broken_disks(keel, build, files, disk, words):
    result = keel("run", "--kernel", build / "guest/vmlinuz", "--engine", "soft", "--serial", "null", "--disk",
                  disk.format(dir=files))
    check_line(result, 1, *words)


@pytest.mark.parametrize("option, value, words", [
    ("--net", "wifi", ["--net", "wifi"]),
    ("--net", "user,hostfwd=nonsense", ["--net", "nonsense"]),
    ("--net", "user,mac=zz", ["mac", "zz"]),
    ("--serial", "pigeon", ["--serial", "pigeon", "stdio"]),
    ("--serial", "file:/nonexistent/x", ["--serial", "/nonexistent/x"]),
    ("--qmp", "tcp:1", ["--qmp", "unix:"]),
    ("--qmp", "unix:/nonexistent/q", ["--qmp", "/nonexistent/q"]),
    ("--qmp", "unix:/" + "x" * 200, ["--qmp", "longer"]),
    ("--device", "toaster", ["--device", "toaster"]),
    ("--device", "virtio-rng-pci,warmth=3", ["virtio-rng-pci", "warmth"]),
    ("--append", "x" * 5000, ["--append", "5000"]),
])
def test_other_mistakes(keel, build, option, value, words):
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--engine", "soft", "--serial", "null", option, value), 1, *words)


def test_a_failed_start_leaves_no_socket(keel, build, scratch):
    path = scratch / "q"
    keel("run", "--kernel", "/nonexistent", "--qmp", f"unix:{path}")
    assert not path.exists()


def test_a_file_in_the_way_of_a_socket_stays(keel, build, scratch):
    path = scratch / "precious"
    path.write_text("data")
    check_line(keel("run", "--kernel", build / "guest/vmlinuz", "--engine", "soft", "--serial", "null", "--qmp", f"unix:{path}"),
               1, "--qmp", "not a socket")
    assert path.read_text() == "data"


def test_host_tells_what_it_found(keel):
    result = keel("host", "--json")
    assert result.returncode == 0
    facts = json.loads(result.stdout)
    assert facts["engine"] in ("kvm", "soft") and facts["kvm"]["reason"]
    assert facts["engine"] == "kvm" or not facts["kvm"]["usable"]
    text = keel("host").stdout
    assert "KVM:" in text and facts["kvm"]["reason"].split("(")[0] in text


def test_help(keel):
    assert "--kernel" in keel("run", "--help").stdout
    assert "run" in keel("help").stdout
    assert keel("help", "run").stdout == keel("run", "--help").stdout
    assert keel("nonsense").returncode == 2
    assert keel().returncode == 2
