# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-vsock between a Debian kernel and Unix sockets of the host."""
import os
import pathlib
import socket
import subprocess
import threading

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "guests/vsock.c"


def read_all(s):
    data = b""
    while chunk := s.recv(1 << 20):
        data += chunk
    return data


def test_both_directions(guest, scratch):
    program, path = scratch / "vsock", scratch / "v"
    subprocess.run(["cc", "-static", "-O1", "-o", program, SOURCE], check=True)
    with open(program, "ab") as f:
        f.truncate((f.tell() + 511) // 512 * 512)
    echo = socket.socket(socket.AF_UNIX)
    echo.bind(f"{path}_77")
    echo.listen()

    def serve():
        connection, _ = echo.accept()
        with connection:
            connection.sendall(read_all(connection))

    threading.Thread(target=serve, daemon=True).start()
    g = guest("--disk", f"{program},format=raw", "--vsock", f"guest-cid=42,socket={path}", run="vsock")
    g.expect("listening")
    # A port where nobody listens, and what is no request.
    for hello in b"CONNECT 99\n", b"GET / HTTP/1.0\n", b"x" * 100:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(str(path))
            s.sendall(hello)
            try:
                assert s.recv(100) == b""
            except ConnectionResetError:
                pass
    blob = os.urandom(5_000_000)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(str(path))
    s.sendall(b"CONNECT 1234\n")
    line = b""
    while not line.endswith(b"\n"):
        line += s.recv(1)
    assert line.startswith(b"OK ")

    def send():
        s.sendall(blob)
        s.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    assert read_all(s) == blob
    s.close()
    g.expect("echoed")
    sent, back = g.expect("back").split()
    assert sent == back
    assert "Connection reset" in g.expect("nobody")
    assert g.wait() == 0
    assert not path.exists()
