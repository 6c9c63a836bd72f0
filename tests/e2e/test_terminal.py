# SPDX-License-Identifier: GPL-2.0-or-later
"""An interactive shell on a terminal; Ctrl-] leaves, and the terminal is as it was."""
import os
import pty
import select
import subprocess
import termios
import time


def read_until(fd, word, limit=60):
    seen, end = b"", time.time() + limit
    while word not in seen:
        assert time.time() < end, seen[-500:]
        if select.select([fd], [], [], 1)[0]:
            seen += os.read(fd, 4096)
    return seen


def test_quickstart_shell_and_escape(build):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    p = subprocess.Popen(["scripts/quickstart", str(build)], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                         cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    try:
        read_until(ours, b"/ # ")
        # The prompt of busybox asks the terminal where the cursor is.
        os.write(ours, b"\x1b[1;1R")
        os.write(ours, b"echo sum $((40 + 2))\r")
        read_until(ours, b"sum 42")
        assert termios.tcgetattr(theirs)[3] & termios.ICANON == 0
        os.write(ours, b"\x1d")
        assert p.wait(20) == 0
        assert termios.tcgetattr(theirs)[3] == before[3]
    finally:
        p.kill()
        p.wait()
        os.close(ours)
        os.close(theirs)
