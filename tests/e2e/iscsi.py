# SPDX-License-Identifier: GPL-2.0-or-later
"""An iSCSI target of a test's own: Debian's tgtd on the loopback."""
import os
import socket
import subprocess
import time

IQN = "iqn.2026-11.example:keel"


class Target:
    def __init__(self, directory):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.portal = f"127.0.0.1:{self.port}"
        self.directory = directory
        self.environment = dict(os.environ, TGT_IPC_SOCKET=str(directory / "ipc"))
        self.process = None

    def start(self):
        self.process = subprocess.Popen(["tgtd", "-f", "-C", "1", "--iscsi", f"portal={self.portal}"], env=self.environment,
                                        stdout=subprocess.DEVNULL, stderr=open(self.directory / "tgtd.log", "w"))
        end = time.time() + 20
        while not (self.directory / "ipc.1").exists():
            assert self.process.poll() is None and time.time() < end, open(self.directory / "tgtd.log").read()
            time.sleep(0.02)
        self.admin("new", "target", "-T", IQN)
        self.admin("bind", "target", "-I", "ALL")

    def admin(self, op, mode, *args):
        command = ["tgtadm", "-C", "1", "--lld", "iscsi", "--op", op, "--mode", mode]
        if mode != "account" or op == "bind":
            command += ["--tid", "1"]
        done = subprocess.run(command + list(map(str, args)), env=self.environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (command, args, done.stdout, done.stderr)

    def lun(self, number, path, block=512, params=""):
        self.admin("new", "logicalunit", "--lun", number, "-b", path, "--blocksize", block)
        if params:
            self.admin("update", "logicalunit", "--lun", number, "--params", params)

    def login(self, user, password):
        self.admin("new", "account", "--user", user, "--password", password)
        self.admin("bind", "account", "--user", user)

    def kill(self):
        """It takes no notice of a friendlier signal while somebody is logged in."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None
        for path in self.directory.glob("ipc.1*"):
            path.unlink()

    def name(self, lun, user="", **settings):
        query = "&".join(f"{k.replace('_', '-')}={v}" for k, v in settings.items())
        return f"iscsi://{user + '@' if user else ''}{self.portal}/{IQN}/{lun}" + (f"?{query}" if query else "")
