# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP on the control socket, and what hostile clients get."""
import json
import socket
import time

import pytest

from keel import QMP


@pytest.fixture
def paused(guest):
    return guest("--paused", "--name", "probe", run="idle")


def test_greeting_and_negotiation(paused):
    q = QMP(paused.qmp_path, negotiate=False)
    assert q.greeting["QMP"]["version"]["qemu"] == {"major": 7, "minor": 2, "micro": 0}
    q.raw(b'{"execute":"query-status","id":7}')
    reply = q.reply()
    assert reply["error"]["class"] == "CommandNotFound" and reply["id"] == 7
    q.command("qmp_capabilities")
    assert q.command("query-status") == {"running": False, "singlestep": False, "status": "prelaunch"}
    q.close()


def test_queries(paused):
    q = paused.qmp
    names = {c["name"] for c in q.command("query-commands")}
    assert {"qmp_capabilities", "query-version", "query-status", "query-cpus-fast", "query-block", "query-pci", "query-kvm",
            "query-commands", "stop", "cont", "system_reset", "system_powerdown", "quit", "human-monitor-command"} <= names
    assert q.command("query-version")["package"].startswith("keel-")
    cpus = q.command("query-cpus-fast")
    assert len(cpus) == 1 and cpus[0]["target"] == "x86_64"
    devices = q.command("query-pci")[0]["devices"]
    assert {(d["id"]["vendor"], d["id"]["device"]) for d in devices} >= {(0x8086, 0x29c0), (0x8086, 0x2918), (0x1af4, 0x1044)}
    assert q.command("query-kvm")["enabled"] is False
    text = q.command("human-monitor-command", command_line="info registers")
    assert "RIP=" in text and "CR3=" in text and "CPU#0" in text


def test_registers_of_a_running_guest(guest):
    g = guest("--cpus", 2, run="idle")
    g.expect("idle")
    text = g.qmp.command("human-monitor-command", command_line="info registers")
    assert "CPU#1" in text
    assert g.qmp.command("query-status")["running"] is True


@pytest.mark.parametrize("bad, word", [
    (b'{"execute":"no-such-thing"}', "not been found"),
    (b'{"execute":"query-status","arguments":{"x":1}}', "unexpected"),
    (b'{"execute":"query-status","arguments":[]}', "object"),
    (b'{"execute":1}', "string"),
    (b'{}', "lacks"),
    (b'{"execute":"query-status","execute":"quit"}', "JSON"),
    (b'{"execute":"query-status" "x"}', "JSON"),
    (b'{"execute":"human-monitor-command"}', "command-line"),
    (b'{"execute":"balloon","arguments":{"value":-1}}', "value"),
    (b'[1,2]\n', "object"),
    (b'\xff\xfe\n', "object"),
    (b'{"execute":"\xff"}', "JSON"),
])
def test_malformed_commands(paused, bad, word):
    paused.qmp.raw(bad)
    assert word in paused.qmp.reply()["error"]["desc"]
    assert paused.qmp.command("query-status")["status"] == "prelaunch"


def test_oversized_command_closes_only_its_client(paused):
    q = QMP(paused.qmp_path)
    try:
        q.raw(b'{"execute":"' + b"a" * (2 << 20))
        reply = q.reply()
        assert reply is None or "too large" in reply["error"]["desc"]
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert paused.qmp.command("query-status")


def test_deep_nesting(paused):
    q = QMP(paused.qmp_path)
    try:
        q.raw(b'{"a":' * 100000)
        assert "too large" in q.reply()["error"]["desc"]
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert paused.qmp.command("query-status")


def test_clients_that_vanish_or_do_not_read(paused):
    assert paused.qmp.command("query-status")
    for _ in range(50):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(paused.qmp_path))
        s.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-comm')
        s.close()
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(str(paused.qmp_path))
    deaf.settimeout(2)
    try:
        for _ in range(20000):
            deaf.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-commands"}')
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    assert paused.qmp.command("query-status")
    deaf.close()


def test_quit(paused):
    paused.qmp.command("quit")
    assert paused.qmp.event("SHUTDOWN")["data"]["reason"] == "host-qmp-quit"
    assert paused.wait(10) == 0
    assert not paused.qmp_path.exists()
