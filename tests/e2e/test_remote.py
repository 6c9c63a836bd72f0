# SPDX-License-Identifier: GPL-2.0-or-later
"""keeld from afar: TLS with client certificates, SASL, plain TCP; stock virsh and keel on the other side."""
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess

import pytest

from daemon import BUILD, LIMIT, Keeld, wait_for

for program in ("virsh", "certtool", "saslpasswd2"):
    if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
        pytest.skip(f"{program} is not installed", allow_module_level=True)

MODE = "system" if os.geteuid() == 0 else "session"


def certtool(*args):
    subprocess.run(["certtool", *map(str, args)], check=True, capture_output=True, timeout=LIMIT)


class Authority:
    """An authority, and certificates of it in libvirt's layouts."""

    def __init__(self, path, name="Keel test"):
        self.path = path
        path.mkdir(parents=True)
        (path / "ca.info").write_text(f"cn = {name}\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 10\n")
        certtool("--generate-privkey", "--key-type", "rsa", "--bits", "2048", "--outfile", path / "cakey.pem")
        certtool("--generate-self-signed", "--load-privkey", path / "cakey.pem", "--template", path / "ca.info", "--outfile",
                 path / "cacert.pem")

    def certificate(self, kind, cert, key, cn, usage, days=10):
        info = self.path / f"{cn}.info"
        info.write_text(f"organization = Keel\ncn = {cn}\nip_address = 127.0.0.1\ndns_name = localhost\n{usage}\nsigning_key\nencryption_key\n"
                        f"expiration_days = {days}\n")
        certtool("--generate-privkey", "--key-type", "rsa", "--bits", "2048", "--outfile", key)
        certtool("--generate-certificate", "--load-privkey", key, "--load-ca-certificate", self.path / "cacert.pem",
                 "--load-ca-privkey", self.path / "cakey.pem", "--template", info, "--outfile", cert)

    def server(self, pki):
        (pki / "CA").mkdir(parents=True)
        (pki / "libvirt/private").mkdir(parents=True)
        shutil.copy(self.path / "cacert.pem", pki / "CA/cacert.pem")
        self.certificate("server", pki / "libvirt/servercert.pem", pki / "libvirt/private/serverkey.pem", "server", "tls_www_server")

    def client(self, path, cn="client", usage="tls_www_client"):
        path.mkdir()
        shutil.copy(self.path / "cacert.pem", path / "cacert.pem")
        self.certificate("client", path / "clientcert.pem", path / "clientkey.pem", cn, usage)
        return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    path = tmp_path_factory.mktemp("pki")
    ours, others = Authority(path / "ours"), Authority(path / "others", "Somebody else")
    ours.server(path / "server")
    ours.client(path / "good")
    ours.client(path / "guest", "guest")
    ours.client(path / "usage", "usage", "tls_www_server")
    others.client(path / "foreign")
    # Trusts our server, but its own certificate is another authority's.
    shutil.copytree(path / "foreign", path / "wrong")
    shutil.copy(ours.path / "cacert.pem", path / "wrong/cacert.pem")
    (path / "none").mkdir()
    shutil.copy(ours.path / "cacert.pem", path / "none/cacert.pem")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class RemoteKeeld(Keeld):
    def __init__(self, root, *options):
        (root / "run").mkdir(parents=True)
        self.root = root
        self.process = subprocess.Popen([BUILD / "bin/keeld", "--root", root, *map(str, options)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.path = root / "run/libvirt-sock"
        wait_for(root / "run/libvirt-sock-ro", self.process)
        self.plain = f"qemu:///{MODE}"
        self.uri = f"{self.plain}?socket={self.path}"

    def log(self):
        if self.process.poll() is None:
            self.stop()
        return self.process.stderr.read()


@pytest.fixture
def start(tmp_path_factory):
    made = []

    def run(*options, files=()):
        path = tmp_path_factory.mktemp("r")
        for name, text in files:
            (path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (path / "root" / name).write_text(text.replace("ROOT", str(path / "root")))
        made.append((path, RemoteKeeld(path / "root", *options)))
        return made[-1][1]
    yield run
    for path, k in made:
        k.end()
        shutil.rmtree(path, ignore_errors=True)


def virsh(uri, *args, stdin=""):
    return subprocess.run(["virsh", "-c", uri, *args], input=stdin, capture_output=True, text=True, timeout=LIMIT,
                          env=dict(os.environ, LC_ALL="C", HOME="/nonexistent"))


def keel(uri, *args, **kw):
    return subprocess.run([BUILD / "bin/keel", "-c", uri, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=LIMIT, **kw)


def tls_uri(port, pki, host="127.0.0.1", extra=""):
    return f"qemu+tls://{host}:{port}/{MODE}?pkipath={pki}{extra}"


XML = "<domain type='qemu'><name>far</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><memory>65536</memory><os><type>hvm</type></os></domain>"


@pytest.fixture(params=["virsh", "keel"])
def client(request):
    return {"virsh": virsh, "keel": keel}[request.param]


def test_tls(start, certificates, client, tmp_path):
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server")
    uri = tls_uri(port, certificates / "good")
    (tmp_path / "far.xml").write_text(XML)
    r = client(uri, "define", str(tmp_path / "far.xml"))
    assert r.returncode == 0, r.stderr
    # More than a TLS record, both ways.
    big = XML.replace("</name>", f"</name><description>{'x' * 300000}</description>")
    (tmp_path / "far.xml").write_text(big)
    r = client(uri, "define", str(tmp_path / "far.xml"))
    assert r.returncode == 0, r.stderr
    r = client(uri, "dumpxml", "far")
    assert r.returncode == 0 and "x" * 300000 in r.stdout
    assert k.ok("list", "--all", "--name").split() == ["far"]
    assert client(tls_uri(port, certificates / "good", "localhost"), "list", "--all").returncode == 0


@pytest.mark.parametrize("which", ["foreign", "wrong", "none", "usage", "guest"])
def test_tls_refusals(start, certificates, client, which):
    """Another authority's certificate (which trusts it, or us), none, one for servers, a name that isn't allowed."""
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server", "--allow-dn", "O=Keel,CN=client", "--allow-dn", "*nobody*")
    r = client(tls_uri(port, certificates / which), "list")
    assert r.returncode != 0 and r.stderr
    if which == "foreign":
        r = client(tls_uri(port, certificates / which, extra="&no_verify=1"), "list")
        assert r.returncode != 0  # not our verification: the server's
    assert client(tls_uri(port, certificates / "good"), "list").returncode == 0
    log = k.log()
    expected = {"none": "no certificate", "guest": "name 'O=Keel,CN=guest' is not allowed",
                "foreign": "handshake fails|refused|no certificate"}.get(which)
    if expected:  # with the others the clients give up when they look at their own certificate; see the next test
        assert re.search(f"127.0.0.1;[0-9]+ is turned away: .*({expected})", log), log


@pytest.mark.parametrize("which,reason", [("good", None), ("foreign", "refused"), ("usage", "refused"), ("none", "no certificate")])
def test_a_client_without_scruples(start, certificates, which, reason):
    """One that shows whatever it has: OpenSSL's. The server's byte is what it may count on."""
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates / "ours/cacert.pem")
    if which != "none":
        context.load_cert_chain(certificates / which / "clientcert.pem", certificates / which / "clientkey.pem")
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as s:
        try:
            with context.wrap_socket(s, server_hostname="127.0.0.1") as t:
                first = t.recv(1)
        except OSError:
            first = b""
    assert first == (b"" if reason else b"\1")
    assert reason is None or re.search(f"turned away: .*{reason}", k.log())


def test_revoked(start, certificates, client, tmp_path):
    pki = tmp_path / "pki"
    shutil.copytree(certificates / "server", pki)
    (tmp_path / "crl.info").write_text("crl_next_update = 10\ncrl_number = 1\n")
    ours = certificates / "ours"
    certtool("--generate-crl", "--load-ca-privkey", ours / "cakey.pem", "--load-ca-certificate", ours / "cacert.pem",
             "--load-certificate", certificates / "good/clientcert.pem", "--template", tmp_path / "crl.info", "--outfile",
             pki / "CA/cacrl.pem")
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", pki)
    assert client(tls_uri(port, certificates / "good"), "list").returncode != 0
    assert client(tls_uri(port, certificates / "guest"), "list").returncode == 0
    assert "revoked" in k.log()


def test_keeld_refuses_bad_certificates(certificates, tmp_path):
    def fails(pki):
        r = subprocess.run([BUILD / "bin/keeld", "--root", tmp_path / "root", "--listen-tls", "127.0.0.1:0", "--pki", pki],
                           capture_output=True, text=True, timeout=LIMIT)
        assert r.returncode == 1
        return r.stderr
    assert "cacert.pem: No such file" in fails(tmp_path / "nothing")
    pki = tmp_path / "pki"
    shutil.copytree(certificates / "server", pki)
    shutil.copy(certificates / "others/cacert.pem", pki / "CA/cacert.pem")
    assert "is not good under" in fails(pki)
    shutil.copy(certificates / "ours/cacert.pem", pki / "CA/cacert.pem")
    shutil.copy(certificates / "good/clientkey.pem", pki / "libvirt/private/serverkey.pem")
    assert "with the key" in fails(pki)
    (pki / "libvirt/servercert.pem").write_text("nonsense")
    assert "servercert.pem" in fails(pki)


def test_strangers(start, certificates):
    """Those who connect and never shake hands wait for their time limit; known ones are served meanwhile."""
    port = free_port()
    k = start("--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server")
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for s in idle[:20]:
        s.sendall(b"\x16\x03\x01\x02\x00\x01")  # a handshake's beginning
    for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(3000), b"\x16\x03\x01\xff\xff" + bytes(70000), b"\x15\x03\x03\x00\x02\x02\x28"):
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as s:
            try:
                s.sendall(data)
                while s.recv(1000):
                    pass
            except ConnectionError:
                pass
    assert virsh(tls_uri(port, certificates / "good"), "list").returncode == 0
    assert k.ok("list") is not None
    for s in idle:
        s.close()


# ---- SASL -------------------------------------------------------------------

SASL_CONF = "mech_list: {mechs}\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: ROOT/etc/sasldb\n"


def add_user(k, user, password):
    subprocess.run(["saslpasswd2", "-p", "-c", "-f", k.root / "etc/sasldb", "-a", "libvirt", "-u", socket.gethostname(), user],
                   input=password, text=True, check=True, timeout=LIMIT, env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin"))


@pytest.fixture
def login(tmp_path, monkeypatch):
    """virsh's and keel's file of names and passwords."""
    def write(user, password):
        (tmp_path / "auth.conf").write_text(f"[credentials-x]\nauthname={user}\npassword={password}\n\n[auth-libvirt-default]\ncredentials=x\n")
        monkeypatch.setenv("LIBVIRT_AUTH_FILE", str(tmp_path / "auth.conf"))
    return write


@pytest.mark.parametrize("how", ["tls-scram", "tls-digest", "tcp-digest"])
def test_sasl(start, certificates, client, login, how, tmp_path):
    port = free_port()
    mechs = "SCRAM-SHA-256" if how == "tls-scram" else "DIGEST-MD5"
    listen = ["--listen-tls", f"127.0.0.1:{port}", "--pki", certificates / "server", "--tls-auth", "sasl"]
    if how == "tcp-digest":
        listen = ["--listen-tcp", f"127.0.0.1:{port}"]
    k = start(*listen, "--allow-user", "fr*", files=[("etc/sasl2/keel.conf", SASL_CONF.format(mechs=mechs))])
    add_user(k, "fred", "secret")
    add_user(k, "mary", "secret")
    uri = f"qemu+tcp://127.0.0.1:{port}/{MODE}" if how == "tcp-digest" else tls_uri(port, certificates / "good")
    login("fred", "secret")
    r = client(uri, "list", "--all")
    assert r.returncode == 0, r.stderr
    (tmp_path / "far.xml").write_text(XML.replace("</name>", f"</name><description>{'y' * 200000}</description>"))
    r = client(uri, "define", str(tmp_path / "far.xml"))
    assert r.returncode == 0, r.stderr
    assert "y" * 200000 in client(uri, "dumpxml", "far").stdout
    for user, password in (("fred", "wrong"), ("nobody", "secret"), ("mary", "secret")):
        login(user, password)
        r = client(uri, "list")
        assert r.returncode != 0 and "authentication" in r.stderr.lower(), (user, r.stderr)
    log = k.log()
    assert "the user 'mary" in log and "fails to log in" in log


def packet(procedure, payload=b"", serial=0):
    return struct.pack(">7I", 28 + len(payload), 0x20008086, 1, procedure, 0, serial, 0) + payload


def test_nothing_before_authentication(start):
    port = free_port()
    start("--listen-tcp", f"127.0.0.1:{port}", files=[("etc/sasl2/keel.conf", SASL_CONF.format(mechs="DIGEST-MD5"))])
    for procedure, payload in ((1, bytes(8)), (60, b"\0\0\0\x0a"), (3, b""), (273, bytes(8)), (68, b"\0\0\0\x04XXXX" + bytes(8)), (69, bytes(8))):
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as s:
            s.sendall(packet(procedure, payload))
            data = s.recv(4096)
            assert data[24:28] == b"\0\0\0\x01", procedure  # an error
            assert b"authentication" in data


def test_tcp_for_everybody(start, client):
    port = free_port()
    start("--listen-tcp", f"127.0.0.1:{port}", "--tcp-auth", "none")
    assert client(f"qemu+tcp://127.0.0.1:{port}/{MODE}", "list", "--all").returncode == 0
