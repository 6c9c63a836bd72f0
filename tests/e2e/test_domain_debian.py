# SPDX-License-Identifier: GPL-2.0-or-later
"""With KEEL_LONG set: a Debian system, made by keel image build, imported by virt-install, up to the login on its console."""
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time

import pytest
from daemon import BUILD, Keeld

BIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")


class Console:
    """virsh console of a guest, read in a thread."""

    def __init__(self, uri, name):
        self.text = ""
        self.process = subprocess.Popen(["script", "-qefc", f"virsh -c '{uri}' console --force {name}", "/dev/null"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, errors="replace")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for c in iter(lambda: self.process.stdout.read(1), ""):
            self.text += c

    def wait(self, pattern, seconds):
        end = time.time() + seconds
        while not re.search(pattern, self.text):
            assert time.time() < end and self.process.poll() is None, self.text[-2000:]
            time.sleep(0.2)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.mark.skipif(not os.environ.get("KEEL_LONG"), reason="it takes minutes and Debian's mirror: set KEEL_LONG")
@pytest.mark.timeout(3000)
def test_virt_install_to_a_login(scratch):
    if not BIOS.exists() or not shutil.which("virt-install"):
        pytest.skip("the packages seabios and virtinst are not installed")
    disk, key = scratch / "disk", scratch / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    subprocess.run([BUILD / "bin/keel", "image", "build", "--size", "2G", "--ssh-key", f"{key}.pub", "--hostname", "built", disk], check=True)
    (scratch / "root").mkdir()
    keeld = Keeld(scratch / "root")
    console = None
    try:
        subprocess.run(["virt-install", "--connect", keeld.uri, "--import", "--name", "debian", "--memory", "1024", "--vcpus", "2", "--osinfo",
                        "debian11", "--disk", f"path={disk},format=qcow2,bus=virtio", "--network", "user", "--graphics", "none",
                        "--noautoconsole", "--virt-type", "qemu"], check=True, stdin=subprocess.DEVNULL)
        console = Console(keeld.uri, "debian")
        console.wait(r"built login: ", 600)
        console.say("nobody-of-that-name")
        console.wait(r"Password: ", 60)
        console.end()
        # The button: systemd ends the system, and the disk is whole.
        keeld.ok("shutdown", "debian")
        end = time.time() + 300
        while keeld.ok("domstate", "debian").strip() != "shut off":
            assert time.time() < end
            time.sleep(1)
        subprocess.run(["qemu-img", "check", disk], check=True)
        keeld.ok("start", "debian")
        console = Console(keeld.uri, "debian")
        console.wait(r"built login: ", 600)
    finally:
        if console:
            console.end()
        keeld.end()
