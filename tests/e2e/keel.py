# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest as a test sees it: a keel process, its output lines and its QMP socket."""
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time

LIMIT = 120  # seconds that anything may take


class QMP:
    def __init__(self, path, negotiate=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        end = time.time() + LIMIT
        while True:
            try:
                self.sock.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.time() > end:
                    raise
                time.sleep(0.02)
        self.file = self.sock.makefile("rb")
        self.events = []
        self.greeting = self.read()
        if negotiate:
            self.command("qmp_capabilities")

    def read(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def raw(self, data):
        self.sock.sendall(data)

    def reply(self):
        """The next message that is no event."""
        while True:
            message = self.read()
            if message is None or "event" not in message:
                return message
            self.events.append(message)

    def command(self, name, /, **args):
        request = {"execute": name}
        if args:
            request["arguments"] = {k.replace("_", "-"): v for k, v in args.items()}
        self.raw(json.dumps(request).encode() + b"\n")
        reply = self.reply()
        if reply is None:
            raise EOFError(f"the connection closed at {name}")
        if "error" in reply:
            raise RuntimeError(reply["error"]["desc"])
        return reply["return"]

    def event(self, name):
        """The next event of that name, those that came already included."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event
            message = self.read()
            if message is None:
                raise EOFError(f"the connection closed before {name}")
            if "event" in message:
                self.events.append(message)

    def close(self):
        self.file.close()
        self.sock.close()


class Guest:
    def __init__(self, build, scratch, *args, run=None, append="", kernel=True, qmp=True, engine="soft", program="keel",
                 prefix=()):
        self.build, self.scratch = build, scratch
        self.qmp_path = scratch / f"q{id(self) % 100000}"
        command = [str(build / "bin" / program)] + (["run"] if program == "keel" else [])
        if kernel:
            command += ["--kernel", str(build / "guest/vmlinuz"), "--initrd", str(build / "guest/initrd"), "--append",
                        "console=ttyS0 panic=-1 loglevel=4 " + (f"keel.run={run} " if run else "") + append]
        if qmp:
            command += ["--qmp", f"unix:{self.qmp_path}"]
        if engine:
            command += ["--engine", engine]
        self.command = list(prefix) + command + list(map(str, args))
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.output, self.lines = [], queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()
        self.errors = ""
        threading.Thread(target=self._pump_errors, daemon=True).start()
        self._qmp = None

    def _pump(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").rstrip()
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def _pump_errors(self):
        for line in self.process.stderr:
            self.errors += line.decode(errors="replace")

    def expect(self, word, limit=LIMIT):
        """What the guest says after 'KEEL word'."""
        end = time.time() + limit
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.time()))
            except queue.Empty:
                raise TimeoutError(f"no 'KEEL {word}' within {limit} s; last lines: {self.output[-15:]} {self.errors}")
            if line is None:
                raise EOFError(f"Keel ended before 'KEEL {word}': {self.output[-15:]} {self.errors}")
            if f"KEEL {word}" in line:
                return line.split(f"KEEL {word}", 1)[1].strip()

    @property
    def qmp(self):
        if not self._qmp:
            self._qmp = QMP(self.qmp_path)
        return self._qmp

    def wait(self, limit=LIMIT):
        """The exit status."""
        return self.process.wait(limit)

    def kill(self):
        if self._qmp:
            self._qmp.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
