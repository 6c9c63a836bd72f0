# SPDX-License-Identifier: GPL-2.0-or-later
"""keel image and its second opinion, qemu-img, as functions."""
import subprocess

import pytest


def run(*command, status=0, cwd=None):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == status, (command, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.fixture
def image(build):
    return lambda *args, **kw: run(build / "bin/keel", "image", *args, **kw)


def qemu(*args, **kw):
    return run("qemu-img", *args, **kw)
