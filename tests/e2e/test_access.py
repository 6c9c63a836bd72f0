# SPDX-License-Identifier: GPL-2.0-or-later
"""Access rules: two clients with certificates, one of which may do little; stock virsh and python-libvirt."""
import os
import queue
import signal
import socket
import struct
import time

import pytest

pytest.importorskip("libvirt")
import libvirt

from daemon import LIMIT, Events, event_loop
from test_remote import MODE, certificates, free_port, packet, start, tls_uri, virsh  # noqa: F401 (fixtures)

RULES = """
allow unix *:*
allow dn:*CN=client *:*
# The guest sees and runs what is called web-.
allow dn:*CN=guest connect:*
deny  dn:*CN=guest domain:delete
allow dn:*CN=guest domain:getattr,domain:read,domain:start,domain:stop,domain:write,domain:save web-*
"""
XML = "<domain type='qemu'><name>{}</name><memory>65536</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
def two(start, certificates, tmp_path):  # noqa: F811
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server", files=[("etc/access.conf", RULES)])
    for name in ("web-1", "web-2", "db-1"):
        (tmp_path / f"{name}.xml").write_text(XML.format(name))
        k.ok("define", str(tmp_path / f"{name}.xml"))
    k.port = port
    k.client, k.guest = tls_uri(port, certificates / "good"), tls_uri(port, certificates / "guest")
    return k


def test_virsh(two, tmp_path):
    def fails(*args):
        r = virsh(two.guest, *args)
        assert r.returncode == 1, args
        assert "access denied: 'QEMU' denied access" in r.stderr, (args, r.stderr)

    def works(*args, uri=two.guest):
        r = virsh(uri, *args)
        assert r.returncode == 0, (args, r.stderr)
        return r.stdout
    assert works("list", "--all", "--name").split() == ["web-1", "web-2"]
    assert works("list", "--all", "--name", uri=two.client).split() == ["db-1", "web-1", "web-2"]
    assert "web-1" in works("dominfo", "web-1")
    assert "db-1" not in works("domstats")
    assert "db-1" in works("domstats", uri=two.client)
    for name in ("db-1", two.ok("domuuid", "db-1").strip()):  # virsh does not tell why a look-up fails
        r = virsh(two.guest, "dominfo", name)
        assert r.returncode == 1 and "failed to get domain" in r.stderr
    fails("dumpxml", "web-1", "--security-info")
    fails("undefine", "web-1")
    fails("define", str(tmp_path / "db-1.xml"))
    (tmp_path / "new.xml").write_text(XML.format("web-3"))
    works("define", str(tmp_path / "new.xml"))
    fails("domrename", "web-3", "db-3")
    assert "denied" in virsh(two.guest, "shutdown", "web-3").stderr  # needs domain:init_control
    assert works("list", "--all", "--name").split() == ["web-1", "web-2", "web-3"]
    works("undefine", "web-3", uri=two.client)


def test_python_and_events(two):
    libvirt.registerErrorHandler(lambda *_: None, None)
    event_loop(libvirt)
    conn = libvirt.open(two.guest)
    admin = libvirt.open(two.client)
    assert conn.numOfDefinedDomains() == 2 and admin.numOfDefinedDomains() == 3
    assert sorted(conn.listDefinedDomains()) == ["web-1", "web-2"]
    assert len(conn.listAllDomains()) == 2 and len(conn.getAllDomainStats()) == 2
    with pytest.raises(libvirt.libvirtError) as e:
        conn.lookupByName("db-1")
    assert e.value.get_error_code() == libvirt.VIR_ERR_ACCESS_DENIED
    events = Events(libvirt, conn, ids=["LIFECYCLE"])
    db, web = admin.lookupByName("db-1"), admin.lookupByName("web-1")
    for d in (db, web):
        admin.defineXML(d.XMLDesc())
    assert events.next()[1] == "web-1"  # the other's came first, and did not come
    assert events.none() is None
    events.close()
    conn.close()
    admin.close()


def call(s, procedure, payload, serial):
    s.sendall(packet(procedure, payload, serial))
    data = b""
    while len(data) < 4 or len(data) < struct.unpack(">I", data[:4])[0]:
        data += s.recv(65536)
    return struct.unpack(">I", data[24:28])[0], data[28:]


def test_a_false_name(two, certificates, tmp_path):  # noqa: F811
    """The UUID of a guest that is forbidden under the name of one that is not."""
    import ssl
    import uuid
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates / "ours/cacert.pem")
    context.load_cert_chain(certificates / "guest/clientcert.pem", certificates / "guest/clientkey.pem")
    ids = {n: uuid.UUID(two.ok("domuuid", n).strip()).bytes for n in ("web-1", "db-1")}
    with socket.create_connection(("127.0.0.1", two.port), timeout=LIMIT) as raw, \
            context.wrap_socket(raw, server_hostname="127.0.0.1") as s:
        assert s.recv(1) == b"\1"
        uri = f"qemu:///{MODE}".encode()
        status, _ = call(s, 1, struct.pack(">II", 1, len(uri)) + uri + bytes(-len(uri) % 4) + bytes(4), 1)
        assert status == 0
        name = struct.pack(">I", 5) + b"web-1" + bytes(3)
        assert call(s, 212, name + ids["web-1"] + struct.pack(">iI", -1, 0), 2)[0] == 0  # DOMAIN_GET_STATE
        status, body = call(s, 212, name + ids["db-1"] + struct.pack(">iI", -1, 0), 3)
        assert status == 1 and b"denied access" in body


def test_rules_read_again(two):
    conf = two.root / "etc/access.conf"
    conf.write_text(RULES + "allow dn:*CN=guest domain:getattr db-*\n")
    two.process.send_signal(signal.SIGHUP)
    end = time.time() + LIMIT
    while "db-1" not in virsh(two.guest, "list", "--all", "--name").stdout:
        assert time.time() < end
    conf.write_text("allow everybody everything\n")
    two.process.send_signal(signal.SIGHUP)
    assert "web-1" in virsh(two.guest, "list", "--all", "--name").stdout  # the old ones stay
    log = two.log()
    assert "access.conf line 1" in log and "stay as they were" in log


def test_keeld_refuses_nonsense(start, tmp_path):  # noqa: F811
    import subprocess
    from daemon import BUILD
    (tmp_path / "rules").write_text("allow * domain:fly\n")
    r = subprocess.run([BUILD / "bin/keeld", "--root", tmp_path / "root", "--access", tmp_path / "rules"], capture_output=True,
                       text=True, timeout=LIMIT)
    assert r.returncode == 1 and "rules line 1: there is no permission 'domain:fly'" in r.stderr
