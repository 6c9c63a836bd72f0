# SPDX-License-Identifier: GPL-2.0-or-later
"""keeld as a test sees it: one that serves a scratch directory, stock virsh and python-libvirt before it."""
import os
import pathlib
import queue
import signal
import subprocess
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KEEL_BUILD", TOP / "build")).resolve()
LIMIT = 60


def wait_for(path, process):
    end = time.time() + LIMIT
    while not path.exists():
        assert process.poll() is None, f"{process.args[0]} ended with status {process.returncode}"
        assert time.time() < end, f"no {path}"
        time.sleep(0.02)


def virsh(uri, *args, readonly=False, stdin=""):
    return subprocess.run(["virsh"] + ["-r"] * readonly + ["-c", uri, *args], input=stdin, capture_output=True, text=True,
                          timeout=LIMIT, env=dict(os.environ, LC_ALL="C"))


class Keeld:
    def __init__(self, root, *options, program=BUILD / "bin/keeld"):
        self.root = root
        for name in ("libvirt-sock", "libvirt-sock-ro"):  # of one that was killed
            (root / "run" / name).unlink(missing_ok=True)
        self.process = subprocess.Popen([program, "--root", root, *options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.path = root / "run/libvirt-sock"
        wait_for(root / "run/libvirt-sock-ro", self.process)
        mode = "system" if os.geteuid() == 0 else "session"
        self.plain = f"qemu:///{mode}"
        self.uri = f"{self.plain}?socket={self.path}"
        self.uri_ro = f"{self.plain}?socket={self.path}-ro"

    def virsh(self, *args, **kw):
        return virsh(self.uri, *args, **kw)

    def ok(self, *args, **kw):
        """What virsh prints for a command that succeeds."""
        r = self.virsh(*args, **kw)
        assert r.returncode == 0, (args, r.stdout, r.stderr)
        return r.stdout

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=LIMIT)

    def guests(self):
        """The processes of the guests: those whose log or monitor lies in our directory."""
        found = []
        for stat in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (stat / "exe").resolve().name != "keel-vmm":
                    continue
                if str(self.root) in os.readlink(stat / "fd/2"):
                    found.append(int(stat.name))
            except OSError:
                continue
        return found

    def end(self):
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.stop()
        for pid in self.guests():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def domain_xml(name, run="idle", memory=131072, devices="", extra="", kernel=True, uuid="", vcpus=1, kind="qemu", console=True):
    boot = f"""<kernel>{BUILD}/guest/vmlinuz</kernel><initrd>{BUILD}/guest/initrd</initrd>
      <cmdline>console=ttyS0 panic=-1 loglevel=4 keel.run={run}</cmdline>""" if kernel else ""
    return f"""<domain type='{kind}'><name>{name}</name>{f'<uuid>{uuid}</uuid>' if uuid else ''}
      <memory unit='KiB'>{memory}</memory><vcpu>{vcpus}</vcpu>
      <os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os><features><acpi/><apic/></features>{extra}
      <devices>{"<serial type='pty'/><console type='pty'/>" if console else ''}{devices}</devices></domain>"""


class Events:
    """Every event of a connection, in order, as tuples. Needs Loop."""

    def __init__(self, libvirt, conn, ids=None, dom=None):
        self.queue = queue.Queue()
        self.conn = conn
        names = {v: k[20:] for k, v in vars(libvirt).items() if k.startswith("VIR_DOMAIN_EVENT_ID_")}
        self.numbers = []
        for number, name in sorted(names.items()):
            if ids is not None and name not in ids:
                continue
            self.numbers.append(conn.domainEventRegisterAny(dom, number, self._callback, name))

    def _callback(self, conn, dom, *args):
        self.queue.put((args[-1], dom.name(), *args[:-1]))

    def next(self, limit=LIMIT):
        return self.queue.get(timeout=limit)

    def until(self, *wanted, limit=LIMIT):
        """The events up to and including the one that begins with these."""
        seen, end = [], time.time() + limit
        while True:
            try:
                seen.append(self.queue.get(timeout=max(0.01, end - time.time())))
            except queue.Empty:
                raise TimeoutError(f"no {wanted}; there were {seen}")
            if seen[-1][:len(wanted)] == wanted:
                return seen

    def none(self, seconds=0.2):
        try:
            return self.queue.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self):
        for number in self.numbers:
            self.conn.domainEventDeregisterAny(number)


_loop = None


def event_loop(libvirt):
    """libvirt's default event loop in a thread; once a process, before the first connection."""
    global _loop
    if _loop:
        return
    libvirt.virEventRegisterDefaultImpl()

    def run():
        while True:
            libvirt.virEventRunDefaultImpl()
    _loop = threading.Thread(target=run, daemon=True)
    _loop.start()
